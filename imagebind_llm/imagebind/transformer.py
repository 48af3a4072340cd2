"""The pre-norm transformer that all towers share.

Unusual: attention may have one learned key and value beside those of the tokens, which do not pass the
projection; and a position may be added to the input of every block (point clouds) and not only of the first.

Dimensions: B inputs, L tokens, D width, M heads, K head width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from imagebind_llm.imagebind.config import TowerConfig


class Attention(nn.Module):
    """Multi-head attention through torch's fused kernel."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.causal = config.num_heads, config.causal
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.out = nn.Linear(width, width)
        if config.extra_key_value:
            self.extra_key = nn.Parameter(torch.zeros(width))
            self.extra_value = nn.Parameter(torch.zeros(width))
        self.has_extra = config.extra_key_value

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Attention of the tokens to each other."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if self.has_extra:
            key, value = self._append(key, self.extra_key), self._append(value, self.extra_value)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        mixed: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return mixed

    def _append(
        self, rows: Float[Tensor, "B M L K"], extra: Float[Tensor, " D"]
    ) -> Float[Tensor, "B M L+1 K"]:
        """Keys or values with the learned one behind them."""
        row = extra.view(1, self.num_heads, 1, -1).expand(len(rows), -1, -1, -1)
        return torch.cat([rows, row], dim=2)


class Mlp(nn.Module):
    """Two linear maps with the exact GELU between them."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        inner = config.mlp_ratio * config.hidden_size
        self.up = nn.Linear(config.hidden_size, inner)
        self.down = nn.Linear(inner, config.hidden_size)

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Each token by itself."""
        mapped: Tensor = self.down(functional.gelu(self.up(tokens)))
        return mapped


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to its input."""

    def __init__(self, config: TowerConfig, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """One block."""
        tokens = tokens + self._dropped(self.attention(self.attention_norm(tokens)))
        return tokens + self._dropped(self.mlp(self.mlp_norm(tokens)))

    def _dropped(self, branch: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The branch, in training left out for some inputs and larger for the others."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


class Transformer(nn.Module):
    """All blocks of a tower. There is no norm at the end."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pre_norm else None
        last = max(config.num_layers - 1, 1)
        self.layers = nn.ModuleList(
            Block(config, config.drop_path * layer / last) for layer in range(config.num_layers)
        )

    def forward(
        self, tokens: Float[Tensor, "B L D"], position: Float[Tensor, "B L D"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """All blocks.

        Args:
            tokens: what enters.
            position: is added to the input of every block.
        """
        tokens = tokens if self.norm is None else self.norm(tokens)
        for layer in self.layers:
            tokens = layer(tokens if position is None else tokens + position)
        return tokens
