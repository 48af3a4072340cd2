"""The published sets of trained parameters, against those that the original code reports."""

import json

import pytest

from llama_adapter.errors import UserError
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import LANGUAGE_MODEL, official_name
from sphinx_ft.trainable import set_trainable
from tests.sphinx_ft.golden_cases import REFERENCE, config_of, golden
from tests.sphinx_ft.tiny import tiny_model

CASES = {
    ("llama_ens", "default"): "all_but_encoders",
    ("llama_ens5_light", "mm_stage1"): "mixed_projection",
    ("llama_ens5_light", "mm_stage2"): "all_but_encoders",
    ("mixtral_sparse_ens5", "mm_stage1"): "mixed_projection_and_marks",
}
_LANGUAGE = {
    "model.embed_tokens": "tok_embeddings",
    "model.layers": "layers",
    "model.norm": "norm",
    "lm_head": "output",
}


@pytest.mark.parametrize(("case", "mode"), CASES)
def test_sets_are_those_of_the_original(case, mode):
    file = REFERENCE / f"sphinx_{case}.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    expected = set(json.loads(file.read_text())["facts"]["trainable"][mode])
    model = SphinxForConditionalGeneration(config_of(case, golden(case)))
    set_trainable(model, CASES[case, mode])
    assert {top_part(name) for name, weight in model.named_parameters() if weight.requires_grad} == expected


def top_part(name):
    """The first part of the official name."""
    if not name.startswith(LANGUAGE_MODEL):
        return official_name(name).split(".")[0]
    inner = name.removeprefix(LANGUAGE_MODEL)
    return next(official for ours, official in _LANGUAGE.items() if inner.startswith(ours))


def test_counts_and_refuses():
    model = tiny_model()
    assert set_trainable(model, "everything") == sum(weight.numel() for weight in model.parameters())
    before = set_trainable(model, "view_tokens")
    assert before == sum(weight.numel() for weight in model.view_tokens.parameters())
    with pytest.raises(UserError, match="no set of parameters 'all'. Use one of"):
        set_trainable(model, "all")
    with pytest.raises(UserError, match="no parameters of the set 'mixed_projection'"):
        set_trainable(tiny_model((tiny_model().encoders.configs[0],)), "mixed_projection")
