"""The point encoder of Point-Bind: a small network per group of points, then a transformer over the groups.

Unusual: centres' positions are added to the input of every block.
Source: docs/sources/imagebind.md#point-encoder, 3 to 7.

Dimensions: B clouds, N points of a cloud, G groups, K points of a group, C width of a group's features, D
width of the tokens, W width before the head.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from imagebind_llm.imagebind.config import PointTowerConfig
from imagebind_llm.imagebind.grouping import first_centres, group
from imagebind_llm.imagebind.transformer import Transformer

_INNER = (128, 256, 512)
_POSITION_INNER = 128


class GroupEncoder(nn.Module):
    """One vector per group, whatever the order of its points."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = _INNER
        self.points = nn.Sequential(
            nn.Conv1d(3, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, second, 1)
        )
        self.joined = nn.Sequential(
            nn.Conv1d(2 * second, third, 1), nn.BatchNorm1d(third), nn.ReLU(), nn.Conv1d(third, width, 1)
        )

    def forward(self, groups: Float[Tensor, "B G K 3"]) -> Float[Tensor, "B G C"]:
        """The largest value over the points, twice: first each by itself, then beside the whole group's."""
        each = self.points(groups.flatten(0, 1).transpose(1, 2))
        whole = each.amax(2, keepdim=True).expand_as(each)
        found: Tensor = self.joined(torch.cat([whole, each], dim=1)).amax(2)
        return found.unflatten(0, groups.shape[:2])


class PointEncoder(nn.Module):
    """Clouds -> one vector each."""

    def __init__(self, config: PointTowerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.group_encoder = GroupEncoder(config.group_width)
        self.widen = nn.Linear(config.group_width, width)
        self.position = nn.Sequential(
            nn.Linear(3, _POSITION_INNER), nn.GELU(), nn.Linear(_POSITION_INNER, width)
        )
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.class_position = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = nn.Linear(2 * width, config.output_width, bias=False)

    def forward(
        self,
        points: Float[Tensor, "B N 3"] | Sequence[Float[Tensor, "_ 3"]],
        start: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B W"]:
        """One vector per cloud.

        Args:
            points: clouds, also of different sizes.
            start: index of each cloud's first centre; None as the settings say.

        Raises:
            UserError: a cloud has too few points, or values that are no numbers.
        """
        if isinstance(points, Tensor):
            groups, centres = self._group(points, start)
        else:  # groups are of one size, whatever the clouds are
            starts = [None] * len(points) if start is None else list(start.unsqueeze(1))
            grouped = [self._group(cloud[None], first) for cloud, first in zip(points, starts, strict=True)]
            groups, centres = (torch.cat(parts) for parts in zip(*grouped, strict=True))
        tokens = torch.cat(
            [self._each(self.class_token, groups), self.widen(self.group_encoder(groups))], dim=1
        )
        position = torch.cat([self._each(self.class_position, groups), self.position(centres)], dim=1)
        found = self.norm(self.transformer(tokens, position))
        projected: Tensor = self.projection(torch.cat([found[:, 0], found[:, 1:].amax(1)], dim=-1))
        return projected

    def _group(
        self, points: Float[Tensor, "B N 3"], start: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B G K 3"], Float[Tensor, "B G 3"]]:
        """Groups and centres; chosen in at least single precision, since near points are told apart."""
        exact = points if points.dtype == torch.float64 else points.float()
        if start is None:
            start = first_centres(exact, self.config.random_start)
        groups, centres = group(exact, start, self.config.groups, self.config.group_size)
        dtype = self.class_token.dtype
        return groups.to(dtype), centres.to(dtype)

    @staticmethod
    def _each(token: Float[Tensor, "1 1 D"], groups: Float[Tensor, "B G K 3"]) -> Float[Tensor, "B 1 D"]:
        """A learned token for every cloud."""
        return token.expand(len(groups), -1, -1)
