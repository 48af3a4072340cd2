"""What a stored result depends on, as hashes: settings, weights, contents of files.

Equal things have equal hashes whatever their names and places: a renamed file, a dictionary in another order,
weights on another device. Nothing is known of what is stored under a hash.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow.compute as arrow
import torch
from torch import Tensor, nn

from llama_adapter.errors import UserError

Item: TypeAlias = str | Path | bytes | Mapping[str, Any]
"""What a feature is computed from: the path of a file, bytes, or a record of JSON values."""


def canonical_json(value: Any) -> str:
    """One text for equal values.

    Raises:
        UserError: something in it is not a JSON value.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{str(value)[:200]!r} cannot be part of a cache's identity: {error}. "
            "Use numbers, texts, lists and dictionaries."
        ) from error


def json_digest(value: Any) -> str:
    """SHA-256 of JSON values, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def content_key(item: Item) -> bytes:
    """SHA-256 of what an item holds: 32 bytes.

    A record's key covers its own values only, not the files that it may name.

    Raises:
        UserError: a file cannot be read.
    """
    if isinstance(item, bytes):
        return hashlib.sha256(item).digest()
    if isinstance(item, Mapping):
        return hashlib.sha256(b"record\0" + canonical_json(dict(item)).encode()).digest()
    try:
        with Path(item).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(
            f"{str(item)!r} cannot be read: {error}. Use the path of an existing file."
        ) from error


def rows_digest(rows: Any) -> str | None:
    """SHA-256 of the tokens and labels of prepared rows, in their order; None for rows that are not stored.

    Args:
        rows: a data set of the ``datasets`` library, or a list of rows.
    """
    digest = hashlib.sha256()
    columns = ("input_ids", "labels")
    if isinstance(rows, list):
        for row in rows:
            digest.update(repr([list(row.get(name, ())) for name in columns]).encode())
        return digest.hexdigest()
    if not isinstance(rows, datasets.Dataset) or not set(columns) <= set(rows.column_names):
        return None
    for part in rows.select_columns(list(columns)).with_format("arrow").iter(batch_size=10_000):
        for name in columns:
            column = part[name].combine_chunks()
            digest.update(np.asarray(arrow.list_value_length(column)).tobytes())
            digest.update(np.asarray(column.flatten()).tobytes())
    return digest.hexdigest()


def weights_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors: names, types, shapes and values, in the order of the names.

    Raises:
        UserError: a tensor has no values here, as on the meta device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        _add(digest, name, tensor.detach())
    return digest.hexdigest()


def encoder_identity(encoder: nn.Module, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What decides the features that an encoder gives: its class, settings and weights.

    Args:
        encoder: a module.
        config: its settings as JSON values; None takes those of a transformers model.
    """
    if config is None:
        own: Any = getattr(encoder, "config", None)
        config = own.to_dict() if hasattr(own, "to_dict") else {}
    settings = {key: value for key, value in config.items() if key != "transformers_version"}
    return {
        "class": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "config": json.loads(json.dumps(settings, default=str)),
        "weights": weights_digest(encoder.state_dict().items()),
    }


def _add(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add one tensor; one that is made of several, as quantised weights are, by its parts."""
    if hasattr(tensor, "__tensor_flatten__"):
        parts, context = tensor.__tensor_flatten__()
        digest.update(f"{name} {type(tensor).__name__} {context}\n".encode())
        for part in parts:
            _add(digest, f"{name}.{part}", getattr(tensor, part))
        return
    if tensor.is_meta:
        raise UserError(
            f"The weight {name!r} has no values here (meta device). Load the whole model onto one device."
        )
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    flat = tensor.cpu().contiguous().flatten().view(torch.uint8)
    digest.update(flat.numpy().data)
