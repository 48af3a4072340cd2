"""The model that lmms-eval finds under the name `llama-adapter`."""

from types import SimpleNamespace

import pytest
from PIL import Image

from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.generation import SamplingConfig
from tests.multimodal.seeing import make_folder
from tests.vision.tiny_encoders import draw

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install lmms-eval")
harness = pytest.importorskip("llama_adapter.evaluation.lmms_harness")

OPTIONS = {"max_new_tokens": 6, "do_sample": False, "temperature": 0, "until": ["\n\n"]}


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("seeing"))
    return folder, draw(folder.parent, 2)


@pytest.fixture
def model(seeing):
    folder, paths = seeing
    made = harness.MODEL_REGISTRY_V2.get_model_class("llama-adapter").create_from_arg_string(
        f"adapter={folder}", {"batch_size": 2, "max_batch_size": None, "device": "cpu"}
    )
    documents = [{"picture": picture(path)} for path in paths] + [{"picture": None}]
    made.task_dict = {"task": {"test": documents}}
    return made


def picture(path):
    with Image.open(path) as opened:
        return opened.copy()


def pictures(document):
    return [] if document["picture"] is None else [document["picture"]]


def requests(*middle):
    return [SimpleNamespace(args=("Say", *middle, pictures, number, "task", "test")) for number in range(3)]


def test_answers_are_those_of_generate(model, seeing):
    _, paths = seeing
    found = model.generate_until(requests(OPTIONS))
    asked = [[Turn("user", "Say")]] * 3
    settings = SamplingConfig(max_new_tokens=6)
    assert found == model.generator.answer(asked, settings, images=[*paths, None])
    assert len(set(found)) == 3


def test_likelihoods_are_those_of_evaluate(model, seeing):
    _, paths = seeing
    found = model.loglikelihood(requests(lambda document: "north"))
    scorer = AnswerScorer(model.generator)
    asked = [([Turn("user", "Say")], "north")] * 3
    assert [value for value, _ in found] == pytest.approx(
        scorer.log_likelihoods(asked, images=[*paths, None]), rel=1e-4
    )
    (written, *_) = model.generator.answer([[Turn("user", "Say")]], SamplingConfig(max_new_tokens=4))
    ((_, greedy),) = model.loglikelihood(requests(written)[2:])
    assert greedy


def test_what_it_does_not_know_is_said(model, seeing):
    with pytest.raises(UserError, match="1 requests have several rounds. Use"):
        model.generate_until_multi_round(["x"])
    with pytest.raises(UserError, match="no setting 'pretrained'. Use some of"):
        harness.LlamaAdapterLMM(pretrained="x")
    two = SimpleNamespace(args=("Say", OPTIONS, lambda _: ["a", "b"], 0, "task", "test"))
    with pytest.raises(UserError, match="Document 0 has 2 pictures. Use tasks with one"):
        model.generate_until([two])
