"""Every reader of media uses a damaged file or names it, in bounded memory and time."""

import io
import tarfile
from collections import Counter

import av
import faiss
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import save_file

from imagebind_llm.cache.listing import listing
from imagebind_llm.cache.rows import open_features
from imagebind_llm.cache.visual_cache import VisualCache
from imagebind_llm.processing.audio import load_audio
from imagebind_llm.processing.config import DepthConfig, PointConfig, ProcessorConfig, ThermalConfig
from imagebind_llm.processing.imu import load_imu
from imagebind_llm.processing.maps import load_depth, load_thermal
from imagebind_llm.processing.point_files import load_points
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.data.images import image_size, read_image
from tests.faults.mutations import check, little_memory, mutants, wrong_kinds
from tests.imagebind_llm.processing.test_point_files import files as point_files
from tests.imagebind_llm.processing.test_video import write_video

RANDOM = np.random.default_rng(0)
CONFIG = ProcessorConfig(image_size=28, video_clips=2, audio_clips=2)
PROCESSOR = ImageBindProcessor(CONFIG)
QUICK, MANY = 12, 700


def pictures(folder):
    pixels = RANDOM.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm", "ico", "tga", "jp2", "dds"):
        Image.fromarray(pixels).save(
            folder / f"p.{suffix}", **({"exif": exif} if suffix in ("png", "jpg") else {})
        )
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(folder / "float.tif")
    return {path.name: (read_image, image_size) for path in folder.iterdir()}


def maps(folder):
    values = RANDOM.random((12, 16)).astype(np.float32) + 0.5
    np.save(folder / "m.npy", values)
    np.savez_compressed(folder / "m.npz", values)
    torch.save(torch.from_numpy(values), folder / "m.pt")
    Image.fromarray((values * 1000).astype(np.uint16)).save(folder / "m.png")
    Image.fromarray(values).save(folder / "m.tif")
    metres, millimetres = (DepthConfig(values=name, focal_length=500.0) for name in ("metres", "millimetres"))
    heat = ThermalConfig(lowest=0, highest=3000)
    readers = (
        lambda path: load_depth(path, metres, 28),
        lambda path: load_depth(path, millimetres, 28),
        lambda path: load_thermal(path, heat, 28),
    )
    return {path.name: readers for path in folder.iterdir()}


def sounds(folder):
    tone = 0.3 * np.sin(np.arange(4000) / 5)
    for suffix, rate in (("wav", 16000), ("flac", 8000), ("ogg", 22050), ("mp3", 16000), ("aiff", 11025)):
        soundfile.write(folder / f"s.{suffix}", np.stack([tone, tone], 1), rate)
    soundfile.write(folder / "float.wav", tone, 16000, subtype="FLOAT")
    return {path.name: (lambda path: load_audio(path, CONFIG),) for path in folder.iterdir()}


def videos(folder):
    frames = RANDOM.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    for suffix in ("mp4", "avi", "mkv", "mov", "ts"):
        write_video(folder / f"v.{suffix}", frames)
    shots = [Image.fromarray(frame) for frame in frames[:3]]
    for suffix in ("gif", "webp", "png"):
        shots[0].save(folder / f"v.{suffix}", save_all=True, append_images=shots[1:], duration=300)
    return {path.name: (lambda path: PROCESSOR({"vision": [path]}),) for path in folder.iterdir()}


def points(folder):
    for name, content in point_files().items():
        (folder / name).write_bytes(content)
    cloud = RANDOM.normal(size=(20, 3)).astype(np.float32)
    np.save(folder / "c.npy", cloud)
    np.savez(folder / "c.npz", cloud.T)
    torch.save(torch.from_numpy(cloud), folder / "c.pt")
    torch.save(torch.from_numpy(cloud), folder / "old.pt", _use_new_zipfile_serialization=False)
    return {path.name: (lambda path: load_points(path, PointConfig()),) for path in folder.iterdir()}


def motion(folder):
    values = RANDOM.normal(size=(2001, 6)).astype(np.float32)
    np.save(folder / "i.npy", values)
    np.savez_compressed(folder / "i.npz", values)
    np.savetxt(folder / "i.csv", values, delimiter=",", fmt="%.3f", header="ax,ay,az,gx,gy,gz", comments="")
    return {path.name: (lambda path: load_imu(path, 200.0),) for path in folder.iterdir()}


def features(folder):
    values = RANDOM.normal(size=(6, 8)).astype(np.float32)
    np.save(folder / "f.npy", values)
    save_file({"features": torch.from_numpy(values)}, folder / "f.safetensors")
    torch.save(torch.from_numpy(values), folder / "f.pt")
    return {path.name: (lambda path: open_features(path).float().sum(),) for path in folder.iterdir()}


def lists(folder):
    (folder / "l.txt").write_text("a.png\nb/c.jpg\n", encoding="utf-8-sig")
    with tarfile.open(folder / "l.tar", "w") as tar:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = 100
            tar.addfile(member, io.BytesIO(bytes(100)))
    return {path.name: (listing,) for path in folder.iterdir()}


KINDS = {made.__name__: made for made in (pictures, maps, sounds, videos, points, motion, features, lists)}


def fuzz(kind, folder, count, seed):
    """Each file of a kind, damaged so often, through each of its readers."""
    (folder / "whole").mkdir()
    readers = KINDS[kind](folder / "whole")
    found = Counter()
    with little_memory():
        for name, reads in readers.items():
            content = (folder / "whole" / name).read_bytes()
            for read in reads:
                path = folder / name
                found += check(read, path, mutants(content, count, seed))
                found += check(read, path, wrong_kinds().values())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_used_or_named(tmp_path, kind):
    av.logging.set_level(av.logging.PANIC)
    found = fuzz(kind, tmp_path, QUICK, seed=1)
    assert found["named"] > 10
    assert found["used"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [2, 3])
def test_thousands_of_damaged_files_are_used_or_named(tmp_path, kind, seed):
    av.logging.set_level(av.logging.PANIC)
    found = fuzz(kind, tmp_path, MANY, seed)
    assert found["named"] > found.total() / 10


def write_index(path):
    index = faiss.index_factory(8, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    values = RANDOM.normal(size=(100, 8)).astype(np.float32)
    index.train(values)
    index.add(values)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("content", wrong_kinds().values(), ids=wrong_kinds())
def test_what_is_no_index_is_named(tmp_path, content):
    assert check(VisualCache.open, tmp_path / "a.index", [content]) == {"named": 1}
