"""``python -m benchmarks [NAME ...]``: measure, write the results, print the table."""

import argparse
import importlib
import sys

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.page import PAGE, render
from benchmarks.results import read, write
from llama_adapter.errors import UserError

MEASURES = (
    "training_step",
    "product_step",
    "loss_kernel",
    "checkpointing",
    "batches",
    "epoch",
    "decoding",
    "decoding_peft",
    "adapters_per_row",
    "prompt_attention",
    "matmul_share",
    "visual_cache",
    "visual_cache_kinds",
    "visual_cache_pictures",
)
"""Files of this package with a ``run``."""
OPTIONAL = ("litgpt_adapter",)
"""Those that need more than this environment; they run when they are named."""


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks.

    Returns:
        The exit code: 2 where one lacked something.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASURES, *OPTIONAL, []], help="all without any")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument(
        "--pairs", type=int, help="interleaved pairs at most; each benchmark has its own number"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(width=None if sys.stdout.isatty() else 160)
    lacking = 0
    for name in options.names or MEASURES:
        limits = {"maximum": options.pairs, "minimum": min(options.pairs, 7)} if options.pairs else {}
        try:
            with console.status(f"{name}: interleaved runs"):
                rows = importlib.import_module(f"benchmarks.{name}").run(**limits)
        except UserError as error:  # data or another program is not here; the others can still run
            console.print(f"{name} was not run: {error}", markup=False)
            lacking = 2
            continue
        table = Table("measure", "against", "ratio", "interval", "pairs", "target", "verdict", title=name)
        for row in rows:
            interval = f"{row.low:.3f} .. {row.high:.3f}"
            figures = (f"{row.value:.3f}", interval, str(row.pairs), str(row.target or ""), row.verdict)
            table.add_row(row.measure, row.against, *figures)
        console.print(table)
        console.print(f"Wrote {write(name, rows)}")
    PAGE.write_text(render(read()), encoding="utf-8")
    return lacking


if __name__ == "__main__":
    sys.exit(main())
