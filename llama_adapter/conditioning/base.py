"""Conditioners: what turns the features of a frozen encoder into what is added to the prompts.

A conditioner is a config and a module with one ``@register_conditioner`` line, in a file of its own that
``conditioning/__init__.py`` imports. What it returns is what ``adapters.prompt_context`` takes; neither side
knows the other. Nor does it know which encoder the features come from, or whether from a cache.

Early fusion belongs here, for every kind: LLaMA-Adapter V2's paper (arXiv 2304.15010) feeds what is seen only
to the early layers, away from the prompts of the last ones; its released code adds it to all. Here the early
layers need prompts of their own, to which it is added (``prompt_layers`` of the adapter lists both): so
records without an image work, and the gates of these layers start at zero like all others.

Dimensions: R records, N feature tokens, C width of the features, A vectors per record: one per prompt, or 1
for all of them, H hidden size of the language model.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from llama_adapter.errors import UserError

CONDITIONERS: dict[str, tuple[type["ConditionerConfig"], type["Conditioner"]]] = {}
"""Kind -> its config and its module."""
ELSEWHERE = {"bind": "imagebind_llm.bind"}
"""Kind -> the module of another package that registers it, imported when a folder asks for it."""

Features: TypeAlias = Float[Tensor, "R N C"] | Sequence[Float[Tensor, "R _ _"]]
"""Features of each record, or a list of levels, whose widths are joined."""


@dataclass(kw_only=True)
class ConditionerConfig:
    """What every conditioner needs to know."""

    kind: str = ""
    """Name of the conditioner, as registered."""
    hidden_size: int = 0
    """Hidden size H of the language model; left out, a training run takes that of its base."""
    feature_width: int = 0
    """Width of the features, all levels together; left out, a training run takes that of its encoder."""
    early_layers: int | None = None
    """Early fusion: only the prompts of so many layers, from the bottom, get something added, and all of
    these must have prompts. None for all layers that have prompts."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < (0 if name in ("hidden_size", "feature_width") else 1):
                raise UserError(f"{name} of the conditioner is {value}. Use at least 1.")

    def sizes(self, hidden_size: int, feature_width: int, prompt_length: int) -> dict[str, int]:
        """Settings that the parts around a conditioner decide, by name.

        Args:
            hidden_size: H of the language model.
            feature_width: of the encoder, all levels together.
            prompt_length: of the adapter.
        """
        return {"hidden_size": hidden_size, "feature_width": feature_width}

    def fitted(self, hidden_size: int, feature_width: int, prompt_length: int) -> "ConditionerConfig":
        """A copy with ``sizes`` filled in where they were left at their default.

        Raises:
            UserError: another size was set.
        """
        wanted = self.sizes(hidden_size, feature_width, prompt_length)
        for setting in fields(self):
            given, value = getattr(self, setting.name), wanted.get(setting.name)
            if value is not None and given not in (setting.default, value):
                raise UserError(
                    f"{setting.name} of the conditioner is {given}, but the base has the hidden size "
                    f"{hidden_size}, the encoder features of width {feature_width}, the adapter "
                    f"{prompt_length} prompts. Leave it out, or set {value}."
                )
        changes: dict[str, Any] = dict(wanted)
        return replace(self, **changes)


class Conditioner(nn.Module):
    """Base of all conditioners. Subclasses define ``vectors``."""

    num_tokens: ClassVar[int | None] = None
    """How many feature tokens a record has; None for any number."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        for name in ("hidden_size", "feature_width"):
            if getattr(config, name) < 1:
                raise UserError(f"{name} of the conditioner is {getattr(config, name)}. Use at least 1.")
        self.config = config

    def vectors(
        self, features: Float[Tensor, "R N C"], mask: Bool[Tensor, "R N"] | None
    ) -> Float[Tensor, "R A H"]:
        """What is added to the prompts of each record."""
        raise NotImplementedError

    def forward(
        self, features: Features, mask: Bool[Tensor, "R N"] | None = None
    ) -> Float[Tensor, "R A H"] | dict[int, Float[Tensor, "R A H"]]:
        """What ``prompt_context`` takes.

        Args:
            features: of any floating type, such as half precision from a cache.
            mask: which tokens are there; None for all. Records without any get values of no meaning: leave
                them out with ``prompt_context(..., present=mask.any(1))``.

        Returns:
            What is added to the prompts of every layer; with early fusion that of each early layer by its
            position.

        Raises:
            UserError: the features have another width or number of tokens.
        """
        joined = join_levels(features)
        tokens, width = joined.shape[1:]
        if width != self.config.feature_width or self.num_tokens not in (None, tokens):
            raise UserError(
                f"Features have {tokens} tokens of width {width}, the {self.config.kind!r} conditioner takes "
                f"{self.num_tokens or 'any number'} of width {self.config.feature_width}. "
                "Use the encoder settings that it was made for."
            )
        added = self.vectors(joined.to(next(self.parameters()).dtype), mask)
        if self.config.early_layers is None:
            return added
        return dict.fromkeys(range(self.config.early_layers), added)


def register_conditioner(
    kind: str, config: type[ConditionerConfig]
) -> Callable[[type[Conditioner]], type[Conditioner]]:
    """Class decorator that makes a conditioner known under ``kind``."""

    def register(module: type[Conditioner]) -> type[Conditioner]:
        CONDITIONERS[kind] = (config, module)
        return module

    return register


def make_conditioner(config: ConditionerConfig | Mapping[str, Any]) -> Conditioner:
    """A conditioner with random weights.

    Args:
        config: a config, or a mapping of its fields.

    Raises:
        UserError: unknown kind or setting, or one is missing.
    """
    kind = config.get("kind") if isinstance(config, Mapping) else config.kind
    if kind not in CONDITIONERS and kind in ELSEWHERE:
        importlib.import_module(ELSEWHERE[kind])
    if kind not in CONDITIONERS:
        raise UserError(f"Unknown conditioner {kind!r}. Use one of {sorted({*CONDITIONERS, *ELSEWHERE})}.")
    config_class, module = CONDITIONERS[kind]
    if isinstance(config, ConditionerConfig) and not isinstance(config, config_class):
        config = asdict(config)  # of a kind that was not known when the settings were read
    if isinstance(config, Mapping):
        try:
            config = config_class(**config)
        except TypeError as error:
            fields = sorted(config_class.__dataclass_fields__)
            raise UserError(f"The {kind!r} conditioner: {error}. Use the settings {fields}.") from error
    return module(config)


def join_levels(features: Features) -> Float[Tensor, "R N C"]:
    """Levels side by side in one tensor.

    Raises:
        UserError: there are none, or they differ in records or tokens.
    """
    if isinstance(features, Tensor):
        return features
    if len({level.shape[:2] for level in features}) != 1:
        shapes = [tuple(level.shape) for level in features]
        raise UserError(
            f"The levels of the features have the shapes {shapes}, which do not go side by side. "
            "Use levels with the same number of tokens, such as one global feature each."
        )
    return torch.cat(list(features), dim=-1)
