"""From texts, conversations and files of every modality to what ``ImageBindLlm`` takes.

It is the core's processor of a model that sees; what differs is that a row is shown a mix of any inputs with
weights. In a conversation they are parts such as ``{"type": "audio", "path": "rain.wav", "weight": 0.3}``.

Dimensions: R rows, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchFeature

from imagebind_llm.loading import Row, as_mix, load_mixes, weighted
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.errors import UserError
from llama_adapter.media import MODALITIES, MediaItem, Mix
from llama_adapter.multimodal.processor import ImageConditionedProcessor, file_of, medium_of

_PARTS = tuple(name for name in MODALITIES if name not in ("image", "text"))
"""Types of a message's parts besides those of the core; text is what is said."""


class ImageBindLlmProcessor(ImageConditionedProcessor):
    """Tokenizer, template, and readers of all modalities."""

    def __call__(  # type: ignore[override]
        self,
        inputs: Sequence[Row] | None = None,
        text: str | Sequence[str] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Tokens and inputs of R rows.

        Args:
            inputs: of each text what is shown with it: a list of (modality, file or text) or (modality, file
                or text, weight), or None. A file may also be a picture of PIL.
            text: prompts, complete with their template, as ``apply_chat_template`` gives them.
            options: as the core's processor takes them.

        Returns:
            ``input_ids`` and ``attention_mask`` (R, T), and ``mixes``, what the rows are shown.

        Raises:
            UserError: inputs do not go with the texts, or one cannot be read, or an option is unknown.
        """
        rows = None if inputs is None else [as_mix(row) for row in inputs]
        return super().__call__(rows, text, **options)

    def to_dict(self) -> dict[str, Any]:
        """What is saved: the core's class, under whose name AutoProcessor finds this one by the encoder."""
        saved: dict[str, Any] = super().to_dict()
        return saved | {"processor_class": ImageConditionedProcessor.__name__}

    def _medium(self, part: Mapping[str, Any]) -> Any:
        """As the core has it; any modality, with its weight."""
        kind = str(part.get("type"))
        if kind in _PARTS:
            content = file_of(medium_of(part, (kind, "path", "url")))
        elif (image := super()._medium(part)) is not None:
            kind, content = "image", file_of(image)
        else:
            return None
        return weighted(kind, content, part.get("weight", 1))

    def _shown(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The inputs of each row in one mix, read."""
        mixes = [as_mix([one for given in row for one in _inputs(given)]) for row in rows]
        if not any(mixes):
            return {}
        if self.vision is None:
            raise UserError(
                f"{next(filter(None, mixes))} came, but the adapter names no encoder (vision is None). "
                "Use one that was trained with `vision.kind: imagebind`, or convert it with --encoder."
            )
        reader = ImageBindProcessor.from_pretrained(self.vision["name_or_path"])
        return {"mixes": load_mixes(mixes, reader)}


def _inputs(given: Mix | MediaItem) -> Sequence[MediaItem]:
    """What a row's entry holds."""
    return given.inputs if isinstance(given, Mix) else (given,)
