"""Files of every modality, classified by tiny ImageBind towers, and by encoders of a test's own."""

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.processor import ImageBindProcessor
from imagebind_llm.zero_shot.classes import read_classes
from imagebind_llm.zero_shot.task import ZeroShotConfig, evaluate_space, zero_shot
from llama_adapter import UserError
from llama_adapter.cli import main
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.processing.test_video import write_video

MODALITIES = ("image", "video", "text", "audio", "depth", "thermal", "imu", "point")
CLASSES = ("dog", "living_room", "train")


def write_one(modality, folder, seed):
    """A file of a modality."""
    random = np.random.default_rng(seed)
    if modality in ("image", "thermal"):
        shape = (24, 30, 3) if modality == "image" else (24, 30)
        Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8)).save(folder / "a.png")
    elif modality == "video":
        write_video(folder / "a.mp4", random.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8))
    elif modality == "text":
        (folder / "a.txt").write_text(f"A {folder.name.replace('_', ' ')}.\n\n")
    elif modality == "audio":
        soundfile.write(
            folder / "a.wav", random.normal(size=16000) * np.linspace(0, seed + 1, 16000) / 20, 16000
        )
    else:
        shapes = {"depth": (30, 40), "imu": (6, 2000), "point": (60, 3)}
        np.save(folder / "a.npy", random.normal(size=shapes[modality]) * (1 + seed) + 2)


def write_classes(root, modality, names=CLASSES):
    for seed, name in enumerate(names):
        (root / name).mkdir(parents=True)
        write_one(modality, root / name, seed)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with all towers, random."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    ImageBindProcessor(ProcessorConfig(video_clips=1)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_class_that_is_shown_by_its_own_file_is_found(model, tmp_path, modality):
    data = str(write_classes(tmp_path / "data", modality))
    config = ZeroShotConfig(
        model=model,
        folder=data,
        modality=modality,
        examples=data,
        examples_modality=modality,
        output=str(tmp_path / "out.json"),
    )
    assert zero_shot(config) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["scores"]["top-1"] == 100
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_classify_from_the_command_line(model, tmp_path, modality, capsys):
    data = str(write_classes(tmp_path / "data", modality))
    output = tmp_path / "out.json"
    words = ["evaluate", "zero-shot", "--model", model, "--folder", data, "--modality", modality]
    assert main([*words, "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    lines = [json.loads(line) for line in (tmp_path / "out.items.jsonl").read_text().splitlines()]
    assert [line["class"] for line in lines] == list(CLASSES)
    assert found["counts"]["top-1"] == 3
    assert found["classes"]["living_room"] == ["living room"]
    assert sum(map(sum, found["confusion"])) == 3
    right = [line["rank"] == 1 for line in lines]
    assert [line["correct"] for line in lines] == right
    assert found["correct"]["top-1"] == sum(right)
    assert "'A {}.'" in capsys.readouterr().out
    if modality == "text":  # the lines are the prompts themselves
        assert all(right)


class Colours:
    """A space of three directions: pictures by their brightest colour, texts by a colour's name."""

    modalities = ("image", "text")
    words = ("red", "green", "blue")

    def load(self, modality, content):
        if modality == "image" and "broken" in str(content):
            raise UserError(f"{content!s} is broken. Replace it.")
        return content

    def embed(self, modality, loaded):
        return torch.stack([self.one(modality, content) for content in loaded])

    def one(self, modality, content):
        if modality == "image":
            return torch.tensor(np.asarray(Image.open(content)), dtype=torch.float32).mean((0, 1))
        return torch.tensor([float(word in content) for word in self.words]) + 0.01


def paint(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), colour).save(path)


def test_accuracies_confusion_and_lines_of_known_answers(tmp_path):
    paint(tmp_path / "red/1.png", (200, 0, 0))
    paint(tmp_path / "red/2.png", (0, 200, 100))  # blue is second, red last
    paint(tmp_path / "green/deep/3.png", (50, 200, 0))
    paint(tmp_path / "green/.hidden.png", (0, 0, 0))
    (tmp_path / "green/broken.png").touch()
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"red": ["red", "crimson red"], "green": "green", "blue": "blue"}))
    classes = read_classes(tmp_path, names=str(names))
    config = ZeroShotConfig(
        model="", folder=str(tmp_path), modality="image", names=str(names), template=["a {} thing"]
    )
    scores, content = evaluate_space(Colours(), classes, config)
    assert scores.value("top-1") == pytest.approx(100 * 2 / 3)
    assert scores.value("mean over classes") == 75
    assert scores.value("chance") == pytest.approx(100 / 3)
    assert (scores.value("red"), scores.value("green")) == (50, 100)
    assert content["scores"]["blue"] is None  # a choice without records
    assert content["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert [(item["id"], item["predicted"], item["rank"]) for item in scores.items] == [
        ("red/1.png", "red", 1),
        ("red/2.png", "green", 3),
        ("green/deep/3.png", "green", 1),
    ]
    assert [entry["id"] for entry in content["unreadable"]] == ["green/broken.png"]
    assert "1 of 4 files cannot be read and are not scored" in scores.notes[1]
    assert "broken.png is broken" in scores.notes[1]


def test_top_5_counts_the_right_class_among_the_first_five(tmp_path):
    names = [f"class {number}" for number in range(7)]

    class Circle:
        """Classes at rising angles; records lie at the first class."""

        modalities = ("image", "text")

        def load(self, modality, content):
            return 0 if modality == "image" else int(str(content).split()[2][0])

        def embed(self, modality, loaded):
            angles = torch.tensor(loaded, dtype=torch.float32) / 10
            return torch.stack([angles.cos(), angles.sin()], 1)

    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    config = ZeroShotConfig(model="", folder=str(tmp_path), modality="image", batch_size=2)
    scores, _ = evaluate_space(Circle(), read_classes(tmp_path), config)
    assert scores.value("top-1") == pytest.approx(100 / 7)
    assert scores.value("top-5") == pytest.approx(500 / 7)
    assert [item["rank"] for item in scores.items] == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_readable_names_the_reason(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red/broken.png").touch()
    config = ZeroShotConfig(model="", folder=str(tmp_path), modality="image")
    with pytest.raises(
        UserError, match="None of the 1 files .* can be read as image. The first: .*broken.png is"
    ):
        evaluate_space(Colours(), read_classes(tmp_path), config)


def test_a_class_without_an_example_is_named(tmp_path):
    for folder in ("data/red", "data/green", "shown/red"):
        paint(tmp_path / folder / "1.png", (9, 0, 0))
    paint(tmp_path / "shown/other/1.png", (9, 0, 0))
    config = ZeroShotConfig(
        model="", folder=str(tmp_path / "data"), modality="image", examples=str(tmp_path / "shown")
    )
    with pytest.raises(UserError, match="no image for the class 'green'"):
        evaluate_space(Colours(), read_classes(tmp_path / "data"), config)


def test_settings_that_do_not_go_together():
    with pytest.raises(UserError, match="ensemble is about names"):
        ZeroShotConfig(model="m", folder="f", modality="image", ensemble=True, examples="e")
    with pytest.raises(UserError, match="batch_size is 0"):
        ZeroShotConfig(model="m", folder="f", modality="image", batch_size=0)


def test_of_many_classes_the_weakest_are_printed(tmp_path, capsys):
    for number in range(45):
        paint(tmp_path / f"red {number:02}" / "1.png", (200, 0, 0))
    words = ["evaluate", "zero-shot", "--model", f"{__name__}:Bright", "--folder", str(tmp_path)]
    assert main([*words, "--modality", "image"]) == 0
    printed = capsys.readouterr().out
    assert "40 classes with the lowest accuracy of 45" in printed
    assert "red 44" not in printed or "red 01" in printed


class Bright(Colours):
    """The same, made for a device."""

    def __init__(self, device):
        self.device = device
