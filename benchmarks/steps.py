"""What is measured of a step, whoever takes it: operations, memory, and rows that compare two steps."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ratios import compare
from benchmarks.results import Row
from llama_adapter.planning.step import FLOP_FORMULAS

Step = Callable[[], object]


def gflop(step: Step) -> float:
    """Floating-point operations of a step, in billions, those of the CPU's attention kernels included."""
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        step()
    return float(counter.get_total_flops() / 1e9)


def peak_bytes(step: Step) -> int:
    """Most bytes that a step held at once beyond those before it, after one step to warm up."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return peak_of(profiler)


def peak_of(profiler: profile) -> int:
    """Most bytes that torch's allocator had given out in a profiled stretch beyond those before it."""
    # events() of the profiler leaves out what an operator allocates itself; its raw records have everything
    raw: Any = profiler.profiler
    records = [record for record in raw.kineto_results.events() if record.name() == "[memory]"]
    held = peak = 0
    for record in sorted(records, key=lambda record: record.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak


def speed_row(
    steps: tuple[Step, Step],
    names: tuple[str, str],
    batch: str,
    target: float | None,
    limits: tuple[int, int],
) -> Row:
    """How much faster a step is than another.

    Args:
        steps: ours and the other.
        names: what is measured, and against what.
        batch: rows x tokens.
        target: ratio to be reached; None only reports.
        limits: pairs at least and at most.
    """
    ratio, mine, other = compare(*steps, target, *limits)
    return Row(
        measure=f"{names[0]}: times faster",
        against=names[1],
        **ratio.figures(),
        target=target,
        facts={
            "batch": batch,
            "seconds": mine,
            "of the other": other,
            "GFLOP": gflop(steps[0]),
            "GFLOP of the other": gflop(steps[1]),
        },
    )


def memory_rows(
    ours: Step, others: Mapping[str, Step], measure: str, targets: Mapping[str, float | None]
) -> list[Row]:
    """What share of the others' memory a step holds at its peak; counted, so without an interval.

    Args:
        ours: the step.
        others: the others, by what they are called in the table.
        measure: what is measured.
        targets: the largest share that is wanted, by the same names; None only reports.
    """
    peak = peak_bytes(ours)
    table = []
    for name, other in others.items():
        other_peak = peak_bytes(other)
        share = peak / other_peak
        table.append(
            Row(
                measure=f"{measure}: share",
                against=name,
                value=share,
                low=share,
                high=share,
                pairs=1,
                target=targets[name],
                at_most=True,
                facts={"bytes": peak, "bytes of the other": other_peak},
            )
        )
    return table
