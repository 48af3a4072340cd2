"""`evaluate mme`: MME's perception and cognition scores.

Every picture has two questions, one answered yes and one no. acc is the share of right answers, acc+ that
of pictures with both right; a category's score is 100 (acc + acc+), at most 200, and perception and
cognition are sums over ten and four categories. Read are records with `category` (or an image path that
names it), or MME's own folder of `CATEGORY.txt` files.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_text
from llama_adapter.evaluation.items import Item, ItemsConfig, ItemsTask, answer_text
from llama_adapter.evaluation.joining import keys_of
from llama_adapter.evaluation.letters import bare
from llama_adapter.evaluation.results import Row, Scores, percent
from llama_adapter.evaluation.task import run

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
PER_PICTURE = 2
"""Questions of a picture."""


@dataclass(kw_only=True)
class MMEConfig(ItemsConfig):
    """MME: perception (at most 2000) and cognition (at most 800)."""


@dataclass
class MME(ItemsTask):
    """The task."""

    name = "mme"

    def _read(self) -> list[Item]:
        """All questions of the file or folder."""
        folder = Path(self.config.references).expanduser()
        return read_folder(folder) if folder.is_dir() else super()._read()

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Scores by category, and their two sums."""
        read = read_yes_no_as_published if self.config.as_published else read_yes_no
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = read(answer_text(answers, item))
            items.append(
                {
                    "id": item.id,
                    "category": category_of(item),
                    "image": item.image or keys_of(item.row).get("id"),
                    "answer": answers.get(item.id),
                    "read": said,
                    "correct": said == item.texts[0].strip().lower(),
                }
            )
        by_category = {
            name: category_score(name, [item for item in items if item["category"] == name])
            for name in (*PERCEPTION, *COGNITION)
        }
        rows = [row for found in by_category.values() for row in found]
        totals = [
            Row(name, sum(by_category[part][0].value for part in parts), _count(by_category, parts))
            for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION))
        ]
        return Scores("MME", totals + rows, items, _notes(items, by_category), self.settings())


def read_yes_no(answer: str) -> str | None:
    """`yes` or `no`, if it is the first word of the answer.

    Args:
        answer: what the model said.
    """
    first = re.match(r"\W*(yes|no)\b", bare(answer), re.IGNORECASE)
    return first.group(1).lower() if first else None


def read_yes_no_as_published(answer: str) -> str | None:
    """`yes` or `no` as the published code reads them: anywhere in the first four characters.

    Args:
        answer: what the model said.
    """
    start = answer.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def category_score(name: str, items: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A category's score, acc and acc+.

    Args:
        name: the category.
        items: its records, with `image` and `correct`.

    Raises:
        UserError: a picture has not two questions.
    """
    pictures: dict[Any, list[bool]] = defaultdict(list)
    for item in items:
        pictures[item["image"]].append(item["correct"])
    for image, hits in pictures.items():
        if len(hits) != PER_PICTURE:
            raise UserError(f"{image!r} has {len(hits)} questions in {name!r}. Use two for every picture.")
    right = sum(bool(item["correct"]) for item in items)
    both = sum(all(hits) for hits in pictures.values())
    acc, plus = percent(right, len(items)), percent(both, len(pictures))
    rows = [Row(name, acc + plus, len(items)), Row(f"{name} acc", acc, len(items), right)]
    return [*rows, Row(f"{name} acc+", plus, len(pictures), both)] if items else [Row(name, 0.0, 0)]


def category_of(item: Item) -> str:
    """The category of a question, from its record or its picture's path.

    Raises:
        UserError: neither names one.
    """
    known = (*PERCEPTION, *COGNITION)
    given = item.row.get("category")
    named = given if isinstance(given, str) else ""
    for name in known:
        if name == named or (not named and name in Path(str(item.image)).parts):
            return name
    for name in known:
        if not named and name in str(item.image):
            return name
    raise UserError(
        f"The category of {item.id!r} is {named!r}, the image {item.image!r}. Use one of {', '.join(known)}."
    )


def read_folder(folder: Path) -> list[Item]:
    """Questions of MME's own files: `CATEGORY.txt` with image, question and answer between tabs.

    Args:
        folder: holds the files.

    Raises:
        UserError: there is no such file, or a line has another shape.
    """
    items = []
    for name in (*PERCEPTION, *COGNITION):
        path = folder / f"{name}.txt"
        if not path.is_file():
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            cells = line.split("\t")
            if len(cells) < 3:
                raise UserError(
                    f"{path}:{number}: {line[:60]!r} has {len(cells)} cells. Use image, question, answer."
                )
            row = {"image": cells[0], "category": name}
            items.append(Item(f"{name}:{number}", cells[1], [cells[2]], row))
    if not items:
        raise UserError(f"{folder}: holds none of {PERCEPTION[0]}.txt and the like. Choose MME's folder.")
    return items


def _count(by_category: Mapping[str, list[Row]], parts: Sequence[str]) -> int:
    """Questions of several categories."""
    return sum(by_category[part][0].count for part in parts)


def _notes(items: Sequence[Mapping[str, Any]], by_category: Mapping[str, list[Row]]) -> list[str]:
    """What is missing or was not read."""
    absent = [name for name, rows in by_category.items() if not rows[0].count]
    unread = sum(item["read"] is None for item in items)
    notes = [f"No questions in {', '.join(absent)}: the sums are without them."] if absent else []
    if unread:
        notes.append(f"{unread} of {len(items)} answers are neither yes nor no and count as wrong.")
    return notes


def mme(config: MMEConfig) -> int:
    """The `evaluate mme` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(MME(config), config)
