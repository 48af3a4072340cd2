"""The Penn Treebank tokeniser of the caption scorers in Python: the tokens of the package's Java program.

What comes out is what `pycocoevalcap`'s tokeniser returns: lower case, contractions split (`ca n't`),
brackets spelt out (`-lrb-`), and punctuation left out. Unusual: each caption is tokenised by itself, where
the Java program reads all captions as one text; both give the same tokens. Line breaks inside a caption
count as spaces. It does not know captions' ids, scorers or files.
"""

import functools
import re
from collections.abc import Sequence

from llama_adapter.evaluation.captions.ptb_characters import (
    LETTER_CODE,
    NOTHING,
    SPELT,
    SYMBOL_CODE,
    clean,
    shape,
)
from llama_adapter.evaluation.captions.ptb_rules import (
    CONTRACTION,
    OPEN_INITIAL,
    OPEN_NUMBER,
    RULES,
    SENTENCE_START,
    SPANS,
    SPLIT_WORDS,
)

_DROPPED = frozenset(
    [
        "'",
        "`",
        '"',
        ".",
        "?",
        "!",
        ",",
        ":",
        ";",
        "-",
        "--",
        "---",
        "----",
        "...",
        "…",
        "–",
        "—",
        "―",
        "‐",
        "‑",
        "֊",
        "’",
        "‘",
        "‛",
        "‹",
        "›",
        "“",
        "”",
        "«",
        "»",
    ]
) | {". . ."}
"""Tokens that the caption scorers leave out."""

_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=[ \0]|$)")
"""A word with nothing before the next space, which needs no rules."""

_ENTITY = re.compile(
    r"&(?:(?P<sign>(?i:amp|lt|gt|quot|apos|nbsp|mdash|ndash|md))"
    r"|(?P<letter>[aeiouAEIOU](?:acute|grave|uml))|#(?P<code>[0-9]{1,4}));"
)
_MEANING = {"amp": "&", "quot": '"', "apos": "'", "nbsp": " ", "mdash": "–", "ndash": "–", "md": "–"}
_LETTERS = [vowel + accent for vowel in "aeiouAEIOU" for accent in ("acute", "grave", "uml")]
_LESS, _GREATER = chr(SYMBOL_CODE + 0xFFFC), chr(SYMBOL_CODE + 0xFFFD)
_QUOTES = str.maketrans(
    {"‘": "`", "‛": "`", "‹": "`", "’": "'", "›": "'", "“": "``", "«": "``", "”": "''", "»": "''"}
)
_QUOTE_RUN = re.compile("[‘‛‹’›“«”»„‚`]{2,}")
_BRACKETS = {"(": "-lrb-", ")": "-rrb-"}
_LONELY = {"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", _LESS: "<", _GREATER: ">"} | SPELT


def tokenize(text: str) -> list[str]:
    """The tokens of a caption.

    Args:
        text: one caption, as it was written.

    Returns:
        Its words in lower case, without punctuation.
    """
    text = clean(text)
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
    form = shape(text)
    if SPANS.search(form) is None:
        return [token for start, end in _chunks(form) for token in _tokens(text[start:end], form[start:end])]
    return list(_tokens(text, form))


def tokenize_all(texts: Sequence[str]) -> list[list[str]]:
    """The tokens of many captions, as the Java program gives them when it reads one caption per line.

    Unusual: an abbreviation at the very end of a caption is read together with the beginning of the next line
    (`no.` before a digit, `I.` before `The`), so the order of the captions can matter, as it does there.

    Args:
        texts: the captions, in the order of the file.

    Returns:
        The tokens of each caption.
    """
    return [
        _tokenize_before(text, following) for text, following in zip(texts, [*texts[1:], ""], strict=True)
    ]


def _tokenize_before(text: str, following: str) -> list[str]:
    """The tokens of a caption that stands before another one."""
    text = text.rstrip()
    if text.endswith("."):
        if OPEN_NUMBER.search(text) and following.lstrip()[:1].isdigit():
            return tokenize(f"{text} 0")[:-1]
        if OPEN_INITIAL.search(text) and SENTENCE_START.match(following):
            return tokenize(f"{text} The ")[:-1]
    return tokenize(text)


def _chunks(form: str) -> list[tuple[int, int]]:
    """Start and end of what stands between spaces."""
    return [match.span() for match in re.finditer(r"[^ \0]+", form)]


@functools.lru_cache(maxsize=65536)
def _tokens(text: str, form: str) -> tuple[str, ...]:
    """The tokens of a text with its shape; remembered, because words come again."""
    found = []
    position = 0
    while position < len(form):
        if form[position] in (" ", NOTHING):
            position += 1
            continue
        end = _longest(form, position)
        found.append(text[position:end])
        position = end
    written = (_written(token) for token in found if token not in _DROPPED)
    return tuple(token for token in written if token not in ("``", "''"))


def _longest(form: str, position: int) -> int:
    """Where the token that starts at a position ends."""
    word = _PLAIN_WORD.match(form, position)
    if word is not None and word.group().lower() not in SPLIT_WORDS:
        return word.end()
    best, end = 0, position + 1
    for rule in RULES:
        match = rule.match(form, position)
        if match is not None and match.end() > best:
            best, end = match.end(), match.end(match.lastindex or 0)
    return end


def _written(token: str) -> str:
    """A token as the scorers see it."""
    if token.isalpha() and token.isascii():
        return token.lower()
    if len(token) == 1 and token in _LONELY:
        return _LONELY[token]
    if _QUOTE_RUN.fullmatch(token):
        return token.translate(_QUOTES)
    token = re.sub(r"\s", "\xa0", token)
    for bracket, spelt in _BRACKETS.items():
        token = token.replace(bracket, spelt)
    if CONTRACTION.fullmatch(token):
        token = token.replace("’", "'")
    return "".join(map(_spelt_entity, token.lower()))


def _entity(match: re.Match[str]) -> str:
    """What stands for an entity of HTML: a sign, or a private character for what stays as it is."""
    if match["letter"]:
        return chr(LETTER_CODE + _LETTERS.index(match["letter"]))
    if match["code"]:
        return chr(SYMBOL_CODE + int(match["code"]))
    name = match["sign"].lower()
    return {"lt": _LESS, "gt": _GREATER}.get(name) or _MEANING[name]


def _spelt_entity(character: str) -> str:
    """An entity as it was written, in lower case."""
    code = ord(character)
    if code >= SYMBOL_CODE:
        return f"&#{code - SYMBOL_CODE};"
    return f"&{_LETTERS[code - LETTER_CODE].lower()};" if code >= LETTER_CODE else character
