"""`evaluate choice`: exact match and multiple choice, for GQA, VSR, OCR-VQA, AI2D, Q-Bench and the like.

Where a question has options, or its reference is a single capital letter, the answer is read as a choice;
elsewhere the texts must be equal but for case, spaces and a full stop at the end.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.items import Item, ItemsConfig, ItemsTask, answer_text
from llama_adapter.evaluation.letters import LETTERS, read_option
from llama_adapter.evaluation.options import OptionsConfig
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.results import Scores, share
from llama_adapter.evaluation.task import run
from llama_adapter.evaluation.values import scalar_text, single_text
from llama_adapter.limits import Seed

PUBLISHED_LETTERS = "ABCDE"


@dataclass(kw_only=True)
class ChoiceConfig(ItemsConfig, OptionsConfig):
    """Exact match and multiple choice, in percent."""

    seed: Seed = 0
    """For the letters that --as-published draws where an answer names none; and for a model's sampling."""

    def __post_init__(self) -> None:
        """Refuses rules of reading where nothing is read."""
        super().__post_init__()
        if self.as_published and self.score != "generated":
            raise UserError(
                f"score is {self.score!r}, but as_published is a way of reading answers in words. "
                "Use one of the two."
            )


@dataclass
class Choice(ItemsTask):
    """The task."""

    name = "choice"
    config: ChoiceConfig

    def _question(self, item: Item, prompt: str) -> Question:
        """One question with what says each of its options."""
        letters = self.config.options_as == "letter"
        if self.config.options_as == "auto":
            letters = is_letter(item.references[0])
        candidates = list(LETTERS[: len(item.options)]) if letters else item.options
        return replace(super()._question(item, prompt), candidates=candidates)

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Accuracy over all questions."""
        draw = random.Random(self.config.seed)
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = answer_text(answers, item)
            if self.config.as_published:
                read, right = published_choice(said, item.texts[0], draw)
            else:
                read, right = judge(answers.get(item.id), item)
            items.append({"id": item.id, "answer": said, "read": read, "correct": right})
        unread = sum(item["read"] is None for item in items)
        fate = "got a random letter" if self.config.as_published else "count as wrong"
        notes = [f"{unread} of {len(items)} answers name no single option and {fate}."] if unread else []
        hits = [bool(item["correct"]) for item in items]
        return Scores("Choice", [share("accuracy", hits)], items, notes, self.settings() | {"unread": unread})


def judge(answer: Any, item: Item) -> tuple[str | None, bool]:
    """What an answer says, and whether it is right.

    Args:
        answer: as the model gave it.
        item: the question.

    Returns:
        The letter or text that was read, None where no option could be read; and the verdict.
    """
    wanted = item.references[0]
    letter = is_letter(wanted)
    if item.options or letter:
        options = item.options or [f"option {name}" for name in LETTERS]
        right = LETTERS.index(wanted) if letter else _index(wanted, options)
        read = read_option(answer, options)
        return None if read is None else LETTERS[read], read is not None and read == right
    said = plain("" if answer is None else scalar_text(answer, f"The answer to {item.id!r}"))
    return said, any(said == plain(reference) for reference in item.texts)


def is_letter(reference: Any) -> bool:
    """Whether a reference answer is the letter of an option."""
    return isinstance(reference, str) and len(reference) == 1 and reference in LETTERS


def published_choice(answer: str, reference: str, draw: random.Random) -> tuple[str | None, bool]:
    """Exact match with the quirks of the published code.

    All full stops vanish, so `3.5` equals `35`. If the reference is one of A to E and what stands before the
    first full stop of the answer is not one of these letters, a letter is drawn.

    Args:
        answer: what the model said.
        reference: what is right.
        draw: draws the letters.

    Returns:
        What was read, None where a letter was drawn; and the verdict.
    """
    if reference in PUBLISHED_LETTERS:
        read = answer.split(".")[0]
        if read not in PUBLISHED_LETTERS or len(read) != 1:
            return None, draw.choice(PUBLISHED_LETTERS) == reference
        return read, read == reference
    said = answer.replace(".", "").strip().lower()
    return said, said == reference.replace(".", "").strip().lower()


def plain(text: str) -> str:
    """A text without case, spare spaces and a full stop at its end."""
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def _index(wanted: Any, options: list[str]) -> int | None:
    """Which option is right: an index, or the option's text."""
    if isinstance(wanted, int):
        return wanted
    said = plain(single_text(wanted, "A reference answer"))
    return next((number for number, option in enumerate(options) if plain(option) == said), None)


def choice(config: ChoiceConfig) -> int:
    """The `evaluate choice` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(Choice(config), config)
