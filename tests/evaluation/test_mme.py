import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.mme import (
    COGNITION,
    MME,
    PERCEPTION,
    MMEConfig,
    read_yes_no,
    read_yes_no_as_published,
)


def files(golden, save):
    references, predictions = [], {}
    for row in golden["mme"]["rows"]:
        for number, (said, right) in enumerate(zip(row["predictions"], row["gt"], strict=True)):
            name = f"{row['category']}-{number}"
            image = f"MME/{row['category']}/{number // 2}.jpg"
            references.append({"question_id": name, "image_path": image, "answer": right})
            predictions[name] = said
    return save("r.json", references), save("p.json", predictions)


@pytest.mark.parametrize("as_published", [True, False])
def test_published_cases_from_the_command_line(golden, save, evaluate, as_published):
    references, predictions = files(golden, save)
    found, _, _ = evaluate("mme", references=references, predictions=predictions, as_published=as_published)
    for name, score in golden["mme"]["per_category"].items():
        assert found["scores"][name] == score
    assert f"Perception_score: {found['scores']['perception']}" == golden["mme"]["printed"][0]
    assert f"Cognition_score: {found['scores']['cognition']}" == golden["mme"]["printed"][2]


def test_published_reading(golden):
    for answer, read in golden["mme_parse"].items():
        assert read_yes_no_as_published(answer) == (None if read == "other" else read), answer


def test_only_the_first_word_counts():
    assert [read_yes_no(text) for text in ("Yes", " no.", "**Yes**, it is", "No")] == [
        "yes",
        "no",
        "yes",
        "no",
    ]
    assert [read_yes_no(text) for text in ("not sure", "know", "nope", "I think yes", "")] == [None] * 5


def test_the_official_folder_is_read_and_absent_categories_are_said(tmp_path, save, evaluate):
    (tmp_path / "mme").mkdir()
    (tmp_path / "mme/existence.txt").write_text("1.jpg\tA dog?\tYes\n1.jpg\tA cat?\tNo\n")
    predictions = save("p.json", {"existence:1": "yes", "existence:2": "yes"})
    found, _, printed = evaluate("mme", references=tmp_path / "mme", predictions=predictions)
    assert (found["scores"]["existence"], found["scores"]["existence acc+"]) == (50, 0)
    assert found["scores"]["count"] is None
    assert "No questions in count" in printed


@pytest.mark.parametrize("part", ["", "existence", "existence/images"])
def test_pictures_are_found_beside_the_questions_or_where_it_is_said(tmp_path, part):
    (tmp_path / "mme").mkdir()
    (tmp_path / "mme/existence.txt").write_text("1.jpg\tA dog?\tYes\n1.jpg\tA cat?\tNo\n")
    for folder, options in (("mme", {}), ("elsewhere", {"images": str(tmp_path / "elsewhere")})):
        picture = tmp_path / folder / part / "1.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"any")
        task = MME(MMEConfig(references=str(tmp_path / "mme"), questions="unused", **options))
        assert {question.image for question in task.questions()} == {str(picture)}
        picture.unlink()
    task = MME(MMEConfig(references=str(tmp_path / "mme"), questions="unused"))
    assert {question.image for question in task.questions()} == {"1.jpg"}, "as it is named, for the message"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "x/1.jpg"}, "The category of '0' is ''.* Use one of existence"),
        ({"image": "x/1.jpg", "category": "smell"}, "is 'smell'"),
        ({"image": "count/1.jpg"}, "'count/1.jpg' has 1 questions in 'count'. Use two"),
    ],
)
def test_what_cannot_be_placed_is_refused(save, refused, row, said):
    import re

    references, predictions = save("r.json", [{"id": 0, "answer": "Yes"} | row]), save("p.json", {"0": "yes"})
    assert re.search(said, refused("mme", references=references, predictions=predictions))


def test_folders_without_questions_are_refused(tmp_path, save, refused):
    (tmp_path / "empty").mkdir()
    assert "Choose MME's folder" in refused(
        "mme", references=tmp_path / "empty", predictions=save("p.json", {"a": "b"})
    )
    (tmp_path / "empty/OCR.txt").write_text("1.jpg\tonly two\n")
    said = refused("mme", references=tmp_path / "empty", predictions=save("p.json", {"a": "b"}))
    assert "OCR.txt:1: " in said


def test_there_are_ten_and_four_categories():
    assert (len(PERCEPTION), len(COGNITION)) == (10, 4)


@given(st.text())
def test_any_answer_can_be_read(answer):
    assert read_yes_no(answer) in ("yes", "no", None)
    assert read_yes_no_as_published(answer) in ("yes", "no", None)
