"""What a run will cost, before any weight is loaded: memory over a step, FLOPs, time, and what fits where.

The model is built from its configuration with tensors that have no content, and the real step is taken with
them; so the figures are counted, not guessed, and the base needs only its config.json.
"""

from llama_adapter.planning.config import PlanConfig
from llama_adapter.planning.estimate import Plan, estimate
from llama_adapter.planning.report import as_json, as_tables, closing

__all__ = ["Plan", "PlanConfig", "as_json", "as_tables", "closing", "estimate", "plan"]


PAGE_WIDTH = 100
"""Columns of the tables where the output is no terminal."""


def plan(config: PlanConfig) -> None:
    """The `plan` verb: prints what the run that a training config describes would cost.

    Raises:
        UserError: the base has no readable configuration, the adapter does not fit it, or the GPU is unknown.
    """
    from rich.console import Console

    with Console(stderr=True).status("Simulating steps ..."):
        found = estimate(config)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PAGE_WIDTH
    if config.json:
        console.out(as_json(found), highlight=False)
        return
    for heading, table in as_tables(found).items():
        console.print(heading, markup=False)
        console.print(table)
    for line in closing(found):
        console.print(f"- {line}", markup=False)
