"""What a run will cost, before any weight is loaded: parameters, memory and FLOPs of one step.

The model is built from its configuration on torch's meta device, where tensors have a shape but no content,
and one step is taken there; so the figures are counted, not guessed, and the base needs only its config.json.
"""

from llama_adapter.planning.config import PlanConfig
from llama_adapter.planning.estimate import Plan, estimate
from llama_adapter.planning.report import as_json, as_tables

__all__ = ["Plan", "PlanConfig", "as_json", "as_tables", "estimate", "plan"]


def plan(config: PlanConfig) -> None:
    """The `plan` verb: prints what the run that a training config describes would cost.

    Raises:
        UserError: the base has no readable configuration, or the adapter does not fit it.
    """
    from rich.console import Console

    found = estimate(config)
    console = Console(highlight=False, soft_wrap=True)
    if config.json:
        console.out(as_json(found), highlight=False)
        return
    for heading, table in as_tables(found).items():
        console.print(heading, markup=False)
        console.print(table)
    for note in found.notes:
        console.print(f"- {note}", markup=False)
