import pytest

from llama_adapter.data.fields import (
    Parsed,
    known_role,
    list_of,
    media_paths,
    message_turns,
    optional_text,
    text_of,
)
from llama_adapter.data.records import RecordProblem, Turn


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"other": "x"}, r"the key 'output' is missing; it must be there \(found: 'other'\)"),
        ({}, r"found: none"),
        ({"output": 5}, r"'output' is int \('5'\); it must be text"),
        ({"output": None}, r"'output' is NoneType \('None'\); it must be text"),
        ({"output": "caf\udce9"}, r"'output' must be UTF-8, but has the byte 0xe9 at character 3"),
        ({"output": "\ud83d"}, r"half a surrogate pair, \\ud83d"),
    ],
)
def test_a_text_that_is_none_says_why(row, reason):
    with pytest.raises(RecordProblem, match=reason):
        text_of(row, "output")


def test_optional_text_may_be_missing_but_not_of_another_type():
    assert optional_text({}, "input") == optional_text({"input": None}, "input") == ""
    with pytest.raises(RecordProblem, match="'input' is list"):
        optional_text({"input": ["x"]}, "input")


@pytest.mark.parametrize("value", ["text", [1], None, {"role": "user"}])
def test_a_list_of_objects_is_nothing_else(value):
    with pytest.raises(RecordProblem, match="must be a list of objects"):
        list_of({"messages": value}, "messages")


def test_an_unknown_role_names_the_known_ones():
    with pytest.raises(RecordProblem, match="turn 3 has the unknown role 'critic'; use one of: human, gpt"):
        known_role("critic", {"human": "user", "gpt": "assistant"}, 3)


def test_messages_may_have_parts_and_images_inside():
    parsed = message_turns(
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                    {"type": "text", "text": "What?"},
                    {"type": "image", "image": "b.png"},
                ],
            },
            {"role": "assistant", "content": "A cat."},
        ]
    )
    assert parsed.turns == [Turn("user", "<image>What?<image>"), Turn("assistant", "A cat.")]
    assert media_paths(parsed) == ["a.png", "b.png"]


def test_an_unknown_message_part_is_a_problem():
    with pytest.raises(RecordProblem, match="type 'audio'; it must be text, image or image_url"):
        message_turns([{"role": "user", "content": [{"type": "audio"}]}])


@pytest.mark.parametrize(
    ("text", "media", "reason"),
    [
        ("<image> and <image>", ["a.png"], "names 1 images, but <image> occurs 2 times"),
        ("<image>", [{"bytes": b"..", "path": None}], "an image is dict, but must be a path"),
        ("<image>", [7], "an image is int"),
    ],
)
def test_media_that_do_not_fit_the_text(text, media, reason):
    with pytest.raises(RecordProblem, match=reason):
        media_paths(Parsed([Turn("user", text)], media))


def test_an_image_without_placeholder_is_kept():
    assert media_paths(Parsed([Turn("user", "What is it?")], [{"bytes": None, "path": "a.png"}])) == ["a.png"]
