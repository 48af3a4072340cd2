"""Centres and neighbours of point clouds."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebind_llm.imagebind.grouping import farthest_points, first_centres, group, neighbours
from tests.imagebind_llm.tiny import golden


def test_centres_and_neighbours_are_the_originals():
    tensors = golden("imagebind_point")
    points = tensors["in/points_i16"].float() / 8192
    found = farthest_points(points, 24, tensors["mid/fps_start"])
    assert torch.equal(found, tensors["mid/fps_index"])
    near = neighbours(points, tensors["mid/center"], 8)
    assert torch.equal(near.sort(-1).values, tensors["mid/knn_index"])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(4, 30))
def test_each_centre_is_farthest_from_those_before(seed, count):
    points = torch.randn(1, count, 3, generator=torch.Generator().manual_seed(seed))
    chosen = farthest_points(points, 4, first_centres(points))[0]
    assert len(set(chosen.tolist())) == 4
    for number in range(1, 4):
        distance = torch.cdist(points[0], points[0, chosen[:number]]).min(1).values
        assert distance[chosen[number]] >= distance.max() - 1e-5


def test_the_order_of_points_does_not_matter():
    points = torch.randn(1, 30, 3)
    shuffled = points[:, torch.randperm(30)]
    _, centres = group(points, first_centres(points), 5, 4)
    _, others = group(shuffled, first_centres(shuffled), 5, 4)
    torch.testing.assert_close(centres, others)


def test_a_random_start_is_another_one():
    points = torch.randn(64, 100, 3)
    assert len(set(first_centres(points, random=True).tolist())) > 10


def test_every_centre_is_in_its_group():
    points = torch.randn(2, 40, 3)
    groups, _ = group(points, first_centres(points), 6, 5)
    assert groups.norm(dim=-1).amin(-1).max() < 1e-6
