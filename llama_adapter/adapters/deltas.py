"""Linear deltas: bias, input scale, output scale and LoRA on a frozen linear map.

Each delta changes what goes into the map, what comes out of it, or both; it never touches the weight, so a
quantised base works. A new delta is a config and a module with one ``@register_delta`` line, in a file of its
own that ``adapters/__init__.py`` imports; ``tests/adapters/delta_contract.py`` checks what it must keep.

Sources: LLaMA-Adapter V2 (arXiv 2304.15010, section 3.1) for bias and scale; chat models scale the input,
LoRA has no alpha / rank factor, and prompts do not see it (docs/sources/llama-adapter.md#arithmetic, 3 to 6).

Dimensions: N input width, M output width, R rank; ``...`` any leading dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError

DELTAS: dict[str, tuple[type["DeltaConfig"], type["Delta"]]] = {}
"""Kind -> its config and its module."""


BLOCKS = ("attention", "mlp")
"""Halves of a layer."""


@dataclass(kw_only=True)
class DeltaConfig:
    """Which linear maps of the adapted layers get a delta."""

    kind: str = ""
    """Name of the delta, as registered."""
    targets: list[str] | None = None
    """Halves of the layer (attention, mlp) or names of linear maps such as q_proj; without them the adapter's
    target_modules, or both halves."""
    exclude: list[str] = field(default_factory=list)
    """Names of linear maps that ``targets`` would take and that stay as they are."""


class Delta(nn.Module):
    """One delta of one linear map. Starts as the identity, so that training starts from the base model."""

    applies_to_prompts: ClassVar[bool] = True
    """Whether prompts that pass through the map as keys and values see the delta."""
    adds_bias: ClassVar[bool] = False
    """Whether a map that had no bias has one after the delta was folded into it."""
    neutral: ClassVar[dict[str, float] | None] = None
    """Value of each parameter, in all its elements, under which the delta changes nothing; None where there
    is none. Where there is, adapters that differ in parameters alone share one operation per batch: the
    methods below are called with parameters of each row (R, ...), vectors as (R, 1, width), for inputs
    (R, T, ...). Otherwise each adapter's delta is called with its own rows."""

    def __init__(self, config: DeltaConfig, in_features: int, out_features: int) -> None:
        super().__init__()

    def on_input(self, x: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """What enters the map instead of ``x``."""
        return x

    def on_output(self, y: Float[Tensor, "... M"], x: Float[Tensor, "... N"]) -> Float[Tensor, "... M"]:
        """What leaves the map instead of ``y``; ``x`` is the map's input before any delta."""
        return y

    def fold_input(self, weight: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """The weight that does ``on_input`` as well."""
        return weight

    def fold_output(
        self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None
    ) -> tuple[Float[Tensor, "M N"], Float[Tensor, " M"] | None]:
        """The weight and bias that do ``on_output`` as well; inputs are folded in already."""
        return weight, bias


def register_delta(kind: str, config: type[DeltaConfig]) -> Callable[[type[Delta]], type[Delta]]:
    """Class decorator that makes a delta known under ``kind``."""

    def register(module: type[Delta]) -> type[Delta]:
        DELTAS[kind] = (config, module)
        return module

    return register


def parse_delta(value: "DeltaConfig | dict | str") -> DeltaConfig:
    """A delta's config from what users and adapter_config.json write.

    Args:
        value: a config, a mapping with the key ``kind``, or a kind alone.

    Raises:
        UserError: unknown kind or option.
    """
    if isinstance(value, DeltaConfig):
        return value
    options = {"kind": value} if isinstance(value, str) else dict(value)
    kind = options.get("kind")
    if kind not in DELTAS:
        raise UserError(f"Unknown delta {kind!r}. Use one of {sorted(DELTAS)}.")
    config = DELTAS[kind][0]
    if unknown := options.keys() - config.__dataclass_fields__.keys():
        known = list(config.__dataclass_fields__)
        raise UserError(f"The {kind!r} delta does not take {sorted(unknown)}. Use only {known}.")
    return config(**options)


@dataclass(kw_only=True)
class BiasConfig(DeltaConfig):
    """Adds a vector to the output: ``W x + b``."""

    kind: Literal["bias"] = "bias"
    """Always ``bias``."""


@register_delta("bias", BiasConfig)
class Bias(Delta):
    """``y + bias``; starts at 0."""

    adds_bias = True
    neutral: ClassVar[dict[str, float] | None] = {"value": 0.0}

    def __init__(self, config: DeltaConfig, in_features: int, out_features: int) -> None:
        super().__init__(config, in_features, out_features)
        self.value = nn.Parameter(torch.zeros(out_features))

    def on_output(self, y: Float[Tensor, "... M"], x: Float[Tensor, "... N"]) -> Float[Tensor, "... M"]:
        """Add the bias."""
        return y + self.value.to(y.dtype)

    def fold_output(
        self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None
    ) -> tuple[Float[Tensor, "M N"], Float[Tensor, " M"] | None]:
        """Add to the map's bias."""
        value = self.value.to(weight.dtype)
        return weight, value if bias is None else bias + value


@dataclass(kw_only=True)
class OutputScaleConfig(DeltaConfig):
    """Multiplies the output: ``s * (W x)``, as the V2 paper does."""

    kind: Literal["output_scale"] = "output_scale"
    """Always ``output_scale``."""


@register_delta("output_scale", OutputScaleConfig)
class OutputScale(Delta):
    """``scale * y``; starts at 1."""

    neutral: ClassVar[dict[str, float] | None] = {"value": 1.0}

    def __init__(self, config: DeltaConfig, in_features: int, out_features: int) -> None:
        super().__init__(config, in_features, out_features)
        self.value = nn.Parameter(torch.ones(out_features))

    def on_output(self, y: Float[Tensor, "... M"], x: Float[Tensor, "... N"]) -> Float[Tensor, "... M"]:
        """Scale the output."""
        return y * self.value.to(y.dtype)

    def fold_output(
        self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None
    ) -> tuple[Float[Tensor, "M N"], Float[Tensor, " M"] | None]:
        """Scale rows and bias."""
        value = self.value.to(weight.dtype)
        return weight * value[:, None], None if bias is None else bias * value


@dataclass(kw_only=True)
class InputScaleConfig(DeltaConfig):
    """Multiplies the input: ``W (s * x)``, as the released V2 chat models do."""

    kind: Literal["input_scale"] = "input_scale"
    """Always ``input_scale``."""


@register_delta("input_scale", InputScaleConfig)
class InputScale(Delta):
    """``W (scale * x)``; starts at 1."""

    neutral: ClassVar[dict[str, float] | None] = {"value": 1.0}

    def __init__(self, config: DeltaConfig, in_features: int, out_features: int) -> None:
        super().__init__(config, in_features, out_features)
        self.value = nn.Parameter(torch.ones(in_features))

    def on_input(self, x: Float[Tensor, "... N"]) -> Float[Tensor, "... N"]:
        """Scale the input."""
        return x * self.value.to(x.dtype)

    def fold_input(self, weight: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """Scale columns."""
        return weight * self.value.to(weight.dtype)


@dataclass(kw_only=True)
class LoraConfig(DeltaConfig):
    """Adds a low-rank map of the input: ``W x + B A x``; no alpha / rank factor, as the released V2.1."""

    kind: Literal["lora"] = "lora"
    """Always ``lora``."""
    rank: int = 16
    """Inner width R of the two matrices."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"rank={self.rank} of the lora delta is too small. Set it to at least 1.")


@register_delta("lora", LoraConfig)
class Lora(Delta):
    """``y + up(down(x))``; ``down`` starts Kaiming-uniform, ``up`` at 0."""

    applies_to_prompts = False
    neutral: ClassVar[dict[str, float] | None] = {"down": 0.0, "up": 0.0}

    def __init__(self, config: LoraConfig, in_features: int, out_features: int) -> None:
        super().__init__(config, in_features, out_features)
        self.down = nn.Parameter(torch.empty(config.rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, config.rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def on_output(self, y: Float[Tensor, "... M"], x: Float[Tensor, "... N"]) -> Float[Tensor, "... M"]:
        """Add the low-rank map of ``x``."""
        low = _through(self.down.to(x.dtype), x)
        return y + _through(self.up.to(x.dtype), low).to(y.dtype)

    def fold_output(
        self, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None
    ) -> tuple[Float[Tensor, "M N"], Float[Tensor, " M"] | None]:
        """Add the product of the two matrices."""
        return weight + self.up.to(weight.dtype) @ self.down.to(weight.dtype), bias


def _through(matrix: Float[Tensor, "*R J K"], x: Float[Tensor, "... K"]) -> Float[Tensor, "... J"]:
    """``x`` through one matrix, or each row (R, T, K) through its own."""
    return nn.functional.linear(x, matrix) if matrix.dim() == 2 else x @ matrix.mT
