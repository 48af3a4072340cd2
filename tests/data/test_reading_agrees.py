"""Random records of every format, with random further keys and media: training and asking read them alike."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data.canonical import canonical_row
from llama_adapter.data.fields import filled
from llama_adapter.data.formats import FORMATS, Format, find_format
from llama_adapter.data.keys import HARMLESS
from llama_adapter.data.reading import Habits, read_question, read_record
from llama_adapter.data.records import RawRow, Record, RecordProblem

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=8).filter(
    lambda text: text.strip() != ""
)
MARK = st.sampled_from(["", "<image>", "<image>\n", "<audio>", "<image><image>", "<video>"])
WORDS = st.builds(str.__add__, MARK, TEXT)
VALUES = st.one_of(TEXT, st.integers(), st.booleans(), st.none(), st.lists(TEXT, max_size=2), st.floats())
PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}),
    st.fixed_dictionaries(
        {"type": st.just("image")}, optional={"path": st.just("a.jpg"), "url": st.just("b.jpg")}
    ),
    st.fixed_dictionaries({"type": st.just("audio"), "audio": st.just("a.wav")}),
)
MESSAGE_EXTRAS: dict[str, Any] = {
    "weight": st.sampled_from([0, 1, 0.5, None]),
    "train": st.booleans(),
    "reasoning_content": TEXT,
    "tool_calls": st.just([{"name": "f", "arguments": "{}"}]),
    "mood": TEXT,
    "id": TEXT,
}
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "critic"]),
        "content": st.one_of(WORDS, st.lists(PART, max_size=3)),
    },
    optional=MESSAGE_EXTRAS,
)
TALK = st.one_of(
    st.lists(MESSAGE, max_size=4),
    st.tuples(WORDS, TEXT).map(
        lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    ),
)
SPOKEN = st.tuples(WORDS, TEXT).map(
    lambda pair: [{"from": "human", "value": pair[0]}, {"from": "gpt", "value": pair[1]}]
)
ROWS = {
    "messages": st.fixed_dictionaries({"messages": TALK}),
    "sharegpt": st.fixed_dictionaries({"conversations": st.one_of(SPOKEN, TALK)}),
    "alpaca": st.fixed_dictionaries({"instruction": WORDS, "output": TEXT}, optional={"input": WORDS}),
    "prompt_completion": st.one_of(
        st.fixed_dictionaries({"prompt": WORDS, "completion": TEXT}),
        st.fixed_dictionaries({"prompt": TALK, "completion": TALK}),
    ),
    "captions": st.fixed_dictionaries({"caption": TEXT, "url": st.just("c.jpg")}),
    "karpathy": st.fixed_dictionaries(
        {
            "sentences": st.lists(st.fixed_dictionaries({"raw": TEXT}), max_size=2),
            "filename": st.just("k.jpg"),
        }
    ),
    "scienceqa": st.fixed_dictionaries(
        {"question": TEXT, "choices": st.just(["x", "y"]), "answer": st.sampled_from([0, 1, 2])}
    ),
    "vqa": st.fixed_dictionaries({"question": WORDS, "answers": st.lists(TEXT, max_size=2)}),
}
EXTRAS = st.dictionaries(
    st.sampled_from(["topic", "score", "id", "source", "Überschrift", "image_id"]), VALUES
)
MEANT = st.fixed_dictionaries(
    {},
    optional={
        "system": TEXT,
        "history": st.just([["h", "i"]]),
        "tools": st.just([{"name": "f"}]),
        "context": TEXT,
        "label": st.sampled_from([True, "sports", 4]),
        "chosen": TEXT,
        "reasoning": TEXT,
    },
)
MEDIA = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["a.jpg", {"path": "b.jpg"}, 7]),
        "images": st.lists(st.sampled_from(["a.jpg", "b.jpg"]), max_size=2),
        "image_path": st.just("a.jpg"),
        "audios": st.lists(st.just("a.wav"), max_size=2),
        "video": st.just("v.mp4"),
        "file_name": st.sampled_from(["a.jpg", "a.txt"]),
        "depth": st.sampled_from(["d.png", 3]),
    },
)


def outcome(read, *args) -> Record | str:
    try:
        return read(*args)
    except RecordProblem as problem:
        return str(problem)


def conversation(record: Record) -> tuple[Any, ...]:
    """What leads to the last answer, with the media."""
    turns = record.turns
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    return turns, record.tools


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"llava", "accessory"}))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_training_and_asking_agree_and_no_key_vanishes(name, data):
    row = data.draw(ROWS[name]) | data.draw(EXTRAS) | data.draw(MEANT) | data.draw(MEDIA)
    form = find_format(filled(row), answered=True)
    if form is None:  # an empty list of messages is no conversation
        assert isinstance(outcome(read_question, RawRow("f:1", row)), Record | str)
        return
    learned = outcome(read_record, form, RawRow("f:1", row), Habits())
    asked = outcome(read_question, RawRow("f:1", row), Habits())
    canonical = canonical_row(
        form, RawRow("f:1", row), {"columns": {}, "marks": "media", "text_alone": False}
    )
    if isinstance(learned, str):
        assert canonical["problem"] == learned
        return
    assert isinstance(asked, Record), asked
    if asked.turns == conversation(learned)[0]:
        assert asked.tools == learned.tools
        assert asked.media == learned.media
    else:  # the record goes on behind its last answer
        assert asked.turns[: len(learned.turns)] == learned.turns
    assert asked.unread == learned.unread
    _check_keys(row, form, learned)


def _check_keys(row: dict[str, Any], form: Format, record: Record) -> None:
    """Every key that holds something is in the record, or harmless, or named."""
    said = " ".join([*map(str, record.turns), *map(str, record.media), *map(str, record.tools)])
    for key in filled(row) - HARMLESS:
        if key in record.unread or key in form.keys:
            continue
        if key in ("system", "reasoning"):
            assert row[key] in {text for turn in record.turns for text in (turn.text, turn.reasoning)}
        elif key == "history":
            assert "'h'" in said
        elif key == "tools":
            assert record.tools == row["tools"]
        elif key == "image_id":
            assert any(item.modality == "image" for item in record.media)
        else:
            values = row[key] if isinstance(row[key], list) else [row[key]]
            names = [value["path"] if isinstance(value, dict) else value for value in values]
            assert set(names) <= {item.content for item in record.media}, key
