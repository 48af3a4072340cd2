"""Peak memory and time of `convert --kind sphinx` there and back, at a released model's full size.

Random bits stand for the weights, and what comes back must be equal. Needs four times the model's size on the
disk, and its size in memory to write the first file.

python -m tests.sphinx_ft.measure_conversion [--variant sphinx-tiny]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from sphinx_ft.official_files import stored_tensors
from sphinx_ft.official_names import PREFIX
from sphinx_ft.official_settings import official_settings
from sphinx_ft.variants import variant_config
from tests.checkpoints.measure_memory import measured


def write(folder, variant):
    """A released folder of one file in bfloat16; returns how many parameters there are."""
    config = variant_config(variant)
    folder.mkdir()
    for name, content in official_settings(config).items():
        (folder / name).write_text(json.dumps(content))
    tensors = {
        PREFIX + one.name: torch.randint(-(2**15), 2**15, one.shape, dtype=torch.int16).view(torch.bfloat16)
        for one in stored_tensors(config, [])
    }
    torch.save({"model": tensors}, folder / "consolidated.00-of-01.model.pth")
    return sum(tensor.numel() for tensor in tensors.values())


def equal(first, second):
    """Whether two folders hold the same bits."""
    one, two = (
        torch.load(folder / "consolidated.00-of-01.model.pth", mmap=True, weights_only=True)["model"]
        for folder in (first, second)
    )
    return one.keys() == two.keys() and all(
        torch.equal(one[name].view(torch.int16), two[name].view(torch.int16)) for name in one
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="sphinx-tiny")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as name:
        place = Path(name)
        count = write(place / "released", options.variant)
        sys.stdout.write(f"{options.variant}: {count / 1e9:.2f} billion parameters\n")
        there = measured("sphinx", place / "released", place / "ours")
        back = measured("sphinx", place / "ours", place / "back", reverse=True)
        for way, found in (("there", there), ("back", back)):
            for key, value in found.items():
                sys.stdout.write(f"{way}, {key}: {value:.2f}\n")
        sys.stdout.write(f"equal: {equal(place / 'released', place / 'back')}\n")
