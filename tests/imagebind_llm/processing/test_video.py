"""Frames, views and files of videos."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.processor import ImageBindProcessor
from imagebind_llm.processing.video import clip_frames, load_video, video_input
from llama_adapter import UserError
from tests.imagebind_llm.tiny import golden

CONFIG = ProcessorConfig()


def write_video(path, frames, rate=8, codec="mpeg4"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", ["landscape", "portrait"])
def test_views_are_the_originals(name):
    tensors = golden("imagebind_image_video_preproc")
    frames = tensors[f"in/video_{name}_u8"].permute(1, 2, 3, 0)
    chosen = clip_frames(len(frames), 8.0, CONFIG)
    views = video_input(torch.stack([frames[list(pair)] for pair in chosen]), 224)
    torch.testing.assert_close(views[..., 100, :], tensors[f"out/video_{name}.row100"], atol=1e-5, rtol=0)
    pooled = functional.avg_pool3d(views, (1, 14, 14))
    torch.testing.assert_close(pooled[::7], tensors[f"out/video_{name}.pool16"], atol=1e-5, rtol=0)


def test_the_originals_frames():
    assert clip_frames(52, 8.0, CONFIG) == [(0, 15), (9, 24), (18, 33), (27, 42), (36, 51)]
    assert clip_frames(20, 8.0, CONFIG) == [(0, 15), (1, 16), (2, 17), (3, 18), (4, 19)]
    assert clip_frames(1, 25.0, CONFIG) == [(0, 0)] * 5


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
def test_files_give_the_frames_that_are_wanted(tmp_path, suffix):
    """Each frame is grey in its own shade, so that numbers can be read off."""
    shades = np.arange(52, dtype=np.uint8) * 4
    frames = np.broadcast_to(shades[:, None, None, None], (52, 32, 48, 3))
    write_video(tmp_path / f"a.{suffix}", np.ascontiguousarray(frames))
    views = load_video(tmp_path / f"a.{suffix}", CONFIG)
    assert views.shape == (15, 3, 2, 224, 224)
    red = views[::3, 0].mean((2, 3)) * 0.26862954 + 0.48145466
    wanted = torch.tensor([(0, 15), (9, 24), (18, 33), (27, 42), (36, 51)]) * 4 / 255
    torch.testing.assert_close(red, wanted, atol=0.02, rtol=0)


def test_files_without_pictures(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"sound.mp4' has no video stream, only \['audio'\]. Use"):
        load_video(tmp_path / "sound.mp4", CONFIG)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="text.mp4' cannot be read as a video: .*Replace"):
        load_video(tmp_path / "text.mp4", CONFIG)
    with pytest.raises(UserError, match="nowhere.mp4' cannot be read as a video: .*Replace"):
        load_video(tmp_path / "nowhere.mp4", CONFIG)


def test_a_file_that_is_cut_off_still_has_a_last_picture(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.avi", frames)
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    assert load_video(tmp_path / "cut.avi", CONFIG).isfinite().all()


def halves():
    """Red at the left, blue at the right, wider than high."""
    frames = np.zeros((20, 32, 64, 3), np.uint8)
    frames[:, :, :32, 0] = frames[:, :, 32:, 2] = 255
    return frames


def colours(views):
    """The colours (red, blue) of a middle view at its left, right, top and bottom."""
    picture = views[1, :, 0] > 0
    return [
        "red" if picture[0, y, x] else "blue" if picture[2, y, x] else "black"
        for y, x in ((112, 4), (112, -4), (4, 112), (-4, 112))
    ]


def with_matrix(content, matrix):
    """The bytes of an mp4 whose track is shown by a matrix (a, b, c, d), as a phone writes it."""
    unit, last = 1 << 16, 1 << 30
    before = struct.pack(">9i", unit, 0, 0, 0, unit, 0, 0, 0, last)
    a, b, c, d = (value * unit for value in matrix)
    place = content.index(before, content.index(b"tkhd"))
    return content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, last) + content[place + 36 :]


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((1, 0, 0, 1), ["red", "blue"]),
        ((0, 1, -1, 0), ["red at the top"]),  # a quarter clockwise
        ((-1, 0, 0, -1), ["blue", "red"]),
        ((0, -1, 1, 0), ["blue at the top"]),
        ((-1, 0, 0, 1), ["blue", "red"]),  # mirrored, as by a front camera
    ],
)
def test_videos_stand_as_players_show_them(tmp_path, matrix, seen):
    write_video(tmp_path / "a.mp4", halves())
    (tmp_path / "b.mp4").write_bytes(with_matrix((tmp_path / "a.mp4").read_bytes(), matrix))
    left, right, top, bottom = colours(load_video(tmp_path / "b.mp4", CONFIG))
    assert seen in ([left, right], [f"{top} at the top"])
    assert {left, right, top, bottom} <= {"red", "blue"}
    if len(seen) == 1:
        assert {top, bottom} == {"red", "blue"}


def test_a_video_turned_by_other_than_quarters_is_named(tmp_path):
    write_video(tmp_path / "a.mp4", halves())
    (tmp_path / "b.mp4").write_bytes(with_matrix((tmp_path / "a.mp4").read_bytes(), (1, 1, -1, 1)))
    with pytest.raises(UserError, match="b.mp4' is shown turned by -45 degrees. Make it again"):
        load_video(tmp_path / "b.mp4", CONFIG)


def test_frames_at_unequal_distances_are_chosen_by_time(tmp_path):
    """Thirty frames in the first second, then one for every second."""
    stamps = [index * 33 for index in range(30)] + [1000 * second for second in range(1, 10)]
    shades = [10] * 30 + [25 * second for second in range(1, 10)]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp, shade in zip(stamps, shades, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    views = load_video(tmp_path / "a.mkv", CONFIG)
    shown = (views[::3, 0].mean((2, 3)) * 0.26862954 + 0.48145466) * 255
    # clips of two seconds from 0 s to the end, at about 9 s: the last frame of each begins in its last second
    assert abs(shown[0] - torch.tensor([10.0, 25.0])).max() < 4
    assert abs(shown[-1] - torch.tensor([200.0, 225.0])).max() < 30
    assert (shown[:, 1].diff() > 20).all()


@pytest.mark.parametrize("suffix", ["ts", "mts", "3gp", "flv", "wmv", "ogv", "m4v", "TS", "unknown"])
def test_videos_are_known_by_their_content(tmp_path, suffix):
    kind = {"mts": "mpegts", "ts": "mpegts", "ogv": "ogg", "wmv": "asf", "m4v": "mp4"}.get(
        suffix.lower(), suffix
    )
    kind = "matroska" if suffix == "unknown" else kind
    codec = {"flv": "flv", "wmv": "wmv2", "ogv": "libvpx", "3gp": "mpeg4"}.get(suffix, "mpeg4")
    with av.open(str(tmp_path / f"a.{suffix}"), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in halves()[:, :, 16:48]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    found = ImageBindProcessor()({"vision": [tmp_path / f"a.{suffix}"]})["vision"]
    assert found.counts == (15,)
    assert colours(found.values)[:2] == ["red", "blue"]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_animated_pictures_are_videos(tmp_path, kind):
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "red", "blue")]
    pictures[0].save(
        tmp_path / f"a.{kind}", save_all=True, append_images=pictures[1:], duration=[900, 1200, 1000]
    )
    views = load_video(tmp_path / f"a.{kind}", CONFIG)
    assert [bool(value) for value in views[1, 0, :, 112, 112] > 0] == [True, True]
    assert [bool(value) for value in views[-2, 2, :, 112, 112] > 0] == [True, True]
    assert ImageBindProcessor()({"vision": [tmp_path / f"a.{kind}"]})["vision"].counts == (15,)
    pictures[0].save(tmp_path / f"still.{kind}")
    assert ImageBindProcessor()({"vision": [tmp_path / f"still.{kind}"]})["vision"].counts == (1,)


def test_a_cover_is_no_video(tmp_path):
    """Of several streams the best is read; a sound with a cover is named."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        cover, film = (container.add_stream("mpeg4", rate=8) for _ in range(2))
        for stream, size in ((cover, 16), (film, 64)):
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        blue = av.VideoFrame.from_ndarray(np.full((16, 16, 3), [0, 0, 255], np.uint8), format="rgb24")
        container.mux(cover.encode(blue))
        container.mux(cover.encode())
        for _ in range(20):
            red = np.full((64, 64, 3), [255, 0, 0], np.uint8)
            container.mux(film.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(film.encode())
    assert colours(load_video(tmp_path / "a.mkv", CONFIG)) == ["red"] * 4
