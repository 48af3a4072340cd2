"""What two programs share that time their own training loops: the batch, the clock, what reaches the weights.

Imports torch alone, so that an environment with another program in it can use it.

Letters: B rows, T tokens.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IGNORED = -100
"""A label with this value carries no loss."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that both programs take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--base", type=Path, required=True, help="folder of SmolLM2 and its tokenizer")
    options.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    options.add_argument("--steps", type=int, default=7)
    options.add_argument("--rows", type=int, default=4)
    options.add_argument("--tokens", type=int, default=128)
    options.add_argument("--prompts", type=int, default=10, help="per layer, in every layer")
    options.add_argument("--threads", type=int, default=2)
    return options


def random_batch(rows: int, tokens: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The same random tokens for everyone, the second half of each row labelled.

    Args:
        rows: B.
        tokens: T.
        vocabulary: ids lie below.

    Returns:
        Ids and labels, (B, T) each.
    """
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, : tokens // 2] = IGNORED
    return ids, labels


def steps_between(moments: list[float]) -> list[float]:
    """Seconds from each moment to the next."""
    return [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]


class Watch:
    """Notes which trainable tensors ever get a gradient, and which are other than at the start."""

    def __init__(self, model: nn.Module, kinds: dict[str, str]) -> None:
        """Start watching.

        Args:
            model: with its adapter, before any training.
            kinds: a kind of tensor and the piece of a name by which it is known.
        """
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._tensors = {
            kind: [parameter for name, parameter in trainable if piece in name]
            for kind, piece in kinds.items()
        }
        self._start = {parameter: parameter.detach().clone() for _, parameter in trainable}
        self._reached: set[Tensor] = set()
        for _, parameter in trainable:
            parameter.register_post_accumulate_grad_hook(self._reached.add)

    def facts(self) -> dict[str, dict[str, int]]:
        """Numbers of tensors by kind: all, with a gradient at any time, moved."""
        return {
            "tensors": {kind: len(tensors) for kind, tensors in self._tensors.items()},
            "with gradient": {
                kind: sum(tensor in self._reached for tensor in tensors)
                for kind, tensors in self._tensors.items()
            },
            "moved": {
                kind: sum(not tensor.equal(self._start[tensor]) for tensor in tensors)
                for kind, tensors in self._tensors.items()
            },
        }


def figures(seconds: list[float], watch: Watch, versions: dict[str, str], error: str = "") -> dict[str, Any]:
    """What a program writes."""
    return {"seconds": seconds, "versions": versions, "error": error, **watch.facts()}
