"""The tokenizer's own chat template, with the answers located by construction.

Unusual: the template is rendered twice, once as it is and once with a mark in place of every turn's text. The
second tells which text the template puts between the turns, the first is then walked piece by piece and must
agree to the last character; so no text is ever searched for, and a template that trims, drops or rewrites a
turn is noticed. An answer begins where the template's own generation prompt ends, so whatever the template
writes between the two (an empty thinking block, say) is learned too.
"""

import re
from collections.abc import Sequence

import jinja2
from transformers import PreTrainedTokenizerBase

from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.template_base import Rendered, Span, Template
from llama_adapter.errors import UserError

MARK = "\ue000{}\ue001"
"""Stands for a turn's text in the second rendering: private-use characters, which no trimming touches."""


def _variants(text: str) -> list[str]:
    """What a template may make of a turn's text: keep it, or strip white space."""
    return list(dict.fromkeys([text, text.strip(), text.rstrip(), text.lstrip()]))


class ChatTemplate(Template):
    """Turns in the format the model was tuned on; every assistant turn is learned."""

    add_special_tokens = False  # a chat template writes the begin token itself, once

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise UserError(
                f"template is 'chat', but the tokenizer of {tokenizer.name_or_path!r} has no chat template. "
                "Use template alpaca or plain, or a base model tuned for chat."
            )
        self.tokenizer = tokenizer
        self.end_token, self.closes = self._find_end()

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return f"chat/1 {self.end_token} {self.tokenizer.chat_template} {self.tokenizer.special_tokens_map}"

    def _find_end(self) -> tuple[str, bool]:
        """The token behind an answer, and whether the template writes one at all."""
        owner = repr(self.tokenizer.name_or_path)
        try:
            _, pieces = self._pieces([Turn("user", "a"), Turn("assistant", "b")])
        except RecordProblem as problem:
            raise UserError(
                f"the chat template of {owner} cannot render one question with its answer: {problem}. "
                "Use template alpaca or plain, or repair the template."
            ) from problem
        behind = pieces[-1].lstrip()
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        closing = max((token for token in added if behind.startswith(token)), key=len, default=None)
        end = closing or self.tokenizer.eos_token
        if end is None:
            raise UserError(
                f"neither the chat template nor the tokenizer of {owner} ends an answer with a token. "
                "Set the tokenizer's eos_token."
            )
        return str(end), closing is not None

    def _apply(self, turns: Sequence[Turn], texts: Sequence[str], prompt: bool) -> str:
        """Run the template over the turns' roles with these texts."""
        messages = [{"role": turn.role, "content": text} for turn, text in zip(turns, texts, strict=True)]
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            )
        except jinja2.TemplateError as error:
            raise RecordProblem(
                f"the chat template refuses the conversation ({error}); use another template"
            ) from error

    def _pieces(self, turns: Sequence[Turn]) -> tuple[list[int], list[str]]:
        """The order in which the template places the turns, and the text it puts around them."""
        marked = self._apply(turns, [MARK.format(number) for number in range(len(turns))], prompt=False)
        parts = re.split(MARK.format(r"(\d+)"), marked)
        order = [int(number) for number in parts[1::2]]
        for number, turn in enumerate(turns):
            if number not in order:
                raise RecordProblem(
                    f"the chat template leaves out turn {number + 1} ({turn.role}); use another template"
                )
        return order, parts[::2]

    def _place(self, text: str, turns: Sequence[Turn]) -> tuple[dict[int, Span], list[int]]:
        """Where each turn's text lies, and where an answer's end token ends if it has one."""
        order, pieces = self._pieces(turns)
        spans, ends = dict[int, Span](), list[int]()
        position = len(pieces[0]) if text.startswith(pieces[0]) else -1
        for number, piece in zip(order, pieces[1:], strict=True):
            fits = (
                kept
                for kept in _variants(turns[number].full_text)
                if text.startswith(kept + piece, max(position, 0))
            )
            content = next(fits, None)
            if position < 0 or content is None:
                role = turns[number].role
                raise RecordProblem(
                    f"the chat template rewrites turn {number + 1} ({role}); use another template"
                )
            spans[number] = (position, position + len(content))
            ends.append(self._closed(piece, position + len(content)))
            position += len(content) + len(piece)
        if position != len(text):
            extra = text[position : position + 40]
            raise RecordProblem(
                f"the chat template adds {extra!r} for these turns only; use another template"
            )
        return spans, [ends[order.index(number)] for number in range(len(turns))]

    def _closed(self, piece: str, position: int) -> int:
        """The position behind the end token if the text behind an answer begins with it, else the same."""
        blank = len(piece) - len(piece.lstrip())
        closed = self.closes and piece.startswith(self.end_token, blank)
        return position + blank + len(self.end_token) if closed else position

    def _start(self, text: str, turns: Sequence[Turn], number: int, content: Span) -> int:
        """Where the answer of one turn begins: behind the prompt the model is shown at inference."""
        prompt = self.render_prompt(turns[:number])
        if len(prompt) > content[0] or not text.startswith(prompt):
            raise RecordProblem(
                f"the chat template, asked for the answer in turn {number + 1}, writes another prompt "
                f"({prompt[-40:]!r}) than in the conversation; use another template"
            )
        return len(prompt)

    def render(self, turns: Sequence[Turn]) -> Rendered:
        """See ``Template.render``."""
        text = self._apply(turns, [turn.full_text for turn in turns], prompt=False)
        spans, ends = self._place(text, turns)
        answers, contents, open_ends = list[Span](), list[Span](), list[int]()
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                contents.append(spans[number])
                continue
            answers.append((self._start(text, turns, number, spans[number]), ends[number]))
            if ends[number] == spans[number][1]:
                open_ends.append(ends[number])
        text = text[: ends[-1]]
        if ends[-1] in open_ends:  # the template writes no end token: the model must still learn to stop
            open_ends.remove(ends[-1])
            text += self.end_token
            answers[-1] = (answers[-1][0], len(text))
        return Rendered(text, answers, contents, open_ends)

    def render_prompt(self, turns: Sequence[Turn]) -> str:
        """See ``Template.render_prompt``."""
        return self._apply(turns, [turn.full_text for turn in turns], prompt=True)
