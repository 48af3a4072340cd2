"""What a conversion used, set aside, left out and missed, and how it says so.

Nothing is dropped in silence: every tensor of the file appears in exactly one group.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.table import Table

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.errors import UserError
from llama_adapter.whole_loads import Misfit

_SHOWN = 6
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\[)\d+(?=\]$)")


@dataclass(kw_only=True)
class ConversionReport:
    """Names of the file's tensors, grouped by what became of them."""

    used: list[str] = field(default_factory=list)
    """Converted."""
    set_aside: dict[str, list[str]] = field(default_factory=dict)
    """Kept beside the result: why -> names."""
    ignored: dict[str, list[str]] = field(default_factory=dict)
    """Not kept: why -> names."""
    notes: list[str] = field(default_factory=list)
    """Sentences to print below, such as a choice that was made."""

    def print(self, console: Console) -> None:
        """Print a table with one row per group, and the notes."""
        table = Table("tensors", "count", "names", box=None, pad_edge=False)
        table.add_row("used", str(len(self.used)), summary(self.used))
        for action, groups in (("kept aside", self.set_aside), ("ignored", self.ignored)):
            for reason, names in groups.items():
                table.add_row(f"{action}: {reason}", str(len(names)), summary(names))
        table.add_row("missing", "0", "")
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, markup=False)


def summary(names: Iterable[str]) -> str:
    """Names with layer numbers folded together: ``layers.*.attention.gate (32)``."""
    counts = Counter(_NUMBER.sub("*", name) for name in names)
    parts = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    more = f", and {len(parts) - _SHOWN} kinds more" if len(parts) > _SHOWN else ""
    return ", ".join(parts[:_SHOWN]) + more


def check_complete(wanted: Mapping[str, Sequence[int]], found: NamedTensors, file: str, advice: str) -> None:
    """Refuse tensors that are missing or have another shape.

    Args:
        wanted: Shape of every tensor that must be there.
        found: The file's tensors, under the same names.
        file: The file, for the message.
        advice: What to do.

    Raises:
        UserError: Lists each missing name with the nearest names and shapes of the file.
    """
    shapes = {name: tensor.shape for name, tensor in found.items()}
    misfit = replace(Misfit.of_shapes(wanted, shapes), unexpected={})
    if count := len(misfit.names):
        raise UserError(f"{file!r} lacks {count} of {len(wanted)} tensors:\n{misfit.lines}\n{advice}")
