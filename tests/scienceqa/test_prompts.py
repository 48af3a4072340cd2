import pytest

from llama_adapter.scienceqa import Problem, build_answer, build_prompt

PROBLEM = Problem(
    "1", "Which way?", ["north", "south"], 1, hint="A map.", lecture="Long ago.", solution="See."
)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("CQM-A", "Context: A map.\nQuestion: Which way?\nOptions: (A) north (B) south\nAnswer:"),
        ("QCM-ALE", "Question: Which way?\nContext: A map.\nOptions: (A) north (B) south\nAnswer:"),
        ("plain", "A map.\nWhich way?\nA. north\nB. south"),
        (
            "accessory",
            "Context:\nA map.\nQuestion:\nWhich way?\nChoices:\nA. north\nB. south\n"
            'Answer with the option"s letter from the given choices directly.',
        ),
    ],
)
def test_prompts_by_name(name, prompt):
    assert build_prompt(PROBLEM, name) == prompt


def test_captions_stand_behind_the_hint_and_an_empty_context_is_said():
    assert "Context: A map. A cat.\n" in build_prompt(PROBLEM, "CQM-A", "A cat.")
    bare = Problem("1", "Which way?", ["north", "south"], 1)
    assert "Context: N/A\n" in build_prompt(bare, "CQM-A")
    assert "Context" not in build_prompt(bare, "accessory")


def test_answers_by_name():
    said = "The answer is B."
    assert build_answer(PROBLEM, "CQM-A") == said
    assert build_answer(PROBLEM, "QCM-ALE") == f"{said} BECAUSE: Long ago. See."
    assert build_answer(PROBLEM, "QCM-LEA") == f"Long ago. See. {said}"
    assert build_answer(PROBLEM, "plain") == "B"
    assert build_answer(Problem("1", "?", ["a", "b"], 0), "CQM-ALE") == "The answer is A."
