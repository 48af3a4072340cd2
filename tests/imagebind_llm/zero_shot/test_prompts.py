"""Templates."""

import pytest

from imagebind_llm.zero_shot.prompts import ENSEMBLES, prompts_for
from llama_adapter import UserError


def test_one_plain_sentence_by_default():
    assert prompts_for("audio") == ["A {}."]


def test_ensembles_of_all_modalities_have_one_place_for_the_name():
    assert len(prompts_for("image", ensemble=True)) == 80
    for modality in ENSEMBLES:
        templates = prompts_for(modality, ensemble=True)
        assert len(set(templates)) == len(templates) > 1
        assert all(template.count("{}") == 1 for template in templates)


def test_own_templates_take_the_place_of_all():
    assert prompts_for("image", ensemble=True, templates=["see {}"]) == ["see {}"]
    for wrong in ("a dog", "{} and {}"):
        with pytest.raises(UserError, match="has not one"):
            prompts_for("image", templates=[wrong])
