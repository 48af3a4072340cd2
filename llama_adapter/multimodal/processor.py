"""From texts, conversations and images to what an image-conditioned model takes.

It puts together what was trained together: the tokenizer of the base, the prompt template that the adapter's
notes name, the preprocessing of the image encoder. Unusual: an image takes no place in the text, since it is
added to the prompts of the layers, so there is no image token; ``<image>`` in a text is left out. Prompts are
padded on the left, for generation.

Dimensions: R rows, T tokens, I images.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from llama_adapter.data import Encoder, Turn, load_template
from llama_adapter.data.images import read_image
from llama_adapter.data.messages import message_turns
from llama_adapter.data.prepare import without_placeholders
from llama_adapter.data.records import RecordProblem
from llama_adapter.errors import UserError
from llama_adapter.media import SeveralImages
from llama_adapter.models import BaseModelConfig, check_adapter, load_tokenizer, read_notes, recorded_base
from llama_adapter.multimodal.model import saved_vision
from llama_adapter.vision import VisionConfig, empty_encoder
from llama_adapter.vision.tower import ImageTransform

Messages: TypeAlias = Sequence[Mapping[str, Any]]


class ImageConditionedProcessor(ProcessorMixin):
    """Tokenizer, template and preprocessing of one adapter."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vision: Mapping[str, Any] | None = None,
        template: str | None = None,
        several_images: SeveralImages = "refuse",
    ) -> None:
        """Loads the template; the preprocessing with the first image.

        Args:
            tokenizer: the base's.
            vision: settings of the image encoder; None for text alone.
            template: ``chat``, ``alpaca`` or ``plain``; None for the tokenizer's own, or plain without one.
            several_images: what to do with several images in one row: ``refuse`` them, or ``average`` what
                the conditioner makes of each.

        Raises:
            UserError: the template is unknown, or the tokenizer does not go with it.
        """
        super().__init__(tokenizer, chat_template=tokenizer.chat_template)
        self.vision = None if vision is None else dict(vision)
        self.template = template or ("chat" if tokenizer.chat_template else "plain")
        self.several_images = several_images
        self._texts = load_template(self.template, tokenizer)
        self._encoder = Encoder(tokenizer)
        self._transform: ImageTransform | None = None

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **options: Any
    ) -> BatchFeature:
        """Tokens and pixels of R rows.

        Args:
            images: one image for one text; or a list with an entry per text: an image, None, or a list of
                images. An image is a path or a picture of PIL.
            text: prompts, complete with their template, as ``apply_chat_template`` gives them.
            options: ``padding_side`` (left by default) and ``add_special_tokens`` (as the template asks for).

        Returns:
            ``input_ids`` and ``attention_mask`` (R, T); where there are images ``pixel_values`` (I, 3, S, U)
            and ``has_image`` (R), which holds numbers where images are averaged.

        Raises:
            UserError: images do not go with the texts, or one cannot be read, or an option is unknown.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        rows = images_by_row(images, len(texts))
        side = options.pop("padding_side", "left")
        special = options.pop("add_special_tokens", self._texts.add_special_tokens)
        if options.pop("return_tensors", "pt") != "pt" or options.pop("padding", True) is not True or options:
            raise UserError(
                f"The options {options} came. Use padding_side and add_special_tokens; tensors are torch's."
            )
        batch = self._tokens([_without_mark(text) for text in texts], special, side) if texts else {}
        return BatchFeature({**batch, **self._shown(rows)})

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Messages | Sequence[Messages],
        add_generation_prompt: bool = True,
        tokenize: bool = False,
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """The prompts of conversations, in the template that the adapter was trained with.

        Args:
            conversation: messages, or a list of such lists. Their content is text or a list of parts
                ``{"type": "text", "text": ...}`` and ``{"type": "image", "image" | "path" | "url": ...}``.
            add_generation_prompt: must stay True: the prompt ends where the answer begins.
            tokenize: also make the model's inputs, images included.
            return_dict: with ``tokenize``, False gives the token ids alone.
            options: of ``__call__``.

        Returns:
            A text or a list of texts; with ``tokenize`` what ``__call__`` returns.

        Raises:
            UserError: a conversation has no place in the template, or does not end with the user's turn.
        """
        if not add_generation_prompt:
            raise UserError(
                "add_generation_prompt is False. Use True: the prompt of an answer is what there is."
            )
        single = bool(conversation) and isinstance(conversation[0], Mapping)
        many: Any = [conversation] if single else conversation
        asked = [self._read(messages) for messages in many]
        texts = [text for text, _ in asked]
        if not tokenize:
            return texts[0] if single else texts
        options |= options.pop("processor_kwargs", None) or {}
        if options.pop("continue_final_message", False):
            raise UserError("continue_final_message is True. Use False: an answer is begun by the model.")
        options.pop("return_tensors", None)
        batch = self([images for _, images in asked], texts, **options)
        return batch if return_dict else batch["input_ids"]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, **options: Any
    ) -> "ImageConditionedProcessor":
        """The processor that belongs to an adapter's folder.

        Args:
            pretrained_model_name_or_path: folder, as the model's or this ``save_pretrained`` wrote it.
            options: ``several_images`` and ``template``, instead of what is saved.

        Raises:
            UserError: a part is missing or damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        check_adapter(folder)
        saved: dict[str, Any] = {}
        if (folder / "processor_config.json").is_file():
            saved, _ = cls.get_processor_dict(str(folder))
        if (folder / "tokenizer_config.json").is_file():
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        else:
            tokenizer = load_tokenizer(BaseModelConfig(name_or_path=recorded_base(folder)))
        vision = saved_vision(folder)
        several = options.get("several_images") or saved.get("several_images", "refuse")
        if several not in ("refuse", "average"):
            raise UserError(f"several_images is {several!r}. Use 'refuse' or 'average'.")
        template = options.get("template") or saved.get("template") or read_notes(folder).template
        return cls(tokenizer, None if vision is None else vars(vision), template, several)

    def _read(self, messages: Messages) -> tuple[str, list[Any]]:
        """The prompt of one conversation and its images."""
        images: list[Any] = []
        plain = [
            {**message, "content": self._texts_only(message.get("content"), images)} for message in messages
        ]
        try:
            turns = [without_placeholders(turn) for turn in message_turns(plain).turns]
            if not turns or turns[-1].role != "user":
                raise RecordProblem("the conversation does not end with the user's turn")
            return self._texts.render_prompt(turns), images
        except RecordProblem as problem:
            raise UserError(f"{problem}. Use messages of role and content, the user's last.") from problem

    def _tokens(self, texts: Sequence[str], special: bool, side: str) -> dict[str, Any]:
        """Padded tokens."""
        rows = [list(self._encoder.encode_prompt(text, special)) for text in texts]
        length, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0

        def padded(row: list[int], fill: int) -> list[int]:
            """One row."""
            more = [fill] * (length - len(row))
            return more + row if side == "left" else row + more

        return {
            "input_ids": torch.tensor([padded(row, pad) for row in rows]),
            "attention_mask": torch.tensor([padded([1] * len(row), 0) for row in rows]),
        }

    def _texts_only(self, content: Any, images: list[Any]) -> Any:
        """A message's content without its images, which are added to ``images``."""
        if not isinstance(content, list):
            return content
        parts = []
        for part in content:
            image = self._medium(part) if isinstance(part, Mapping) else None
            if image is None:
                parts.append(part)
            else:
                images.append(image)
        return parts

    def _medium(self, part: Mapping[str, Any]) -> Any:
        """What a message's part shows: an image; None where it shows nothing.

        Raises:
            UserError: it should show something and does not.
        """
        if part.get("type") not in ("image", "image_url"):
            return None
        return medium_of(part, ("image", "path", "url", "image_url", "base64"))

    def _shown(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Pixels of all images, and which rows have them."""
        counts = torch.tensor([len(images) for images in rows])
        if not int(counts.sum()):
            return {}
        several = counts > 1
        if bool(several.any()) and self.several_images == "refuse":
            row = int(several.nonzero()[0])
            raise UserError(
                f"Row {row} has {int(counts[row])} images. Use one per row, or several_images='average', "
                "which adds the mean of what the conditioner makes of each."
            )
        if self.vision is None:
            raise UserError(
                f"{int(counts.sum())} images came, but the settings name no image encoder (vision is None). "
                "Use the processor of an adapter that was trained with images."
            )
        if self._transform is None:
            self._transform = empty_encoder(VisionConfig(**self.vision)).transform
        channels = self.vision.get("channels", "rgb")
        pixels = [
            self._transform.apply(read_image(file_of(image), channels)) for row in rows for image in row
        ]
        return {
            "pixel_values": torch.stack(pixels),
            "has_image": counts if bool(several.any()) else counts > 0,
        }


def images_by_row(images: Any, rows: int) -> list[list[Any]]:
    """The images of each row.

    Raises:
        UserError: there is another number of entries than of rows.
    """
    if images is None:
        return [[] for _ in range(rows)]
    entries = list(images) if isinstance(images, list | tuple) else [images]
    if rows and len(entries) != rows:
        raise UserError(
            f"{len(entries)} entries of images came for {rows} texts. Use one entry for each: an image, "
            "None, or a list of images."
        )
    return [[] if e is None else list(e) if isinstance(e, list | tuple) else [e] for e in entries]


def medium_of(part: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """A file, or what else a message's part holds under one of some keys.

    Raises:
        UserError: it holds none.
    """
    found = next((part[key] for key in keys if part.get(key) is not None), None)
    if found is None:
        raise UserError(
            f"The part {dict(part)} has no {part['type']}. Add it under {keys[0]!r}, 'path' or 'url'."
        )
    return found["url"] if isinstance(found, Mapping) else found


def file_of(image: Any) -> Any:
    """What ``read_image`` opens: a path or a picture; data URLs are decoded, ``file://`` is left out."""
    if isinstance(image, str) and image.startswith("data:"):
        return io.BytesIO(base64.b64decode(image.partition(",")[2]))
    return image.removeprefix("file://") if isinstance(image, str) else image


def _without_mark(text: str) -> str:
    """A text without the placeholder of an image."""
    return without_placeholders(Turn("user", text)).text
