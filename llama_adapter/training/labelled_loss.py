"""Runs a causal language model and returns the loss of each labelled token, without its logits.

While the model runs, its head's forward is replaced by one that computes the losses of the labelled positions
there, where autocast is on and FSDP has gathered the head's weights, and gives the model the logits of one
position to go on with. What is unusual: what the model then does to logits (:mod:`logit_tail`) is checked in
the first pass. There the model gets a ramp of numbers instead of that position, so that a soft cap shows even
where logits are small; if the model makes of it what the table does not say, the pass is repeated with the
labelled positions given to the head and the model left to do the rest, and so are all that follow.

The losses stay part of the graph of the model's outputs: DDP looks there for parameters that are used, FSDP
hangs its hooks there. Where the head is not reached with one hidden state per label, the logits that the
model returns are used. This file knows a model by its head, its configuration and ``logits``.

Letters: B rows of the batch, T tokens, N labelled positions, H hidden size, V vocabulary.
"""

import logging
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from llama_adapter.errors import UserError
from llama_adapter.training.chunked import chunked_losses
from llama_adapter.training.forwards import Forward, replace_forward
from llama_adapter.training.logit_tail import Tail, tail_of
from llama_adapter.training.loss import LabelledPositions, token_losses
from llama_adapter.training.random_state import RandomState

_log = logging.getLogger(__name__)

LossKernel: TypeAlias = Literal["auto", "chunked", "torch", "narrowed"]

CHUNK_ROWS = 128
"""Labelled positions whose logits are there at once, on the CPU: half the memory of 256 at the same speed,
and 1.3 to 2 times as fast as 64 and 32 (benchmarks/loss_kernel.py)."""

GPU_CHUNK_ROWS = 1024
"""Likewise on other devices, not measured: a chunk reads the whole head, and a GPU needs some hundred rows to
have more to compute than to read."""

_PROBE_RANGE = 100.0
"""The ramp that stands in for logits goes from minus to plus this; caps in use are at 15 to 50."""


class LabelledLoss:
    """Computes losses of labelled positions; remembers what it found out about the model."""

    def __init__(
        self,
        kernel: LossKernel = "auto",
        chunk_rows: int | None = None,
        compiled: bool = False,
        trusted: bool = False,
    ) -> None:
        """Choose how.

        Args:
            kernel: ``chunked``; ``torch`` for torch's own ``linear_cross_entropy``; ``narrowed`` for the
                logits of all labelled positions at once; ``auto`` chooses.
            chunk_rows: Rows of a chunk; None for :data:`CHUNK_ROWS` or, off the CPU, :data:`GPU_CHUNK_ROWS`.
            compiled: Whether ``torch.compile`` runs the model; the head then stays outside of its graph.
            trusted: Whether to leave out the comparison in the first pass, where tensors have no content.
        """
        # "auto" is the chunked one: measured on the CPU (benchmarks/loss_kernel.py), assumed on CUDA.
        self.kernel = "chunked" if kernel == "auto" else kernel
        self._chunk_rows = chunk_rows
        self._compiled = compiled
        self._verified = trusted
        self._head_trains_unseen: bool | None = None
        self._pass: _Pass | None = None
        self._release: Callable[[], None] | None = None

    def __call__(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        positions: LabelledPositions,
        base: nn.Module,
        label_smoothing: float = 0.0,
    ) -> tuple[Any, Float[Tensor, " N"]]:
        """Run the model.

        Args:
            model: What is called, with everything that was put around the model.
            inputs: Arguments of its forward, without labels.
            positions: Where the labels are.
            base: The model itself, which has ``get_output_embeddings`` and ``config``.
            label_smoothing: Share of the target mass spread over the vocabulary.

        Returns:
            The model's outputs, whose ``logits`` are those of one or of the labelled positions and not meant
            to be read; and the losses in nats, in fp32.

        Raises:
            UserError: When torch's own kernel was asked for and cannot take this head.
        """
        head = getattr(base, "get_output_embeddings", lambda: None)()
        if head is None:
            outputs = model(**inputs)
            return outputs, positions.losses(outputs.logits, label_smoothing)
        started = None if self._verified else RandomState.now(*inputs.values())
        tail = tail_of(getattr(base, "config", None))
        self._pass = _Pass(self, head, positions, tail, label_smoothing)
        outputs = self._run(model, inputs, head, self._pass)
        current, self._pass = self._pass, None
        if current.losses is None:
            logits = outputs.logits
            if not current.calls:
                return outputs, positions.losses(logits, label_smoothing)
            return outputs, token_losses(logits[0], positions.targets, label_smoothing)
        if not self._verified and not current.explains(outputs.logits):
            self._give_up(base)
            if started is not None:
                started.restore()
            return self(model, inputs, positions, base, label_smoothing)
        self._verified = True
        return outputs, _joined(current.losses, outputs.logits)

    def close(self) -> None:
        """Give a compiled model's head its own forward back."""
        if self._release is not None:
            self._release()
        self._release = None

    def _run(self, model: nn.Module, inputs: dict[str, Any], head: nn.Module, current: "_Pass") -> Any:
        """Run the model with the head's forward replaced."""
        if self._release is None:
            self._release = replace_forward(head, self._forward_instead)
        try:
            return model(**inputs)
        finally:
            if not self._compiled:  # a compiled graph is valid as long as this forward stays
                self.close()

    def _forward_instead(self, head_forward: Forward) -> Forward:
        def forward(hidden: Shaped[Tensor, "..."], *args: Any, **kwargs: Any) -> Any:
            current = self._pass
            if current is None or args or kwargs or hidden.shape[:-1] != current.positions.shape:
                return head_forward(hidden, *args, **kwargs)
            return current.take(hidden, head_forward)

        return torch.compiler.disable(forward) if self._compiled else forward

    def chunk_rows(self, device: torch.device) -> int:
        """Rows of a chunk on a device."""
        return self._chunk_rows or (CHUNK_ROWS if device.type == "cpu" else GPU_CHUNK_ROWS)

    @property
    def verifies(self) -> bool:
        """Whether the pass in progress is the one that is compared with the model."""
        return not self._verified

    def head_trains(self, head: nn.Module, head_forward: Forward, hidden: Float[Tensor, "B T H"]) -> bool:
        """Whether the head uses parameters that want gradients, its own or, as seen in one pass, others."""
        if any(weight.requires_grad for weight in head.parameters()):
            return True
        if self._head_trains_unseen is None:
            with torch.enable_grad():
                self._head_trains_unseen = head_forward(hidden[:1, :1].detach()).requires_grad
        return self._head_trains_unseen

    def _give_up(self, base: nn.Module) -> None:
        config: Any = getattr(base, "config", None)
        _log.warning(
            "Models of type %r change their logits in a way that is not known here, so the logits of all "
            "labelled positions are computed at once. The loss is the same; set "
            "training.loss_kernel=narrowed to do so without this message.",
            getattr(config, "model_type", type(base).__name__),
        )
        self.kernel = "narrowed"
        self._verified = True
        self.close()


class _Pass:
    """One run of the model: what its head was given, and the losses that came out."""

    def __init__(
        self,
        settings: LabelledLoss,
        head: nn.Module,
        positions: LabelledPositions,
        tail: Tail | None,
        label_smoothing: float,
    ) -> None:
        self.positions = positions
        self.losses: Float[Tensor, " N"] | None = None
        self.calls = 0
        self._settings = settings
        self._head = head
        self._tail = tail
        self._label_smoothing = label_smoothing
        self._row: Tensor | None = None
        self._probe: Tensor | None = None

    def take(self, hidden: Float[Tensor, "B T H"], head_forward: Forward) -> Tensor:
        """Stand in for the head's forward.

        Returns:
            Logits as the head makes them: of one position, or of the labelled ones.
        """
        self.calls += 1
        selected = self.positions.select(hidden)
        if self._settings.kernel == "narrowed":
            narrow: Tensor = head_forward(selected[None])
            return narrow
        if self._settings.kernel == "torch":
            self.losses = self._by_torch(selected, head_forward)
        else:
            self.losses = self._chunked(selected, hidden, head_forward)
        row = self._row if self._row is not None else head_forward(hidden.flatten(0, 1)[:1]).detach()
        if self._settings.verifies:
            ramp = torch.linspace(-_PROBE_RANGE, _PROBE_RANGE, row.shape[-1], device=row.device)
            row = self._probe = ramp.to(row.dtype)[None]
        return _joined(row[None], self.losses)

    def _chunked(
        self, selected: Float[Tensor, "N H"], hidden: Float[Tensor, "B T H"], head_forward: Forward
    ) -> Float[Tensor, " N"]:
        def logits_of(rows: Float[Tensor, "C H"]) -> Float[Tensor, "C V"]:
            logits = head_forward(rows)
            if self._row is None and len(rows):
                self._row = logits[:1].detach().clone()  # a view would keep the chunk
            return logits if self._tail is None else self._tail(logits)

        return chunked_losses(
            selected,
            self.positions.targets.to(hidden.device),
            logits_of,
            self._settings.chunk_rows(hidden.device),
            self._label_smoothing,
            self._settings.head_trains(self._head, head_forward, hidden),
        )

    def _by_torch(self, selected: Float[Tensor, "N H"], head_forward: Forward) -> Float[Tensor, " N"]:
        head, kernel = self._head, getattr(functional, "linear_cross_entropy", None)
        is_linear = type(head) is nn.Linear and getattr(head_forward, "__self__", None) is head
        if kernel is None or not is_linear or self._tail is not None or self._label_smoothing:
            raise UserError(
                f"loss_kernel='torch' needs torch 2.14, a plain linear head (this is {type(head).__name__}), "
                "logits that the model leaves as they are, and no label smoothing. Use loss_kernel=auto."
            )
        weight: Any = head.weight
        bias: Any = head.bias
        device = selected.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            selected, weight = selected.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        options = torch.nn.LinearCrossEntropyOptions(
            batch_chunk_size=self._settings.chunk_rows(selected.device), chunking_method=None
        )
        targets = self.positions.targets.to(selected.device)
        losses: Tensor = kernel(
            selected, weight, targets, linear_bias=bias, reduction="none", options=options
        )
        return losses.float()

    def explains(self, logits: Shaped[Tensor, "..."]) -> bool:
        """Whether the model made of the probe what the table of tails says."""
        if self._probe is None or self.calls != 1:
            return False
        expected = self._probe[None] if self._tail is None else self._tail(self._probe[None])
        if expected.shape != logits.shape:
            return False
        tolerance = 4 * max(torch.finfo(logits.dtype).eps, torch.finfo(expected.dtype).eps)
        return torch.allclose(
            logits.detach().double(), expected.double(), rtol=tolerance, atol=tolerance * _PROBE_RANGE
        )


class _Joined(torch.autograd.Function):
    """A tensor that is also reached through another one."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward(other.new_empty(0))
        ctx.shape = other.shape
        return value.clone()  # small; FSDP does not want views

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        (like,) = ctx.saved_tensors
        return upstream, like.new_zeros(ctx.shape)


def _joined(value: Shaped[Tensor, "..."], other: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """``value`` itself; in the backward pass ``other`` gets a gradient of zero, before ``value`` goes on."""
    joined: Tensor = _Joined.apply(value, other)
    return joined
