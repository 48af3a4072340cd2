"""A model's answers as they come, in the file beside the scores, so that an interrupted run loses nothing.

Each line adds to what is known of one question; a line that was cut off in the middle is dropped. Unusual:
every line carries the hash of what made it (`run`), and answers of another model, setting or prompt, or to
other questions, are never continued: the file is then refused, not overwritten. It does not know models.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_text, write_lines
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.values import brief, key_text

KEPT = ("prompt", "run", "shown", "answer", "candidates", "log_likelihoods")
"""What is taken over from an earlier run; verdicts are made anew."""
_GIVEN = ("id", "prompt", "run", "shown")
"""What is known of a question before it is answered."""


class AnswerFile:
    """What is known of each question, kept in a file if there is one."""

    def __init__(
        self,
        path: Path | None,
        run: str,
        questions: Sequence[Question],
        shown: Mapping[str, str] | None = None,
    ) -> None:
        """Reads what an earlier run of the same kind left.

        Args:
            path: the file; None keeps nothing beyond this run.
            run: identity of the predictor.
            questions: what is asked.
            shown: what the model is shown with a question, by its id; of the others it sees nothing.

        Raises:
            UserError: the file belongs to something else, or cannot be used.
        """
        self.path = path
        self.run = run
        shown = {} if shown is None else shown
        self.rows: dict[str, dict[str, Any]] = {
            q.id: {"prompt": q.prompt, "run": run, "shown": shown.get(q.id)} for q in questions
        }
        """What is known of each question, by id."""
        if path is not None and path.exists():
            for row in self._read(path):
                self._merge(row, path)
            write_lines(path, [row for row in self._lines() if len(row) > len(_GIVEN)])

    def add(self, id: str, **found: Any) -> None:
        """Notes something about a question and writes it down.

        Raises:
            UserError: the file cannot be written.
        """
        row = self.rows[id]
        row.update(found)
        if self.path is None:
            return
        line = {"id": id, **{key: row[key] for key in _GIVEN[1:]}, **found}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError(
                f"{self.path}: {reason}. Choose another --output, or make room for it."
            ) from error

    def _lines(self) -> list[dict[str, Any]]:
        """One complete record per question."""
        return [{"id": id, **row} for id, row in self.rows.items()]

    def _read(self, path: Path) -> list[dict[str, Any]]:
        """The records of the file, without one that was cut off at the end."""
        lines = [line for line in read_text(path).split("\n") if line.strip()]
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if number == len(lines):
                    break
                raise self._foreign(path, f"line {number} is no JSON ({error})") from error
            if not isinstance(row, dict) or "id" not in row:
                raise self._foreign(path, f"line {number} is no record with an id")
            rows.append(row)
        return rows

    def _merge(self, row: dict[str, Any], path: Path) -> None:
        """Takes over a record; one of a question that is not asked now would be lost at the end."""
        if row.get("run") != self.run:
            raise self._foreign(path, "its answers are of another model or other settings")
        known = self.rows.get(key_text(row["id"], f"{path}: an id"))
        if known is None:
            raise self._foreign(path, f"it answers {brief(row['id'])}, which is not asked now")
        if row.get("prompt") != known["prompt"]:
            raise self._foreign(path, f"question {row['id']!r} was asked in other words")
        if row.get("shown") != known["shown"]:
            raise self._foreign(
                path, f"question {row['id']!r} was asked with {brief(row.get('shown'))} shown"
            )
        known.update({key: row[key] for key in KEPT if key in row})

    def _foreign(self, path: Path, why: str) -> UserError:
        """What to say of a file that cannot be continued."""
        return UserError(
            f"{path} cannot be continued: {why}. Use another --output, or delete the file to start again."
        )
