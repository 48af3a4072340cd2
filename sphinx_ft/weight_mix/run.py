"""The `mix` verb: one mixture, or a sweep over beta with evaluations."""

import json
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table

from llama_adapter.cli import parse_verb, select
from llama_adapter.errors import UserError
from sphinx_ft.weight_mix.mixing import Scope, mix_models
from sphinx_ft.weight_mix.sweep import Point, draw_curve, sweep_beta


@dataclass(kw_only=True)
class MixConfig:
    """The weighted mean of models that are built alike: full models, or adapters of one base."""

    BARE_WORDS: ClassVar[str] = "models"
    """The option that words without a name belong to."""

    models: list[str]
    """Folders of two or more models; `mix A B` names them as well."""
    output: str
    """Folder to write; of a sweep, that of the scores and their curve."""
    beta: float | None = None
    """Of two models: weight of the first, the second has the rest. 0.5 without weights."""
    weights: list[float] = field(default_factory=list)
    """Of any number of models: a weight for each, together 1."""
    scope: Scope = "all"
    """Which tensors are mixed: all, or those of the language model of models that see; the rest is the first
    model's."""
    betas: list[float] = field(default_factory=list)
    """A sweep over two models: mix and evaluate at each of these weights, keep the scores alone."""
    evaluate: list[str] = field(default_factory=list)
    """What a sweep evaluates: the words behind `llama-adapter evaluate`, without the model, such as
    "vqa --references a.json"; repeat the option for several."""
    work: str | None = None
    """Where a sweep keeps the mixture that is evaluated; by default where temporary files are."""
    overwrite: bool = False
    """Replace what is at `output`."""


def mix(config: MixConfig) -> int:
    """The `mix` verb.

    Returns:
        The exit code.

    Raises:
        UserError: models, weights or evaluations cannot be used.
    """
    if config.betas:
        return _sweep(config)
    if config.evaluate:
        raise UserError(
            "evaluate without betas. Add `--betas '[0,0.5,1]'`, or evaluate the output afterwards."
        )
    weights = _weights(config)
    done = mix_models(config.models, weights, config.output, config.scope, config.overwrite)
    parts = " + ".join(f"{weight:g} x {path}" for weight, path in zip(weights, config.models, strict=True))
    kept = f"; {done.kept:,} others stay those of {config.models[0]}" if done.kept else ""
    Console(highlight=False).print(
        f"{config.output}: {done.mixed:,} tensors = {parts}{kept}", markup=False, soft_wrap=True
    )
    return 0


def _weights(config: MixConfig) -> list[float]:
    """A weight for every model."""
    if config.weights and config.beta is not None:
        raise UserError(f"beta is {config.beta} and weights are {config.weights}. Give one of the two.")
    if config.weights:
        return config.weights
    if len(config.models) != 2:
        raise UserError(
            f"{len(config.models)} models came. Name two, or more with --weights, such as '[0.5,0.3,0.2]'."
        )
    beta = 0.5 if config.beta is None else config.beta
    return [beta, 1 - beta]


def _sweep(config: MixConfig) -> int:
    """Mix and evaluate at every beta; writes `sweep.json` and `sweep.png`."""
    if len(config.models) != 2 or config.weights or config.beta is not None:
        raise UserError("betas mix two models. Name two, and leave beta and weights out.")
    if not config.evaluate:
        raise UserError(
            'There is nothing to evaluate. Add `--evaluate "vqa --references a.json"` or another.'
        )
    for words in config.evaluate:  # a wrong word is said before anything is mixed
        _parsed(words, Path("model"), Path("scores.json"))
    folder = Path(config.output)
    if folder.exists() and any(folder.iterdir()) and not config.overwrite:
        raise UserError(
            f"The output folder {config.output!r} is not empty. Use another one, or `--overwrite true`."
        )
    first, second = config.models
    points = sweep_beta(
        (first, second),
        config.betas,
        lambda model: _scores(config.evaluate, model),
        config.scope,
        config.work,
    )
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "models": config.models,
        "scope": config.scope,
        "evaluate": config.evaluate,
        "points": [{"beta": point.beta, "scores": dict(point.scores)} for point in points],
    }
    (folder / "sweep.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draw_curve(points, (Path(first).name, Path(second).name), folder / "sweep.png")
    _print(points)
    return 0


def _scores(evaluations: list[str], model: Path) -> dict[str, float]:
    """The scores of all evaluations of one model, each under its words where there are several."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, words in enumerate(evaluations):
            target = Path(folder) / f"{place}.json"
            function, settings = _parsed(words, model, target)
            function(settings)
            label = f"{words}: " if len(evaluations) > 1 else ""
            found |= {label + name: value for name, value in _read(target).items()}
    return found


def _parsed(words: str, model: Path, target: Path) -> tuple[Callable[[Any], int | None], Any]:
    """An evaluation of a model, ready to run."""
    verb, rest = select(["evaluate", *shlex.split(words)])
    kind = "--adapter" if (model / "adapter_config.json").is_file() else "--base"
    return parse_verb(verb, [*rest, f"{kind}={model}", f"--output={target}"])


def _read(path: Path) -> dict[str, float]:
    """The scores that an evaluation wrote: of written answers, and of likelihoods under their names."""
    content = json.loads(path.read_text(encoding="utf-8"))
    tables = {"": content} | {
        f"{name} ": table for name, table in content.items() if isinstance(table, dict) and "scores" in table
    }
    return {
        prefix + name: value
        for prefix, table in tables.items()
        for name, value in table.get("scores", {}).items()
        if value is not None
    }


def _print(points: Sequence[Point]) -> None:
    """A line per mixture."""
    table = Table("beta", *points[0].scores)
    for point in points:
        table.add_row(f"{point.beta:g}", *(f"{value:.2f}" for value in point.scores.values()))
    Console().print(table)
