"""Reading files that others wrote: what they may hold, and what is refused and why."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llama_adapter.checkpoints.reading import read_checkpoint
from llama_adapter.errors import UserError

WEIGHTS = {"a": torch.arange(8.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}


class Harmful:
    """Would create a file when unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm-was-done",)


def same(found):
    return found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in found)


def test_flat_wrapped_and_legacy_files_and_safetensors_hold_the_same():
    torch.save(WEIGHTS, "flat.pth")
    torch.save(WEIGHTS, "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, "plain.safetensors")
    options = argparse.Namespace(lr=0.1)
    torch.save({"model": WEIGHTS, "args": options, "epoch": 3}, "training.pth")
    for name in ("flat.pth", "legacy.pth", "plain.safetensors", "training.pth"):
        assert same(read_checkpoint(name).tensors), name
    training = read_checkpoint("training.pth")
    assert (training.container, training.beside) == ("model", {"args": options, "epoch": 3})


def test_code_is_refused_and_not_run(tmp_path):
    torch.save(WEIGHTS | {"x": Harmful()}, "harmful.pth")
    with pytest.raises(UserError, match=r"wants to run code \('posix.mkdir'\)"):
        read_checkpoint("harmful.pth")
    Path("plain.pickle").write_bytes(pickle.dumps({"x": Harmful()}, protocol=2))
    with pytest.raises(UserError, match="cannot be read safely"):
        read_checkpoint("plain.pickle")
    assert not (tmp_path / "harm-was-done").exists()


def damaged(name, change):
    Path(f"damaged-{name}").write_bytes(change(bytearray(Path(name).read_bytes())))
    return f"damaged-{name}"


def test_truncated_files_are_refused():
    torch.save(WEIGHTS, "flat.pth")
    torch.save(WEIGHTS, "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, "plain.safetensors")
    for name in ("flat.pth", "legacy.pth", "plain.safetensors"):
        for kept in (0, 5, 60, -9):
            with pytest.raises(UserError, match=r"truncated|damaged"):
                read_checkpoint(damaged(name, lambda content, kept=kept: content[:kept]))


def test_a_flipped_bit_is_noticed_unless_the_check_is_off():
    torch.save(WEIGHTS, "flat.pth")

    def flip(content):
        content[content.find(WEIGHTS["a"].numpy().tobytes()) + 6] ^= 1
        return content

    name = damaged("flat.pth", flip)
    with pytest.raises(UserError, match="checksum of 'flat/data/0' differs"):
        read_checkpoint(name)
    assert not same(read_checkpoint(name, verify=False).tensors)


def test_what_holds_no_named_tensors_is_refused():
    torch.save([1, 2], "list.pth")
    torch.save({"epoch": 3}, "none.pth")
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint("list.pth")
    with pytest.raises(UserError, match=r"no tensors, only \['epoch'\]"):
        read_checkpoint("none.pth")


def test_a_missing_file_names_its_neighbours():
    torch.save(WEIGHTS, "flat.pth")
    with pytest.raises(UserError, match=r"is no file. Use one of its files: \['flat.pth'\]"):
        read_checkpoint("float.pth")
    with pytest.raises(UserError, match="is a folder"):
        read_checkpoint(".")
