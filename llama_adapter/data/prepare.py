"""One batch of canonical records to token sequences with labels: the function that ``datasets.map`` runs.

Every record leaves with a fate, also the ones that cannot be used, so that counting never needs a second pass. A sequence is
never longer than the maximum and never without loss. Files, caches and mixtures are not known here.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import datasets

from llama_adapter.data.config import DataConfig
from llama_adapter.data.encoding import IGNORE, Encoded, Encoder, answer_labels
from llama_adapter.data.overlong import cut_middles, cuttable_ranges
from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem, Turn
from llama_adapter.data.report import BAD, DROPPED, KEPT, TRUNCATED
from llama_adapter.data.template_base import Rendered, Span, Template

PREPARE_VERSION = 1
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
    }
)
"""What preparing yields; training sees the first three columns, and ``media`` when they are kept."""


@dataclass
class Row:
    """One prepared record."""

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
    """Answers at the end of a conversation that did not fit."""


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


class Preparer:
    """Turns canonical records into rows, for one template, tokenizer and maximum length."""

    def __init__(self, template: Template, encoder: Encoder, config: DataConfig) -> None:
        self.template, self.encoder = template, encoder
        self.max_length, self.overlong, self.media = config.max_length, config.overlong, config.media
        self.control = (encoder.control | {template.end_token}) - {MEDIA_PLACEHOLDER}

    @property
    def identity(self) -> str:
        """A short key of everything that decides a row, besides the record."""
        parts = [PREPARE_VERSION, self.template.identity, self.encoder.identity, self.max_length, self.overlong, self.media]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Prepare a batch as ``datasets.map`` hands it over.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            Columns of ``ROW_FEATURES``, one row per record.
        """
        rows = [asdict(row) for row in self.rows(batch)]
        return {name: [row[name] for row in rows] for name in ROW_FEATURES}

    def rows(self, batch: dict[str, list[Any]]) -> list[Row]:
        """Prepare a batch.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            One row per record, in order.
        """
        rows = [
            Row(record_id, BAD if problem else KEPT, problem, media=media)
            for record_id, problem, media in zip(batch["record_id"], batch["problem"], batch["media"], strict=True)
        ]
        ready: list[tuple[Row, list[Turn], Rendered]] = []
        for row, stored in zip(rows, batch["turns"], strict=True):
            if row.fate == BAD:
                continue
            turns = [Turn(**turn) for turn in stored]
            if row.media and self.media == "ignore":
                turns = [without_placeholders(turn) for turn in turns]
            try:
                ready.append((row, turns, self._render(turns)))
            except RecordProblem as problem:
                row.fate, row.problem = BAD, str(problem)
        encoded = self.encoder.encode([text for _, _, text in ready], self.template.add_special_tokens)
        for (row, turns, rendered), one in zip(ready, encoded, strict=True):
            self._finish(row, turns, rendered, one)
        return rows

    def _render(self, turns: list[Turn]) -> Rendered:
        """Apply the template, refusing text that the tokenizer would take for its own control tokens."""
        for number, turn in enumerate(turns, start=1):
            for token in self.control:
                if token in turn.text or token in turn.context:
                    raise RecordProblem(
                        f"turn {number} contains {token!r}, which the tokenizer reads as a control token, not as text"
                    )
        return self.template.render(turns)

    def _finish(self, row: Row, turns: list[Turn], rendered: Rendered, encoded: Encoded) -> None:
        """Fill in ids and labels, shortening if need be."""
        labels = answer_labels(encoded, rendered.answers)
        if len(encoded.ids) > self.max_length:
            if self.overlong == "drop":
                row.fate = DROPPED
                return
            kept = self._fit(turns, rendered, encoded, labels)
            if kept is None:
                self._shorter(row, turns)
                return
            row.fate = TRUNCATED
            encoded = Encoded([encoded.ids[i] for i in kept], [encoded.offsets[i] for i in kept])
            labels = [labels[i] for i in kept]
        if all(label == IGNORE for label in labels):
            row.fate, row.problem = BAD, "no token of the answer is left after encoding"
            return
        row.input_ids, row.labels = encoded.ids, labels

    def _fit(self, turns: list[Turn], rendered: Rendered, encoded: Encoded, labels: list[int]) -> list[int] | None:
        """Indices of the tokens that stay, or None if the answers and the template alone are too long."""
        protected: list[Span] = []
        if any(MEDIA_PLACEHOLDER in turn.full_text for turn in turns):
            protected = [match.span() for match in re.finditer(re.escape(MEDIA_PLACEHOLDER), rendered.text)]
        ranges = cuttable_ranges(encoded, labels, rendered.contents, protected)
        return cut_middles(encoded, ranges, len(encoded.ids) - self.max_length)

    def _shorter(self, row: Row, turns: list[Turn]) -> None:
        """Leave out the last answer with its question and try again; with a single answer give the record up."""
        answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
        if len(answers) == 1:
            row.fate = DROPPED
            return
        turns = turns[: answers[-2] + 1]
        row.left_out += 1
        row.fate = TRUNCATED
        rendered = self._render(turns)
        self._finish(row, turns, rendered, self.encoder.encode([rendered], self.template.add_special_tokens)[0])


def prepared_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that are used.

    Args:
        rows: of ``Preparer.rows``.

    Returns:
        Those that carry a sequence.
    """
    return [row for row in rows if row.fate in (KEPT, TRUNCATED)]
