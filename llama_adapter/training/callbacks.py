"""What a run shows and writes while it goes: the JSONL log and the progress bar.

What is unusual: a resumed run continues its log without repeating steps; records after the checkpoint are
dropped first. Both act on the first process only. They do not compute anything; numbers come from the
trainer's log records.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

LOG_NAME = "log.jsonl"


class LoopHooks(TrainerCallback):
    """Calls back at two moments of the loop that no trainer method marks."""

    def __init__(self, train_begin: Callable[[], None], step_end: Callable[[], None]) -> None:
        self._train_begin = train_begin
        self._step_end = step_end

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model is prepared and loaded; the first step has not begun."""
        self._train_begin()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An optimiser step is done; logging, evaluation and checkpoints follow."""
        self._step_end()


class JsonlLog(TrainerCallback):
    """Appends every log record as one JSON line with step, epoch and time to ``output_dir/log.jsonl``."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop what an earlier run logged after the step this one starts from."""
        if not state.is_world_process_zero:
            return
        path = self._path(args)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if state.global_step and _step(line) <= state.global_step]
        path.write_text("".join(kept), encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one record."""
        if not state.is_world_process_zero or not logs:
            return
        record = {"step": state.global_step, "epoch": state.epoch, **logs, "time": time.time()}
        with self._path(args).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: _plain(value) for name, value in record.items()}) + "\n")

    @staticmethod
    def _path(args: TrainingArguments) -> Path:
        return Path(args.output_dir or ".") / LOG_NAME


class ProgressBar(TrainerCallback):
    """A bar with loss, rate and speed; where output is no terminal, one line per log record instead."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar, at the step a resumed run starts from."""
        if not state.is_world_process_zero or not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self._console,
        )
        self._training = self._progress.add_task(
            "training", total=state.max_steps, completed=state.global_step, numbers=""
        )
        self._progress.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move on by one optimiser step."""
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, completed=state.global_step)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        """Move the bar of the evaluation."""
        if self._progress is None:
            return
        if self._evaluation is None:
            total = (
                len(eval_dataloader) if eval_dataloader is not None and has_length(eval_dataloader) else None
            )
            self._evaluation = self._progress.add_task("evaluation", total=total, numbers="")
        self._progress.advance(self._evaluation)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the bar of the evaluation away."""
        if self._progress is not None and self._evaluation is not None:
            self._progress.remove_task(self._evaluation)
            self._evaluation = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest numbers."""
        numbers = headline(logs or {})
        if not state.is_world_process_zero or not numbers or "train_runtime" in (logs or {}):
            return  # the record of the whole run belongs to the table at the end
        if self._progress is not None and self._training is not None:
            self._progress.update(self._training, numbers=numbers)
        if self._progress is None or "eval_loss" in (logs or {}):
            self._console.print(f"step {state.global_step}/{state.max_steps}  {numbers}", highlight=False)

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


_HEADLINE = {
    "loss": "loss {:.4f}",
    "eval_loss": "eval loss {:.4f}",
    "eval_perplexity": "perplexity {:.2f}",
    "learning_rate": "lr {:.3g}",
    "grad_norm": "grad norm {:.3g}",
    "tokens_per_second": "{:,.0f} tokens/s",
}


def headline(logs: dict[str, Any]) -> str:
    """The numbers of a log record that fit on one line."""
    return "  ".join(
        shape.format(logs[name])
        for name, shape in _HEADLINE.items()
        if isinstance(logs.get(name), int | float)
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def _step(line: str) -> int | float:
    """The step of a log line; a line cut off by a crash counts as never reached."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _plain(value: Any) -> Any:
    """A JSON value; numbers that are not finite become text, which every JSON reader takes."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
