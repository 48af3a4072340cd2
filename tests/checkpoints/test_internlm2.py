"""InternLM2's combined maps become a LLaMA's with the same numbers, and back."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.errors import UserError

NAMES = {
    "model.embed_tokens": "model.tok_embeddings",
    "lm_head": "output",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
HEAD = 4


def llama(groups, queries, biased):
    """A random LLaMA."""
    torch.manual_seed(groups + queries)
    heads = groups * queries
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=heads * HEAD,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        attention_bias=biased,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def internlm2(model, groups, queries):
    """Its weights as InternLM2 names and combines them, row by row."""
    ours, found = model.state_dict(), {}
    for name, tensor in ours.items():
        if not any(part in name for part in ("q_proj", "k_proj", "v_proj")):
            for old, new in NAMES.items():
                name = name.replace(old, new)
            found[name] = tensor
        elif "q_proj" in name:
            keys, values = (ours[name.replace("q_proj", part)] for part in ("k_proj", "v_proj"))
            rows = []
            for group in range(groups):
                first = group * queries * HEAD
                rows += [tensor[first + row] for row in range(queries * HEAD)]
                rows += [keys[group * HEAD + row] for row in range(HEAD)]
                rows += [values[group * HEAD + row] for row in range(HEAD)]
            found[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.stack(rows)
    return found


def settings_of(model):
    config = model.config
    return {
        "model_type": "internlm2",
        "vocab_size": 20,
        "hidden_size": config.hidden_size,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "bias": config.attention_bias,
        "rope_theta": 1000000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "max_position_embeddings": 32768,
    }


def write(folder, tensors, content, safe):
    """Two files, as the releases have several."""
    folder.mkdir()
    for index in range(2):
        share = dict(list(tensors.items())[index::2])
        if safe:
            save_file(
                share, folder / f"model-0000{index + 1}-of-00002.safetensors", metadata={"format": "pt"}
            )
        else:
            torch.save(share, folder / f"pytorch_model-0000{index + 1}-of-00002.bin")
    (folder / "config.json").write_text(json.dumps(content))


def run(source, output, **options):
    return convert(ConvertConfig(kind="internlm2", checkpoint=str(source), output=str(output), **options))


def read(folder):
    """All tensors of a folder, by file."""
    from safetensors.torch import load_file

    found = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
    return found | {path.name: torch.load(path, weights_only=True) for path in folder.glob("*.bin")}


@settings(max_examples=8, deadline=None)
@given(groups=st.integers(1, 3), queries=st.integers(1, 3), biased=st.booleans(), safe=st.booleans())
def test_the_model_computes_the_same_and_comes_back(tmp_path_factory, groups, queries, biased, safe):
    folder = tmp_path_factory.mktemp("internlm2")
    model = llama(groups, queries, biased)
    write(folder / "official", internlm2(model, groups, queries), settings_of(model), safe)
    run(folder / "official", folder / "hf")
    converted = AutoModelForCausalLM.from_pretrained(folder / "hf")
    tokens = torch.tensor([[1, 5, 9, 3]])
    assert torch.equal(converted(tokens).logits, model(tokens).logits)
    assert converted.config.rope_parameters == model.config.rope_parameters
    run(folder / "hf", folder / "back", reverse=True)
    assert json.loads((folder / "back" / "config.json").read_text()) == settings_of(model)
    first, second = read(folder / "official"), read(folder / "back")
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        assert tensors.keys() == second[name].keys()
        assert all(torch.equal(tensor, second[name][key]) for key, tensor in tensors.items())


def test_another_model_s_config_is_refused(tmp_path):
    model = llama(1, 1, biased=False)
    write(tmp_path / "official", internlm2(model, 1, 1), {"model_type": "qwen2"}, safe=True)
    with pytest.raises(UserError, match="'qwen2', not 'internlm2'"):
        run(tmp_path / "official", tmp_path / "hf")


def test_a_llama_that_never_was_internlm2_becomes_one(tmp_path, capsys):
    model = llama(2, 2, biased=True)
    model.save_pretrained(tmp_path / "hf")
    run(tmp_path / "hf", tmp_path / "official", reverse=True)
    assert "no sidecar file" in " ".join(capsys.readouterr().out.split())
    (tensors,) = read(tmp_path / "official").values()
    wanted = internlm2(model, 2, 2)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
