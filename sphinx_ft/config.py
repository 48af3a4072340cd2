"""Settings of a SPHINX model, as its ``config.json`` has them.

The language model's are transformers' own, under ``text_config``. The other sections are those of the
dataclasses that the parts declare.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from transformers import PreTrainedConfig

from llama_adapter.errors import UserError
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.tokens import TokenConfig, TokenLayout
from sphinx_ft.views import Size, ViewConfig, useful_mask

Places = Literal["after_bos", "placeholder"]


class SphinxConfig(PreTrainedConfig):
    """Language model, encoders, views and tokens."""

    model_type = "sphinx"
    sub_configs = {"text_config": PreTrainedConfig}  # only its key is asked for

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        encoders: Sequence[EncoderConfig | dict[str, Any]] = (),
        views: ViewConfig | dict[str, Any] | None = None,
        tokens: TokenConfig | dict[str, Any] | None = None,
        image_places: Places = "after_bos",
        image_token_id: int | None = None,
        **others: Any,
    ) -> None:
        """Keep the settings, as plain values.

        Args:
            text_config: of the language model; LLaMA-2 7B by default.
            encoders: of the mix, in the order of their channels and tokens.
            views: padding and grid.
            tokens: what becomes of a view's features.
            image_places: where images stand in a text: all behind the first token, as published, or where
                the text has the placeholder.
            image_token_id: what stands in the place of each of an image's tokens; one behind the vocabulary
                where it is left out, so that no text has it.
            others: what every configuration has.

        Raises:
            UserError: a setting has no such name, or does not fit.
        """
        # here, since the Auto classes load this file while they are imported
        from transformers.models.auto.configuration_auto import AutoConfig

        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**{"model_type": "llama", **text_config})
        # a copy: what this config sets on its parts must not reach a language model that is there already
        self.text_config: Any = copy.deepcopy(text_config) or AutoConfig.for_model("llama")
        self.encoders = [asdict(_read(EncoderConfig, one)) for one in encoders]
        self.views = asdict(_read(ViewConfig, views or {}))
        self.tokens = asdict(_read(TokenConfig, tokens or {}))
        self.image_places = image_places
        self.image_token_id = self.text_config.vocab_size if image_token_id is None else image_token_id
        others.setdefault("tie_word_embeddings", bool(self.text_config.tie_word_embeddings))
        super().__init__(**others)

    @property
    def encoder_configs(self) -> list[EncoderConfig]:
        """Of the mix, in order."""
        return [EncoderConfig(**one) for one in self.encoders]

    @property
    def view_config(self) -> ViewConfig:
        """Padding and grid."""
        return ViewConfig(**self.views)

    @property
    def token_config(self) -> TokenConfig:
        """What becomes of a view's features."""
        return TokenConfig(**self.tokens)

    @property
    def layout(self) -> TokenLayout:
        """The lengths of views."""
        return TokenLayout.of(self.token_config, self.encoder_configs)

    def image_lengths(self, sizes: Sequence[Size]) -> list[int]:
        """Tokens of images, by their width and height alone."""
        lengths: list[int] = self.layout.lengths(useful_mask(sizes, self.view_config)).tolist()
        return lengths


def _read(kind: type[Any], values: Any) -> Any:
    """Settings of a part.

    Raises:
        UserError: one has no such name.
    """
    if not isinstance(values, Mapping):
        return values
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(
            f"The settings {dict(values)} cannot be used: {error}. Use fields of {kind.__name__}."
        ) from error
