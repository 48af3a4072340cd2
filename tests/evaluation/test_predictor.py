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


@pytest.fixture
def coco(seeing, tmp_path):
    """A folder of pictures with the names that COCO, TextVQA and GQA give them."""
    names = ("val2014/COCO_val2014_000000000042.jpg", "003a8ae2ef43b901.jpg", "n16.jpg", "a.png")
    for name, path in zip(names, [seeing[1][1]] * len(names), strict=True):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, file)
    return tmp_path / "pictures"


ASKED = {"question": "Which?", "answers": ["x"] * 10}
LAYOUTS = {
    "vqav2": [ASKED | {"question_id": 42000, "image_id": 42}],
    "annotations": {"annotations": [ASKED | {"question_id": 42000, "image_id": 42}]},
    "textvqa": {"data": [ASKED | {"question_id": 1, "image_id": "003a8ae2ef43b901"}]},
    "list": [ASKED | {"question_id": 1, "image": ["a.png"]}],
    "images": [ASKED | {"question_id": 1, "images": ["a.png"]}],
    "right": [ASKED | {"question_id": 1, "image": "a.png"}],
    "gqa": {"1": ASKED | {"imageId": "n16"}},
    "chartqa": [{"imgname": "a.png", "query": "Which?", "label": "x"}],
    "vsr": [{"image": "a.png", "caption": "Which?", "label": 1}],
    "part": [ASKED | {"id": 1, "image": {"path": "a.png", "bytes": None}}],
    "path": [ASKED | {"id": 1, "image_path": "a.png"}],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_public_layout_shows_its_picture(seeing, coco, save, evaluate, name):
    """The answer is that of the picture asked by hand, and not that of a model asked blind."""
    references = save(f"{name}.json", LAYOUTS[name])
    options = {"references": references, "images": coco, "adapter": seeing[0], "max_new_tokens": 6}
    _, items, printed = evaluate("choice", **options)
    assert "1 of 1 questions were asked with their picture." in printed
    assert items[0]["shown"].startswith(str(coco))
    predictor = ModelPredictor(SessionConfig(adapter=[seeing[0]], max_new_tokens=6))
    prompt = items[0]["prompt"]
    assert predictor.answer([Question("1", prompt, image=seeing[1][1])]) == [items[0]["answer"]]
    shutil.rmtree("out")
    _, blind, printed = evaluate("choice", **options, ignore_images=True)
    assert "1 of 1 questions have a picture, which the model was not shown." in printed
    assert (blind[0]["shown"], blind[0]["answer"] != items[0]["answer"]) == (None, True)


def test_a_model_that_sees_is_not_asked_blind(seeing, coco, save, evaluate, refused):
    bare = [ASKED | {"question_id": 1}, ASKED | {"question_id": 2, "image": "a.png"}]
    references = save("r.json", bare)
    options = {"references": references, "images": coco, "adapter": seeing[0], "max_new_tokens": 1}
    said = refused("vqa", **options)
    assert "1 of 2 questions name no picture for a model that sees: '1'. Use --media-field" in said
    assert "--text-questions 1 if these have none by nature" in said
    assert "name no picture" in refused("vqa", **options, text_questions=2)
    _, items, printed = evaluate("vqa", **options, text_questions=1)
    assert "1 of 2 questions were asked with their picture; the other 1 have none by nature." in printed
    assert [item["shown"] for item in items] == [None, str(coco / "a.png")]
    other = save("o.json", [bare[0], bare[1] | {"image": "n16.jpg"}])
    said = refused("vqa", **options | {"references": other}, text_questions=1, output="out/scores.json")
    assert "question '2' was asked with" in said
    assert "Use another --output" in said


def test_a_picture_of_another_name_is_shown_if_it_is_said(seeing, coco, save, evaluate):
    references = save("r.json", [ASKED | {"id": 1, "shot": "a.png", "number": 16}])
    options = {"references": references, "images": coco, "adapter": seeing[0], "max_new_tokens": 1}
    _, items, _ = evaluate("vqa", **options, media_field="shot")
    assert items[0]["shown"] == str(coco / "a.png")
    shutil.rmtree("out")
    _, items, _ = evaluate("vqa", **options, media_name="n{number}.jpg")
    assert items[0]["shown"] == str(coco / "n16.jpg")


def test_a_lost_picture_is_said_before_the_model_is_loaded(seeing, save, refused):
    rows = [{"id": 1, "question": "Which?", "answer": "north", "image": "lost.png"}]
    said = refused("vqa", references=save("r.json", rows), adapter=seeing[0])
    assert "The pictures of 1 of 1 questions are no files here: '1'. Use --images" in said
