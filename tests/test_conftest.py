"""The rules that every test runs under."""

import shutil
import subprocess
import sys

TESTS = """
import os
from pathlib import Path

def test_sets_a_variable_properly(monkeypatch):
    monkeypatch.setenv("SOME_SETTING", "1")

def test_leaks_a_variable():
    os.environ["SOME_SETTING"] = "1"

def test_sees_no_variable_of_another_test():
    assert "SOME_SETTING" not in os.environ

def test_has_a_folder_of_its_own(tmp_path):
    assert Path.cwd() == tmp_path
    assert os.environ["HF_HUB_OFFLINE"] == "1"
"""


def test_environment_leaks_fail_the_test_that_made_them_and_reach_no_other(repository, tmp_path):
    shutil.copy(repository / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_rules.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert "4 passed, 1 error" in result.stdout
    assert "ERROR test_rules.py::test_leaks_a_variable" in result.stdout
    assert "['SOME_SETTING']; set them with monkeypatch.setenv" in result.stdout
