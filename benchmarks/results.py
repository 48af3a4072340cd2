"""What a benchmark found: rows in JSON files, judged against a target."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

FOLDER = Path(__file__).parent / "results"
Verdict = Literal["reached", "missed", "inconclusive", "reported"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    measure: str
    """What was measured."""
    against: str
    """What it is compared with."""
    value: float
    """Median ratio."""
    low: float
    """Lower end of its interval; the value itself where it is exact."""
    high: float
    """Upper end."""
    pairs: int
    """Interleaved pairs."""
    target: float | None = None
    """What is to be reached; None only reports."""
    at_most: bool = False
    """Whether the target is an upper bound."""
    limit: float | None = None
    """Where the worse end of the interval must lie too; None asks this of the target itself."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Seconds, bytes, shapes behind the ratio."""

    @property
    def verdict(self) -> Verdict:
        """Whether the target is reached, by the whole interval, or by the median and a limit for the rest."""
        if self.target is None:
            return "reported"
        sign = -1 if self.at_most else 1
        limit = self.target if self.limit is None else self.limit
        worst, best = sorted((sign * self.low, sign * self.high))
        if worst >= sign * limit and sign * self.value >= sign * self.target:
            return "reached"
        return "missed" if best < sign * self.target else "inconclusive"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    names = ("torch", "transformers", "peft")
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "date": datetime.now(UTC).date().isoformat(),
    }


def write(name: str, rows: list[Row], folder: Path = FOLDER) -> Path:
    """Write a benchmark's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    content = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read(folder: Path = FOLDER) -> dict[str, tuple[dict[str, Any], list[Row]]]:
    """Every benchmark's machine and rows."""
    found = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    }
    return {
        name: (content["machine"], [Row(**row) for row in content["rows"]]) for name, content in found.items()
    }


def _processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
