"""What an official adapter file says about itself: prompt length, adapted layers, parts and their sizes.

The files carry no such options, so they are read off names and shapes. The one thing that these leave open is
how V1's stacked prompts divide into layers; the gates then decide, or the user.

Dimensions: P prompt length; H hidden size; N rows of the stacked prompts; Q query heads.
"""

from typing import Any

from torch import Tensor

from llama_adapter.checkpoints.adapter_layouts import PROMPTS, Layout, Pair, prompt_rows
from llama_adapter.checkpoints.names import LINEARS, META_LAYER, NamedTensors
from llama_adapter.errors import UserError

PUBLISHED_PROMPT_LENGTH = 10
_VISUAL_QUERIES = "visual_query.weight"


def find_prompt_length(tensors: NamedTensors, num_layers: int, wanted: int | None) -> int:
    """Prompts per layer; 0 where the file has none.

    Args:
        tensors: The file's tensors.
        num_layers: Layers of the base model.
        wanted: The user's choice, or None.

    Raises:
        UserError: The choice does not divide the stacked prompts, or several lengths fit.
    """
    if PROMPTS not in tensors:
        return 0
    rows = tensors[PROMPTS].shape[0]
    fitting = [length for length in range(1, rows + 1) if _fits(tensors, rows, length, num_layers)]
    if wanted is None and _VISUAL_QUERIES in tensors:  # as many visual queries as prompts, by construction
        wanted = tensors[_VISUAL_QUERIES].shape[0]
    if wanted is None:
        wanted = _likely(tensors, rows, fitting, num_layers)
    if wanted not in fitting:
        raise UserError(
            f"{PROMPTS} with its {rows} rows and the file's gates do not fit {wanted or 'a known number of'} "
            f"prompts per layer in a model of {num_layers} layers. Set `--prompt_length` to one of {fitting}."
        )
    return wanted


def _likely(tensors: NamedTensors, rows: int, fitting: list[int], num_layers: int) -> int | None:
    """The one length by which all gates below the adapted layers are zero, else the published one."""
    gates = _gates(tensors, num_layers)
    opened = min(
        (layer for layer, gate in enumerate(gates) if gate is not None and gate.any()), default=num_layers
    )
    plausible = [length for length in fitting if num_layers - rows // length <= opened]
    if len(plausible) == 1 or len(fitting) == 1:
        return (plausible or fitting)[0]
    return PUBLISHED_PROMPT_LENGTH if PUBLISHED_PROMPT_LENGTH in fitting else None


def _fits(tensors: NamedTensors, rows: int, length: int, num_layers: int) -> bool:
    """Whether so many prompts per layer fill just the top-most layers, each of which has a gate."""
    adapted = rows // length
    if rows % length or adapted > num_layers:
        return False
    return all(gate is not None for gate in _gates(tensors, num_layers)[num_layers - adapted :])


def _gates(tensors: NamedTensors, num_layers: int) -> list[Tensor | None]:
    """The gate of each layer, shape (1, Q, 1, 1) or (1,); None where the file has none."""
    return [tensors.get(META_LAYER.format(layer=layer) + "attention.gate") for layer in range(num_layers)]


def cut_prompts(tensors: NamedTensors, prompt_length: int, num_layers: int) -> NamedTensors:
    """The tensors with the stacked prompts (N, H) cut into (P, H) for each adapted, top-most layer."""
    cut = {name: tensor for name, tensor in tensors.items() if name != PROMPTS}
    if prompt_length:
        pieces = tensors[PROMPTS].split(prompt_length)
        first = num_layers - len(pieces)
        cut |= {prompt_rows(first + position): piece for position, piece in enumerate(pieces)}
    return cut


def adapter_options(
    layout: Layout, pairs: list[Pair], tensors: NamedTensors, gate_activation: str
) -> dict[str, Any]:
    """Options of the ``ZeroInitConfig`` that has a place for just these tensors.

    Args:
        layout: The kind of file.
        pairs: All tensors the layout may hold.
        tensors: The file's tensors, prompts cut.
        gate_activation: tanh or identity.
    """
    present = [pair for pair in pairs if pair.official in tensors]
    prompts = [pair for pair in present if pair.part == "prompt"]
    options: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "prompt_length": tensors[prompts[0].official].shape[0] if prompts else 0,
        "deltas": [_delta(kind, present, tensors) for kind in layout.linear_parts if _maps(kind, present)],
        "norms": _norms(present),
    }
    if prompts:
        adapted = tensors[next(pair.official for pair in present if pair.part == "gate")]
        options |= {
            "prompt_layers": len(prompts),
            "gate": "scalar" if adapted.dim() == 1 else "head",
            "gate_activation": gate_activation,
            "new_gate": any(pair.part == "new_gate" for pair in present),
        }
    return options


def _maps(kind: str, present: list[Pair]) -> set[str]:
    """Names of the linear maps with a delta of this kind."""
    return {pair.module for pair in present if pair.part == kind}


def _delta(kind: str, present: list[Pair], tensors: NamedTensors) -> dict[str, Any]:
    """One linear delta's options."""
    without = {name.rpartition(".")[2] for name in LINEARS.values()} - _maps(kind, present)
    options: dict[str, Any] = {"kind": kind, "exclude": sorted(without)}
    if kind == "lora":
        down = next(pair.official for pair in present if pair.part == kind)
        options["rank"] = tensors[down].shape[0]
    return options


def _norms(present: list[Pair]) -> dict[str, Any] | None:
    """The tuned norms' options; None where the file tunes none."""
    found = {pair.module for pair in present if pair.part == "norm"}
    if not found:
        return None
    inside = sorted(found - {"norm"})
    return {"targets": inside if len(inside) == 1 else [], "final_norm": "norm" in found}
