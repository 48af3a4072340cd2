"""Which option an answer in words names: the letter, if it can be read without guessing.

An answer that names no option, or two different ones, is not read: the caller counts it, and decides. It does
not know questions.
"""

import re
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_SAID = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?\s*[:=]?\s*(?i:option\s+|choice\s+)?[\"'*]*\(?([A-Z])\b(?!['’])"
)
_FIRST = re.compile(r"\s*(?:\(([A-Z])\)|([A-Z])[.):,](?=\s|$))")
_WORDS = re.compile(r"answer\s+is\s*:?\s*(.+?)\s*(?:[.\n]|$)", re.IGNORECASE)


def read_option(answer: object, options: Sequence[str]) -> int | None:
    """The option that an answer names.

    Args:
        answer: a text, or the index of an option.
        options: what there is to choose from.

    Returns:
        The index of the option; None where the answer names none, or more than one.
    """
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer if 0 <= answer < len(options) else None
    if not isinstance(answer, str):
        return None
    for found in (_alone(answer), _by_words(answer, options), _by_letter(answer)):
        valid = {index for index in found if index < len(options)}
        if found:
            return valid.pop() if len(valid) == 1 and len(found) == 1 else None
    return None


def _alone(answer: str) -> set[int]:
    """The option of an answer that is a letter and nothing else."""
    found = _ALONE.fullmatch(answer)
    return {LETTERS.index(found.group(1).upper())} if found else set()


def _by_letter(answer: str) -> set[int]:
    """The options named by a letter, in the most explicit way that the answer uses."""
    if said := _SAID.findall(answer):
        return {LETTERS.index(letter) for letter in said}
    if first := _FIRST.match(answer):
        return {LETTERS.index(first.group(1) or first.group(2))}
    return set()


def _by_words(answer: str, options: Sequence[str]) -> set[int]:
    """The options whose text is the answer, or stands behind `the answer is`.

    A text of one letter does not count: where pictures are lettered, option A may read `B`.
    """
    said = {_plain(answer), *(_plain(text) for text in _WORDS.findall(answer))} - {""}
    return {n for n, text in enumerate(options) if len(text.strip()) > 1 and _plain(text) in said}


def _plain(text: str) -> str:
    """A text without case and closing punctuation."""
    return " ".join(text.lower().strip().rstrip(".!").split())
