"""`evaluate zero-shot`: files in one folder per class, classified by the names of the classes or by examples.

Records that cannot be read are named and counted, not scored. What embeds them is a ``Space``.

Dimensions: R records, K classes, E width of the space.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from imagebind_llm.zero_shot.classes import Classes, Record, read_classes
from imagebind_llm.zero_shot.prompts import prompts_for
from imagebind_llm.zero_shot.scoring import class_vector, confusion, rank_classes, scores_of
from imagebind_llm.zero_shot.spaces import Space, open_space
from llama_adapter.errors import UserError
from llama_adapter.evaluation.results import Scores, print_scores, write_results
from llama_adapter.generation.run import check_writable
from llama_adapter.generation.session import choose_device
from llama_adapter.limits import Count

_SHOWN = 40
"""So many classes fit a printed table."""
_NAMED = 5
"""So many unreadable files are named in a note."""

Modality = Literal["image", "video", "text", "audio", "depth", "thermal", "imu", "point"]


@dataclass(kw_only=True)
class ZeroShotConfig:
    """Classify files without training: each gets the class whose name, or whose examples, lie nearest."""

    model: str
    """Folder of an ImageBind model, or of another model of transformers with an encoder of texts (CLIP,
    SigLIP, CLAP); or `module:name` of an `imagebind_llm.zero_shot.spaces.Space` of your own."""

    folder: str
    """Holds one folder per class with its files."""

    modality: Modality
    """What the files are. Of `text`, every line of a file is a record."""

    names: str | None = None
    """File with the classes' names: JSON of folder to name (or to several that mean the same; classes without
    a folder are further choices), or one name per line in the folders' sorted order. By default the folders'
    own names, with spaces for underscores."""

    ensemble: bool = False
    """Average several prompts per class instead of one: CLIP's 80 for images, some of ours for others."""

    template: list[str] = field(default_factory=list)
    """A prompt of your own, with `{}` for the name; may be repeated, all are averaged."""

    examples: str | None = None
    """Folder like `folder`, whose files show the classes instead of their names: each class is the mean of
    its examples. This asks how well two modalities are bound, without texts."""

    examples_modality: Modality = "image"
    """What the examples are."""

    batch_size: Count = 8
    """Records embedded at once."""

    device: str = "auto"
    """Where to run, such as `cpu` or `cuda:1`; `auto` takes a GPU if there is one."""

    output: str | None = None
    """JSON file for the scores and the confusion of classes; one line per record goes beside it, as
    `.items.jsonl`."""

    def __post_init__(self) -> None:
        """Checks that the settings go together."""
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}. Use 1 or more.")
        said = [name for name in ("names", "ensemble", "template") if getattr(self, name)]
        if self.examples is not None and said:
            raise UserError(f"{said[0]} is about names, but the classes come from examples. Leave one out.")


@dataclass(frozen=True)
class Embedded:
    """Records that could be read, and the others."""

    records: list[Record]
    """Those that could."""
    embeddings: Float[Tensor, "R E"]
    """Of these."""
    unreadable: list[dict[str, str]]
    """`id` and `error` of the others."""


def zero_shot(config: ZeroShotConfig) -> int:
    """The `evaluate zero-shot` verb.

    Returns:
        The exit code.

    Raises:
        UserError: the model or the folder cannot be used, or no record can be read.
    """
    if config.output is not None:
        check_writable(Path(config.output).expanduser())
    classes = read_classes(config.folder, config.modality == "text", config.names)
    space = open_space(config.model, choose_device(config.device), _modalities(config))
    scores, content = evaluate_space(space, classes, config)
    console = Console(highlight=False)
    print_scores(_printed(scores, classes), console)
    if config.output is not None:
        items = write_results(content, scores.items, config.output)
        console.print(f"written: {Path(config.output)} and {items}", markup=False, soft_wrap=True)
    return 0


def evaluate_space(space: Space, classes: Classes, config: ZeroShotConfig) -> tuple[Scores, dict[str, Any]]:
    """Classifies records with any encoders.

    Args:
        space: the encoders.
        classes: the records and what there is to choose from.
        config: how.

    Returns:
        The table with its lines, and all that goes into the JSON file.

    Raises:
        UserError: no record, or no example of a class, can be read.
    """
    vectors, notes = _class_vectors(space, classes, config)
    found = _embed(space, config.modality, classes.records, config.batch_size)
    if not found.records:
        raise UserError(
            f"None of the {len(classes.records)} files of {config.folder!r} can be read as "
            f"{config.modality}. The first: {found.unreadable[0]['error']}"
        )
    ranking = rank_classes(found.embeddings, vectors, [record.label for record in found.records])
    scores = scores_of(f"zero-shot {config.modality}", classes, found.records, ranking)
    scores = replace(scores, notes=[*notes, *_unreadable(found, "scored")], settings=asdict(config))
    content = scores.to_dict() | {
        "classes": dict(zip(classes.folders, classes.names, strict=True)),
        "confusion": confusion(ranking, len(classes.folders)),
        "unreadable": found.unreadable,
    }
    return scores, content


def _modalities(config: ZeroShotConfig) -> list[str]:
    """What the encoders must know."""
    return [config.modality, "text" if config.examples is None else config.examples_modality]


def _class_vectors(
    space: Space, classes: Classes, config: ZeroShotConfig
) -> tuple[Float[Tensor, "K E"], list[str]]:
    """The classes' vectors and a note on how they were made."""
    if config.examples is not None:
        return _of_examples(space, classes, config)
    templates = prompts_for(config.modality, config.ensemble, config.template)
    prompts = [[text.format(name) for name in said for text in templates] for said in classes.names]
    texts = [Record(prompt, prompt, label) for label, several in enumerate(prompts) for prompt in several]
    found = _embed(space, "text", texts, config.batch_size, "Prompts")
    several = f" and {len(templates) - 1} others" if len(templates) > 1 else ""
    return _means(found, len(classes.folders)), [f"A class is said as {templates[0]!r}{several}."]


def _of_examples(
    space: Space, classes: Classes, config: ZeroShotConfig
) -> tuple[Float[Tensor, "K E"], list[str]]:
    """Vectors of classes that are shown.

    Raises:
        UserError: a class has no example that can be read.
    """
    modality = config.examples_modality
    shown = read_classes(str(config.examples), modality == "text")
    number = {folder: label for label, folder in enumerate(classes.folders)}
    records = [
        replace(record, label=number[shown.folders[record.label]])
        for record in shown.records
        if shown.folders[record.label] in number
    ]
    found = _embed(space, modality, records, config.batch_size, "Examples")
    have = {record.label for record in found.records}
    if absent := [folder for folder, label in number.items() if label not in have]:
        raise UserError(
            f"{config.examples!r} has no {modality} for the class {absent[0]!r} that can be read. "
            "Give each class a folder with examples."
        )
    note = f"Classes are the means of {len(found.records)} examples: {modality}."
    return _means(found, len(number)), [note, *_unreadable(found, "used as examples")]


def _means(found: Embedded, classes: int) -> Float[Tensor, "K E"]:
    """One vector per class."""
    labels = torch.tensor([record.label for record in found.records])
    return torch.stack([class_vector(found.embeddings[labels == label]) for label in range(classes)])


def _embed(
    space: Space, modality: str, records: Sequence[Record], batch_size: int, title: str = "Classifying"
) -> Embedded:
    """Embeds what can be read, under a progress bar."""
    stderr = Console(stderr=True, highlight=False)
    kept: list[Record] = []
    unreadable: list[dict[str, str]] = []
    waiting: list[Any] = []
    parts: list[Tensor] = []
    bar: Iterable[Record] = track(records, title, console=stderr, disable=not stderr.is_terminal)
    for record in bar:
        try:
            waiting.append(space.load(modality, record.content))
            kept.append(record)
        except UserError as error:
            unreadable.append({"id": record.id, "error": str(error)})
        if len(waiting) == batch_size:
            parts.append(space.embed(modality, waiting))
            waiting = []
    if waiting:
        parts.append(space.embed(modality, waiting))
    return Embedded(kept, torch.cat(parts) if parts else torch.zeros(0, 0), unreadable)


def _unreadable(found: Embedded, done: str) -> list[str]:
    """A note that names files which were left out."""
    if not found.unreadable:
        return []
    named = "; ".join(entry["error"] for entry in found.unreadable[:_NAMED])
    more = len(found.unreadable) - _NAMED
    rest = f"; and {more} more" if more > 0 else ""
    total = len(found.records) + len(found.unreadable)
    return [f"{len(found.unreadable)} of {total} files cannot be read and are not {done}: {named}{rest}"]


def _printed(scores: Scores, classes: Classes) -> Scores:
    """The table that fits a screen: of many classes those with the lowest accuracy."""
    count = len(classes.folders)
    if count <= _SHOWN:
        return scores
    summary, by_class = scores.rows[:-count], scores.rows[-count:]
    worst = sorted((row for row in by_class if row.count), key=lambda row: row.value)[:_SHOWN]
    note = f"Shown are the {len(worst)} classes with the lowest accuracy of {count}; --output keeps all."
    return replace(scores, rows=[*summary, *worst], notes=[*scores.notes, note])
