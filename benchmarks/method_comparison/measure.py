"""One experiment, run: train on some problems, then score the answers to others.

Unusual: the answers are scored in two ways. The likelihood of the reference answer tells small models apart,
which rarely reach the right number. Where the bare base is measured nothing is trained. Result files are not
known here.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from peft import PeftModel
from transformers import TrainerCallback, TrainingArguments, set_seed

from benchmarks.method_comparison.experiment import Experiment, TrainingParams
from benchmarks.method_comparison.problems import Problem, build_rows, exact_match
from llama_adapter.data import PaddingCollator
from llama_adapter.generation import Generator, SamplingConfig
from llama_adapter.models import BaseModelConfig, attach_adapter, load_base, load_tokenizer, parameter_counts
from llama_adapter.training import Trainer, TrainingConfig

WARMUP = 0.1
"""Share of the steps, as in the table's script."""


@dataclass(frozen=True, kw_only=True)
class Problems:
    """What is trained on and what is asked."""

    train: Sequence[Problem]
    """To train on."""
    test: Sequence[Problem]
    """Whose reference answers are scored by likelihood."""
    asked: Sequence[Problem]
    """Whose answers are generated and compared; fewer, because that takes longest."""


@dataclass(kw_only=True)
class Outcome:
    """What came out, under the table's names."""

    num_trainable_params: int
    """Trainable parameters."""
    num_total_params: int
    """All parameters."""
    train_time: float = 0.0
    """Seconds of the optimiser steps."""
    file_size: int = 0
    """Bytes of the saved adapter."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """One entry per ``eval_steps``, and a last one with the test."""


class CountingTrainer(Trainer):
    """Our trainer, which also counts the rows it was given."""

    rows = 0
    """Rows of all optimiser steps."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[dict[str, Any]], Any]:
        """The batches of one optimiser step."""
        batches, labelled = super().get_batch_samples(*args, **kwargs)
        self.rows += sum(len(batch["input_ids"]) for batch in batches)
        return batches, labelled


class Windows(TrainerCallback):
    """Keeps an entry of the metrics for each log record of the training."""

    def __init__(self, trainer: CountingTrainer) -> None:
        self.metrics: list[dict[str, Any]] = []
        self._trainer = trainer
        self._seconds, self._tokens, self._started = 0.0, 0, time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sum up the steps since the last record."""
        if "loss" not in (logs or {}):
            return
        total = self._trainer.meter.total
        seconds, tokens = total.seconds - self._seconds, total.tokens - self._tokens
        self._seconds, self._tokens = total.seconds, total.tokens
        self.metrics.append(
            {
                "step": state.global_step,
                "train loss": cast(dict, logs)["loss"],
                "train samples": self._trainer.rows,
                "train time": seconds,
                "tokens / sec": tokens / seconds,
                "elapsed time": time.perf_counter() - self._started,
            }
        )


def measure(experiment: Experiment, problems: Problems, advance: Callable[[int], object]) -> Outcome:
    """Train and test one experiment.

    Args:
        experiment: the adapter and its settings.
        problems: of which the training takes as many as its steps need.
        advance: called with the number of answers generated since its last call.

    Raises:
        UserError: The adapter, the base or a setting does not fit.
    """
    params = experiment.params
    model, tokenizer = _load(experiment)
    trainable, total = parameter_counts(model)
    outcome = Outcome(num_trainable_params=trainable, num_total_params=total)
    common = (tokenizer, params.query_template, params.max_seq_length)
    with tempfile.TemporaryDirectory() as folder:
        trainer = CountingTrainer(
            model=model,
            args=training_config(params, folder),
            train_dataset=build_rows(problems.train, *common, whole_text=True),
            eval_dataset=build_rows(problems.test, *common, whole_text=False),
            data_collator=PaddingCollator(int(tokenizer.pad_token_id)),
            processing_class=tokenizer,
        )
        if experiment.adapter is not None:
            _train(trainer, outcome)
            outcome.file_size = _file_size(model, Path(folder) / "adapter")
        answer_nll = trainer.evaluate()["eval_loss"]
    outputs = _ask(Generator(model, tokenizer, "plain"), problems.asked, params, advance)
    outcome.metrics.append(
        _final(outcome.metrics)
        | {
            "train total tokens": trainer.meter.total.tokens,
            "test accuracy": exact_match(outputs, problems.asked),
            "test accuracy items": len(problems.asked),
            "test answer nll": answer_nll,
            "test answer nll items": len(cast(Any, trainer.eval_dataset)),
        }
    )
    return outcome


def _load(experiment: Experiment) -> tuple[Any, Any]:
    """The base with the adapter, which starts from the seed, and the tokenizer."""
    params = experiment.params
    base = BaseModelConfig(
        name_or_path=params.model_id,
        dtype=cast(Any, params.dtype),
        attn_implementation=params.attn_implementation,
    )
    tokenizer, model = load_tokenizer(base), load_base(base)
    set_seed(params.seed)
    return (model if experiment.adapter is None else attach_adapter(model, experiment.adapter)), tokenizer


def training_config(params: TrainingParams, folder: str) -> TrainingConfig:
    """The trainer's settings for the table's.

    Args:
        params: the table's.
        folder: where the run may write.
    """
    steps = max(params.max_steps, 1)
    schedule: dict[str, Any] = (
        {"lr_scheduler_type": "cosine", "warmup_steps": int(WARMUP * steps)}
        if params.lr_scheduler == "cosine"
        else {"lr_scheduler_type": "constant"}
    )
    strategy: Literal["no"] = "no"
    return TrainingConfig(
        output_dir=folder,
        max_steps=steps,
        learning_rate=params.optimizer_kwargs["lr"],
        weight_decay=params.optimizer_kwargs.get("weight_decay", 0.0),
        max_grad_norm=params.grad_norm_clip,
        per_device_train_batch_size=params.batch_size,
        per_device_eval_batch_size=params.batch_size_eval,
        batching="tokens",
        activation_checkpointing=params.use_gc,
        logging_steps=min(params.eval_steps, steps),
        save_strategy=strategy,
        eval_strategy=strategy,
        seed=params.seed,
        report_to=[],
        **schedule,
    )


def _train(trainer: CountingTrainer, outcome: Outcome) -> None:
    """Run the optimiser steps and keep their time and losses."""
    windows = Windows(trainer)
    trainer.add_callback(windows)
    trainer.train()
    outcome.train_time = trainer.meter.total.seconds
    outcome.metrics = windows.metrics


def _file_size(model: PeftModel, folder: Path) -> int:
    """Bytes of the adapter's weights on disk."""
    model.save_pretrained(str(folder))
    return (folder / "adapter_model.safetensors").stat().st_size


def _ask(
    generator: Generator,
    problems: Sequence[Problem],
    params: TrainingParams,
    advance: Callable[[int], object],
) -> list[str]:
    """Answer every problem greedily, those of like length together; the answers keep the order."""
    settings = SamplingConfig(batch_size=params.batch_size_eval, **params.generation_kwargs)
    order = sorted(range(len(problems)), key=lambda at: len(problems[at].query))
    answers: dict[int, str] = {}
    for start in range(0, len(order), settings.batch_size):
        places = order[start : start + settings.batch_size]
        prompts = [params.query_template.format(query=problems[at].query) for at in places]
        answers |= zip(places, generator.generate(prompts, settings), strict=True)
        advance(len(places))
    return [answers[at] for at in range(len(problems))]


def _final(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The training's part of the last entry: its last window; without training there is none."""
    names = ("step", "train loss", "train samples")
    return {name: windows[-1][name] if windows else None for name in names}
