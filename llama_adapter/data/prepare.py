"""One batch of canonical records to token sequences with labels: the function that ``datasets.map`` runs.

Every record leaves with a fate, also the ones that cannot be used, so that counting never needs a second
pass. A sequence is never longer than the maximum and never without loss. Files, caches and mixtures are not
known here.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import datasets

from llama_adapter.data.config import DataConfig
from llama_adapter.data.encoding import IGNORE, Encoded, Encoder, answer_labels
from llama_adapter.data.overlong import TokenRange, answers_that_fit, cut_middles, cuttable_ranges
from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem, Turn, turn_of
from llama_adapter.data.report import BAD, DROPPED, KEPT, TRUNCATED
from llama_adapter.data.template_base import Rendered, Span, Template, lifted_media

PREPARE_VERSION = 2
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
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Prepare a batch as ``datasets.map`` hands it over.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            Columns of ``ROW_FEATURES``, one row per record.
        """
        rows = [asdict(row) for row in self.rows(batch)]
        return {name: [row[name] for row in rows] for name in ROW_FEATURES}

    def rows(self, batch: Mapping[str, list[Any]]) -> list[Row]:
        """Prepare a batch.

        Args:
            batch: columns of ``RECORD_FEATURES``.

        Returns:
            One row per record, in order.
        """
        rows, ready = list[Row](), list[tuple[Row, list[Turn], Rendered]]()
        for record_id, problem, media, stored in zip(
            *(batch[name] for name in ("record_id", "problem", "media", "turns")), strict=True
        ):
            row = Row(record_id, BAD if problem else KEPT, problem, media=media)
            rows.append(row)
            turns = [turn_of(turn) for turn in stored]
            if row.fate == KEPT and (rendered := self._try(row, turns)):
                ready.append((row, *rendered))
        encoded = self.encoder.encode([text for _, _, text in ready], self.template.add_special_tokens)
        for (row, turns, text), one in zip(ready, encoded, strict=True):
            self._finish(row, turns, text, one)
        return rows

    def _try(self, row: Row, turns: list[Turn]) -> tuple[list[Turn], Rendered] | None:
        """The turns as the model gets them and their text; None, and the reason in the row, if that fails."""
        places = bool(row.media) and self._places_media
        if row.media and self.media in ("ignore", "attach") and not places:
            turns = [without_placeholders(turn) for turn in turns]
        try:
            rendered = self._render(turns)
            return turns, lifted_media(rendered) if places else rendered
        except RecordProblem as problem:
            row.fate, row.problem = BAD, str(problem)
            return None

    def _render(self, turns: list[Turn]) -> Rendered:
        """Apply the template, refusing text that the tokenizer would take for its own control tokens."""
        for number, turn in enumerate(turns, start=1):
            for token in self.control:
                if token in turn.text or token in turn.context:
                    raise RecordProblem(
                        f"turn {number} contains {token!r}, which the tokenizer would read as a control "
                        "token; it must not occur in text"
                    )
        return self.template.render(turns)

    def _finish(self, row: Row, turns: list[Turn], rendered: Rendered, encoded: Encoded) -> None:
        """Fill in ids and labels, shortening if need be."""
        labels = answer_labels(encoded, rendered.answers)
        if len(encoded.ids) > self.max_length:
            if self.overlong == "drop":
                row.fate = DROPPED
                return
            ranges = self._ranges(turns, rendered, encoded, labels)
            kept = cut_middles(encoded, ranges, len(encoded.ids) - self.max_length)
            if kept is None:
                fitting = answers_that_fit(encoded, rendered.answers, ranges, self.max_length)
                self._shorten(row, turns, fitting)
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

    def _ranges(
        self, turns: list[Turn], rendered: Rendered, encoded: Encoded, labels: list[int]
    ) -> list[TokenRange]:
        """Runs of tokens that may be taken out of this sequence."""
        protected: list[Span] = []
        if any(MEDIA_PLACEHOLDER in turn.full_text for turn in turns):
            protected = [match.span() for match in re.finditer(re.escape(MEDIA_PLACEHOLDER), rendered.text)]
        return cuttable_ranges(encoded, labels, rendered.contents, protected)

    def _shorten(self, row: Row, turns: list[Turn], fitting: int) -> None:
        """Keep only the first answers of a conversation, with what leads to them; give up if none fits."""
        answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
        keep = min(fitting, len(answers) - 1)
        if keep == 0:
            row.fate, row.left_out = DROPPED, 0
            return
        row.left_out += len(answers) - keep
        row.fate = TRUNCATED
        if shorter := self._try(row, turns[: answers[keep - 1] + 1]):
            encoded = self.encoder.encode([shorter[1]], self.template.add_special_tokens)
            self._finish(row, *shorter, encoded[0])


def prepared_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that are used.

    Args:
        rows: of ``Preparer.rows``.

    Returns:
        Those that carry a sequence.
    """
    return [row for row in rows if row.fate in (KEPT, TRUNCATED)]
