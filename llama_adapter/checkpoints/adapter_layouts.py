"""The official adapter files as data: names of their tensors, and what happens to each on the way to ours.

A layout expands to a list of ``Pair``, one per tensor that a file may hold; both directions read the same
list, so they cannot drift apart. A new layout is a new entry of ``LAYOUTS``.

One official tensor is no pair: ``adapter_query.weight``, or ``prefix_query.weight`` in ImageBind-LLM, stacks
the prompts of all adapted layers. It is cut into rows named ``adapter_query.weight[layer]`` before anything
else looks at it, and joined at the end of the way back.

Source: docs/sources/llama-adapter.md#files.

Dimensions: P prompt length; H hidden size; L adapted layers; Q query heads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llama_adapter.checkpoints.names import HF_LAYER, LINEARS, META_LAYER, NORMS, QUERY_OR_KEY

Change = Literal["same", "query_rows", "key_rows", "gate"]
"""``query_rows`` and ``key_rows``: reordered for rotary embedding; ``gate``: (1, Q, 1, 1) <-> (Q, 1, 1)."""

PROMPTS = "adapter_query.weight"
"""How the stacked prompts are called here, whatever a file calls them."""

PEFT_ROOT = "base_model.model."
"""Where PEFT puts the base model."""

PROMPT_BRANCH = "self_attn.prompt_attention.zero_init"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One tensor under both names."""

    official: str
    """Name in the official file, without the prefix of LLaMA's tensors."""
    ours: str
    """Name in adapter_model.safetensors."""
    part: str
    """What it belongs to: prompt, gate, new_gate, norm, or the kind of a linear delta."""
    module: str = ""
    """The linear map or norm it changes, as transformers names it; empty for prompts and gates."""
    change: Change = "same"
    """What happens on the way; undone on the way back."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One family of official adapter files."""

    llama_prefix: str
    """What precedes the names of LLaMA's own tensors."""
    container: str
    """Key under which the official code looks for the tensors; empty for a flat file."""
    linear_parts: dict[str, tuple[str, ...]]
    """Kind of linear delta -> official names of its tensors, in the order of ``_OUR_TENSORS``."""
    norms: bool
    """Whether norms are trained."""
    conditioner: tuple[str, ...] = ()
    """Beginnings of the names of the conditioner's tensors."""
    conditioner_kind: str = "llama_adapter.checkpoints.conditioner:VISUAL_QUERIES"
    """`module:name` of the ``OfficialConditioner``."""
    prompts: str = "adapter_query.weight"
    """Name of the stacked prompts."""
    prompt_length: int | None = None
    """Prompts per layer, where all files have as many."""
    options: bool = False
    """Whether the official code writes its options beside the tensors."""
    template: str | None = None
    """Prompt template that the published files were trained with."""


_OUR_TENSORS = {
    "bias": ("value",),
    "input_scale": ("value",),
    "lora": ("down", "up"),
}
"""Kind of linear delta -> our names of its tensors."""

_ON_OUTPUT_ROWS = {("bias", "value"), ("lora", "up")}
"""Tensors with one row per output row of the map, which rotary embedding reorders."""

LAYOUTS = {
    "adapter-v1": Layout(llama_prefix="", container="", linear_parts={}, norms=False, template="alpaca"),
    "adapter-v2": Layout(
        llama_prefix="llama.",
        container="model",
        linear_parts={
            "bias": ("{block}.{map}.bias",),
            "lora": ("{block}.lora_{map}_l1.weight", "{block}.lora_{map}_l2.weight"),
        },
        norms=True,
        conditioner=("clip_proj.", "clip_proj_norm.", "visual_"),
        options=True,
        template="alpaca",
    ),
    "imagebind-llm": Layout(
        llama_prefix="llama.",
        container="model",
        linear_parts={
            "bias": ("{block}.{map}.bias",),
            "lora": ("{block}.lora_{map}_l1.weight", "{block}.lora_{map}_l2.weight"),
        },
        norms=True,
        conditioner=("image_bind_",),
        conditioner_kind="imagebind_llm.bind_files:BIND_NETWORK",
        prompts="prefix_query.weight",
        prompt_length=1,
        template="alpaca",
    ),
    "adapter-v2-chat": Layout(
        llama_prefix="",
        container="model",
        linear_parts={"input_scale": ("{block}.{map}_scale",), "bias": ("{block}.{map}_bias",)},
        norms=True,
    ),
}
"""Value of ``--kind`` -> layout. The order of the linear parts is the order in which they apply."""


def pairs(layout: Layout, num_layers: int) -> list[Pair]:
    """Every tensor that a file of this layout may hold for a model of so many layers."""
    found = [pair for layer in range(num_layers) for pair in _layer_pairs(layout, layer)]
    if layout.norms:
        ours = f"{PEFT_ROOT}model.norm.zero_init_norm.weight"
        found.append(Pair(official="norm.weight", ours=ours, part="norm", module="norm"))
    return found


def prompt_rows(layer: int) -> str:
    """Name of one layer's share of ``adapter_query.weight``."""
    return f"{PROMPTS}[{layer}]"


def _layer_pairs(layout: Layout, layer: int) -> Iterator[Pair]:
    """The tensors of one layer."""
    theirs, ours = META_LAYER.format(layer=layer), PEFT_ROOT + HF_LAYER.format(layer=layer)
    branch = f"{ours}{PROMPT_BRANCH}"
    yield Pair(official=prompt_rows(layer), ours=f"{branch}_prompt.value", part="prompt")
    for gate in ("gate", "new_gate"):
        official = f"{theirs}attention.{gate}"
        yield Pair(official=official, ours=f"{branch}_{gate}.value", part=gate, change="gate")
    for meta, hf in LINEARS.items():
        for kind, names in layout.linear_parts.items():
            for name, tensor in zip(names, _OUR_TENSORS[kind], strict=True):
                block, _, short = meta.partition(".")
                yield Pair(
                    official=theirs + name.format(block=block, map=short),
                    ours=f"{ours}{hf}.zero_init_{kind}.{tensor}",
                    part=kind,
                    module=hf.rpartition(".")[2],
                    change=_change(meta, kind, tensor),
                )
    for meta, hf in NORMS.items() if layout.norms else ():
        name = f"{ours}{hf}.zero_init_norm.weight"
        yield Pair(official=f"{theirs}{meta}.weight", ours=name, part="norm", module=hf)


def _change(linear: str, kind: str, tensor: str) -> Change:
    """Whether rotary embedding reorders the rows of a linear delta's tensor."""
    if linear not in QUERY_OR_KEY or (kind, tensor) not in _ON_OUTPUT_ROWS:
        return "same"
    return "query_rows" if linear == QUERY_OR_KEY[0] else "key_rows"
