"""What the setting ``batching`` allows beside it.

Settings that count rows, order rows or split batches have no meaning, or another one, where a batch holds as
many rows as fit. Nothing here knows data, models or devices.
"""

import logging
from typing import Literal

from transformers import TrainingArguments

from llama_adapter.errors import UserError

_log = logging.getLogger(__name__)

Batching = Literal["rows", "tokens", "packed"]


def check_batching(args: TrainingArguments, batching: Batching, tokens: int | None) -> None:
    """Refuse settings that count rows, where a batch holds as many rows as fit.

    Args:
        args: the settings, presets filled in.
        batching: how rows become batches.
        tokens: the budget, if one was given.

    Raises:
        UserError: names the setting and what to set instead.
    """
    if batching == "rows":
        if tokens is not None:
            raise UserError(
                f"tokens_per_batch={tokens} has no effect with batching={batching!r}. "
                "Set batching=tokens or batching=packed, or leave tokens_per_batch out."
            )
        return
    rate = getattr(args, "base_learning_rate", None)
    if rate is not None:
        raise UserError(
            f"base_learning_rate={rate:g} is scaled by the rows of a step, and with batching={batching!r} "
            "their number varies. Set learning_rate instead (also with a preset), or batching=rows."
        )
    _check_host_settings(args, batching)
    if args.dataloader_drop_last and getattr(args, "preset", None) is None:
        _log.warning(
            "dataloader_drop_last=true has no effect with batching=%s: nothing is left over.", batching
        )
    if getattr(args, "loss_reduction", "token") == "published":
        _log.warning(
            "loss_reduction=published takes the mean per device batch, and with batching=%s batches hold "
            "unequal numbers of rows and labels: records weigh unequally. loss_reduction=token is exact.",
            batching,
        )


def _check_host_settings(args: TrainingArguments, batching: Batching) -> None:
    """Settings of transformers and accelerate that order or split batches themselves."""
    if args.train_sampling_strategy != "random":
        raise UserError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} orders rows itself, and so does "
            f"batching={batching!r}. Leave train_sampling_strategy out, or set batching=rows."
        )
    if args.auto_find_batch_size:
        raise UserError(
            f"auto_find_batch_size={args.auto_find_batch_size} changes the rows of a batch, which "
            f"batching={batching!r} does not count. Set tokens_per_batch to what the device holds."
        )
    if args.remove_unused_columns:
        raise UserError(
            f"remove_unused_columns={args.remove_unused_columns} drops what batching={batching!r} needs. "
            "Leave it out; the collator picks the columns."
        )
    if batching == "packed" and args.use_cache:
        raise UserError(
            f"use_cache={args.use_cache} hides the borders of packed records from transformers' masks. "
            "Leave it out, or set batching=tokens."
        )
    if splits_batches(args):
        raise UserError(
            f"accelerator_config={args.accelerator_config} splits or dispatches batches itself, and so does "
            f"batching={batching!r}. Leave split_batches and dispatch_batches out, or set batching=rows."
        )


def splits_batches(args: TrainingArguments) -> bool:
    """Whether accelerate was told to distribute batches in its own way."""
    config = args.accelerator_config
    return bool(getattr(config, "split_batches", False) or getattr(config, "dispatch_batches", False))
