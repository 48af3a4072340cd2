"""Official LLaMA-Adapter files -> PEFT adapter folders.

Unusual: PEFT itself says which tensors of which shapes the adapter has, from a base model on the meta device.
The file must supply each of them, and every tensor of the file must be accounted for.

Source: docs/sources/llama-adapter.md#files.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.checkpoints.adapter_base import AdapterBase
from llama_adapter.checkpoints.adapter_layouts import LAYOUTS, PROMPTS, Layout, Pair, pairs
from llama_adapter.checkpoints.adapter_options import adapter_options, cut_prompts, find_prompt_length
from llama_adapter.checkpoints.conditioner import OfficialConditioner
from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.names import OUTSIDE_LAYERS, NamedTensors, base_names
from llama_adapter.checkpoints.reading import CheckpointFile, read_checkpoint
from llama_adapter.checkpoints.report import ConversionReport, check_complete, summary
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.writing import new_folder
from llama_adapter.conditioning.files import CONDITIONER_FILE, write_settings
from llama_adapter.errors import UserError
from llama_adapter.models import AdapterNotes, write_notes
from llama_adapter.multimodal import save_encoder_settings
from llama_adapter.vision import VisionConfig

WEIGHTS_FILE = "adapter_model.safetensors"
"""Where PEFT keeps an adapter's tensors."""

_ADVICE = "Use the base model and the kind that belong to this file."
_PREFIXES = ("llama.", "llma.")
"""What precedes LLaMA's tensors in multimodal files; the second is an early spelling."""

_CONDITIONER = f"the conditioner, in {CONDITIONER_FILE}"
_UNUSED = "the official code has them and uses none of them"
_BASE = "frozen base weights, which --base supplies"
_ENCODER = "the frozen image encoder, which is public"


@dataclass(frozen=True, kw_only=True)
class OfficialAdapter:
    """An official file, its names made plain."""

    layout: Layout
    """What kind of file it is."""
    file: CheckpointFile
    """The file as it was."""
    prefix: str
    """What preceded the names of LLaMA's tensors."""
    tensors: NamedTensors
    """Tensors by name without that prefix, stacked prompts cut."""


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What becomes of every tensor, before anything is written."""

    official: OfficialAdapter
    """The file."""
    adapter: ZeroInitConfig
    """The adapter's options."""
    chosen: list[Pair]
    """The adapter's tensors."""
    report: ConversionReport
    """All tensors by what becomes of them."""


def to_peft(config: ConvertConfig) -> int:
    """Convert an official adapter file into a folder that ``PeftModel.from_pretrained`` opens.

    Returns:
        The exit code.

    Raises:
        UserError: The file is damaged or does not fit the base model.
    """
    base = AdapterBase(config.base)
    plan = plan_import(config, base)
    with new_folder(config.output, config.overwrite) as folder:
        _write(plan, base, folder, _cast_to(config.dtype))
        if config.encoder is not None:
            save_encoder_settings(VisionConfig(kind="imagebind", name_or_path=config.encoder), folder)
    console = Console(soft_wrap=True, highlight=False)
    plan.report.print(console)
    console.print(f"\nWrote {config.output}. Try:", style="bold")
    console.print(f"  llama-adapter generate --base {base.folder} --adapter {config.output}", markup=False)
    return 0


def plan_import(config: ConvertConfig, base: AdapterBase) -> ImportPlan:
    """Read an official file and decide what becomes of each of its tensors.

    Raises:
        UserError: A tensor is missing, has another shape, or is of no known use.
    """
    official = _open(config, base)
    known = pairs(official.layout, base.num_layers)
    options = adapter_options(official.layout, known, official.tensors, _gate_activation(config))
    adapter, shapes = base.adapter_shapes(options)
    chosen = [pair for pair in known if pair.ours in shapes]
    wanted = {pair.official: _official_shape(pair, shapes[pair.ours], adapter, base) for pair in chosen}
    if any(_is_conditioner(name, official.layout) for name in official.tensors):
        wanted |= official_conditioner(official.layout).shapes(official.tensors, base.config.hidden_size)
    check_complete(wanted, official.tensors, config.checkpoint, _ADVICE)
    report = _sort_out(official, known, wanted, base)
    report.notes = _remarks(adapter, official, base)
    return ImportPlan(official=official, adapter=adapter, chosen=chosen, report=report)


def _gate_activation(config: ConvertConfig) -> str:
    """What gates go through: the user's choice for V1, tanh for all others."""
    if config.gate_activation == "identity" and config.kind != "adapter-v1":
        raise UserError(
            f"--gate_activation identity does not fit --kind {config.kind}, whose code always uses tanh. "
            "Leave it out."
        )
    return config.gate_activation or "tanh"


def _open(config: ConvertConfig, base: AdapterBase) -> OfficialAdapter:
    """Read the file, take off the prefix of LLaMA's tensors, and cut the stacked prompts."""
    file = read_checkpoint(config.checkpoint, config.verify)
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in file.tensors)), "")
    plain = {name.removeprefix(prefix): tensor for name, tensor in file.tensors.items()}
    layout = LAYOUTS[config.kind]
    if layout.prompts in plain:
        plain[PROMPTS] = plain.pop(layout.prompts)
    length = find_prompt_length(plain, base.num_layers, config.prompt_length or layout.prompt_length)
    tensors = cut_prompts(plain, length, base.num_layers)
    return OfficialAdapter(layout=layout, file=file, prefix=prefix, tensors=tensors)


def _official_shape(
    pair: Pair, shape: torch.Size, adapter: ZeroInitConfig, base: AdapterBase
) -> tuple[int, ...]:
    """Shape of one of our tensors in the official file."""
    scalar = pair.part == "gate" and adapter.gate == "scalar"
    return tuple(base.to_official(torch.empty(shape, device="meta"), pair.change, scalar).shape)


def official_conditioner(layout: Layout) -> OfficialConditioner:
    """How files of a layout hold their conditioner."""
    module, _, name = layout.conditioner_kind.partition(":")
    found: OfficialConditioner = getattr(importlib.import_module(module), name)
    return found


def _is_conditioner(name: str, layout: Layout) -> bool:
    """Whether a tensor belongs to the conditioner."""
    return bool(layout.conditioner) and name.startswith(layout.conditioner)


def _sort_out(
    official: OfficialAdapter, known: list[Pair], wanted: Mapping[str, Any], base: AdapterBase
) -> ConversionReport:
    """Put every tensor of the file into a group.

    Raises:
        UserError: Some belong to none.
    """
    unused = {pair.official for pair in known} | {"rope.freqs"}
    frozen = base_names(base.num_layers)
    report = ConversionReport()
    unknown: list[str] = []
    groups: list[tuple[Callable[[str], bool], list[str]]] = [
        (
            lambda name: name in wanted and _is_conditioner(name, official.layout),
            report.set_aside.setdefault(_CONDITIONER, []),
        ),
        (lambda name: name in wanted, report.used),
        (lambda name: name in unused, report.set_aside.setdefault(_UNUSED, [])),
        (lambda name: name in frozen, report.ignored.setdefault(_BASE, [])),
        (lambda name: name.startswith(("clip.", "image_bind.")), report.ignored.setdefault(_ENCODER, [])),
        (lambda name: True, unknown),
    ]
    for name in official.tensors:
        next(names for belongs, names in groups if belongs(name)).append(name)
    if unknown:
        others = {kind: layout for kind, layout in LAYOUTS.items() if layout is not official.layout}
        fitting = [kind for kind, layout in others.items() if _explains(layout, unknown, base)]
        hint = f"Is it of `--kind {fitting[0]}`?" if fitting else _ADVICE
        raise UserError(
            f"{str(official.file.path)!r} holds {len(unknown)} tensors that files of this kind do not have: "
            f"{summary(unknown)}. {hint}"
        )
    report.set_aside = {reason: names for reason, names in report.set_aside.items() if names}
    report.ignored = {reason: names for reason, names in report.ignored.items() if names}
    return report


def _explains(layout: Layout, names: list[str], base: AdapterBase) -> bool:
    """Whether a kind of file may hold all these tensors."""
    known = {pair.official for pair in pairs(layout, base.num_layers)}
    return all(name in known or _is_conditioner(name, layout) for name in names)


def _remarks(adapter: ZeroInitConfig, official: OfficialAdapter, base: AdapterBase) -> list[str]:
    """What was read off the file, and what looks wrong."""
    remarks = []
    if adapter.prompt_length:
        remarks.append(
            f"{adapter.prompt_length} prompts in the top-most {adapter.prompt_layers} of {base.num_layers} "
            f"layers, one gate per {'layer' if adapter.gate == 'scalar' else 'head'}, "
            f"gate activation {adapter.gate_activation}."
        )
    if any(_is_conditioner(name, official.layout) for name in official.tensors):
        remarks += official_conditioner(official.layout).remarks(official.tensors)
    beside = sorted(str(name) for name in official.file.beside if name != "config")
    if beside:
        remarks.append(f"Left out, beside the tensors: {', '.join(beside)}.")
    embeddings = official.tensors.get(f"{next(iter(OUTSIDE_LAYERS))}.weight")
    ours = base.embeddings()
    if embeddings is not None and ours is not None and not _alike(embeddings, ours):
        remarks.append("Careful: the file's own token embeddings differ from the base model's.")
    return remarks


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors (V, H) agree up to half precision."""
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=1e-2, atol=1e-3)


def _cast_to(dtype: str) -> Callable[[Tensor], Tensor]:
    """What brings tensors of any shape to the wanted precision; ``auto`` leaves each as it is."""
    wanted = None if dtype == "auto" else getattr(torch, dtype)
    return lambda tensor: tensor.to(wanted or tensor.dtype).contiguous()


def _write(plan: ImportPlan, base: AdapterBase, folder: Path, cast: Callable[[Tensor], Tensor]) -> None:
    """Fill the adapter's folder; ``cast`` keeps shapes."""
    tensors, report = plan.official.tensors, plan.report
    plan.adapter.save_pretrained(folder)
    ours = {pair.ours: cast(base.to_ours(tensors[pair.official], pair.change)) for pair in plan.chosen}
    save_file(ours, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    visual = {name: cast(tensors[name]) for name in report.set_aside.get(_CONDITIONER, [])}
    if visual:
        conditioner = official_conditioner(plan.official.layout)
        ours_too = {conditioner.ours(name): tensor for name, tensor in visual.items()}
        save_file(ours_too, folder / CONDITIONER_FILE, metadata={"format": "pt"})
        if (settings := conditioner.settings(tensors)) is not None:
            write_settings(folder, {"conditioner": asdict(settings)})
    unused = {}
    for name in report.set_aside.get(_UNUSED, []):
        full = plan.official.prefix + name
        unused[full if full in plan.official.file.tensors else name] = tensors[name].contiguous()
    Sidecar(layout=_layout_facts(plan), tensors=unused).write(folder)
    notes = AdapterNotes(template=plan.official.layout.template, base=str(base.folder))
    write_notes(folder, notes)


def _layout_facts(plan: ImportPlan) -> dict[str, Any]:
    """What the way back needs and our format has no place for."""
    file = plan.official.file
    options = file.beside.get("config")
    return {
        "container": file.container,
        "prefix": plan.official.prefix,
        "config": json.loads(json.dumps(options)) if isinstance(options, dict) else None,
        "left_out": {reason: summary(names) for reason, names in plan.report.ignored.items()},
    }
