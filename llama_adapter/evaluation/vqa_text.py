"""The text normalisation of the VQA evaluation: punctuation, numbers, articles, contractions.

Rules of the VQA challenge. Two of them surprise: a mark is deleted where it (or any digit-comma-digit) stands
next to a space and becomes a space elsewhere, and `none` is the number 0. It does not know scores.
"""

import re

MARKS = ';/[]"{}()=+\\_-><@`,?!:'
"""What counts as punctuation, full stops apart."""
NUMBERS = {
    word: str(n)
    for n, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
}
NUMBERS |= {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))

_NEGATED = [
    "are",
    "could",
    "did",
    "does",
    "do",
    "had",
    "has",
    "have",
    "is",
    "might",
    "must",
    "need",
    "ought",
    "should",
    "was",
    "were",
    "would",
]
_PERSONS = [
    "he",
    "she",
    "they",
    "we",
    "you",
    "it",
    "that",
    "there",
    "who",
    "what",
    "where",
    "why",
    "how",
    "someone",
    "somebody",
    "something",
]


def _contractions() -> dict[str, str]:
    """Contractions without their apostrophe -> with it, leaving out what is a word of its own."""
    found = {f"{verb}nt": f"{verb}n't" for verb in _NEGATED}
    found |= {f"{verb}ve": f"{verb}'ve" for verb in ("could", "might", "must", "should", "would")}
    endings = {"d": "'d", "ll": "'ll", "re": "'re", "s": "'s", "ve": "'ve"}
    for person in _PERSONS:
        found |= {person + ending: person + written for ending, written in endings.items()}
    found |= {
        "aint": "ain't",
        "cant": "can't",
        "wont": "won't",
        "shant": "shan't",
        "im": "i'm",
        "ive": "i've",
    }
    found |= {"yall": "y'all", "oclock": "o'clock", "maam": "ma'am", "twas": "'twas", "lets": "let's"}
    words = ["its", "shell", "shed", "hell", "were", "wed", "well"]
    return {key: value for key, value in found.items() if key not in words}


CONTRACTIONS = _contractions()


def strip_punctuation(text: str, as_published: bool = False) -> str:
    """Deletes punctuation, or makes it spaces.

    Args:
        text: an answer.
        as_published: also delete a full stop behind a digit (`3.`), at most 32 of them.
    """
    thousands = re.search(r"\d,\d", text) is not None
    found = text
    for mark in MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or thousands else " ")
    if as_published:
        return re.sub(r"\.(?!\d)", "", found, count=32)
    return re.sub(r"(?<!\d)\.(?!\d)|\.(?=\s|$)", "", found)


def plain_words(text: str) -> str:
    """Lower case, digits for number words, no articles, apostrophes in contractions."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise(text: str, as_published: bool = False) -> str:
    """The whole normalisation of an answer."""
    flat = text.replace("\n", " ").replace("\t", " ").strip()
    return plain_words(strip_punctuation(flat, as_published))
