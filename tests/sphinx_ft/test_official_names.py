"""Every tensor of the visual side has its official place, and comes back from it."""

import re

import pytest
import torch

from llama_adapter.errors import UserError
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import PREFIX, UNUSED, official_name, official_tensors
from tests.sphinx_ft.golden_cases import config_of, from_official, golden


@pytest.mark.parametrize("case", ["llama_ens", "llama_ens5_light"])
def test_names_are_those_of_the_files_and_weights_come_back(case):
    tensors = golden(case)
    model = SphinxForConditionalGeneration(config_of(case, tensors))
    stored = official_tensors({name: tuple(weight.shape) for name, weight in model.state_dict().items()})
    language = ("layers.", "norm.", "output.", "tok_embeddings.")
    official = {name.removeprefix(PREFIX) for name in tensors if name.startswith(PREFIX)}
    others = {
        name
        for name in official
        if not name.startswith(language) and not any(re.fullmatch(one, name) for one in UNUSED)
    }
    assert {one.name for one in stored} == others
    ours = from_official(stored, tensors)
    for one in stored:
        parts = [one.layout.turn_back(ours[name]) for name in one.weights]
        assert torch.equal(one.layout.paste(parts), tensors[PREFIX + one.name]), one.name


def test_refuses_encoders_that_no_official_model_has():
    with pytest.raises(UserError, match="'encoders.members.other.weight' has no place"):
        official_name("encoders.members.other.weight")
