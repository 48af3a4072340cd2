"""The ``train`` command: from one config to a saved adapter.

What is unusual: nothing is built twice. Model, tokenizer, data and trainer each come from their own config,
and a program can call the same pieces one by one. This module holds no training logic.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from jsonargparse import set_parsing_settings
from peft import LoraConfig, PeftConfig
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.utils.logging import disable_progress_bar

from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.conditioning import ConditionerConfig, GlobalFeaturesConfig, VisualQueriesConfig
from llama_adapter.data import DataConfig, PaddingCollator, build_datasets
from llama_adapter.data.collator import PackingCollator
from llama_adapter.errors import UserError
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base_and_tokenizer
from llama_adapter.training.checkpoint import checkpoint_folders
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.groups import GroupConfig, ParameterGroups
from llama_adapter.training.images import ImageSettings, attach_images
from llama_adapter.training.model_card import generate_command
from llama_adapter.training.parts import TrainedParts
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


@dataclass(kw_only=True)
class TrainConfig:
    """Everything that decides a training run."""

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
    resume = args.resume_from_checkpoint or args.resume
    if args.should_save:
        prepare_output_dir(output_dir, resuming=bool(resume), overwrite=args.overwrite_output_dir)
        write_run_file(output_dir, config)
    trainer = build_trainer(config)
    trainer.accelerator.wait_for_everyone()
    trainer.console.print(start_table(trainer))
    trainer.train(resume_from_checkpoint=resume)
    if trainer.eval_dataset is not None and not _evaluated_last_step(trainer):
        trainer.evaluate()
    whole = config.tuning is not None
    result = output_dir / ("model" if whole else "adapter")
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


def prepare_output_dir(output_dir: Path, resuming: bool, overwrite: bool) -> None:
    """Keep a new run from mixing with an old one.

    Args:
        output_dir: Folder of the run.
        resuming: Whether the run continues what is there.
        overwrite: Whether earlier checkpoints may be deleted.

    Raises:
        UserError: When checkpoints are there and neither was asked for.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    earlier = checkpoint_folders(output_dir)
    if resuming or not earlier:
        return
    if not overwrite:
        raise UserError(
            f"{str(output_dir)!r} holds checkpoints of an earlier run, up to {earlier[0].name}. "
            "Use --training.resume true to continue it, choose another --training.output_dir, "
            "or delete it with --training.overwrite_output_dir true."
        )
    for folder in earlier:
        shutil.rmtree(folder)


def write_run_file(output_dir: Path, config: TrainConfig) -> None:
    """Write ``run.json``: every setting of the run and the versions it ran with."""
    packages = ("llama-adapter", "torch", "transformers", "peft", "accelerate", "datasets")
    content = {
        "versions": {name: version(name) for name in packages},
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
    text = json.dumps(content, indent=1, default=str)
    (output_dir / "run.json").write_text(text + "\n", encoding="utf-8")


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


def _evaluated_last_step(trainer: Trainer) -> bool:
    """Whether the weights that are saved have been evaluated already."""
    if trainer.args.load_best_model_at_end:
        return False
    steps = [record["step"] for record in trainer.state.log_history if "eval_loss" in record]
    return bool(steps) and steps[-1] == trainer.state.global_step


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
