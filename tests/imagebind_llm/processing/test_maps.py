"""The recipes for depth and heat."""

import numpy as np
import pytest
import torch
from PIL import Image

from imagebind_llm.processing.config import DepthConfig, ThermalConfig
from imagebind_llm.processing.maps import load_depth, load_thermal
from llama_adapter import UserError

MEAN, STD = 0.0418, 0.0295


def disparity(path, **settings):
    found = load_depth(path, DepthConfig(**settings), 224)
    assert found.shape == (1, 224, 224)
    return found * STD + MEAN


def test_all_recipes_agree(tmp_path):
    """A wall at 2 m, written in every way."""
    wanted = torch.full((1, 224, 224), 0.075 * 500 / 2)
    millimetres = np.full((8, 10), 2000, np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "mm.png")
    Image.fromarray((millimetres << 3) | (millimetres >> 13)).save(tmp_path / "sun.png")
    np.save(tmp_path / "m.npy", np.full((8, 10), 2.0))
    np.save(tmp_path / "d.npy", np.full((8, 10), 18.75))
    for name, values in [("mm.png", "millimetres"), ("sun.png", "sun_rgbd"), ("m.npy", "metres")]:
        found = disparity(tmp_path / name, values=values, focal_length=500.0)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(disparity(tmp_path / "d.npy"), wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(disparity(tmp_path / "d.npy", divisor=75.0), wanted / 75, atol=1e-4, rtol=0)


def test_far_points_of_sun_rgbd_are_cut(tmp_path):
    far = np.full((4, 4), 20_000 % 8192, np.uint16)
    Image.fromarray((far << 3) | (far >> 13)).save(tmp_path / "far.png")
    found = disparity(tmp_path / "far.png", values="sun_rgbd", focal_length=500.0)
    assert found.min() >= 0.075 * 500 / 8 - 1e-4


def test_unknown_pixels_are_far_away(tmp_path):
    for unknown in (0.0, np.nan, np.inf):
        values = np.full((8, 8), 2.0, np.float32)
        values[:, :4] = unknown
        np.save(tmp_path / "a.npy", values)
        found = disparity(tmp_path / "a.npy", values="metres", focal_length=500.0)
        assert found.isfinite().all()
        assert found[0, 0, 0].abs() < 0.1
    np.save(tmp_path / "nothing.npy", np.full((8, 8), np.nan))
    with pytest.raises(UserError, match="nothing.npy' holds no depth above 0. Use"):
        disparity(tmp_path / "nothing.npy")


def test_depth_needs_a_focal_length(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((8, 8)))
    with pytest.raises(UserError, match="depth.values is 'metres', but depth.focal_length is not set. Set"):
        disparity(tmp_path / "a.npy", values="metres")


def test_thermal_pictures(tmp_path):
    Image.fromarray(np.full((8, 10), 51, np.uint8)).save(tmp_path / "a.png")
    found = load_thermal(tmp_path / "a.png", ThermalConfig(), 224)
    torch.testing.assert_close(found, torch.full((1, 224, 224), 0.2))
    Image.fromarray(np.full((8, 10), 3000, np.uint16)).save(tmp_path / "raw.png")
    with pytest.raises(UserError, match="raw.png' holds more than 8 bits .*Set thermal.lowest"):
        load_thermal(tmp_path / "raw.png", ThermalConfig(), 224)
    found = load_thermal(tmp_path / "raw.png", ThermalConfig(lowest=2000, highest=4000), 224)
    torch.testing.assert_close(found, torch.full((1, 224, 224), 0.5))
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    with pytest.raises(UserError, match="nan.npy' holds NaN"):
        load_thermal(tmp_path / "nan.npy", ThermalConfig(lowest=0, highest=1), 224)


def test_values_that_cannot_be_what_the_settings_say(tmp_path):
    millimetres = np.linspace(800, 3195, 80).reshape(8, 10)
    Image.fromarray(millimetres.astype(np.uint16)).save(tmp_path / "mm.png")
    Image.fromarray((millimetres / 20).astype(np.uint8)).save(tmp_path / "eight.png")
    np.save(tmp_path / "metres.npy", millimetres / 1000)
    np.save(tmp_path / "mm.npy", millimetres * 1000)
    for name, values, message in [
        (
            "mm.png",
            "disparity",
            "uint16, from 800 to 3195, but depth.values is 'disparity'. Set depth.values",
        ),
        ("eight.png", "disparity", "uint8, from 40 to 159, but depth.values is 'disparity'. Set"),
        ("eight.png", "millimetres", "but depth.values is 'millimetres'. Set"),
        ("mm.png", "metres", "but depth.values is 'metres'. Set"),
        ("metres.npy", "sun_rgbd", "but depth.values is 'sun_rgbd'. Set"),
        (
            "metres.npy",
            "millimetres",
            "would show a scene at 0.0019975 m, depth.values being 'millimetres'. Set",
        ),
        ("mm.npy", "metres", "would show a scene at 1.9975e"),
    ]:
        with pytest.raises(UserError, match=message):
            disparity(tmp_path / name, values=values, focal_length=500.0)
    found = disparity(tmp_path / "mm.png", divisor=256.0)  # KITTI's disparities
    torch.testing.assert_close(found.mean(), torch.tensor(1997.5 / 256), atol=0.1, rtol=0)


def test_maps_in_colours_and_heat_of_another_range(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    Image.fromarray(colours[..., [0, 0, 0]]).save(tmp_path / "grey.png")
    with pytest.raises(
        UserError, match="colours.png' is a picture in colours; a map has one value per pixel"
    ):
        load_thermal(tmp_path / "colours.png", ThermalConfig(), 224)
    assert load_thermal(tmp_path / "grey.png", ThermalConfig(), 224).std() > 0.1
    with pytest.raises(
        UserError, match="none between thermal.lowest and thermal.highest, 29000 and 31000. Set"
    ):
        load_thermal(tmp_path / "grey.png", ThermalConfig(lowest=29000, highest=31000), 224)
