"""Where a model's layers begin to be trained, and what stands against caching those below.

Read off the model: nothing is run. A reason is a phrase that completes "cannot be cached: ...".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch import Tensor, nn

from llama_adapter.adapters.structure import find_layer_stack
from llama_adapter.errors import UserError
from llama_adapter.quantization import weight_count

_MOVING_ROTARY = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on the longest row of the batch."""


@dataclass(frozen=True)
class FrozenStack:
    """A model's layers, split at the first one with a trainable parameter."""

    base: nn.Module
    """The base model, with adapters."""
    path: str
    """Path of the layers in ``base``."""
    first: int
    """Position of the first trained layer."""
    adapter: str | None
    """Name of the active adapter."""

    @property
    def decoder(self) -> nn.Module:
        """The module that embeds the tokens and runs the layers."""
        return self.base.get_submodule(self.path.rpartition(".")[0])

    @property
    def layers(self) -> list[nn.Module]:
        """All layers."""
        return list(self.base.get_submodule(self.path).children())

    @property
    def below(self) -> list[nn.Module]:
        """The layers below the first trained one."""
        return self.layers[: self.first]

    @property
    def before(self) -> list[nn.Module]:
        """What the decoder runs before the layers, by the order in which it lists its modules."""
        own = self.path.rpartition(".")[2]
        names = [name for name, _ in self.decoder.named_children()]
        return [
            module for name, module in self.decoder.named_children() if names.index(name) < names.index(own)
        ]

    @property
    def dtype(self) -> str:
        """Type of the embeddings, which most models keep for their states."""
        embeddings: Any = self.base.get_input_embeddings()  # type: ignore[operator]
        name = str(next(embeddings.parameters()).dtype).removeprefix("torch.")
        return name if name in ("float16", "bfloat16") else "float32"

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        config: Any = self.base.config
        return int(config.get_text_config().hidden_size)

    @property
    def weights_below(self) -> int:
        """Number of weights of the layers below the first trained one."""
        return sum(weight_count(parameter) for layer in self.below for parameter in layer.parameters())

    def lower_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen weights and buffers outside the trained layers and those above them."""
        trained = {name for name, parameter in self.base.named_parameters() if parameter.requires_grad}
        upper = tuple(f"{self.path}.{index}." for index in range(self.first, len(self.layers)))
        buffers = dict(self.base.named_buffers())  # also those that are never saved
        for name, tensor in {**buffers, **self.base.state_dict()}.items():
            if name not in trained and not name.startswith(upper) and isinstance(tensor, Tensor):
                yield name, tensor


def find_frozen_stack(model: nn.Module) -> FrozenStack | str:
    """The split of a model, or why there is none."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    try:
        path = find_layer_stack(base, getattr(config, "layer_stack", None))
    except UserError as error:
        return f"{type(base).__name__} has no single stack of layers ({error})"
    layers = list(base.get_submodule(path).children())
    first = next((index for index, layer in enumerate(layers) if _is_trained(layer)), len(layers))
    if first == 0:
        return "layer 0 is trained, so nothing lies below"
    return FrozenStack(base, path, first, model.active_adapter if isinstance(model, PeftModel) else None)


def obstacle(stack: FrozenStack) -> str | None:
    """Why the output of the lower layers is not the same in every epoch, or not all that counts."""
    config: Any = getattr(stack.base, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any(_is_trained(module) for module in _embedding_modules(stack)):
        return "the embeddings are trained"
    if name := _dropout(stack):
        return f"dropout is active below the first trained layer ({name})"
    if getattr(config, "is_encoder_decoder", False):
        return "the model has an encoder and a decoder"
    if rotary := _rotary_types(getattr(text, "rope_parameters", None)) & set(_MOVING_ROTARY):
        return f"its rotary embedding ({sorted(rotary)[0]}) depends on the longest row of a batch"
    if getattr(text, "output_router_logits", False):
        return "the load-balancing loss needs the routers of all layers"
    if getattr(text, "num_kv_shared_layers", 0):
        return "upper layers use the keys and values of lower ones"
    return None


def _embedding_modules(stack: FrozenStack) -> list[nn.Module]:
    embeddings: Any = getattr(stack.base, "get_input_embeddings", lambda: None)()
    return [*stack.before, *([embeddings] if isinstance(embeddings, nn.Module) else [])]


def _dropout(stack: FrozenStack) -> str | None:
    """An active dropout below the first trained layer: a module, or a number that a forward reads."""
    for part in [*stack.before, *stack.below]:
        for name, module in part.named_modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                return f"{name or type(module).__name__}={module.p}"
            for attribute, value in vars(module).items():
                if "drop" in attribute and isinstance(value, float) and value > 0:
                    return f"{attribute}={value}"
    return None


def _rotary_types(parameters: Any) -> set[str]:
    """Kinds of rotary embedding: one, or one per kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    nested = set[str]().union(*(_rotary_types(value) for value in parameters.values()))
    return nested | ({str(parameters["rope_type"])} if "rope_type" in parameters else set())


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
