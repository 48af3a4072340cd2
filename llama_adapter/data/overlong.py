"""Makes over-long sequences fit by taking tokens out of the middle of what the user wrote.

Only text that the record put into the prompt may go: never an answer, never the template's own words, never a
media placeholder. The longest parts give first, so a short question survives beside a long document. Whether
something fits at all is the caller's question.
"""

from bisect import bisect_left
from collections.abc import Sequence

from llama_adapter.data.encoding import IGNORE, Encoded
from llama_adapter.data.template_base import Span

TokenRange = tuple[int, int]
"""First token and the one behind the last."""


def cuttable_ranges(
    encoded: Encoded, labels: Sequence[int], contents: Sequence[Span], protected: Sequence[Span]
) -> list[TokenRange]:
    """Runs of tokens that may be taken out.

    Args:
        encoded: the tokens.
        labels: their labels; a token with loss never goes.
        contents: spans of the text that may be cut.
        protected: spans inside them that must stay, such as media placeholders.

    Returns:
        Runs in order; a protected span splits a content into two runs.
    """
    ranges: list[TokenRange] = []
    for content in contents:
        tokens = [token for token in _inside(encoded.offsets, content) if labels[token] == IGNORE]
        free = [token for token in tokens if not _touches(encoded.offsets[token], protected)]
        ranges += _runs(free)
    return ranges


def _inside(offsets: Sequence[Span], content: Span) -> list[int]:
    """The tokens that stand for characters of a content and for nothing else."""
    inside = []
    for token in range(bisect_left(offsets, (content[0], 0)), len(offsets)):
        first, last = offsets[token]
        if first >= content[1]:
            break
        if first < last <= content[1]:
            inside.append(token)
    return inside


def _touches(span: Span, others: Sequence[Span]) -> bool:
    """Whether a span has a character in common with another."""
    return any(span[0] < last and first < span[1] for first, last in others)


def _runs(tokens: Sequence[int]) -> list[TokenRange]:
    """Neighbouring tokens as ranges."""
    ranges: list[TokenRange] = []
    for token in tokens:
        if ranges and ranges[-1][1] == token:
            ranges[-1] = (ranges[-1][0], token + 1)
        else:
            ranges.append((token, token + 1))
    return ranges


def shares(lengths: Sequence[int], budget: int) -> list[int]:
    """Divide a budget so that the longest give first.

    Args:
        lengths: what each part would like to keep.
        budget: how much all may keep together.

    Returns:
        What each keeps: the same ceiling for all that are cut, one more for the first of them where the
        budget allows.
    """
    low, high = 0, max(lengths, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(length, middle) for length in lengths) <= budget:
            low = middle
        else:
            high = middle - 1
    kept = [min(length, low) for length in lengths]
    spare = budget - sum(kept)
    for part, length in enumerate(lengths):
        if spare > 0 and kept[part] < length:
            kept[part] += 1
            spare -= 1
    return kept


def _whole_characters(offsets: Sequence[Span], start: int, stop: int, bounds: TokenRange) -> TokenRange:
    """Widen a cut so that no character loses only some of its bytes."""
    while bounds[0] < start < stop and offsets[start - 1][1] > offsets[start][0]:
        start -= 1
    while start < stop < bounds[1] and offsets[stop - 1][1] > offsets[stop][0]:
        stop += 1
    return start, stop


def cut_middles(encoded: Encoded, ranges: Sequence[TokenRange], excess: int) -> list[int] | None:
    """Choose which tokens stay when a sequence is too long.

    Args:
        encoded: the tokens.
        ranges: runs that may be cut.
        excess: how many tokens must go.

    Returns:
        Indices of the tokens that stay, in order, or None when the runs together are too short.
    """
    lengths = [stop - start for start, stop in ranges]
    if sum(lengths) < excess:
        return None
    gone: set[int] = set()
    for (start, stop), keep in zip(ranges, shares(lengths, sum(lengths) - excess), strict=True):
        head = (keep + 1) // 2
        gone |= set(
            range(*_whole_characters(encoded.offsets, start + head, stop - (keep - head), (start, stop)))
        )
    return [token for token in range(len(encoded.ids)) if token not in gone]


def answers_that_fit(
    encoded: Encoded, answers: Sequence[Span], ranges: Sequence[TokenRange], limit: int
) -> int:
    """How many answers of a conversation fit, from the first on, if everything that may go went.

    Args:
        encoded: the tokens of the whole conversation.
        answers: spans of its answers.
        ranges: runs that may be cut.
        limit: the maximum length in tokens.

    Returns:
        A number of answers, possibly 0.
    """
    fitting = 0
    for _, last in answers:
        end = bisect_left(encoded.offsets, (last, 0))
        loose = sum(max(0, min(stop, end) - start) for start, stop in ranges)
        if end - loose > limit:
            break
        fitting += 1
    return fitting
