"""Random files of every official adapter layout, written by hand apart from the converter.

Dimensions: L layers; Q query heads; G key/value heads; D head size.
"""

from dataclasses import dataclass

import torch
from hypothesis import strategies
from transformers import LlamaConfig

from tests.adapters.official import LINEARS

WIDTH, FEATURES, INNER = 6, 5, 8
"""Sizes of the visual part."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the tensors of one file."""

    kind: str
    layers: int
    heads: int
    groups: int
    adapted: int
    length: int
    scalar_gate: bool = False
    all_gates: bool = True
    new_gate: bool = False
    maps: tuple[str, ...] = ()
    lora_rank: int = 0
    norms: bool = False
    final_norm: bool = False
    visual_depth: int = 0
    dtype: torch.dtype = torch.float32

    @property
    def hidden(self):
        return 4 * self.heads

    def config(self):
        return LlamaConfig(
            vocab_size=20,
            hidden_size=self.hidden,
            intermediate_size=12,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
        )

    def widths(self, linear):
        """Input and output width of a linear map."""
        keys = 4 * self.groups
        outs = {"attention.wk": keys, "attention.wv": keys, "feed_forward.w1": 12, "feed_forward.w3": 12}
        return 12 if linear == "feed_forward.w2" else self.hidden, outs.get(linear, self.hidden)


@strategies.composite
def shapes(draw, kind):
    """Any file of a kind."""
    layers, groups = draw(strategies.integers(1, 3)), draw(strategies.integers(1, 2))
    visual, chat = kind == "adapter-v2", kind == "adapter-v2-chat"
    prompts = kind == "adapter-v1" or draw(strategies.booleans())
    return Shape(
        kind=kind,
        layers=layers,
        heads=groups * draw(strategies.integers(1, 2)),
        groups=groups,
        adapted=draw(strategies.integers(1, layers)) if prompts else 0,
        length=draw(strategies.integers(1, 4)),
        scalar_gate=draw(strategies.booleans()),
        all_gates=draw(strategies.booleans()),
        new_gate=visual and draw(strategies.booleans()),
        maps=tuple(sorted(draw(strategies.sets(strategies.sampled_from(sorted(LINEARS)), min_size=chat))))
        if kind != "adapter-v1"
        else (),
        lora_rank=draw(strategies.integers(0, 2)) if visual else 0,
        norms=(norms := kind != "adapter-v1" and (chat or not prompts or draw(strategies.booleans()))),
        final_norm=norms and draw(strategies.booleans()),
        visual_depth=draw(strategies.integers(1, 2)) if visual else 0,
        dtype=draw(strategies.sampled_from([torch.float32, torch.float16, torch.bfloat16])),
    )


def tensors(shape):
    """The file's tensors, without LLaMA's prefix."""
    found = dict(_prompts(shape)) if shape.adapted else {}
    for layer in range(shape.layers):
        for linear in shape.maps:
            found |= _deltas(shape, f"layers.{layer}.", linear)
        for norm in ("attention_norm", "ffn_norm") if shape.norms else ():
            found[f"layers.{layer}.{norm}.weight"] = torch.randn(shape.hidden)
    if shape.final_norm:
        found["norm.weight"] = torch.randn(shape.hidden)
    found |= _visual(shape) if shape.visual_depth else {}
    return {name: tensor.to(shape.dtype) for name, tensor in found.items()}


def _prompts(shape):
    yield "adapter_query.weight", torch.randn(shape.adapted * shape.length, shape.hidden)
    first = shape.layers - shape.adapted
    for layer in range(0 if shape.all_gates else first, shape.layers):
        gate = torch.randn(1) if shape.scalar_gate else torch.randn(1, shape.heads, 1, 1)
        yield f"layers.{layer}.attention.gate", gate
        if shape.new_gate:
            yield f"layers.{layer}.attention.new_gate", torch.randn(1, 1, 1, 1)


def _deltas(shape, layer, linear):
    inside, outside = shape.widths(linear)
    block, short = linear.split(".")
    if shape.kind == "adapter-v2-chat":
        return {
            f"{layer}{linear}_scale": torch.randn(inside),
            f"{layer}{linear}_bias": torch.randn(outside),
        }
    found = {f"{layer}{linear}.bias": torch.randn(outside)}
    if shape.lora_rank:
        found[f"{layer}{block}.lora_{short}_l1.weight"] = torch.randn(shape.lora_rank, inside)
        found[f"{layer}{block}.lora_{short}_l2.weight"] = torch.randn(outside, shape.lora_rank)
    return found


def _visual(shape):
    linears = {"clip_proj": (WIDTH, FEATURES), "visual_proj": (shape.hidden, WIDTH)}
    norms = {"clip_proj_norm": WIDTH, "visual_proj_norm": shape.hidden}
    for depth in range(shape.visual_depth):
        block = f"visual_blocks.{depth}."
        linears |= {f"{block}attn.qkv": (3 * WIDTH, WIDTH), f"{block}attn.proj": (WIDTH, WIDTH)}
        linears |= {f"{block}mlp.fc1": (INNER, WIDTH), f"{block}mlp.fc2": (WIDTH, INNER)}
        norms |= {f"{block}norm1": WIDTH, f"{block}norm2": WIDTH}
    found = {"visual_query.weight": torch.randn(shape.length, WIDTH)}
    for name, (rows, columns) in linears.items():
        found |= {f"{name}.weight": torch.randn(rows, columns), f"{name}.bias": torch.randn(rows)}
    for name, width in norms.items():
        found |= {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}
    return found
