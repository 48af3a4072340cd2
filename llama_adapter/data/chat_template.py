"""The tokenizer's own chat template, with answers located by what it does when it asks for them.

Unusual: nothing is searched for. An answer begins where the template's prompt for it ends and goes on to the
end of the conversation up to it, so both borders come from renderings of the conversation's beginnings;
whatever the template writes between the two (an empty thought, a channel) is learned too. Templates that
write an earlier answer differently once more turns follow are noticed: such an answer gets no label in the
longer text, see ``Rendered.rewritten``.
"""

import logging
import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from llama_adapter.data.chat_messages import MARK, ChatMessages, template_file_hint
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.template_base import Rendered, Span, Template, Tool
from llama_adapter.errors import UserError

log = logging.getLogger(__name__)

_THOUGHT_TAGS = re.compile(r"</?think>")
_QUESTION = Turn("user", "a")


@dataclass(frozen=True)
class _Answer:
    """The last turn of a conversation in its text."""

    text: str
    """The conversation as the template writes it."""
    start: int
    """Where the prompt ends."""
    end: int
    """Behind the end token, or behind the answer where it has none."""
    closed: bool
    """Whether an end token is there."""


def _variants(text: str) -> list[str]:
    """What a template may make of a turn's text: keep it, or strip white space."""
    return list(dict.fromkeys([text, text.strip(), text.rstrip(), text.lstrip()]))


def _longest(tokens: Sequence[str]) -> str | None:
    """The longest of the tokens that were found."""
    return max(tokens, key=len, default=None)


class ChatTemplate(Template):
    """Turns in the format the model was tuned on; assistant turns are learned unless the record says no."""

    add_special_tokens = False  # a chat template writes the begin token itself, once

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise UserError(
                f"template is 'chat', but the tokenizer of {tokenizer.name_or_path!r} has no chat template. "
                "Use template alpaca or plain, or a base model tuned for chat."
            )
        self.tokenizer = tokenizer
        self.messages = ChatMessages(tokenizer)
        added = tokenizer.added_tokens_decoder.values()
        self._added = {str(token) for token in added} | set(tokenizer.all_special_tokens)
        self._special = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
        try:
            self._tail = self._find_tail()
            self._surplus = self._find_surplus()
            self._followers = self._find_followers()
        except RecordProblem as problem:
            raise UserError(
                f"the chat template of {tokenizer.name_or_path!r} cannot render one question with its "
                f"answer: {problem}. Repair the template, or give another as a file: template: NAME.jinja."
            ) from problem
        self.end_token, self.closes = self._find_end()

    @property
    def identity(self) -> str:
        """See ``Template.identity``."""
        return f"chat/2 {self.end_token} {self.tokenizer.chat_template} {self.tokenizer.special_tokens_map}"

    def _find_tail(self) -> str:
        """What the template writes behind the text of a last answer."""
        marked = self.messages.apply([_QUESTION, Turn("assistant", MARK)])
        if MARK not in marked:
            raise RecordProblem("the chat template leaves out turn 2 (assistant)")
        return marked.rpartition(MARK)[2]

    def _find_surplus(self) -> str:
        """What the request for an answer ends with that conversations do not have; mostly nothing."""
        prompt = self.messages.apply([_QUESTION], prompt=True)
        answers = [Turn("assistant", text) for text in ("b", "Yes.", "1")]
        texts = [self.messages.apply([_QUESTION, answer]) for answer in answers]
        if all(text.startswith(prompt) for text in texts):
            return ""
        if self.messages.reasoning_key:
            texts.append(self.messages.apply([_QUESTION, Turn("assistant", "b", reasoning="c")]))
        shared = os.path.commonprefix([prompt, *texts])
        asked = self.messages.apply([_QUESTION])
        if not shared.startswith(asked) or len(shared) == len(asked):
            raise RecordProblem(
                "the chat template, asked for the answer in turn 2, writes another prompt "
                f"({prompt[-40:]!r}) than in the conversation ({texts[0][-40:]!r})"
            )
        log.warning(
            "the chat template of %r asks for an answer with %r and writes conversations without the end "
            "of it, %r. Training and prompts here leave that out, as conversations do.",
            self.tokenizer.name_or_path,
            prompt[len(asked) :],
            prompt[len(shared) :],
        )
        return prompt[len(shared) :]

    def _find_followers(self) -> dict[str, str]:
        """The special token that a next turn begins with, by its role: an end where answers have no other."""
        answer = Turn("assistant", "b")
        text = self.messages.apply([_QUESTION, answer])
        found = {}
        for role in ("user", "tool"):
            try:
                longer = self.messages.apply([_QUESTION, answer, Turn(role, "c")])
            except RecordProblem:
                continue
            behind = longer[len(text) :] if longer.startswith(text) else ""
            if token := _longest([token for token in self._special if behind.startswith(token)]):
                found[role] = token
        return found

    def _find_end(self) -> tuple[str, bool]:
        """The token behind an answer, and whether the template writes one at all."""
        behind = self._tail.lstrip()
        closing = _longest([token for token in self._added if behind.startswith(token)])
        end = closing or self._followers.get("user") or self.tokenizer.eos_token
        if end is None:
            raise UserError(
                "neither the chat template nor the tokenizer of "
                f"{self.tokenizer.name_or_path!r} ends an answer with a token. Set the tokenizer's eos_token."
            )
        return str(end), closing is not None

    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """See ``Template.render``."""
        whole = self._answer(turns, tools)
        answers, open_ends, rewritten = list[Span](), list[int](), list[int]()
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            if not turn.learned:
                self._check_context(turn, number, whole.text)
                continue
            last = number == len(turns) - 1
            one = whole if last else self._answer(turns[: number + 1], tools)
            if not whole.text.startswith(one.text[: one.end]):
                rewritten.append(number)
                continue
            end, closed = (one.end, one.closed) if last else self._end_inside(whole.text, one)
            answers.append((one.start, end))
            if not closed:
                open_ends.append(end)
        contents = self._contents(whole.text, turns, tools)
        text = whole.text[: whole.end]
        if whole.end in open_ends:  # the template writes no end token: the model must still learn to stop
            open_ends.remove(whole.end)
            text += self._ending(turns[-1])
            answers[-1] = (answers[-1][0], len(text))
        return Rendered(text, answers, contents, open_ends, rewritten=rewritten)

    def render_prompt(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> str:
        """See ``Template.render_prompt``."""
        text = self._prompt(turns, tools)
        self._contents(text, turns, tools, prompt=True)
        self.messages.check_extras(turns, tools, text)
        return text

    def _prompt(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> str:
        """The template's request for an answer, as far as conversations have it."""
        return self.messages.apply(turns, tools, prompt=True).removesuffix(self._surplus)

    def _answer(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> _Answer:
        """Locate the last turn, an answer, in the conversation up to it."""
        text = self.messages.apply(turns, tools)
        self.messages.check_extras(turns, tools, text)
        prompt = self._prompt(turns[:-1], tools)
        number, turn = len(turns), turns[-1]
        if not text.startswith(prompt):
            raise self._unasked(turns, tools, len(os.path.commonprefix([text, prompt])))
        written = text[len(prompt) :]
        pieces = [piece.strip() for piece in (*_THOUGHT_TAGS.split(turn.full_text), turn.reasoning)]
        lost = next((piece for piece in pieces if piece not in written), None)
        if lost is not None:
            raise RecordProblem(
                f"the chat template leaves out or rewrites {lost[:40]!r} in turn {number} ({turn.role}); "
                f"take it out of the record, {template_file_hint('keeps it')}"
            )
        return _Answer(text, len(prompt), *self._end(text))

    def _unasked(self, turns: Sequence[Turn], tools: Sequence[Tool], place: int) -> RecordProblem:
        """Why an answer does not stand behind its prompt, by where the two part."""
        number = len(turns)
        upto = range(1, number)
        blamed = next((n for n in upto if len(self.messages.apply(turns[:n], tools)) > place), number)
        turn = turns[blamed - 1]
        if turns[-2].role == "assistant":
            way = "join neighbouring answers"
        elif turn.reasoning or _THOUGHT_TAGS.search(turn.full_text):
            way = f"take the thought out of turn {blamed}"
        else:
            way = f"leave turn {blamed} out"
        return RecordProblem(
            f"the chat template writes turn {blamed} ({turn.role}) otherwise when it asks for the answer "
            f"in turn {number} than when that answer is there; {way}, "
            f"{template_file_hint('writes both alike')}"
        )

    def _end(self, text: str) -> tuple[int, bool]:
        """Where a text's last answer ends, its end token included, and whether it has one."""
        if text.endswith(self._tail):
            content = len(text) - len(self._tail)
            if not self.closes:
                return (len(text) if self._followers else content), False
            return content + self._tail.index(self.end_token) + len(self.end_token), True
        text = text.rstrip()  # an answer with calls may end with a token of its own
        return len(text), any(text.endswith(token) for token in self._special | {self.end_token})

    def _end_inside(self, text: str, answer: _Answer) -> tuple[int, bool]:
        """The same for an answer that others follow: the token of the next turn may be its end."""
        if answer.closed:
            return answer.end, True
        follower = _longest([t for t in self._followers.values() if text.startswith(t, answer.end)])
        return (answer.end, False) if follower is None else (answer.end + len(follower), True)

    def _ending(self, turn: Turn) -> str:
        """The end token for a last answer that the template does not close."""
        return self._followers.get("tool", self.end_token) if turn.tool_calls else self.end_token

    def _check_context(self, turn: Turn, number: int, text: str) -> None:
        """Refuse to leave out an answer without loss; of its thought the template may do what it likes."""
        if _THOUGHT_TAGS.split(turn.full_text)[-1].strip() not in text:
            raise RecordProblem(
                f"the chat template leaves out turn {number + 1} ({turn.role}); take it out of the record, "
                + template_file_hint("keeps it")
            )

    def _contents(
        self, text: str, turns: Sequence[Turn], tools: Sequence[Tool], prompt: bool = False
    ) -> list[Span]:
        """Where the text of questions, systems and tools lies, which may be cut; each must be somewhere."""
        asked = [number for number, turn in enumerate(turns) if turn.role != "assistant" and turn.full_text]
        together = self._walk(text, turns, tools, asked, prompt)
        if together is not None:
            return together
        spans = list[Span]()
        for number in asked:  # a template may decide by a turn's text: mark one at a time
            found = self._walk(text, turns, tools, [number], prompt)
            if found is None and turns[number].full_text.strip() not in text:
                raise RecordProblem(
                    f"the chat template rewrites turn {number + 1} ({turns[number].role}); take out what it "
                    f"rewrites, {template_file_hint('keeps it')}"
                )
            spans += found or []
        return sorted(spans)

    def _walk(
        self, text: str, turns: Sequence[Turn], tools: Sequence[Tool], asked: Sequence[int], prompt: bool
    ) -> list[Span] | None:
        """Where some turns' texts lie, by what is around marks in their place; None if that differs."""
        marked = list(turns)
        for number in asked:
            marked[number] = replace(turns[number], text=MARK.format(number), context="")
        try:
            pattern = self.messages.apply(marked, tools, prompt)
        except RecordProblem:
            return None
        parts = re.split(MARK.format(r"(\d+)"), pattern.removesuffix(self._surplus if prompt else ""))
        order = [int(number) for number in parts[1::2]]
        for number in set(asked) - set(order):
            raise RecordProblem(
                f"the chat template leaves out turn {number + 1} ({turns[number].role}); take it out of the "
                f"record, {template_file_hint('keeps it')}"
            )
        return _fitted(text, [turns[number].full_text for number in order], parts[::2])


def _fitted(text: str, contents: Sequence[str], around: Sequence[str]) -> list[Span] | None:
    """Where contents lie in a text that consists of them and what is around them; None if it does not."""
    if not text.startswith(around[0]):
        return None
    spans, position = list[Span](), len(around[0])
    for content, behind in zip(contents, around[1:], strict=True):
        fits = (kept for kept in _variants(content) if text.startswith(kept + behind, position))
        kept = next(fits, None)
        if kept is None:
            return None
        spans.append((position, position + len(kept)))
        position += len(kept) + len(behind)
    return spans if position == len(text) else None
