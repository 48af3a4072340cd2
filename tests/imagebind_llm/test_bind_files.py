"""Official ImageBind-LLM files: to a folder that answers as the original code did, and back to the bit."""

import json

import pytest
import torch

from imagebind_llm import ImageBindLlm
from imagebind_llm.bind import BindConfig, BindNetwork, official_name, our_name
from llama_adapter import UserError
from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.conditioning import load_conditioner
from llama_adapter.models import read_notes
from llama_adapter.multimodal.model import saved_vision
from tests.checkpoints.golden_cases import BASE_ALONE, BASE_PARTS, NORM_WEIGHTS, PARAMS
from tests.imagebind_llm.tiny import golden, golden_llm

CASES = pytest.mark.parametrize("case", ["imagebind_llm", "imagebind_llm_legacy"])
FROZEN = (*(f"llama.{name}" for name in BASE_ALONE), *BASE_PARTS)


def official(case):
    """The file of a golden, as `convert_ckpt` of the original code leaves it."""
    weights = {name: tensor for name, tensor in golden_llm(case).items() if "golden." not in name}
    return {
        name: tensor
        for name, tensor in weights.items()
        if "lora_" in name or not name.endswith(FROZEN) or name.startswith("image_bind_")
    }


def write_base(case, folder):
    """The golden's LLaMA, from Meta's files."""
    plain = {name.removeprefix("llama."): tensor for name, tensor in golden_llm(case).items()}
    wanted = (*BASE_PARTS, *NORM_WEIGHTS, *BASE_ALONE)
    base = {
        name: tensor
        for name, tensor in plain.items()
        if name.endswith(wanted)
        and name.startswith(("layers.", "norm.", *BASE_ALONE))
        and "lora_" not in name
    }
    meta = folder / "meta"
    meta.mkdir(parents=True)
    torch.save(base, meta / "consolidated.00.pth")
    (meta / "params.json").write_text(json.dumps(PARAMS))
    convert(ConvertConfig(kind="meta-llama", checkpoint=str(meta), output=str(folder / "base")))
    return folder / "base"


def to_ours(case, folder, **changes):
    """Convert a golden's file; returns the adapter's folder."""
    base = write_base(case, folder)
    torch.save({"model": official(case) | changes}, folder / "7B.pth")
    options = {"base": str(base), "output": str(folder / "ours"), "encoder": "models/imagebind"}
    convert(ConvertConfig(kind="imagebind-llm", checkpoint=str(folder / "7B.pth"), **options))
    return folder / "ours"


def test_files_give_the_logits_of_the_original_code(tmp_path):
    folder = to_ours("imagebind_llm", tmp_path)
    model = ImageBindLlm.from_pretrained(folder)
    tensors = {name.removeprefix("llama."): tensor for name, tensor in golden("imagebind_llm").items()}
    embeddings = tensors["golden.outputs.mixed_after_cache"]
    with torch.no_grad():
        logits = model(tensors["golden.inputs.tokens"], embeddings=embeddings).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.logits"], atol=5e-5, rtol=0)
    assert read_notes(folder).template == "alpaca"
    assert saved_vision(folder).name_or_path == "models/imagebind"


@CASES
def test_there_and_back_is_the_same_file(case, tmp_path):
    folder, back = to_ours(case, tmp_path), tmp_path / "back.pth"
    options = {"base": str(tmp_path / "base"), "output": str(back), "reverse": True}
    convert(ConvertConfig(kind="imagebind-llm", checkpoint=str(folder), **options))
    before, after = (torch.load(path)["model"] for path in (tmp_path / "7B.pth", back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert set(torch.load(back)) == {"model"}


@CASES
def test_names_there_and_back(case):
    names = [name for name in golden(case) if name.startswith("image_bind_")]
    network = BindNetwork(BindConfig.of_official(golden(case)))
    assert sorted(map(our_name, names)) == sorted(network.state_dict())
    assert [official_name(our_name(name)) for name in names] == names


def test_the_settings_are_written_down(tmp_path):
    folder = to_ours("imagebind_llm_legacy", tmp_path)
    assert load_conditioner(folder).config.bridge == "legacy"


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match=r"image_bind_f1_2\.weight"):
        to_ours("imagebind_llm", tmp_path / "a", **{"image_bind_f1_2.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match=r"image_bind_f9_1\.weight"):
        to_ours("imagebind_llm", tmp_path / "b", **{"image_bind_f9_1.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="files of --kind adapter-v1 have none"):
        ConvertConfig(kind="adapter-v1", checkpoint="a", output="b", encoder="c")
