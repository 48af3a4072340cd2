"""What an evaluation found: rows for the table, a record per question, and notes; printed and written.

A score is a share from 0 to 1 or a number of its own scale; how it is shown is the row's business. It does
not know tasks.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llama_adapter.evaluation.files import write_json, write_lines


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    """What was measured."""
    value: float
    """The score, in the scale it is reported in."""
    count: int
    """How many questions are behind it."""
    correct: int | None = None
    """How many of them are right, where an answer is right or wrong."""
    digits: int = 2
    """Digits after the point."""

    def shown(self) -> str:
        """The score as text; a score of no questions is a dash."""
        return f"{self.value:.{self.digits}f}" if self.count and math.isfinite(self.value) else "-"


@dataclass(frozen=True)
class Scores:
    """The result of one evaluation."""

    task: str
    """The task's name."""
    rows: list[Row]
    """The table."""
    items: list[dict[str, Any]]
    """One record per question, each with its `id`."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the table must know."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was scored."""

    def value(self, name: str) -> float:
        """The score of one row."""
        return {row.name: row.value for row in self.rows}[name]

    def to_dict(self) -> dict[str, Any]:
        """All but the questions' records, for JSON; a score of no questions is null."""
        return {
            "task": self.task,
            "scores": {row.name: row.value if row.count else None for row in self.rows},
            "counts": {row.name: row.count for row in self.rows},
            "correct": {row.name: row.correct for row in self.rows if row.correct is not None},
            "notes": self.notes,
            "settings": self.settings,
        }


def percent(correct: float, count: int) -> float:
    """A share in percent; 0 where there is nothing."""
    return 100 * correct / count if count else 0.0


def share(name: str, hits: list[bool]) -> Row:
    """The row of an accuracy in percent."""
    return Row(name, percent(sum(hits), len(hits)), len(hits), sum(hits))


def print_scores(scores: Scores, console: Console) -> None:
    """Prints the table and the notes."""
    table = Table(title=scores.task, title_justify="left")
    table.add_column("score")
    for heading in ("value", "correct", "of"):
        table.add_column(heading, justify="right")
    for row in scores.rows:
        correct = "" if row.correct is None else f"{row.correct:,}"
        table.add_row(row.name, row.shown(), correct, f"{row.count:,}")
    console.print(table)
    for note in scores.notes:
        console.print(f"- {note}", markup=False, soft_wrap=True)


def items_path(path: str | Path) -> Path:
    """Where the questions' records stand, beside the file of scores."""
    return Path(path).expanduser().with_suffix(".items.jsonl")


def write_scores(scores: Scores, path: str) -> Path:
    """Writes the scores as JSON and the questions' records beside it.

    Args:
        scores: what was found.
        path: the JSON file; the records go to the same name with `.items.jsonl`.

    Returns:
        The file of the records.

    Raises:
        UserError: a file cannot be written.
    """
    return write_results(scores.to_dict(), scores.items, path)


def write_results(content: dict[str, Any], items: list[dict[str, Any]], path: str) -> Path:
    """Writes what :func:`write_scores` does, for more than one table."""
    beside = items_path(path)
    write_json(path, content)
    write_lines(beside, items)
    return beside
