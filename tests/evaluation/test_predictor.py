"""The text predictor: what its identity depends on."""

import pytest
import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.evaluation.predictor import TextPredictor
from llama_adapter.evaluation.task import Question
from llama_adapter.generation.config import SessionConfig
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base, write_notes


@pytest.fixture
def adapter(tiny_base, tmp_path):
    def save(name, gate):
        model = attach_adapter(
            load_base(BaseModelConfig(name_or_path=str(tiny_base))),
            ZeroInitConfig(prompt_length=4),
        )
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "zero_init" in key and "gate" in key:
                    parameter.fill_(gate)
        model.save_pretrained(tmp_path / name)
        write_notes(tmp_path / name, AdapterNotes(template="plain", base=str(tiny_base)))
        return str(tmp_path / name)

    return save


def identity(**settings):
    return TextPredictor(SessionConfig(**settings)).identity


def test_identity_is_what_decides_an_answer(tiny_base, adapter):
    base = str(tiny_base)
    known = {
        "base": identity(base=base),
        "template": identity(base=base, template="plain"),
        "system": identity(base=base, system="Be brief."),
        "length": identity(base=base, max_new_tokens=7),
        "sampling": identity(base=base, temperature=0.5, seed=1),
        "adapter": identity(adapter=[adapter("a", 1.0)]),
        "base beside an adapter": identity(adapter=[adapter("a", 1.0)], use="base"),
    }
    assert len(set(known.values())) == len(known)
    assert identity(base=base, batch_size=3, device="cpu") == known["base"]
    assert identity(adapter=[adapter("renamed", 1.0)]) != known["base"]
    adapter("a", 2.0)  # trained on, in the same folder
    assert identity(adapter=["a"]) != known["adapter"]


def test_an_adapter_answers_in_its_own_template(adapter):
    predictor = TextPredictor(SessionConfig(adapter=[adapter("a", 1.0)], max_new_tokens=4))
    question = Question("1", "Which?", candidates=["north", "south"])
    assert predictor.generator.template_name == "plain"
    assert predictor.length(question) == len("<Which?")
    assert predictor.answer([question]) == predictor.generator.generate(["Which?"], predictor.config)
    (values,) = predictor.log_likelihoods([question])
    assert len(values) == 2
    assert values[0] != values[1]
