"""Point clouds -> groups of neighbouring points around centres that lie far apart.

Unusual: the first centre is the point farthest from the centroid, so that a cloud has one result; the
published code draws it at random in every pass. Clouds of one batch may have different numbers of points.
Source: docs/sources/imagebind.md#point-encoder, 1 and 2.

Dimensions: B clouds, N points of a cloud, G groups, K points of a group.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_adapter.errors import UserError


def first_centres(points: Float[Tensor, "B N 3"], random: bool = False) -> Int[Tensor, " B"]:
    """Index of each cloud's first centre.

    Args:
        points: the clouds.
        random: draw it, instead of taking the point farthest from the centroid.
    """
    if random:
        return torch.randint(points.shape[1], (len(points),), device=points.device)
    return (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)


def farthest_points(
    points: Float[Tensor, "B N 3"], groups: int, start: Int[Tensor, " B"]
) -> Int[Tensor, "B G"]:
    """Indices of centres, each the point farthest from all before it.

    Args:
        points: the clouds.
        groups: how many centres.
        start: index of the first one.
    """
    rows = torch.arange(len(points), device=points.device)
    nearest = torch.full(points.shape[:2], torch.inf, device=points.device, dtype=points.dtype)
    chosen = [start]
    for _ in range(groups - 1):
        distance = (points - points[rows, chosen[-1]].unsqueeze(1)).square().sum(-1)
        nearest = torch.minimum(nearest, distance)
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, dim=1)


def neighbours(
    points: Float[Tensor, "B N 3"], centres: Float[Tensor, "B G 3"], size: int
) -> Int[Tensor, "B G K"]:
    """Indices of the points nearest to each centre, itself included, in no order."""
    products = centres @ points.transpose(1, 2)
    squares = points.square().sum(-1).unsqueeze(1) + centres.square().sum(-1).unsqueeze(2)
    return (squares - 2 * products).topk(size, dim=-1, largest=False, sorted=False).indices


def group(
    points: Float[Tensor, "B N 3"], start: Int[Tensor, " B"], groups: int, size: int
) -> tuple[Float[Tensor, "B G K 3"], Float[Tensor, "B G 3"]]:
    """Groups of points, relative to their centres, and the centres.

    Raises:
        UserError: a cloud has too few points, or values that are no numbers.
    """
    count = points.shape[1]
    if count < max(groups, size):
        raise UserError(f"A cloud has {count} points. Use at least {max(groups, size)}.")
    if not points.isfinite().all():
        raise UserError("A cloud holds NaN or infinite coordinates. Remove these points.")
    rows = torch.arange(len(points), device=points.device)
    centres = points[rows.unsqueeze(1), farthest_points(points, groups, start)]
    members = points[rows.view(-1, 1, 1), neighbours(points, centres, size)]
    return members - centres.unsqueeze(2), centres
