"""Eight rows, each with its own adapter, answered in one batch beside one after the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding import NEW_TOKENS, PROMPT_TOKENS
from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import DEFAULT_ZERO_INIT, adapter_config, load_adapted
from llama_adapter.demo.base_model import DEFAULT_FOLDER

ADAPTERS = 8
TIMES_FASTER = 3.0


def run(
    minimum: int = 7, maximum: int = 25, folder: Path = DEFAULT_FOLDER, new_tokens: int = NEW_TOKENS
) -> list[Row]:
    """Time both ways.

    Args:
        minimum: pairs at least.
        maximum: pairs at most.
        folder: the base model.
        new_tokens: of each row.
    """
    model: Any = load_adapted(DEFAULT_ZERO_INIT, folder)
    names = [f"adapter {number}" for number in range(ADAPTERS)]
    for name in names:
        model.add_adapter(name, adapter_config(DEFAULT_ZERO_INIT, model.config.num_hidden_layers))
    _stir(model)
    together, one_by_one = _generations(model, names, new_tokens)
    ratio, mine, other = compare(together, one_by_one, TIMES_FASTER, minimum, maximum)
    return [
        Row(
            measure=f"{ADAPTERS} rows with {ADAPTERS} adapters in one batch: times faster",
            against="one by one",
            **ratio.figures(),
            target=TIMES_FASTER,
            facts={
                "tokens/s": ADAPTERS * new_tokens / mine,
                "of the other": ADAPTERS * new_tokens / other,
                "same tokens": torch.equal(together(), one_by_one()),
            },
        )
    ]


def _stir(model: Any) -> None:
    """Open the gates, so that adapters differ."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "gate" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


def _generations(
    model: Any, names: list[str], new_tokens: int
) -> tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]:
    """The two ways to answer every row with its adapter."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (len(names), PROMPT_TOKENS), generator=generator)
    settings = {
        "max_new_tokens": new_tokens,
        "min_new_tokens": new_tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }

    def together() -> torch.Tensor:
        return model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=names, **settings
        )

    def one_by_one() -> torch.Tensor:
        rows = []
        for number, name in enumerate(names):
            model.set_adapter(name)
            row = ids[number : number + 1]
            rows.append(model.generate(input_ids=row, attention_mask=torch.ones_like(row), **settings))
        return torch.cat(rows)

    return together, one_by_one
