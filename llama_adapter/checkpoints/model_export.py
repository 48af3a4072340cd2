"""A Hugging Face folder -> the official files of that family of models.

Files are written one after the other. What one holds is collected in mapped files, so that memory holds the
weights of one official tensor.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import Family
from llama_adapter.checkpoints.model_files import OfficialModel
from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.checkpoints.report import check_complete, summary
from llama_adapter.checkpoints.shards import split
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.spill import spilling
from llama_adapter.checkpoints.stored import Stored
from llama_adapter.checkpoints.way_back import ASIDE, check_way_back, differing
from llama_adapter.checkpoints.writing import new_folder
from llama_adapter.errors import UserError
from llama_adapter.file_formats.model_folder import check_model_files
from llama_adapter.models import BaseModelConfig, load_base_config


@dataclass(frozen=True)
class Weights:
    """The weights of a Hugging Face folder, read when they are asked for."""

    files: Mapping[str, Any]
    """Name -> the open file that holds it."""
    dtype: torch.dtype | None
    """Their type; None keeps it."""

    def shapes(self) -> NamedTensors:
        """Every weight's shape."""
        return {
            name: torch.empty(file.get_slice(name).get_shape(), device="meta")
            for name, file in self.files.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        """One weight."""
        weight = self.files[name].get_tensor(name)
        return weight if self.dtype is None else weight.to(self.dtype)


def export_model(config: ConvertConfig, family: Family) -> int:
    """Write a Hugging Face model as official files.

    Returns:
        The exit code.

    Raises:
        UserError: The model is of another family, or lacks a tensor.
    """
    source = Path(config.checkpoint)
    model_config = load_base_config(BaseModelConfig(name_or_path=config.checkpoint))
    check_model_files(source)
    if model_config.model_type != family.model_type:
        raise UserError(
            f"The model in {config.checkpoint!r} is of type {model_config.model_type!r}. "
            f"Use one of type {family.model_type!r}, or another --kind."
        )
    sidecar = Sidecar.read(source)
    facts = sidecar.layout if sidecar else _habits(family, model_config)
    stored = family.stored(model_config, facts["names"])
    console = Console(soft_wrap=True, highlight=False, markup=False)
    lost = _differing(model_config, family.config(_as_read(family, facts, stored, source)))
    check_way_back(lost, config.kind, console, ASIDE)
    if family.layout and config.official_shards not in (None, len(facts["files"])):
        facts = facts | family.layout(stored, config.official_shards)
    with ExitStack() as stack, new_folder(config.output, config.overwrite) as folder:
        weights = _open(source, stack, config.dtype)
        _check(stored, weights, source)
        for index, name in enumerate(track(facts["files"], "writing")):
            with spilling(folder) as keep:
                share = _share(index, stored, weights, facts, keep)
                share |= {
                    left: tensor
                    for left, tensor in (sidecar.tensors if sidecar else {}).items()
                    if index in facts["holders"].get(left, [index])
                }
                _save({facts["prefix"] + key: tensor for key, tensor in share.items()}, folder / name, facts)
                del share
        for name, content in facts["settings"].items():
            (folder / name).write_text(json.dumps(content) + "\n", encoding="utf-8")
        tokenizer = source / "tokenizer.model"
        if tokenizer.is_file():
            (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    console.print(f"Wrote {len(stored)} tensors in {len(facts['files'])} file(s) to {config.output}.")
    if sidecar is None:
        console.print(
            f"There is no sidecar file, so these were assumed: names like {facts['files'][0]}, tensors "
            f"{'under ' + repr(facts['container']) if facts['container'] else 'at the top level'}, none that "
            f"ours has no place for, and {json.dumps(facts['settings'])}."
        )
    return 0


def _as_read(
    family: Family, facts: Mapping[str, Any], stored: Sequence[Stored], source: Path
) -> OfficialModel:
    """What the importer will find in the files that are to be written."""
    return OfficialModel(
        family=family,
        paths=[source / name for name in facts["files"]],
        settings=facts["settings"],
        container=facts["container"],
        prefix=facts["prefix"],
        holders={tensor.name: [0] for tensor in stored},
        pieces={tensor.name: torch.empty(tensor.shape, device="meta") for tensor in stored},
        beside=[],
    )


def _differing(ours: Any, read: Any) -> dict[str, str]:
    """Settings that the importer would take for others: of the language model, then of the whole."""
    found = differing(ours.get_text_config().to_dict(), read.get_text_config().to_dict())
    return found | differing(*({**config.to_dict(), "text_config": None} for config in (ours, read)))


def _habits(family: Family, config: Any) -> dict[str, Any]:
    """One file, for a model that never was in that format."""
    habits = family.habits
    return {
        "files": [habits.file],
        "container": habits.container,
        "prefix": habits.prefix,
        "settings": family.params(config),
        "names": [],
        "axes": {},
        "holders": {},
    }


def _open(source: Path, stack: ExitStack, dtype: str) -> Weights:
    """Open the weights of a folder."""
    files: dict[str, Any] = {}
    for path in sorted(source.glob("model*.safetensors")):
        file: Any = stack.enter_context(safe_open(path, framework="pt"))
        files |= dict.fromkeys(file.keys(), file)
    return Weights(files, None if dtype == "auto" else getattr(torch, dtype))


def _check(stored: Sequence[Stored], weights: Weights, source: Path) -> None:
    """Refuse a model that lacks weights or has more.

    Raises:
        UserError: Says which.
    """
    wanted = {name: shape for tensor in stored for name, shape in tensor.weights.items()}
    check_complete(
        wanted, weights.shapes(), str(source), "Use a folder that holds a whole model as safetensors."
    )
    unknown = sorted(weights.files.keys() - wanted.keys())
    if unknown:
        raise UserError(
            f"{str(source)!r} holds tensors that the official code does not know: {summary(unknown)}. "
            "Use a plain model; biases and scales of an adapter stay in the adapter."
        )


def _share(
    index: int,
    stored: Sequence[Stored],
    weights: Weights,
    facts: Mapping[str, Any],
    keep: Callable[[Tensor], Tensor],
) -> NamedTensors:
    """What one official file holds, each tensor passed through ``keep``."""
    share: NamedTensors = {}
    for tensor in stored:
        holders = facts["holders"].get(tensor.name, range(len(facts["files"])))
        if index not in holders:
            continue
        place, axis = list(holders).index(index), facts["axes"].get(tensor.name)
        share[tensor.name] = keep(_piece(tensor, weights, axis, len(holders), place))
    return share


def _piece(tensor: Stored, weights: Weights, axis: int | None, count: int, place: int) -> Tensor:
    """One file's share of an official tensor."""
    turned = (tensor.layout.turn_back(weights[name]) for name in tensor.weights)
    parts = [split(weight, axis, count)[place] for weight in turned]
    return tensor.layout.paste(parts).contiguous()


def _save(share: NamedTensors, path: Path, facts: Mapping[str, Any]) -> None:
    """Write one official file."""
    if path.suffix == ".safetensors":
        save_file(share, path, metadata={"format": "pt"})
    else:
        torch.save({facts["container"]: share} if facts["container"] else share, path)
