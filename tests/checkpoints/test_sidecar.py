"""The file for what our format has no place for."""

import pytest
import torch
from safetensors.torch import save_file

from llama_adapter.checkpoints.sidecar import SIDECAR_FILE, Sidecar
from llama_adapter.errors import UserError


def test_what_is_written_is_read(tmp_path):
    Sidecar(layout={"prefix": "llama.", "config": None}, tensors={"rope.freqs": torch.ones(3)}).write(
        tmp_path
    )
    back = Sidecar.read(tmp_path)
    assert back.layout == {"prefix": "llama.", "config": None}
    assert torch.equal(back.tensors["rope.freqs"], torch.ones(3))


def test_none_is_none_and_a_damaged_or_later_one_is_refused(tmp_path):
    assert Sidecar.read(tmp_path) is None
    (tmp_path / SIDECAR_FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        Sidecar.read(tmp_path)
    save_file({}, tmp_path / SIDECAR_FILE, metadata={"format": "9", "layout": "{}"})
    with pytest.raises(UserError, match="format '9'"):
        Sidecar.read(tmp_path)
