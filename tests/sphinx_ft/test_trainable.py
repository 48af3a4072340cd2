"""The published sets of trained parameters, against those that the original code reports."""

import pytest

from llama_adapter.errors import UserError
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import LANGUAGE_MODEL, official_name
from sphinx_ft.trainable import set_trainable
from tests.sphinx_ft.golden_cases import config_of, golden
from tests.sphinx_ft.tiny import tiny_model

_LANGUAGE_PARTS = {"tok_embeddings", "layers", "norm", "output"}
_MARKS = {"start_img", "end_img"}
CASES = [
    ("llama_ens", "all_but_encoders", _LANGUAGE_PARTS | _MARKS | {"qformer_proj", "visual_proj"}),
    ("llama_ens5_light", "mixed_projection", {"visual_proj"}),
    ("llama_ens5_light", "all_but_encoders", _LANGUAGE_PARTS | _MARKS | {"visual_proj"}),
    ("mixtral_sparse_ens5", "mixed_projection_and_marks", _MARKS | {"visual_proj"}),
]
"""Model, set, and the first parts of the names that the original code trains."""
_LANGUAGE = {
    "model.embed_tokens": "tok_embeddings",
    "model.layers": "layers",
    "model.norm": "norm",
    "lm_head": "output",
}


@pytest.mark.parametrize(("case", "name", "expected"), CASES)
def test_sets_are_those_of_the_original(case, name, expected):
    model = SphinxForConditionalGeneration(config_of(case, golden(case)))
    set_trainable(model, name)
    trained = {top_part(name) for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == expected


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
