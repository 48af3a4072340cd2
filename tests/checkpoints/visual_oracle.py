"""The visual part of official V2 models in plain torch (fact sheet 07, section 6, rows 8 and 9)."""

import torch
from torch.nn import functional

HEADS = 4
EPS = 1e-5


def linear(t, name, x):
    return functional.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])


def norm(t, name, x):
    return functional.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], EPS)


def block(t, name, x):
    rows, length, width = x.shape
    qkv = linear(t, f"{name}.attn.qkv", norm(t, f"{name}.norm1", x))
    query, key, value = qkv.view(rows, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + linear(t, f"{name}.attn.proj", mixed)
    inner = functional.gelu(linear(t, f"{name}.mlp.fc1", norm(t, f"{name}.norm2", x)))
    return x + linear(t, f"{name}.mlp.fc2", inner)


def conditions(t, clip_tokens):
    """Image tokens (B, tokens, C) -> what is added to every adapted layer's prompts, (B, P, H)."""
    tokens = norm(t, "clip_proj_norm", linear(t, "clip_proj", clip_tokens))
    queries = t["visual_query.weight"].expand(len(tokens), -1, -1)
    x = torch.cat([queries, tokens], dim=1)
    depth = len({name.split(".")[1] for name in t if name.startswith("visual_blocks.")})
    for index in range(depth):
        x = block(t, f"visual_blocks.{index}", x)
    return norm(t, "visual_proj_norm", linear(t, "visual_proj", x[:, : queries.shape[1]]))
