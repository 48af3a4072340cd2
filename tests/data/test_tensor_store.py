"""The store of tensors: round trips, several writers, and every way a file can end."""

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import time
from collections import namedtuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data.tensor_store import TensorStore, readable_bytes
from llama_adapter.errors import UserError

ENTRY = 56


def key(name):
    return hashlib.sha256(str(name).encode()).digest()


def values(number, tokens=3, width=4):
    return torch.arange(tokens * width, dtype=torch.float32).view(tokens, width) + 100 * number


def store(folder, dtype="float32", **identity):
    return TensorStore(folder, identity or {"what": "test"}, dtype)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    width=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    cuts=st.integers(1, 4),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_appended_comes_back_rounded_as_stated(tmp_path, lengths, width, dtype, cuts):
    folder = tmp_path / f"{hash((tuple(lengths), width, dtype, cuts))}"
    generator = torch.Generator().manual_seed(sum(lengths))
    tensors = {key(n): torch.randn(tokens, width, generator=generator) for n, tokens in enumerate(lengths)}
    writer = store(folder, dtype)
    for start in range(cuts):
        writer.append(dict(list(tensors.items())[start::cuts]))
    reader = store(folder, dtype)
    unit = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert len(reader) == len(tensors)
    assert reader.verify() == []
    for name, tensor in tensors.items():
        for found in (reader.get(name), writer.get(name)):
            assert found.shape == tensor.shape
            # 2**-25: half of float16's smallest step near zero
            assert torch.all((found.float() - tensor).abs() <= unit * tensor.abs() + 2**-25 * (unit > 0))


def test_known_keys_are_not_written_again_and_unknown_ones_are_none(tmp_path):
    opened = store(tmp_path)
    assert opened.append({key(1): values(1)}) == 1
    size = opened.num_bytes
    assert opened.append({key(1): values(9), key(2): values(2)}) == 1
    assert torch.equal(opened.get(key(1)), values(1))
    assert opened.get(key(3)) is None
    assert key(2) in opened
    assert opened.num_bytes > size
    assert opened.item_bytes(key(1)) == 3 * 4 * 4
    on_disk = sum((tmp_path / name).stat().st_size for name in ("data.bin", "index.bin"))
    assert opened.num_bytes == on_disk


def test_writing_to_a_tensor_leaves_the_file_alone(tmp_path):
    opened = store(tmp_path)
    opened.append({key(1): values(1)})
    opened.get(key(1)).zero_()
    assert torch.equal(opened.get(key(1)), values(1))
    assert opened.verify() == []


def test_another_identity_or_type_in_the_folder_is_refused(tmp_path):
    store(tmp_path, encoder={"name": "a", "size": 1})
    with pytest.raises(UserError, match=r"identity.encoder.size: 1 there, 2 here\)\. Choose another folder"):
        store(tmp_path, encoder={"name": "a", "size": 2})
    with pytest.raises(UserError, match="dtype: 'float32' there, 'float16' here"):
        store(tmp_path, "float16", encoder={"name": "a", "size": 1})
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(UserError, match="identity.json is not valid"):
        store(tmp_path)
    with pytest.raises(UserError, match="The storage type is 'int4'. Use one of"):
        store(tmp_path / "new", "int4")


def test_values_that_cannot_be_kept_are_refused_and_nothing_is_written(tmp_path):
    opened = store(tmp_path, "float16")
    with pytest.raises(UserError, match=r"not finite as float16 \(largest: 7e\+04\)\. Choose bfloat16"):
        opened.append({key(1): values(1), key(2): torch.full((1, 2), 7e4)})
    with pytest.raises(UserError, match=r"shape \(0, 4\) cannot be stored. Use the shape"):
        opened.append({key(1): torch.ones(0, 4)})
    assert len(opened) == 0
    assert len(store(tmp_path, "float16")) == 0


@pytest.mark.parametrize("cut", range(0, 3 * ENTRY + 1, 8))
def test_an_index_cut_anywhere_keeps_its_whole_entries_and_can_be_continued(tmp_path, cut):
    opened = store(tmp_path)
    for number in range(3):
        opened.append({key(number): values(number)})
    os.truncate(tmp_path / "index.bin", 3 * ENTRY - cut)
    again = store(tmp_path)
    assert len(again) == (3 * ENTRY - cut) // ENTRY
    again.append({key(number): values(number + 10, tokens=5) for number in range(6)})
    last = store(tmp_path)
    assert last.verify() == []
    for number in range(6):
        old = number < (3 * ENTRY - cut) // ENTRY
        assert torch.equal(last.get(key(number)), values(number) if old else values(number + 10, tokens=5))


@pytest.mark.parametrize("kept", [0, 47, 48, 64, 100, 128, 175])
def test_values_cut_anywhere_are_missing_and_never_others(tmp_path, kept):
    """Three tensors of 48 bytes at 0, 64 and 128."""
    opened = store(tmp_path)
    for number in range(3):
        opened.append({key(number): values(number)})
    os.truncate(tmp_path / "data.bin", kept)
    again = store(tmp_path)
    whole = [number for number in range(3) if 64 * number + 48 <= kept]
    assert len(again) == len(whole)
    again.append({key("new"): values(7), key("newer"): values(8, tokens=9)})
    last = store(tmp_path)  # old entries must not come to point at new values
    assert len(last) == len(whole) + 2
    assert last.verify() == []
    for number in whole:
        assert torch.equal(last.get(key(number)), values(number))


@given(place=st.integers(0, 3 * ENTRY - 1), flip=st.integers(1, 255))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_in_the_index_loses_entries_but_never_gives_other_values(tmp_path, place, flip):
    folder = tmp_path / f"{place}-{flip}"
    opened = store(folder)
    for number in range(3):
        opened.append({key(number): values(number)})
    raw = bytearray((folder / "index.bin").read_bytes())
    raw[place] ^= flip
    (folder / "index.bin").write_bytes(raw)
    again = store(folder)
    assert len(again) == place // ENTRY
    for number in range(3):
        found = again.get(key(number))
        assert found is None or torch.equal(found, values(number))


def test_rotten_values_are_noticed_reported_and_replaced(tmp_path):
    opened = store(tmp_path)
    opened.append({key(number): values(number) for number in range(3)})
    with (tmp_path / "data.bin").open("r+b") as file:
        file.seek(64 + 5)
        file.write(b"\xff")
    again = store(tmp_path)
    assert again.get(key(1)) is None
    assert torch.equal(again.get(key(2)), values(2))
    assert store(tmp_path).verify() == [key(1)]
    other = store(tmp_path)
    assert store(tmp_path).verify(repair=True) == [key(1)]
    other.refresh()
    assert key(1) not in other
    assert key(1) not in store(tmp_path)
    other.append({key(1): values(1)})
    last = store(tmp_path)
    assert last.verify() == []
    assert torch.equal(last.get(key(1)), values(1))


def test_what_another_process_appends_is_found_after_a_refresh(tmp_path):
    one, other = store(tmp_path), store(tmp_path)
    one.append({key(1): values(1)})
    assert key(1) not in other
    other.refresh()
    assert torch.equal(other.get(key(1)), values(1))


def test_it_travels_to_another_process_by_its_folder(tmp_path):
    opened = store(tmp_path)
    opened.append({key(1): values(1)})
    text = pickle.dumps(opened)
    assert len(text) < 500
    assert torch.equal(pickle.loads(text).get(key(1)), values(1))


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def append_many(folder, name, count, common):
    opened = store(folder)
    for number in range(count):
        opened.append({key(f"{name}{number}"): values(number), key(f"common{number}"): values(common)})


@needs_fork
@forks
def test_two_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=append_many, args=(tmp_path, name, 25, 5)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    opened = store(tmp_path)
    assert len(opened) == 75
    assert opened.verify() == []
    assert all(torch.equal(opened.get(key(f"a{n}")), values(n)) for n in range(25))
    assert all(torch.equal(opened.get(key(f"common{n}")), values(5)) for n in range(25))


def append_without_end(folder):
    opened = store(folder)
    for number in range(10**6):
        opened.append({key(number): values(number, tokens=50, width=64)})


@needs_fork
@forks
def test_a_killed_writer_leaves_a_whole_store(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=append_without_end, args=(tmp_path,))
    process.start()
    index, deadline = tmp_path / "index.bin", time.monotonic() + 60
    while (not index.exists() or index.stat().st_size < 20 * ENTRY) and time.monotonic() < deadline:
        time.sleep(0.003)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    opened = store(tmp_path)
    assert len(opened) >= 20
    assert opened.verify() == []
    count = len(opened)
    opened.append({key("after"): values(1)})
    assert all(torch.equal(opened.get(key(n)), values(n, 50, 64)) for n in (0, 19, count - 1))
    assert torch.equal(store(tmp_path).get(key("after")), values(1))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults")
def test_a_lookup_reads_its_own_pages_only(tmp_path):
    big = 64
    opened = store(tmp_path)
    opened.append({key(n): torch.full((256, 1024), float(n)) for n in range(big)})  # 1 MiB each
    again = store(tmp_path)
    pages = resource.getpagesize()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert again.get(key(40))[0, 0] == 40
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults * pages < 4 * 2**20 < big * 2**20


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    opened = store(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 2**30))
    opened.check_space(2**29, "Features")
    with pytest.raises(UserError, match=r"Features need about 3.0 GiB, and .* has 1.0 GiB free. Choose"):
        opened.check_space(3 * 2**30, "Features")


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch):
    opened = store(tmp_path)
    opened.append({key(1): values(1)})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TensorStore, "_write_index", full)
        with pytest.raises(UserError, match="No space left on device. Free some space"):
            opened.append({key(2): values(2)})
    assert opened.append({key(3): values(3)}) == 1
    assert store(tmp_path).verify() == []
    assert json.loads((tmp_path / "identity.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")]
)
def test_sizes_are_readable(count, text):
    assert readable_bytes(count) == text
