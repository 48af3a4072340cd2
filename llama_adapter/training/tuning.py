"""Training a model's own weights, in place of an adapter on a frozen base: the seam, and its plainest kind.

A kind of tuning says how its model comes to be, what of it trains, and how media get into its batches; data,
batches, loss, schedule and checkpoints are those of any run. Packages that are built on the core add kinds by
deriving from :class:`TuningConfig`; configurations name them by ``class_path``. What is unusual: weights that
train are kept in float32 unless another precision is asked for, so that small updates are not rounded away;
``training.bf16`` then computes in bf16.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

from jaxtyping import Shaped
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from llama_adapter.data import DataConfig, Datasets, build_datasets
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, empty_base, load_base_and_tokenizer, load_base_config
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.images import Collate

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """What a run trains, and on what."""

    model: nn.Module
    """Its trainable parameters are those that train."""
    tokenizer: PreTrainedTokenizerBase
    """With a pad token."""
    data: Datasets
    """All rows."""
    add_media: Callable[[Collate], Collate]
    """What adds media to the batches of a collator."""
    processor: Any = None
    """What is saved beside a whole model, if that is more than its tokenizer."""


Batch: TypeAlias = Mapping[str, Shaped[Tensor, "..."]]
"""What a collator makes."""


@dataclass(frozen=True, kw_only=True)
class PlannedImages:
    """How images get into the batches of a step that is planned."""

    show: Callable[[nn.Module, Batch, Sequence[bool]], dict[str, Any]]
    """Takes the model, a batch of text and which of its records have an image; gives the batch with images,
    whose tensors are made like the model's, so without content where those have none."""
    tokens: int = 0
    """Of a row that are those of an image, where the model sees images as tokens."""
    flops_before: int = 0
    """Operations for an image before training, where its features are kept."""


@dataclass(kw_only=True)
class TuningConfig(ABC):
    """What trains in place of an adapter."""

    sees_images: ClassVar[bool] = False
    """Whether images of records are shown to the model."""

    @abstractmethod
    def set_up(self, base: BaseModelConfig, data: DataConfig, args: TrainingConfig) -> Setup:
        """Load the model and build the data.

        Raises:
            UserError: something does not fit.
        """

    def prepared(
        self, base: BaseModelConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase
    ) -> Datasets:
        """The rows of a run, as long as the model takes them.

        Raises:
            UserError: a record cannot be used.
        """
        del base
        return build_datasets(data, tokenizer)

    @abstractmethod
    def empty_model(self, base: BaseModelConfig, data: DataConfig) -> nn.Module:
        """The model without its weights, for planning: on torch's current device, trainable as in a run.

        Raises:
            UserError: its settings cannot be read.
        """

    def planned_images(self, base: BaseModelConfig, data: DataConfig) -> PlannedImages | None:
        """How a planned step shows the model images; None for one that sees none.

        Raises:
            UserError: the model's settings cannot be read.
        """
        del base, data
        return None


@dataclass(kw_only=True)
class FullTuning(TuningConfig):
    """All or some of the weights of a language model."""

    trainable: str | None = None
    """Regular expression that is looked for in the names of parameters: those that have it train, the others
    stay frozen. Left out, all train."""

    def __post_init__(self) -> None:
        """Refuse what is no expression."""
        try:
            re.compile(self.trainable or "")
        except re.error as error:
            raise UserError(
                f"tuning.trainable is {self.trainable!r}, which is no regular expression: {error}. "
                "Use a part of the parameters' names, such as 'norm' or 'layers\\.(3[01])\\.'."
            ) from error

    def set_up(self, base: BaseModelConfig, data: DataConfig, args: TrainingConfig) -> Setup:
        """See ``TuningConfig.set_up``."""
        model, tokenizer = load_base_and_tokenizer(base)
        self._choose(model)
        with args.main_process_first(desc="tokenising the data"):
            rows = self.prepared(base, data, tokenizer)
        return Setup(model, tokenizer, rows, lambda collate: collate)

    def empty_model(self, base: BaseModelConfig, data: DataConfig) -> nn.Module:
        """See ``TuningConfig.empty_model``."""
        del data
        model = empty_base(base, load_base_config(base))
        self._choose(model)
        return model

    def _choose(self, model: nn.Module) -> None:
        """Have the chosen parameters train.

        Raises:
            UserError: there are none.
        """
        found = 0
        for name, weight in model.named_parameters():
            weight.requires_grad_(re.search(self.trainable or "", name) is not None)
            found += weight.requires_grad
        if not found:
            names = [name for name, _ in model.named_parameters()]
            raise UserError(
                f"tuning.trainable is {self.trainable!r}, which no parameter's name has. "
                f"Names are such as {names[0]!r} and {names[-1]!r}."
            )


def with_master_weights(base: BaseModelConfig) -> BaseModelConfig:
    """The settings of a base whose weights train: in float32 where no precision was asked for.

    Raises:
        UserError: they are quantised, or spread over devices.
    """
    if base.quantization != "none" or base.device_map is not None:
        raise UserError(
            f"base.quantization={base.quantization!r} with device_map={base.device_map!r} does not go with "
            "training the base's own weights. Leave both out, or train an adapter."
        )
    if base.dtype == "auto":
        return replace(base, dtype="float32")
    if base.precision != "float32":
        _log.warning(
            "base.dtype=%s: weights that train are kept in it, and small updates are rounded away. Leave it "
            "out and set training.bf16=true to keep them in float32 and compute in bf16.",
            base.dtype,
        )
    return base
