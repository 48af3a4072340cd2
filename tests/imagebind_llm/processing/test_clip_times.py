"""Which seconds are looked at."""

import json
from fractions import Fraction

import pytest

from imagebind_llm.processing.clip_times import clip_times
from tests.imagebind_llm.tiny import REFERENCE


def test_the_originals_times():
    path = REFERENCE / "imagebind_clip_times.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    for title, wanted in json.loads(path.read_text()).items():
        clips, duration = title.split(" clips, ")
        found = clip_times(Fraction(duration.removesuffix("s")), int(clips), 2)
        assert [[float(start), float(end)] for start, end in found] == wanted, title


def test_one_clip_begins_at_the_start():
    assert clip_times(Fraction(10), 1, 2) == [(0, 2)]
