"""Two models mixed at several beta, each mixture evaluated and thrown away: where between them is it best?"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from sphinx_ft.weight_mix.mixing import Scope, mix_models

Evaluate = Callable[[Path], Mapping[str, float]]
"""From a model's folder to its scores by their names."""


@dataclass(frozen=True)
class Point:
    """One mixture."""

    beta: float
    """Weight of the first model."""
    scores: Mapping[str, float]
    """What it reached."""


def sweep_beta(
    models: tuple[str | Path, str | Path],
    betas: Sequence[float],
    evaluate: Evaluate,
    scope: Scope = "all",
    work: str | Path | None = None,
) -> list[Point]:
    """Evaluate mixtures ``beta * first + (1 - beta) * second``.

    Args:
        models: folders of the two models.
        betas: weights of the first.
        evaluate: called with each mixture's folder, which is removed afterwards.
        scope: what is mixed.
        work: where mixtures are written; needs room for one model. By default the system's folder for
            temporary files.

    Raises:
        UserError: the models do not fit together, or there are no betas.
    """
    if not betas:
        raise UserError("betas is empty. Name weights of the first model, such as [0, 0.25, 0.5, 0.75, 1].")
    points = []
    for beta in betas:
        with tempfile.TemporaryDirectory(prefix="mix-", dir=work) as folder:
            target = Path(folder) / "model"
            mix_models(models, (beta, 1 - beta), target, scope)
            points.append(Point(beta, dict(evaluate(target))))
    return points


def draw_curve(points: Sequence[Point], names: tuple[str, str], target: Path) -> None:
    """Scores over beta, as a PNG.

    Args:
        points: mixtures with their scores.
        names: of the two models.
        target: the file.

    Raises:
        UserError: matplotlib is missing.
    """
    needed("matplotlib", "matplotlib", user="Curves", extra="demo").use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name in points[0].scores:
        axes.plot(
            [point.beta for point in points], [point.scores[name] for point in points], "o-", label=name
        )
    axes.set_xlabel(f"beta (0: {names[1]}, 1: {names[0]})")
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
