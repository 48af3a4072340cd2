"""The table, made of the result files alone: for the terminal, and in docs/method-comparison.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from llama_adapter.errors import UserError

PAGE = Path(__file__).parent.parent.parent / "docs" / "method-comparison.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"

COLUMNS = (
    "experiment",
    "trainable",
    "steps",
    "train time (s)",
    "train loss",
    "answer NLL",
    "accuracy",
)


def cells(result: dict[str, Any]) -> tuple[str, ...]:
    """One result as the texts of its row."""
    info, last = result["train_info"], result["train_info"]["metrics"][-1]
    right = round(last["test accuracy"] * last["test accuracy items"])
    loss = last["train loss"]
    return (
        result["run_info"]["experiment_name"],
        f"{info['num_trainable_params']:,}",
        str(last["step"] or 0),
        f"{info['train_time']:.0f}",
        "–" if loss is None else f"{loss:.3f}",
        f"{last['test answer nll']:.4f}",
        f"{right} of {last['test accuracy items']}",
    )


def ranked(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best first, by the likelihood of the reference answers."""
    return sorted(results, key=lambda result: result["train_info"]["metrics"][-1]["test answer nll"])


def rich_table(results: Sequence[dict[str, Any]]) -> Table:
    """For the terminal."""
    table = Table(title="GSM8K in small; answer NLL in nats per token")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for result in ranked(results):
        table.add_row(*cells(result))
    return table


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """For the page, with the setting that all rows share."""
    if not results:
        return "No results are stored. `python -m benchmarks.method_comparison` makes them."
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(cells(result)) + " |" for result in ranked(results)]
    return "\n".join([*lines, "", *_settings(results)])


def write_page(results: Sequence[dict[str, Any]], page: Path = PAGE) -> None:
    """Put the table between the marks of the page.

    Args:
        results: what the table shows.
        page: a markdown file with both marks.

    Raises:
        UserError: The page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{str(page)!r} lacks {BEGIN!r} or {END!r}. Add both where the table belongs.")
    page.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}", encoding="utf-8")


def _settings(results: Sequence[dict[str, Any]]) -> list[str]:
    """Lines below the table: how the rows were run; several where they differ."""
    lines = dict[str, None]()
    for result in results:
        params, system = result["run_info"]["train_config"], result["meta_info"]["system_info"]
        last = result["train_info"]["metrics"][-1]
        packages = result["meta_info"]["package_info"]
        versions = ", ".join(
            f"{name} {packages[f'{name}-version']}" for name in ("torch", "transformers", "peft")
        )
        lines[
            f"{Path(params['model_id']).name} in {params['dtype']}, {params['batch_size']} rows "
            f"of mean length per step, seed {params['seed']}; "
            f"answer NLL over {last['test answer nll items']} test problems; "
            f"{system['processor']}, accelerator: {system['accelerator']}; {versions}; "
            f"{result['run_info']['created_at'][:10]}."
        ] = None
    return list(lines)
