import json
from pathlib import Path

import datasets
import pytest

from llama_adapter.data.config import JoinConfig, SourceConfig
from llama_adapter.data.sources import canonical_rows, load_records, source_plans, stream_records
from llama_adapter.errors import UserError

ROWS = [{"instruction": f"say {i}", "input": "", "output": f"{i}"} for i in range(5)]


def read(path, **settings):
    return list(canonical_rows(source_plans(SourceConfig(path=str(path), **settings))))


def answers(rows):
    return [row["turns"][-1]["text"] for row in rows]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_every_container_gives_the_same_records(suffix, write, tmp_path):
    path = tmp_path / f"a.{suffix}"
    table = datasets.Dataset.from_list(ROWS)
    if suffix == "parquet":
        table.to_parquet(path)
    elif suffix in ("csv", "tsv"):
        table.to_csv(path, sep="," if suffix == "csv" else "\t")
    else:
        write(path.name, ROWS)
    rows = read(path)
    assert answers(rows) == ["0", "1", "2", "3", "4"]
    assert [row["problem"] for row in rows] == [""] * 5
    first = {"json": 2, "jsonl": 1, "csv": 2, "tsv": 2, "parquet": 1}[suffix]
    assert [row["record_id"] for row in rows] == [f"{path}:{first + i}" for i in range(5)]


def test_a_folder_is_read_file_by_file_each_in_its_own_format(write, tmp_path):
    write("d/b.jsonl", [{"prompt": "p", "completion": "from b"}])
    write("d/a/deep.json", ROWS[:1])
    write("d/.hidden.json", "no JSON")
    write("d/notes.txt", "not data")
    rows = read(tmp_path / "d")
    assert answers(rows) == ["0", "from b"]
    assert rows[0]["record_id"] == f"{tmp_path}/d/a/deep.json:2"


def test_rows_count_over_the_whole_source(write, tmp_path):
    write("d/a.jsonl", ROWS[:3])
    write("d/b.jsonl", ROWS[3:])
    assert answers(read(tmp_path / "d", rows="2:4")) == ["2", "3"]
    assert answers(read(tmp_path / "d", rows="4:")) == ["4"]


def test_saved_data_sets_and_their_splits(tmp_path):
    split = datasets.Dataset.from_list(ROWS)
    split.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": split, "held": split.select([4])}).save_to_disk(tmp_path / "two")
    assert answers(read(tmp_path / "one")) == ["0", "1", "2", "3", "4"]
    assert answers(read(tmp_path / "two", split="held")) == ["4"]
    with pytest.raises(UserError, match="has no split 'test'. Use one of: train, held"):
        read(tmp_path / "two", split="test")


def test_images_inside_a_saved_data_set_become_files_without_being_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_adapter.data.canonical.KEPT_MEDIA", tmp_path / "kept")
    rows = [{"caption": "a cat", "image": {"path": None, "bytes": b"no real image"}}]
    features = datasets.Features({"caption": datasets.Value("string"), "image": datasets.Image()})
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "d")
    ((path,),) = (row["media"] for row in read(tmp_path / "d"))
    assert Path(path).read_bytes() == b"no real image"
    assert Path(path).parent == tmp_path / "kept"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_asked_for_by_name(streaming, monkeypatch):
    asked = []

    def load_dataset(path, name, split, streaming):
        asked.append((path, name, split, streaming))
        data = datasets.Dataset.from_list(ROWS)
        return data.to_iterable_dataset() if streaming else data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read("owner/alpaca", split="test", subset="en", streaming=streaming)
    assert answers(rows) == ["0", "1", "2", "3", "4"]
    assert rows[1]["record_id"] == "owner/alpaca:2"
    assert set(asked) == {("owner/alpaca", "en", "test", streaming)}


def test_a_hub_data_set_that_cannot_be_had():
    with pytest.raises(
        UserError, match="no file or folder 'owner/none', and the hub data set .* Check the path"
    ):
        read("owner/none")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "a.json", "holds no records. Give a file that has some"),
        ("\n\n", "a.jsonl", "holds no records"),
        ("instruction,output\n", "a.csv", "holds no records"),
        ("not json\n", "a.jsonl", "no record of .* can be read .*a.jsonl:1: invalid JSON.* Repair the file"),
        ("a,a\n1,2\n", "a.csv", "'a' more than once"),
        (
            '{"question": "q", "answer": "a"}',
            "a.jsonl",
            "has the columns answer, question, which is no known format",
        ),
        ("x", "a.txt", r"ends in '.txt'. Use a file that ends in .json, .jsonl"),
    ],
)
def test_files_that_cannot_be_used_at_all(content, name, message, write):
    with pytest.raises(UserError, match=message):
        read(write(name, content))


def test_paths_that_are_not_there(write, tmp_path):
    write("d/alpaca.json", ROWS)
    with pytest.raises(
        UserError, match=r"alpaka.json' does not exist. Check the path \(.* holds: alpaca.json\)"
    ):
        read(tmp_path / "d" / "alpaka.json")
    with pytest.raises(UserError, match="does not exist either"):
        read(tmp_path / "e" / "alpaca.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder .* holds no data. Put files there"):
        read(tmp_path / "empty")
    with pytest.raises(UserError, match="plain files, which have no split or subset 'test'. Use rows"):
        read(tmp_path / "d", split="test")


def test_bad_records_stay_in_place_with_their_reason(write):
    lines = [
        json.dumps(ROWS[0]),
        "{broken",
        json.dumps({"instruction": "x"}),
        json.dumps({"instruction": "x", "output": 5}),
        json.dumps({"instruction": "x", "output": " "}),
    ]
    bad_bytes = b'{"instruction": "caf\xe9", "output": "x"}'
    path = write(
        "a.jsonl", "\n".join(lines).encode() + b"\n" + bad_bytes + b"\n" + json.dumps(ROWS[4]).encode()
    )
    rows = read(path)
    assert [row["record_id"].rsplit(":")[-1] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert answers([rows[0], rows[6]]) == ["0", "4"]
    reasons = [
        "invalid JSON",
        "'output' is missing",
        "'output' is int",
        "is empty",
        "must be UTF-8, but has the byte 0xe9",
    ]
    assert all(reason in row["problem"] for reason, row in zip(reasons, rows[1:6], strict=True))


def test_reasons_can_be_stored_whatever_they_quote(write, tmp_path):
    path = write("a.jsonl", json.dumps(ROWS[0]).encode() + b'\n{"caf\xe9": 1}\n')
    table = load_records(source_plans(SourceConfig(path=str(path))), str(tmp_path / "cache"))
    assert "udce9" in table[1]["problem"]


def test_the_table_is_memory_mapped_and_kept_until_the_file_changes(write, tmp_path, monkeypatch):
    path = write("a.jsonl", ROWS)
    config, cache = SourceConfig(path=str(path)), str(tmp_path / "cache")
    first = load_records(source_plans(config), cache)
    assert len(first) == 5
    assert first.cache_files
    reads = []
    monkeypatch.setattr(
        "llama_adapter.data.canonical.read_record",
        lambda *args: reads.append(args) or pytest.fail("read again"),
    )
    assert load_records(source_plans(config), cache)[4]["turns"] == first[4]["turns"]
    monkeypatch.undo()
    write("a.jsonl", ROWS[:2])
    assert len(load_records(source_plans(config), cache)) == 2
    assert len(load_records(source_plans(SourceConfig(path=str(path), rows="1:")), cache)) == 1


def test_a_stream_reads_only_what_is_asked_for_and_shares_files(write, tmp_path):
    write("d/a.jsonl", ROWS)
    write("d/b.jsonl", ROWS)
    stream = stream_records(source_plans(SourceConfig(path=str(tmp_path / "d"))))
    assert stream.num_shards == 2
    assert next(iter(stream))["turns"][-1]["text"] == "0"
    assert answers(stream) == ["0", "1", "2", "3", "4"] * 2


def test_real_alpaca_data_are_read_whole(shared_data):
    rows = read(shared_data / "instruct/alpaca_en_demo.json")
    assert len(rows) == 999
    assert not any(row["problem"] for row in rows)
    assert sum(bool(row["turns"][0]["context"]) for row in rows) == 412


def test_vqas_questions_and_annotations_are_joined(write, tmp_path):
    questions = [{"question_id": 10 + n, "image_id": n, "question": f"what {n}?"} for n in range(3)]
    notes = [{"question_id": 10 + n, "answers": [{"answer": f"a{n}"}]} for n in (2, 0)]
    write("q.json", json.dumps({"info": {}, "questions": questions}))
    write("a.json", json.dumps({"annotations": notes}))
    join = JoinConfig(path=str(tmp_path / "a.json"), records="annotations", column="question_id")
    settings = {
        "records": "questions",
        "join": join,
        "media_name": "P_{image_id:03d}.jpg",
        "media_folder": "m",
    }
    first, lost, last = read(tmp_path / "q.json", **settings)
    assert answers([first, last]) == ["a0", "a2"]
    assert (first["media"], last["media"]) == (["m/P_000.jpg"], ["m/P_002.jpg"])
    assert "no record with question_id=11" in lost["problem"]
    before = source_plans(SourceConfig(path=str(tmp_path / "q.json"), **settings))
    write("a.json", json.dumps({"annotations": [*notes, {"question_id": 11, "answers": ["x"]}]}))
    assert before != source_plans(SourceConfig(path=str(tmp_path / "q.json"), **settings))
    with pytest.raises(UserError, match="none.json' does not exist"):
        read(
            tmp_path / "q.json",
            join=JoinConfig(path=str(tmp_path / "none.json"), column="x"),
            records="questions",
        )
