"""Pictures as they are meant to be seen, and files that are none."""

import io

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llama_adapter import UserError
from llama_adapter.vision import read_image

PIXELS = numpy.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=numpy.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path, orientation):
    """Whatever a camera wrote: the same scene comes out."""
    as_stored = {  # undoes what the number asks a viewer to do
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_stored[orientation](Image.fromarray(PIXELS)).save(tmp_path / "a.png", exif=exif)
    assert numpy.array_equal(numpy.asarray(read_image(tmp_path / "a.png")), PIXELS)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I", "F"])
def test_all_modes_become_three_colours(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode in ("CMYK", "F", "I") else "a.png")
    Image.fromarray(PIXELS).convert("L" if mode == "I" else "RGB").convert(mode).save(path)
    picture = read_image(path)
    assert (picture.mode, picture.size) == ("RGB", (9, 6))


def test_a_palette_with_transparency(tmp_path):
    Image.fromarray(PIXELS).convert("P").save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert read_image(tmp_path / "a.png").mode == "RGB"


def test_colours_may_be_reversed(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    assert numpy.array_equal(numpy.asarray(read_image(tmp_path / "a.png", "bgr")), PIXELS[..., ::-1])


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="text.png' cannot be read as an image: .*Replace the file"):
        read_image(tmp_path / "text.png")
    with pytest.raises(UserError, match="nowhere.png' cannot be read as an image: .*No such file"):
        read_image(tmp_path / "nowhere.png")
    Image.fromarray(PIXELS.repeat(50, 0)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-2000])
    with pytest.raises(UserError, match="cut.png' cannot be read as an image"):
        read_image(tmp_path / "cut.png")


def test_pictures_too_large_to_be_pictures_are_refused(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="cannot be read as an image: .*decompression bomb"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_give_a_picture_or_are_named(tmp_path, kind, cut, changes):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(file, kind, exif=exif)
    content = bytearray(file.getvalue())
    for place, value in changes:
        content[int(place * len(content))] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: max(1, round(cut * len(content)))])
    found = mode_or_message(path)
    assert found == "RGB" or "damaged' cannot be read as an image" in found


def mode_or_message(path):
    try:
        return read_image(path).mode
    except UserError as error:
        return str(error)
