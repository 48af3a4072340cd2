"""Features of a real small encoder: computed once, never for something else, whole after a kill."""

import multiprocessing
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from transformers import CLIPVisionConfig, CLIPVisionModel

from llama_adapter.data.feature_cache import FeatureCache, FeatureIdentity
from llama_adapter.data.identity import encoder_identity
from llama_adapter.errors import UserError

SIZE = 16
TOKENS = (SIZE // 8) ** 2 + 1
WIDTH = 16


def draw(folder, count):
    """Pictures of one circle each, at different places."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        picture = Image.new("RGB", (SIZE, SIZE), (number * 9 % 256, 40, 90))
        ImageDraw.Draw(picture).ellipse((number % 8, 2, number % 8 + 6, 9), fill=(250, number, 0))
        paths.append(str(folder / f"{number}.png"))
        picture.save(paths[-1])
    return paths


class Encoder:
    """A random CLIP tower with a transform; counts the pictures that it sees."""

    def __init__(self, seed=0, mean=0.5):
        torch.manual_seed(seed)
        config = CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=8,
        )
        self.tower = CLIPVisionModel(config).eval()
        self.transform = {"size": SIZE, "mean": mean}
        self.seen = 0
        self.batches = []

    def __call__(self, paths):
        self.seen += len(paths)
        self.batches.append(len(paths))
        pixels = [
            torch.frombuffer(bytearray(Image.open(path).tobytes()), dtype=torch.uint8) for path in paths
        ]
        pixels = torch.stack(pixels).view(-1, SIZE, SIZE, 3).permute(0, 3, 1, 2).float() / 255
        return self.tower(pixel_values=pixels - self.transform["mean"]).last_hidden_state

    def cache(self, folder, dtype="float32"):
        identity = encoder_identity(self.tower)
        return FeatureCache(folder, FeatureIdentity(encoder=identity, transform=self.transform, dtype=dtype))


@pytest.fixture
def pictures(tmp_path):
    return draw(tmp_path / "pictures", 7)


def features_of(encoder, folder, items, **options):
    return encoder.cache(folder).features(items, encoder, **{"batch_size": 3, "progress": False, **options})


def test_features_are_the_encoders_and_computed_once(tmp_path, pictures):
    encoder = Encoder()
    found = features_of(encoder, tmp_path / "cache", pictures)
    assert encoder.batches == [3, 3, 1]
    direct = Encoder()(pictures).detach()
    assert len(found) == 7
    assert found[0].shape == (TOKENS, WIDTH)
    assert not found[0].requires_grad
    assert torch.allclose(torch.stack(list(found)), direct, atol=1e-6)
    assert found.num_bytes == 7 * TOKENS * WIDTH * 4
    again = Encoder()  # as another run makes it
    repeated = features_of(again, tmp_path / "cache", list(reversed(pictures)))
    assert again.seen == 0
    assert torch.equal(repeated[0], found[6])
    assert torch.equal(repeated[1:3][1], found[4])


def test_only_what_is_missing_is_computed(tmp_path, pictures):
    features_of(Encoder(), tmp_path / "cache", pictures[:4])
    encoder = Encoder()
    features_of(encoder, tmp_path / "cache", [*pictures, pictures[5]])
    assert encoder.seen == 3


def test_a_renamed_file_finds_its_features_and_a_changed_pixel_does_not(tmp_path, pictures):
    before = features_of(Encoder(), tmp_path / "cache", pictures)[0].clone()
    moved = Path(pictures[0]).rename(tmp_path / "pictures" / "renamed.png")
    encoder = Encoder()
    assert torch.equal(features_of(encoder, tmp_path / "cache", [moved])[0], before)
    assert encoder.seen == 0
    picture = Image.open(moved)
    picture.putpixel((3, 3), (1, 2, 3))
    stat = moved.stat()
    picture.save(moved)
    os.utime(moved, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not torch.equal(features_of(encoder, tmp_path / "cache", [moved])[0], before)
    assert encoder.seen == 1


@pytest.mark.parametrize("change", ["weights", "transform", "dtype"])
def test_another_encoder_transform_or_type_finds_nothing(tmp_path, pictures, change):
    features_of(Encoder(), tmp_path / "cache", pictures)
    encoder = Encoder(mean=0.4 if change == "transform" else 0.5)
    if change == "weights":
        with torch.no_grad():
            next(encoder.tower.parameters()).view(-1)[0] += 1e-4
    cache = encoder.cache(tmp_path / "cache", "bfloat16" if change == "dtype" else "float32")
    cache.features(pictures, encoder, progress=False)
    assert encoder.seen == 7
    unchanged = Encoder()
    features_of(unchanged, tmp_path / "cache", pictures)  # the old ones are still there
    assert unchanged.seen == 0


@pytest.mark.parametrize(("dtype", "unit"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_small_types_cost_what_is_stated(tmp_path, pictures, dtype, unit):
    encoder = Encoder()
    exact = encoder(pictures).detach()
    stored = torch.stack(
        list(encoder.cache(tmp_path, dtype).features(pictures, encoder, batch_size=7, progress=False))
    )
    assert stored.dtype == getattr(torch, dtype)
    error = (stored.float() - exact).abs()
    assert torch.all(error <= unit * exact.abs() + 1e-6)
    assert error.max() > 0


def test_ragged_features_of_bytes_and_records(tmp_path):
    identity = FeatureIdentity(encoder={"name": "lengths"}, transform={}, dtype="float32")
    cache = FeatureCache(tmp_path, identity)
    items = [b"a", b"bcd", {"text": "four"}]

    def encode(batch):
        return [torch.full((len(item), 2), float(len(item))) for item in batch]

    found = cache.features(items, encode, progress=False)
    assert [one.shape[0] for one in found] == [1, 3, 1]
    assert cache.size > found.num_bytes
    assert cache.verify() == []


def test_damage_is_named_and_repaired(tmp_path, pictures):
    encoder = Encoder()
    cache = encoder.cache(tmp_path / "cache")
    cache.features(pictures, encoder, progress=False)
    data = cache.store.folder / "data.bin"
    raw = bytearray(data.read_bytes())
    raw[10] ^= 255
    data.write_bytes(raw)
    again = encoder.cache(tmp_path / "cache")
    with pytest.raises(UserError, match=r"item 0 in .* are damaged. Use FeatureCache.verify\(repair=True\)"):
        again.features(pictures, encoder, progress=False)[0]
    assert len(again.verify(repair=True)) == 1
    encoder.seen = 0
    assert torch.equal(again.features(pictures, encoder, progress=False)[0], Encoder()(pictures[:1])[0])
    assert encoder.seen == 1


def test_it_says_how_large_it_will_be_and_refuses_a_small_disk(tmp_path, pictures, monkeypatch, capsys):
    encoder = Encoder()
    features_of(encoder, tmp_path / "cache", pictures, progress=True)
    printed = " ".join(capsys.readouterr().err.split())
    assert f"Features of 7 items: about {7 * TOKENS * WIDTH * 4 / 1024:.1f} KiB in" in printed
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(UserError, match="The features of 7 items need about .* 1000 B free. Choose a folder"):
        features_of(Encoder(), tmp_path / "other", pictures)
    assert len(Encoder().cache(tmp_path / "other").store) == 0


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (torch.zeros(2, 3, 4), "for 7 items"),
        (torch.zeros(7, 4), r"\[\(4,\)"),
        ([1] * 7, r"\['int'"),
        (None, "NoneType"),
    ],
)
def test_an_encoder_that_returns_something_else(tmp_path, pictures, output, shown):
    with pytest.raises(UserError, match=f"The encoder returned .*{shown}.*Use a function that returns"):
        Encoder().cache(tmp_path).features(pictures, lambda _: output, progress=False)


def test_a_batch_size_of_nothing(tmp_path, pictures):
    with pytest.raises(UserError, match="batch_size is 0. Use at least 1"):
        features_of(Encoder(), tmp_path, pictures, batch_size=0)


class Bytes:
    """A slow encoder that gives sums of bytes: torch's own kernels may not run in forked processes."""

    def __init__(self):
        self.seen = 0

    def __call__(self, paths):
        time.sleep(0.05)
        self.seen += len(paths)
        return [torch.full((2, 3), float(sum(Path(path).read_bytes()))) for path in paths]

    def cache(self, folder):
        return FeatureCache(folder, FeatureIdentity(encoder={"name": "sums"}, transform={}, dtype="float32"))


@pytest.fixture
def workers(tmp_path):
    """Starts processes that fill one cache, together, from the pictures of the folder ``many``."""
    paths = draw(tmp_path / "many", 24)
    context = multiprocessing.get_context("fork")  # a fresh interpreter takes seconds to import torch
    start, results, started = context.Event(), context.Queue(), []

    def work():
        encoder = Bytes()
        start.wait()
        found = encoder.cache(tmp_path / "cache").features(paths, encoder, batch_size=2, progress=False)
        results.put((encoder.seen, float(sum(one.sum() for one in found))))

    def run(count):
        started.extend(context.Process(target=work) for _ in range(count))
        for process in started:
            process.start()
        start.set()
        return started, results, paths

    yield run
    for process in started:
        process.kill()
        process.join()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@needs_fork
@forks
def test_processes_share_the_work(workers):
    processes, results, _ = workers(2)
    outputs = [results.get(timeout=60) for _ in processes]
    computed = [seen for seen, _ in outputs]
    assert sum(computed) == 24  # each picture once
    assert min(computed) > 0
    assert outputs[0][1] == outputs[1][1]


@needs_fork
@forks
def test_a_killed_run_leaves_its_work_to_the_next(workers, tmp_path):
    (process,), _, paths = workers(1)
    cache = Bytes().cache(tmp_path / "cache")
    deadline = time.monotonic() + 60
    while len(cache.store) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
        cache.store.refresh()
    process.kill()
    process.join()
    cache.store.refresh()
    done = len(cache.store)
    assert 6 <= done < 24
    encoder = Bytes()
    found = cache.features(paths, encoder, batch_size=2, progress=False)
    assert encoder.seen == 24 - done
    assert torch.equal(torch.stack(list(found)), torch.stack(Bytes()(paths)))
