"""Converting an official file and back gives the file, tensor for tensor; what cannot go back is refused."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies
from peft import get_peft_model
from transformers import LlamaForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.checkpoints.convert import KINDS, ConvertConfig, convert
from llama_adapter.conditioning import make_conditioner, save_conditioner
from llama_adapter.errors import UserError
from tests.checkpoints import official_files
from tests.tiny import tiny_llama

ADAPTERS = [kind for kind in KINDS if kind.startswith("adapter-")]
PREFIXED = ("layers.", "norm.")


def there_and_back(shape, content, folder):
    """Write ``content``, convert it and convert the result back; returns what then stands in the file."""
    shape.config().save_pretrained(folder / "base")
    torch.save(content, folder / "official.pth")
    options = {"kind": shape.kind, "base": str(folder / "base")}
    length = shape.length if shape.adapted else None
    convert(
        ConvertConfig(
            checkpoint=str(folder / "official.pth"),
            output=str(folder / "ours"),
            prompt_length=length,
            **options,
        )
    )
    convert(
        ConvertConfig(
            checkpoint=str(folder / "ours"), output=str(folder / "back.pth"), reverse=True, **options
        )
    )
    return torch.load(folder / "back.pth", weights_only=True)


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("kind", ADAPTERS)
@settings(max_examples=12, deadline=None)
@given(data=strategies.data())
def test_there_and_back_is_the_identity(kind, data):
    shape = data.draw(official_files.shapes(kind))
    prefix = data.draw(strategies.sampled_from(["", "llama.", "llma."])) if kind == "adapter-v2" else ""
    tensors = {
        prefix + name if name.startswith(PREFIXED) else name: tensor
        for name, tensor in official_files.tensors(shape).items()
    }
    wrapped = data.draw(strategies.booleans())
    content = {"model": tensors, "config": {"w_bias": True}} if wrapped else tensors
    with tempfile.TemporaryDirectory() as folder:
        back = there_and_back(shape, content, Path(folder))
    if not wrapped:
        assert_equal(back, tensors)
        return
    assert back["config"] == {"w_bias": True}
    assert_equal(back["model"], tensors)


def adapter_folder(folder, **options):
    """A fresh adapter of ours on a tiny LLaMA, as training saves it."""
    base = tiny_llama(num_key_value_heads=4)
    base.save_pretrained(folder / "base")
    get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", **options)).save_pretrained(folder / "ours")
    return {"checkpoint": str(folder / "ours"), "base": str(folder / "base"), "reverse": True}


def test_an_adapter_trained_here_becomes_an_official_file(tmp_path, capsys):
    options = adapter_folder(tmp_path, prompt_length=3, prompt_layers=1)
    convert(ConvertConfig(kind="adapter-v1", output=str(tmp_path / "official.pth"), **options))
    tensors = torch.load(tmp_path / "official.pth", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "adapter_query.weight": (3, 32),
        "layers.1.attention.gate": (1, 4, 1, 1),
    }
    said = capsys.readouterr().out
    assert "no sidecar file" in said
    assert "no gates for layers without prompts" in said


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("adapter-v1", {"deltas": ["output_scale"]}, "have no place in files of --kind adapter-v1"),
        ("adapter-v1", {"prompt_layers": [0]}, "top-most"),
        ("adapter-v2", {"gate_activation": "identity"}, "always uses tanh"),
        ("adapter-v2", {}, "always uses a conditioner"),
    ],
)
def test_what_official_code_does_not_know_is_refused(tmp_path, kind, options, message):
    options = adapter_folder(tmp_path, prompt_length=3, **options)
    with pytest.raises(UserError, match=message):
        convert(ConvertConfig(kind=kind, output=str(tmp_path / "official.pth"), **options))
    assert not (tmp_path / "official.pth").exists()


def test_a_conditioner_of_another_kind_is_refused(tmp_path):
    options = adapter_folder(tmp_path, prompt_length=3)
    other = {"kind": "global_features", "hidden_size": 32, "feature_width": 4}
    save_conditioner(make_conditioner(other), options["checkpoint"])
    with pytest.raises(
        UserError, match=r"has the tensor '\w+.\w+', which no file of --kind adapter-v2 has. Use"
    ):
        convert(ConvertConfig(kind="adapter-v2", output=str(tmp_path / "official.pth"), **options))


def test_an_adapter_of_another_method_is_refused(tmp_path):
    from peft import LoraConfig

    base = tiny_llama()
    assert isinstance(base, LlamaForCausalLM)
    base.save_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    config = ConvertConfig(
        kind="adapter-v1",
        checkpoint=str(tmp_path / "lora"),
        base=str(tmp_path / "base"),
        output=str(tmp_path / "x.pth"),
        reverse=True,
    )
    with pytest.raises(UserError, match="LORA"):
        convert(config)
