"""Runs the support matrix: one test per cell, and the page in the docs is the table that was run."""

import os
import re

import pytest
import torch

from llama_adapter.adapters.families import FAMILIES
from tests.adapters.matrix.processes import KNOWN_WARNING, REPOSITORY, bystander_answers, share
from tests.adapters.matrix.subjects import SUBJECTS, trainable
from tests.adapters.matrix.table import CHECKS, COMMAND, NOT_APPLICABLE, RUN, cell, page
from tests.adapters.matrix.tiny_models import DECODER, IMAGE, TEXT

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{KNOWN_WARNING}:FutureWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
]

_AFTER_THE_STACK = {"gpt2": "transformer.ln_f", "falcon": "transformer.ln_f", "bloom": "transformer.ln_f"}
_AFTER_THE_STACK |= {"mpt": "transformer.norm_f", "vit": "vit.layernorm", "dinov2": "dinov2.layernorm"}
_AFTER_THE_STACK |= dict.fromkeys(("clip_vision_model", "siglip_vision_model"), "post_layernorm")
FINAL_NORMS = {name: {_AFTER_THE_STACK.get(name, "model.norm")} for name in SUBJECTS}
FINAL_NORMS |= {name: set() for name in ("bert", "roberta", "deberta-v2")}  # each layer ends with a norm


def _cells():
    for check in CHECKS:
        for subject in SUBJECTS.values():
            if cell(check, subject).state != NOT_APPLICABLE:
                marks = [pytest.mark.slow] if check.slow else []
                yield pytest.param(check, subject, id=f"{check.name}-{subject.model_type}", marks=marks)


@pytest.fixture(scope="module", autouse=True)
def shared_folder(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    share(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("check", "subject"), list(_cells()))
def test_cell(check, subject):
    check.run(subject)


def test_every_declared_family_has_a_column():
    assert set(SUBJECTS) == set(FAMILIES)


def test_rules_name_existing_models():
    known = set(SUBJECTS) | {DECODER, TEXT, IMAGE, "no prompts"}
    for check in CHECKS:
        assert set(check.not_applicable) <= known
        assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_declared_gaps_are_used():
    """A part that a family declares unsupported is expected to raise by at least one check."""
    parts = {part for family in FAMILIES.values() for part in family.unsupported}
    assert parts <= {part for check in CHECKS for part in check.parts}


@pytest.mark.parametrize("subject", list(SUBJECTS.values()), ids=list(SUBJECTS))
def test_transformers_still_refuses_what_the_table_says(subject):
    """When transformers learns sdpa or flex attention for a model, its cells must be run."""
    model = subject.base()
    by_name = {check.name: check for check in CHECKS}
    flex = cell(by_name["flex_attention_agrees"], subject).state == RUN
    sdpa = cell(by_name["implementations_agree"], subject).state == RUN
    assert flex == model._supports_flex_attn
    assert sdpa == model._supports_sdpa == ("sdpa" in subject.implementations)


@pytest.mark.parametrize("subject", list(SUBJECTS.values()), ids=list(SUBJECTS))
def test_tuned_norms_end_with_the_one_after_the_layers(subject):
    """Not with one before the layers, as Bloom and CLIP have, and not with none where there is one."""
    model = subject.adapt(subject.deltas_only([], norms=True, delta_layers=1), noise=0)
    outside = {
        name.rpartition(".zero_init")[0] for name in trainable(model) if not re.search(r"\.\d+\.", name)
    }
    assert {name.removeprefix("base_model.model.") for name in outside} == FINAL_NORMS[subject.model_type]


def test_files_with_several_eager_functions_stay_untouched():
    answers = bystander_answers()
    assert set(answers) == {
        f"llama4 {part} {name}" for part in ("text", "vision") for name in ("eager", "sdpa")
    }
    assert set(answers.values()) == {"equal"}


def test_page_is_the_table_that_is_run():
    path = REPOSITORY / "docs" / "support-matrix.md"
    assert path.read_text() == page(), f"docs/support-matrix.md is stale: run `{COMMAND}`"
