"""PEFT adapter folders -> official LLaMA-Adapter files: the inverse of ``adapter_import``.

What our format has no place for (key prefix, container, gates of layers without prompts) comes from the
sidecar file that a conversion leaves in the folder. Without it the official code's own habits are used, and
the command says which.

Source: docs/sources/llama-adapter.md#files.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from rich.console import Console

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.checkpoints.adapter_base import AdapterBase
from llama_adapter.checkpoints.adapter_import import WEIGHTS_FILE, official_conditioner, plan_import
from llama_adapter.checkpoints.adapter_layouts import LAYOUTS, PROMPTS, Layout, pairs, prompt_rows
from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.names import META_LAYER, NamedTensors
from llama_adapter.checkpoints.report import summary
from llama_adapter.checkpoints.sidecar import Sidecar
from llama_adapter.checkpoints.way_back import check_way_back, differing
from llama_adapter.checkpoints.writing import new_file
from llama_adapter.conditioning.files import CONDITIONER_FILE
from llama_adapter.errors import UserError
from llama_adapter.file_formats.model_folder import check_adapter_files
from llama_adapter.file_formats.safetensors_file import read_tensors
from llama_adapter.models import check_adapter, read_notes


def to_official(config: ConvertConfig) -> int:
    """Write an adapter folder as one file of the official layout.

    Returns:
        The exit code.

    Raises:
        UserError: The adapter has parts that the official code does not know.
    """
    layout, base = LAYOUTS[config.kind], AdapterBase(config.base)
    adapter = _read_options(config)
    sidecar = Sidecar.read(config.checkpoint)
    facts = sidecar.layout if sidecar else _habits(layout, adapter)
    tensors = _join_prompts(_official_tensors(config, adapter, base), base.num_layers)
    tensors = {layout.prompts if name == PROMPTS else name: tensor for name, tensor in tensors.items()}
    plain = {_prefixed(name, facts["prefix"]): tensor for name, tensor in tensors.items()}
    plain |= _conditioner(config, layout) | (sidecar.tensors if sidecar else {})
    if config.dtype != "auto":
        plain = {name: tensor.to(getattr(torch, config.dtype)) for name, tensor in plain.items()}
    content: dict[str, Any] = {facts["container"]: plain} if facts["container"] else dict(plain)
    if facts["config"] is not None:
        content["config"] = facts["config"]
    with new_file(config.output, config.overwrite) as path:
        torch.save(content, path)
        remarks = _check_way_back(replace(config, checkpoint=str(path)), adapter, base, config.checkpoint)
    _say(config, plain, facts, known=sidecar is not None)
    for remark in remarks:
        Console(soft_wrap=True, highlight=False, markup=False).print(remark)
    return 0


def _check_way_back(
    written: ConvertConfig, adapter: ZeroInitConfig, base: AdapterBase, folder: str
) -> list[str]:
    """Read the file as the importer would, and refuse what it has no place for.

    Args:
        written: the settings, with the file as checkpoint.
        adapter: the options that went in.
        base: its base model.
        folder: of the adapter.

    Returns:
        Sentences on what the importer must be told.

    Raises:
        UserError: names what would be read as something else.
    """
    told = replace(written, reverse=False, verify=False, gate_activation=None, prompt_length=None)
    remarks = []
    try:
        read = plan_import(told, base).adapter
        guessed = read.prompt_length
    except UserError:
        guessed = None
    if guessed != adapter.prompt_length:
        told = replace(told, prompt_length=adapter.prompt_length)
        remarks.append(
            f"The file leaves the prompt length open: read it with --prompt_length {adapter.prompt_length}."
        )
    if adapter.gate_activation == "identity":
        told = replace(told, gate_activation="identity")
        remarks.append(
            "The file does not say what gates go through: read it with --gate_activation identity."
        )
    try:
        plan = plan_import(told, base)
    except UserError as error:
        raise UserError(
            f"Files of --kind {written.kind} cannot hold the adapter in {folder!r}: read again, one of it "
            f"gives: {error} Use another kind, or an adapter of that shape."
        ) from error
    found = differing(_passes(adapter), _passes(plan.adapter))
    found |= official_conditioner(plan.official.layout).differences(
        plan.official.tensors, Path(folder), base.num_layers
    )
    check_way_back(found, written.kind)
    trained, assumed = read_notes(folder).template, plan.official.layout.template
    if assumed is not None and trained not in (None, assumed):
        remarks.append(
            f"The adapter was trained with the template {trained}; code for such files asks with {assumed}."
        )
    return remarks


def _passes(adapter: ZeroInitConfig) -> dict[str, Any]:
    """The options that decide a pass and that names and shapes of tensors do not show."""
    kinds = [delta.kind for delta in adapter.linear_deltas]
    return {
        "prompt_length": adapter.prompt_length,
        **(
            {"gate": adapter.gate, "gate_activation": adapter.gate_activation}
            if adapter.prompt_length
            else {}
        ),
        # a scale of the input is the one kind to which it matters what comes before
        "order of deltas": list(dict.fromkeys(kinds if "input_scale" in kinds else sorted(kinds))),
    }


def _read_options(config: ConvertConfig) -> ZeroInitConfig:
    """The adapter's options.

    Raises:
        UserError: It is of another method, or the official code could not reproduce it.
    """
    check_adapter(config.checkpoint)
    check_adapter_files(config.checkpoint)
    adapter = PeftConfig.from_pretrained(config.checkpoint)
    if not isinstance(adapter, ZeroInitConfig):
        raise UserError(
            f"The adapter in {config.checkpoint!r} is of type {adapter.peft_type}. Use a zero-init adapter."
        )
    if adapter.gate_activation == "identity" and config.kind != "adapter-v1":
        raise UserError(
            f"The adapter has gate_activation 'identity', but code for {config.kind} always uses tanh. "
            "Use --kind adapter-v1."
        )
    return adapter


def _official_tensors(config: ConvertConfig, adapter: ZeroInitConfig, base: AdapterBase) -> NamedTensors:
    """The adapter's tensors under official names, prompts still layer by layer."""
    tensors = read_tensors(f"{config.checkpoint}/{WEIGHTS_FILE}")
    known = {pair.ours: pair for pair in pairs(LAYOUTS[config.kind], base.num_layers)}
    misfits = [name for name in tensors if name not in known]
    if misfits:
        raise UserError(
            f"{len(misfits)} tensors have no place in files of --kind {config.kind}: {summary(misfits)}. "
            f"Use the kind that fits, one of {list(LAYOUTS)}, and the adapter's own base model."
        )
    official = {}
    for name, tensor in tensors.items():
        pair = known[name]
        scalar = pair.part == "gate" and adapter.gate == "scalar"
        official[pair.official] = base.to_official(tensor, pair.change, scalar).contiguous()
    return official


def _join_prompts(tensors: NamedTensors, num_layers: int) -> NamedTensors:
    """The tensors with the prompts of all layers, (P, H) each, stacked from the bottom.

    Raises:
        UserError: Other layers than the top-most have prompts.
    """
    adapted = [layer for layer in range(num_layers) if prompt_rows(layer) in tensors]
    if adapted != list(range(num_layers - len(adapted), num_layers)):
        raise UserError(
            f"The layers {adapted} of {num_layers} have prompts, but official code puts them into the "
            "top-most layers. Train with prompt_layers set to a number."
        )
    names = [prompt_rows(layer) for layer in adapted]
    joined = {name: tensor for name, tensor in tensors.items() if name not in names}
    if adapted:
        joined[PROMPTS] = torch.cat([tensors[name] for name in names])
    return joined


def _prefixed(name: str, prefix: str) -> str:
    """A name as the file has it: LLaMA's own tensors get the prefix."""
    return prefix + name if name.startswith(META_LAYER.partition(".")[0]) or name == "norm.weight" else name


def _conditioner(config: ConvertConfig, layout: Layout) -> NamedTensors:
    """The conditioner that lies beside the adapter, for files that have one.

    Raises:
        UserError: It is missing, and official code would run with random weights; or it is another kind's.
    """
    if not layout.conditioner:
        return {}
    path = f"{config.checkpoint}/{CONDITIONER_FILE}"
    if not Path(path).is_file():
        raise UserError(
            f"There is no {path!r}, and official code for --kind {config.kind} always uses a conditioner. "
            "Use an adapter that has one, or --kind adapter-v1."
        )
    tensors = read_tensors(path)
    conditioner = official_conditioner(layout)
    named = {conditioner.official(name): tensor for name, tensor in tensors.items()}
    if foreign := [name for name in named if not name.startswith(layout.conditioner)]:
        raise UserError(
            f"{path!r} has the tensor {foreign[0]!r}, which no file of --kind {config.kind} has. "
            "Use the kind that fits the adapter's conditioner."
        )
    return named


def _habits(layout: Layout, adapter: ZeroInitConfig) -> dict[str, Any]:
    """How the official code writes its files, for an adapter that never was one."""
    options = None
    if layout.options:
        ranks = [delta.rank for delta in adapter.linear_deltas if delta.kind == "lora"]  # type: ignore[attr-defined]
        kinds = [delta.kind for delta in adapter.linear_deltas]
        options = {"w_bias": "bias" in kinds, "w_lora": bool(ranks), "lora_rank": ranks[0] if ranks else 16}
    return {"container": layout.container, "prefix": layout.llama_prefix, "config": options, "left_out": {}}


def _say(config: ConvertConfig, tensors: NamedTensors, facts: dict[str, Any], known: bool) -> None:
    """Print what was written, and what may differ from a file that this adapter came from."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"Wrote {len(tensors)} tensors to {config.output}: {summary(tensors)}.")
    for reason, names in facts["left_out"].items():
        console.print(f"Not in it, though the file that was converted had them: {names} ({reason}).")
    if not known:
        console.print(
            "There is no sidecar file, so the official code's habits were followed: "
            f"tensors {'under ' + repr(facts['container']) if facts['container'] else 'at the top level'}, "
            f"LLaMA's names {'after ' + repr(facts['prefix']) if facts['prefix'] else 'without prefix'}, "
            "no gates for layers without prompts, no rope.freqs, "
            f"scalar gates of shape (1,), others (1, heads, 1, 1), options {facts['config']}."
        )
