"""The rules of the Penn Treebank tokeniser: patterns over shapes, of which the longest match wins.

Unusual: the rules were written from what the Java program (Stanford CoreNLP 3.4.1, as the caption scorers
call it) answers to probes, and are compared with it on hundreds of thousands of sentences; its own source
was not used. A pattern may look ahead: what it sees counts for its length, the token is its group 1. Rules
that only decide about tokens which the caption scorers throw away (full stops, quotes) are left out. It
does not know how a text is cut into tokens.
"""

import re

_L, _AN, _Q = "A-Za-zé", "A-Za-z0-9é", "['’]"
_WORD = f"[{_L}\u0301][{_L}0-9\u0301]*"
_TAIL = f"(?:[-_‑](?:[dDoOlL]{_Q})?[{_AN}]+)"
_PART = f"[{_AN}]+{_TAIL}*"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_FACE = "[-^x=~<>']"

_JOINED = (  # abbreviations that stand before a name: joined with what follows without a space
    "adj|adm|adv|alex|assoc|asst|atty|ave|brig|capt|cf|cie|cmdr|comdr|col|cpl|dept|det|drs?|elec|ens|ft|gen|"
    "govs?|hon|insp|invt|jos|lieut|lt|maj|messrs|mlle|mme|mrs?|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt|reps?|"
    "rev|sens?|sfc|sgt|spc|ste?|supts?|vs|wm"
)
_TERMINAL = (
    "al|ala|apr|ariz|assn|aug|bancorp|bhd|bldg|blvd|bros|calif|co|colo|conn|corp|cos|ct|dak|dec|esq|est|etc|"
    "ext|feb|fla|fri|ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mon?|mont|neb|nev|nov|oct|"
    "okla|penn|plc|rd|rt|sept?|seq|sq|sr|sys|tel|tenn|thu|thurs|tues?|univ|va|vt|wed|wisc?|wyo"
)
_CAPITALISED = "(?:[Aa]z|[Aa]rk|[Dd]el|[Ii]ll|[Ll]a|[Mm]ass|[Mm]iss|[Oo]re|[Pp]a|[Tt]ex|[Ww]ash)"
_CAPITALS = "AZ|ARK|DEL|ILL|LA|MASS|MISS|ORE|PA|TEX|WASH|" + "|".join(
    f"{word[0].upper()}{word[1:]}"
    for word in ["az", "ark", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash"]
)
_NOT_IN_CAPITALS = "|".join(
    f"[{w[0].upper()}{w[0]}]{w[1:]}" for w in ["mfg", "mtg", "ppte", "ppty", "pte", "pty", "ptes", "ptys"]
)
_BEFORE_NUMBERS = "art|ca|figs?|nos?|op|pp|prop"
# words that begin a sentence, so that a single letter before them is no initial
_STARTS = re.findall(
    r"\w+",
    "A An As At He If In It So We But Her Now One Our She The Yet You Here Last Many More Once Some "
    "Such That Then They This What When About According Additionally After Earlier However Other Since "
    "Their There These While",
)
_SENTENCE_START = "|".join([*_STARTS, *(word.upper() for word in _STARTS), r"Mr\.", r"Ms\."])
_WITH_APOSTROPHE = ("c'mon|cont'd|e'er|ev'ry|li'l|nat'l|ne'er|nor'easter|o'clock|o'er|o'o|s'mores").replace(
    "'", _Q
)
_FILES = (
    "bat|bmp|cgi|class|cpp|c|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|"
    "tar|txt|wav|xml|x|zip"
)
_HOST = "[a-zé¤“‘’–…%~*&#][a-z0-9é]*"
_SERVER = r"[^\s\"<>|(){}.!?,/]"
_URL, _URL_END = r"[^\s\"<>|(){}]", r"[^\s\"<>|(){}.!?,-]"
_ADDRESS = r"[^\s\"<>|(){}.]"
_ATTRIBUTES = r"(?:\s+[A-Za-z0-9_:.-]+(?:\s*=\s*(?:'[^']*'|\"[^\"]*\"))?)*"

PATTERNS = (
    # markup and addresses
    r"<[!?][A-Za-z-][^>]*>",
    rf"</[A-Za-z][A-Za-z0-9_:.-]*\s*>|<[A-Za-z][A-Za-z0-9_:.-]*{_ATTRIBUTES}\s*/?>",
    rf"(?i:https?)://{_URL}+{_URL_END}",
    rf"(?:{_HOST}\.)+(?:com|net|org|edu)(?:/{_URL}+{_URL_END})?",
    rf"(?i:www)\.(?:{_SERVER}+\.)*{_SERVER}+(?:/{_URL}+{_URL_END})?",
    rf"<?(?:mailto:)?[{_AN}](?:[^\s\"<>|(){{}}@]*)@(?:{_ADDRESS}+\.)*{_ADDRESS}+>?",
    r"@[A-Za-z_][A-Za-z0-9_]*|#[A-Za-zé]+",
    # words, after those that win a draw
    r"((?i:ph|ed)\.[Dd]\.)[a-z]",
    rf"((?i:{_TERMINAL})\.)(?:[A-Za-z]|-[{_AN}]+)",
    r"((?i:can))(?i:not)|((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:lem|gim))(?i:me)",
    rf"[{_AN}]+",
    _WORD,
    rf"{_WORD}(?:[.!?]{_WORD})+(?:-[{_AN}]+)*",
    _PART,
    rf"[{_AN}]+(?:[.,][{_AN}]+)*[.,]?(?:-[{_AN}]+)+",
    rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}|(?:\\\*){{1,3}}",
    r"[A-Z]+(?:[&+][A-Z]+)+|[A-Z]+\$|[cC]\+\+|[cCfF]#",
    rf"([0-9A-Za-z]+\.(?i:{_FILES}))(?![{_AN}])",
    # apostrophes
    r"([A-Za-z]+?)[nN]['’`‘][tT]",
    r"[nN]['’`‘][tT]",
    rf"({_WORD}){_Q}(?i:s|m|d|re|ve|ll)(?![{_L}])",
    rf"[dDoOlL]{_Q}[{_AN}]{{2,}}(?:[-_‑][{_AN}]+)*",
    rf"[A-HJ-XZn]{_Q}[{_L}]{{2,}}",
    rf"(?i:{_WITH_APOSTROPHE})|(?i:dunkin|somethin|ol){_Q}|[dDjJlL]{_Q}",
    rf"([yY]{_Q})[{_L}]",
    r"('(?i:s|m|d|re|ve|ll))(?![A-Za-z])|’(?i:s|m|d|re|ve|ll)",
    rf"{_Q}[nN]{_Q}",
    rf"('[nN])(?![{_AN}-])|’[nN]",
    rf"{_Q}(?i:em|till?|cause)",
    r"('[tT])(?i:is|was)",
    rf"(?<![0-9])({_Q}[0-9]{{2}})(?![{_AN}'’-]|\.(?: |$))",
    rf"(?<![0-9])({_Q}[0-9]{{2}}s)(?![{_AN}'’]|\.(?: |$))",
    r"[A-Za-zé]+[aeiouyAEIOUY]['’][aeiouAEIOU][A-Za-z]*",
    # abbreviations
    rf"(?i:{_JOINED}|{_TERMINAL})\.|(?:{_CAPITALS}|{_NOT_IN_CAPITALS})\.|[A-Za-z]\.",
    rf"(?:(?i:{_JOINED})|[A-Za-z])\.(?:-[{_AN}]+)+",
    rf"((?i:{_BEFORE_NUMBERS})\.)\s*[0-9]",
    rf"((?:{_PART}|{_WORD}(?:\.{_WORD})+)\.)[,;:]",
    rf"([A-Za-z])\.\s+(?:{_SENTENCE_START})(?:\s|$)",
    rf"(?:[A-Za-z]\.)+(?:-[{_AN}]+)*",
    r"(?i:ph|ed)\.[Dd]\.",
    # numbers
    r"[-+]?(?:[0-9]+(?:[.,:][0-9]+)*|(?:[.,:][0-9]+)+)",
    r"[0-9]{1,4}[- ][0-9]{1,4}\\?/[0-9]{1,4}",
    r"\([0-9]{2,3}\) ?[0-9]{3,4}[- ][0-9]{3,5}",
    r"\+{0,2}[0-9]{2,4}[- ](?:[0-9]{2,4}[- ])?[0-9]{3,4}[- ]?[0-9]{3,5}",
    # signs
    r"[!?]+|\*+|_+|#+|@+|-{2,}|<<|>>|''|``|\.\.\.|\. \. \.|…",
    r"([<>]?[:;=][-o'*]?[()@\[\]\\{|dpDOP])(?![A-Za-z0-9])",
    rf"{_FACE}_{_FACE}|\({_FACE}_?{_FACE}\)",
    r"(?i:anti|pro)-|-(?i:[lr][rcs]b)-",
    r"`*[‘’“›„‚][‘’“›„‚`]+|`+[‘’“›„‚]|[⁰¹²³⁴⁵⁶⁷⁸⁹]+|[₀₁₂₃₄₅₆₇₈₉]+",
)
"""Every kind of token, in no particular order: of several matches the longest counts."""

SPLIT_WORDS = frozenset(("cannot", "gonna", "wanna", "gotta", "lemme", "gimme"))
"""Words of letters only that are two tokens."""

RULES = tuple(re.compile(pattern) for pattern in PATTERNS)

CONTRACTION = re.compile(r"[’](?i:s|m|d|re|ve|ll)|[nN][’][tT]")
"""Tokens in which a typographic apostrophe becomes a plain one."""

SPANS = re.compile(
    rf"<[A-Za-z/!?]|[0-9)] \(?[0-9]|\. \.|(?i:{_BEFORE_NUMBERS})\. +[0-9]|(?<![A-Za-z]{{2}})[A-Za-z]\. +[A-Z]"
)
"""Where a token may contain, or depend on, a space; elsewhere what stands between spaces is cut by itself."""

OPEN_NUMBER = re.compile(rf"(?<![A-Za-z])(?i:{_BEFORE_NUMBERS})\.$")
"""A text whose last token depends on whether a digit follows."""

OPEN_INITIAL = re.compile(r"(?<![A-Za-z]{2})[A-Za-z]\.$")
"""A text whose last token depends on whether a sentence follows."""

SENTENCE_START = re.compile(rf"\s*(?:{_SENTENCE_START})\s")
"""The beginning of a text that is a sentence of its own."""
