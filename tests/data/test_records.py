import pytest

from llama_adapter.data.records import RecordProblem, Turn, checked_turns

USER, ANSWER, SYSTEM = Turn("user", "q"), Turn("assistant", "a"), Turn("system", "s")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([], "there must be an assistant turn to learn from; found: no turns"),
        ([SYSTEM, USER], "there must be an assistant turn to learn from; found: system, user"),
        ([ANSWER, USER, ANSWER], "a user turn must come before the first answer"),
        ([SYSTEM, ANSWER], "a user turn must come before the first answer"),
        ([USER, Turn("assistant", " \n")], r"the answer in turn 2 is empty \(' \\n'\)"),
        ([USER, ANSWER, SYSTEM, ANSWER], "turn 3 is a system turn; it must be the first turn"),
    ],
)
def test_conversations_that_cannot_be_learned_from(turns, reason):
    with pytest.raises(RecordProblem, match=reason):
        checked_turns(turns)


def test_what_nobody_answered_is_left_out():
    assert checked_turns([SYSTEM, USER, ANSWER, USER, USER]) == [SYSTEM, USER, ANSWER]


def test_context_follows_the_text_where_it_has_no_block_of_its_own():
    assert Turn("user", "Add.", "2 3").full_text == "Add.\n\n2 3"
    assert USER.full_text == "q"
