"""What a planner asks of a SPHINX model: its batches with images, as tensors without content.

Every image is taken to be encoded whole: all its views, none of them padding. How a plan is made is not known
here.

Dimensions: B rows of a batch, T its length.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from llama_adapter.training.loss import IGNORED
from llama_adapter.training.tuning import Batch, PlannedImages
from sphinx_ft.config import SphinxConfig
from sphinx_ft.savings import mix_flops


def planned_images(config: SphinxConfig, live: bool) -> PlannedImages:
    """How a planned step shows images to a model.

    Args:
        config: of the model.
        live: whether encoders run in the step; otherwise their features are kept before training.
    """
    views = config.view_config.count
    tokens = int(config.layout.lengths(torch.ones(1, views, dtype=torch.bool)))
    before = 0 if live else views * mix_flops(config)
    return PlannedImages(show=partial(_show, config, live, tokens), tokens=tokens, flops_before=before)


def _show(
    config: SphinxConfig, live: bool, tokens: int, model: nn.Module, batch: Batch, has_image: Sequence[bool]
) -> dict[str, Any]:
    """See ``PlannedImages.show``; a record that is too short for an image has none."""
    ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
    shown = 0
    for record, wanted in enumerate(has_image):
        row, start, end = _place(batch, record)
        if wanted and end - start > tokens:  # behind the first token, as published
            ids[row, start + 1 : start + 1 + tokens] = config.image_token_id
            labels[row, start + 1 : start + 1 + tokens] = IGNORED
            shown += 1
    if not shown:
        return dict(batch)
    views, parts = config.view_config, cast("Any", model)
    like = parts.view_tokens.start
    if live:
        images = {"pixel_values": like.new_zeros(shown, 3, views.image_size, views.image_size)}
    else:
        images = {
            "features": parts.encoders.zeros(shown * views.count, like.new_zeros(1, dtype=torch.float16))
        }
    useful = torch.ones(shown, views.count, dtype=torch.bool)
    return {**batch, "input_ids": ids, "labels": labels, **images, "useful_views": useful}


def _place(batch: Batch, record: int) -> tuple[int, int, int]:
    """Row, first token and end of a record: a row of its own, or a part of the only row of a packed batch."""
    if "record_index" not in batch:
        return record, 0, int(batch["attention_mask"][record].sum())
    found = (batch["record_index"][0] == record).nonzero()[:, 0]
    return 0, int(found[0]), int(found[-1]) + 1
