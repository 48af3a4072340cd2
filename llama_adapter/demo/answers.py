"""Exact match: ask the model every held-out request and compare its answer with the only right one.

Unusual: requests are asked in the order of their length, so that the rows of a batch need little padding;
answers come back in the order of the items. Knows nothing about adapters: the caller decides whether one
is active.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from llama_adapter.demo.task import Item
from llama_adapter.generation import Generator, SamplingConfig

# The longest command has fewer than 40 tokens; a base model that rambles on is cut there.
ANSWER_SETTINGS = SamplingConfig(max_new_tokens=40, batch_size=25)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model said to the held-out items, by part."""

    items: dict[str, list[Item]]
    """The items of each part."""
    outputs: dict[str, list[str]]
    """The answer to each of them."""
    seconds: float
    """Wall time of asking."""

    def exact_match(self, part: str | None = None) -> float:
        """Share of right answers, in one part or in all; spaces around an answer do not count."""
        parts = [part] if part else list(self.items)
        pairs = [pair for name in parts for pair in zip(self.items[name], self.outputs[name], strict=True)]
        return sum(item.answer == output.strip() for item, output in pairs) / len(pairs)


def ask(
    generator: Generator,
    held_out: dict[str, list[Item]],
    advance: Callable[[int], object],
    settings: SamplingConfig,
) -> Answers:
    """Ask every item, greedily and in batches.

    Args:
        generator: The model, with or without an active adapter.
        held_out: Items by part.
        advance: Called after each batch with its size.
        settings: Batch size and longest answer.

    Returns:
        The answers, in the order of the items.
    """
    started = time.perf_counter()
    every = {item.request for items in held_out.values() for item in items}
    requests = sorted(every, key=lambda text: (len(text), text))
    said: dict[str, str] = {}
    for start in range(0, len(requests), settings.batch_size):
        batch = requests[start : start + settings.batch_size]
        said |= zip(batch, generator.generate(batch, settings), strict=True)
        advance(len(batch))
    return Answers(
        items=held_out,
        outputs={part: [said[item.request] for item in items] for part, items in held_out.items()},
        seconds=time.perf_counter() - started,
    )
