"""A language model that sees: base, adapter, conditioner and, where pixels come in, the image encoder.

Rows with an image and rows of text alone share a batch; of several images in a row, what the conditioner
makes of each is averaged. Images come as pixels or as precomputed features, which is all that a feature cache
needs. What is unusual: while training, a batch without any image still runs through the conditioner, whose
parameters then get gradients of zero; processes that train together need that, because one of them may meet
such a batch alone.

It is a ``PreTrainedModel`` for those who ask for one, but loads and saves in its own way: only what was
trained is saved, as PEFT does it, with the names of base and encoder. How it is trained is not known here.

Dimensions: R records, rows before beams and return sequences multiply them; B rows, T tokens, where packed
rows hold several records; I images, one for each record that has one; N feature tokens, C their width; S
height, U width in pixels; K entries of features, one per record, or per image where records have several.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from llama_adapter.adapters import prompt_context
from llama_adapter.conditioning import Conditioner, load_conditioner, save_conditioner
from llama_adapter.conditioning.files import read_settings, write_settings
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, check_adapter, load_adapter, load_base
from llama_adapter.multimodal.config import ImageConditionedConfig
from llama_adapter.vision import VisionConfig, VisionEncoder, load_encoder

_OF_AUTO_CLASSES = ("config", "revision", "trust_remote_code", "adapter_kwargs", "_from_auto", "subfolder")
"""What transformers' Auto classes pass along that says nothing here."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rows of a batch see."""

    features: Float[Tensor, "K N C"]
    """Of every record; or, with ``counts``, of every image."""
    mask: Bool[Tensor, "K N"]
    """Which tokens are there; none in records without image."""
    counts: Int[Tensor, " R"] | None = None
    """How many images each record has."""


class ImageConditionedModel(PreTrainedModel):
    """Adds what a conditioner makes of each row's image to the prompts of an adapter.

    Args:
        language_model: with an adapter that has prompts.
        conditioner: for the hidden size of that model.
        encoder: needed for ``pixel_values`` only.
    """

    config_class = ImageConditionedConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(
        self, language_model: PeftModel, conditioner: Conditioner, encoder: VisionEncoder | None = None
    ) -> None:
        vision = None if encoder is None else asdict(encoder.config)
        config = ImageConditionedConfig(conditioner=asdict(conditioner.config), vision=vision)
        config.text_config = language_model.config
        super().__init__(config)
        self.language_model, self.conditioner, self.encoder = language_model, conditioner, encoder
        self.encoder_config: VisionConfig | None = None if encoder is None else encoder.config
        """Settings of the encoder that the features come from; saved although the encoder may be away."""
        if (spread := getattr(language_model, "hf_device_map", None)) is not None:
            self.hf_device_map = spread

    @property
    def generation_config(self) -> Any:  # type: ignore[override]
        """The language model's."""
        return self.language_model.generation_config

    def get_input_embeddings(self) -> Any:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """The language model's."""
        return self.language_model.get_output_embeddings()

    def activation_checkpointing_enable(self, **options: Any) -> None:  # type: ignore[override]
        """The language model's; the encoder keeps nothing anyway."""
        self.language_model.activation_checkpointing_enable(**options)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        pixel_values: Float[Tensor, "I 3 S U"] | None = None,
        has_image: Shaped[Tensor, " R"] | None = None,
        features: Float[Tensor, "K N C"] | None = None,
        feature_mask: Bool[Tensor, "K N"] | None = None,
        record_index: Int[Tensor, "B T"] | None = None,
        **inputs: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: tokens.
            pixel_values: preprocessed images, of the rows that have one, in their order.
            has_image: which rows have one, None for all; or, as whole numbers, how many each row has: what
                the conditioner makes of a row's images is then averaged.
            features: instead of pixels, of every row; those of rows without image do not matter. Of every
                image where ``has_image`` holds numbers.
            feature_mask: which tokens are there, none in rows without image; None for all.
            record_index: of packed rows, the record of each token; images are then those of the records, and
                ``has_image`` is needed with pixels.
            inputs: what else the language model takes.

        Raises:
            UserError: pixels and features came together, or pixels without an encoder, or they do not fit.
        """
        records = len(input_ids) if record_index is None or has_image is None else len(has_image)
        seen = self.seen(records, pixel_values, has_image, features, feature_mask)
        with self.conditioned(seen, records, record_index):
            return self.language_model(input_ids=input_ids, **inputs)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "R _"],
        pixel_values: Float[Tensor, "I 3 S U"] | None = None,
        has_image: Shaped[Tensor, " R"] | None = None,
        features: Float[Tensor, "K N C"] | None = None,
        feature_mask: Bool[Tensor, "K N"] | None = None,
        **options: Any,
    ) -> Any:
        """The language model's own ``generate``; images as in ``forward``, by rows of ``input_ids``."""
        seen = self.seen(len(input_ids), pixel_values, has_image, features, feature_mask)
        with self.conditioned(seen, len(input_ids)):
            return self.language_model.generate(input_ids=input_ids, **options)

    def seen(
        self,
        records: int,
        pixel_values: Float[Tensor, "I 3 S U"] | None,
        has_image: Shaped[Tensor, " R"] | None,
        features: Float[Tensor, "K N C"] | None,
        feature_mask: Bool[Tensor, "K N"] | None,
    ) -> Seen | None:
        """What the records of a batch see; None where no record has an image."""
        counts = None if has_image is None or has_image.dtype == torch.bool else has_image
        if pixel_values is None:
            if features is None:
                return None
            if counts is not None:
                _check_number(len(features), records, counts)
            if feature_mask is None:
                feature_mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
            return Seen(features, feature_mask, counts)
        if self.encoder is None or features is not None:
            raise UserError(
                f"pixel_values of the shape {tuple(pixel_values.shape)} came "
                + ("together with features. " if features is not None else "to a model without encoder. ")
                + "Use one of pixel_values, with an encoder, and features."
            )
        has_image = torch.ones(records, dtype=torch.bool) if has_image is None else has_image
        _check_number(len(pixel_values), records, has_image)
        if not len(pixel_values):
            return None
        features = self.encoder.select(self.encoder(pixel_values))
        if counts is not None:
            return Seen(features, torch.ones_like(features[..., 0], dtype=torch.bool), counts)
        everywhere = features.new_zeros(records, *features.shape[1:])
        has_image = has_image.to(features.device)
        everywhere[has_image] = features
        return Seen(everywhere, has_image[:, None].expand(everywhere.shape[:2]))

    def conditioned(
        self, seen: Seen | None, records: int, record_index: Int[Tensor, "B T"] | None = None
    ) -> AbstractContextManager[None]:
        """Passes of the language model inside the block see these images."""
        weight = next(self.conditioner.parameters())
        if seen is None:
            if not torch.is_grad_enabled() or not self.conditioner.training:
                return prompt_context(self.language_model, None)
            nothing = weight.new_zeros(records, 1, self.conditioner.config.feature_width)
            seen = Seen(nothing, torch.zeros(records, 1, dtype=torch.bool, device=weight.device))
            record_index = None
        added = self.conditioner(seen.features.to(weight.device), seen.mask)
        present = seen.mask.any(1)
        if seen.counts is not None and len(seen.features):
            added, present = _averaged(added, seen.counts.to(weight.device)), seen.counts > 0
        return prompt_context(self.language_model, added, record_index=record_index, present=present)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write the adapter as PEFT does, the conditioner, and the encoder's settings.

        Args:
            save_directory: folder, which is made where it does not exist.
            options: what PEFT's own method takes, but ``state_dict``.
        """
        options.pop("state_dict", None)  # of this whole model, as trainers give it
        self.language_model.save_pretrained(str(save_directory), **options)
        save_conditioner(self.conditioner, save_directory)
        write_settings(save_directory, {"model_type": self.config.model_type})
        if self.encoder_config is not None:
            save_encoder_settings(self.encoder_config, save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path,
        base: BaseModelConfig | None = None,
        encoder: VisionEncoder | Literal["saved"] | None = "saved",
        trainable: bool = False,
        **options: Any,
    ) -> "ImageConditionedModel":
        """The model of a folder.

        Args:
            folder: as ``save_pretrained`` wrote it; or an adapter that ``convert --kind adapter-v2`` wrote.
            base: the frozen language model; None for the one that the adapter names.
            encoder: ``saved`` loads the one that the folder names, if it does; None for features alone.
            trainable: whether adapter and conditioner can be trained further.
            options: ``dtype``, ``attn_implementation``, ``device_map`` and ``allow_misfit`` of the base,
                instead of ``base``.

        Raises:
            UserError: a part is missing or does not fit, or an option is unknown.
        """
        check_adapter(folder)
        base = base or _base(folder, options)
        adapted = load_adapter(load_base(base), {"default": folder}, trainable, base.allow_misfit)
        model = cls.around(adapted, folder, encoder)
        model.conditioner.requires_grad_(trainable)
        return model if trainable else model.eval()

    @classmethod
    def around(
        cls, language_model: PeftModel, folder: str | Path, encoder: VisionEncoder | Literal["saved"] | None
    ) -> "ImageConditionedModel":
        """A language model, whose adapter is loaded already, with the conditioner of the adapter's folder.

        Raises:
            UserError: there is none, or it or the encoder cannot be loaded.
        """
        vision = saved_vision(folder)
        if isinstance(encoder, str):
            encoder = None if vision is None else load_encoder(vision)
        model = cls(language_model, load_conditioner(folder), encoder)
        model.encoder_config = vision if encoder is None else encoder.config
        return model


def save_encoder_settings(config: VisionConfig, folder: str | Path) -> None:
    """Write into an adapter's folder which encoder its features come from."""
    write_settings(folder, {"model_type": ImageConditionedConfig.model_type, "vision": asdict(config)})


def saved_vision(folder: str | Path) -> VisionConfig | None:
    """Settings of the encoder that a folder's features came from; None where it names none.

    Raises:
        UserError: they are damaged.
    """
    settings = read_settings(folder, "vision")
    try:
        return None if settings is None else VisionConfig(**settings)
    except TypeError as error:
        raise UserError(
            f"The image encoder's settings in {str(folder)!r} cannot be used: {error}. "
            "Delete them there and pass the encoder to from_pretrained."
        ) from error


def _base(folder: str | Path, options: Mapping[str, Any]) -> BaseModelConfig:
    """The base that an adapter names, with what transformers' users set about it.

    Raises:
        UserError: an option is unknown.
    """
    named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    chosen = {name: value for name, value in options.items() if name not in _OF_AUTO_CLASSES}
    known = ("dtype", "attn_implementation", "device_map", "allow_misfit")
    if unknown := sorted(chosen.keys() - set(known)):
        raise UserError(f"{unknown[0]}={chosen[unknown[0]]!r} came. Use some of {known}, or base.")
    if "dtype" in chosen:
        chosen["dtype"] = str(chosen["dtype"]).removeprefix("torch.")
    return BaseModelConfig(name_or_path=str(named), **chosen)


def _check_number(images: int, records: int, has_image: Shaped[Tensor, " R"]) -> None:
    """Refuse another number of images than was said.

    Raises:
        UserError: as many images did not come.
    """
    told = int(has_image.sum())
    if images != told or len(has_image) != records:
        one = has_image.dtype == torch.bool
        raise UserError(
            f"{images} images came for {records} rows, "
            + (f"of which {told} have one. " if one else f"whose numbers add up to {told}. ")
            + f"Use one for each {'True' if one else 'counted'} in has_image."
        )


def _averaged(
    added: Float[Tensor, "I A H"] | Mapping[int, Float[Tensor, "I A H"]], counts: Int[Tensor, " R"]
) -> Float[Tensor, "R A H"] | dict[int, Float[Tensor, "R A H"]]:
    """The mean over the images of each record; zeros where there are none."""
    if isinstance(added, Mapping):
        means = {id(tensor): _averaged(tensor, counts) for tensor in added.values()}  # one for all layers
        return {layer: means[id(tensor)] for layer, tensor in added.items()}  # type: ignore[misc]
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    total = added.new_zeros(len(counts), *added.shape[1:]).index_add(0, owner, added)
    return total / counts.clamp(min=1)[:, None, None]
