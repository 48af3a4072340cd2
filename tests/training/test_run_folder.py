"""Whose a run's folder is, and what in it may be deleted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_adapter.errors import UserError
from llama_adapter.training import checkpoint as files
from llama_adapter.training.run_folder import HOLDER, check_earlier, claimed, delete_earlier

HOLDING = """
import sys, time
from pathlib import Path
from llama_adapter.training.run_folder import claimed
with claimed(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(120)
"""


def finished(folder, name):
    """A folder that a run has closed."""
    written = folder / f".incomplete-{name}" / name
    written.mkdir(parents=True)
    (written / "weights").write_text("x")
    files.publish(written, folder / name, {})
    written.parent.rmdir()
    return folder / name


def test_another_process_is_named_and_its_crash_frees_the_folder(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert other.stdout.readline() == "in\n"
    with (
        pytest.raises(UserError, match=rf"a run is going on \(process {other.pid} on .*\). Choose"),
        claimed(tmp_path),
    ):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    with claimed(tmp_path) as left:
        assert f"process {other.pid} on" in left
        assert "did not end properly" in left
    with claimed(tmp_path) as left:
        assert left is None
    assert not (tmp_path / HOLDER).exists()


def test_a_run_that_fails_lets_go(tmp_path):
    with pytest.raises(RuntimeError), claimed(tmp_path):
        raise RuntimeError
    with claimed(tmp_path) as left:
        assert left is None
        assert json.loads((tmp_path / HOLDER).read_text())["process"]


def test_a_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "in"):
        with (
            pytest.raises(UserError, match=r"training\.output_dir is .*Use a folder that can be written"),
            claimed(folder),
        ):
            pass


def test_earlier_runs_are_kept_unless_asked_and_then_only_they_go(tmp_path):
    finished(tmp_path, "checkpoint-2")
    result = finished(tmp_path, "adapter")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"checkpoints of an earlier run, up to checkpoint-2\. Use --training\.resume"
    ):
        check_earlier(tmp_path, result, resuming=False, overwrite=False)
    check_earlier(tmp_path, result, resuming=True, overwrite=False)
    check_earlier(tmp_path, result, resuming=False, overwrite=True)
    delete_earlier(tmp_path, result)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_result_alone_is_an_earlier_run(tmp_path):
    result = finished(tmp_path, "adapter")
    with pytest.raises(UserError, match="holds the result of an earlier run"):
        check_earlier(tmp_path, result, resuming=False, overwrite=False)


@pytest.mark.parametrize("name", ["checkpoint-5", "adapter"])
def test_what_no_run_wrote_is_neither_deleted_nor_replaced(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=rf"{name}' has no manifest.json"):
        check_earlier(tmp_path, tmp_path / "adapter", resuming=False, overwrite=True)
    delete_earlier(tmp_path, tmp_path / "adapter")
    assert (tmp_path / name / "thesis.tex").exists()
