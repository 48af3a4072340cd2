"""What is kept of an interrupted run, and what is refused."""

import json

import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.answer_file import AnswerFile
from llama_adapter.evaluation.question import Question

QUESTIONS = [Question(str(number), f"question {number}") for number in range(4)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "s.items.jsonl"


def test_what_was_noted_is_there_again(path):
    first = AnswerFile(path, "r", QUESTIONS)
    first.add("2", answer="two ü")
    first.add("0", answer="")
    first.add("2", candidates=["a", "b"], log_likelihoods=[-0.1, -2.5])
    again = AnswerFile(path, "r", QUESTIONS)
    assert again.rows == first.rows
    assert list(again.rows) == ["0", "1", "2", "3"]
    assert "answer" not in again.rows["1"]
    assert len(path.read_text().splitlines()) == 2  # one complete record per question


def test_every_cut_of_the_file_can_be_continued(path):
    """Killed anywhere in the last line: at most that line is lost."""
    first = AnswerFile(path, "r", QUESTIONS)
    for number in range(3):
        first.add(str(number), answer=f"answer {number}")
    whole = path.read_text()
    last = whole.rstrip("\n").rindex("\n") + 1
    for end in range(last, len(whole) + 1):
        path.write_text(whole[:end])
        file = AnswerFile(path, "r", QUESTIONS)
        assert [file.rows[id].get("answer") for id in "01"] == ["answer 0", "answer 1"]
        assert file.rows["2"].get("answer") in (None, "answer 2")
        file.add("3", answer="x")
        assert [json.loads(line) for line in path.read_text().splitlines()][-1]["answer"] == "x"


def test_verdicts_are_left_out(path):
    AnswerFile(path, "r", QUESTIONS[:2]).add("1", answer="a", correct=True)
    assert AnswerFile(path, "r", QUESTIONS).rows["1"] == {
        "prompt": "question 1",
        "run": "r",
        "shown": None,
        "answer": "a",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "1", "prompt": "question 1", "run": "q", "answer": "a"}\n', "of another model or other"),
        ('{"id": "1", "answer": "a", "correct": true}\n', "of another model or other settings"),
        ('{"id": "1", "prompt": "other", "run": "r", "answer": "a"}\n', "'1' was asked in other words"),
        ('{"id": "9", "prompt": "", "run": "r", "answer": "a"}\n', "it answers '9', which is not asked now"),
        ("no\n{}\n", "line 1 is no JSON"),
        ("[1]\n{}\n", "line 1 is no record with an id"),
    ],
)
def test_what_belongs_to_something_else_is_refused_and_stays(path, text, said):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=f"cannot be continued: .*{said}.*Use another --output"):
        AnswerFile(path, "r", QUESTIONS)
    assert path.read_text() == text


def test_without_a_file_nothing_is_written(tmp_path):
    file = AnswerFile(None, "r", QUESTIONS)
    file.add("1", answer="a")
    assert file.rows["1"]["answer"] == "a"
    assert not list(tmp_path.iterdir())
