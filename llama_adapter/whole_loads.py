"""Whether the weights in a file are all those of a model, no others, of its shapes, and numbers.

What loads weights fills a ``Misfit`` and calls ``refuse``: a tensor that a library would leave at random
values, or leave out, stops the program, unless the user named it. Which tensors may be absent by nature (tied
embeddings, buffers, heads that another class has) is transformers' own knowledge,
``_keys_to_ignore_on_load_*``; its reports leave them out.

Dimensions: ``...`` any shape.
"""

import difflib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from llama_adapter.errors import UserError
from llama_adapter.file_formats.model_folder import check_model_files

_log = logging.getLogger(__name__)

_SHOWN = 6
_CHUNK = 2**26
"""Values that are looked at together where a type has no comparisons and must be copied."""

Shapes = Mapping[str, Sequence[int]]
"""Name of a tensor -> its shape."""


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Where the tensors of a file are not those of a model: name -> what to say of it."""

    missing: Mapping[str, str] = field(default_factory=dict)
    """The model has it, the file has not."""
    misshapen: Mapping[str, str] = field(default_factory=dict)
    """Both have it, of other shapes."""
    unexpected: Mapping[str, str] = field(default_factory=dict)
    """The file has it, the model has not."""
    not_finite: Mapping[str, str] = field(default_factory=dict)
    """Some of its values are no numbers, or infinite."""

    @classmethod
    def of_shapes(cls, wanted: Shapes, found: Shapes) -> "Misfit":
        """Compares names and shapes.

        Args:
            wanted: of the model.
            found: of the file.
        """
        missing, unexpected = (
            {name: shapes[name] for name in shapes if name not in other}
            for shapes, other in ((wanted, found), (found, wanted))
        )
        return cls(
            missing={
                name: f"{shape_text(shape)} is missing; {_nearest(name, found)}"
                for name, shape in missing.items()
            },
            misshapen={
                name: f"has shape {shape_text(found[name])}, not {shape_text(wanted[name])}"
                for name in wanted
                if name in found and tuple(found[name]) != tuple(wanted[name])
            },
            unexpected={name: f"{shape_text(shape)} is unexpected" for name, shape in unexpected.items()},
        )

    @classmethod
    def of_report(cls, report: Mapping[str, Any], model: nn.Module | None = None) -> "Misfit":
        """From what ``from_pretrained(..., output_loading_info=True)`` gives.

        Args:
            report: the second of the two.
            model: the first; its values are looked at, too.
        """
        return cls(
            missing=dict.fromkeys(sorted(report["missing_keys"]), "is missing"),
            misshapen={
                name: f"has shape {shape_text(found)}, not {shape_text(wanted)}"
                for name, found, wanted in sorted(report["mismatched_keys"])
            },
            unexpected=dict.fromkeys(sorted(report["unexpected_keys"]), "is unexpected"),
            not_finite={} if model is None else not_finite(model.state_dict()),
        )

    def without(self, allowed: Sequence[str]) -> "Misfit":
        """What no name or pattern in ``allowed`` covers."""
        return Misfit(
            **{
                kind.name: {
                    name: text
                    for name, text in getattr(self, kind.name).items()
                    if not any(fnmatchcase(name, pattern) for pattern in allowed)
                }
                for kind in fields(self)
            }
        )

    @property
    def names(self) -> list[str]:
        """Of all tensors concerned."""
        return list(dict.fromkeys(chain.from_iterable(getattr(self, kind.name) for kind in fields(self))))

    @property
    def lines(self) -> str:
        """A line for each tensor, the first few of each kind."""
        kinds = [getattr(self, kind.name) for kind in fields(self)]
        shown = [list(kind.items())[:_SHOWN] for kind in kinds]
        lines = [f"  {name} {text}" for kind in shown for name, text in kind]
        more = sum(map(len, kinds)) - len(lines)
        return "\n".join([*lines, *([f"  and {more} more"] if more else [])])

    @property
    def cause(self) -> str:
        """What most likely happened, a sentence."""
        if self.misshapen:
            return "Likely the two are of models of different sizes."
        if self.missing and self.unexpected:
            return "Likely the two are of different models, or one was made with other settings."
        if self.missing:
            return "Likely the copy is incomplete, or the two are of models of different depths."
        if self.unexpected:
            return "Likely the two are of different models, or the file holds parts that this class has not."
        return "Likely the run that wrote the file diverged, or the file is damaged."


def refuse(misfit: Misfit, allowed: Sequence[str], file: str, other: str, advice: str = "") -> None:
    """Stop where tensors do not fit, and say which of them were allowed to.

    Args:
        misfit: of file and model.
        allowed: names and patterns (``*``, ``?``) of tensors that need not fit.
        file: what holds the tensors.
        other: what they should fit, for the message.
        advice: a sentence instead of the likely cause.

    Raises:
        UserError: names tensors, both sides and the likely cause.
    """
    left = misfit.without(allowed)
    if left.names:
        raise UserError(
            f"{file!r} does not fit {other}: {len(left.names)} tensors.\n{left.lines}\n"
            f"{advice or left.cause} Use the files that belong together, or allow tensors by name or "
            f"pattern: allow_misfit=[{left.names[0]}]."
        )
    if misfit.names:
        _log.warning(
            "%r does not fit %s in %d tensors, which allow_misfit names:\n%s",
            file,
            other,
            len(misfit.names),
            misfit.lines,
        )


def load_whole(
    load: Callable[..., Any], folder: Any, *arguments: Any, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """What a class's ``from_pretrained`` of transformers gives, if all weights fit.

    Args:
        load: the method.
        folder: a folder, or a name on the hub.
        arguments: of the method.
        options: of the method; ``allow_misfit`` names tensors that need not fit.

    Returns:
        The model, and the report on its loading.

    Raises:
        UserError: a file is damaged, or tensors do not fit.
    """
    allowed = options.pop("allow_misfit", None) or ()
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if isinstance(folder, str | Path):
        check_model_files(folder)
    with quiet_reports():
        model, report = load(folder, *arguments, **options)
    name = type(model).__name__
    refuse(Misfit.of_report(report, model), allowed, str(folder), f"the {name} of its config.json")
    return model, report


def warn_of_misfit(misfit: Misfit, file: str, other: str) -> None:
    """Say in one line that tensors do not fit, for loads that others decide about."""
    if misfit.names:
        first = misfit.lines.splitlines()[0].strip()
        warnings.warn(
            f"{file} does not fit {other} in {len(misfit.names)} tensors, such as {first}. {misfit.cause}",
            UserWarning,
            stacklevel=3,
        )


@contextmanager
def judging() -> Iterator[None]:
    """Loads inside do not warn of tensors that do not fit: the caller refuses those that must."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).* does not fit .* in \d+ tensors", UserWarning)
        yield


@contextmanager
def quiet_reports() -> Iterator[None]:
    """Inside, transformers prints no table of tensors that do not fit: ``refuse`` names them."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def not_finite(tensors: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, str]:
    """Tensors with values that are no numbers, or infinite: name -> what to say of it."""
    return {
        name: "holds NaN or infinite values" for name, tensor in tensors.items() if not _is_finite(tensor)
    }


def _is_finite(tensor: Shaped[Tensor, "..."]) -> bool:
    """Whether all values are numbers; true for integers, empty tensors and those without content."""
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.device.type == "meta":
        return True
    if tensor.dtype.itemsize > 1 and type(tensor) in (Tensor, nn.Parameter):
        lowest, highest = tensor.detach().aminmax()  # NaN goes through both; no copy as isfinite makes
        return bool(torch.isfinite(lowest) & torch.isfinite(highest))
    if type(tensor) not in (Tensor, nn.Parameter):
        return True  # quantised: of the library that made it
    chunks: Iterable[Tensor] = tensor.detach().flatten().split(_CHUNK)
    return all(bool(torch.isfinite(chunk.float()).all()) for chunk in chunks)


def shape_text(shape: Sequence[int]) -> str:
    """(4096, 11008) as text."""
    return f"({', '.join(map(str, shape))})"


def _nearest(name: str, found: Shapes) -> str:
    """The most alike names of the file, with shapes."""
    near = difflib.get_close_matches(name, found, n=2)
    listed = ", ".join(f"{other} {shape_text(found[other])}" for other in near)
    return f"nearest: {listed}" if near else "nothing alike is there"
