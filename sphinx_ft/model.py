"""SPHINX as a transformers model: encoders, projections and a language model that is tuned as a whole.

The tokens of an image stand in the text as so many copies of ``image_token_id``; ``placement`` puts them
there. So lengths, labels, masks and positions are those of the row, and each image token counts as one
position. How it is trained, and from which files, is not known here.

Dimensions: R rows, T tokens, D hidden size, I images of all rows, V views, S side of the padded square in
pixels, P encoded views, N image tokens of all rows, K of the row that has most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from llama_adapter.errors import UserError
from llama_adapter.whole_loads import load_whole
from sphinx_ft.config import SphinxConfig
from sphinx_ft.mixing import EncoderMix, MixedFeatures
from sphinx_ft.view_tokens import ViewTokens


class SphinxForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that is shown images as tokens.

    Args:
        config: of all parts.
        language_model: to be used instead of a random one.
    """

    config_class = SphinxConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: SphinxConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config)
        else:
            for module in language_model.modules():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.language_model: Any = language_model
        self.config.text_config = language_model.config
        self.encoders = EncoderMix(config.encoder_configs, config.view_config, config.token_config.grid)
        self.view_tokens = ViewTokens(
            config.token_config,
            config.text_config.hidden_size,
            self.encoders.mixed_width,
            self.encoders.query_widths,
            config.view_config.count,
        )
        self.post_init()
        self.encoders.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        """Random first weights, of what is no model of transformers itself."""
        super()._init_weights(module)
        if isinstance(module, ViewTokens):
            module.reset_marks(getattr(self.config.text_config, "initializer_range", 0.02))

    def get_input_embeddings(self) -> Any:
        """The language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        """The language model's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> Any:
        """The language model's."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        """The language model's."""
        self.language_model.set_output_embeddings(new_embeddings)

    def forward(  # noqa: PLR0913 - transformers reads from these names what it may pass
        self,
        input_ids: Int[Tensor, "R T"] | None = None,
        pixel_values: Float[Tensor, "I 3 S S"] | None = None,
        useful_views: Bool[Tensor, "I V"] | None = None,
        features: MixedFeatures | None = None,
        image_embeds: Float[Tensor, "R K D"] | None = None,
        image_places: Bool[Tensor, "R T"] | None = None,
        inputs_embeds: Float[Tensor, "R T D"] | None = None,
        attention_mask: Any = None,
        position_ids: Int[Tensor, "..."] | None = None,
        logits_to_keep: Any = 0,
        **kwargs: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: tokens, ``image_token_id`` for those of images.
            pixel_values: padded squares of all images, in the order of their places.
            useful_views: which of their views show some of the picture; None for all.
            features: instead of pixels, of the encoded views; ``useful_views`` is then needed if some are
                skipped.
            image_embeds: instead of both, tokens of each row, at the right end of K.
            image_places: where they belong, with ``image_embeds``.
            inputs_embeds: instead of all these, what the language model sees.
            attention_mask: as the language model takes it.
            position_ids: of all tokens, those of images included.
            logits_to_keep: of how many tokens at the end, or of which, logits are made; 0 for all.
            kwargs: what else the language model takes.

        Raises:
            UserError: images and places do not fit.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise UserError("Neither input_ids nor inputs_embeds came (both are None). Use one of them.")
            if image_embeds is not None and image_places is not None:
                tokens = _by_place(image_embeds, image_places)
            else:
                tokens = self.image_tokens(pixel_values, useful_views, features)
                image_places = input_ids == self.config.image_token_id
            inputs_embeds = self._embedded(input_ids, image_places, tokens)
            if not len(tokens) and self.training and torch.is_grad_enabled():
                inputs_embeds = inputs_embeds + self._nothing()
        kwargs |= {"attention_mask": attention_mask, "position_ids": position_ids}
        if self.training and hasattr(self.config.text_config, "router_aux_loss_coef"):
            kwargs.setdefault("output_router_logits", True)  # without it experts are not balanced
        return self.language_model(inputs_embeds=inputs_embeds, logits_to_keep=logits_to_keep, **kwargs)

    def image_tokens(
        self,
        pixel_values: Float[Tensor, "I 3 S S"] | None = None,
        useful_views: Bool[Tensor, "I V"] | None = None,
        features: MixedFeatures | None = None,
    ) -> Float[Tensor, "N D"]:
        """Tokens of images, one after another; see ``forward``."""
        weight = self.view_tokens.start
        if pixel_values is None and features is None:
            return weight[0, :0]
        encoded = self._encoded(pixel_values, useful_views, features)
        if features is None and pixel_values is not None:
            features = self.encoders(pixel_values.to(weight.device), encoded)
        tokens: Tensor = self.view_tokens(None if features is None else features.to(weight.device), encoded)
        return tokens

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R T"],
        image_embeds: Float[Tensor, "R K D"] | None = None,
        image_places: Bool[Tensor, "R _"] | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What ``forward`` takes for the next token: images only where their places are not cached yet."""
        parent: Any = super()
        inputs: dict[str, Any] = parent.prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if image_places is not None and (is_first_iteration or not kwargs.get("use_cache", True)):
            new = input_ids.shape[1] - image_places.shape[1]
            places = nn.functional.pad(image_places, (0, new))
            inputs["image_places"] = places[:, -inputs["input_ids"].shape[1] :]
            inputs["image_embeds"] = image_embeds
        return inputs

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R _"],
        pixel_values: Float[Tensor, "I 3 S S"] | None = None,
        useful_views: Bool[Tensor, "I V"] | None = None,
        features: MixedFeatures | None = None,
        **options: Any,
    ) -> Any:
        """The ``generate`` of transformers; images as in ``forward``. They are encoded once.

        In what it returns the places of images have the padding's id, or 0: an id that decoders know.
        """
        places = input_ids == self.config.image_token_id
        if places.any():
            if options.get("attention_mask") is None:
                options["attention_mask"] = self._attended(input_ids, options)
            tokens = self.image_tokens(pixel_values, useful_views, features)
            _check_count(places, tokens)
            options |= {"image_places": places, "image_embeds": _by_row(tokens, places)}
            pad = self.generation_config.pad_token_id
            input_ids = input_ids.masked_fill(places, 0 if pad is None else pad)
        parent: Any = super()
        return parent.generate(input_ids=input_ids, **options)

    def _attended(self, input_ids: Int[Tensor, "R T"], options: Mapping[str, Any]) -> Int[Tensor, "R T"]:
        """Which tokens are no padding, as transformers finds it; images, whose id is taken out, are none."""
        settings = options.get("generation_config") or self.generation_config
        pad, ends = (options.get(name, getattr(settings, name)) for name in ("pad_token_id", "eos_token_id"))
        ends = ends if isinstance(ends, list | tuple) else [ends]
        if pad is None or pad in ends:
            return torch.ones_like(input_ids)
        return (input_ids != pad).to(input_ids.dtype)

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """The model of a folder, as transformers loads it, its encoders frozen.

        Args:
            arguments: see transformers.
            options: see transformers; ``allow_misfit`` names tensors that need not fit, see
                ``llama_adapter.whole_loads``.

        Raises:
            UserError: a file is damaged, or tensors do not fit.
        """
        with_report = options.pop("output_loading_info", False)
        load: Any = super().from_pretrained
        found = load_whole(load, *arguments, **options)
        found[0].encoders.requires_grad_(False)
        return found if with_report else found[0]

    def name_encoders(self, folder: str | Path) -> None:
        """Move the encoders' weights to files of their own, which the settings then name.

        Args:
            folder: gets one file for each encoder; models saved from now on leave them out.
        """
        self.encoders.move_out(Path(folder))
        self.config.encoders = [asdict(one) for one in self.encoders.configs]

    def _encoded(
        self,
        pixel_values: Tensor | None,
        useful_views: Bool[Tensor, "I V"] | None,
        features: MixedFeatures | None,
    ) -> Bool[Tensor, "I V"]:
        """Which views of which images are encoded.

        Raises:
            UserError: the features are of another number of views.
        """
        views = self.config.view_config.count
        given = 0 if features is None else _count(features)
        if useful_views is None:
            images = len(pixel_values) if pixel_values is not None else given // views
            useful_views = torch.ones(images, views, dtype=torch.bool)
        encoded = self.config.layout.encoded(useful_views)
        if features is not None and int(encoded.sum()) != given:
            raise UserError(
                f"Features of {given} views came for {len(encoded)} images, of which {int(encoded.sum())} "
                "views are encoded. Use features of exactly those, image by image."
            )
        return encoded

    def _embedded(
        self, input_ids: Int[Tensor, "R T"], places: Bool[Tensor, "R T"], tokens: Float[Tensor, "N D"]
    ) -> Float[Tensor, "R T D"]:
        """Embeddings of a text with images in their places."""
        text: Tensor = self.get_input_embeddings()(input_ids.masked_fill(places, 0))
        _check_count(places, tokens)
        if not len(tokens):
            return text
        return text.masked_scatter(places[..., None], tokens.to(text.device, text.dtype))

    def _nothing(self) -> Float[Tensor, ""]:
        """A zero that all trained parts had a hand in: processes need their gradients in any batch."""
        parts = (self.view_tokens, self.encoders)
        trained = [weight.sum() for part in parts for weight in part.parameters() if weight.requires_grad]
        return 0 * sum(trained, start=self.view_tokens.start.new_zeros(()))


def _count(features: MixedFeatures) -> int:
    """Views that features are of."""
    return len(features.mixed if features.mixed is not None else next(iter(features.queries.values())))


def _check_count(places: Bool[Tensor, "R T"], tokens: Float[Tensor, "N D"]) -> None:
    """Refuse another number of tokens than of places.

    Raises:
        UserError: they differ.
    """
    if (found := int(places.sum())) != len(tokens):
        raise UserError(
            f"The images have {len(tokens)} tokens, but the text {found} places for them. "
            "Use SphinxProcessor, or placement.place_images, with the sizes of the same pictures."
        )


def _by_row(tokens: Float[Tensor, "N D"], places: Bool[Tensor, "R T"]) -> Float[Tensor, "R K D"]:
    """Image tokens of each row, at the right end."""
    counts: Sequence[int] = places.sum(dim=1).tolist()
    rows = tokens.new_zeros(len(counts), max(counts), tokens.shape[1])
    for row, own in enumerate(tokens.split(list(counts))):
        rows[row, rows.shape[1] - len(own) :] = own
    return rows


def _by_place(rows: Float[Tensor, "R K D"], places: Shaped[Tensor, "R T"]) -> Float[Tensor, "N D"]:
    """The inverse of ``_by_row``."""
    counts = places.sum(dim=1, keepdim=True)
    from_right = torch.arange(rows.shape[1], 0, -1, device=rows.device)
    return rows[from_right <= counts]
