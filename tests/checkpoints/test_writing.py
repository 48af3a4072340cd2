"""Output is there whole or not at all."""

import pytest

from llama_adapter.checkpoints.writing import new_file, new_folder
from llama_adapter.errors import UserError


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path, fault):
    def fail(path):
        path.write_text("1")
        raise fault

    with pytest.raises(fault), new_folder(tmp_path / "out") as folder:
        fail(folder / "a")
    with pytest.raises(fault), new_file(tmp_path / "file") as path:
        fail(path)
    assert not list(tmp_path.iterdir())


def test_what_exists_stays_unless_it_may_be_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    (tmp_path / "file").write_text("old")
    with pytest.raises(UserError, match="not empty"), new_folder(tmp_path / "out"):
        pass
    with pytest.raises(UserError, match="exists"), new_file(tmp_path / "file"):
        pass
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "out", overwrite=True):
        raise ValueError("stop")
    assert (tmp_path / "out" / "old").read_text() == "old"
    with new_folder(tmp_path / "out", overwrite=True) as folder, new_file(tmp_path / "file", True) as path:
        (folder / "new").write_text("new")
        path.write_text("new")
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["new"]
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_where_a_folder_should_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"), new_folder(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="is a folder"), new_file(tmp_path):
        pass
