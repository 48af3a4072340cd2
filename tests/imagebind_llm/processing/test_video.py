"""Frames, views and files of videos."""

import av
import numpy as np
import pytest
import torch
from torch.nn import functional

from imagebind_llm.processing.config import ProcessorConfig
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
