"""Whether the results reach the targets: prints what does not and exits 1."""

import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks.results import Row, read


def unreached(rows: Sequence[Row]) -> list[Row]:
    """Rows whose target is missed or undecided."""
    return [row for row in rows if row.verdict in {"missed", "inconclusive"}]


def main() -> int:
    """Check all results.

    Returns:
        1 where there are none, or a target is not reached.
    """
    console = Console(soft_wrap=True)
    rows = [row for _, found in read().values() for row in found]
    for row in unreached(rows):
        console.print(
            f"{row.verdict}: {row.measure}, against {row.against}: {row.value:.3f} "
            f"({row.low:.3f} to {row.high:.3f}), target {row.target}"
        )
    console.print(f"{len(rows) - len(unreached(rows))} of {len(rows)} rows reach their target or have none.")
    return int(not rows or bool(unreached(rows)))


if __name__ == "__main__":
    sys.exit(main())
