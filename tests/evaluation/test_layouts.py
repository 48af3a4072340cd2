"""Whole files through the command line: every layout in every order gives the score it should."""

import json
import random
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.evaluation.anls import ANLS, ANLSConfig
from llama_adapter.evaluation.captions.coco import read_references
from llama_adapter.evaluation.choice import Choice, ChoiceConfig
from llama_adapter.evaluation.mme import MME, MMEConfig
from llama_adapter.evaluation.predictions import read_predictions
from llama_adapter.evaluation.refcoco import RefCOCO, RefCOCOConfig
from llama_adapter.evaluation.relaxed import Relaxed, RelaxedConfig
from llama_adapter.evaluation.scienceqa.task import ScienceQA, ScienceQAConfig
from llama_adapter.evaluation.task import evaluate as score
from llama_adapter.evaluation.vqa import VQA, VQAConfig

SAID = ["dog", "2", "yes", "red"]

REFERENCES = {
    "vizwiz": [
        {"image": f"VizWiz_val_{n}.jpg", "question": "What?", "answers": [{"answer": said}] * 10}
        for n, said in enumerate(SAID)
    ],
    "vqa": {
        "annotations": [
            {"question_id": n, "image_id": n // 2, "answers": [{"answer": said, "answer_id": 1}] * 10}
            for n, said in enumerate(SAID)
        ]
    },
    "textvqa": {
        "data": [
            {"question_id": n, "image_id": "0a", "question": "?", "answers": [said] * 10}
            for n, said in enumerate(SAID)
        ]
    },
    "gqa": {
        str(n): {"question": "?", "imageId": "n1", "answer": said, "fullAnswer": f"It is {said}."}
        for n, said in enumerate(SAID)
    },
    "chartqa": [
        {"imgname": f"{n // 2}.png", "query": f"Which {n}?", "label": said} for n, said in enumerate(SAID)
    ],
    "plain": [{"id": n, "question": "?", "answer": said} for n, said in enumerate(SAID)],
}
"""Files of four questions as public data sets have them."""


def predicted(name):
    """Records with the keys that predictions for such a file have."""
    rows = REFERENCES[name]
    rows = rows if isinstance(rows, list) else rows.get("annotations", rows.get("data"))
    if rows is None:
        return [{"question_id": key} for key in REFERENCES[name]]
    names = ("question_id", "image", "imgname", "query", "id")
    return [{key: row[key] for key in names if key in row} for row in rows]


def layouts(name, draw):
    """The same predictions in every layout, in any order."""
    rows = [(keys, said) for keys, said in zip(predicted(name), SAID, strict=True)]
    draw.shuffle(rows)
    for field in ("answer", "prediction", "text"):
        yield [{**keys, field: said} for keys, said in rows]
    yield [{**keys, "answer": [said]} for keys, said in rows]
    yield {"results": [{**keys, "answer": {"answer": said}} for keys, said in rows]}
    if name != "chartqa":
        yield {str(next(iter(keys.values()))): said for keys, said in rows}
        yield {str(next(iter(keys.values()))): [{"answer": said}] for keys, said in rows}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("task", [(VQA, VQAConfig), (Choice, ChoiceConfig), (ANLS, ANLSConfig)])
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.randoms())
def test_any_layout_in_any_order_gives_the_same_score(tmp_path, name, task, draw):
    make, settings_of = task
    references, path = tmp_path / "r.json", tmp_path / "p.json"
    references.write_text(json.dumps(REFERENCES[name]))
    config = settings_of(references=str(references), predictions=str(path))
    for layout in layouts(name, draw):
        path.write_text(json.dumps(layout))
        scores = score(make(config), read_predictions(path), config)
        assert scores.rows[-1].value in (100, 1), layout
        assert scores.rows[-1].count == len(SAID)


def test_vqa_questions_stand_in_a_file_of_their_own(save, tmp_path):
    questions = {"questions": [{"question_id": n, "image_id": n, "question": f"Q{n}?"} for n in (3, 1, 0, 2)]}
    config = VQAConfig(
        references=save("a.json", REFERENCES["vqa"]), question_file=save("q.json", questions), base="any"
    )
    prompts = [question.prompt.split("\n")[0] for question in VQA(config).questions()]
    assert prompts == ["Q0?", "Q1?", "Q2?", "Q3?"]
    lost = {"questions": questions["questions"][:2]}
    config = VQAConfig(references=config.references, question_file=save("l.json", lost), base="any")
    with pytest.raises(UserError, match="has no question for 2 of 4 records of .*: '0', '2'"):
        VQA(config).questions()


def test_statements_are_true_or_false(save, evaluate):
    rows = [
        {"image": f"{n // 2}.jpg", "caption": f"The cat is {n}.", "label": n % 2, "relation": "at"}
        for n in range(4)
    ]
    references = save("r.json", rows)
    for words in (("False", "True"), ("no", "Yes."), (0, 1), ("0", "1"), (False, True)):
        said = [
            {"image": row["image"], "caption": row["caption"], "prediction": words[row["label"]]}
            for row in rows
        ]
        found, _, _ = evaluate("choice", references=references, predictions=save("p.json", said[::-1]))
        assert found["scores"]["accuracy"] == 100, words


def test_captions_in_lists_are_captions(save, evaluate):
    texts = {"1": "a dog on grass", "2": "two men on a horse", "3": "x"}
    references = save(
        "r.json", {"1": ["a dog on grass", "a brown dog"], "2": ["two men riding a horse"], "3": ["a plate"]}
    )
    layouts = [
        texts,
        {name: [said] for name, said in texts.items()},
        {name: [{"caption": said}] for name, said in texts.items()},
        [{"image_id": int(name), "caption": said} for name, said in reversed(texts.items())],
        [{"image_id": name, "id": 9 - int(name), "caption": [said]} for name, said in texts.items()],
        {"annotations": [{"image_id": int(name), "caption": said} for name, said in texts.items()]},
    ]
    options = {"references": references, "java_scores": "false"}
    scores = [
        evaluate("coco-caption", **options, predictions=save("p.json", layout))[0]["scores"]
        for layout in layouts
    ]
    assert scores[0]["CIDEr"] > 2
    assert scores == [scores[0]] * len(layouts)


def test_references_are_no_predictions(save, refused):
    references = save("r.json", REFERENCES["plain"])
    said = refused("choice", references=references, predictions=references)
    assert "is both references and predictions. Use the file with the model's answers." in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("yes"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = (
    *(
        "id",
        "question_id",
        "image_id",
        "image",
        "images",
        "imgname",
        "question",
        "query",
        "questions",
        "label",
    ),
    *("answers", "answer", "gt_answers", "prediction", "text", "caption", "captions", "choices", "options"),
    *("bbox", "height", "width", "category", "annotations", "data", "results", "sentences", "split", "hint"),
    *("answer_type", "grade", "subject", "raw", "cocoid", "filename", "filepath", "file_name"),
)
RECORD = st.dictionaries(st.sampled_from(NAMES), JSON | st.lists(JSON, max_size=4), max_size=6)
FILE = (
    JSON | RECORD | st.lists(RECORD, max_size=3) | st.dictionaries(st.sampled_from(NAMES), st.lists(RECORD))
)
TASKS = (
    *((VQA, VQAConfig), (Choice, ChoiceConfig), (ANLS, ANLSConfig), (Relaxed, RelaxedConfig)),
    *((RefCOCO, RefCOCOConfig), (MME, MMEConfig)),
)


def try_all(tmp_path, references, predictions):
    """Scores whatever the files hold in every task; only our own errors may come out."""
    paths = [tmp_path / "r.json", tmp_path / "p.json"]
    for path, content in zip(paths, (references, predictions), strict=True):
        path.write_text(json.dumps(content))
    read, said = map(str, paths)
    tasks = [(make, kind(references=read, predictions=said, missing="wrong")) for make, kind in TASKS]
    tasks.append((ScienceQA, ScienceQAConfig(problems=[read], predictions=said, missing="wrong")))
    for make, config in tasks:
        with suppress(UserError):
            found = score(make(config), read_predictions(said), config)
            json.dumps([found.to_dict(), found.items], allow_nan=False)
    with suppress(UserError):
        read_references(read)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(FILE, FILE)
def test_whatever_files_hold_they_are_scored_or_refused(tmp_path, references, predictions):
    try_all(tmp_path, references, predictions)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RECORD, st.sampled_from(sorted(REFERENCES)), st.integers(0, 99))
def test_odd_fields_in_good_files_are_read_or_refused(tmp_path, odd, name, seed):
    rows = [{**keys, "answer": said} for keys, said in zip(predicted(name), SAID, strict=True)]
    rows[seed % len(rows)] |= odd
    random.Random(seed).shuffle(rows)
    try_all(tmp_path, REFERENCES[name], rows)
    try_all(tmp_path, rows, rows)


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=list(HealthCheck), deadline=None)
@given(FILE, FILE)
def test_very_many_files_are_scored_or_refused(tmp_path, references, predictions):
    try_all(tmp_path, references, predictions)
