"""Files of torch.save that lie about themselves: one message each, and no memory taken on their word."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from llama_adapter.checkpoints.reading import read_checkpoint
from llama_adapter.cli import main
from llama_adapter.errors import UserError
from llama_adapter.file_formats.torch_file import check_torch_file, read_torch_file
from tests.tiny import tiny_llama

DAMAGED = sorted((Path(__file__).parent / "damaged").glob("*.pth"))


@pytest.mark.filterwarnings("ignore")  # torch warns of pickle protocols
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("path", DAMAGED, ids=lambda path: path.stem)
def test_every_known_kind_of_damage_is_one_message(path, verify):
    with pytest.raises(UserError) as error:
        read_checkpoint(path, verify)
    said = str(error.value)
    assert repr(str(path)) in said
    assert "damage" in said
    assert "\n" not in said


def rewritten(source, target, change):
    """An archive again, its entries passed through ``change(name, content)``, which may give None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)


def saved(path="sound.pth", **options):
    torch.save(OrderedDict(a=torch.arange(8.0), b=torch.ones(4, dtype=torch.int8)), path, **options)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_archive_is_refused(compression):
    with zipfile.ZipFile(saved()) as old, zipfile.ZipFile("packed.pth", "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match=r"packed.pth' is damaged .*is compressed or encrypted"):
        read_torch_file("packed.pth")


def test_a_storage_that_is_short_or_gone_is_named():
    saved()
    rewritten(
        "sound.pth", "short.pth", lambda name, content: content[:8] if name.endswith("data/0") else content
    )
    with pytest.raises(UserError, match="its storage '0' of 32 bytes is 8 bytes long"):
        read_torch_file("short.pth")
    rewritten("sound.pth", "gone.pth", lambda name, content: None if name.endswith("data/1") else content)
    with pytest.raises(UserError, match="its storage '1' of 4 bytes is missing"):
        read_torch_file("gone.pth")


def test_a_storage_larger_than_the_file_takes_no_memory():
    saved("older.pth", _use_new_zipfile_serialization=False)
    content = Path("older.pth").read_bytes()
    huge = content.replace(b"K\x08N", b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"N", 1)
    assert huge != content
    Path("huge.pth").write_bytes(huge)
    with pytest.raises(UserError, match=r"truncated: 4398\d+ bytes of tensors are announced, \d+ are there"):
        read_torch_file("huge.pth")


def test_a_text_longer_than_the_file_takes_no_memory():
    Path("text.pth").write_bytes(b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"ab")
    with pytest.raises(UserError, match="text.pth' is damaged"):
        read_torch_file("text.pth")


def test_an_empty_file_and_a_plain_pickle_are_told_apart():
    Path("empty.pth").write_bytes(b"")
    with pytest.raises(UserError, match="empty.pth' is empty"):
        check_torch_file("empty.pth")
    Path("plain.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="plain.pth' cannot be read safely"):
        check_torch_file("plain.pth")


@pytest.mark.parametrize("older", [True, False])
def test_every_type_of_number_is_measured_right(older):
    kinds = ["float64", "float16", "bfloat16", "int64", "int16", "uint8", "bool", "complex64"]
    kinds += [] if older else ["float8_e4m3fn"]  # which torch itself writes but does not read there
    tensors = {kind: torch.ones(3).to(getattr(torch, kind)) for kind in kinds}
    torch.save(tensors, "kinds.pth", _use_new_zipfile_serialization=not older)
    back = read_torch_file("kinds.pth")
    assert all(back[kind].dtype == tensors[kind].dtype for kind in kinds)


def test_the_command_line_leaves_with_2_and_one_message(tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path / "base")
    words = ["convert", "--kind", "adapter-v1", "--base", str(tmp_path / "base"), "--output", "out"]
    assert main([*words, "--checkpoint", str(DAMAGED[0])]) == 2
    said = capsys.readouterr().err
    assert DAMAGED[0].name in said
    assert "Traceback" not in said
    assert not Path("out").exists()
