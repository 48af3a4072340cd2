"""Which seconds of a recording its clips are; the same for videos and sounds.

Unusual: fractions, not floats, so that whole samples come out.
Source: docs/sources/imagebind-preprocessing.md#clip-times.
"""

from fractions import Fraction


def clip_times(duration: Fraction, clips: int, seconds: int) -> list[tuple[Fraction, Fraction]]:
    """Start and end of every clip in seconds, spread evenly; all alike where the recording is too short.

    Args:
        duration: of the recording, in seconds.
        clips: how many.
        seconds: length of a clip.
    """
    last = max(duration - seconds, Fraction(0))
    starts = [last * index / max(clips - 1, 1) for index in range(clips)]
    return [(start, start + seconds) for start in starts]
