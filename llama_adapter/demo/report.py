"""What a demo run has to say: the numbers as JSON, the same as tables, and commands to try next.

It reads an `Outcome` and computes nothing that was not measured.
"""

import platform
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from llama_adapter.demo.answers import Answers
from llama_adapter.demo.run import DemoConfig
from llama_adapter.demo.task import NEW_PHRASING, SEEN_PHRASING

_PARTS = {
    SEEN_PHRASING: "phrasings seen in training, slot values never seen",
    NEW_PHRASING: "neither phrasings nor slot values seen",
}
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that a run measured."""

    config: DemoConfig
    """The settings."""
    before: Answers
    """Held-out answers of the untouched base model."""
    after: Answers
    """Held-out answers with the trained adapter."""
    log: list[dict[str, float]]
    """The trainer's log records."""
    gates: list[list[float]]
    """Magnitude of each head's gate after training, layer by layer."""
    parameters: tuple[int, int]
    """Numbers of trainable and of all parameters."""
    seconds: dict[str, float]
    """Wall time of each stage and of all."""

    def loss_curve(self) -> list[tuple[int, float]]:
        """Step and training loss."""
        return [(int(record["step"]), record["loss"]) for record in self.log if "loss" in record]

    def last(self, name: str) -> float:
        """The trainer's closing figure of that name."""
        return next(record[name] for record in reversed(self.log) if name in record)

    @property
    def adapter(self) -> Path:
        """Where the adapter was saved."""
        return Path(self.config.output_dir) / "adapter"

    @property
    def adapter_bytes(self) -> int:
        """Size of the adapter's weights on disk."""
        return (self.adapter / "adapter_model.safetensors").stat().st_size

    def examples(self) -> list[dict[str, str]]:
        """The first held-out items in new phrasings, no two of one action, right or not."""
        chosen: dict[str, dict[str, str]] = {}
        items = self.after.items[NEW_PHRASING]
        outputs = zip(self.before.outputs[NEW_PHRASING], self.after.outputs[NEW_PHRASING], strict=True)
        for item, (before, after) in zip(items, outputs, strict=True):
            example = {"request": item.request, "before": before, "after": after, "right": item.answer}
            chosen.setdefault(item.action, example)
        return list(chosen.values())[:_SHOWN]


def to_json(outcome: Outcome) -> dict[str, Any]:
    """All numbers of a run, for `results.json`; shares are between 0 and 1, times in seconds."""
    trainable, total = outcome.parameters
    return {
        "exact_match_before": outcome.before.exact_match(),
        "exact_match_after": outcome.after.exact_match(),
        "parts": {
            part: {
                "items": len(outcome.after.items[part]),
                "exact_match_before": outcome.before.exact_match(part),
                "exact_match_after": outcome.after.exact_match(part),
            }
            for part in _PARTS
        },
        **asdict(outcome.config),
        "trainable_parameters": trainable,
        "total_parameters": total,
        "adapter_bytes": outcome.adapter_bytes,
        "tokens_per_second": outcome.last("tokens_per_second"),
        "peak_memory_gib": outcome.last("peak_memory_gib"),
        "seconds": outcome.seconds,
        "torch_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "examples": outcome.examples(),
        "loss": [{"step": step, "loss": loss} for step, loss in outcome.loss_curve()],
        "gates": outcome.gates,
        "commands": commands(outcome),
        "held_out_answers": {part: _answers(outcome, part) for part in _PARTS},
    }


def score_table(outcome: Outcome) -> Table:
    """Exact match before and after, over all and by part."""
    count = sum(len(items) for items in outcome.after.items.values())
    table = Table(title=f"Exact match on {count} held-out requests", title_justify="left", title_style="bold")
    table.add_column("held-out items")
    table.add_column("count", justify="right")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right", style="bold green")
    for part, label in _PARTS.items():
        scores = (f"{100 * answers.exact_match(part):.0f} %" for answers in (outcome.before, outcome.after))
        table.add_row(label, str(len(outcome.after.items[part])), *scores)
    table.add_section()
    scores = (f"{100 * answers.exact_match():.0f} %" for answers in (outcome.before, outcome.after))
    table.add_row("all", str(count), *scores)
    return table


def facts_table(outcome: Outcome) -> Table:
    """Sizes, speed, memory and times."""
    trainable, total = outcome.parameters
    seconds = outcome.seconds
    table = Table(title="The run", title_justify="left", title_style="bold", show_header=False)
    table.add_row("trainable parameters", f"{trainable:,} of {total:,} ({100 * trainable / total:.2f} %)")
    table.add_row("adapter file", f"{outcome.adapter_bytes / 2**20:.2f} MiB")
    table.add_row("training", f"{outcome.config.steps} steps of {outcome.config.batch_size} items")
    threads = torch.get_num_threads()
    plural = "" if threads == 1 else "s"
    speed = outcome.last("tokens_per_second")
    table.add_row(
        "speed", f"{speed:,.0f} tokens/s with {threads} thread{plural}, base in {outcome.config.dtype}"
    )
    table.add_row("peak memory", f"{outcome.last('peak_memory_gib'):.2f} GiB, weights included")
    stages = ("answers_before", "training", "answers_after")
    parts = ", ".join(f"{name.replace('_', ' ')} {seconds[name]:.0f} s" for name in stages)
    table.add_row("time", f"{seconds['total']:.0f} s: {parts}")
    return table


def show_examples(outcome: Outcome, console: Console) -> None:
    """Print three requests with both answers."""
    for example in outcome.examples():
        before = " ".join(example["before"].split())
        lines = [f"[dim]before[/dim]  {escape(before)}", f"[green]after [/green]  {escape(example['after'])}"]
        if example["after"].strip() != example["right"]:
            lines.append(f"[red]right [/red]  {escape(example['right'])}")
        console.print(Panel("\n".join(lines), title=escape(example["request"]), title_align="left"))


def commands(outcome: Outcome) -> list[str]:
    """Command lines that work as they stand with what was just saved."""
    program = command_name()
    base = f"--base {shlex.quote(outcome.config.base)} --dtype {outcome.config.dtype}"
    adapter = f"--adapter {shlex.quote(str(outcome.adapter))}"
    prompt = '--prompt "Could you remind me of the birthday cake in 25 minutes?"'
    next_dir = shlex.quote(f"{outcome.config.output_dir.rstrip('/')}-2")
    return [
        f"{program} generate {base} {adapter} {prompt}",
        f"{program} generate {base} {prompt}",
        f"{program} generate {base} {adapter} --interactive",
        f"{program} demo --seed {outcome.config.seed + 1} --output-dir {next_dir}",
    ]


def command_name() -> str:
    """How to call the program from here: its name where the shell finds this very one, else its path."""
    script = Path(sys.executable).with_name("llama-adapter")
    if shutil.which(script.name) == str(script):
        return script.name
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m llama_adapter"
    here = Path.cwd()
    return shlex.quote(str(script.relative_to(here) if script.is_relative_to(here) else script))


def _answers(outcome: Outcome, part: str) -> list[dict[str, str]]:
    """Every held-out item of a part with both answers."""
    outputs = zip(outcome.before.outputs[part], outcome.after.outputs[part], strict=True)
    return [
        {"request": item.request, "right": item.answer, "before": before, "after": after}
        for item, (before, after) in zip(outcome.after.items[part], outputs, strict=True)
    ]
