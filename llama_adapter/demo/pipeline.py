"""The demo from end to end: base model, items, answers before, training, answers after, results.

Unusual: there is one model. "Before" is the adapted model with its adapter switched off, which is the base
bit for bit. Every piece is the project's ordinary one (data files, trainer, generator); nothing here is
special to the demo but the task and the order of things.
"""

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
import transformers
from peft import PeftModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedTokenizerBase, set_seed

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.data import DataConfig, PaddingCollator, SourceConfig, build_datasets
from llama_adapter.demo.answers import ANSWER_SETTINGS, Answers, ask
from llama_adapter.demo.base_model import DEFAULT_FOLDER, HUB_NAME, ensure_base
from llama_adapter.demo.picture import check_matplotlib, draw
from llama_adapter.demo.report import Outcome, commands, facts_table, score_table, show_examples, to_json
from llama_adapter.demo.run import DemoConfig
from llama_adapter.demo.task import Item, Task, make_task
from llama_adapter.generation import Generator
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base_and_tokenizer
from llama_adapter.training import Trainer, TrainingConfig

TEMPLATE = "chat"


@dataclass
class Stopwatch:
    """Wall times of the stages, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds, in the order in which the stages ended."""
    started: float = field(default_factory=time.perf_counter)
    """When the whole began."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


def run(config: DemoConfig) -> int:
    """Run the whole demo and return the exit code.

    Raises:
        UserError: the base model cannot be had here, or a package is missing.
    """
    check_matplotlib()  # before minutes of work
    if config.threads:
        torch.set_num_threads(config.threads)
    config = replace(config, dtype=choose_dtype(config.dtype))
    console, watch, output_dir = Console(), Stopwatch(), Path(config.output_dir)
    with _quiet_libraries():
        _prepare_base(config.base, console, watch)
        task = make_task(config.seed, config.train_size, config.held_out_size)
        with watch.stage("load"):
            train_file = write_items(task, output_dir / "data")
            model, tokenizer = load_adapted(config)
            trainer = build_trainer(config, model, tokenizer, train_file)
        generator = Generator(model, tokenizer, TEMPLATE)
        with watch.stage("answers_before"), model.disable_adapter():
            before = _ask(generator, task, console, "answering before")
        with watch.stage("training"):
            trainer.train()
        trainer.save_result(output_dir / "adapter")
        with watch.stage("answers_after"):
            after = _ask(generator, task, console, "answering after")
    watch.seconds["total"] = time.perf_counter() - watch.started
    outcome = Outcome(
        config=config,
        before=before,
        after=after,
        log=trainer.state.log_history,
        gates=gate_magnitudes(model),
        parameters=model.get_nb_trainable_parameters(),
        seconds=watch.seconds,
    )
    return _finish(outcome, console)


def choose_dtype(dtype: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """The precision itself, or for ``auto`` bfloat16 where this machine's processor computes in it."""
    if dtype != "auto":
        return dtype
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.14
        native = any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if native else "float32"


def load_adapted(config: DemoConfig) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load base model and tokenizer, and attach a new adapter with prompts in every layer."""
    base = BaseModelConfig(name_or_path=config.base, dtype=config.dtype)
    adapter = ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=config.prompt_length, prompt_init_std=config.prompt_init_std
    )
    model, tokenizer = load_base_and_tokenizer(base)
    set_seed(config.seed)  # the prompts' first values
    return attach_adapter(model, adapter), tokenizer


def build_trainer(
    config: DemoConfig, model: PeftModel, tokenizer: PreTrainedTokenizerBase, train_file: Path
) -> Trainer:
    """Set up the project's trainer on the records of a file."""
    data = DataConfig(
        train=[SourceConfig(path=str(train_file))],
        template=TEMPLATE,
        seed=config.seed,
        cache_dir=str(train_file.parent / "cache"),
    )
    return Trainer(
        model=model,
        args=_training(config),
        train_dataset=build_datasets(data, tokenizer).train,
        data_collator=PaddingCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        notes=AdapterNotes(template=TEMPLATE, base=config.base, max_length=data.max_length),
    )


def write_items(task: Task, folder: Path) -> Path:
    """Write all items as chat records: one file to train on, one for each held-out part.

    Returns:
        The training file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, items in {"train": task.train, **task.held_out}.items():
        lines = [json.dumps(_record(item), ensure_ascii=False) + "\n" for item in items]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "train.jsonl"


def gate_magnitudes(model: PeftModel) -> list[list[float]]:
    """How far the gates are open: |tanh(gate)| of every head, for each adapted layer from the bottom."""
    layers = [module for module in model.modules() if isinstance(module, PromptLayer)]
    gates = [layer.effective_gate(model.active_adapter).detach().abs().flatten() for layer in layers]
    return [heads.tolist() for heads in gates]


def _prepare_base(base: str, console: Console, watch: Stopwatch) -> None:
    """Have the base model's folder, and say where it came from; another model than the demo's must exist."""
    source, folder = None, Path(base)
    with watch.stage("base_model"), console.status("Writing the base model as a Hugging Face folder, once"):
        if folder.name == DEFAULT_FOLDER.name and base != HUB_NAME:
            source = ensure_base(folder)
    origin = f" (written from the {source})" if source else ""
    console.print(f"Base model: {base}{origin}", highlight=False, soft_wrap=True)


def _training(config: DemoConfig) -> TrainingConfig:
    """The trainer's settings."""
    return TrainingConfig(
        output_dir=config.output_dir,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # as a share of all steps
        seed=config.seed,
        logging_steps=5.0 if config.steps >= 20 else 1.0,
        save_strategy="no",
        report_to="none",
    )


def _ask(generator: Generator, task: Task, console: Console, title: str) -> Answers:
    """Ask all held-out items behind a progress bar."""
    total = sum(len(items) for items in task.held_out.values())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=total)
        return ask(generator, task.held_out, lambda count: progress.advance(bar, count), ANSWER_SETTINGS)


def _record(item: Item) -> dict[str, list[dict[str, str]]]:
    """One item as a chat."""
    return {
        "messages": [{"role": "user", "content": item.request}, {"role": "assistant", "content": item.answer}]
    }


def _finish(outcome: Outcome, console: Console) -> int:
    """Write results and picture, print the tables and what to try next."""
    output_dir = Path(outcome.config.output_dir)
    results = output_dir / "results.json"
    results.write_text(json.dumps(to_json(outcome), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(output_dir / "demo.png", outcome.loss_curve(), outcome.gates)
    console.print(score_table(outcome), facts_table(outcome), sep="\n")
    show_examples(outcome, console)
    console.print(f"All of it is in {output_dir}: results.json, demo.png, adapter/, data/", highlight=False)
    console.print("\nTry next:", style="bold")
    for line in commands(outcome):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    return 0


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence the libraries' bars for loading and tokenising, which say nothing to a newcomer."""
    were_on = not datasets.are_progress_bars_disabled(), transformers.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers by a name that its next release no longer uses.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if were_on[0]:
            datasets.enable_progress_bars()
        if were_on[1]:
            transformers.utils.logging.enable_progress_bar()
