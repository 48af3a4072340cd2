"""ScienceQA's questions from any of the forms they are passed on in.

Read are the official layout (`problems.json`, `pid_splits.json`, a folder of images), JSON lines with one
question each, and the Hugging Face data set (saved to a folder, as Parquet, or by its hub name). The hub's
version has no question ids: there the row number in the split, from 0, is the id. Fields that a source lacks
stay unknown, and what depends on them is not scored. It does not know prompts or answers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_json
from llama_adapter.evaluation.values import brief, key_text, listed
from llama_adapter.scienceqa import Problem, problem_of


def read_problems(
    sources: Iterable[str], split: str, splits: str | None = None, images: str | None = None
) -> list[Problem]:
    """Reads questions.

    Args:
        sources: files or folders, or hub names.
        split: which part to take, where the source says which part a question belongs to.
        splits: `pid_splits.json`.
        images: the folder of images.

    Returns:
        The questions, in the order of the split where one is given, else of the files.

    Raises:
        UserError: a source cannot be read, a question is incomplete, or an id comes twice.
    """
    found: dict[str, Problem] = {}
    for source in sources:
        base = Path(images).expanduser() if images else Path(source).expanduser().parent
        for pid, row in _rows(source, split):
            if pid in found:
                raise UserError(f"{source}: the problem {pid!r} came before. Use every question once.")
            problem = problem_of(pid, row, source)
            found[pid] = replace(problem, image=_image_file(problem.image, pid, base, split))
    if splits is not None:
        wanted = _split_ids(splits, split)
        found = {pid: found[pid] for pid in wanted if pid in found}
    if not found:
        raise UserError(f"{listed(sources)} hold no question of the split {split!r}. Choose another one.")
    return list(found.values())


def _rows(source: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and content of every question of a source that may belong to the split."""
    path = Path(source).expanduser()
    if not path.is_file() or path.suffix == ".parquet":
        from llama_adapter.evaluation.scienceqa.hub import hub_rows

        yield from ((str(number), row) for number, row in enumerate(hub_rows(source, split)))
        return
    content = read_json(path)
    if not isinstance(content, dict | list):
        raise UserError(f"{source}: holds {brief(content)}. Use a mapping of id to question, or a list.")
    rows = list(content.items()) if isinstance(content, dict) else list(enumerate(content, start=1))
    for key, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{source}: problem {key} is {brief(row)}. Use an object.")
        if row.get("split") in (None, split):
            pid = key if isinstance(content, dict) else row.get("pid", row.get("id", key))
            yield key_text(pid, f"{source}: the id of problem {key}"), row


def _split_ids(path: str, split: str) -> list[str]:
    """The ids of one part."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(split), list):
        known = listed(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: there is no split {split!r}. Use one of {known}.")
    return [key_text(pid, f"{path}: an id") for pid in content[split]]


def _image_file(image: str | None, pid: str, images: Path, split: str) -> str | None:
    """Where a picture is: beside the questions, or in the official folder, one folder per question."""
    if image is None:
        return None
    places = [images / image, images / split / pid / image, images / pid / image, images / Path(image).name]
    return str(next((place for place in places if place.is_file()), places[0]))
