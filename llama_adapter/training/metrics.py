"""What is measured: answer likelihood, tokens per second, peak memory, model FLOPs utilisation (MFU).

What is unusual: the evaluation loss is one mean over all labelled tokens of the set, exact over batches and
ranks, not a mean of batch means. Throughput counts training time only; evaluation and checkpoints do not slow
it down in the log. FLOPs count what a frozen base needs: no weight gradients, and no recomputation. Nothing
here knows the trainer.
"""

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llama_adapter.hardware import GIB, known_gpu
from llama_adapter.quantization import weight_count


@dataclass
class AnswerLikelihood:
    """Sums of an evaluation pass, from which the exact mean follows."""

    nll: float = 0.0
    """Summed negative log-likelihood of the labelled tokens, in nats."""

    tokens: int = 0
    """Number of labelled tokens."""

    def add(self, nll: Float[Tensor, " rows"], tokens: Int[Tensor, " rows"]) -> None:
        """Add rows, already gathered over ranks."""
        self.nll += float(nll.detach().cpu().double().sum())
        self.tokens += int(tokens.sum())

    def metrics(self, prefix: str) -> dict[str, float]:
        """Loss (nats per labelled token), its perplexity, and the token count, named ``{prefix}_...``."""
        if self.tokens == 0:
            return {f"{prefix}_loss": math.nan, f"{prefix}_perplexity": math.nan, f"{prefix}_tokens": 0}
        mean = self.nll / self.tokens
        # exp overflows above 709 nats; such a model is broken, not the report.
        perplexity = math.exp(mean) if mean < 700 else math.inf
        return {f"{prefix}_loss": mean, f"{prefix}_perplexity": perplexity, f"{prefix}_tokens": self.tokens}


@dataclass
class Work:
    """What was computed, and in which time."""

    seconds: float = 0.0
    """Training time."""

    tokens: int = 0
    """Tokens over all ranks, padding excluded."""

    labelled: int = 0
    """Tokens that carry loss."""

    padded: int = 0
    """Tokens over all ranks, padding included."""

    flops: float = 0.0
    """Model FLOPs."""

    def add(self, other: "Work") -> None:
        """Add another stretch of work to this one."""
        self.seconds += other.seconds
        self.tokens += other.tokens
        self.labelled += other.labelled
        self.padded += other.padded
        self.flops += other.flops

    def rates(self, peak_flops: float | None) -> dict[str, float]:
        """Tokens per second, the share of padding, and MFU where the peak is known.

        Args:
            peak_flops: Peak FLOP/s of all devices of the run together.
        """
        if self.seconds <= 0:
            return {}
        rates = {
            "tokens_per_second": self.tokens / self.seconds,
            "labelled_tokens_per_second": self.labelled / self.seconds,
        }
        if self.padded:
            rates["padding_share"] = 1 - self.tokens / self.padded
        if peak_flops:
            rates["mfu"] = self.flops / self.seconds / peak_flops
        return rates


class ThroughputMeter:
    """Measures optimiser steps; what lies between them (evaluation, checkpoints) does not count."""

    def __init__(self) -> None:
        self.total = Work()
        """Since the start of this process's training."""
        self._window = Work()
        self._started: float | None = None

    def start(self) -> None:
        """An optimiser step begins, its data still to be fetched."""
        self._started = time.perf_counter()

    def stop(self, work: Work) -> None:
        """The optimiser step is done.

        Args:
            work: Its tokens and FLOPs; the time is filled in here.
        """
        if self._started is None:
            return
        work.seconds = time.perf_counter() - self._started
        self._started = None
        self._window.add(work)
        self.total.add(work)

    def take_window(self) -> Work:
        """The work since the last call."""
        window, self._window = self._window, Work()
        return window


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far in GiB: allocated by torch on a CUDA device, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / GIB
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / GIB  # macOS counts bytes, Linux KiB


def peak_flops(device: torch.device, given: float | None) -> float | None:
    """Peak FLOP/s of a device: the given number, else from the table of known GPUs, else None.

    Args:
        device: Where the run computes.
        given: What the user stated.
    """
    if given is not None or device.type != "cuda":
        return given
    gpu = known_gpu(torch.cuda.get_device_name(device))
    return None if gpu is None else gpu.half_flops


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of forward and backward per token."""

    body: float
    """Per token, for all but the output embedding."""

    head: float
    """Per labelled token, for the output embedding, which sees no others."""

    def of(self, tokens: int, labelled: int) -> float:
        """FLOPs of a step with this many tokens, of which so many carry loss."""
        return self.body * tokens + self.head * labelled


def training_flops(model: nn.Module) -> TrainingFlops:
    """FLOPs per token, from the weights.

    Each weight costs 2 in the forward, 2 for the gradient of its input, and 2 for its own gradient. A frozen
    weight has no gradient of its own, and one before the first trainable weight no input gradient either.
    Looking up input embeddings costs no product. Attention scores are left out: at the lengths of instruction
    data they are a few per cent of the weights' share.
    """
    looked_up = _weight_of(model, "get_input_embeddings")
    head = _weight_of(model, "get_output_embeddings")
    body, in_backward = 0.0, False
    for parameter in model.parameters():
        in_backward = in_backward or parameter.requires_grad
        if parameter is not looked_up and parameter is not head:
            body += (2 + 2 * in_backward + 2 * parameter.requires_grad) * weight_count(parameter)
    per_label = 0.0 if head is None else (4.0 + 2 * head.requires_grad) * weight_count(head)
    return TrainingFlops(body=body, head=per_label)


def _weight_of(model: nn.Module, getter: str) -> nn.Parameter | None:
    module = getattr(model, getter, lambda: None)()
    return getattr(module, "weight", None)


def has_media(batch: dict[str, Any]) -> bool:
    """Whether a batch has records with images; a row that only keeps a rank busy is no record."""
    return batch.get("record_id") != [] and ("features" in batch or "has_image" in batch)


def token_count(batch: dict[str, Any]) -> int:
    """Tokens of a batch without padding; a row that only keeps a rank busy, without a record, is padding."""
    if batch.get("record_id") == []:
        return 0
    mask = batch.get("attention_mask")
    return int(mask.sum()) if isinstance(mask, Tensor) else batch["labels"].numel()
