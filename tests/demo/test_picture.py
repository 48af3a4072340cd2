import struct
import sys

import pytest

from llama_adapter.demo.picture import draw
from llama_adapter.errors import UserError


def png_size(path):
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", header[16:24])


def test_writes_a_png_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    draw(tmp_path / "a.png", [(5, 2.0), (10, 0.5)], [[0.1, 0.2], [0.3, 0.05]])
    width, height = png_size(tmp_path / "a.png")
    assert width > height > 300
    assert "matplotlib.pyplot" not in sys.modules


def test_other_numbers_give_another_picture(tmp_path):
    draw(tmp_path / "a.png", [(5, 2.0), (10, 0.5)], [[0.1], [0.3]])
    draw(tmp_path / "b.png", [(5, 2.0), (10, 0.5)], [[0.1], [0.4]])
    draw(tmp_path / "c.png", [(5, 2.0), (10, 0.6)], [[0.1], [0.3]])
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in "abc"}) == 3


def test_one_step_and_one_layer_are_enough(tmp_path):
    draw(tmp_path / "a.png", [(1, 2.0)], [[0.0]])
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_without_matplotlib_the_pip_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        UserError, match=r"matplotlib, which cannot be imported .*\. Run: pip install 'llama-adapter\[demo\]'"
    ):
        draw(tmp_path / "a.png", [(1, 2.0)], [[0.0]])
