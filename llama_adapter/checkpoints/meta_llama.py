"""Meta's LLaMA folders (consolidated.NN.pth, params.json, tokenizer.model) <-> Hugging Face folders.

Unusual: weights pass through file by file. The official files are mapped into memory anew for every output
file, so that pages that were read are given back.

Source: fact sheet 07, section 5.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, LlamaConfig

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer
from llama_adapter.checkpoints.meta_params import llama_config, read_params
from llama_adapter.checkpoints.model_writer import write_model
from llama_adapter.checkpoints.names import NamedTensors, base_names
from llama_adapter.checkpoints.reading import CheckpointFile, read_checkpoint
from llama_adapter.checkpoints.report import ConversionReport, check_complete, summary
from llama_adapter.checkpoints.rotary import halves_to_pairs, pairs_to_halves
from llama_adapter.checkpoints.shards import EMBEDDINGS, join, joined_shape, split, split_axis
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.writing import new_folder
from llama_adapter.errors import UserError
from llama_adapter.models import check_base

_OUTPUT = "output.weight"
_FREQUENCIES = "rope.freqs"
_SMALLEST_SHARD = 100_000_000
_MISFIT = "Use a folder whose params.json and files belong together."


@dataclass(frozen=True, kw_only=True)
class MetaLlama:
    """The official files of one model, known by names and shapes."""

    paths: list[Path]
    """consolidated.NN.pth, in order."""
    params: dict[str, Any]
    """Content of params.json."""
    container: str
    """Key under which the files keep their tensors."""
    pieces: NamedTensors
    """Tensors of the first file: shapes and types of every share."""

    def whole_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight joined from all files."""
        piece = self.pieces[name].shape
        return joined_shape(piece, split_axis(name, piece, self.params["dim"]), len(self.paths))

    def config(self) -> LlamaConfig:
        """The model's config.

        Raises:
            UserError: The weights that give its sizes are missing.
        """
        measures = {EMBEDDINGS: (), "layers.0.feed_forward.w1.weight": ()}
        absent = [name for name in measures if name not in self.pieces]
        if absent:
            raise UserError(f"{str(self.paths[0])!r} lacks {absent}. {_MISFIT}")
        vocabulary, inner = (self.whole_shape(name)[0] for name in measures)
        return llama_config(self.params, vocabulary, inner, tied=_OUTPUT not in self.pieces)


def to_hf(config: ConvertConfig) -> int:
    """Convert Meta's folder into one that ``AutoModelForCausalLM`` reads.

    Returns:
        The exit code.

    Raises:
        UserError: A file is missing or damaged, or holds other tensors than its params.json says.
    """
    source = Path(config.checkpoint)
    official = _open(source, config.verify)
    model_config = official.config()
    report = _account(official, model_config)
    names = {hf: meta for meta, hf in base_names(official.params["n_layers"]).items() if meta in report.used}
    dtype = None if config.dtype == "auto" else getattr(torch, config.dtype)
    plan = {
        hf: torch.empty(official.whole_shape(meta), dtype=dtype or official.pieces[meta].dtype, device="meta")
        for hf, meta in names.items()
    }
    model_config.dtype = next(iter(plan.values())).dtype
    with new_folder(config.output, config.overwrite) as folder:

        def make(wanted: Sequence[str]) -> NamedTensors:
            """The tensors of one output file, from files opened for them alone."""
            files = [read_checkpoint(path, verify=False) for path in official.paths]
            return {hf: _whole(names[hf], files, model_config).to(plan[hf].dtype) for hf in wanted}

        write_model(folder, plan, make, _shard_size(official, config.max_shard_gb))
        _write_config(folder, model_config)
        report.notes.append(write_tokenizer(source, folder))
        _sidecar(official, report).write(folder)
    console = Console(soft_wrap=True, highlight=False)
    report.print(console)
    console.print(f"\nWrote {config.output}. Try:", style="bold")
    console.print(
        f'  llama-adapter generate --base {config.output} --prompt "Once upon a time"', markup=False
    )
    return 0


def to_official(config: ConvertConfig) -> int:
    """Write a Hugging Face LLaMA as Meta's files.

    Returns:
        The exit code.

    Raises:
        UserError: The model is no LLaMA, or lacks a tensor.
    """
    check_base(config.checkpoint)
    source = Path(config.checkpoint)
    model_config = AutoConfig.from_pretrained(source)
    if model_config.model_type != "llama":
        raise UserError(
            f"The model in {config.checkpoint!r} is of type {model_config.model_type!r}. Use a LLaMA."
        )
    sidecar = Sidecar.read(source)
    facts = sidecar.layout if sidecar else _habits(model_config)
    weights = _official_weights(source, model_config, config.dtype)
    with new_folder(config.output, config.overwrite) as folder:
        count, axes = facts["files"], facts["axes"]
        for index in range(count):
            share = {name: split(weight, axes.get(name), count)[index] for name, weight in weights.items()}
            if sidecar and facts["frequencies_in"] > index:
                share |= sidecar.tensors
            content = {facts["container"]: share} if facts["container"] else share
            torch.save(content, folder / f"consolidated.{index:02d}.pth")
        (folder / "params.json").write_text(json.dumps(facts["params"]) + "\n", encoding="utf-8")
        tokenizer = source / "tokenizer.model"
        if tokenizer.is_file():
            (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"Wrote {len(weights)} tensors in {count} file(s) to {config.output}.")
    if sidecar is None:
        console.print(
            "There is no sidecar file, so these were assumed: one file, tensors at its top level, "
            f"no rope.freqs, and params.json {json.dumps(facts['params'])}."
        )
    return 0


def _open(source: Path, verify: bool) -> MetaLlama:
    """Look at the official files, all of which must hold the same names.

    Raises:
        UserError: There are none, or they differ.
    """
    paths = sorted(source.glob("consolidated.*.pth"))
    if not paths:
        raise UserError(
            f"There is no consolidated.00.pth in {str(source)!r}. Use the folder with Meta's own files."
        )
    params = read_params(source)
    files = [read_checkpoint(path, verify) for path in paths]
    for file in files[1:]:
        different = files[0].tensors.keys() ^ file.tensors.keys()
        if different - {_FREQUENCIES}:
            raise UserError(
                f"{file.path.name} and {paths[0].name} hold different tensors: {summary(sorted(different))}. "
                "Use files of one model."
            )
    return MetaLlama(paths=paths, params=params, container=files[0].container, pieces=files[0].tensors)


def _shard_size(official: MetaLlama, wanted_gb: float) -> int:
    """Bytes of an output file: as much is held in memory, and as much again of the mapped input."""
    largest = max(path.stat().st_size for path in official.paths)
    return min(int(wanted_gb * 1e9), max(largest // 2, _SMALLEST_SHARD))


def _account(official: MetaLlama, config: Any) -> ConversionReport:
    """Check that the files hold the model's tensors, and say what becomes of each.

    Raises:
        UserError: One is missing, misshapen or of no known use.
    """
    wanted = _shapes(config)
    whole = {
        name: torch.empty(official.whole_shape(name), device="meta")
        for name in official.pieces
        if name in wanted
    }
    check_complete(wanted, whole, str(official.paths[0].parent), _MISFIT)
    unknown = [name for name in official.pieces if name not in wanted and name != _FREQUENCIES]
    if unknown:
        raise UserError(
            f"{str(official.paths[0])!r} holds {len(unknown)} tensors that a LLaMA does not have: "
            f"{summary(unknown)}. Use a dense LLaMA."
        )
    report = ConversionReport(used=list(wanted))
    if _FREQUENCIES in official.pieces:
        report.set_aside["transformers computes them itself"] = [_FREQUENCIES]
    report.notes.append(
        f"{len(official.paths)} file(s); {config.num_hidden_layers} layers, "
        f"hidden size {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{config.num_key_value_heads} key/value heads, rotary {config.rope_parameters}."
    )
    return report


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a model, under Meta's names."""
    hidden, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    keys = config.num_key_value_heads * config.head_dim
    by_module = {
        "tok_embeddings": (vocabulary, hidden),
        "output": (vocabulary, hidden),
        "wk": (keys, hidden),
        "wv": (keys, hidden),
        "wq": (hidden, hidden),
        "wo": (hidden, hidden),
        "w1": (inner, hidden),
        "w3": (inner, hidden),
        "w2": (hidden, inner),
    }
    names = [
        name
        for name in base_names(config.num_hidden_layers)
        if name != _OUTPUT or not config.tie_word_embeddings
    ]
    return {name: by_module.get(name.split(".")[-2], (hidden,)) for name in names}


def _whole(name: str, files: Sequence[CheckpointFile], config: Any) -> Tensor:
    """One weight of ``_shapes``, joined from all files and in transformers' order of rows."""
    pieces = [file.tensors[name] for file in files]
    weight = join(pieces, split_axis(name, pieces[0].shape, config.hidden_size))
    heads = _rotated_heads(name, config)
    return (pairs_to_halves(weight, heads) if heads else weight).contiguous()


def _rotated_heads(name: str, config: Any) -> int:
    """Heads of a query or key map; 0 for all others."""
    heads = {"wq": config.num_attention_heads, "wk": config.num_key_value_heads}
    return heads.get(name.split(".")[-2], 0)


def _write_config(folder: Path, config: Any) -> None:
    """Write config.json and generation_config.json."""
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    tokens = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=1) + "\n", encoding="utf-8")


def _sidecar(official: MetaLlama, report: ConversionReport) -> Sidecar:
    """What the way back needs."""
    hidden = official.params["dim"]
    axes = {name: split_axis(name, official.pieces[name].shape, hidden) for name in report.used}
    frequencies = official.pieces.get(_FREQUENCIES)
    return Sidecar(
        layout={
            "files": len(official.paths),
            "container": official.container,
            "params": official.params,
            "axes": axes,
            "frequencies_in": _files_with(_FREQUENCIES, official.paths) if frequencies is not None else 0,
        },
        tensors={} if frequencies is None else {_FREQUENCIES: frequencies.clone()},
    )


def _files_with(name: str, paths: Sequence[Path]) -> int:
    """How many of the files, from the first, hold a tensor."""
    return sum(name in read_checkpoint(path, verify=False).tensors for path in paths)


def _habits(config: Any) -> dict[str, Any]:
    """One file, as Meta publishes its smallest models, for a model that never was in that format."""
    params = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "use_scaled_rope": config.rope_parameters["rope_type"] == "llama3",
    }
    return {"files": 1, "container": "", "params": params, "axes": {}, "frequencies_in": 0}


def _official_weights(source: Path, config: Any, dtype: str) -> NamedTensors:
    """Every weight under Meta's name, in Meta's order of rows.

    Raises:
        UserError: One is missing, misshapen or unknown.
    """
    names = {hf: meta for meta, hf in base_names(config.num_hidden_layers).items()}
    weights: NamedTensors = {}
    for path in sorted(source.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            weights |= {names.get(name, name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wanted = _shapes(config)
    check_complete(wanted, weights, str(source), "Use a folder that holds a whole LLaMA as safetensors.")
    unknown = sorted(weights.keys() - wanted.keys())
    if unknown:
        raise UserError(
            f"{str(source)!r} holds tensors that Meta's code does not know: {summary(unknown)}. "
            "Use a LLaMA without biases."
        )
    for name in weights:
        heads = _rotated_heads(name, config)
        weights[name] = halves_to_pairs(weights[name], heads) if heads else weights[name]
    if dtype != "auto":
        weights = {name: weight.to(getattr(torch, dtype)) for name, weight in weights.items()}
    return {name: weight.contiguous() for name, weight in weights.items()}
