"""A language model that sees: base, adapter, conditioner and, where pixels come in, the image encoder.

Rows with an image and rows of text alone share a batch; each row has at most one image. Images come as pixels
or as precomputed features, which is all that a feature cache needs. What is unusual: while training, a batch
without any image still runs through the conditioner, whose parameters then get gradients of zero; processes
that train together need that, because one of them may meet such a batch alone.

Only what was trained is saved, with the names of base and encoder. How it is trained is not known here.

Dimensions: R records, rows before beams and return sequences multiply them; B rows, T tokens, where packed
rows hold several records; I images, one for each record that has one; N feature tokens, C their width; S
height, U width in pixels.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftConfig, PeftModel
from torch import Tensor, nn

from llama_adapter.adapters import prompt_context
from llama_adapter.conditioning import Conditioner, load_conditioner, save_conditioner
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, check_adapter, load_adapter, load_base
from llama_adapter.vision import VisionConfig, VisionEncoder, load_encoder

ENCODER_FILE = "vision_config.json"


class ImageConditionedModel(nn.Module):
    """Adds what a conditioner makes of each row's image to the prompts of an adapter.

    Args:
        language_model: with an adapter that has prompts.
        conditioner: for the hidden size of that model.
        encoder: needed for ``pixel_values`` only.
    """

    def __init__(
        self, language_model: PeftModel, conditioner: Conditioner, encoder: VisionEncoder | None = None
    ) -> None:
        super().__init__()
        self.language_model, self.conditioner, self.encoder = language_model, conditioner, encoder
        self.encoder_config: VisionConfig | None = None if encoder is None else encoder.config
        """Settings of the encoder that the features come from; saved although the encoder may be away."""
        if (spread := getattr(language_model, "hf_device_map", None)) is not None:
            self.hf_device_map = spread

    @property
    def config(self) -> Any:
        """The language model's."""
        return self.language_model.config

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """The language model's; the encoder keeps nothing anyway."""
        self.language_model.activation_checkpointing_enable(**options)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        pixel_values: Float[Tensor, "I 3 S U"] | None = None,
        has_image: Bool[Tensor, " R"] | None = None,
        features: Float[Tensor, "R N C"] | None = None,
        feature_mask: Bool[Tensor, "R N"] | None = None,
        record_index: Int[Tensor, "B T"] | None = None,
        **inputs: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: tokens.
            pixel_values: preprocessed images, of the rows that have one, in their order.
            has_image: which rows have one; None for all.
            features: instead of pixels, of every row; those of rows without image do not matter.
            feature_mask: which tokens are there, none in rows without image; None for all.
            record_index: of packed rows, the record of each token; images are then those of the records, and
                ``has_image`` is needed with pixels.
            inputs: what else the language model takes.

        Raises:
            UserError: pixels and features came together, or pixels without an encoder, or they do not fit.
        """
        records = len(input_ids) if record_index is None or has_image is None else len(has_image)
        seen = self.features(records, pixel_values, has_image, features, feature_mask)
        with self.conditioned(*seen, record_index):
            return self.language_model(input_ids=input_ids, **inputs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "R _"],
        pixel_values: Float[Tensor, "I 3 S U"] | None = None,
        has_image: Bool[Tensor, " R"] | None = None,
        features: Float[Tensor, "R N C"] | None = None,
        feature_mask: Bool[Tensor, "R N"] | None = None,
        **options: Any,
    ) -> Any:
        """The language model's own ``generate``; images as in ``forward``, by rows of ``input_ids``."""
        seen = self.features(len(input_ids), pixel_values, has_image, features, feature_mask)
        with self.conditioned(*seen):
            return self.language_model.generate(input_ids=input_ids, **options)

    def features(
        self,
        rows: int,
        pixel_values: Float[Tensor, "I 3 S U"] | None,
        has_image: Bool[Tensor, " R"] | None,
        features: Float[Tensor, "R N C"] | None,
        feature_mask: Bool[Tensor, "R N"] | None,
    ) -> tuple[Float[Tensor, "R N C"] | None, Bool[Tensor, "R N"] | None]:
        """Features of all rows and which of their tokens are there; both None where no row has an image."""
        if pixel_values is None:
            if features is not None and feature_mask is None:
                feature_mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
            return features, feature_mask
        if self.encoder is None or features is not None:
            raise UserError(
                f"pixel_values of the shape {tuple(pixel_values.shape)} came "
                + ("together with features. " if features is not None else "to a model without encoder. ")
                + "Use one of pixel_values, with an encoder, and features."
            )
        has_image = _rows_with_image(rows, pixel_values, has_image)
        if not len(pixel_values):
            return None, None
        seen = self.encoder.select(self.encoder(pixel_values))
        everywhere = seen.new_zeros(rows, *seen.shape[1:])
        has_image = has_image.to(seen.device)
        everywhere[has_image] = seen
        return everywhere, has_image[:, None].expand(everywhere.shape[:2])

    def conditioned(
        self,
        features: Float[Tensor, "R N C"] | None,
        mask: Bool[Tensor, "R N"] | None,
        record_index: Int[Tensor, "B T"] | None = None,
    ) -> AbstractContextManager[None]:
        """Passes of the language model inside the block see these images."""
        if features is None or mask is None:
            if not torch.is_grad_enabled() or not self.conditioner.training:
                return prompt_context(self.language_model, None)
            weight = next(self.conditioner.parameters())
            features = weight.new_zeros(1, 1, self.conditioner.config.feature_width)
            mask = torch.zeros(1, 1, dtype=torch.bool, device=weight.device)
            record_index = None
        added = self.conditioner(features.to(next(self.conditioner.parameters()).device), mask)
        return prompt_context(self.language_model, added, record_index=record_index, present=mask.any(1))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter as PEFT does, the conditioner, and the encoder's settings."""
        self.language_model.save_pretrained(str(folder))
        save_conditioner(self.conditioner, folder)
        if self.encoder_config is not None:
            save_encoder_settings(self.encoder_config, folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        base: BaseModelConfig | None = None,
        encoder: VisionEncoder | Literal["saved"] | None = "saved",
        trainable: bool = False,
    ) -> "ImageConditionedModel":
        """The model of a folder.

        Args:
            folder: as ``save_pretrained`` wrote it; or an adapter that ``convert --kind adapter-v2`` wrote.
            base: the frozen language model; None for the one that the adapter names.
            encoder: ``saved`` loads the one that the folder names, if it does; None for features alone.
            trainable: whether adapter and conditioner can be trained further.

        Raises:
            UserError: a part is missing or does not fit.
        """
        check_adapter(folder)
        named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        base = base or BaseModelConfig(name_or_path=str(named))
        adapted = load_adapter(load_base(base), {"default": folder}, trainable)
        conditioner = load_conditioner(folder).requires_grad_(trainable)
        if isinstance(encoder, str):
            encoder = _saved_encoder(Path(folder) / ENCODER_FILE)
        model = cls(adapted, conditioner, encoder)
        return model if trainable else model.eval()


def _rows_with_image(
    rows: int, pixel_values: Float[Tensor, "I 3 S U"], has_image: Bool[Tensor, " R"] | None
) -> Bool[Tensor, " R"]:
    """Which rows have an image.

    Raises:
        UserError: as many images did not come.
    """
    if has_image is None:
        has_image = torch.ones(rows, dtype=torch.bool)
    if len(pixel_values) != int(has_image.sum()) or len(has_image) != rows:
        raise UserError(
            f"{len(pixel_values)} images came for {rows} rows, of which {int(has_image.sum())} have one. "
            "Use one for each True in has_image."
        )
    return has_image


def save_encoder_settings(config: VisionConfig, folder: str | Path) -> None:
    """Write into an adapter's folder which encoder its features come from."""
    settings = json.dumps(asdict(config), indent=2)
    (Path(folder) / ENCODER_FILE).write_text(settings + "\n", encoding="utf-8")


def _saved_encoder(path: Path) -> VisionEncoder | None:
    """The encoder whose settings stand in a file; None without the file.

    Raises:
        UserError: the file is damaged, or the encoder cannot be loaded.
    """
    if not path.is_file():
        return None
    try:
        config = VisionConfig(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read: {error}. Delete it and pass the encoder to from_pretrained."
        ) from error
    return load_encoder(config)
