"""Pictures against the original's pixels, and maps of one value per pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from imagebind_llm.processing.pictures import load_picture, read_map, resized, resized_map
from llama_adapter import UserError
from tests.imagebind_llm.tiny import golden


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_pixels_are_the_originals(tmp_path, suffix):
    tensors = golden("imagebind_image_video_preproc")
    picture = Image.fromarray(tensors["in/image_u8"].numpy())
    crop = np.asarray(resized(picture, 224)).transpose(2, 0, 1)
    assert np.array_equal(crop[:, ::4], tensors["out/image_crop_u8"].numpy())
    picture.save(tmp_path / f"a.{suffix}", lossless=True)
    found = load_picture(tmp_path / f"a.{suffix}", 224)
    torch.testing.assert_close(found[:, ::32], tensors["out/image_rows"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("size", "shape"), [((50, 30), (30, 50)), ((30, 50), (50, 30)), ((224, 224), (224, 224))]
)
def test_any_shape_becomes_a_square(size, shape):
    assert resized(Image.new("RGB", size), 224).size == (224, 224)
    assert resized_map(np.zeros(shape, np.float32), 224).shape == (1, 224, 224)


def test_damaged_and_huge_pictures(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(UserError, match="a.jpg' cannot be read as an image"):
        load_picture(tmp_path / "a.jpg", 224)
    Image.new("RGB", (20, 20)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for reader in (lambda path: load_picture(path, 224), read_map):
        with pytest.raises(UserError, match="huge.png' cannot be read as an image: .*decompression bomb"):
            reader(tmp_path / "huge.png")


def test_maps_from_all_file_types(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4) * 1000
    np.save(tmp_path / "a.npy", values[None])
    np.savez(tmp_path / "b.npz", values)
    Image.fromarray(values).save(tmp_path / "c.tif")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "d.png")
    for name in ("a.npy", "b.npz", "c.tif", "d.png"):
        found = read_map(tmp_path / name)
        assert np.array_equal(found, values), name
        assert found.dtype == (np.uint16 if name == "d.png" else np.float32)
    Image.fromarray((values / 100).astype(np.uint8)).save(tmp_path / "e.png")
    found = read_map(tmp_path / "e.png")
    assert found.dtype == np.uint8
    assert found.max() == 110


def test_files_that_are_no_maps(tmp_path):
    np.save(tmp_path / "line.npy", np.zeros(3))
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "a.doc").write_text("")
    for name, message in [
        ("line.npy", r"line.npy' has the shape \(3,\). Use one value per pixel"),
        ("two.npz", r"two.npz' holds the arrays \['a', 'b'\]. Use"),
        ("text.npy", "text.npy' cannot be read as an array: .*Replace"),
        ("object.npy", "object.npy' holds pickled objects, which may run code. Save"),
        ("a.doc", "a.doc' is no map of depth or heat. Use"),
    ]:
        with pytest.raises(UserError, match=message):
            read_map(tmp_path / name)
