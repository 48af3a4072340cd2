"""The planner against the truth: its prediction beside what the trainer really takes, in fresh processes.

Every case is a real run of the trainer. Memory is measured twice, in two steps, without the planner: by
the resident set of the process above what it was before the step, under an allocator set up to give memory
back at once; and by torch's profiler, which records every allocation of torch's allocator, kernels' own ones
included. On a GPU it is torch's own statistics instead. FLOPs are those of FlopCounterMode, in one more step.
Sizes of the weights count here, their values do not, so a model is made from a configuration.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from benchmarks.steps import peak_of
from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, PaddingCollator, SourceConfig
from llama_adapter.models import BaseModelConfig, attach_adapter, load_base
from llama_adapter.planning import PlanConfig
from llama_adapter.planning.simulation import Simulation
from llama_adapter.planning.step import FLOP_FORMULAS, Row
from llama_adapter.training import Trainer, TrainingConfig

MIB = 2**20

_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
}
"""glibc gives memory back when it is freed; left alone it keeps up to 32 MiB pieces, and the resident set
says little about what is in use."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run."""

    method: str
    """v1, v2 or lora."""
    rows: int
    """Rows of a batch."""
    tokens: int
    """Length of the longest row; the others are shorter."""
    settings: dict[str, Any]
    """Of ``training``."""
    dtype: str = "fp32"
    """Of the base."""

    @property
    def name(self) -> str:
        """In a few words."""
        extra = " ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.method} {self.rows}x{self.tokens} {self.dtype} {extra}".strip()

    @property
    def lengths(self) -> list[Row]:
        """Half of the tokens carry loss."""
        sizes = [max(8, self.tokens - 16 * index) for index in range(self.rows)]
        return [Row(size, size // 2) for size in sizes]


CASES = (
    Case(method="v1", rows=2, tokens=512, settings={}),
    Case(method="v2", rows=4, tokens=256, settings={}),
    Case(method="lora", rows=2, tokens=512, settings={"gradient_accumulation_steps": 2}),
    Case(method="v1", rows=4, tokens=512, settings={"checkpointing": "layer"}),
    Case(method="lora", rows=1, tokens=1024, settings={"checkpointing": "mlp"}),
    Case(method="v2", rows=2, tokens=384, settings={}, dtype="bf16"),
    Case(method="lora", rows=2, tokens=384, settings={"bf16": True}),
    Case(method="v2", rows=4, tokens=320, settings={"checkpointing": "none"}),
    Case(method="v1", rows=1, tokens=64, settings={"optim": "adamw_torch"}),
)
"""Methods, lengths, checkpointing, precision, accumulation, optimizers."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Predicted and measured; bytes beyond the weights and the optimizer's state, which are there before."""

    case: str
    resident: int
    """Predicted bytes of weights, buffers and optimizer."""
    predicted: int
    """Bytes of a step beyond them, at its peak."""
    allocated: int
    """The same by the profiler, or by the CUDA allocator."""
    resident_set: int | None
    """The same by the process's resident set; None on a GPU."""
    predicted_flops: int
    measured_flops: int

    @property
    def memory_error(self) -> float:
        """Relative to what was allocated."""
        return self.predicted / self.allocated - 1

    @property
    def resident_set_error(self) -> float | None:
        """Relative to the resident set."""
        return None if self.resident_set is None else self.predicted / self.resident_set - 1

    @property
    def flops_error(self) -> float:
        """Relative to what was counted."""
        return self.predicted_flops / self.measured_flops - 1


def compare(case: Case, folder: Path) -> Comparison:
    """Predicts and measures a case.

    Args:
        case: the run.
        folder: the base model.
    """
    cost = predict(case, folder)
    measured = _fresh(case, folder)
    resident = sum(cost.resident.values())
    return Comparison(
        case=case.name,
        resident=resident,
        predicted=cost.peak.total - resident,
        allocated=measured["allocated"],
        resident_set=measured.get("resident_set"),
        predicted_flops=cost.forward_flops + cost.backward_flops,
        measured_flops=measured["flops"],
    )


def as_table(found: Sequence[Comparison]) -> Table:
    """One line per case."""
    columns = ("predicted", "allocated", "error", "resident set", "error", "FLOPs error")
    table = Table("Step of", title="MiB beyond weights and optimizer state")
    for name in columns:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            one.case,
            f"{one.predicted / MIB:.1f}",
            f"{one.allocated / MIB:.1f}",
            f"{one.memory_error:+.1%}",
            "-" if one.resident_set is None else f"{one.resident_set / MIB:.1f}",
            "-" if one.resident_set_error is None else f"{one.resident_set_error:+.1%}",
            f"{one.flops_error:+.2%}",
        )
    return table


def predict(case: Case, folder: Path) -> Any:
    """The planner's figures."""
    with tempfile.TemporaryDirectory() as output:
        config = PlanConfig(
            base=BaseModelConfig(name_or_path=str(folder), dtype=case.dtype),  # type: ignore[arg-type]
            adapter=adapter(case.method),
            data=DataConfig(train=[SourceConfig(path="not read")]),
            training=_training(case, output),
        )
        simulation = Simulation(config, on_gpu=torch.cuda.is_available())
        return simulation.cost(simulation.configured, case.lengths)


def adapter(method: str) -> PeftConfig:
    """The adapter of a method, in every layer."""
    if method == "lora":
        return LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
    return ZeroInitConfig(preset=method)


def _training(case: Case, output: str) -> TrainingConfig:
    return TrainingConfig(
        output_dir=output,
        max_steps=_STEPS,
        per_device_train_batch_size=case.rows,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        save_strategy="no",
        report_to=[],
        logging_steps=1000,
        train_sampling_strategy="sequential",  # every batch is the same
        **case.settings,
    )


def _fresh(case: Case, folder: Path) -> dict[str, int]:
    """Measures in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--folder", str(folder)]
    command += ["--worker", json.dumps(asdict(case))]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **_ALLOCATOR}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{case.name!r} failed: {done.stderr[-2000:]} Use --worker to repeat it.")
    found: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


class _Measuring(TrainerCallback):
    """Measures one thing per optimizer step, from the third on: what is made once has been made by then."""

    def __init__(self) -> None:
        self.found: dict[str, int] = {}
        self._measures = _ON_GPU if torch.cuda.is_available() else _ON_CPU
        self._context: Any = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before a step."""
        at = state.global_step - _WARM_UP
        if 0 <= at < len(self._measures):
            self._context = self._measures[at](self.found)
            self._context.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After it, the optimizer included."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None


@contextmanager
def _profiled(found: dict[str, int]) -> Iterator[None]:
    """Most bytes that torch's allocator had given out beyond those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield
    found["allocated"] = peak_of(profiler)


@contextmanager
def _resident_set(found: dict[str, int]) -> Iterator[None]:
    """Most bytes of the process beyond those before; Linux only."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts anew
    before = _status("VmRSS")
    yield
    found["resident_set"] = _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@contextmanager
def _cuda(found: dict[str, int]) -> Iterator[None]:
    """Most bytes of the CUDA allocator beyond those before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield
    torch.cuda.synchronize()
    found["allocated"] = torch.cuda.max_memory_allocated() - before


@contextmanager
def _flops(found: dict[str, int]) -> Iterator[None]:
    """FLOPs of the step."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        yield
    found["flops"] = counter.get_total_flops()


_ON_CPU: tuple[Any, ...] = (_resident_set, _profiled, _flops)
_ON_GPU: tuple[Any, ...] = (_cuda, _flops)
_WARM_UP = 2
_STEPS = _WARM_UP + len(_ON_CPU)


def _work(case: Case, folder: Path) -> dict[str, int]:
    """Trains, and measures the last steps."""
    base = load_base(BaseModelConfig(name_or_path=str(folder), dtype=case.dtype))  # type: ignore[arg-type]
    model = attach_adapter(base, adapter(case.method))
    config: Any = model.config
    rows = [
        {
            "input_ids": [5 + (7 * at) % (config.vocab_size - 5) for at in range(row.tokens)],
            "labels": [-100] * (row.tokens - row.labelled) + [5] * row.labelled,
            "record_id": f"row {index}",
        }
        for index, row in enumerate(case.lengths)
    ]
    passes = case.settings.get("gradient_accumulation_steps", 1)
    callback = _Measuring()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=_training(case, output),
            train_dataset=rows * passes * _STEPS,
            data_collator=PaddingCollator(0),
            callbacks=[callback],
        )
        trainer.train()
    # the planner's are those of one micro-batch
    return callback.found | {"flops": callback.found["flops"] // passes}


def write_base(folder: Path, layers: int) -> Path:
    """A model of the shape of SmolLM2-135M with so many layers and random weights."""
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares all cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a base model; left out: SmolLM2-135M's shape")
    parser.add_argument("--layers", type=int, default=30, help="of that shape")
    parser.add_argument("--worker", type=json.loads, help="measure one case, given as JSON")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the cases, from 0")
    parser.add_argument("--gpu", action="store_true", help="only where there is a GPU")
    given = parser.parse_args(arguments)
    console = Console(width=120, highlight=False)
    if given.worker:
        console.out(json.dumps(_work(Case(**given.worker), given.folder)), highlight=False)
        return 0
    if given.gpu and not torch.cuda.is_available():
        console.print("No GPU here: nothing was compared. On a machine with one this runs on it.")
        return 0
    chosen = [CASES[index] for index in given.only] if given.only else CASES
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or write_base(Path(made), given.layers)
        console.print(as_table([compare(case, folder) for case in chosen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
