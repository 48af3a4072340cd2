"""Settings of `plan`: those of the training run it is about, and how to print.

The same YAML file serves both verbs. Data are not read; their length limit is what counts.
"""

from dataclasses import dataclass

from llama_adapter.training.run import TrainConfig


@dataclass(kw_only=True)
class PlanConfig(TrainConfig):
    """Parameters, memory and FLOPs of one step of a training run, counted without loading weights."""

    json: bool = False
    """Print JSON instead of tables."""
