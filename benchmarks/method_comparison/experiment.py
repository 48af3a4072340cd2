"""One experiment of the public table: a folder with a PEFT config and training settings.

The layout and the names of the settings are the table's: ``METHOD/NAME/adapter_config.json`` (absent: nothing
is trained), ``METHOD/NAME/training_params.json`` over ``default_training_params.json``. What is unusual: a
setting that would not be followed here is refused. Models and data are not known here.
"""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from peft import PeftConfig

import llama_adapter  # noqa: F401  makes the method known to PEFT
from llama_adapter.errors import UserError

FOLDER = Path(__file__).parent / "experiments"
DEFAULTS = Path(__file__).parent / "default_training_params.json"

_ONLY: dict[str, Any] = {
    "compile": False,
    "optimizer_type": "AdamW",
    "use_amp": False,
    "autocast_adapter_dtype": True,
    "init_kv_cache_prefix": None,
}
"""Settings of the table that have one value here."""


@dataclass(frozen=True, kw_only=True)
class TrainingParams:
    """Training settings under the table's names.

    Raises:
        UserError: A setting asks for what is not done here.
    """

    model_id: str
    """Folder or hub name of the base model."""
    dtype: str
    """Precision of the base."""
    max_seq_length: int
    """Longest record in tokens; longer ones are left out."""
    batch_size: int
    """Rows of a step where they have mean length; batches have a budget of tokens."""
    batch_size_eval: int
    """Rows of an evaluation batch."""
    max_steps: int
    """Optimiser steps; 0 only evaluates."""
    eval_steps: int
    """Steps that one entry of the metrics sums up."""
    compile: bool
    """Whether the model is compiled."""
    use_gc: bool
    """Activation checkpointing."""
    query_template: str
    """The prompt, with ``{query}``."""
    seed: int
    """Of the adapter's start and the order of the records."""
    grad_norm_clip: float
    """Largest gradient norm; 0 clips nothing."""
    optimizer_type: str
    """Name of the optimiser."""
    optimizer_kwargs: dict[str, Any]
    """``lr`` and ``weight_decay``."""
    lr_scheduler: str | None
    """``cosine``, with the table's 10 % of warm-up steps, or None for a constant rate."""
    use_amp: bool
    """Automatic mixed precision."""
    autocast_adapter_dtype: bool
    """Adapter weights in float32."""
    generation_kwargs: dict[str, Any]
    """``max_new_tokens`` of an answer."""
    attn_implementation: str | None
    """Attention kernel."""
    init_kv_cache_prefix: str | None
    """Text that prefix tuning starts from."""

    def __post_init__(self) -> None:
        """Refuse what would not be followed."""
        for name, value in _ONLY.items():
            if getattr(self, name) != value:
                raise UserError(f"{name} is {getattr(self, name)!r}. Use {value!r}, the only value here.")
        allowed = {"optimizer_kwargs": {"lr", "weight_decay"}, "generation_kwargs": {"max_new_tokens"}}
        for name, keys in allowed.items():
            if getattr(self, name).keys() - keys:
                raise UserError(f"{name} is {getattr(self, name)!r}. Use no keys but {sorted(keys)}.")
        if self.lr_scheduler not in (None, "cosine"):
            raise UserError(f"lr_scheduler is {self.lr_scheduler!r}. Use 'cosine' or null.")
        if "{query}" not in self.query_template:
            raise UserError(f"query_template is {self.query_template!r}. Use one that contains {{query}}.")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What one row of the table trains, and how."""

    name: str
    """``METHOD/NAME``."""
    adapter: PeftConfig | None
    """The adapter; None evaluates the bare base."""
    params: TrainingParams
    """How it is trained."""

    @property
    def file_name(self) -> str:
        """Name of its result, as the table names it."""
        return f"{self.name.replace('/', '--')}.json"


def load_experiment(folder: Path, **changes: Any) -> Experiment:
    """Read one experiment.

    Args:
        folder: ``.../METHOD/NAME``.
        **changes: settings that win over the folder's; None leaves them.

    Raises:
        UserError: The folder holds no experiment, or one that asks for what is not done here.
    """
    files = [folder / name for name in ("adapter_config.json", "training_params.json")]
    if not any(file.is_file() for file in files):
        raise UserError(
            f"{str(folder)!r} holds no experiment. Use a folder METHOD/NAME with an adapter_config.json."
        )
    values = _read(DEFAULTS) | (_read(files[1]) if files[1].is_file() else {})
    if unknown := values.keys() - {field.name for field in fields(TrainingParams)}:
        raise UserError(f"{str(files[1])!r} has the keys {sorted(unknown)}. Use the table's settings only.")
    given = {name: value for name, value in changes.items() if value is not None}
    if values["max_steps"] == 0:
        given.pop("max_steps", None)
    return Experiment(
        name="/".join(folder.parts[-2:]),
        adapter=PeftConfig.from_pretrained(str(folder)) if files[0].is_file() else None,
        params=replace(TrainingParams(**values), **given),
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
