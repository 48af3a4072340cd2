"""SPHINX's conversations: turns of "Human" and "Assistant", each closed by a line break and "###".

Labels come from offsets, as everywhere here. ``sphinx_as_published`` labels what the released training code
labels: there an answer is looked for in the text, from the end of the one before, so that a question which
ends with the answer's words is trained in its place, and all later answers shift.
Source: docs/sources/llama2-accessory.md#conversation.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.template_base import Rendered, Span, TextEndTemplate, Tool, refuse_extras
from llama_adapter.data.templates import TextBuilder

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
END = "\n###"
_OPEN = "\n\n###"
_NAMES = {"user": " Human:", "assistant": " Assistant:"}


class SphinxTemplate(TextEndTemplate):
    """The published conversation; a system turn at the start takes the place of the usual sentence."""

    end_token = END

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return "sphinx/1"

    def jinja(self, begin: str) -> str:
        """See ``Template.jinja``."""
        user, assistant, end = (json.dumps(text) for text in (*_NAMES.values(), END))
        return (
            "{%- if messages[0]['role'] == 'system' %}{%- set start = messages[0]['content'] %}"
            "{%- set turns = messages[1:] %}{%- else %}"
            f"{{%- set start = {json.dumps(SYSTEM)} %}}{{%- set turns = messages %}}{{%- endif %}}"
            f"{{{{ {json.dumps(begin)} + start + {json.dumps(_OPEN)} }}}}"
            "{%- for turn in turns %}"
            f"{{{{ {assistant} if turn['role'] == 'assistant' else {user} }}}}"
            f"{{{{ ' ' + turn['content'].strip() + {end} }}}}"
            "{%- endfor %}"
            f"{{%- if add_generation_prompt %}}{{{{ {assistant} }}}}{{%- endif %}}"
        )

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """See ``Template.render``."""
        return self._text(turns, tools).rendered()

    def render_prompt(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> str:
        """See ``Template.render_prompt``."""
        return self._text(turns, tools).text + _NAMES["assistant"]

    def _text(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> TextBuilder:
        """The turns; an answer's span begins with the blank in front of it, which its first token holds."""
        refuse_extras("sphinx", turns, tools)
        text = TextBuilder()
        has_system = bool(turns) and turns[0].role == "system"
        if has_system:
            text.add(turns[0].full_text, text.contents)
        else:
            text.add(SYSTEM)
        text.add(_OPEN)
        for turn in turns[has_system:]:
            if turn.role not in _NAMES:
                raise RecordProblem(f"the sphinx template has no place for a {turn.role} turn in the middle")
            text.add(_NAMES[turn.role])
            if turn.role == "assistant":
                text.add_answer(f" {turn.full_text.strip()}{END}", turn.learned)
            else:
                text.add(" ")
                text.add(turn.full_text.strip(), text.contents)
                text.add(END)
        return text


class PublishedSphinxTemplate(SphinxTemplate):
    """The same text with the labels of the released code, mistakes included."""

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return "sphinx-as-published/1"

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """See ``Template.render``."""
        rendered = super().render([replace(turn, learned=True) for turn in turns], tools)
        found: list[Span] = []
        start = 0
        for first, last in rendered.answers:
            said = rendered.text[first:last]
            place = rendered.text.index(said, start)  # at its own place at the latest
            start = place + len(said)
            found.append((place, start))
        learned = [turn.learned for turn in turns if turn.role == "assistant"]
        answers = [span for span, wanted in zip(found, learned, strict=True) if wanted]
        return Rendered(rendered.text, answers, rendered.contents)


def load_template(tokenizer: PreTrainedTokenizerBase) -> SphinxTemplate:
    """The template; it needs nothing of the tokenizer."""
    del tokenizer
    return SphinxTemplate()


def load_published_template(tokenizer: PreTrainedTokenizerBase) -> PublishedSphinxTemplate:
    """The same with the published labels."""
    del tokenizer
    return PublishedSphinxTemplate()
