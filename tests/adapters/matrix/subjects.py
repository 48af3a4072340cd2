"""Tiny models with adapters: what every check of the support matrix is made of."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.families import FAMILIES, Family
from tests.adapters.matrix.tiny_models import TINY_MODELS, TinyModel, loss


class Subject(TinyModel):
    """A tiny model and the adapters that fit it."""

    @property
    def family(self) -> Family:
        """What the package says of this model type."""
        return FAMILIES[self.model_type]

    @property
    def takes_prompts(self) -> bool:
        return "prompts" not in self.family.unsupported

    @property
    def delta_targets(self) -> list[str]:
        return ["attention"] if "mlp" in self.family.unsupported else ["attention", "mlp"]

    def prompts(self, **options: Any) -> ZeroInitConfig:
        """Prompts alone; for a model that takes none, deltas."""
        if not self.takes_prompts:
            return self.deltas_only(self.deltas())
        return ZeroInitConfig(**{"prompt_length": 3} | options)

    def deltas_only(self, deltas: list[dict[str, Any]], **options: Any) -> ZeroInitConfig:
        return ZeroInitConfig(prompt_length=0, deltas=deltas, **options)

    def deltas(self) -> list[dict[str, Any]]:
        kinds = ({"kind": "bias"}, {"kind": "output_scale"}, {"kind": "lora", "rank": 2})
        return [kind | {"targets": self.delta_targets} for kind in kinds]

    def everything(self, **options: Any) -> ZeroInitConfig:
        """All parts that the model has a place for."""
        if not self.takes_prompts:
            options["prompt_length"] = 0
        return ZeroInitConfig(
            **{"prompt_length": 3, "new_gate": True, "deltas": self.deltas(), "norms": True} | options
        )

    def adapt(
        self, config: ZeroInitConfig, implementation: str | None = None, noise: float = 0.3
    ) -> PeftModel:
        """A fresh base with an adapter whose tensors are moved off their start by ``noise``."""
        model = attach(self.base(implementation), config)
        if noise:
            disturb(model, noise)
        return model


def attach(model: PreTrainedModel, config: ZeroInitConfig) -> PeftModel:
    """The same adapter for the same config."""
    torch.manual_seed(2)
    return get_peft_model(model, config).eval()


def disturb(model: nn.Module, noise: float = 0.3, seed: int = 3) -> None:
    """Move every trainable tensor off its start, each element differently."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of ``loss`` per trainable tensor."""
    model.zero_grad(set_to_none=True)
    loss(model, inputs).backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@contextmanager
def attention_function(model: PreTrainedModel, key: str, function: Any) -> Iterator[None]:
    """Let a model's attention run through ``function`` for a while."""
    before = model.config._attn_implementation
    transformers.AttentionInterface.register(key, function)
    model.config._attn_implementation = key
    try:
        yield
    finally:
        model.config._attn_implementation = before
        del transformers.AttentionInterface._global_mapping[key]


SUBJECTS = {name: Subject(**vars(tiny)) for name, tiny in TINY_MODELS.items()}
"""Model type -> its column of the table, in order."""
