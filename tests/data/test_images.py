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


def greys(kind):
    """A ramp from black to white in 16 steps, and what it is at 8 bits."""
    ramp = numpy.tile(numpy.arange(16) * 4369, (3, 1))
    made = {
        "16.png": ramp.astype("<u2"),
        "16.tif": ramp.astype("<u2"),
        "16.pgm": ramp.astype("<u2"),
        "01.tif": (ramp / 65535).astype("<f4"),
        "255.tif": (ramp / 257).astype("<f4"),
        "32.tif": ramp.astype("<i4"),
    }
    return made[kind], ramp // 257


@pytest.mark.parametrize("kind", ["16.png", "16.tif", "16.pgm", "01.tif", "255.tif", "32.tif"])
def test_greys_of_more_than_8_bits_keep_their_values(tmp_path, kind):
    values, wanted = greys(kind)
    Image.fromarray(values).save(tmp_path / kind)
    found = numpy.asarray(read_image(tmp_path / kind))
    assert numpy.abs(found[..., 0].astype(int) - wanted).max() <= 1
    assert numpy.array_equal(found[..., 0], found[..., 2])


def test_greys_of_16_bits_in_either_byte_order_turned_or_negative(tmp_path):
    values, wanted = greys("16.tif")
    big = Image.frombytes("I;16B", (16, 3), values.astype(">u2").tobytes())
    exif = Image.Exif()
    exif[0x0112] = 3
    big.save(tmp_path / "big.tif")
    Image.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(values).save(tmp_path / "negative.tif", tiffinfo={262: 0})
    assert numpy.array_equal(numpy.asarray(read_image(tmp_path / "big.tif"))[..., 0], wanted)
    assert numpy.array_equal(numpy.asarray(read_image(tmp_path / "turned.png"))[..., 0], wanted[::-1, ::-1])
    assert numpy.array_equal(numpy.asarray(read_image(tmp_path / "negative.tif"))[..., 0], 255 - wanted)


@pytest.mark.parametrize("worst", [-1.0, 300.0, float("nan"), float("inf")])
def test_fractions_of_no_known_range_are_refused(tmp_path, worst):
    values = numpy.full((4, 4), 0.5, numpy.float32)
    values[1, 1] = worst
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(
        UserError, match=r"a.tif' holds greys from .* \(mode F\), a range .*Use 0 to 1, 0 to 255"
    ):
        read_image(tmp_path / "a.tif")


def test_the_limit_on_pixels_is_a_setting(tmp_path, monkeypatch):
    Image.new("L", (100, 90)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)
    with pytest.raises(
        UserError, match="decompression bomb|at most 8,000 are decoded. Make it smaller, or set"
    ):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("LLAMA_ADAPTER_MAX_PIXELS", "9000")
    assert read_image(tmp_path / "a.png").size == (100, 90)
    monkeypatch.setenv("LLAMA_ADAPTER_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="LLAMA_ADAPTER_MAX_PIXELS is 'many'. Use a number of pixels"):
        read_image(tmp_path / "a.png")


def test_lines_are_no_pictures(tmp_path):
    Image.new("L", (2, 600)).save(tmp_path / "line.png")
    with pytest.raises(
        UserError, match="line.png' has 2 x 600 pixels: one side is over 200 times the other. Cut"
    ):
        read_image(tmp_path / "line.png")


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_of_several_pictures_the_first_is_used_with_a_word(tmp_path, kind):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second])
    with pytest.warns(
        UserWarning, match=f"a.{kind}' holds several pictures; as an image its first one is used"
    ):
        picture = read_image(tmp_path / f"a.{kind}")
    assert picture.getpixel((4, 4))[0] > 240
