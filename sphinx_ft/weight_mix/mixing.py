"""Writes the weighted mean of models, tensor by tensor.

The result starts as a copy of the first folder, whose tensors are then written over one after the other. So
it has that folder's files, names, types and other content, and memory holds two tensors, however large the
models are.

Dimensions: ``...`` any shape.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Shaped
from rich.console import Console
from rich.progress import track
from torch import Tensor

from llama_adapter.checkpoints.writing import new_folder
from llama_adapter.errors import UserError
from sphinx_ft.weight_mix.compare import check_settings, check_tensors, check_vocabularies
from sphinx_ft.weight_mix.stored import StoredTensor, stored_tensors

Scope = Literal["all", "llm"]
LANGUAGE_MODEL = "language_model."
"""Beginning of the names of a seeing model's language model."""
RECORD_FILE = "mix.json"
"""What a mixed folder says of where it is from."""
_OTHER_FORMATS = {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack"}
_SUM = 1e-6
"""How far the sum of the weights may be from 1."""


@dataclass(frozen=True)
class Mixed:
    """What was written."""

    mixed: int
    """Tensors that are means."""
    kept: int
    """Tensors of the first model that stayed."""


def mix_models(
    folders: Sequence[str | Path],
    weights: Sequence[float],
    output: str | Path,
    scope: Scope = "all",
    overwrite: bool = False,
) -> Mixed:
    """Mix models, or adapters, that are built alike.

    Args:
        folders: of the models, in Hugging Face's layout with safetensors files.
        weights: how much each counts; together 1.
        output: folder to write.
        scope: all tensors, or those of the language model; the others stay the first model's.
        overwrite: replace what is at ``output``.

    Returns:
        How many tensors are means.

    Raises:
        UserError: the models do not fit together, or the weights do not add up to 1.
    """
    sources = [Path(folder) for folder in folders]
    _check_weights(sources, weights)
    stored = [stored_tensors(folder) for folder in sources]
    check_settings(sources)
    check_tensors(sources, stored)
    check_vocabularies(sources)
    names = _in_scope(stored[0], sources[0], scope)
    with new_folder(output, overwrite) as work:
        _copy(sources[0], work)
        places = stored_tensors(work)
        for name in track(names, "mixing", console=Console(stderr=True)):
            mean = mean_of([tensors[name] for tensors in stored], weights)
            places[name].write(mean)
        record = {"models": [str(path) for path in sources], "weights": list(weights), "scope": scope}
        (work / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return Mixed(len(names), len(places) - len(names))


def mean_of(stored: Sequence[StoredTensor], weights: Sequence[float]) -> Shaped[Tensor, "..."]:
    """The weighted mean of one tensor over models, summed in float32, in the first one's type.

    Raises:
        UserError: whole numbers, which have no mean, differ.
    """
    first = stored[0]
    if not first.dtype.is_floating_point:
        values = first.read()
        if any(not torch.equal(other.read(), values) for other in stored[1:]):
            raise UserError(
                f"A tensor of whole numbers of shape {first.shape} differs between the models. "
                "Mix models whose tables are the same."
            )
        return values
    precision = torch.promote_types(first.dtype, torch.float32)
    # a model that does not count is not read: its infinities would come in
    counting = [(place, weight) for place, weight in zip(stored, weights, strict=True) if weight]
    total = counting[0][0].read().to(precision, copy=True).mul_(counting[0][1])
    for place, weight in counting[1:]:
        total.add_(place.read(), alpha=weight)
    return total.to(first.dtype)


def _copy(source: Path, target: Path) -> None:
    """The files of a model, without weights in other formats, which would stay those of one model."""
    for path in source.iterdir():
        if path.is_file() and path.suffix not in _OTHER_FORMATS:
            shutil.copyfile(path, target / path.name)


def _check_weights(folders: Sequence[Path], weights: Sequence[float]) -> None:
    """Refuse weights that are no mean."""
    if len(folders) < 2 or len(weights) != len(folders):
        raise UserError(
            f"{len(folders)} models and {len(weights)} weights came. Name two or more, each with a weight."
        )
    if not all(map(math.isfinite, weights)) or abs(sum(weights) - 1) > _SUM:
        raise UserError(
            f"The weights {list(weights)} add up to {sum(weights):g}. Use weights with the sum 1."
        )


def _in_scope(stored: Mapping[str, StoredTensor], folder: Path, scope: Scope) -> list[str]:
    """Names of what is mixed, in the order of the files."""
    order = sorted(stored, key=lambda name: (stored[name].path, stored[name].offset))
    if scope == "all":
        return order
    names = [name for name in order if name.startswith(LANGUAGE_MODEL)]
    if not names:
        raise UserError(
            f"{str(folder)!r} has no tensors named {LANGUAGE_MODEL}*, so it is a language model by itself. "
            "Use scope all."
        )
    return names
