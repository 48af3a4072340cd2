"""The ``train`` command: from one config to a saved adapter.

What is unusual: nothing is built twice. Model, tokenizer, data and trainer each come from their own config,
and a program can call the same pieces one by one. This module holds no training logic.
"""

import json
import logging
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from jsonargparse import set_parsing_settings
from peft import LoraConfig, PeftConfig
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.conditioning import ConditionerConfig, GlobalFeaturesConfig, VisualQueriesConfig
from llama_adapter.data import DataConfig, PaddingCollator, build_datasets
from llama_adapter.data.collator import PackingCollator
from llama_adapter.data.templates import TEMPLATES
from llama_adapter.errors import UserError
from llama_adapter.limits import Limit
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base_and_tokenizer
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.contradictions import METRICS
from llama_adapter.training.groups import GroupConfig, ParameterGroups
from llama_adapter.training.images import ImageSettings, attach_images
from llama_adapter.training.model_card import generate_command
from llama_adapter.training.parts import TrainedParts
from llama_adapter.training.ranges import ADAPTER_LIMITS
from llama_adapter.training.resume import flattened
from llama_adapter.training.run_folder import check_earlier, claimed, delete_earlier
from llama_adapter.training.start import start_from
from llama_adapter.training.summary import end_table, start_table
from llama_adapter.training.trainer import Trainer
from llama_adapter.training.tuning import FullTuning, Setup, TuningConfig, with_master_weights
from llama_adapter.vision import VisionConfig

AdapterConfig: TypeAlias = ZeroInitConfig | LoraConfig | PeftConfig
"""The adapter of a run: options of ``zero_init`` or of LoRA; any other PEFT config by ``class_path``."""

ImageConditionerConfig: TypeAlias = VisualQueriesConfig | GlobalFeaturesConfig | ConditionerConfig
"""The conditioner of a run. One of another package goes by its ``kind``, with settings by ``class_path``."""

TuningSettings: TypeAlias = FullTuning | TuningConfig
"""What trains in place of an adapter: a language model's weights; another kind by its ``class_path``."""
set_parsing_settings(subclasses_enabled=[ConditionerConfig, TuningConfig])

_log = logging.getLogger(__name__)
_KERNELS = ("eager", *ALL_ATTENTION_FUNCTIONS.valid_keys())


@dataclass(kw_only=True)
class TrainConfig:
    """Everything that decides a training run."""

    LIMITS: ClassVar[dict[str, Limit]] = ADAPTER_LIMITS | {
        "data.template": Limit(
            lambda name: name in TEMPLATES or name.endswith(".jinja"),
            f"one of {', '.join(TEMPLATES)}, or NAME.jinja",
        ),
        "base.attn_implementation": Limit(
            lambda name: name in _KERNELS or "/" in name,
            f"one of {', '.join(_KERNELS)}, or a kernel of the hub",
        ),
    }

    base: BaseModelConfig
    """The pretrained model; frozen, where an adapter trains."""

    adapter: AdapterConfig | None = None
    """What is trained on a frozen base: an adapter."""

    tuning: TuningSettings | None = None
    """What is trained in place of an adapter: weights of the base itself."""

    data: DataConfig
    """Records, template and lengths."""

    training: TrainingConfig
    """Optimisation, evaluation, checkpoints, logging."""

    vision: VisionConfig | None = None
    """The frozen image encoder, for records with images."""

    conditioner: ImageConditionerConfig | None = None
    """What is trained to bring images into the prompts. Sizes that are left out are those of base, encoder
    and adapter."""

    start_from: str | None = None
    """Adapter folder of an earlier phase, whose adapter and conditioner this run goes on from; what only this
    run's adapter has starts as usual."""

    groups: list[GroupConfig] = field(default_factory=list)
    """Which parts train, and on which records; left out, all of the adapter and the conditioner on all."""

    def __post_init__(self) -> None:
        """Refuse parts that need others."""
        metric = self.training.metric_for_best_model
        if metric is not None and metric.removeprefix("eval_") not in METRICS:
            raise UserError(
                f"training.metric_for_best_model is {metric!r}, which no evaluation here yields. "
                f"Use {' or '.join(METRICS)}."
            )
        if (self.adapter is None) == (self.tuning is None):
            both = "neither adapter nor tuning is set" if self.adapter is None else "both are set"
            raise UserError(
                f"Of adapter and tuning {both}. Use adapter for a frozen base, or tuning for its weights."
            )
        if self.tuning is not None:
            self._check_tuning(self.tuning)
        if (self.vision is None) != (self.conditioner is None):
            raise UserError(
                f"vision={self.vision} and conditioner={self.conditioner} belong together. "
                "Use both to train with images, or none."
            )
        if self.conditioner is None:
            return
        if not (isinstance(self.adapter, ZeroInitConfig) and self.adapter.prompts):
            raise UserError(
                f"A conditioner ({self.conditioner.kind!r}) adds to prompts, and the adapter has none. "
                "Set adapter.prompt_length above 0, or leave vision and conditioner out."
            )
        if self.data.media == "ignore":
            raise UserError(
                f"data.media={self.data.media!r} leaves out the images that a conditioner is for. "
                "Leave data.media out, or vision and conditioner."
            )
        if self.data.media == "refuse":
            self.data = replace(self.data, media="attach")

    def _check_tuning(self, tuning: TuningConfig) -> None:
        """Refuse what adapters alone have; the base's weights train."""
        given = {"vision": self.vision, "conditioner": self.conditioner, "start_from": self.start_from}
        if extra := [name for name, value in given.items() if value is not None]:
            raise UserError(f"{extra} came with tuning. Use them with an adapter, or leave them out.")
        self.base = with_master_weights(self.base)
        if tuning.sees_images and self.data.media == "refuse":
            self.data = replace(self.data, media="attach")

    @property
    def sees_images(self) -> bool:
        """Whether images of records are shown to the model."""
        return self.conditioner is not None or (self.tuning is not None and self.tuning.sees_images)

    @property
    def prompt_length(self) -> int:
        """Prompts per layer of the adapter."""
        return getattr(self.adapter, "prompt_length", None) or 0

    @property
    def images(self) -> ImageSettings | None:
        """The settings that have to do with images, if there are some."""
        if self.vision is None or self.conditioner is None:
            return None
        return ImageSettings(self.vision, self.conditioner)


def train(config: TrainConfig) -> int:
    """Train, save the result to ``OUTPUT_DIR/adapter`` or ``OUTPUT_DIR/model`` and print what came out.

    Raises:
        UserError: When the config, the data or the machine do not allow the run.
    """
    args = config.training
    output_dir = Path(args.output_dir or ".")
    with claimed(output_dir) if args.process_index == 0 else nullcontext() as left:
        if left is not None:
            _log.warning("%s", left)
        return _train(config, output_dir)


def _train(config: TrainConfig, output_dir: Path) -> int:
    """The run in a folder of its own: nothing is deleted or written before all of it has been accepted."""
    args, whole = config.training, config.tuning is not None
    resume = args.resume_from_checkpoint or args.resume
    result = output_dir / ("model" if whole else "adapter")
    if args.should_save:
        check_earlier(output_dir, result, resuming=bool(resume), overwrite=args.overwrite_output_dir)
    trainer = build_trainer(config)
    trainer.accelerator.wait_for_everyone()
    start = trainer.choose_start(resume) if resume else None
    if args.should_save:
        if args.overwrite_output_dir:
            delete_earlier(output_dir, result)
        write_run_file(output_dir, config)
    trainer.console.print(start_table(trainer))
    trainer.train(resume_from_checkpoint=start)
    if trainer.eval_dataset is not None and not _evaluated_result(trainer):
        trainer.evaluate()
    trainer.save_result(result)
    trainer.console.print(end_table(trainer, result))
    base, adapter = (str(result), None) if whole else (config.base.name_or_path, str(result))
    command = generate_command(base, adapter, config.sees_images)
    trainer.console.print(f"Try it: {command}", highlight=False, soft_wrap=True)
    trainer.end()
    return 0


def build_trainer(config: TrainConfig) -> Trainer:
    """Load the model, build the data and the trainer, in this order.

    Raises:
        UserError: When one of them does not fit.
    """
    args = config.training
    if args.process_index > 0:
        disable_progress_bar()
    set_seed(args.seed)  # new weights: the same on every rank, and in every run with this seed
    setup = (
        _adapter(config) if config.tuning is None else config.tuning.set_up(config.base, config.data, args)
    )
    data = setup.data
    evaluation = data.evaluation if data.evaluation is not None and _has_rows(data.evaluation) else None
    _check_evaluation(args, evaluation)
    trainer = Trainer(
        model=setup.model,
        args=args,
        train_dataset=data.train,
        eval_dataset=evaluation,
        data_collator=setup.add_media(PaddingCollator(_pad_id(setup.tokenizer))),
        processing_class=setup.processor or setup.tokenizer,
        notes=AdapterNotes(
            template=config.data.template, base=config.base.name_or_path, max_length=config.data.max_length
        ),
        groups=ParameterGroups(TrainedParts.of(setup.model), config.groups),
        settings=run_settings(config),
    )
    trainer.packing_collator = setup.add_media(PackingCollator())
    trainer.console.print(data.report)
    return trainer


def _adapter(config: TrainConfig) -> Setup:
    """A frozen base with an adapter, and a conditioner where images are shown.

    Raises:
        UserError: they do not fit.
    """
    if config.adapter is None:
        raise UserError(f"adapter is {config.adapter}. Use one, or tuning.")
    args = config.training
    base, tokenizer = load_base_and_tokenizer(config.base)
    set_seed(args.seed)  # loading may have drawn numbers
    adapted = attach_adapter(base, config.adapter)
    seeing = None if config.images is None else config.images.model(adapted, config.prompt_length, args.seed)
    with args.main_process_first(desc="tokenising the data"):
        data = build_datasets(config.data, tokenizer)
    model = adapted if seeing is None else seeing
    if config.start_from is not None:
        start_from(config.start_from, TrainedParts.of(model))
    if seeing is None:
        return Setup(model, tokenizer, data, lambda collate: collate)
    return Setup(model, tokenizer, data, attach_images(seeing, data, config.data, args))


def write_run_file(output_dir: Path, config: TrainConfig) -> None:
    """Write ``run.json``: every setting of the run and the versions it ran with."""
    packages = ("llama-adapter", "torch", "transformers", "peft", "accelerate", "datasets")
    content = {"versions": {name: version(name) for name in packages}, **_sections(config)}
    text = json.dumps(content, indent=1, default=str)
    (output_dir / "run.json").write_text(text + "\n", encoding="utf-8")


def run_settings(config: TrainConfig) -> dict[str, Any]:
    """What checkpoints remember of a run beside its training settings, by dotted names."""
    sections = {name: found for name, found in _sections(config).items() if name != "training"}
    return flattened(json.loads(json.dumps(sections, default=str)))


def _sections(config: TrainConfig) -> dict[str, Any]:
    """Every setting of a run, as JSON takes it."""
    return {
        "base": _settings(config.base),
        "adapter": _settings(config.adapter),
        "tuning": _settings(config.tuning),
        "data": _settings(config.data),
        "vision": _settings(config.vision),
        "conditioner": _settings(config.conditioner),
        "start_from": config.start_from,
        "groups": [_settings(group) for group in config.groups],
        "training": config.training.to_dict(),
    }


def _settings(config: Any) -> Any:
    if isinstance(config, PeftConfig):
        return {
            key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
        }
    return asdict(config) if is_dataclass(config) and not isinstance(config, type) else config


def _check_evaluation(args: TrainingConfig, evaluation: Any) -> None:
    """Evaluation that was asked for needs records."""
    asked = args.eval_on_start or args.eval_strategy != "no" or args.load_best_model_at_end
    if asked and evaluation is None:
        raise UserError(
            f"training.eval_strategy={str(args.eval_strategy)!r} with eval_on_start={args.eval_on_start} "
            "meets an empty data.evaluation. Set a file there, or eval_strategy=no and eval_on_start=false."
        )


def _evaluated_result(trainer: Trainer) -> bool:
    """Whether the weights that are saved have been evaluated already."""
    state = trainer.state
    chosen = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    step = state.best_global_step if chosen else state.global_step
    return any(record["step"] == step for record in state.log_history if "eval_loss" in record)


def _has_rows(dataset: Any) -> bool:
    return not hasattr(dataset, "__len__") or len(dataset) > 0


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The pad token's id.

    Raises:
        UserError: When the tokenizer has none.
    """
    identifier = tokenizer.pad_token_id
    if not isinstance(identifier, int):
        raise UserError(
            f"The tokenizer's pad token id is {identifier!r}. Set pad_token in its tokenizer_config.json."
        )
    return identifier
