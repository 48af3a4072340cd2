"""What a model is shown of image files: the one thing by which a seeing model's use differs from others'.

The encoder is loaded with the first image, so that text alone needs none. Features are kept while the next
batch may ask for the same image again, and on disk where a cache is given. Prompts and tokens are not known
here.

Dimensions: R rows, N feature tokens of an image, C their width.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from llama_adapter.data import Turn
from llama_adapter.data.identity import weights_digest
from llama_adapter.data.prepare import without_placeholders
from llama_adapter.errors import UserError
from llama_adapter.media import Mix, Mixing, SeveralImages
from llama_adapter.multimodal.model import ImageConditionedModel
from llama_adapter.vision import VisionConfig, VisionEncoder, load_encoder

KEPT_IMAGES = 64
"""Features of so many images stay in memory."""
SENSES = {"imagebind": "imagebind_llm.senses:Senses"}
"""Kind of encoder -> `module:class` of what shows more than images."""
VISUAL_CACHE = "imagebind_llm.cache.blending:open_blend"
"""`module:function` that opens a visual cache for an encoder's settings."""

Blend: TypeAlias = Callable[[Float[Tensor, "R E"]], Float[Tensor, "R E"]]
"""What becomes of global features before the conditioner takes them."""


class Seeing(ABC):
    """What a model that sees needs besides the tokens of a text."""

    model: Any
    """What is run, with all that its ``inputs`` are for."""
    media_token_id: int | None = None
    """What stands for images among the tokens; None for a model that takes them beside the text."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything besides images and language model that decides what is seen."""

    @abstractmethod
    def inputs(self, images: Sequence[Any]) -> dict[str, Shaped[Tensor, "..."]]:
        """What the model takes beside the tokens of R rows.

        Args:
            images: what each row is shown, a file, a picture of Pillow or a ``Mix``; None for text alone.

        Raises:
            UserError: something cannot be read, or not be shown.
        """

    def prepare(self, images: Sequence[str], progress: bool = False) -> None:  # noqa: B027 - most need not
        """Get ready for images that will be shown, where that saves time.

        Args:
            images: files.
            progress: show a bar.
        """

    def read(self, turns: Sequence[Turn], image: Any) -> list[Turn]:
        """A conversation as the model reads it beside an image: without placeholders.

        Args:
            turns: which may have some.
            image: what is shown with it.
        """
        del image
        return [without_placeholders(turn) for turn in turns]

    def places(self, tokens: Sequence[int], image: Any) -> list[int]:
        """Of each place in the model's row its place among the text's tokens; -1 for tokens of the image.

        Args:
            tokens: of the text.
            image: what is shown with it.
        """
        del image
        return list(range(len(tokens)))


class Sight(Seeing):
    """Shows a model images by their files."""

    mixing: Mixing = "published"
    """What becomes of the length of a mix, where several inputs are one."""
    several_images: SeveralImages = "refuse"
    """What becomes of several images of one row, where they are no mix."""

    def __init__(
        self, model: ImageConditionedModel, cache: str | Path | None = None, blend: Blend | None = None
    ) -> None:
        """Loads nothing yet.

        Args:
            model: base, adapter and conditioner; an encoder, or the settings of one.
            cache: folder that keeps features, shared by all encoders.
            blend: for a conditioner of one global feature: changes it first, as a visual cache does.

        Raises:
            UserError: there is something to blend, and images have several features.
        """
        if blend is not None and model.conditioner.num_tokens != 1:
            raise UserError(
                f"A visual cache came for the conditioner {model.conditioner.config.kind!r}, which takes "
                "more than one global feature of an image. Leave the cache out."
            )
        self.model, self.cache, self.blend = model, cache, blend
        self._kept: dict[str, Float[Tensor, "N C"]] = {}

    @property
    def encoder(self) -> VisionEncoder:
        """The model's encoder, loaded at its first use.

        Raises:
            UserError: the model does not say which, or it cannot be loaded.
        """
        if self.model.encoder is None:
            if self.model.encoder_config is None:
                raise UserError(
                    "The adapter's folder has a conditioner, but no config.json that names the image encoder "
                    f"it was trained with (vision is {self.model.encoder_config}). Use "
                    "llama_adapter.multimodal.save_encoder_settings(VisionConfig(...), folder) to add it."
                )
            device = next(self.model.conditioner.parameters()).device
            self.model.encoder = load_encoder(self.model.encoder_config).to(device)
        return self.model.encoder

    @property
    def identity(self) -> dict[str, Any]:
        """Everything besides images and language model that decides what is seen."""
        return {
            "conditioner": weights_digest(self.model.conditioner.state_dict().items()),
            "early_layers": self.model.conditioner.config.early_layers,
            "encoder": self.encoder.identity.values(),
        }

    def prepare(self, images: Sequence[str], progress: bool = False) -> None:
        """Compute the features of images that will be shown, where there is a cache on disk to keep them.

        Raises:
            UserError: a file is no image, or the disk is too small.
        """
        if self.cache is not None and images:
            table = self.encoder.features(list(dict.fromkeys(images)), self.cache, progress=progress)
            self._kept = table  # type: ignore[assignment]

    def inputs(self, images: Sequence[Any]) -> dict[str, Shaped[Tensor, "..."]]:
        """What the model takes beside the tokens of R rows.

        Args:
            images: each row's image, a file or a picture of Pillow; None for a row of text alone; a ``Mix``
                of several images where they are averaged.

        Returns:
            ``features`` (R, N, C) and ``feature_mask`` (R, N); where a row has several images ``features`` of
            each, and ``has_image`` (R), how many; nothing where no row has an image.

        Raises:
            UserError: a file is no image, or several inputs came for a row.
        """
        shown = [self._images(image) for image in images]
        given = {_name(image): image for row in shown for image in row}
        if not given:
            return {}
        found = self._features(given)
        if any(len(row) > 1 for row in shown):
            every = torch.stack([found[_name(image)] for row in shown for image in row])
            counts = torch.tensor([len(row) for row in shown], device=every.device)
            return {"features": self._batch(every, [True] * len(every))["features"], "has_image": counts}
        first = next(iter(found.values()))
        features = first.new_zeros(len(images), *first.shape)
        for row, own in enumerate(shown):
            for image in own:
                features[row] = found[_name(image)]
        return self._batch(features, [bool(own) for own in shown])

    def _images(self, image: Any) -> Sequence[Any]:
        """The images of one row."""
        if not isinstance(image, Mix):
            return () if image is None else (image,)
        check_shown(image, self.model.encoder_config, self.several_images, "a model")
        return image.images or ()

    def _batch(
        self, features: Float[Tensor, "R N C"], present: Sequence[bool]
    ) -> dict[str, Shaped[Tensor, "R ..."]]:
        """The model's inputs; features of rows that have none do not matter."""
        has_image = torch.tensor(present, device=features.device)
        if self.blend is not None:
            blended = self.blend(features[has_image, 0])
            features[has_image, 0] = blended.to(features.dtype)
        return {"features": features, "feature_mask": has_image[:, None].expand(features.shape[:2])}

    def _features(self, images: dict[str, Any]) -> dict[str, Float[Tensor, "N C"]]:
        """Features of each image by its name; those of files are kept."""
        files = [name for name, image in images.items() if isinstance(image, str)]
        if self.cache is not None and any(file not in self._kept for file in files):
            self.prepare(files)
        found = {file: self._kept[file] for file in files if file in self._kept}
        missing = [name for name in images if name not in found]
        if missing:
            made = self.encoder.encode([images[name] for name in missing])
            found |= dict(zip(missing, made, strict=True))
        if self.cache is None:
            self._kept = dict(
                list({**self._kept, **{file: found[file] for file in files}}.items())[-KEPT_IMAGES:]
            )
        return found


def check_shown(mix: Mix, encoder: VisionConfig | None, several: SeveralImages, who: str) -> None:
    """Refuse what a model cannot be shown.

    Args:
        mix: inputs of one row.
        encoder: settings of the model's; None where none are known.
        several: whether images are averaged.
        who: for whom it came, in words.

    Raises:
        UserError: says what can be shown.
    """
    averaged = several == "average" and mix.images is not None
    if averaged or (encoder is not None and encoder.kind in SENSES):
        return
    raise UserError(f"{mix} came for {who}, {_only_images(encoder)}")


def _only_images(encoder: VisionConfig | None) -> str:
    """Why a model is shown no mixes, and what to do: the end of a sentence about it."""
    if encoder is None:
        return (
            "whose config.json names no encoder (vision is None), so nothing says what it can be shown. "
            "Convert those of ImageBind-LLM with --encoder FOLDER; others take one image per prompt."
        )
    return (
        f"whose encoder ({encoder.kind}) takes one image per prompt. "
        "Use one image without a weight, several with --several-images average, or an adapter of ImageBind."
    )


def make_sight(
    model: ImageConditionedModel,
    cache: str | Path | None = None,
    visual_cache: str | Path | None = None,
    mixing: Mixing = "published",
    several_images: SeveralImages = "refuse",
) -> Sight:
    """What shows a model what its encoder knows: images, or inputs of many modalities.

    Args:
        model: see ``Sight``.
        cache: see ``Sight``.
        visual_cache: folder of ``cache build``, or an index file; None for none.
        mixing: what becomes of the length of a mix.
        several_images: what becomes of several images of one row, where they are no mix.

    Raises:
        UserError: the visual cache cannot be used with this model.
    """
    config = model.encoder_config
    maker = Sight if config is None or config.kind not in SENSES else named(SENSES[config.kind])
    blend = None if visual_cache is None else named(VISUAL_CACHE)(visual_cache, config)
    sight: Sight = maker(model, cache, blend)
    sight.mixing, sight.several_images = mixing, several_images
    return sight


def named(place: str) -> Any:
    """What a text of the form `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _name(image: Any) -> str:
    """What tells an image from others of a batch."""
    return image if isinstance(image, str) else f"picture {id(image)}"
