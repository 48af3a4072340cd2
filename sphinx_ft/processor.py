"""From conversations and pictures to what a SPHINX model takes.

It puts together what belongs together: the tokenizer, the template of prompts, padding and grid of pictures,
and the places of their tokens in the text. Prompts are padded on the left, for generation. Weights and
encoders are not needed.

Dimensions: R rows, T tokens, I images of all rows, V views.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from llama_adapter.data import Encoder, load_template
from llama_adapter.data.messages import message_turns
from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem
from llama_adapter.errors import UserError
from llama_adapter.generation.generator import left_pad
from llama_adapter.multimodal.processor import Messages, file_of, images_by_row, medium_of
from sphinx_ft.config import SphinxConfig
from sphinx_ft.pictures import load_squares
from sphinx_ft.placement import PlacementRule, place_images


class SphinxProcessor(ProcessorMixin):
    """Tokenizer, template and pictures of one model."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, config: SphinxConfig, template: str | None = None
    ) -> None:
        """Loads the template.

        Args:
            tokenizer: of the language model.
            config: of the model.
            template: a name that ``load_template`` knows; None for the tokenizer's own, or ``sphinx``.

        Raises:
            UserError: the template is unknown, or the tokenizer does not go with it.
        """
        super().__init__(tokenizer, chat_template=tokenizer.chat_template)
        self.template = template or ("chat" if tokenizer.chat_template else "sphinx")
        self.config = config
        self._texts = load_template(self.template, tokenizer)
        self._encoder = Encoder(tokenizer, config.image_token_id)

    @property
    def rule(self) -> PlacementRule:
        """Where images go in a row of tokens."""
        return PlacementRule.of(self.config, self._encoder.begin_id)

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **options: Any
    ) -> BatchFeature:
        """Tokens and pictures of R rows.

        Args:
            images: one image for one text; or a list with an entry per text: an image, None, or a list of
                images. An image is a path or a picture of PIL.
            text: prompts, complete with their template, as ``apply_chat_template`` gives them; where images
                stand in the text, with one ``<image>`` for each.
            options: ``add_special_tokens`` (as the template asks for).

        Returns:
            ``input_ids`` and ``attention_mask`` (R, T); where there are images ``pixel_values`` (I, 3, S, S)
            and ``useful_views`` (I, V).

        Raises:
            UserError: images do not go with the texts, or one cannot be read, or an option is unknown.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        rows = images_by_row(images, len(texts))
        special = options.pop("add_special_tokens", self._texts.add_special_tokens)
        if options.pop("return_tensors", "pt") != "pt" or options.pop("padding", True) is not True or options:
            raise UserError(f"The options {options} came. Use add_special_tokens; tensors are torch's.")
        squares, useful = load_squares(
            [file_of(image) for row in rows for image in row], self.config.view_config
        )
        lengths = iter(self.config.layout.lengths(useful).tolist())
        placed = [
            place_images(self.encode(one, special), [next(lengths) for _ in row], self.rule)
            for one, row in zip(texts, rows, strict=True)
        ]
        seen = {"pixel_values": squares, "useful_views": useful} if len(squares) else {}
        if not placed:
            return BatchFeature(seen)
        input_ids, attention_mask = left_pad(placed, self.tokenizer.pad_token_id or 0)
        return BatchFeature({"input_ids": input_ids, "attention_mask": attention_mask, **seen})

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The tokens of a prompt, with ``image_token_id`` once for each ``<image>``.

        What is around an image is encoded as if it stood alone: no token reaches across.
        """
        return self._encoder.encode_prompt(text, add_special_tokens)

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Messages | Sequence[Messages],
        add_generation_prompt: bool = True,
        tokenize: bool = False,
        return_dict: bool = True,
        **options: Any,
    ) -> Any:
        """The prompts of conversations.

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
        if not add_generation_prompt or options.pop("continue_final_message", False):
            raise UserError(
                f"add_generation_prompt={add_generation_prompt} came, or continue_final_message. "
                "Use the prompt of an answer: that is what there is."
            )
        single = bool(conversation) and isinstance(conversation[0], Mapping)
        asked = [self._read(messages) for messages in ([conversation] if single else conversation)]  # type: ignore[arg-type]
        texts = [text for text, _ in asked]
        if not tokenize:
            return texts[0] if single else texts
        options |= options.pop("processor_kwargs", None) or {}
        options.pop("return_tensors", None)
        batch = self([images for _, images in asked], texts, **options)
        return batch if return_dict else batch["input_ids"]

    def to_dict(self) -> dict[str, Any]:
        """What is saved beside tokenizer and model."""
        return {"processor_class": type(self).__name__, "template": self.template}

    def save_pretrained(  # type: ignore[override]
        self, save_directory: Any, **options: Any
    ) -> Any:
        """Write tokenizer, template and, where it is not there yet, the model's settings."""
        found = super().save_pretrained(save_directory, **options)
        if not (Path(save_directory) / "config.json").is_file():
            self.config.save_pretrained(save_directory)
        return found

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, **options: Any
    ) -> "SphinxProcessor":
        """The processor of a model's folder.

        Args:
            pretrained_model_name_or_path: folder with the model's settings and its tokenizer.
            options: ``template``, instead of the saved one.
        """
        folder = Path(pretrained_model_name_or_path)
        saved: dict[str, Any] = {}
        if (folder / "processor_config.json").is_file():
            saved, _ = cls.get_processor_dict(str(folder))
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        config: Any = SphinxConfig.from_pretrained(str(folder))
        return cls(tokenizer, config, options.get("template") or saved.get("template"))

    def _read(self, messages: Messages) -> tuple[str, list[Any]]:
        """The prompt of one conversation, an ``<image>`` where each image stands, and its images."""
        images: list[Any] = []
        plain = [{**message, "content": _with_marks(message.get("content"), images)} for message in messages]
        try:
            turns = message_turns(plain).turns
            if not turns or turns[-1].role != "user":
                raise RecordProblem("the conversation does not end with the user's turn")
            return self._texts.render_prompt(turns), images
        except RecordProblem as problem:
            raise UserError(f"{problem}. Use messages of role and content, the user's last.") from problem


def _with_marks(content: Any, images: list[Any]) -> Any:
    """A message's content with a mark for each image, which is added to ``images``."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") in ("image", "image_url"):
            images.append(medium_of(part, ("image", "path", "url", "image_url", "base64")))
            parts.append({"type": "text", "text": MEDIA_PLACEHOLDER})
        else:
            parts.append(part)
    return parts
