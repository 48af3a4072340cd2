import copy
import json
import logging
import pickle
import subprocess
import sys
from collections import Counter

import datasets
import pytest
import torch
from rich.console import Console

from llama_adapter.data import DataConfig, PaddingCollator, SourceConfig, build_datasets
from llama_adapter.errors import UserError
from tests.data.conftest import DROPS_THOUGHTS, THOUGHTFUL_TALK


def alpaca(name, count):
    return [{"instruction": f"{name} {i}", "output": f"answer {name} {i}"} for i in range(count)]


@pytest.fixture
def build(tmp_path, byte_level):
    """Builds data with a cache of the test's own."""

    def run(*sources, tokenizer=byte_level, **settings):
        settings = {"template": "alpaca", "cache_dir": str(tmp_path / "cache"), "max_length": 200} | settings
        return build_datasets(DataConfig(train=list(sources), **settings), tokenizer)

    return run


def ids(data):
    return [row["record_id"].rsplit("/")[-1] for row in data]


def test_rows_reports_and_batches(build, write, byte_level):
    path = str(write("a.jsonl", alpaca("a", 6)))
    built = build(SourceConfig(path=path, rows=":4"), evaluation=[SourceConfig(path=path, rows="4:")])
    assert built.train.column_names == ["input_ids", "labels", "record_id"]
    assert ids(built.train) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
    assert ids(built.evaluation) == ["a.jsonl:5", "a.jsonl:6"]
    figures = built.report.train.figures()
    assert (figures.read, figures.used, figures.bad) == (4, 4, 0)
    assert figures.tokens == sum(len(row["input_ids"]) for row in built.train)
    assert figures.label_tokens == sum(label != -100 for row in built.train for label in row["labels"])
    batch = PaddingCollator(byte_level.pad_token_id)([built.train[i] for i in range(4)])
    learned = batch["input_ids"][0][batch["labels"][0] != -100]
    assert byte_level.decode(learned) == "answer a 0<|im_end|>"
    assert torch.equal(batch["labels"][batch["labels"] != -100], batch["input_ids"][batch["labels"] != -100])


def test_without_evaluation_sources_there_is_none(build, write):
    built = build(SourceConfig(path=str(write("a.jsonl", alpaca("a", 1)))))
    assert built.evaluation is None
    console = Console(record=True, width=100)
    console.print(built.report)
    shown = console.export_text()
    assert "training data" in shown
    assert "evaluation data" not in shown


def test_nothing_is_tokenized_twice_and_nothing_stale_is_used(build, write, monkeypatch, byte_level):
    from llama_adapter.data.prepare import Preparer

    calls = Counter()
    rows = Preparer.rows
    monkeypatch.setattr(Preparer, "rows", lambda self, batch: (calls.update(["batch"]), rows(self, batch))[1])
    source = SourceConfig(path=str(write("a.jsonl", alpaca("a", 3))))
    first = build(source)
    again = build(source)
    assert calls["batch"] == 1
    assert again.train[:] == first.train[:]
    assert again.report.train.figures() == first.report.train.figures()
    assert build(source, template="chat").train[0]["input_ids"] != first.train[0]["input_ids"]
    assert calls["batch"] == 2
    build(source, max_length=190)
    assert calls["batch"] == 3
    write("a.jsonl", alpaca("b", 3))
    assert "b 0" in byte_level.decode(build(source).train[0]["input_ids"])
    assert calls["batch"] == 4


BAD = [*alpaca("a", 2), {"instruction": "x"}, {"instruction": "x", "output": ""}, *alpaca("c", 1)]


def test_bad_records_stop_the_run_with_place_and_reason(build, write):
    path = write("a.jsonl", BAD)
    with pytest.raises(UserError, match="2 records of .* cannot be used") as error:
        build(SourceConfig(path=str(path)))
    assert f"{path}:3: the key 'output' is missing" in str(error.value)
    assert f"{path}:4: the answer in turn 2 is empty" in str(error.value)
    assert "validate-data" in str(error.value)
    assert "set data.bad_records to skip" in str(error.value)


def test_of_many_bad_records_the_first_are_named(build, write):
    path = write("a.jsonl", [*alpaca("a", 1), *[{"instruction": "x"}] * 9])
    with pytest.raises(UserError, match=r"9 records(?s:.*)a.jsonl:6: (?s:.*)and 4 more"):
        build(SourceConfig(path=str(path)))


def test_bad_records_can_be_skipped_and_are_counted(build, write, caplog):
    path = str(write("a.jsonl", BAD))
    with caplog.at_level(logging.WARNING):
        built = build(SourceConfig(path=path), bad_records="skip")
    assert ids(built.train) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:5"]
    assert built.report.train.figures().bad == 2
    assert "skipping 2 bad records" in caplog.text
    assert "a.jsonl:3" in caplog.text


def test_records_that_the_template_refuses_are_bad_records(build, write):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = str(write("a.jsonl", [{"messages": talk}, {"messages": talk + talk}]))
    with pytest.raises(
        UserError, match="1 records(?s:.*)a.jsonl:2: the alpaca template takes one instruction"
    ):
        build(SourceConfig(path=path))
    assert len(build(SourceConfig(path=path), template="chat").train) == 2


def test_overlong_records_are_counted(build, write):
    rows = [
        *alpaca("a", 1),
        {"instruction": "word " * 100, "output": "short"},
        {"instruction": "q", "output": "long " * 200},
    ]
    path = str(write("a.jsonl", rows))
    built = build(SourceConfig(path=path))
    figures = built.report.train.figures()
    assert (figures.read, figures.used, figures.truncated, figures.dropped) == (3, 2, 1, 1)
    assert ids(built.train) == ["a.jsonl:1", "a.jsonl:2"]
    assert max(len(row["input_ids"]) for row in built.train) <= 200
    assert all(any(label != -100 for label in row["labels"]) for row in built.train)
    assert build(SourceConfig(path=path), overlong="drop").report.train.figures().dropped == 2


def test_nothing_left_is_an_error(build, write):
    path = str(write("a.jsonl", [{"instruction": "q", "output": "long " * 200}]))
    with pytest.raises(UserError, match="no record of .* can be used .*1 too long.* Raise max_length"):
        build(SourceConfig(path=path))
    with pytest.raises(UserError, match="rows '5:9' of .* hold no record. Use rows that exist"):
        build(SourceConfig(path=path, rows="5:9"))


TALK = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]


def test_images_are_refused_ignored_or_kept(build, write, byte_level, caplog):
    path = str(write("a.json", [{"image": "cat.jpg", "conversations": TALK}]))
    with pytest.raises(UserError, match="1 records of .* come with images, .* Set data.media to ignore"):
        build(SourceConfig(path=path))
    with caplog.at_level(logging.WARNING):
        ignored = build(SourceConfig(path=path), media="ignore")
    assert "images are ignored, only the text is used (at least 1 records)" in caplog.text
    assert "<image>" not in byte_level.decode(ignored.train[0]["input_ids"])
    kept = build(SourceConfig(path=path), media="keep")
    assert kept.train[0]["media"] == ["cat.jpg"]
    assert "<image>\nWhat is it?" in byte_level.decode(kept.train[0]["input_ids"])
    assert PaddingCollator(0)([kept.train[0]])["media"] == [["cat.jpg"]]


def two(write, weights=(None, None), **settings):
    return [
        SourceConfig(path=str(write(f"{name}.jsonl", alpaca(name, count))), weight=weight, **settings)
        for (name, count), weight in zip((("a", 20), ("b", 200)), weights, strict=True)
    ]


def test_without_weights_every_record_occurs_once(build, write):
    built = build(*two(write))
    assert Counter(ids(built.train)) == Counter(
        [f"{n}.jsonl:{i + 1}" for n, c in (("a", 20), ("b", 200)) for i in range(c)]
    )
    assert built.report.train.figures().read == 220


def test_weights_give_the_shares_and_every_record_is_seen(build, write):
    built = build(*two(write, (1.0, 3.0)))
    seen = Counter(ids(built.train))
    share = sum(count for name, count in seen.items() if name.startswith("a")) / len(built.train)
    assert 0.17 < share < 0.33
    assert len(seen) == 220
    shorter = build(*two(write, (1.0, 3.0)), stopping="first_exhausted")
    assert len(shorter.train) < len(built.train)
    assert max(Counter(ids(shorter.train)).values()) == 1


def test_a_mixture_is_decided_by_its_seed(build, write):
    order = ids(build(*two(write, (1.0, 3.0)), seed=1).train)
    assert order == ids(build(*two(write, (1.0, 3.0)), seed=1).train)
    assert order != ids(build(*two(write, (1.0, 3.0)), seed=2).train)


def test_streaming_gives_the_same_rows_as_storing(build, write):
    path = str(write("a.jsonl", alpaca("a", 30)))
    stored = build(SourceConfig(path=path)).train
    built = build(SourceConfig(path=path, streaming=True), shuffle_buffer=0)
    assert isinstance(built.train, datasets.IterableDataset)
    assert list(built.train) == [stored[i] for i in range(30)]
    assert "streamed" in built.report.train.summary()


def test_streams_are_shuffled_by_seed_and_epoch(build, write):
    source = SourceConfig(path=str(write("a.jsonl", alpaca("a", 50))), streaming=True)
    first, again, other = (build(source, seed=seed).train for seed in (1, 1, 2))
    order = ids(first)
    assert sorted(order) == sorted(ids(other))
    assert order == ids(again)
    assert order != ids(other)
    first.set_epoch(1)
    assert ids(first) != order


def test_a_streamed_mixture_resumes_where_it_stopped(build, write):
    def fresh():
        return build(*two(write, (1.0, 1.0), streaming=True), shuffle_buffer=0).train

    whole = ids(fresh())
    stream = fresh()
    iterator = iter(stream)
    head = [next(iterator) for _ in range(7)]
    state = stream.state_dict()
    resumed = fresh()
    resumed.load_state_dict(state)
    assert ids(head) + ids(resumed) == whole


def test_a_stream_stops_at_a_bad_record_or_skips_it(build, write):
    source = SourceConfig(path=str(write("a.jsonl", BAD)), streaming=True)
    with pytest.raises(UserError, match="1 records(?s:.*)a.jsonl:3: the key 'output' is missing"):
        list(build(source).train)
    assert sorted(ids(build(source, bad_records="skip").train)) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:5"]


def test_a_stream_with_images_is_refused_too_or_says_once_that_they_are_ignored(build, write, caplog):
    path = str(write("a.json", [{"image": "cat.jpg", "conversations": TALK}] * 3))
    refused = build(SourceConfig(path=path, streaming=True)).train
    for _ in range(2):
        with pytest.raises(UserError, match="come with images"):
            next(iter(refused))
    with caplog.at_level(logging.WARNING):
        assert len(list(build(SourceConfig(path=path, streaming=True), media="ignore").train)) == 3
    assert caplog.text.count("images are ignored, only the text is used") == 1


def test_a_stream_can_be_sent_to_a_fresh_worker(build, write):
    path = str(write("a.jsonl", alpaca("a", 3)))
    stream = build(SourceConfig(path=path, streaming=True), template="chat").train
    assert ids(pickle.loads(pickle.dumps(stream))) == ids(stream)


def test_a_stream_shares_its_files_between_loader_workers(build, write, tmp_path):
    write("d/a.jsonl", alpaca("a", 5))
    write("d/b.jsonl", alpaca("b", 5))
    stream = build(SourceConfig(path=str(tmp_path / "d"), streaming=True), shuffle_buffer=0).train
    loader = torch.utils.data.DataLoader(
        stream, batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    seen = [row["record_id"] for row in loader]
    assert len(seen) == len(set(seen)) == 10


SCRIPT = """
import sys, json
from transformers import AutoTokenizer
from llama_adapter.data import DataConfig, SourceConfig, build_datasets
config = DataConfig(train=[SourceConfig(path=sys.argv[1])], template="alpaca", cache_dir=sys.argv[2])
data = build_datasets(config, AutoTokenizer.from_pretrained(sys.argv[3])).train
print(json.dumps([row["record_id"] for row in data] + [data[0]["input_ids"]]))
"""


def test_processes_that_build_at_the_same_time_get_the_same(write, tmp_path, byte_level):
    byte_level.save_pretrained(tmp_path / "tokenizer")
    path = write("a.jsonl", alpaca("a", 50))
    command = [sys.executable, "-c", SCRIPT, str(path), str(tmp_path / "cache"), str(tmp_path / "tokenizer")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended[0][1] + ended[1][1]
    first, second = (json.loads(output) for output, _ in ended)
    assert first == second
    assert len(first) == 51
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 2  # records and rows, made once for both


def test_real_alpaca_data_are_built_whole(build, shared_data, byte_level):
    built = build(SourceConfig(path=str(shared_data / "instruct/alpaca_en_demo.json")), max_length=1024)
    figures = built.report.train.figures()
    assert figures.read == 999
    assert figures.bad == 0
    assert figures.used == len(built.train) == 999 - figures.dropped
    assert figures.max_length <= 1024


@pytest.mark.parametrize("streaming", [False, True])
def test_a_conversation_that_the_template_rewrites_becomes_several_rows(
    byte_level, write, tmp_path, streaming
):
    tokenizer = copy.deepcopy(byte_level)
    tokenizer.chat_template = DROPS_THOUGHTS
    path = write("a.jsonl", [{"messages": THOUGHTFUL_TALK}, {"messages": THOUGHTFUL_TALK[:2]}])
    source = SourceConfig(path=str(path), streaming=streaming, type="talk")
    built = build_datasets(DataConfig(train=[source], cache_dir=str(tmp_path), shuffle_buffer=0), tokenizer)
    rows = list(built.train)
    assert [row["record_id"].rpartition(":")[2] for row in rows] == ["1", "1", "2"]
    assert {row["type"] for row in rows} == {"talk"}
    taught = [tokenizer.decode([label for label in row["labels"] if label != -100]) for row in rows]
    first = "<think>hm</think>first<|im_end|>"
    assert taught == [first, "second<|im_end|>", first]
    if not streaming:
        figures = built.report.train.figures()
        assert (figures.read, figures.used, figures.examples, figures.answers_rewritten) == (2, 2, 3, 1)


def test_keys_that_are_not_read_are_counted_and_shown(build, write, caplog):
    rows = [{**row, "topic": "x", "id": 1} for row in alpaca("a", 3)] + alpaca("b", 1)
    built = build(SourceConfig(path=str(write("a.jsonl", rows))))
    assert built.report.train.unread == {"topic": 3}
    console = Console(record=True, width=100)
    console.print(built.report)
    assert "not read: topic" in console.export_text()
    streamed = build(SourceConfig(path=str(write("a.jsonl", rows)), streaming=True))
    with caplog.at_level(logging.WARNING):
        assert len(list(streamed.train)) == 4
    assert caplog.text.count("not read: topic") == 1


def test_a_model_that_sees_needs_records_with_images(build, write, tmp_path, caplog):
    path = str(write("a.jsonl", alpaca("a", 3)))
    with pytest.raises(UserError, match=r"no record of the training data names an image \(3 records read\)"):
        build(SourceConfig(path=path), media="attach")
    (tmp_path / "a.jpg").touch()
    rows = alpaca("a", 3)
    rows[1]["img_path"] = "a.jpg"
    source = SourceConfig(path=str(write("a.jsonl", rows)), media_folder=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        built = build(source, media="attach")
    assert [len(row["media"]) for row in built.train] == [0, 1, 0]
    assert "training data: 2 of 3 records name no image" in caplog.text


def test_sounds_are_refused_or_left_out_with_their_marks(build, write):
    rows = [{"instruction": "<audio>\nWhat is it?", "output": "A horn.", "audios": ["a.wav"]}]
    source = SourceConfig(path=str(write("a.jsonl", rows)))
    for media in ("refuse", "attach", "keep"):
        with pytest.raises(
            UserError, match=r"it comes with audio 'a.wav', but training shows models images only"
        ):
            build(source, media=media)
    plain = build(
        SourceConfig(path=str(write("b.jsonl", [{"instruction": "What is it?", "output": "A horn."}])))
    )
    assert build(source, media="ignore").train[0]["input_ids"] == plain.train[0]["input_ids"]


def test_what_a_turn_says_of_itself_is_kept_in_the_table(write, tmp_path):
    from llama_adapter.data.records import Turn, json_of, turn_of
    from llama_adapter.data.sources import load_records, source_plans

    calls = [{"type": "function", "function": {"name": "look", "arguments": {"city": "Rome", "n": [1, {}]}}}]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": calls, "weight": 0},
        {"role": "tool", "content": "sun", "tool_call_id": "7", "name": "look"},
        {"role": "assistant", "content": "a", "reasoning_content": "hm"},
    ]
    path = write(
        "a.jsonl", [{"messages": messages, "tools": tools}, {"messages": [messages[0], messages[3]]}]
    )
    first, second = load_records(source_plans(SourceConfig(path=str(path))), str(tmp_path / "cache"))
    assert [turn_of(turn) for turn in first["turns"]] == [
        Turn("user", "q"),
        Turn("assistant", "", learned=False, tool_calls=calls),
        Turn("tool", "sun", tool_call_id="7", name="look"),
        Turn("assistant", "a", reasoning="hm"),
    ]
    assert json_of(first["tools"]) == tools
    assert json_of(second["tools"]) == []
