"""Whether a model keeps packed records apart, asked of the model itself before it is trained.

Records of a pack may not see each other, and that rests on the model: on how its masks are made, on its
kernel, on layers that carry a state along the sequence. What is unusual: besides the models known to be
wrong, every model is probed. Two short records of random tokens are run alone and in one pack, and the logits
must agree; so a kernel or a family that no test here runs is found out before it mixes anything. The probe
does not train, and leaves the random state alone.

Letters: T tokens, V vocabulary.
"""

import inspect
import logging
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn

from llama_adapter.adapters.families import FAMILIES, model_type_of
from llama_adapter.errors import UserError

_log = logging.getLogger(__name__)

_LENGTHS = (6, 5)
"""Tokens of the two records: unequal, so that a shift shows."""

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_HALF_TOLERANCE = 0.1
"""Root mean square of the difference relative to that of the logits. Rounding leaves 1e-6, and some per cent
in half precision; a record that sees another, or wrong positions, leave 0.3 and more."""

_INSTEAD = "Set batching=tokens, which pads rows and keeps their lengths alike."


def packed_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """What a packed batch hands to the model besides its tensors.

    With a cache, transformers takes positions that start again for a continued generation and builds no mask
    between records. Which token belongs to which record matters to a model that sees an image with some.

    Args:
        inputs: a batch of ``PackingCollator``, or any other.
    """
    if "record_index" not in inputs:
        return {}
    sees = "features" in inputs or "has_image" in inputs
    return {"use_cache": False} | ({"record_index": inputs["record_index"]} if sees else {})


def check_packing(model: nn.Module, device: torch.device) -> None:
    """Refuse a model that mixes packed records.

    Args:
        model: not yet wrapped for several processes.
        device: where it will be trained; kernels differ by device, so only there can it be probed.

    Raises:
        UserError: says why, and what to use instead.
    """
    name = f"{type(model).__name__} (model type {model_type_of(model)!r})"
    reason = _known_reason(model)
    if reason is not None:
        raise UserError(f"{name} cannot be trained with batching='packed': {reason}. {_INSTEAD}")
    if not _is_whole(model, device):
        _log.warning("Not all weights are on %s, so packing was not probed on this model.", device.type)
        return
    alone, packed = _probe(model)
    error = _relative_error(packed, alone)
    if error > _TOLERANCE.get(alone.dtype, _HALF_TOLERANCE):
        kernel = getattr(getattr(model, "config", None), "_attn_implementation", None)
        raise UserError(
            f"{name} with attn_implementation={kernel!r} mixes packed records: in a trial, logits differ by "
            f"{error:.2g} of their size from those of the same records alone. {_INSTEAD}"
        )


def _known_reason(model: nn.Module) -> str | None:
    """Why packing is known to be wrong for a model."""
    family = FAMILIES.get(model_type_of(model))
    if family is not None and family.packing is not None:
        return family.packing
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            if config.is_prompt_learning:
                return f"{config.peft_type} puts its tokens before each row, not before each record"
        model = model.get_base_model()
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return "its forward takes no position_ids, which tell where a record begins"
    return None


def _is_whole(model: nn.Module, device: torch.device) -> bool:
    """Whether the weights are there with their values: not on the meta device, and not sharded."""
    return not any(
        weight.device.type != device.type or hasattr(weight, "device_mesh") or hasattr(weight, "ds_id")
        for weight in model.parameters()
    )


@torch.no_grad()
def _probe(model: nn.Module) -> tuple[Float[Tensor, "1 T V"], Float[Tensor, "1 T V"]]:
    """Logits of two records, each alone and both packed."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    records = [
        torch.randint(embedding.weight.shape[0], (1, length), generator=generator).to(embedding.weight.device)
        for length in _LENGTHS
    ]
    was_training = model.training
    model.eval()
    try:
        alone = [_logits(model, record, _positions(record)) for record in records]
        packed = _logits(model, torch.cat(records, 1), torch.cat([_positions(r) for r in records], 1))
    finally:
        model.train(was_training)
    return torch.cat(alone, 1), packed


def _positions(record: Int[Tensor, "1 T"]) -> Int[Tensor, "1 T"]:
    return torch.arange(record.shape[1], device=record.device)[None]


def _logits(
    model: nn.Module, ids: Int[Tensor, "1 T"], positions: Int[Tensor, "1 T"]
) -> Float[Tensor, "1 T V"]:
    return model(input_ids=ids, position_ids=positions, use_cache=False).logits


def _relative_error(got: Float[Tensor, "1 T V"], wanted: Float[Tensor, "1 T V"]) -> float:
    difference = (got.float() - wanted.float()).square().mean().sqrt()
    return float(difference / wanted.float().square().mean().sqrt().clamp(min=1e-30))
