"""Official files of a whole model -> a Hugging Face folder.

Unusual: weights pass through file by file. The official files are mapped into memory anew for every output
file, so that pages that were read are given back.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import Family
from llama_adapter.checkpoints.model_files import OfficialModel, open_model
from llama_adapter.checkpoints.model_writer import write_model
from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.checkpoints.reading import read_checkpoint
from llama_adapter.checkpoints.report import ConversionReport
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.writing import new_folder

_SMALLEST_SHARD = 100_000_000


def import_model(config: ConvertConfig, family: Family) -> int:
    """Convert a folder of official files into one that ``from_pretrained`` reads.

    Returns:
        The exit code.

    Raises:
        UserError: A file is missing or damaged, or holds other tensors than its settings say.
    """
    source = Path(config.checkpoint)
    official = open_model(source, family, config.verify)
    model_config = family.config(official)
    stored = family.stored(model_config, official.pieces)
    axes = official.check(stored)
    places = {name: (tensor, index) for tensor in stored for index, name in enumerate(tensor.weights)}
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    plan = {
        name: torch.empty(
            tensor.weights[name], dtype=dtype or official.pieces[tensor.name].dtype, device="meta"
        )
        for name, (tensor, _) in places.items()
    }
    model_config.dtype = next(iter(plan.values())).dtype
    report = _report(official, model_config)
    with new_folder(config.output, config.overwrite) as folder:

        def make(wanted: Sequence[str]) -> NamedTensors:
            """The tensors of one output file, from files opened for them alone."""
            files = [read_checkpoint(path, verify=False) for path in official.paths]
            return {
                name: official.weight(tensor, index, axes[tensor.name], files).to(plan[name].dtype)
                for name in wanted
                for tensor, index in (places[name],)
            }

        write_model(folder, plan, make, _shard_size(official, config.max_shard_gb))
        _write_config(folder, model_config, family.architecture)
        report.notes.append(family.beside(source, folder, model_config))
        _sidecar(official, axes).write(folder)
    console = Console(soft_wrap=True, highlight=False)
    report.print(console)
    console.print(f"\nWrote {config.output}. Try:", style="bold")
    console.print("  " + family.hint.format(output=config.output), markup=False)
    return 0


def _shard_size(official: OfficialModel, wanted_gb: float) -> int:
    """Bytes of an output file: as much is held in memory, and as much again of the mapped input."""
    largest = max(path.stat().st_size for path in official.paths)
    return min(int(wanted_gb * 1e9), max(largest // 2, _SMALLEST_SHARD))


def _report(official: OfficialModel, config: Any) -> ConversionReport:
    """What becomes of each tensor."""
    unused = official.family.unused
    report = ConversionReport(used=[name for name in official.pieces if unused(name) is None])
    if official.beside:
        report.ignored["not the model's weights"] = official.beside
    for name in official.pieces:
        if why := unused(name):
            report.set_aside.setdefault(why, []).append(name)
    config = config.get_text_config()
    experts = getattr(config, "num_local_experts", 0)
    report.notes.append(
        f"{len(official.paths)} file(s); {config.num_hidden_layers} layers, "
        f"hidden size {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{config.num_key_value_heads} key/value heads, "
        f"context {config.max_position_embeddings}, {f'{experts} experts, ' if experts else ''}"
        f"rotary {config.rope_parameters}."
    )
    return report


def _write_config(folder: Path, config: Any, architecture: str) -> None:
    """Write config.json and generation_config.json."""
    config.architectures = [architecture]
    config.save_pretrained(folder)
    text = config.get_text_config()
    tokens = {"bos_token_id": text.bos_token_id, "eos_token_id": text.eos_token_id}
    if text.pad_token_id is not None:
        tokens["pad_token_id"] = text.pad_token_id
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=1) + "\n", encoding="utf-8")


def _sidecar(official: OfficialModel, axes: Mapping[str, int | None]) -> Sidecar:
    """What the way back needs."""
    every = list(range(len(official.paths)))
    return Sidecar(
        layout={
            "files": [path.name for path in official.paths],
            "container": official.container,
            "prefix": official.prefix,
            "settings": official.settings,
            "names": list(official.pieces),
            "axes": {name: axis for name, axis in axes.items() if axis is not None},
            "holders": {name: held for name, held in official.holders.items() if held != every},
        },
        tensors={
            name: piece.clone()
            for name, piece in official.pieces.items()
            if official.family.unused(name) is not None
        },
    )
