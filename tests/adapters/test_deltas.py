"""Linear deltas: what all kinds keep (``delta_contract.py``), also kinds with state of their own."""

import inspect
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

from llama_adapter import UserError
from llama_adapter.adapters import deltas
from llama_adapter.adapters.linear import ZeroInitLinear
from tests.adapters.delta_contract import CHECKS

OPTIONS = {"lora": ({"rank": 2}, {"rank": 5})}
"""Two mappings of options per kind; kinds without options of their own differ in weights alone."""


@dataclass(kw_only=True)
class FrozenRandomConfig(deltas.DeltaConfig):
    """A low-rank map through frozen random matrices, as VeRA (arXiv 2310.11454)."""

    kind: Literal["frozen_random"] = "frozen_random"
    rank: int = 3
    seed: int = 0
    strength: float = 1.0


class FrozenRandom(deltas.Delta):
    """State besides parameters: buffers that a seed makes, and a setting that the module keeps."""

    applies_to_prompts = False
    neutral: ClassVar[dict[str, float] | None] = {"inner": 0.0, "outer": 0.0}

    def __init__(self, config, in_features, out_features):
        super().__init__(config, in_features, out_features)
        generator = torch.Generator().manual_seed(config.seed)
        with torch.device("cpu"):
            self.register_buffer(
                "down", torch.randn(config.rank, in_features, generator=generator), persistent=False
            )
            self.register_buffer(
                "up", torch.randn(out_features, config.rank, generator=generator), persistent=False
            )
        self.strength = config.strength
        self.inner = nn.Parameter(torch.full((config.rank,), 0.1))
        self.outer = nn.Parameter(torch.zeros(out_features))

    def on_output(self, y, x):
        inner = nn.functional.linear(x, self.down.to(x.dtype)) * self.inner.to(x.dtype)
        outer = nn.functional.linear(inner, self.up.to(x.dtype)) * self.outer.to(x.dtype)
        return y + self.strength * outer.to(y.dtype)

    def fold_output(self, weight, bias):
        product = (self.outer[:, None] * self.up) @ (self.inner[:, None] * self.down)
        return weight + self.strength * product.to(weight.dtype), bias


class Stretch(deltas.Delta):
    """Has no neutral values: rows cannot share an operation; computes through a method and a property."""

    def __init__(self, config, in_features, out_features):
        super().__init__(config, in_features, out_features)
        self.more = nn.Parameter(torch.zeros(out_features))

    @property
    def factor(self):
        return 1 + self.more

    def on_output(self, y, x):
        return self._stretched(y)

    def _stretched(self, y):
        return y * self.factor.to(y.dtype)

    def fold_output(self, weight, bias):
        factor = self.factor.to(weight.dtype)
        return weight * factor[:, None], None if bias is None else bias * factor


class Shift(deltas.Delta):
    """Shares an operation, through a method and a property, which must see every row's values."""

    adds_bias = True
    neutral: ClassVar[dict[str, float] | None] = {"value": 0.0}

    def __init__(self, config, in_features, out_features):
        super().__init__(config, in_features, out_features)
        self.value = nn.Parameter(torch.zeros(out_features))

    @property
    def doubled(self):
        return self.value * 2

    def _shift(self, y):
        return y + self.doubled.to(y.dtype)

    def on_output(self, y, x):
        return self._shift(y)

    def fold_output(self, weight, bias):
        value = self.doubled.to(weight.dtype)
        return weight, value if bias is None else bias + value


OF_OTHERS = {
    "frozen_random": (FrozenRandomConfig, FrozenRandom),
    "stretch": (deltas.DeltaConfig, Stretch),
    "shift": (deltas.DeltaConfig, Shift),
}
OPTIONS_OF_OTHERS = {
    "frozen_random": [
        ({"seed": 0}, {"seed": 1}),
        ({"rank": 2}, {"rank": 5}),
        ({"strength": 1.0}, {"strength": -2.0}),
        ({"seed": 3}, {"seed": 3}),
    ]
}


@pytest.fixture
def of_others(monkeypatch):
    """Kinds as other packages register them."""
    monkeypatch.setattr(deltas, "DELTAS", deltas.DELTAS)
    for kind, (config, module) in OF_OTHERS.items():
        monkeypatch.setitem(deltas.DELTAS, kind, (config, module))


@pytest.mark.usefixtures("of_others")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [*sorted(deltas.DELTAS), *OF_OTHERS])
def test_every_delta_keeps_the_contract(kind, check, tmp_path):
    arguments = {"folder": tmp_path} if "folder" in inspect.signature(check).parameters else {}
    for one, other in OPTIONS_OF_OTHERS.get(kind, [OPTIONS.get(kind, ({}, {}))]):
        check(kind, one, other, **arguments)


def test_lora_has_no_alpha_over_rank_factor():
    lora = deltas.Lora(deltas.LoraConfig(rank=2), 6, 4)
    torch.nn.init.normal_(lora.up)
    x, y = torch.randn(3, 6), torch.randn(3, 4)
    torch.testing.assert_close(lora.on_output(y, x), y + x @ lora.down.T @ lora.up.T)


def test_a_delta_is_written_as_kind_mapping_or_config():
    config = deltas.LoraConfig(rank=3, exclude=["q_proj"])
    assert deltas.parse_delta("lora") == deltas.LoraConfig()
    assert deltas.parse_delta({"kind": "lora", "rank": 3, "exclude": ["q_proj"]}) == config
    assert deltas.parse_delta(config) is config


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dora", r"Unknown delta 'dora'\. Use one of \['bias', 'input_scale', 'lora', 'output_scale'\]"),
        ({"rank": 3}, r"Unknown delta None\. Use one of"),
        ({"kind": "bias", "rank": 3}, r"'bias' delta does not take \['rank'\]\. Use only"),
        ({"kind": "lora", "rank": 0}, r"rank=0 of the lora delta is too small\. Set it to at least 1"),
    ],
)
def test_wrong_deltas_are_named(value, message):
    with pytest.raises(UserError, match=message):
        deltas.parse_delta(value)


def test_a_new_delta_needs_one_registration(monkeypatch):
    monkeypatch.setattr(deltas, "DELTAS", dict(deltas.DELTAS))

    @deltas.register_delta("negate", deltas.DeltaConfig)
    class Negate(deltas.Delta):
        pass

    assert deltas.parse_delta("negate").kind == "negate"


def test_a_delta_with_modules_inside_is_refused_since_its_file_would_lack_them(monkeypatch):
    class Inside(deltas.Delta):
        def __init__(self, config, in_features, out_features):
            super().__init__(config, in_features, out_features)
            self.inner = nn.Linear(in_features, out_features)

    monkeypatch.setitem(deltas.DELTAS, "inside", (deltas.DeltaConfig, Inside))
    with pytest.raises(
        UserError, match="Inside delta has modules inside, 'inner'.*parameters of the delta itself"
    ):
        ZeroInitLinear(nn.Linear(4, 4)).add_delta("default", deltas.DeltaConfig(kind="inside"))
