"""The frozen layers below the first adapted one, and a store of what comes out of them.

Their output for a record is the same in every epoch. It is kept per record when a batch is computed, and a
batch whose records are all known skips these layers: they hand their input on, and the last of them gives the
kept states. What is unusual: records are known by their tokens, so shuffled, bucketed and packed batches, and
later runs, find each other's states; and the first batch is computed twice and compared, so a model whose
upper layers use more of the lower ones than their output is noticed. Everything that the states depend on
besides tokens is part of the store's identity. When it pays is not decided here.

Dimensions: B rows, T tokens, H hidden size.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_adapter.data.identity import json_digest, weights_digest
from llama_adapter.data.tensor_store import DTYPES, TensorStore
from llama_adapter.errors import UserError
from llama_adapter.training.batch_records import Span, find_records, token_ids
from llama_adapter.training.forwards import Forward, replace_forward
from llama_adapter.training.frozen_stack import FrozenStack
from llama_adapter.training.random_state import RandomState

_log = logging.getLogger(__name__)

_TOLERANCE = 1e-3
_UNRELATED = ("_name_or_path", "transformers_version", "use_cache", "base_model_name_or_path")


@dataclass
class Hits:
    """How many records were found in the cache."""

    found: int = 0
    """Records whose layers were skipped."""
    seen: int = 0
    """Records of all batches."""

    def add(self, found: int, seen: int) -> None:
        """Count a batch."""
        self.found += found
        self.seen += seen

    @property
    def rate(self) -> float:
        """Share that was found, 0 to 1."""
        return self.found / self.seen if self.seen else 0.0


class LowerLayers:
    """Skips the lower layers of a model for records whose states are kept.

    Args:
        stack: the layers.
        folder: holds one folder per identity.
        precision: mixed precision of the run: ``no``, ``bf16`` or ``fp16``.
        device: where the model computes.
        strict: whether a batch that cannot be cached is an error; else it is computed as usual.
    """

    def __init__(
        self, stack: FrozenStack, folder: Path, precision: str, device: torch.device, strict: bool = True
    ) -> None:
        self.stack, self.folder, self.strict = stack, folder, strict
        self._identity = _identity(stack, precision, device)
        self.store = self._open(stack.dtype)
        self.total, self._window = Hits(), Hits()
        self._states: Tensor | None = None
        self._spans: list[Span] = []
        self._verified = self._given_up = False
        self._random: RandomState | None = None
        self._skipped_tokens = 0

    def take_skipped_tokens(self) -> int:
        """Tokens that have skipped the layers since the last call."""
        count, self._skipped_tokens = self._skipped_tokens, 0
        return count

    def take_window(self) -> Hits:
        """Hits since the last call."""
        window, self._window = self._window, Hits()
        return window

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While active, passes of the model use the cache and fill it."""
        handles = [
            self.stack.decoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.stack.decoder.register_forward_hook(self._end, with_kwargs=True),
        ]
        last = self.stack.below[-1]
        undo = [
            replace_forward(layer, partial(self._replacement, is_last=layer is last))
            for layer in self.stack.below
        ]
        try:
            yield
        finally:
            for take_back in undo:
                take_back()
            for handle in handles:
                handle.remove()
            self._states, self._spans = None, []

    def _replacement(self, compute: Forward, is_last: bool) -> Forward:
        """The forward of one lower layer while attached."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._states is None:
                output = compute(*args, **kwargs)
                if is_last and self._spans:
                    self._keep(output)
                return output
            return self._states if is_last else (args[0] if args else kwargs["hidden_states"])

        return forward

    def _begin(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the decoder: look the batch's records up."""
        self._states, self._spans = None, []
        if self._given_up:
            return
        spans = find_records(decoder, args, kwargs)
        if isinstance(spans, str):
            self._give_up(f"The lower layers of this batch cannot be cached: {spans}.")
            return
        if any(span.key not in self.store for span in spans):
            self.store.refresh()  # another process may have been here
        self._spans = spans
        self._states = self._assembled(spans, token_ids(args, kwargs))
        self._count(known=self._states is not None)
        if self._states is None and not self._verified:
            self._random = RandomState.now(token_ids(args, kwargs))

    def _count(self, known: bool) -> None:
        """Count the records of a batch."""
        if known:
            self._skipped_tokens += sum(span.stop - span.start for span in self._spans)
        for hits in (self.total, self._window):
            hits.add(len(self._spans) if known else 0, len(self._spans))

    def _end(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the decoder: the first batch that was kept is computed again from what was kept."""
        spans, filled = self._spans, self._states is None and bool(self._spans)
        self._states, self._spans = None, []
        if self._verified or not filled:
            return
        self._states = self._assembled(spans, token_ids(args, kwargs))
        if self._states is None:  # given up, or values are not finite
            return
        self._verified = True
        device = output[0].device
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            if self._random is not None:
                self._random.restore()
            again = decoder.forward(*args, **kwargs)
        self._states = None
        if difference := _difference(spans, output[0], again[0]):
            self._give_up(
                f"{type(decoder).__name__} gives another output when its lower layers are skipped "
                f"({difference}): its upper layers use more of them than the last one's output."
            )

    def _give_up(self, message: str) -> None:
        """Stop using the cache; where it was asked for, stop the run.

        Raises:
            UserError: the cache was asked for.
        """
        if self.strict:
            raise UserError(f"{message} Set training.cache_lower_layers to false or auto.")
        _log.warning("%s They are computed as usual from now on.", message)
        self._given_up, self._states, self._spans = True, None, []

    def _assembled(self, spans: list[Span], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"] | None:
        """The kept states of a batch, 0 on padding; None when a record's are missing."""
        found = [self.store.get(span.key) if span.key in self.store else None for span in spans]
        if not spans or any(one is None for one in found):
            return None
        width = next(one.shape[1] for one in found if one is not None)
        states = torch.zeros(*ids.shape, width, dtype=DTYPES[self.store.dtype])
        for span, one in zip(spans, found, strict=True):
            if one is not None:
                states[span.row, span.start : span.stop] = one
        return states.to(ids.device, non_blocking=True)

    def _keep(self, output: Any) -> None:
        """Store what came out of the last lower layer, if it is a plain tensor that nothing trained is in."""
        if not isinstance(output, Tensor) or output.dim() != 3 or output.requires_grad:
            what = "a tensor with a gradient" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            self._give_up(f"Layer {self.stack.first - 1} returned {what}, so its output cannot be cached.")
            return
        name = str(output.dtype).removeprefix("torch.")
        if name != self.store.dtype:
            self.store = self._open(name)
        new = {span.key: output[span.row, span.start : span.stop] for span in self._spans}
        new = {key: states for key, states in new.items() if key not in self.store}
        # What is not finite is the non-finite guard's to report.
        self.store.append({key: states for key, states in new.items() if bool(states.isfinite().all())})

    def _open(self, dtype: str) -> TensorStore:
        identity = {**self._identity, "dtype": dtype}
        return TensorStore(self.folder / json_digest(identity)[:16], identity, dtype)


def _identity(stack: FrozenStack, precision: str, device: torch.device) -> dict[str, Any]:
    """Everything besides tokens that the states depend on."""
    config: Any = getattr(stack.base, "config", None)
    settings = config.to_dict() if hasattr(config, "to_dict") else {}
    settings = {name: value for name, value in settings.items() if name not in _UNRELATED}
    return {
        "what": "output of the lower layers",
        "model": type(stack.base).__name__,
        "config": json.loads(json.dumps(settings, default=str)),
        "layers": stack.first,
        "adapter": stack.adapter,
        "weights": weights_digest(stack.lower_tensors()),
        "kernel": str(getattr(config, "_attn_implementation", None)),
        "precision": precision,
        "device": device.type,
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def _difference(
    spans: list[Span], first: Float[Tensor, "B T H"], again: Float[Tensor, "B T H"]
) -> str | None:
    """How two outputs differ on the records of a batch; None when they agree."""
    for span in spans:
        one, other = (x[span.row, span.start : span.stop].detach().float() for x in (first, again))
        difference, scale = float((one - other).abs().max()), float(one.abs().max())
        if not difference <= _TOLERANCE * max(scale, 1e-6):
            return f"by {difference:.3g} at values up to {scale:.3g}"
    return None
