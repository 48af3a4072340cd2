"""The visual part of official V2 files: which tensors it has, of which shapes.

It turns image features into what is added to the prompts. Its tensors keep their official names; until the
image-conditioned model loads them, a conversion keeps them whole beside the adapter.

Dimensions: C width of the image features; W width of the visual part; M its MLP's width; H hidden size of the
LLaMA; P prompt length.
"""

import re

from llama_adapter.checkpoints.names import NamedTensors

CONDITIONER_FILE = "conditioner.safetensors"

_BLOCK = re.compile(r"^visual_blocks\.(\d+)\.")


def conditioner_shapes(tensors: NamedTensors, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the visual part.

    Args:
        tensors: A file's tensors; depth and widths are read off a few of them.
        hidden_size: Hidden size of the LLaMA.
    """
    blocks = [int(found[1]) for name in tensors if (found := _BLOCK.match(name))]
    queries, width = _shape(tensors, "visual_query.weight", (0, 0))
    features = _shape(tensors, "clip_proj.weight", (0, 0))[1]
    (inner,) = _shape(tensors, "visual_blocks.0.mlp.fc1.bias", (0,))
    shapes: dict[str, tuple[int, ...]] = {
        "clip_proj.weight": (width, features),
        "clip_proj.bias": (width,),
        "visual_query.weight": (queries, width),
        "visual_proj.weight": (hidden_size, width),
        "visual_proj.bias": (hidden_size,),
    }
    shapes |= _norm("clip_proj_norm", width) | _norm("visual_proj_norm", hidden_size)
    for block in range(max(blocks, default=-1) + 1):
        shapes |= _block(f"visual_blocks.{block}.", width, inner)
    return shapes


def _block(prefix: str, width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one transformer block."""
    shapes: dict[str, tuple[int, ...]] = _norm(f"{prefix}norm1", width) | _norm(f"{prefix}norm2", width)
    linears = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (inner, width),
        "mlp.fc2": (width, inner),
    }
    for name, (rows, columns) in linears.items():
        shapes |= {f"{prefix}{name}.weight": (rows, columns), f"{prefix}{name}.bias": (rows,)}
    return shapes


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one LayerNorm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _shape(tensors: NamedTensors, name: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """A tensor's shape; ``otherwise`` where it is missing or of another rank, and so refused later."""
    found = tuple(tensors[name].shape) if name in tensors else otherwise
    return found if len(found) == len(otherwise) else otherwise
