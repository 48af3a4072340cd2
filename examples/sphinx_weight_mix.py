"""Two models of one ancestor, tuned on a domain each, mixed at several beta and asked about both domains.

Command:   python examples/drawn_small_marks.py --output data/one_mark --cards 1 --mark 12 --width 336 \
             --train 4500 --test 300 --domains '[marks,signs]'
           python examples/sphinx_weight_mix.py --ancestor runs/resolution/marks/5_views-skip_tokens-0/model
Hardware:  2 CPU cores and 6 GB of memory, or any GPU
Time:      half an hour on one of two busy cores
Expected:  runs/weight_mix/results.json, a table and a curve: both domains' accuracy against beta

The ancestor is a model of `sphinx_resolution.py`, which has learned to find a card and to read shapes, or one
that is tuned shortly on both domains: SPHINX's parents share a first stage too. Then one copy goes on with
pictures of coloured shapes on white cards and the other with white shapes on coloured cards.
Averaging weights without a shared beginning mixes features that have nothing to do with each other.
"""

import json
from dataclasses import replace
from pathlib import Path

from efficientnet_lite0 import DEFAULT_FILE, ensure_weights
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from sphinx_resolution import Study, ask, run_config, small_base, tuning_of, write_dialogs

from llama_adapter.training import train
from sphinx_ft.tuning import SphinxTuning
from sphinx_ft.weight_mix.sweep import Point, draw_curve, sweep_beta

DOMAINS = ("marks", "signs")


def main(
    pictures: Path = Path("data/one_mark"),
    arm: str = "5 views, skip tokens",
    shared_epochs: float = 0.5,
    own_epochs: float = 0.5,
    ancestor: Path | None = None,
    betas: list[float] | None = None,
    asked: int = 150,
    output_dir: Path = Path("runs/weight_mix"),
) -> None:
    """Train the ancestor and the two parents, mix them and ask every mixture.

    Args:
        pictures: what `drawn_small_marks.py` drew.
        arm: views of the model, an arm of `sphinx_resolution.py`.
        shared_epochs: passes of the ancestor over both domains.
        own_epochs: passes of a parent over its own.
        ancestor: folder of a model to begin with, such as one of `sphinx_resolution.py`, in place of one that
            is trained on both domains.
        betas: weights of the parent of coloured shapes.
        asked: pictures of each domain's test that every model is asked about.
        output_dir: models, results and the curve.
    """
    ensure_weights(DEFAULT_FILE)
    study = Study(pictures=pictures, output_dir=output_dir)
    dialogs, tests = {}, {}
    for domain in DOMAINS:
        (output_dir / domain).mkdir(parents=True, exist_ok=True)
        own = replace(study, domain=domain)
        dialogs[domain] = write_dialogs(own, "train")
        lines = write_dialogs(own, "test").read_text().splitlines()[:asked]
        tests[domain] = [json.loads(line) for line in lines]
    if ancestor is None:
        ancestor = output_dir / "ancestor" / "model"
        if not (ancestor / "config.json").is_file():
            shared = replace(study, epochs=shared_epochs)
            files = list(dialogs.values())
            train(run_config(shared, tuning_of(study, arm), small_base(study), files, ancestor.parent))
    for domain in DOMAINS:
        if not (output_dir / domain / "model" / "config.json").is_file():
            own = replace(study, epochs=own_epochs)
            train(run_config(own, SphinxTuning(), ancestor, [dialogs[domain]], output_dir / domain))

    def scores(model: Path) -> dict[str, float]:
        """Right answers in both domains, and their mean."""
        found = {domain: ask(model, rows)["all"] for domain, rows in tests.items()}
        return {**found, "mean": sum(found.values()) / len(found)}

    parents = (output_dir / DOMAINS[0] / "model", output_dir / DOMAINS[1] / "model")
    points = sweep_beta(parents, betas or [0.0, 0.25, 0.5, 0.75, 1.0], scores, work=output_dir)
    before = scores(ancestor)
    results = {"ancestor": before, "betas": {p.beta: dict(p.scores) for p in points}}
    (output_dir / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    Console().print(table_of(before, points))
    draw_curve(points, DOMAINS, output_dir / "weight_mix.png")


def table_of(ancestor: dict[str, float], points: list[Point]) -> Table:
    """Accuracy in both domains, mixture by mixture."""
    table = Table("beta (weight of the parent of marks)", *DOMAINS, "mean", title="Right answers")
    table.add_row("ancestor", *(f"{ancestor[name]:.1%}" for name in (*DOMAINS, "mean")))
    for point in points:
        table.add_row(f"{point.beta:g}", *(f"{point.scores[name]:.1%}" for name in (*DOMAINS, "mean")))
    return table


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
