"""`evaluate scienceqa`: the eight classes of the paper and their average, from answers as they were written.

A question belongs to several classes: its subject, its kind of context (TXT: a hint, IMG: a picture, NO:
neither; a question with both counts in TXT and IMG), and its grades. TOT is the accuracy over all questions
of the split, and is shown only when all of them are there; the accuracy over questions with a picture is
IMG. The two are what reports mix up.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_json
from llama_adapter.evaluation.letters import LETTERS, read_option
from llama_adapter.evaluation.options import OptionsConfig
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.results import Row, Scores, share
from llama_adapter.evaluation.scienceqa.problems import read_problems
from llama_adapter.evaluation.task import run
from llama_adapter.evaluation.values import brief, single_text
from llama_adapter.scienceqa import Format, Problem, build_candidates, build_prompt

SPLIT_SIZES = {"train": 12726, "val": 4241, "validation": 4241, "test": 4241}
"""Questions of the official splits."""

CLASSES: dict[str, Callable[[Problem], bool | None]] = {
    "NAT": lambda p: None if p.subject is None else p.subject == "natural science",
    "SOC": lambda p: None if p.subject is None else p.subject == "social science",
    "LAN": lambda p: None if p.subject is None else p.subject == "language science",
    "TXT": lambda p: bool(p.hint.strip()),
    "IMG": lambda p: p.has_image,
    "NO": lambda p: not p.hint.strip() and not p.has_image,
    "G1-6": lambda p: None if p.grade is None else p.grade <= 6,
    "G7-12": lambda p: None if p.grade is None else p.grade > 6,
}
"""Class -> whether a question belongs to it; None where the data do not say."""


@dataclass(kw_only=True)
class ScienceQAConfig(OptionsConfig):
    """ScienceQA: accuracy by subject, context and grade."""

    problems: list[str]
    """problems.json, a .jsonl file, Parquet, a saved data set, or a hub name; may be repeated."""

    splits: str | None = None
    """pid_splits.json, to take one split of problems.json."""

    split: str = "test"
    """Which split."""

    images: str | None = None
    """Folder of the images; by default beside the problems."""

    captions: str | None = None
    """JSON file of problem id to caption, for prompts of models that do not see pictures."""

    format: Format = "CQM-A"
    """How a question is written into a prompt."""

    only: str | None = None
    """Leave out questions of other classes, such as IMG."""

    guess_unread: int | None = None
    """Seed for drawing an option where an answer names none; without it such an answer is wrong."""

    def __post_init__(self) -> None:
        """Checks the class."""
        super().__post_init__()
        if self.only is not None and self.only not in CLASSES:
            raise UserError(f"only is {self.only!r}. Use one of {', '.join(CLASSES)}.")


@dataclass
class ScienceQA:
    """The task."""

    config: ScienceQAConfig
    """Its settings."""
    name: ClassVar[str] = "scienceqa"

    @cached_property
    def problems(self) -> list[Problem]:
        """The questions that are asked."""
        config = self.config
        found = read_problems(config.problems, config.split, config.splits, config.images)
        if config.only is not None:
            belongs = CLASSES[config.only]
            found = [problem for problem in found if belongs(problem)]
            if not found:
                raise UserError(f"No question belongs to {config.only!r}. Choose another class.")
        return config.limited(found)

    def questions(self) -> list[Question]:
        """The prompts, with pictures and options."""
        captions = {} if self.config.captions is None else _captions(self.config.captions)
        return [
            Question(
                problem.id,
                build_prompt(problem, self.config.format, captions.get(problem.id, "")),
                problem.image,
                problem.choices,
                build_candidates(problem, self.config.format, self.config.options_as),
                has_image=problem.has_image,
                has_none=not problem.has_image,
                record={"pid": problem.id},
            )
            for problem in self.problems
        ]

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Accuracy by class."""
        draw = random.Random(self.config.guess_unread)
        items = [self._item(problem, answers.get(problem.id), draw) for problem in self.problems]
        hits = {item["id"]: bool(item["correct"]) for item in items}
        rows = [
            share(name, [hits[problem.id] for problem in self.problems if belongs(problem)])
            for name, belongs in CLASSES.items()
        ]
        unread = sum(item["read"] is None for item in items)
        return Scores(
            task=f"ScienceQA {self.config.split}",
            rows=rows + [self._total(list(hits.values()))],
            items=items,
            notes=self._notes() + self._about_unread(unread, len(items)),
            settings={
                "split": self.config.split,
                "format": self.config.format,
                "only": self.config.only,
                "guess_unread": self.config.guess_unread,
                "unread": unread,
            },
        )

    def _item(self, problem: Problem, answer: Any, draw: random.Random) -> dict[str, Any]:
        """The record of one question."""
        read = read_option(answer, problem.choices)
        chosen = read
        if read is None and self.config.guess_unread is not None:
            chosen = draw.randrange(len(problem.choices))
        return {
            "id": problem.id,
            "answer": answer,
            "read": None if read is None else LETTERS[read],
            "chosen": None if chosen is None else LETTERS[chosen],
            "right": LETTERS[problem.answer],
            "correct": chosen == problem.answer,
            "classes": [name for name, belongs in CLASSES.items() if belongs(problem)],
        }

    def _total(self, hits: list[bool]) -> Row:
        """The last row; it is called TOT only when the whole split was scored."""
        whole = self.config.only is None and len(hits) == SPLIT_SIZES.get(self.config.split)
        return share("TOT" if whole else "questions here", hits)

    def _notes(self) -> list[str]:
        """What is missing in the data."""
        notes = []
        size = SPLIT_SIZES.get(self.config.split)
        if size is not None and len(self.problems) != size:
            notes.append(
                f"{len(self.problems):,} of the split's {size:,} questions are here: "
                "every class counts those only, and there is no TOT."
            )
        for names, known in (
            ("NAT, SOC and LAN", [problem.subject for problem in self.problems]),
            ("G1-6 and G7-12", [problem.grade for problem in self.problems]),
        ):
            if unknown := known.count(None):
                notes.append(f"{unknown:,} questions do not say to which of {names} they belong.")
        return notes

    def _about_unread(self, unread: int, count: int) -> list[str]:
        """How many answers named no option, if there are such."""
        fate = "count as wrong" if self.config.guess_unread is None else "were drawn at random"
        return [f"{unread} of {count} answers name no single option and {fate}."] if unread else []


def _captions(path: str) -> dict[str, str]:
    """Problem id -> caption."""
    content = read_json(path)
    content = content.get("captions", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {brief(content)}. Use a mapping of problem id to caption.")
    return {pid: single_text(said, f"{path}: the caption of {pid!r}") for pid, said in content.items()}


def scienceqa(config: ScienceQAConfig) -> int:
    """The `evaluate scienceqa` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(ScienceQA(config), config)
