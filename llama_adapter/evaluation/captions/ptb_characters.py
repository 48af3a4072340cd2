"""Which characters Stanford CoreNLP 3.4.1's Penn Treebank tokeniser takes for letters, symbols or nothing.

Unusual: a text is tokenised by its *shape*, a text of the same length in which every letter outside ASCII
is one stand-in, every combining mark another, and so on, so that the rules need only a handful of
characters. The ranges were found by asking the Java program about every character of the Basic Multilingual
Plane; characters beyond it are dropped there, emoji among them. It does not know any token.
"""

import functools
import unicodedata

LETTER, MARK, SYMBOL, NOTHING, HYPHEN = "é", "\u0301", "¤", "\0", "‑"
"""Stand-ins in a shape: letter, mark inside words, character that is a token, dropped character, hyphen."""

SPELT = {
    "¢": "cents", "£": "#", "¤": "$", "₠": "$", "€": "$",
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip
"""Characters that are written in another way."""

_AS_IT_WAS_MEANT = str.maketrans("\x80\x91\x92\x93\x94\x96\x97", "€‘’“”–—")
"""Windows' characters that were stored as if they were Latin-1."""

_NOT_YET_LETTERS = (
    "037f 0528-052f 0560 0588 05ef 0860-086a 0870-0887 0889-088e 08a1 08ad-08c9 0978 0980 09fc 0af9 0c34 "
    "0c5a 0c5d 0c80 0cdd 0d04 0d54-0d56 0d5f 0de6-0def 0e86 0e89 0e8c 0e8e-0e93 0e98 0ea0 0ea8-0ea9 0eac "
    "13f5 13f8-13fd 16f1-16f8 170d 171f 1878 191d-191e 19b0-19c0 19c8-19c9 1b4c 1c80-1c8a 1c90-1cba "
    "1cbd-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff a698-a69d a78f a794-a79f "
    "a7ab-a7dc a7f1-a7f7 a8fd-a8fe a9e0-a9e4 a9e6-a9fe aa7e-aa7f ab30-ab5a ab5c-ab69 ab70-abbf"
)
"""Letters of newer Unicode versions, which are dropped."""

_MARKS = (
    "02c2-02c5 02d2-02df 02e5-02eb 02ed 02ef-036f 0375 0378-0379 0384-0385 03f6 0483-0487 055a-055f "
    "0591-05bd 05bf 05c1-05c2 05c4-05c5 05c7 0615-061a 064b-065e 0670 06d6-06e4 06e7-06ed 06fd-06fe 070f "
    "0711 0730-074c 07a6-07b0 07eb-07f3 0900-0903 093c 093e-094e 0951-0955 0962-0963 0981-0983 09bc "
    "09be-09c4 09c7-09c8 09cb-09cd 09d7 09e2-09e3 0a01-0a03 0a3c 0a3e-0a4f 0a81-0a83 0abc 0abe-0acf 0b82 "
    "0bbe-0bc2 0bc6-0bc8 0bca-0bcd 0c01-0c03 0c3e-0c56 0d3e-0d44 0d46-0d48 0e31 0e34-0e3a 0e47-0e4e 0eb1 "
    "0eb4-0ebc 0ec8-0ecd"
)
"""Marks (and a few signs) that are part of a word."""

_SYMBOLS = (
    "00a1-00a9 00ac 00ae-00b4 00b6-00b9 00bc-00bf 00d7 00f7 037e 0387 0589 05be 05c0 05c3 05c6 05f3-05f4 "
    "0600-0603 0606-060c 0614 061b 061e-061f 066a 066d 06d4 0700-070d 07f6-07f8 0964-0965 0e3f 0e4f 1fbd "
    "2016-2017 201a 201e-2023 2030-2038 203b 203e-2042 2044 2070 2074-207e 2080-208e 20a0 20a4 20ac "
    "2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b 2140-2144 "
    "214a-214d 214f 2153-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 "
    "ffe0-ffe1 ffe5-ffe6"
)
"""Characters that are a token of their own."""

_OWN_SHAPE = {
    "’": "’", "‘": "‘", "‛": "‘", "‹": "‘", "›": "›", "“": "“", "”": "“", "«": "“", "»": "“",
    "„": "„", "‚": "‚",
    "…": "…", **{digit: digit for digit in "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"},
    "–": "–", "—": "–", "―": "–", "‐": HYPHEN, "‑": HYPHEN, "֊": HYPHEN, "\xa0": " ", "\u3000": " ",
}  # fmt: skip


LETTER_CODE, SYMBOL_CODE = 0xF0000, 0x100000
"""Private characters from here on stand for entities of HTML that are letters, or tokens of their own."""


def clean(text: str) -> str:
    """Replaces Windows' characters by what was meant; drops soft hyphens and private characters."""
    if text.isascii():
        return text
    text = "".join(NOTHING if character >= chr(LETTER_CODE) else character for character in text)
    return text.translate(_AS_IT_WAS_MEANT).replace("\xad", "")


def shape(text: str) -> str:
    """The text with every character outside ASCII replaced by its stand-in; the length stays the same."""
    return text if text.isascii() and text.isprintable() else "".join(map(_stand_in, text))


@functools.lru_cache(maxsize=4096)
def _stand_in(character: str) -> str:
    """The stand-in of one character."""
    if character < "\x80":
        return character if character.isprintable() else " " if character.isspace() else NOTHING
    if character in _OWN_SHAPE:
        return _OWN_SHAPE[character]
    return _ranges().get(ord(character)) or _by_category(character)


def _by_category(character: str) -> str:
    """The stand-in of a character that stands in no list."""
    category = unicodedata.category(character)
    if character > "\uffff":
        code = ord(character)
        return SYMBOL if code >= SYMBOL_CODE else LETTER if code >= LETTER_CODE else NOTHING
    if category == "Nd":
        return "0"
    if category[0] == "L" or character in "\u1885\u1886":
        return LETTER
    return " " if category[0] == "Z" else NOTHING


@functools.cache
def _ranges() -> dict[int, str]:
    """Code point -> stand-in, for the lists above."""
    found: dict[int, str] = {}
    for words, stand_in in ((_NOT_YET_LETTERS, NOTHING), (_MARKS, MARK), (_SYMBOLS, SYMBOL)):
        for word in words.split():
            first, _, last = word.partition("-")
            found |= dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), stand_in)
    return found
