"""How a training run gets its images: encoder and conditioner by their settings, features or pixels.

What is unusual: with ``data.images`` cached the encoder is there only while the run is set up. It computes
the features that are missing on disk and leaves; the model is trained on features alone. Losses and steps are
not known here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
from peft import PeftModel
from transformers import set_seed

from llama_adapter.conditioning import Conditioner, ConditionerConfig, make_conditioner
from llama_adapter.data import DataConfig, Datasets
from llama_adapter.data.feature_collator import FeatureCollator, PixelCollator, only_medium
from llama_adapter.errors import UserError
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.training.config import TrainingConfig
from llama_adapter.vision import VisionConfig, load_encoder

Collate: TypeAlias = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
"""From rows to a batch."""


@dataclass(frozen=True)
class ImageSettings:
    """The settings of a run that have to do with images."""

    vision: VisionConfig
    """The frozen encoder."""
    conditioner: ConditionerConfig
    """What is trained to pass on what it saw."""

    def model(self, adapted: PeftModel, prompt_length: int, seed: int) -> ImageConditionedModel:
        """The whole model.

        Args:
            adapted: base with adapter.
            prompt_length: of that adapter.
            seed: of the conditioner's first weights; the same on every rank.

        Raises:
            UserError: the encoder cannot be loaded, or a size does not fit.
        """
        encoder = load_encoder(self.vision)
        _, width = encoder.feature_shape
        set_seed(seed)
        return ImageConditionedModel(adapted, self.make_conditioner(adapted, width, prompt_length), encoder)

    def make_conditioner(self, adapted: PeftModel, feature_width: int, prompt_length: int) -> Conditioner:
        """The conditioner; sizes that were left out are those of the parts around it.

        Raises:
            UserError: a size does not fit.
        """
        text: Any = adapted.config.get_text_config()
        return make_conditioner(self.conditioner.fitted(text.hidden_size, feature_width, prompt_length))


def attach_images(
    model: ImageConditionedModel, data: Datasets, config: DataConfig, args: TrainingConfig
) -> Callable[[Collate], Collate]:
    """Prepare the images of a run.

    Args:
        model: with its encoder, which leaves it unless images are encoded live.
        data: all rows.
        config: where features are kept.
        args: the device, and whether there are several processes.

    Returns:
        What adds images to the batches of a collator.

    Raises:
        UserError: an image cannot be read, or a setting does not go with images.
    """
    _check(config, args)
    encoder = model.encoder
    if encoder is None:
        raise UserError(f"The encoder of the model is {encoder}. Use a model that has one.")
    if config.images == "live":
        return lambda collate: PixelCollator(collate, encoder.pixels)
    encoder.to(args.device)
    folder = config.feature_cache or Path(
        config.cache_dir or datasets.config.HF_DATASETS_CACHE, "image_features"
    )
    table = encoder.features(list(_paths(data)), folder, progress=args.process_index == 0)
    model.encoder = None
    return lambda collate: FeatureCollator(collate, table)


def _paths(data: Datasets) -> Iterator[str]:
    """Images of all rows, in their order."""
    for rows in (data.train, data.evaluation):
        if rows is not None:
            for batch in rows.select_columns(["media", "record_id"]).iter(batch_size=1024):
                for media, record_id in zip(batch["media"], batch["record_id"], strict=True):
                    path = only_medium({"media": media, "record_id": record_id})
                    if path is not None:
                        yield path


def _check(config: DataConfig, args: TrainingConfig) -> None:
    """Refuse what does not go with images.

    Raises:
        UserError: says what to set instead.
    """
    streamed = [source.path for source in config.train if source.streaming]
    if streamed and config.images == "cached":
        raise UserError(
            f"Features are computed before training, and {streamed} are streamed. "
            "Set data.images=live, or streaming=false."
        )
    if streamed and args.world_size > 1:
        raise UserError(
            f"{streamed} are streamed to {args.world_size} processes, which would share out pixels as if "
            "every row had an image. Set streaming=false."
        )
    if args.fsdp or args.deepspeed:
        raise UserError(
            f"fsdp={args.fsdp!r} with deepspeed={args.deepspeed!r} would split the conditioner, whose files "
            "are whole. Leave them out to train data-parallel."
        )
