"""The text predictor: what its identity depends on."""

import shutil

import pytest
import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.evaluation.predictor import ModelPredictor
from llama_adapter.evaluation.question import Question
from llama_adapter.generation.config import SessionConfig
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base, write_notes
from llama_adapter.multimodal import ImageConditionedModel
from tests.multimodal.seeing import make_folder
from tests.vision.tiny_encoders import draw


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
    return ModelPredictor(SessionConfig(**settings)).identity


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
    predictor = ModelPredictor(SessionConfig(adapter=[adapter("a", 1.0)], max_new_tokens=4))
    question = Question("1", "Which?", candidates=["north", "south"])
    assert predictor.generator.template_name == "plain"
    assert predictor.length(question) == len("<Which?")
    assert predictor.answer([question]) == predictor.generator.generate(["Which?"], predictor.config)
    (values,) = predictor.log_likelihoods([question])
    assert len(values) == 2
    assert values[0] != values[1]


# Pictures


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("seeing"))
    return str(folder), draw(folder.parent, 2)


def questions(paths):
    options = ["north", "south", "in the west"]
    shown = [*paths, None, paths[0]]
    return [
        Question(str(n), "Which?", image=path, candidates=options, has_image=path is not None)
        for n, path in enumerate(shown)
    ]


def test_a_model_that_sees_is_shown_the_pictures(seeing):
    folder, paths = seeing
    predictor = ModelPredictor(SessionConfig(adapter=[folder], max_new_tokens=8, batch_size=3))
    asked = questions(paths)
    assert predictor.sees_images
    answers = predictor.answer(asked)
    assert answers == [predictor.answer([question])[0] for question in asked]
    assert len(set(answers)) == 3
    assert answers[0] == answers[3]


def test_likelihoods_are_those_of_the_whole_model(seeing):
    folder, paths = seeing
    predictor = ModelPredictor(SessionConfig(adapter=[folder], batch_size=4))
    found = predictor.log_likelihoods(questions(paths))
    assert found[0] == pytest.approx(found[3], abs=1e-5)
    model = ImageConditionedModel.from_pretrained(folder)
    for place, path in enumerate([*paths, None]):
        turns = predictor._turns(questions(paths)[place])
        ids, labels = predictor._scorer.encode(turns, "south")
        pixels = {} if path is None else {"pixel_values": model.encoder.pixels([path])}
        with torch.no_grad():
            logits = model(torch.tensor([ids]), **pixels).logits[0].log_softmax(-1)
        value = sum(logits[n - 1, label].item() for n, label in enumerate(labels) if label >= 0)
        assert found[place][1] == pytest.approx(value, abs=1e-3)


def test_what_is_seen_through_is_part_of_the_identity(seeing, tmp_path):
    folder, paths = seeing
    known = identity(adapter=[folder])
    assert identity(adapter=[folder], feature_cache=str(tmp_path)) == known
    assert identity(adapter=[str(make_folder(tmp_path))]) == known  # the same, made again elsewhere
    assert identity(adapter=[folder], use="base") != known


def test_a_task_with_pictures_is_asked_and_scored(seeing, save, evaluate):
    folder, paths = seeing
    rows = [
        {"id": n, "question": "Which?", "answer": "north", "options": ["north", "south"], "image": path}
        for n, path in enumerate(paths)
    ]
    references = save("r.json", rows)
    found, items, _ = evaluate(
        "choice", references=references, adapter=folder, score="both", max_new_tokens=4, feature_cache="cache"
    )
    assert len({tuple(item["log_likelihoods"]) for item in items}) == 2
    assert not any("not shown" in note for note in found.get("notes", []))
    shutil.rmtree("out")
    _, blind, _ = evaluate(
        "choice",
        references=references,
        adapter=folder,
        score="both",
        max_new_tokens=4,
        ignore_images=True,
    )
    assert len({tuple(item["log_likelihoods"]) for item in blind}) == 1


def test_a_lost_picture_is_said_before_the_model_is_loaded(seeing, save, refused):
    rows = [{"id": 1, "question": "Which?", "answer": "north", "image": "lost.png"}]
    said = refused("vqa", references=save("r.json", rows), adapter=seeing[0])
    assert "The pictures of 1 of 1 questions are no files here: '1'. Use --images" in said
