"""Which parts of a model train, and on which records: phases and disjoint parameter groups as settings.

LLaMA-Adapter V2 trains image-text pairs and instructions on disjoint parameters, in two stages or jointly
(arXiv 2304.15010, section 3; docs/sources/llama-adapter.md#what-trains). Both are lists of groups here: a
stage is one group, joint training are two that take different records. What is unusual: parts are known by
the names that their tensors have, so a part that another package registers needs no entry. A parameter
outside its records' steps is not just without gradient: it has none, so that neither momentum nor weight
decay moves it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from llama_adapter.data.config import parse_rows
from llama_adapter.errors import UserError
from llama_adapter.limits import Positive
from llama_adapter.training.parts import TrainedParts, part_of

_SPEC = re.compile(r"(?P<part>[^\[\]]+)(\[(?P<layers>[^\[\]]+)\])?")
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(kw_only=True)
class GroupConfig:
    """Parts that train on some of the records."""

    parts: list[str]
    """Parts by name: prompt, gate, new_gate, bias, output_scale, input_scale, lora, norm, conditioner.
    ``prompt[0:8]`` takes layers 0 to 7 only. With ``tuning``: the modules of the model, such as view_tokens,
    language_model."""
    records: Literal["all", "images", "text"] = "all"
    """All records, those with an image, or those without."""
    learning_rate: Positive | None = None
    """Peak rate of these parts; None takes the run's. The schedule is the same for all."""

    def __post_init__(self) -> None:
        """Refuse an empty group, and one that would not move."""
        if not self.parts:
            raise UserError(f"parts of a group is {self.parts}. Name at least one, such as prompt.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UserError(
                f"learning_rate of the group of {self.parts} is {self.learning_rate}. "
                "Use a positive number, or leave it out to take the run's."
            )


class ParameterGroups:
    """The groups of a run, found in its model; what is in none of them is frozen.

    Args:
        parts: of the model, nothing wrapped around it.
        configs: the groups; none for everything that the adapter's settings make trainable.

    Raises:
        UserError: a part is not there, or is in two groups, or nothing trains on some of the records.
    """

    def __init__(self, parts: TrainedParts, configs: Sequence[GroupConfig] = ()) -> None:
        named = [(name, weight) for name, weight in parts.named_parameters() if weight.requires_grad]
        self.members: list[tuple[str, dict[str, nn.Parameter]]] = []
        """Records and parameters of each group."""
        self._rates: dict[int, float] = {}
        """By ``id`` of a parameter."""
        for config in configs:
            found = {name: weight for spec in config.parts for name, weight in _matching(spec, named, parts)}
            if twice := [name for _, other in self.members for name in found.keys() & other.keys()]:
                raise UserError(f"{sorted(twice)[0]!r} is in two groups. Give every part to one of them.")
            self.members.append((config.records, found))
            if config.learning_rate is not None:
                self._rates |= {id(weight): config.learning_rate for weight in found.values()}
        if not configs:
            return
        kept = {name for _, group in self.members for name in group}
        for name, weight in named:
            weight.requires_grad_(name in kept)

    @property
    def joint(self) -> bool:
        """Whether records with and without images train different parts."""
        return any(records != "all" for records, _ in self.members)

    def set_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Give parameters with a rate of their own groups of their own in a new optimiser.

        Raises:
            UserError: the optimiser moves other tensors than the model's.
        """
        found = 0
        for group in list(optimizer.param_groups):
            own = [weight for weight in group["params"] if id(weight) in self._rates]
            found += len(own)
            group["params"] = [weight for weight in group["params"] if id(weight) not in self._rates]
            for rate in dict.fromkeys(self._rates[id(weight)] for weight in own):
                params = [weight for weight in own if self._rates[id(weight)] == rate]
                optimizer.add_param_group({**group, "params": params, "lr": rate})
        if found < len(self._rates):
            raise UserError(
                f"{len(self._rates) - found} of {len(self._rates)} parameters with a learning_rate of their "
                "own are not what the optimiser moves. Leave learning_rate out of the groups when sharding."
            )

    def drop_gradients(self, sees: bool) -> None:
        """Take the gradients of parts whose records these are not.

        Args:
            sees: whether the records of the step have images.
        """
        other = "text" if sees else "images"
        for records, group in self.members:
            if records == other:
                for weight in group.values():
                    weight.grad = None


def _matching(
    spec: str, named: Sequence[tuple[str, nn.Parameter]], parts: TrainedParts
) -> list[tuple[str, nn.Parameter]]:
    """The parameters that a part's name stands for.

    Raises:
        UserError: there are none.
    """
    match = _SPEC.fullmatch(spec)
    part, layers = (match["part"], match["layers"]) if match else (spec, None)
    start, stop = parse_rows(layers)
    found = [
        (name, weight)
        for name, weight in named
        if part_of(name, parts.adapter_names) == part and (layers is None or _within(name, start, stop))
    ]
    if not found:
        known = sorted({part_of(name, parts.adapter_names) or name for name, _ in named})
        raise UserError(f"A group names the part {spec!r}, which trains nothing here. Use some of {known}.")
    return found


def _within(name: str, start: int, stop: int | None) -> bool:
    """Whether a parameter is in one of these layers."""
    layer = _LAYER.search(name)
    return layer is not None and start <= int(layer[1]) and (stop is None or int(layer[1]) < stop)
