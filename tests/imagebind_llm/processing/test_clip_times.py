"""Which seconds are looked at."""

import json
from fractions import Fraction

from imagebind_llm.processing.clip_times import clip_times
from tests.imagebind_llm.tiny import GOLDEN


def test_the_originals_times():
    for title, wanted in json.loads((GOLDEN / "imagebind_clip_times.json").read_text()).items():
        clips, duration = title.split(" clips, ")
        found = clip_times(Fraction(duration.removesuffix("s")), int(clips), 2)
        assert [[float(start), float(end)] for start, end in found] == wanted, title


def test_one_clip_begins_at_the_start():
    assert clip_times(Fraction(10), 1, 2) == [(0, 2)]
