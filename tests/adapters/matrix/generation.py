"""Checks of decoding: padding, caches, beams."""

import torch
from torch import Tensor

from tests.adapters.matrix.subjects import Subject, relative_error
from tests.adapters.matrix.tiny_models import DECODER, output


@torch.no_grad()
def padding_changes_nothing(subject: Subject) -> None:
    """Decoders padded on the left, text encoders on the right: as without padding."""
    model = subject.adapt(subject.everything())
    ids = subject.inputs(rows=1)["input_ids"]
    padding = torch.zeros(1, 4, dtype=torch.long)
    parts = [padding, ids] if subject.kind == DECODER else [ids, padding]
    mask = torch.cat([(part != 0).long() for part in parts], dim=1)
    inputs = {"input_ids": torch.cat(parts, dim=1), "attention_mask": mask}
    if subject.kind == DECODER and subject.takes_positions:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    padded = output(model, inputs)
    if padded.dim() == 3:  # a value per token
        padded = padded[mask.bool()][None]
    wanted = output(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert relative_error(padded, wanted) < 1e-4


@torch.no_grad()
def cache_changes_nothing(subject: Subject) -> None:
    assert relative_error(_decode(subject), _decode(subject, use_cache=False)) < 1e-4


@torch.no_grad()
def static_cache_changes_nothing(subject: Subject) -> None:
    static = _decode(subject, cache_implementation="static", disable_compile=True)
    assert relative_error(static, _decode(subject, use_cache=False)) < 1e-4


@torch.no_grad()
def beams_with_cache_equal_beams_without(subject: Subject) -> None:
    model = subject.adapt(subject.everything())
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 6, "do_sample": False}
    inputs = _left_padded(subject)
    found = [model.generate(**inputs, **options, pad_token_id=0, use_cache=cache) for cache in (True, False)]
    assert torch.equal(*found)
    base = subject.base().generate(**inputs, **options, pad_token_id=0)
    assert base.shape != found[0].shape or not torch.equal(base, found[0])


def _decode(subject: Subject, **options: object) -> Tensor:
    """Logits of every greedy step, of two rows of which one is padded."""
    model = subject.adapt(subject.everything())
    result = model.generate(
        **_left_padded(subject),
        **options,
        min_new_tokens=6,
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(result.logits)


def _left_padded(subject: Subject) -> dict[str, Tensor]:
    inputs = subject.inputs(rows=2, length=7)
    inputs["input_ids"][0, :3] = 0
    inputs["attention_mask"][0, :3] = 0
    return inputs
