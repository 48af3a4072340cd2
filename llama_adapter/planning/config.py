"""Settings of `plan`: those of the training run it is about, the hardware, and what is assumed.

The same YAML file serves both verbs.
"""

from dataclasses import dataclass

from llama_adapter.errors import UserError
from llama_adapter.limits import Count, PartOf, Positive, Share
from llama_adapter.training.run import TrainConfig
from llama_adapter.values import check_ranges


@dataclass(kw_only=True)
class PlanConfig(TrainConfig):
    """Memory, FLOPs and time of a training run, before any weight is loaded."""

    gpu: str | None = None
    """The device to plan for: h200, h100, a100-80gb, a100-40gb, l4, rtx4090, rtx3090 ..., or cpu (this one,
    measured). The default is this machine's own."""

    num_gpus: Count = 1
    """How many of them train together."""

    mfu: PartOf = 0.4
    """Share of the device's peak FLOP/s that the run reaches, recomputation included. 0.4 is what tuned
    training of models of 7B reaches on A100 and H100; small models and short batches reach less."""

    tokens_per_record: Positive | None = None
    """Mean length of a record in tokens, where the data are not at hand; together with ``records``."""

    records: Count | None = None
    """Number of records of an epoch, where the data are not at hand."""

    labelled_share: PartOf = 1.0
    """Share of the tokens that carry loss, where the data are not at hand. 1 is an upper bound."""

    padding_share: Share = 0.0
    """Share of padding in a batch, where the data are not at hand."""

    feature_tokens: Count | None = None
    """Tokens of an image's features, where the encoder's settings are not at hand; together with
    ``feature_width``."""

    feature_width: Count | None = None
    """Their width, all levels together."""

    image_share: Share = 1.0
    """Share of the records with an image, where the data are not at hand and the model sees."""

    compare: bool = True
    """Also plan other precisions, checkpointing policies, batches and ways to share the work: half a
    minute or more."""

    json: bool = False
    """Print JSON instead of tables."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        super().__post_init__()
        check_ranges(self)
        if (self.tokens_per_record is None) != (self.records is None):
            raise UserError(
                f"tokens_per_record={self.tokens_per_record} and records={self.records} describe data only "
                "together. Use both, or none to read the data."
            )
        if (self.feature_tokens is None) != (self.feature_width is None):
            raise UserError(
                f"feature_tokens={self.feature_tokens} and feature_width={self.feature_width} say something "
                "only together. Use both, or none to read the encoder's settings."
            )
