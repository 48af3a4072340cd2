"""Optional packages."""

import sys

import pytest

from imagebind_llm.processing.packages import needed
from llama_adapter import UserError


def test_packages_that_are_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(
        UserError, match=r"Sounds need the package 'soxr'.*pip install 'llama-adapter\[audio\]'"
    ):
        needed("soxr", "Sounds", "audio")
