"""Drawn and spoken digits in one space: real encoders that never met, and an alignment learned from pairs.

Command:   llama-adapter evaluate zero-shot --model digit_space:latest --folder runs/sound-digits/spoken
           --modality audio --examples runs/sound-digits/drawn   (with examples/ on PYTHONPATH)
Needs:     examples/sound_digits.py ran before

As in ImageBind the images' side is fixed first, and the sounds are brought to it: the images' space is
EfficientNet-Lite0's features behind a whitening map that is found without labels, and a linear map takes
Whisper's features there, trained by contrasting pairs of a spoken and a drawn digit.

Dimensions: R records, C width of an encoder's features, E width of the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0 import DEFAULT_FILE, TIMM_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperFeatureExtractor, WhisperModel
from whisper_tiny import DEFAULT_FOLDER, RATE

from imagebind_llm.processing.audio import read_sound
from llama_adapter.data.feature_cache import FeatureCache, FeatureIdentity
from llama_adapter.data.identity import encoder_identity
from llama_adapter.vision import VisionConfig, VisionEncoder, load_encoder

SPACE_FILE = Path("runs/sound-digits/space.safetensors")
IMAGE_ENCODER = VisionConfig(
    kind="timm", name_or_path=TIMM_NAME, weights=str(DEFAULT_FILE), output="global", stored_dtype="float32"
)
SECONDS = 2
"""Whisper hears this much of a file instead of 30 seconds, for speed; positions beyond are cut off."""
_SAMPLES_PER_PLACE = 320


class SoundEncoder:
    """Whisper's encoder; a sound's feature is the mean over the places that hold sound."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.model = WhisperModel.from_pretrained(folder).encoder.eval()
        self.places = SECONDS * RATE // _SAMPLES_PER_PLACE
        table = nn.Embedding(self.places, self.model.config.d_model)
        table.weight.data.copy_(self.model.embed_positions.weight[: self.places])
        self.model.embed_positions = table
        self.model.config.max_source_positions = self.places

    @torch.no_grad()
    def encode(self, paths: Sequence[Any]) -> Tensor:
        """Features (R, 1, C) of sound files."""
        sounds = [read_sound(path, RATE)[0].numpy()[: SECONDS * RATE] for path in paths]
        mel = self.extractor(
            sounds, sampling_rate=RATE, return_tensors="pt", padding="max_length", max_length=SECONDS * RATE
        )
        heard = self.model(mel.input_features).last_hidden_state
        ends = [max(1, -(-len(sound) // _SAMPLES_PER_PLACE)) for sound in sounds]
        return torch.stack([row[:end].mean(0, keepdim=True) for row, end in zip(heard, ends, strict=True)])

    def features(self, paths: Sequence[str], cache: Path) -> dict[str, Tensor]:
        """Features by path, kept on disk."""
        identity = FeatureIdentity(
            encoder=encoder_identity(self.model), transform={"seconds": SECONDS}, dtype="float32"
        )
        table = FeatureCache(cache, identity).table(list(paths), self.encode, batch_size=12)
        return {name: table[name][0].float() for name in paths}


def image_features(paths: Sequence[str], cache: Path) -> dict[str, Tensor]:
    """Features of picture files by path, kept on disk."""
    table = load_encoder(IMAGE_ENCODER).features(list(paths), cache)
    return {name: table[name][0].float() for name in paths}


@dataclass
class Alignment:
    """From features of both sides to one space."""

    image_mean: Tensor
    """(C,) of the images' features."""
    image_map: Tensor
    """(C, E) whitens them."""
    sound_mean: Tensor
    """(C,)"""
    sound_std: Tensor
    """(C,)"""
    sound_map: Tensor
    """(C, E) trained."""

    def images(self, features: Tensor) -> Tensor:
        """Unit vectors (R, E) of images' features (R, C)."""
        return functional.normalize((features - self.image_mean) @ self.image_map, dim=-1)

    def sounds(self, features: Tensor) -> Tensor:
        """Unit vectors (R, E) of sounds' features (R, C)."""
        return functional.normalize((features - self.sound_mean) / self.sound_std @ self.sound_map, dim=-1)

    def save(self, path: Path) -> None:
        """Write all tensors."""
        save_file({one.name: getattr(self, one.name).contiguous() for one in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "Alignment":
        """Read what ``save`` wrote."""
        return cls(**load_file(path))


def start_alignment(images: Tensor, sounds: Tensor, width: int, seed: int) -> Alignment:
    """The images' space, and a random map of the sounds into it.

    Args:
        images: features (R, C) of training images; their whitening is fixed here, without labels.
        sounds: features (R, C) of training sounds.
        width: E.
        seed: of the random map.
    """
    mean = images.mean(0)
    _, scales, directions = torch.linalg.svd(images - mean, full_matrices=False)
    whitening = directions[:width].T / scales[:width] * len(images) ** 0.5
    start = torch.randn(sounds.shape[1], width, generator=torch.Generator().manual_seed(seed))
    return Alignment(mean, whitening, sounds.mean(0), sounds.std(0), start / sounds.shape[1] ** 0.5)


def align(
    alignment: Alignment, images: dict[int, Tensor], sounds: dict[int, Tensor], seed: int, steps: int = 400
) -> list[float]:
    """Trains the sounds' map by contrast: of ten drawn digits, which belongs to this sound?

    Args:
        alignment: changed in place.
        images: digit -> features (R, C) of its pictures; a pair is any picture of the digit that is spoken.
        sounds: digit -> features (R, C) of its sounds.
        seed: of the pairs.
        steps: of training.

    Returns:
        The losses.
    """
    chance = torch.Generator().manual_seed(seed)
    seen = {digit: alignment.images(features) for digit, features in images.items()}
    weight = alignment.sound_map.clone().requires_grad_()
    alignment.sound_map = weight
    optimizer = torch.optim.AdamW([weight], lr=3e-3, weight_decay=0.1)
    losses = []
    for _ in range(steps):
        drawn = torch.stack([_some(rows, 16, chance) for rows in seen.values()], 1)
        spoken = torch.stack([_some(sounds[digit], 16, chance) for digit in seen], 1)
        logits = torch.einsum("gse,gde->gsd", alignment.sounds(spoken), drawn) / 0.1
        target = torch.arange(len(seen)).expand(len(logits), -1)
        loss = (functional.cross_entropy(logits.mT, target) + functional.cross_entropy(logits, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    alignment.sound_map = weight.detach()
    return losses


def _some(rows: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """Random rows."""
    return rows[torch.randint(len(rows), (count,), generator=chance)]


class DigitSpace:
    """Both sides behind the interface that `evaluate zero-shot` knows."""

    modalities = ("image", "audio")

    def __init__(self, alignment: Alignment, known: dict[str, Tensor] | None = None) -> None:
        """Takes features (C,) that are known already, by path."""
        self.alignment, self.known = alignment, known or {}

    @cached_property
    def eyes(self) -> VisionEncoder:
        """The images' encoder."""
        return load_encoder(IMAGE_ENCODER)

    @cached_property
    def ears(self) -> SoundEncoder:
        """The sounds' encoder."""
        return SoundEncoder()

    def load(self, modality: str, content: str | Path) -> Tensor:
        """Features of one file."""
        path = str(content)
        if path not in self.known:
            encoder = self.eyes if modality == "image" else self.ears
            self.known[path] = encoder.encode([path])[0, 0].float()
        return self.known[path]

    def embed(self, modality: str, loaded: list[Tensor]) -> Tensor:
        """Unit vectors."""
        side = self.alignment.images if modality == "image" else self.alignment.sounds
        return side(torch.stack(loaded))


def latest(device: torch.device) -> DigitSpace:
    """The space of the last run of the study; a CPU is enough whatever the device."""
    return DigitSpace(Alignment.load(SPACE_FILE))
