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
        *("The answer is 'B'", "The answer is b.", "**B. the moon**", "B.</s>", "<answer>B</answer>"),
        *("B is the correct answer.", "B the moon", '"B"', "“B”", "`B`", "__B__", "[B]", "<B>", "B:", "b."),
        *(
            "Option B",
            "option (b)",
            r"\boxed{B}",
            r"The answer is $\boxed{\text{B}}$.",
            "B<|im_end|>",
            "B ###",
        ),
        *("（B）", "【B】", "Ｂ", "B、the moon", "答案是B", "答案：B。", "选B", "答案为（B）"),
        *(
            "Answer: **B**",
            "**Answer:** B",
            "### Answer: B",
            "Final answer: (B)",
            '{"answer": "B"}',
            "It's B.",
        ),
        *("<think>A? The answer is A.</think>\nB", "B\nBecause it is round.", "It is cold.\n\nB"),
        *("B\n### Human: A", "I would choose B.", "It must be the moon (B).", "<answer> B. the moon"),
        *("The answer is B because A is wrong.", "B - the moon", "b) the moon", "The letter B", "B</s></s>"),
        *('"the moon"', "**the moon**</s>", "<answer>The moon</answer>", "The answer is 'the moon'."),
        1,
    ],
)
def test_answers_that_name_an_option_are_read(answer):
    assert read_option(answer, OPTIONS) == 1


@pytest.mark.parametrize(
    "answer",
    [
        *("", "maybe", "E", "The answer is E.", "The answer is A. The answer is B.", "A dog", "I think so"),
        *(
            "Both A and B",
            "It is a moon",
            "answer's D'Artagnan",
            "A or B",
            "A, B",
            "A/B",
            "A and B",
            "b and c",
        ),
        *("The answer is A or B", "The answer could be A, B, or C.", "Neither A nor B", "Option A or B"),
        *(
            "The answer is A dog",
            "The answer is a dog.",
            "Answer: a dog",
            "The answer is not A",
            "A man stands",
        ),
        *(
            "vitamin B12",
            "B2",
            "AB",
            "C-section",
            "plan b works",
            "I",
            "I'm not sure",
            "answer: I do not know",
        ),
        *("<answer></answer>", "<think>The answer is B", "Vitamin C is good", "it's a b", "Select an option"),
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
