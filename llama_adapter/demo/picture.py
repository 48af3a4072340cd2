"""The picture of a demo: the loss curve, and how far each layer has opened its gates.

Unusual: drawn without a display, on a figure of its own, so it leaves matplotlib's global state alone.
"""

from collections.abc import Sequence
from pathlib import Path

from llama_adapter.errors import UserError

_LINE, _BAR, _DOT = "#1f5fa8", "#9dbfe3", "#12395f"


def draw(path: Path, loss: Sequence[tuple[int, float]], gates: Sequence[Sequence[float]]) -> None:
    """Write the picture as PNG.

    Args:
        path: Where to.
        loss: Step and training loss in nats per answer token, in the order of the steps.
        gates: For each adapted layer from the bottom, the magnitude of each head's gate.

    Raises:
        UserError: matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.8)
        axes.set_axisbelow(True)

    left.plot(*zip(*loss, strict=True), color=_LINE, linewidth=2, marker="o", markersize=3)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    left.set_title("Training loss", loc="left", fontweight="bold")
    left.set_xlabel("step")
    left.set_ylabel("nats per answer token (log scale)")

    layers = range(len(gates))
    means = [sum(heads) / len(heads) for heads in gates]
    right.bar(layers, means, color=_BAR, label="mean of the heads")
    spread = [(layer, head) for layer, heads in zip(layers, gates, strict=True) for head in heads]
    right.scatter(*zip(*spread, strict=True), s=7, color=_DOT, alpha=0.7, linewidths=0, label="one head")
    right.set_title("Gates after training (zero before)", loc="left", fontweight="bold")
    right.set_xlabel("layer (0 is next to the input)")
    right.set_ylabel("|tanh(gate)|")
    right.set_ylim(0, 1.18 * max(max(map(max, gates)), 1e-3))  # room for the legend above the dots
    right.margins(x=0.02)
    right.legend(frameon=False, loc="upper left", ncols=2)
    figure.savefig(path, dpi=130)


def check_matplotlib() -> None:
    """Refuse early where the picture could not be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"The demo draws a picture with matplotlib, which cannot be imported ({error}). "
            "Run: pip install 'llama-adapter[demo]'"
        ) from error
