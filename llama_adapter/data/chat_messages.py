"""A chat template as a function of turns: runs it on messages in the form that it takes.

Templates differ in what they read: text or a list of parts, arguments of calls as an object or as JSON text,
thoughts under one of several keys, tools or none. What one reads is found by trying, once, with marks whose
way into the text is then seen; so is whether it has a place for something at all. Where answers lie, and
tokens, are not known here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.template_base import Tool

MARK = "\ue000{}\ue001"
"""Stands for a text in a rendering: private-use characters, which no trimming touches."""

_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What templates raise: their own refusals, and operations on values that they did not expect."""

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names under which templates read a thought; the first is the usual one."""

_WAYS_OUT = {
    "system": "put its text into the first user turn",
    "user": "let user and assistant turns alternate, neighbours of one role joined",
    "assistant": "let user and assistant turns alternate, neighbours of one role joined",
    "tool": "take calls and results out of the record, or use a base model that was tuned for tools",
}


def template_file_hint(what: str) -> str:
    """The way out that every limit of a template leaves: a changed copy of it."""
    return f"or use a copy of the template that {what}, as a file: template: NAME.jinja"


def _marked_call(number: int, arguments: Any) -> dict[str, Any]:
    """A call of which every part is a mark."""
    given = {MARK.format(f"{number}k"): MARK.format(f"{number}v")}
    text = json.dumps(given, ensure_ascii=False)
    function = {"name": MARK.format(number), "arguments": text if isinstance(arguments, str) else given}
    return {"type": "function", "id": "call00000", "function": function}


def _shows_calls(text: str, calls: Sequence[dict[str, Any]]) -> bool:
    """Whether names and arguments of marked calls stand in a text, JSON text as it is and not escaped."""
    functions = [call["function"] for call in calls]
    wanted = [function["name"] for function in functions]
    for arguments in (function["arguments"] for function in functions):
        wanted += [arguments] if isinstance(arguments, str) else [*arguments, *arguments.values()]
    return all(part in text for part in wanted)


def _function_name(described: Mapping[str, Any]) -> str:
    """The name of a tool or of a call, which stands in ``function`` or beside its parameters."""
    function = described.get("function", described)
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""


class ChatMessages:
    """Runs a tokenizer's chat template over turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.as_parts = False
        self.as_parts = not self._shows(MARK, Turn("assistant", MARK)) and self._shows_parts()
        self.reasoning_key: str | None = None
        self.reasoning_key = next(filter(self._shows_reasoning, _REASONING_KEYS), None)
        self.argument_types: tuple[type, ...] = (dict, str)
        self.argument_types = tuple(kind for kind in (dict, str) if self._takes_calls(kind()))
        self.takes_tools = self._takes_tools()

    def apply(self, turns: Sequence[Turn], tools: Sequence[Tool] = (), prompt: bool = False) -> str:
        """The text of a conversation as ``apply_chat_template`` gives it.

        Args:
            turns: any turns.
            tools: what the assistant may call.
            prompt: whether the template's request for an answer follows.

        Raises:
            RecordProblem: the template refuses them; the message names the first turn that it does not take.
        """
        try:
            return self._run(turns, tools, prompt)
        except _TEMPLATE_ERRORS as error:
            raise self._refusal(turns, tools, error) from error

    def check_extras(self, turns: Sequence[Turn], tools: Sequence[Tool], text: str) -> None:
        """Refuse tools and calls that the template leaves out.

        Args:
            turns: the conversation.
            tools: what the assistant may call.
            text: the conversation as text.

        Raises:
            RecordProblem: something is not in the text.
        """
        missing = [_function_name(tool) for tool in tools if _function_name(tool) not in text]
        if tools and (missing or not self.takes_tools):
            names = ", ".join(missing or map(_function_name, tools))
            raise RecordProblem(
                f"the record has tools ({names}), for which the chat template has no place; take them and "
                f"their calls out of the record, {template_file_hint('writes them')}"
            )
        for number, turn in enumerate(turns):
            if turn.tool_calls:
                self._check_calls(turns[: number + 1], tools)
            if turn.reasoning and self.reasoning_key is None:
                raise RecordProblem(
                    f"turn {number + 1} ({turn.role}) has a thought (reasoning_content), for which the chat "
                    f"template has no place; take it out of the record, {template_file_hint('writes it')}"
                )

    def _check_calls(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> None:
        """Refuse calls of the last turn that the template leaves out in part or altogether."""
        last = turns[-1]
        calls = [
            _marked_call(number, self._call(call)["function"].get("arguments"))
            for number, call in enumerate(last.tool_calls)
        ]
        marked = self.apply([*turns[:-1], replace(last, tool_calls=calls)], tools)
        if not self.argument_types or not _shows_calls(marked, calls):
            names = ", ".join(map(_function_name, last.tool_calls))
            raise RecordProblem(
                f"turn {len(turns)} ({last.role}) calls {names}, and the chat template leaves calls out; "
                f"take them out of the record, {template_file_hint('writes them')}"
            )

    def _run(self, turns: Sequence[Turn], tools: Sequence[Tool], prompt: bool = False) -> str:
        """Apply the template, with whatever it raises."""
        messages = [self._message(turn) for turn in turns]
        return str(
            self.tokenizer.apply_chat_template(
                messages, tools=list(tools) or None, tokenize=False, add_generation_prompt=prompt
            )
        )

    def _renders(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> bool:
        """Whether the template takes these turns."""
        try:
            self._run(turns, tools)
        except _TEMPLATE_ERRORS:
            return False
        return True

    def _refusal(self, turns: Sequence[Turn], tools: Sequence[Tool], error: Exception) -> RecordProblem:
        """The reason why turns cannot be rendered, with the turn that is to blame."""
        said = " ".join(str(error).split())
        if tools and self._renders(turns):
            return RecordProblem(
                f"the chat template refuses the record's tools ({said}); write them as JSON schemas with "
                "type and function"
            )
        taken = next((n for n in range(len(turns) - 1, 0, -1) if self._renders(turns[:n], tools)), 0)
        role = turns[taken].role if turns else "none"
        way = _WAYS_OUT.get(role, "use other turns")
        return RecordProblem(f"the chat template refuses turn {taken + 1} ({role}): {said}; {way}")

    def _message(self, turn: Turn) -> dict[str, Any]:
        """A turn as a message; only what it has becomes a key."""
        text = turn.full_text
        message: dict[str, Any] = {"role": turn.role}
        message["content"] = [{"type": "text", "text": text}] if self.as_parts else text
        if turn.reasoning:
            message[self.reasoning_key or _REASONING_KEYS[0]] = turn.reasoning
        if turn.tool_calls:
            message["tool_calls"] = [self._call(call) for call in turn.tool_calls]
        message |= {key: value for key in ("tool_call_id", "name") if (value := getattr(turn, key))}
        return message

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """A call in the usual shape, its arguments in a form that the template reads."""
        call = call if "function" in call else {"type": "function", "function": call}
        function = dict(call["function"])
        arguments = function.get("arguments", {})
        if str not in self.argument_types and isinstance(arguments, str):
            try:
                function["arguments"] = json.loads(arguments)
            except json.JSONDecodeError as error:
                raise RecordProblem(
                    f"the arguments of a call of {function.get('name')!r} are no JSON ({arguments!r}); they "
                    "must be an object"
                ) from error
        elif dict not in self.argument_types and not isinstance(arguments, str):
            function["arguments"] = json.dumps(arguments, ensure_ascii=False)
        return {"type": "function", **call, "function": function}

    def _shows(self, mark: str, *turns: Turn, tools: Sequence[Tool] = ()) -> bool:
        """Whether a mark in turns behind a question, or in tools, comes into the text."""
        try:
            return mark in self._run([Turn("user", "a"), *turns], tools)
        except _TEMPLATE_ERRORS:
            return False

    def _shows_parts(self) -> bool:
        """Whether text comes through as a list of parts."""
        self.as_parts = True
        return self._shows(MARK, Turn("assistant", MARK))

    def _shows_reasoning(self, key: str) -> bool:
        """Whether thoughts under this key come into the text."""
        self.reasoning_key = key
        return self._shows(MARK, Turn("assistant", "b", reasoning=MARK))

    def _takes_calls(self, arguments: Any) -> bool:
        """Whether calls come into the text with arguments of this type."""
        calls = [_marked_call(0, arguments)]
        try:
            text = self._run([Turn("user", "a"), Turn("assistant", "", tool_calls=calls)], ())
        except _TEMPLATE_ERRORS:
            return False
        return _shows_calls(text, calls)

    def _takes_tools(self) -> bool:
        """Whether tools come into the text."""
        parameters = {"type": "object", "properties": {"x": {"type": "string", "description": "d"}}}
        function = {"name": MARK, "description": "d", "parameters": parameters}
        return self._shows(MARK, tools=[{"type": "function", "function": function}])
