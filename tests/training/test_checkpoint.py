"""The manifest: complete or not, under every fault that a file system can show."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.training import checkpoint as files


def write(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def run(tmp_path):
    """A run with three complete checkpoints."""
    for step in (2, 10, 9):
        written = write(
            files.staging_folder(tmp_path, step), {"weights.bin": b"w" * step, "sub/state.json": b"{}"}
        )
        files.publish(written, tmp_path / f"checkpoint-{step}", {"step": step})
    return tmp_path


def test_published_checkpoints_are_complete_and_sorted_by_step(run):
    assert [folder.name for folder in files.checkpoint_folders(run)] == [
        "checkpoint-10",
        "checkpoint-9",
        "checkpoint-2",
    ]
    assert all(files.defect(folder) is None for folder in files.checkpoint_folders(run))
    assert files.last_complete(run).path == run / "checkpoint-10"
    assert files.read_manifest(run / "checkpoint-9")["run"] == {"step": 9}
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "manifest.json").unlink(), "has no manifest: it was never finished"),
        (lambda f: (f / "manifest.json").write_bytes(b'{"files": {'), "manifest that cannot be read"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), "manifest that cannot be read"),
        (lambda f: (f / "manifest.json").write_text("[]"), "manifest that cannot be read"),
        (lambda f: (f / "manifest.json").write_text("{}"), "manifest that cannot be read"),
        (lambda f: (f / "weights.bin").write_bytes(b"w" * 9), r"has 9 bytes instead of 10"),
        (lambda f: (f / "weights.bin").write_bytes(b"w" * 9 + b"x"), "was changed after it was written"),
        (lambda f: (f / "weights.bin").unlink(), r"lacks weights\.bin"),
        (lambda f: (f / "sub" / "state.json").unlink(), r"lacks sub/state\.json"),
    ],
)
def test_a_damaged_checkpoint_is_never_taken_for_complete(run, damage, reason):
    damage(run / "checkpoint-10")
    found = files.last_complete(run)
    assert found.path == run / "checkpoint-9"
    assert list(found.rejected) == [run / "checkpoint-10"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.rejected[run / "checkpoint-10"])


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=64), data=st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory, content, data):
    folder = tmp_path_factory.mktemp("bytes")
    files.publish(write(folder / "w", {"weights.bin": content}), folder / "checkpoint-1", {})
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))
    (folder / "checkpoint-1" / "weights.bin").write_bytes(changed)
    assert "was changed" in files.defect(folder / "checkpoint-1")


def test_a_crash_before_the_rename_leaves_nothing_that_looks_like_a_checkpoint(run, monkeypatch):
    written = write(files.staging_folder(run, 12), {"weights.bin": b"w"})

    def crash(self, target):
        raise OSError("power cut")

    monkeypatch.setattr("pathlib.Path.rename", crash)
    with pytest.raises(OSError, match="power cut"):
        files.publish(written, run / "checkpoint-12", {})
    monkeypatch.undo()
    assert files.last_complete(run).path == run / "checkpoint-10"
    files.clear_staging(run)
    assert not list(run.glob(".*"))


def test_the_manifest_is_written_after_every_other_file_is_on_disk(tmp_path, monkeypatch):
    flushed = []
    flush = files._flush
    monkeypatch.setattr(files, "_flush", lambda path: (flushed.append(path.name), flush(path)))
    files.publish(write(tmp_path / "w", {"a.bin": b"1", "b/c.bin": b"2"}), tmp_path / "checkpoint-1", {})
    assert flushed.index("manifest.json") > max(flushed.index("a.bin"), flushed.index("c.bin"))
    assert flushed[-1] == tmp_path.name  # the rename itself


def test_publishing_over_an_old_folder_replaces_it_whole(run):
    files.publish(write(run / "w", {"other.bin": b"1"}), run / "checkpoint-10", {"step": 10})
    assert {path.name for path in (run / "checkpoint-10").iterdir()} == {"other.bin", "manifest.json"}
    assert files.defect(run / "checkpoint-10") is None
    assert not list(run.glob(".*"))


def test_an_extra_file_does_no_harm(run):
    (run / "checkpoint-10" / "my-notes.txt").write_text("good one")
    assert files.defect(run / "checkpoint-10") is None


def test_setting_aside_keeps_the_content(run):
    aside = files.set_aside(run / "checkpoint-10")
    assert aside.name == "damaged-checkpoint-10"
    assert (aside / "weights.bin").read_bytes() == b"w" * 10
    assert files.last_complete(run).path == run / "checkpoint-9"


@pytest.mark.parametrize(
    ("keep", "protected", "left"),
    [
        (None, ["checkpoint-10"], {2, 9, 10}),
        (0, ["checkpoint-10"], {2, 9, 10}),
        (1, ["checkpoint-10"], {10}),
        (2, ["checkpoint-10"], {9, 10}),
        (1, ["checkpoint-10", "checkpoint-2"], {2, 10}),
        (2, ["checkpoint-10", "checkpoint-2"], {2, 10}),
        (1, ["checkpoint-9"], {9}),  # just written, although a folder of a later step is there
        (5, ["checkpoint-10"], {2, 9, 10}),
    ],
)
def test_pruning_never_touches_what_is_protected(run, keep, protected, left):
    files.prune(run, keep, [run / name for name in protected])
    assert {int(folder.name.split("-")[1]) for folder in files.checkpoint_folders(run)} == left


def test_files_and_other_folders_are_no_checkpoints(tmp_path):
    (tmp_path / "checkpoint-3").write_text("a file")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-4-old").mkdir()
    assert files.checkpoint_folders(tmp_path) == []
    assert files.last_complete(tmp_path) == files.Search(path=None, rejected={})


def test_manifest_is_plain_json(run):
    content = json.loads((run / "checkpoint-2" / "manifest.json").read_text())
    assert content["format"] == 1
    assert content["files"]["weights.bin"]["size"] == 2
    assert len(content["files"]["weights.bin"]["sha256"]) == 64
