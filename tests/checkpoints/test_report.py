"""What a conversion says of the tensors, and how it refuses."""

import pytest
import torch
from rich.console import Console

from llama_adapter.checkpoints.report import ConversionReport, check_complete, summary
from llama_adapter.errors import UserError


def test_layer_numbers_are_folded():
    names = [f"layers.{layer}.attention.gate" for layer in range(32)]
    assert summary([*names, "norm.weight"]) == "layers.*.attention.gate (32), norm.weight"
    assert summary(f"name{index}" for index in range(9)).endswith(", and 3 kinds more")


def test_every_group_is_printed():
    report = ConversionReport(
        used=["a"], set_aside={"unused": ["b"]}, ignored={"frozen": ["c", "d"]}, notes=["Careful."]
    )
    console = Console(width=100, record=True)
    report.print(console)
    said = console.export_text()
    for words in ("used", "kept aside: unused", "ignored: frozen", "c, d", "missing", "Careful."):
        assert words in said


def test_a_complete_file_passes():
    check_complete({"a": (2,)}, {"a": torch.zeros(2), "more": torch.zeros(1)}, "x.pth", "Use another.")


def test_missing_and_misshapen_tensors_are_listed_with_what_is_alike():
    found = {"layers.0.wq.bias": torch.zeros(3), "norm": torch.zeros(2)}
    wanted = {"layers.0.wq_bias": (3,), "norm": (5,)}
    with pytest.raises(UserError) as error:
        check_complete(wanted, found, "x.pth", "Use another.")
    assert "'x.pth' lacks 2 of 2 tensors" in str(error.value)
    assert "layers.0.wq_bias (3) is missing; nearest: layers.0.wq.bias (3)" in str(error.value)
    assert "norm has shape (2), not (5)" in str(error.value)


def test_long_lists_are_cut():
    with pytest.raises(UserError, match="and 14 more"):
        check_complete({f"w{index}": (1,) for index in range(20)}, {}, "x.pth", "Use another.")
