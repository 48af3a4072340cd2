"""Training of a SPHINX model by the core's one trainer: what ``tuning`` in a configuration says.

``base`` names either the folder of a SPHINX model, whose training goes on, or a language model, which becomes
one with the encoders, views and tokens given here. What is unusual: with ``data.images`` cached the encoders
run once per picture before training, and the features of all views are kept on disk.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
from torch import nn
from transformers import PreTrainedTokenizerBase

from llama_adapter.data import DataConfig, Datasets, build_datasets
from llama_adapter.data.build import MediaRule
from llama_adapter.data.images import image_size
from llama_adapter.data.lengths import MEDIA_TOKENS
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, empty_base, load_base, load_base_config, load_tokenizer
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.tuning import PlannedImages, Setup, TuningConfig
from llama_adapter.vocabulary import check_vocabulary
from sphinx_ft.collator import SphinxCollator
from sphinx_ft.config import Places, SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.feature_cache import CachedFeatures, cache_features
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.planned import planned_images
from sphinx_ft.processor import SphinxProcessor
from sphinx_ft.savings import savings
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.trainable import TrainableSet, set_trainable
from sphinx_ft.views import Size, ViewConfig

_log = logging.getLogger(__name__)
_READING_THREADS = 8


@dataclass(kw_only=True)
class SphinxTuning(TuningConfig):
    """A SPHINX model, and what of it trains."""

    sees_images: ClassVar[bool] = True

    trainable: TrainableSet = "all_but_encoders"
    """all_but_encoders: language model, projections and marks. mixed_projection: that alone, as the first
    stage of the light models. The others: see docs/sphinx.md."""
    encoders: list[EncoderConfig] = field(default_factory=list)
    """Of the mix, in the order of their channels, where base is a language model."""
    views: ViewConfig | None = None
    """Padding and grid, likewise."""
    tokens: TokenConfig | None = None
    """What becomes of a view's features, likewise."""
    image_places: Places | None = None
    """after_bos: behind the first token, as published; placeholder: where the text has ``<image>``.
    Likewise."""

    def set_up(self, base: BaseModelConfig, data: DataConfig, args: TrainingConfig) -> Setup:
        """See ``TuningConfig.set_up``.

        Raises:
            UserError: base is a SPHINX model and settings of one came, or the other way round; an encoder
                has no weights; or a picture cannot be read.
        """
        tokenizer = load_tokenizer(base)
        model = self._model(base)
        check_vocabulary(tokenizer, model)
        set_trainable(model, self.trainable)
        config: SphinxConfig = model.config
        with args.main_process_first(desc="tokenising the data"):
            rows, sizes = _rows(config, data, tokenizer)
        if sizes:
            _log.info("training data: %s", savings(config, list(sizes.values())))
        features = self._features(model, data, args, sizes)
        processor = SphinxProcessor(tokenizer, config, data.template)
        begin = processor.rule.bos_token_id
        return Setup(
            model,
            tokenizer,
            rows,
            lambda collate: SphinxCollator(collate, config, begin, features=features),
            processor,
        )

    def prepared(
        self, base: BaseModelConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase
    ) -> Datasets:
        """See ``TuningConfig.prepared``; ``media_tokens`` says how many tokens images add to a row."""
        return _rows(self._planned(base), data, tokenizer)[0]

    def planned_images(self, base: BaseModelConfig, data: DataConfig) -> PlannedImages:
        """See ``TuningConfig.planned_images``."""
        return planned_images(self._planned(base), _is_live(data))

    def empty_model(self, base: BaseModelConfig, data: DataConfig) -> nn.Module:
        """See ``TuningConfig.empty_model``; encoders that run in steps are part of it."""
        saved = load_base_config(base)
        if isinstance(saved, SphinxConfig):
            self._refuse_settings(base)
            model = SphinxForConditionalGeneration(saved)
        else:
            text = empty_base(base, saved)
            model = SphinxForConditionalGeneration(self._config(text.config), text)
        if _is_live(data):
            model.encoders.take_in()
        set_trainable(model, self.trainable)
        return model

    def _planned(self, base: BaseModelConfig) -> SphinxConfig:
        """Settings of the model, which is not loaded."""
        saved = load_base_config(base)
        if isinstance(saved, SphinxConfig):
            return saved
        self._need_encoders(base)
        return self._config(saved)

    def _model(self, base: BaseModelConfig) -> Any:
        """The model with its weights."""
        if isinstance(load_base_config(base), SphinxConfig):
            self._refuse_settings(base)
            return SphinxForConditionalGeneration.from_pretrained(
                base.name_or_path,
                dtype=base.precision,
                revision=base.revision,
                attn_implementation=base.attn_implementation,
                allow_misfit=base.allow_misfit,
            )
        random = [one.name for one in self.encoders if not one.elsewhere]
        self._need_encoders(base, random)
        text = load_base(base)
        return SphinxForConditionalGeneration(self._config(text.config), text)

    def _need_encoders(self, base: BaseModelConfig, random: Sequence[str] = ()) -> None:
        """A language model becomes one that sees by encoders.

        Raises:
            UserError: there are none, or some with random weights.
        """
        if self.encoders and not random:
            return
        found = f"of which {random} have no weights" if random else f"which is {self.encoders}"
        raise UserError(
            f"{base.name_or_path!r} is a language model that needs tuning.encoders, {found}. "
            "List encoders with `weights`, or use a folder of `convert --kind sphinx` as base."
        )

    def _config(self, text_config: Any) -> SphinxConfig:
        """Settings of a new model."""
        return SphinxConfig(
            text_config=text_config,
            encoders=self.encoders,
            views=self.views,
            tokens=self.tokens,
            image_places=self.image_places or "after_bos",
        )

    def _refuse_settings(self, base: BaseModelConfig) -> None:
        """A SPHINX model brings its own.

        Raises:
            UserError: others came.
        """
        given = {name: getattr(self, name) for name in ("encoders", "views", "tokens", "image_places")}
        if extra := [name for name, value in given.items() if value]:
            raise UserError(
                f"{extra} under tuning are those of a new model, and {base.name_or_path!r} is a SPHINX model "
                "already. Leave them out."
            )

    def _features(
        self, model: Any, data: DataConfig, args: TrainingConfig, sizes: Mapping[str, Size]
    ) -> CachedFeatures | None:
        """Kept features of all pictures; None where they are encoded live."""
        if data.images == "live" or not sizes:
            if data.images == "cached" and _is_streamed(data):
                raise UserError(
                    "Features are computed before training, and data are streamed. Set data.images=live."
                )
            return None
        mix = model.encoders.to(args.device)
        folder = data.feature_cache or Path(
            data.cache_dir or datasets.config.HF_DATASETS_CACHE, "sphinx_features"
        )
        progress = args.process_index == 0
        found = cache_features(mix, model.config, sizes, folder, args.device, progress=progress)
        mix.forget()
        return found


def _rows(
    config: SphinxConfig, data: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[Datasets, dict[str, Size]]:
    """All rows, and width and height of their pictures, by path; none of these where rows are streamed."""
    by_placeholder = config.image_places == "placeholder"
    rule = MediaRule(several=True, token_id=config.image_token_id if by_placeholder else None)
    rows = build_datasets(data, tokenizer, rule)
    sizes = {} if _is_streamed(data) or not data.attaches_media else _sizes(rows)
    return (_with_lengths(rows, config, sizes) if sizes else rows), sizes


def _is_live(data: DataConfig) -> bool:
    """Whether encoders run in every step."""
    return data.images == "live" or _is_streamed(data)


def _is_streamed(data: DataConfig) -> bool:
    return any(source.streaming for source in data.train)


def _parts(rows: Datasets) -> Iterable[Any]:
    return (part for part in (rows.train, rows.evaluation) if part is not None)


def _sizes(rows: Datasets) -> dict[str, Size]:
    """Width and height of every picture, by its path.

    Raises:
        UserError: a file is no image.
    """
    paths: dict[str, None] = {}
    for part in _parts(rows):
        for batch in part.select_columns(["media"]).iter(batch_size=1024):
            paths |= dict.fromkeys(path for media in batch["media"] for path in media)
    with ThreadPoolExecutor(_READING_THREADS) as pool:
        return dict(zip(paths, pool.map(image_size, paths), strict=True))


def _with_lengths(rows: Datasets, config: SphinxConfig, sizes: dict[str, Size]) -> Datasets:
    """Rows that say how many tokens their images add, for batches by length."""
    tokens = dict(zip(sizes, config.image_lengths(list(sizes.values())), strict=True))
    mark = config.image_places == "placeholder"  # whose token is in the text already

    def added(part: Any) -> Any:
        """The rows with one more column."""
        if part is None:
            return None
        batches = part.select_columns(["media"]).iter(1024)
        counts = [sum(tokens[path] - mark for path in media) for batch in batches for media in batch["media"]]
        return part.add_column(MEDIA_TOKENS, counts)

    return Datasets(added(rows.train), added(rows.evaluation), rows.report)
