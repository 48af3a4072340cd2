"""The templates by name, and the two that need nothing from the tokenizer but its end token.

``alpaca`` is the published pair of prompts, ``plain`` writes the turns as they are; the third, ``chat``, is
in ``chat_template.py``. A new template is a class and one line in ``TEMPLATES``; those of packages that are
built on this one stand there as text. What a template promises is said in ``template_base.py``.
"""

import copy
import difflib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llama_adapter.data.chat_template import ChatTemplate
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.template_base import Rendered, Span, Template, Tool, refuse_extras
from llama_adapter.errors import UserError

PREAMBLE = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
RESPONSE = "\n\n### Response:"
"""Nothing follows the colon: the published recipe puts the answer right behind it."""


class TextBuilder:
    """A text under construction that remembers where its parts lie."""

    def __init__(self) -> None:
        self.text, self.answers, self.contents = "", list[Span](), list[Span]()

    def add(self, text: str, spans: list[Span] | None = None) -> None:
        """Append text and, if wanted, note its place."""
        if spans is not None and text:
            spans.append((len(self.text), len(self.text) + len(text)))
        self.text += text

    def add_answer(self, text: str, learned: bool) -> None:
        """Append an answer with its end token; one that bears no loss is text like any other."""
        self.add(text, self.answers if learned else None)

    def rendered(self) -> Rendered:
        """The finished text."""
        return Rendered(self.text, self.answers, self.contents)


class AlpacaTemplate(Template):
    """The published Alpaca prompts: an instruction, an optional input, then the answer without separator.

    The text with an input block is used exactly when the input is neither missing nor empty.
    """

    def __init__(self, end_token: str) -> None:
        self.end_token = end_token

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return f"alpaca/1 {self.end_token}"

    def jinja(self, begin: str) -> str:
        """See ``Template.jinja``; messages have no input beside the instruction, nor a place for one."""
        refused = "the alpaca template takes one instruction and one answer"
        return (
            "{%- if messages|length > 2 or messages[0]['role'] != 'user' or "
            "(messages|length == 2 and messages[1]['role'] != 'assistant') %}"
            f"{{{{ raise_exception({_quoted(refused)}) }}}}{{%- endif %}}"
            f"{{{{ {_quoted(f'{begin}{PREAMBLE}. {REQUEST}')} + messages[0]['content'] }}}}"
            f"{{{{ {_quoted(RESPONSE)} }}}}"
            f"{{%- if messages|length == 2 %}}{{{{ messages[1]['content'] + {_quoted(self.end_token)} }}}}"
            "{%- endif %}"
        )

    def _prompt(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> TextBuilder:
        """The prompt of a single user turn."""
        refuse_extras("alpaca", turns, tools)
        roles = [turn.role for turn in turns]
        if roles != ["user"]:
            raise RecordProblem(
                "the alpaca template takes one instruction and one answer, but before the last answer is: "
                f"{', '.join(roles) or 'nothing'}; use template chat for conversations"
            )
        text = TextBuilder()
        context = turns[0].context
        aside = ", paired with an input that provides further context" if context else ""
        text.add(f"{PREAMBLE}{aside}. {REQUEST}")
        text.add(turns[0].text, text.contents)
        if context:
            text.add("\n\n### Input:\n")
            text.add(context, text.contents)
        text.add(RESPONSE)
        return text

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """See ``Template.render``."""
        refuse_extras("alpaca", turns, tools)
        text = self._prompt(turns[:-1], tools)
        text.add_answer(turns[-1].text + self.end_token, turns[-1].learned)
        return text.rendered()

    def render_prompt(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> str:
        """See ``Template.render_prompt``."""
        return self._prompt(turns, tools).text


class PlainTemplate(Template):
    """The turns one after the other, nothing between them, the end token behind each answer."""

    def __init__(self, end_token: str) -> None:
        self.end_token = end_token

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return f"plain/1 {self.end_token}"

    def jinja(self, begin: str) -> str:
        """See ``Template.jinja``."""
        return (
            f"{{{{ {_quoted(begin)} }}}}{{%- for message in messages %}}{{{{ message['content'] }}}}"
            f"{{%- if message['role'] == 'assistant' %}}{{{{ {_quoted(self.end_token)} }}}}{{%- endif %}}"
            "{%- endfor %}"
        )

    def _text(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> TextBuilder:
        """The turns as they are."""
        refuse_extras("plain", turns, tools)
        text = TextBuilder()
        for turn in turns:
            if turn.role == "assistant":
                text.add_answer(turn.text + self.end_token, turn.learned)
            else:
                text.add(turn.full_text, text.contents)
        return text

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """See ``Template.render``."""
        return self._text(turns, tools).rendered()

    def render_prompt(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> str:
        """See ``Template.render_prompt``."""
        return self._text(turns, tools).text


def _quoted(text: str) -> str:
    """A text as Jinja writes one; escapes are those of JSON."""
    return json.dumps(text)


def _end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's end token, which these templates cannot do without."""
    if tokenizer.eos_token is None:
        raise UserError(
            f"eos_token of the tokenizer {tokenizer.name_or_path!r} is None, so an answer could never end. "
            "Set the tokenizer's eos_token."
        )
    return str(tokenizer.eos_token)


TEMPLATES: dict[str, Callable[[PreTrainedTokenizerBase], Template] | str] = {
    "chat": ChatTemplate,
    "alpaca": lambda tokenizer: AlpacaTemplate(_end_token(tokenizer)),
    "plain": lambda tokenizer: PlainTemplate(_end_token(tokenizer)),
    "sphinx": "sphinx_ft.conversation:load_template",
    "sphinx_as_published": "sphinx_ft.conversation:load_published_template",
}
"""Name -> what builds the template for a tokenizer, or its `module:function`."""


def _from_file(path: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """A chat template out of a file, in place of the tokenizer's own."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"template is {path!r}, which cannot be read: {error}. Use the place of a file with a chat "
            "template."
        ) from error
    changed = copy.copy(tokenizer)
    changed.chat_template = text
    return ChatTemplate(changed)


def load_template(name: str, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Build a template for a tokenizer; training and generation both use this.

    Args:
        name: a key of ``TEMPLATES``, or a file NAME.jinja with a chat template.
        tokenizer: the base model's.

    Returns:
        The template.

    Raises:
        UserError: there is no such template, or the tokenizer lacks what it needs.
    """
    if name.endswith(".jinja"):
        return _from_file(name, tokenizer)
    if name not in TEMPLATES:
        close = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"template is {name!r}.{hint} Use one of: {', '.join(TEMPLATES)}, or NAME.jinja.")
    build = TEMPLATES[name]
    if isinstance(build, str):
        module, _, function = build.partition(":")
        loaded: Template = getattr(importlib.import_module(module), function)(tokenizer)
        return loaded
    return build(tokenizer)
