"""Problems become rows with the right loss, and final answers are read as the public table reads them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.method_comparison.problems import (
    TEST_FILE,
    TRAIN_FILE,
    Problem,
    build_rows,
    exact_match,
    final_answer,
    read_problems,
)
from llama_adapter.errors import UserError
from tests.tiny import byte_tokenizer

TEMPLATE = "Question: {query} Think step by step.\nAnswer:"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48 + 24 = 72 clips.\n#### 72", 72),
        ("The answer is: 5\nThe answer is: 7", 7),
        ("So it is half. The final answer is 3/6.", 0.5),
        ("#### $70,000", 70000),
        ("#### -3.50%", -3.5),
        ("#### 12\nQuestion: and next?", 12),
        ("The answer is x + 1", "x + 1"),
        ("#### 1/0", "1/0"),
        ("#### 1e400000000", "1e400000000"),
        ("it is 72", None),
        ("", None),
    ],
)
def test_final_answers(text, answer):
    assert final_answer(text) == answer


@given(st.text())
def test_any_output_is_read(text):
    final_answer(text)
    final_answer(f"#### {text}")


@given(st.integers(-(10**9), 10**9), st.text(alphabet="abc \n."))
def test_the_last_mark_counts(number, text):
    assert final_answer(f"{text}#### 1\n{text}\n#### {number:,}") == number


def test_accuracy_counts_right_numbers_only():
    problems = [Problem("q", "so\n#### 1,200")] * 4
    outputs = [" 600 + 600\n#### 1200", "The answer is 1200.0", "1200", "#### 1201"]
    assert exact_match(outputs, problems) == 0.5


def test_rows_carry_loss_on_the_whole_text_or_on_the_answer():
    tokenizer = byte_tokenizer()
    problems = [Problem("How many?", "One.\n#### 1"), Problem("?" * 300, "#### 2")]
    (whole,) = build_rows(problems, tokenizer, TEMPLATE, 128, whole_text=True)
    (answer,) = build_rows(problems, tokenizer, TEMPLATE, 128, whole_text=False)
    assert whole["input_ids"] == answer["input_ids"] == whole["labels"]
    text = tokenizer.decode(whole["input_ids"])
    assert text == "<s>Question: How many? Think step by step.\nAnswer:One.\n#### 1</s>"
    assert tokenizer.decode([label for label in answer["labels"] if label >= 0]) == "One.\n#### 1</s>"


def test_a_line_that_is_not_gsm8k_is_named(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "no number"}) + "\n")
    with pytest.raises(UserError, match=r"problems.jsonl:1 is .*no number.*\. Use GSM8K's lines"):
        read_problems(path)


def test_gsm8k_is_read_and_its_own_answers_are_right(shared_data):
    train, test = (read_problems(shared_data / "gsm8k" / name) for name in (TRAIN_FILE, TEST_FILE))
    assert (len(train), len(test)) == (2000, 1319)
    assert exact_match([problem.response for problem in test], test) == 1
    assert all(isinstance(final_answer(problem.response), float) for problem in test)
