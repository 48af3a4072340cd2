import shutil

import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.captions import java
from llama_adapter.evaluation.captions.java import package_folder, tokenize_with_java, why_not

pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap")


def test_without_java_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert why_not("METEOR") == "METEOR was left out: there is no `java` on the PATH."
    with pytest.raises(UserError, match="no `java` on the PATH. Use --tokenizer python"):
        tokenize_with_java(["a"])


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/java")
    monkeypatch.setitem(java.JARS, "SPICE", ("spice/none.jar",))
    assert "spice/none.jar is missing" in why_not("SPICE")
    assert why_not("METEOR") is None


def test_without_the_package_the_pip_line_is_said(monkeypatch):
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'llama-adapter\[eval\]'"):
        package_folder()


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_a_line_break_does_not_shift_the_captions():
    assert tokenize_with_java(["a\u2028b\nc", "", "d. é"]) == [["a", "b", "c"], [], ["d.", "é"]]


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_a_failing_program_is_told(monkeypatch):
    monkeypatch.setattr(java, "TOKENIZER_JAR", "none.jar")
    with pytest.raises(UserError, match="Java's tokeniser failed: .*Use --tokenizer python"):
        tokenize_with_java(["a"])
