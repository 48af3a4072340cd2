"""The point encoder."""

import pytest
import torch

from llama_adapter import UserError
from tests.imagebind_llm.imagebind.test_golden import golden_model
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.tiny import golden


def test_the_original():
    tensors = golden("imagebind_point")
    points = tensors["in/points_i16"].float() / 8192
    model = golden_model("point")
    encoder = model.towers["point"].encoder
    with torch.no_grad():
        pooled = encoder(points, tensors["mid/fps_start"])
        torch.testing.assert_close(pooled, tensors["out/pc_embed"], atol=1e-4, rtol=0)
        found = model.towers["point"].head(pooled)
    torch.testing.assert_close(found, tensors["out/prenorm"], atol=1e-4, rtol=0)
    unit = model.towers["point"].embed(found)
    torch.testing.assert_close(unit, tensors["out/embedding"], atol=1e-5, rtol=0)


def test_clouds_of_unequal_sizes():
    model = tiny_model("point")
    clouds = [torch.randn(count, 3) for count in (30, 50)]
    with torch.no_grad():
        found = model({"point": clouds}).embeddings["point"]
        alone = torch.cat([model({"point": cloud[None]}).embeddings["point"] for cloud in clouds])
    torch.testing.assert_close(found, alone)


def test_points_that_are_no_numbers():
    points = torch.randn(1, 40, 3)
    points[0, 3, 1] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite coordinates. Remove"):
        tiny_model("point")({"point": points})


def test_groups_are_the_originals():
    tensors = golden("imagebind_point")
    encoder = golden_model("point").towers["point"].encoder
    points = tensors["in/points_i16"].float() / 8192
    with torch.no_grad():
        groups, centres = encoder._group(points, tensors["mid/fps_start"])
        found = encoder.group_encoder(groups)
        torch.testing.assert_close(centres, tensors["mid/center"])
        torch.testing.assert_close(found, tensors["mid/group_tokens"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoder.position(centres), tensors["mid/pos"], atol=1e-5, rtol=1e-5)


def test_the_start_matters_and_may_be_given():
    encoder = tiny_model("point").towers["point"].encoder
    points = torch.randn(2, 60, 3)
    with torch.no_grad():
        given = encoder(points, torch.tensor([3, 5]))
        apart = encoder(list(points), torch.tensor([3, 5]))
        other = encoder(points, torch.tensor([4, 6]))
    torch.testing.assert_close(given, apart)
    assert not torch.allclose(given, other)
