"""Thousands of damaged files of every format: what comes out is a message of ours, or tensors."""

import argparse
import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llama_adapter.checkpoints.reading import read_checkpoint
from llama_adapter.errors import UserError
from llama_adapter.file_formats.json_file import read_object
from tests.faults.mutations import check, little_memory, mutants

WEIGHTS = {"layers.0.weight": torch.arange(8.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}
CONTENT = {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "epoch": 3}


def written(name):
    """A sound file of a format, by its name."""
    if name == "archive.pth":
        torch.save(CONTENT, name)
    elif name == "older.pth":
        torch.save(CONTENT, name, _use_new_zipfile_serialization=False)
    elif name == "plain.safetensors":
        save_file(WEIGHTS, name, metadata={"format": "pt"})
    else:
        Path(name).write_text(json.dumps({"model_type": "llama", "sizes": [1, 2], "inner": {"a": None}}))
    return Path(name).read_bytes()


def read(name, verify):
    return read_object(name) if name.endswith("json") else read_checkpoint(name, verify).tensors


def fuzz(name, count):
    """Read damaged forms of a file; returns how many were refused."""
    verify = itertools.cycle([True, False])

    def reader(path):
        try:
            read(path.name, verify=next(verify))
        except UserError as error:
            if "out of memory" in str(error):
                raise AssertionError(f"{name} asked for too much: {error}") from error
            raise

    sound = written(name)
    with little_memory(2**30):  # a file of 2 kB has no use for a GB
        return check(reader, Path(name), mutants(sound, count))["named"]


FORMATS = ["archive.pth", "older.pth", "plain.safetensors", "settings.json"]


@pytest.mark.filterwarnings("ignore")  # torch warns of pickle protocols
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_named(name):
    assert fuzz(name, 150) > 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files_are_named(name):
    assert fuzz(name, 10_000) > 3000
