"""Whether a written file says all of what it was written from.

A format has no place for every setting of ours. The rule for all exporters: what was written is read again by
the importer, and what that takes for granted must be what was exported. A setting that differs and decides
what a model gives is refused by name; one that concerns training or generation alone is said.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rich.console import Console

from llama_adapter.errors import UserError

ASIDE = frozenset(
    {
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "initializer_range",
        "max_position_embeddings",
        "output_router_logits",
        "pad_token_id",
        "router_aux_loss_coef",
        "router_jitter_noise",
    }
)
"""Settings of language models that a single pass does not depend on."""
_NO_SETTINGS = frozenset(
    {"_name_or_path", "architectures", "dtype", "pretraining_tp", "transformers_version", "use_cache"}
)
"""What configurations hold beside settings of the model."""


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Settings of ours that a reader of the file takes for others: name -> both values.

    Args:
        ours: settings by name.
        theirs: as the importer has them; what it lacks is None.
    """
    mine, read = (dict(_flat(_plain(settings))) for settings in (ours, theirs))
    return {
        name: f"{name}={mine.get(name)!r}, read as {read.get(name)!r}"
        for name in {**mine, **read}
        if name.partition(".")[0] in ours.keys() - _NO_SETTINGS and mine.get(name) != read.get(name)
    }


def check_way_back(
    found: Mapping[str, str], kind: str, console: Console | None = None, aside: Collection[str] = ()
) -> None:
    """Refuse, or say, what files of a kind have no place for.

    Args:
        found: of ``differing``.
        kind: of the files.
        console: where the rest is said.
        aside: names of settings that are said and not refused.

    Raises:
        UserError: names the settings.
    """
    lost = [text for name, text in found.items() if name not in aside]
    if lost:
        raise UserError(
            f"Files of --kind {kind} have no place for {'; '.join(lost)}. Keep the model as it is, or export "
            "one with the settings that such files are read with."
        )
    if found and console is not None:
        console.print(f"Not in such files, and not needed for a pass: {'; '.join(found.values())}.")


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Single settings with the path to each, such as ``encoders.1.settings.width``."""
    if not isinstance(value, dict | list):
        yield name, value
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield from _flat(one, f"{name}.{key}" if name else str(key))


def _plain(value: Any) -> Any:
    """A setting as JSON would give it back, numbers alike whatever their type."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            value if isinstance(value, int) else int(value) if value.is_integer() else float(f"{value:.9g}")
        )
    return value
