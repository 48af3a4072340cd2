"""One batch of canonical records to token sequences with labels: the function that ``datasets.map`` runs.

Every record leaves with a fate, also the ones that cannot be used, so that counting never needs a second
pass. A sequence is never longer than the maximum and never without loss. A conversation whose earlier answers
the template rewrites becomes several rows, one for each beginning in which an answer stands as the model is
asked for it. Files, caches and mixtures are not known here.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import datasets

from llama_adapter.data.config import DataConfig
from llama_adapter.data.encoding import IGNORE, Encoded, Encoder, answer_labels
from llama_adapter.data.overlong import TokenRange, answers_that_fit, cut_middles, cuttable_ranges
from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem, Turn, json_of, turn_of
from llama_adapter.data.report import BAD, DROPPED, KEPT, TRUNCATED
from llama_adapter.data.template_base import Rendered, Span, Template, Tool, lifted_media

PREPARE_VERSION = 3
"""Part of every cache key: raise it when rows change for the same records and settings."""

ROW_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "record_id": datasets.Value("string"),
        "media": datasets.List(datasets.Value("string")),
        "fate": datasets.Value("string"),
        "problem": datasets.Value("string"),
        "left_out": datasets.Value("int32"),
        "part": datasets.Value("int32"),
        "rewritten": datasets.Value("int32"),
    }
)
"""What preparing yields; training sees the first three columns, and ``media`` when they are kept."""

PASSED_ON = ("type", "characters")
"""Columns of a record that its rows have, too, where the batch has them."""


@dataclass
class Row:
    """One prepared record, or one of the examples made of it."""

    record_id: str
    """``file:line``."""
    fate: str
    """What became of it: see ``report``."""
    problem: str = ""
    """Why it is bad; empty otherwise."""
    input_ids: list[int] = field(default_factory=list)
    """The sequence; empty unless it is used."""
    labels: list[int] = field(default_factory=list)
    """Same length; ``IGNORE`` where there is no loss."""
    media: list[str] = field(default_factory=list)
    """Paths of its media."""
    left_out: int = 0
    """Answers that did not fit."""
    part: int = 0
    """Which of the examples of its record it is, from 0; the record is counted with the first."""
    rewritten: int = 0
    """Answers of the record that the template rewrites once more turns follow; in its first row."""
    place: int = 0
    """Which record of the batch it was made of."""


@dataclass
class _Example:
    """A conversation on its way to a row."""

    row: Row
    turns: list[Turn]
    """Those that bear loss in this text are learned, no others."""
    tools: Sequence[Tool]
    rendered: Rendered


def without_placeholders(turn: Turn) -> Turn:
    """The turn as a text-only model sees it.

    Args:
        turn: of a record with media.

    Returns:
        The turn without placeholders and the line breaks that set them apart.
    """
    mark = re.escape(MEDIA_PLACEHOLDER)
    pattern = rf"{mark}\n?|\n{mark}$"
    return replace(turn, text=re.sub(pattern, "", turn.text), context=re.sub(pattern, "", turn.context))


def _texts(value: Any) -> Iterator[str]:
    """All texts in a structure of lists and objects, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part)


class Preparer:
    """Turns canonical records into rows, for one template, tokenizer and maximum length."""

    def __init__(self, template: Template, encoder: Encoder, config: DataConfig) -> None:
        self.template, self.encoder = template, encoder
        self.max_length, self.overlong, self.media = config.max_length, config.overlong, config.media
        self.rewritten_turns = config.rewritten_turns
        self.control = (encoder.control | {template.end_token}) - {MEDIA_PLACEHOLDER}
        self._places_media = config.media == "attach" and encoder.media_token_id is not None

    @property
    def identity(self) -> str:
        """A short key of everything that decides a row, besides the record."""
        parts = [
            PREPARE_VERSION,
            self.template.identity,
            self.encoder.identity,
            self.max_length,
            self.overlong,
            self.media,
            self.rewritten_turns,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Prepare a batch as ``datasets.map`` hands it over.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            Columns of ``ROW_FEATURES`` and of ``PASSED_ON``, as far as the batch has them; a row or more per
            record.
        """
        rows = self.rows(batch)
        passed = {name: [batch[name][row.place] for row in rows] for name in PASSED_ON if name in batch}
        stored = [asdict(row) for row in rows]
        return {name: [row[name] for row in stored] for name in ROW_FEATURES} | passed

    def rows(self, batch: Mapping[str, list[Any]]) -> list[Row]:
        """Prepare a batch.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            The rows of each record, in order.
        """
        made = list[list[_Example] | Row]()
        tools = batch.get("tools") or [""] * len(batch["turns"])
        columns = (batch[name] for name in ("record_id", "problem", "media", "turns"))
        records = enumerate(zip(*columns, tools, strict=True))
        for place, (record_id, problem, media, stored, offered) in records:
            row = Row(record_id, BAD if problem else KEPT, problem, media=media, place=place)
            turns = [turn_of(turn) for turn in stored]
            made.append(row if problem else self._examples(row, turns, json_of(offered)) or row)
        ready = [example for examples in made if isinstance(examples, list) for example in examples]
        encoded = self.encoder.encode([one.rendered for one in ready], self.template.add_special_tokens)
        for example, one in zip(ready, encoded, strict=True):
            self._finish(example, one)
        return [row for one in made for row in ([one] if isinstance(one, Row) else _settled(one))]

    def _examples(self, row: Row, turns: list[Turn], tools: Sequence[Tool]) -> list[_Example]:
        """The texts in which the answers of a record are learned, the shortest first; none if it is bad."""
        examples = [self._try(row, turns, tools)]
        while (last := examples[-1]) and (missing := last.rendered.rewritten):
            if self.rewritten_turns == "last" and last.rendered.answers:
                break
            shorter = [
                turn if number in missing else replace(turn, learned=False)
                for number, turn in enumerate(turns[: missing[-1] + 1])
            ]
            examples.append(self._try(row, shorter, tools))
        made = [example for example in examples if example and example.rendered.answers]
        if row.fate == KEPT and not made:
            row.fate, row.problem = BAD, "none of its answers bears loss; at least one must"
        for part, example in enumerate(reversed(made)):
            rewritten = 0 if part else len(made[0].rendered.rewritten)
            example.row = replace(row, part=part, rewritten=rewritten)
        return made[::-1] if row.fate == KEPT else []

    def _try(self, row: Row, turns: list[Turn], tools: Sequence[Tool]) -> _Example | None:
        """The turns as the model gets them and their text; None, and the reason in the row, if that fails."""
        places = bool(row.media) and self._places_media
        if row.media and self.media in ("ignore", "attach") and not places:
            turns = [without_placeholders(turn) for turn in turns]
        try:
            rendered = self._render(turns, tools)
        except RecordProblem as problem:
            row.fate, row.problem = BAD, str(problem)
            return None
        learned = [
            replace(turn, learned=turn.learned and number not in rendered.rewritten)
            for number, turn in enumerate(turns)
        ]
        return _Example(row, learned, tools, lifted_media(rendered) if places else rendered)

    def _render(self, turns: list[Turn], tools: Sequence[Tool]) -> Rendered:
        """Apply the template, refusing text that the tokenizer would take for its own control tokens."""
        said = [
            (f"turn {number}", [turn.text, turn.context, turn.reasoning, turn.name, turn.tool_calls])
            for number, turn in enumerate(turns, start=1)
        ]
        for place, value in [*said, ("a tool", list(tools))]:
            texts = list(_texts(value))
            for token in self.control:
                if any(token in text for text in texts):
                    raise RecordProblem(
                        f"{place} contains {token!r}, which the tokenizer would read as a control token; it "
                        "must not occur in text"
                    )
        return self.template.render(turns, tools)

    def _finish(self, example: _Example, encoded: Encoded) -> None:
        """Fill in ids and labels, shortening if need be."""
        row, rendered = example.row, example.rendered
        labels = answer_labels(encoded, rendered.answers)
        if len(encoded.ids) > self.max_length:
            if self.overlong == "drop":
                row.fate = DROPPED
                return
            ranges = self._ranges(example, encoded, labels)
            kept = cut_middles(encoded, ranges, len(encoded.ids) - self.max_length)
            if kept is None:
                fitting = answers_that_fit(encoded, rendered.answers, ranges, self.max_length)
                self._shorten(example, fitting)
                return
            row.fate = TRUNCATED
            encoded = Encoded([encoded.ids[i] for i in kept], [encoded.offsets[i] for i in kept])
            labels = [labels[i] for i in kept]
        if all(label == IGNORE for label in labels):
            row.fate, row.problem = (
                BAD,
                "the answer has no token; it must have text the tokenizer knows",
            )
            return
        row.input_ids, row.labels = encoded.ids, labels

    def _ranges(self, example: _Example, encoded: Encoded, labels: list[int]) -> list[TokenRange]:
        """Runs of tokens that may be taken out of this sequence."""
        protected, rendered = list[Span](), example.rendered
        if any(MEDIA_PLACEHOLDER in turn.full_text for turn in example.turns):
            protected = [match.span() for match in re.finditer(re.escape(MEDIA_PLACEHOLDER), rendered.text)]
        return cuttable_ranges(encoded, labels, rendered.contents, protected)

    def _shorten(self, example: _Example, fitting: int) -> None:
        """Keep only the first answers of a conversation, with what leads to them; give up if none fits."""
        row, turns = example.row, example.turns
        answers = [number for number, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
        goes_on = answers[-1] < len(turns) - 1  # an answer without loss follows, which may go first
        keep = min(fitting, len(answers) - (not goes_on))
        if keep == 0:
            row.fate, row.left_out = DROPPED, 0
            return
        row.left_out += len(answers) - keep
        row.fate = TRUNCATED
        if shorter := self._try(row, turns[: answers[keep - 1] + 1], example.tools):
            example.turns, example.rendered = shorter.turns, shorter.rendered
            encoded = self.encoder.encode([shorter.rendered], self.template.add_special_tokens)
            self._finish(example, encoded[0])


def _settled(examples: Sequence[_Example]) -> list[Row]:
    """The rows of one record: those that are used, or one that says why there are none."""
    rows = [example.row for example in examples]
    bad = next((row for row in rows if row.fate == BAD), None)
    used = prepared_rows(rows)
    if bad or not used:
        return [replace(bad or rows[0], part=0)]
    lost = sum(len(one.rendered.answers) for one in examples if one.row.fate == DROPPED)
    for part, row in enumerate(used):
        row.part, row.rewritten = part, 0 if part else rows[0].rewritten
    used[0].left_out += lost
    if lost or any(row.fate == TRUNCATED for row in used):
        used[0].fate = TRUNCATED  # the record is counted with its first row
    return used


def prepared_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that are used.

    Args:
        rows: of ``Preparer.rows``.

    Returns:
        Those that carry a sequence.
    """
    return [row for row in rows if row.fate in (KEPT, TRUNCATED)]
