"""What is written reads back as what it was, or is refused by name: adapters of any settings, and models."""

import copy
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters import prompt_context
from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.checkpoints.way_back import check_way_back, differing
from llama_adapter.conditioning import load_conditioner, make_conditioner, save_conditioner
from llama_adapter.errors import UserError
from llama_adapter.models import AdapterNotes, write_notes
from tests.adapters.test_merging import stirred
from tests.tiny import tiny_llama

IDS = torch.tensor([[1, 5, 9, 30, 7]])
LAYERS, WIDTH, FEATURES = 2, 32, 6

deltas = st.lists(
    st.sampled_from(["bias", "input_scale", "output_scale", "lora"]).flatmap(
        lambda kind: st.fixed_dictionaries(
            {"kind": st.just(kind), "targets": st.sampled_from([["attention", "mlp"], ["attention"]])}
            | ({"rank": st.integers(1, 3)} if kind == "lora" else {})
        )
    ),
    max_size=2,
    unique_by=lambda delta: delta["kind"],
)
ANY = {
    "prompt_length": st.integers(0, 4),
    "prompt_layers": st.sampled_from([None, 1, -1, [0], [0, 1]]),
    "gate": st.sampled_from(["head", "scalar"]),
    "gate_activation": st.sampled_from(["tanh", "identity"]),
    "new_gate": st.booleans(),
    "deltas": deltas,
    "norms": st.sampled_from([None, True, {"final_norm": False}]),
    "delta_layers": st.sampled_from([None, 1]),
}
FITTING = {
    "adapter-v1": {"prompt_length": 3},
    "adapter-v2": {"prompt_length": 3, "deltas": ["bias", {"kind": "lora", "rank": 2}], "norms": True},
    "adapter-v2-chat": {"prompt_length": 0, "deltas": ["input_scale", "bias"], "norms": True},
}


@st.composite
def adapters(draw, kind):
    """Settings that files of a kind can hold, up to two of them changed to anything."""
    changed = draw(st.sets(st.sampled_from(sorted(ANY)), max_size=2))
    return FITTING[kind] | {name: draw(ANY[name]) for name in sorted(changed)}


conditioners = st.fixed_dictionaries(
    {
        "num_heads": st.sampled_from([2, 16, 16]),
        "early_layers": st.sampled_from([None, None, 1, 2]),
        "initial_scale": st.sampled_from([1.0, 0.5]),
    }
)


def saved(folder, base, options, visual):
    """Save a stirred adapter, and a conditioner with these settings if some are given."""
    adapted = get_peft_model(copy.deepcopy(base), ZeroInitConfig(task_type="CAUSAL_LM", **options))
    stirred(adapted).save_pretrained(folder)
    if visual is not None:
        sizes = {"hidden_size": WIDTH, "feature_width": FEATURES, "width": 32, "depth": 1, "mlp_width": 8}
        queries = {"kind": "visual_queries", "num_queries": options["prompt_length"], **sizes}
        save_conditioner(make_conditioner({**queries, **visual}), folder)


@torch.no_grad()
def outputs(folder, base):
    """Logits of an adapter's folder, under its conditioner where it has one."""
    adapted = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    if not (folder / "conditioner.safetensors").is_file():
        return adapted(IDS).logits
    features = torch.linspace(-1, 1, 3 * FEATURES).view(1, 3, FEATURES)
    with prompt_context(adapted, load_conditioner(folder)(features)):
        return adapted(IDS).logits


@pytest.mark.parametrize("kind", ["adapter-v1", "adapter-v2", "adapter-v2-chat"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_an_adapter_of_any_settings_comes_back_equal_or_is_refused(kind, data):
    options, visual = data.draw(adapters(kind)), data.draw(conditioners)
    base = tiny_llama(num_key_value_heads=4, max_position_embeddings=64)
    has_conditioner = kind == "adapter-v2" and options["prompt_length"] > 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base.save_pretrained(folder / "base")
        try:
            saved(folder / "ours", base, options, visual if has_conditioner else None)
            want = outputs(folder / "ours", base)
        except UserError:
            return  # no adapter at all
        common = {"kind": kind, "base": str(folder / "base")}
        try:
            convert(
                ConvertConfig(
                    checkpoint=str(folder / "ours"), output=str(folder / "file.pth"), reverse=True, **common
                )
            )
        except UserError:
            assert not (folder / "file.pth").exists()
            return
        told = {"prompt_length": options["prompt_length"] or None} if kind == "adapter-v1" else {}
        if kind == "adapter-v1" and options["prompt_length"]:
            told["gate_activation"] = options.get("gate_activation")
        convert(
            ConvertConfig(checkpoint=str(folder / "file.pth"), output=str(folder / "again"), **common, **told)
        )
        torch.testing.assert_close(outputs(folder / "again", base), want)


@pytest.mark.parametrize(
    ("visual", "words"),
    [
        ({"num_heads": 8}, "num_heads=8, read as 16"),
        ({"early_layers": 1}, "early_layers=1, read as None"),
        ({"early_layers": 2}, None),
        ({"initial_scale": 0.25}, None),
    ],
)
def test_what_a_v2_file_has_no_place_for_is_refused_by_name(visual, words, tmp_path):
    base = tiny_llama(num_key_value_heads=4)
    base.save_pretrained(tmp_path / "base")
    options = {"prompt_length": 3, "deltas": ["bias"], "norms": True}
    saved(tmp_path / "ours", base, options, {"num_heads": 16, **visual})
    common = {"kind": "adapter-v2", "base": str(tmp_path / "base"), "output": str(tmp_path / "x.pth")}
    config = ConvertConfig(checkpoint=str(tmp_path / "ours"), reverse=True, **common)
    if words is None:
        assert convert(config) == 0
        return
    with pytest.raises(UserError, match=f"Files of --kind adapter-v2 have no place for {words}"):
        convert(config)
    assert not (tmp_path / "x.pth").exists()


def test_what_the_reader_must_be_told_is_said_on_both_ways(tmp_path, capsys):
    base = tiny_llama(num_key_value_heads=4)
    base.save_pretrained(tmp_path / "base")
    saved(tmp_path / "ours", base, {"prompt_length": 4, "gate_activation": "identity"}, None)
    write_notes(tmp_path / "ours", AdapterNotes(template="chat"))
    common = {"kind": "adapter-v1", "base": str(tmp_path / "base")}
    out = str(tmp_path / "v1.pth")
    convert(ConvertConfig(checkpoint=str(tmp_path / "ours"), output=out, reverse=True, **common))
    said = capsys.readouterr().out
    assert "read it with --gate_activation identity" in said
    assert "trained with the template chat; code for such files asks with alpaca" in said

    saved(tmp_path / "v2", base, {"prompt_length": 3, "deltas": ["bias"], "norms": True}, {"num_heads": 16})
    common = {"kind": "adapter-v2", "base": str(tmp_path / "base")}
    out = str(tmp_path / "v2.pth")
    convert(ConvertConfig(checkpoint=str(tmp_path / "v2"), output=out, reverse=True, **common))
    capsys.readouterr()
    convert(ConvertConfig(checkpoint=out, output=str(tmp_path / "again"), **common))
    assert "Taken for granted, as in all published files: 16 heads" in capsys.readouterr().out
    assert PeftConfig.from_pretrained(tmp_path / "again").prompt_length == 3


def test_numbers_are_alike_whatever_their_type():
    assert not differing({"theta": 10000, "a": {"x": 1, "y": None}}, {"theta": 1e4, "a": {"x": 1.0}})
    found = differing({"theta": 5, "rate": 0.1, "dtype": "x"}, {"theta": 6})
    assert found == {"theta": "theta=5, read as 6", "rate": "rate=0.1, read as None"}
    check_way_back({}, "x")
    with pytest.raises(UserError, match=r"Files of --kind x have no place for theta=5, read as 6\. Keep"):
        check_way_back(found, "x", aside=["rate"])


MODELS = {
    "meta-llama": tiny_llama,
    "internlm2": tiny_llama,
}
rotary = st.sampled_from(
    [
        {"rope_type": "default", "rope_theta": 10000.0},
        {"rope_type": "default", "rope_theta": 500000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 3.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    ]
)  # fmt: skip
models = st.fixed_dictionaries(
    {
        "rope_parameters": rotary,
        "hidden_act": st.sampled_from(["silu", "silu", "gelu"]),
        "attention_bias": st.sampled_from([False, False, True]),
        "mlp_bias": st.sampled_from([False, False, False, True]),
        "tie_word_embeddings": st.booleans(),
        "head_dim": st.sampled_from([8, 8, 4]),
        "rms_norm_eps": st.sampled_from([1e-5, 1e-6]),
        "num_key_value_heads": st.sampled_from([2, 4]),
        "intermediate_size": st.sampled_from([48, 96]),
    }
)


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=12, deadline=None)
@given(options=models)
def test_a_model_of_any_settings_comes_back_equal_or_is_refused(kind, options):
    model = MODELS[kind](**options)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        model.save_pretrained(folder / "hf")
        try:
            convert(
                ConvertConfig(
                    kind=kind, checkpoint=str(folder / "hf"), output=str(folder / "x"), reverse=True
                )
            )
        except UserError:
            assert not (folder / "x").exists()
            return
        convert(ConvertConfig(kind=kind, checkpoint=str(folder / "x"), output=str(folder / "again")))
        again = AutoModelForCausalLM.from_pretrained(folder / "again")
        torch.testing.assert_close(again(IDS).logits, model(IDS).logits)
