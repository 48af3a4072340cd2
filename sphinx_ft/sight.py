"""How the verbs show a SPHINX model pictures: what stands between files and the model's inputs.

A prompt may come with several pictures. Where the model has pictures in the text and the prompt has no places
for them, they stand at the beginning of its first question, each on a line of its own.

Dimensions: R rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from llama_adapter.data import Encoder, Turn
from llama_adapter.data.identity import canonical_json
from llama_adapter.data.images import image_size
from llama_adapter.data.records import MEDIA_PLACEHOLDER
from llama_adapter.errors import UserError
from llama_adapter.media import Mix
from llama_adapter.models import BaseModelConfig, load_tokenizer
from llama_adapter.multimodal.sight import Seeing
from sphinx_ft.config import SphinxConfig
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.pictures import load_squares
from sphinx_ft.placement import PlacementRule, places_of


class SphinxSight(Seeing):
    """Shows a SPHINX model pictures by their files."""

    def __init__(self, model: Any, bos_token_id: int | None) -> None:
        """Takes the model.

        Args:
            model: with its encoders, or the names of their weights.
            bos_token_id: the token that begins texts, if one does.
        """
        self.model = model
        self.config: SphinxConfig = model.config
        self.media_token_id = self.config.image_token_id
        self.rule = PlacementRule.of(self.config, bos_token_id)

    @property
    def identity(self) -> dict[str, Any]:
        """See ``Seeing.identity``; weights are the model's own, and the files that its settings name."""
        return {"sphinx": canonical_json([self.config.encoders, self.config.views, self.config.tokens])}

    def read(self, turns: Sequence[Turn], image: Any) -> list[Turn]:
        """See ``Seeing.read``.

        Raises:
            UserError: the conversation has another number of places than there are pictures.
        """
        if self.rule.places == "after_bos":
            return super().read(turns, image)
        count, marked = len(_pictures(image)), sum(turn.full_text.count(MEDIA_PLACEHOLDER) for turn in turns)
        if marked == count:
            return list(turns)
        if marked:
            raise UserError(
                f"The prompt has {marked} times {MEDIA_PLACEHOLDER}, and {count} pictures came. "
                "Use one for each."
            )
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        text = f"{MEDIA_PLACEHOLDER}\n" * count + turns[first].text
        return [*turns[:first], replace(turns[first], text=text), *turns[first + 1 :]]

    def places(self, tokens: Sequence[int], image: Any) -> list[int]:
        """See ``Seeing.places``."""
        lengths = self.config.image_lengths([image_size(picture) for picture in _pictures(image)])
        return places_of(tokens, lengths, self.rule)

    def inputs(self, images: Sequence[Any]) -> dict[str, Shaped[Tensor, "..."]]:
        """See ``Seeing.inputs``: ``pixel_values`` and ``useful_views`` of all pictures, row by row."""
        pictures = [picture for image in images if image is not None for picture in _pictures(image)]
        if not pictures:
            return {}
        squares, useful = load_squares(pictures, self.config.view_config)
        return {"pixel_values": squares.to(self.model.device), "useful_views": useful}


def _pictures(image: Any) -> list[Any]:
    """What a row is shown, one by one.

    Raises:
        UserError: some of it is no picture, or has a weight.
    """
    if not isinstance(image, Mix):
        return [image]
    if odd := [one for one in image.inputs if one.modality != "image" or one.weight != 1]:
        raise UserError(
            f"{odd[0]} came to a SPHINX model. Use pictures without weights; several are shown in order."
        )
    return [one.content for one in image.inputs]


def open_model(base: BaseModelConfig) -> SphinxSight:
    """The model of a folder.

    Raises:
        UserError: it cannot be loaded.
    """
    if base.quantization != "none":
        raise UserError(
            f"quantization={base.quantization!r} is for language models. Leave it out, or use dtype=bfloat16."
        )
    try:
        model = SphinxForConditionalGeneration.from_pretrained(
            base.name_or_path, dtype=base.dtype, allow_misfit=base.allow_misfit
        )
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The SPHINX model in {base.name_or_path!r} cannot be loaded: {error} "
            "Use a folder of train or convert --kind sphinx."
        ) from error
    model.requires_grad_(False)
    return SphinxSight(model.eval(), Encoder(load_tokenizer(base)).begin_id)
