"""From a modality's values to tokens: patches, windows of samples, or words, each with its position.

Unusual: the position table is stretched (bicubic) to inputs of another size than it was made for, for every
modality with patches and also for oblong ones. The published code does so for square images alone and fails
for all others.

Dimensions: B inputs, C channels, S height, T width, F frames, L tokens (the class token included), D width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from imagebind_llm.imagebind.config import ImuTowerConfig, PatchTowerConfig, TextTowerConfig
from llama_adapter.errors import UserError


class PatchStem(nn.Module):
    """Patches of pictures, of clips of two frames, or of spectrograms."""

    def __init__(self, config: PatchTowerConfig) -> None:
        super().__init__()
        self.config = config
        width, size, stride = config.hidden_size, config.patch_size, config.stride
        if config.frames:
            frames = config.frames
            self.projection: nn.Module = nn.Conv3d(
                config.channels, width, (frames, size, size), (frames, stride, stride), bias=False
            )
        else:
            self.projection = nn.Conv2d(config.channels, width, size, stride, bias=False)
        self.norm = nn.LayerNorm(width) if config.stem_norm else nn.Identity()
        rows, columns = config.grid
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))

    def forward(
        self, values: Float[Tensor, "B C S T"] | Float[Tensor, "B C F S T"]
    ) -> Float[Tensor, "B L D"]:
        """Class token and patches, row by row.

        Raises:
            UserError: the input has other channels or frames, or is smaller than a patch.
        """
        self._check(values)
        if self.config.frames:
            values = values if values.ndim == 5 else values.unsqueeze(2)
            values = values.expand(-1, -1, self.config.frames, -1, -1)
        patches = self.projection(values.to(self.class_token.dtype))
        grid = patches.shape[-2:]
        tokens = self.norm(patches.flatten(2).transpose(1, 2))
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self._positions(grid[0], grid[1])

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 L D"]:
        """The position table for a grid of patches."""
        if (rows, columns) == self.config.grid:
            return self.position
        table = self.position[:, 1:].transpose(1, 2).unflatten(2, self.config.grid)
        table = functional.interpolate(table, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.position[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def _check(self, values: Tensor) -> None:
        """Refuse what the patches do not fit."""
        shape, config = tuple(values.shape), self.config
        frames = (1, config.frames) if config.frames else ()
        fits = shape[1] == config.channels and min(shape[-2:]) >= config.patch_size
        if not fits or (len(shape) == 5 and shape[2] not in frames):
            time = f", of {' or '.join(map(str, frames))} frames" if frames else ""
            raise UserError(
                f"An input has the shape {shape}. Use {config.channels} channel(s){time}, and a height and "
                f"width of at least {config.patch_size}."
            )


class ImuStem(nn.Module):
    """Windows of a few samples of all channels."""

    def __init__(self, config: ImuTowerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.projection = nn.Linear(config.channels * config.window, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + config.length // config.window, width))

    def forward(self, values: Float[Tensor, "B C T"]) -> Float[Tensor, "B L D"]:
        """Class token and windows.

        Raises:
            UserError: the input has other channels or another length.
        """
        wanted = (self.config.channels, self.config.length)
        if tuple(values.shape[1:]) != wanted:
            raise UserError(
                f"An IMU input has the shape {tuple(values.shape)}. Use (B, {wanted[0]}, {wanted[1]})."
            )
        windows = values.to(self.class_token.dtype).unflatten(2, (-1, self.config.window))
        tokens = self.norm(self.projection(windows.transpose(1, 2).flatten(2)))
        return torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.position


class TextStem(nn.Module):
    """Words of a fixed number; there is no class token."""

    def __init__(self, config: TextTowerConfig) -> None:
        super().__init__()
        self.length = config.length
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Parameter(torch.zeros(1, config.length, config.hidden_size))

    def forward(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Embeddings with positions.

        Raises:
            UserError: the texts have another length.
        """
        if ids.shape[1] != self.length:
            raise UserError(
                f"Texts have {ids.shape[1]} tokens. Use {self.length}, as ImageBindProcessor makes them."
            )
        embedded: Tensor = self.embedding(ids) + self.position
        return embedded
