r"""Which option an answer in words names: the letter, if it can be read without guessing.

What models put around an answer is taken away first: thoughts, end tokens, tags, `\boxed{}`, bold, quotes,
brackets of other scripts. Then the most explicit way counts in which the answer speaks of options. An answer
that names no option, or two different ones, is not read: the caller counts it, and decides. Unusual: `A` and
`I` are words too, so a letter before another word is a letter only where the sentence says so. It does not
know questions.
"""

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)|\A.*</think(?:ing)?>", re.DOTALL)
_ENDS = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<end_of_turn>|<pad>|\[EOS\]|(?<=\S)\s*###")
_TAGGED = re.compile(r"<(answer|ans|option|choice|final)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit)\s*\{([^{}]*)\}")
_DECORATION = str.maketrans(
    dict.fromkeys("*`$_#", " ")
    | dict.fromkeys("“”„«»「」『』", '"')
    | dict.fromkeys("‘’", "'")
    | dict(zip("【〔〈《】〕〉》", "(((())))", strict=True))
    | {"、": ", ", "。": ". "}
)

_LETTER = r"(?<![A-Za-z0-9'])[(\[{<\"']*([A-Za-z])(?![A-Za-z0-9]|'[A-Za-z])[)\]}>\"']*"
"""A letter that is no part of a word, with what may enclose it."""
_SAYS = (
    r"(?i:(?:answer|choice|option)\"?\s*(?:is|was|must\s+be|should\s+be|would\s+be|:|=|\bis\s*:)"
    r"|答案\s*(?:应该)?(?:是|为|:|选)?|(?:应该?|正确)?选择?\s*:?)\s*:?\s*"
)
_NAMES = r"(?i:answer|option|choice|choose|select|pick|letter|it\s+is|it's|选项)\s*"
_OWN = r"(?i:option|choice|answer|letter|选项)?\s*"
_SAID = re.compile(_SAYS + _OWN + _LETTER)
_NAMED = re.compile(_NAMES + _OWN + _LETTER)
_RIGHT = re.compile(_LETTER + r"\s*(?:is|was)\s+(?:the\s+)?(?:correct|right|best|answer|true)\b")
_FIRST = re.compile(r"\s*" + _OWN + _LETTER)
_LAST = re.compile(r"[(\[]([A-Z])[)\]]\s*[.!]?\s*$")
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_ANOTHER = re.compile(
    r"\s*(?:,|/|&|\+|(?i:and|or|und|oder)\b|和|或)\s*(?:(?i:and|or|option)\s+)?[(\[\"']*([A-Z])(?![A-Za-z0-9'])"
)
_WORDS = re.compile(
    r"(?:answer|choice|option)\s*(?:\bis\b\s*:?|:)\s*(.+?)\s*(?:\.(?:\s|$)|\n|$)", re.IGNORECASE
)
_BEHIND = re.compile(
    r"\s*(?:$|\n|[.,;:)!?\-–—(]|(?i:because|since|as|which|is|was|due|for|so|with|und|weil)\b)"
)
"""What may follow a letter that a sentence names, where the letter might be a word."""


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
    text = bare(answer)
    for read in (_alone, _by_words, _by_letter):
        if found := read(text, options):
            valid = {index for index in found if index < len(options)}
            return valid.pop() if len(valid) == 1 and len(found) == 1 else None
    return None


def bare(answer: str) -> str:
    """An answer without what models put around it.

    Args:
        answer: as a model wrote it.
    """
    text = unicodedata.normalize("NFKC", answer)
    text = _THOUGHTS.sub(" ", text)
    text = next((part for part in _ENDS.split(text) if part and part.strip()), "")
    if tagged := _TAGGED.findall(text):
        text = tagged[-1][1]
    if boxed := _BOXED.findall(text):
        text = boxed[-1]
    return _COMMAND.sub(r"\1", text).translate(_DECORATION).strip()


def _alone(text: str, options: Sequence[str]) -> set[int]:
    """The option of an answer that is a letter and nothing else."""
    found = _ALONE.fullmatch(text)
    return _indices([found.group(1)] if found else [])


def _by_letter(text: str, options: Sequence[str]) -> set[int]:
    """The options named by a letter, in the most explicit way that the answer uses."""
    for pattern in (_SAID, _RIGHT, _NAMED):
        if said := _letters(pattern, text, options):
            return said
    first = _FIRST.match(text)
    if first and _starts(text, first, options):
        return _indices(_with_others(text, first, options))
    lines = [found.group(1) for line in text.split("\n") if (found := _ALONE.fullmatch(line))]
    return _indices(lines) or _indices(_LAST.findall(text))


def _letters(pattern: re.Pattern[str], text: str, options: Sequence[str]) -> set[int]:
    """The options of all places that a pattern finds."""
    found: list[str] = []
    for match in pattern.finditer(text):
        if _is_letter(text, match, options):
            found += _with_others(text, match, options)
    return _indices(found)


def _is_letter(text: str, match: re.Match[str], options: Sequence[str]) -> bool:
    """Whether what was found is a letter and no word: lower case, `A` and `I` need an end behind them."""
    letter, behind = match.group(1), text[match.end() :]
    if match.group().rstrip()[-1:] in ")]}>\"'" or _ANOTHER.match(behind):
        return True
    if letter.isupper() and letter not in "AI":
        return True
    if letter.islower():
        return re.match(r"\s*(?:$|\n|[.,;:!?](?:\s|$))", behind) is not None
    return _BEHIND.match(behind) is not None or _is_followed_by_option(letter, behind, options)


def _starts(text: str, match: re.Match[str], options: Sequence[str]) -> bool:
    """Whether an answer starts with a letter: enclosed, with a mark behind it, or its option's text."""
    letter, behind = match.group(1), text[match.end() :]
    if match.group().rstrip()[-1:] in ")]}>\"'" or _is_followed_by_option(letter, behind, options):
        return True
    marked = re.match(r"[.:,;](?:\s|$)|\s*(?:\n|-\s|–|—|$)", behind) is not None
    return letter.isupper() and (marked or _ANOTHER.match(behind) is not None)


def _is_followed_by_option(letter: str, behind: str, options: Sequence[str]) -> bool:
    """Whether the option's own text stands behind its letter."""
    index = LETTERS.index(letter.upper())
    own = _plain(options[index]) if index < len(options) else ""
    said = _plain(behind.lstrip(" \t.:,;-–—)")) + " "
    return bool(own) and said.startswith((f"{own} ", f"{own}.", f"{own},"))


def _with_others(text: str, match: re.Match[str], options: Sequence[str]) -> list[str]:
    """A letter, and those that are named along with it; `I` is a word where there are fewer options."""
    found, end = [match.group(1)], match.end()
    while another := _ANOTHER.match(text, end):
        if another.group(1) != "I" or LETTERS.index("I") < len(options):
            found.append(another.group(1))
        end = another.end()
    return found


def _by_words(text: str, options: Sequence[str]) -> set[int]:
    """The options whose text is the answer, or stands behind `the answer is`.

    A text of one letter does not count: where pictures are lettered, option A may read `B`.
    """
    said = {_plain(text), *(_plain(words) for words in _WORDS.findall(text))} - {""}
    return {n for n, option in enumerate(options) if len(option.strip()) > 1 and _plain(option) in said}


def _plain(text: str) -> str:
    """A text without case, quotes around it, and closing punctuation."""
    text = unicodedata.normalize("NFKC", text).translate(_DECORATION)
    return " ".join(text.lower().split()).strip("\"' ").rstrip(".! ").strip("\"' ")


def _indices(letters: Sequence[str]) -> set[int]:
    """Letters as numbers of options."""
    return {LETTERS.index(letter.upper()) for letter in letters if letter.upper() in LETTERS}
