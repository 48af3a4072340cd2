"""Conditions: what an image, a sound or another input adds to the prompts of one record.

Whatever computes them, a *conditioner*, is outside; gradients reach it through the prompts. LLaMA-Adapter's
multimodal V1 adds one vector to all prompts, V2 a vector to each prompt of every adapted layer, ImageBind-LLM
a vector to a single prompt (docs/sources/llama-adapter.md#arithmetic, 8 and 11). How rows find their record
is said in ``forward_context.py``.

Dimensions: R records, P prompt length, H hidden size, B rows, T tokens per row; A is P, or 1 for one vector
for all prompts.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Conditions, carry_into_checkpoints, within
from llama_adapter.token_blocks import TokenBlocks


@contextmanager
def prompt_context(
    model: nn.Module,
    conditions: Float[Tensor, "R A H"] | Mapping[int, Float[Tensor, "R A H"]] | None,
    *,
    record_index: Int[Tensor, "B T"] | None = None,
    present: Bool[Tensor, " _"] | None = None,
) -> Iterator[None]:
    """Passes of ``model`` inside the block add ``conditions`` to the prompts of all active adapters.

    The tensors are not to be changed in place while a generation runs, which projects them once.

    Args:
        model: a model with prompts, or one that contains it.
        conditions: for all adapted layers, or by position of the layer in its stack, where layers left out
            get none. None for plain prompts everywhere.
        record_index: of packed rows, the record of each token; -1 for tokens that see the plain prompts. None
            where each row belongs to one record.
        present: which records have conditions; the others see the plain prompts. None for all.

    Raises:
        UserError: the model has no prompts, or the conditions do not fit it.
    """
    if conditions is None:
        with within(conditions=None):
            yield
        return
    by_layer = _by_layer(model, conditions)
    records = _number_of_records(list(by_layer.values()))
    without_record = record_index is not None and bool((record_index < 0).any())
    ready = {
        id(tensor): _ready(tensor, present, without_record) for tensor in by_layer.values()
    }  # a tensor for all layers is made ready once
    packing = None
    if record_index is not None:
        index = record_index.masked_fill(record_index < 0, records) if without_record else record_index
        device = next(iter(by_layer.values())).device
        packing = TokenBlocks.of(index, records + without_record, device)
    if torch.is_grad_enabled():
        carry_into_checkpoints(model)
    accompanied = {id(layer): ready[id(tensor)] for layer, tensor in by_layer.items()}
    with within(conditions=Conditions(accompanied, packing)):
        yield


def _by_layer(
    model: nn.Module, conditions: Tensor | Mapping[int, Tensor]
) -> dict[PromptLayer, Float[Tensor, "R A H"]]:
    """The conditions of each layer that has some."""
    layers = {module.layer_index: module for module in model.modules() if isinstance(module, PromptLayer)}
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no prompts, so conditions have nothing to add to. "
            f"Use an adapter with prompt_length above 0."
        )
    if isinstance(conditions, Tensor):
        conditions = dict.fromkeys(layers, conditions)
    if unknown := sorted(conditions.keys() - layers.keys()):
        raise UserError(f"Conditions name layer {unknown[0]}. Use layers with prompts: {sorted(layers)}.")
    if not conditions:
        raise UserError("Conditions are {}, for no layer. Use None for plain prompts.")
    for index, tensor in conditions.items():
        width = layers[index].shape.hidden_size
        if tensor.dim() != 3 or tensor.shape[-1] != width:
            raise UserError(
                f"Conditions have the shape {tuple(tensor.shape)}. Use (records, prompts or 1, {width})."
            )
    return {layers[index]: tensor for index, tensor in conditions.items()}


def _number_of_records(tensors: list[Tensor]) -> int:
    """R, the same in all layers."""
    numbers = {len(tensor) for tensor in tensors}
    if len(numbers) > 1 or 0 in numbers:
        raise UserError(f"Conditions of {sorted(numbers)} records came. Use the same number in all layers.")
    return numbers.pop()


def _ready(
    tensor: Float[Tensor, "R A H"], present: Bool[Tensor, " _"] | None, without_record: bool
) -> Float[Tensor, "_ A H"]:
    """Zeros for records that have none, and, last, for tokens of no record."""
    if present is not None:
        if present.shape != tensor.shape[:1]:
            raise UserError(f"present has {len(present)} values for {len(tensor)} records. Use one for each.")
        # not a product: what stands in an absent record's place may be nan
        tensor = torch.where(present.to(tensor.device)[:, None, None], tensor, tensor.new_zeros(()))
    if without_record:
        tensor = torch.cat([tensor, torch.zeros_like(tensor[:1])])
    return tensor
