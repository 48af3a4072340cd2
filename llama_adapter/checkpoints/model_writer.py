"""Writes a Hugging Face model file by file, each tensor made when its file is written.

Memory is bounded by one output file plus what ``make`` touches.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub.serialization import StateDictSplit, split_state_dict_into_shards_factory
from rich.progress import track
from safetensors.torch import save_file

from llama_adapter.checkpoints.names import NamedTensors

_PATTERN = "model{suffix}.safetensors"


def write_model(
    folder: Path,
    plan: Mapping[str, torch.Tensor],
    make: Callable[[Sequence[str]], NamedTensors],
    max_shard_size: int,
) -> None:
    """Write the weights of a model, with the index that transformers reads.

    Args:
        folder: Where the files go.
        plan: Name -> a tensor of its shape and type on the meta device.
        make: Makes the tensors of one file from their names.
        max_shard_size: Largest file, in bytes.
    """
    split = split_state_dict_into_shards_factory(
        dict(plan),
        get_storage_size=lambda tensor: tensor.numel() * tensor.element_size(),
        filename_pattern=_PATTERN,
        max_shard_size=max_shard_size,
    )
    files = track(split.filename_to_tensors.items(), "writing", total=len(split.filename_to_tensors))
    for filename, names in files:
        save_file(make(names), folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        _write_index(folder, split)


def _write_index(folder: Path, split: StateDictSplit) -> None:
    """Write which file holds which tensor."""
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
