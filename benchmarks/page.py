"""docs/benchmarks.md, made of the results alone: it can claim nothing that they do not hold."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, Row, read

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

Made by `python -m benchmarks.page` from `benchmarks/results/`; `make bench` measures anew. Ratios of
interleaved runs in one process: median and its 95 % interval. "reached" and "missed" are said of the whole
interval; where the target lies inside it, "inconclusive". The base is SmolLM2-135M-Instruct, in float32 where
nothing else stands in the row; prompts are 10 in each of its 30 layers. `python -m benchmarks.check` prints
what is missed or undecided and exits 1 if anything is.

"""


def render(found: dict[str, tuple[dict[str, Any], list[Row]]]) -> str:
    """The page's text."""
    return _HEAD + "\n".join(_section(name, machine, rows) for name, (machine, rows) in found.items())


def _section(name: str, machine: dict[str, Any], rows: list[Row]) -> str:
    """One benchmark: its table and the machine."""
    lines = [
        f"## {name.replace('_', ' ').capitalize()}",
        "",
        _about(name),
        "",
        f"`python -m benchmarks {name}` · "
        + ", ".join(f"{key} {value}" if key != "processor" else str(value) for key, value in machine.items()),
        "",
        "| measure | against | ratio | interval | pairs | target | | behind it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "–" if row.target is None else f"{'at most' if row.at_most else 'at least'} {row.target}"
        facts = ", ".join(f"{key} {_short(value)}" for key, value in row.facts.items())
        interval = f"{row.low:.3f} to {row.high:.3f}" if row.pairs > 1 else "counted"
        lines.append(
            f"| {row.measure} | {row.against} | {row.value:.3f} | {interval} | {row.pairs} | {target} "
            f"| {row.verdict} | {facts} |"
        )
    return "\n".join([*lines, ""])


def _about(name: str) -> str:
    """What a benchmark says of itself at its top."""
    return inspect.cleandoc(importlib.import_module(f"benchmarks.{name}").__doc__ or "")


def _short(value: Any) -> str:
    """A figure in few digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(render(read(FOLDER)), encoding="utf-8")
