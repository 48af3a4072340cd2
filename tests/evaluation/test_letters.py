import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.letters import LETTERS, read_option

OPTIONS = ["a red kite", "the moon", "salt water", "Mars"]


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "B",
            "b",
            " B",
            "(B)",
            "B.",
            "b)",
            "**B**",
            "B. the moon",
            "(B) the moon",
            "B) the moon",
            "B: the moon",
        ),
        *(
            "The answer is B.",
            "The answer is (B).",
            "the answer is: B",
            "Answer: B",
            "The answer is B because it is.",
        ),
        *(
            "So the correct option is B.",
            "The Moon.",
            "the answer is the moon.",
            "Long. Reasons.\nThe answer is B.",
        ),
        1,
    ],
)
def test_answers_that_name_an_option_are_read(answer):
    assert read_option(answer, OPTIONS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *("", "maybe", "E", "The answer is E.", "The answer is A. The answer is B.", "A dog", "I think so"),
        *("Both A and B", "It is a moon", "answer's D'Artagnan"),
        *(7, -1, True, None, 1.0, ["B"]),
    ],
)
def test_answers_that_name_none_or_two_are_not_guessed(answer):
    assert read_option(answer, OPTIONS) is None


def test_the_text_of_an_option_wins_over_an_article():
    assert read_option("The answer is A red kite.", OPTIONS[::-1]) == 3


@given(
    st.one_of(st.text(), st.integers(), st.none(), st.floats()), st.lists(st.text(), min_size=1, max_size=6)
)
def test_any_answer_is_read_or_not_but_never_breaks(answer, options):
    read = read_option(answer, options)
    assert read is None or 0 <= read < len(options)


@given(st.integers(0, 4))
def test_every_letter_is_read(index):
    assert read_option(f"The answer is {LETTERS[index]}.", ["o", "p", "q", "r", "s"]) == index
