"""The official files of one model: which there are, what they hold, and how they share it.

A family of models is described by a ``Family`` (`family.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_adapter.checkpoints.family import CONSOLIDATED, Family
from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.checkpoints.reading import CheckpointFile, read_checkpoint
from llama_adapter.checkpoints.report import check_complete, summary
from llama_adapter.checkpoints.shards import join, joined_shape, split_axis
from llama_adapter.checkpoints.stored import Stored
from llama_adapter.errors import UserError
from llama_adapter.file_formats.json_file import read_object

MISFIT = "Use a folder whose settings and files belong together."


@dataclass(frozen=True, kw_only=True)
class OfficialModel:
    """The files of one model, known by names and shapes."""

    family: Family
    """What they should be."""
    paths: list[Path]
    """Files with weights, in order."""
    settings: dict[str, dict[str, Any]]
    """Name of a settings file -> its content; the first is the model's."""
    container: str
    """Key under which the files keep their tensors."""
    prefix: str
    """In front of every name in the files."""
    holders: dict[str, list[int]]
    """Name -> positions of the files that hold it or a share."""
    pieces: NamedTensors
    """Each tensor's share in the first file that has one."""
    beside: list[str]
    """What else the files hold: optimiser, options ..."""

    @cached_property
    def params(self) -> dict[str, Any]:
        """The model's settings; empty where there are none."""
        return next(iter(self.settings.values()), {})

    def rows(self, name: str, columns: int) -> int:
        """Rows of a map whose number of columns is known.

        Raises:
            UserError: The files lack it.
        """
        if name not in self.pieces:
            raise UserError(f"{str(self.paths[0])!r} lacks {name!r}. {MISFIT}")
        piece = self.pieces[name].shape
        return piece[0] * (len(self.holders[name]) if piece[-1] == columns else 1)

    def check(self, stored: Sequence[Stored]) -> dict[str, int | None]:
        """Check that the files hold the model's tensors and nothing unknown.

        Returns:
            Name -> axis along which the files split a tensor.

        Raises:
            UserError: A tensor is missing, misshapen or of no known use.
        """
        source = str(self.paths[0].parent)
        axes: dict[str, int | None] = {}
        whole: NamedTensors = {}
        for tensor in stored:
            if tensor.name in self.pieces:
                piece, count = self.pieces[tensor.name].shape, len(self.holders[tensor.name])
                axes[tensor.name] = split_axis(piece, tensor.shape, count)
                whole[tensor.name] = torch.empty(joined_shape(piece, axes[tensor.name], count), device="meta")
        shapes = {tensor.name: tensor.shape for tensor in stored}
        self._check_shares(shapes, whole)
        unknown = [name for name in self.pieces if name not in axes and self.family.unused(name) is None]
        found = whole | {name: self.pieces[name] for name in unknown}
        check_complete(shapes, found, source, MISFIT)
        if unknown:
            raise UserError(
                f"{source!r} holds {len(unknown)} tensors that such a model does not have: "
                f"{summary(unknown)}. Use files of a plain {self.family.architecture}."
            )
        return axes

    def _check_shares(self, shapes: Mapping[str, Sequence[int]], whole: NamedTensors) -> None:
        """Refuse a weight that some files split and others lack."""
        odd = [
            name
            for name, tensor in whole.items()
            if len(self.holders[name]) < len(self.paths) and tuple(tensor.shape) != tuple(shapes[name])
        ]
        if odd:
            raise UserError(
                f"Only some of {len(self.paths)} files hold a share of {summary(odd)}. "
                "Use files of one model."
            )

    def weight(self, tensor: Stored, index: int, axis: int | None, files: Sequence[CheckpointFile]) -> Tensor:
        """One weight of ours.

        Args:
            tensor: The official tensor that holds it.
            index: Its place in there.
            axis: Along which the files split the tensor.
            files: All files, open.
        """
        name = self.prefix + tensor.name
        pieces = [files[holder].tensors[name] for holder in self.holders[tensor.name]]
        cut = [tensor.layout.cut(piece, index) for piece in pieces]
        return tensor.layout.turn(join(cut, axis)).contiguous()


def open_model(source: Path, family: Family, verify: bool) -> OfficialModel:
    """Look at the official files of a folder.

    Raises:
        UserError: There are none, they are damaged, or the settings are missing.
    """
    found = source.iterdir() if source.is_dir() else ()
    paths = sorted(path for path in found if family.files.fullmatch(path.name))
    if not paths:
        raise UserError(
            f"There are no {family.owner} weights (files like {_example(family.files)!r}) "
            f"in {str(source)!r}. Use the folder with the official files."
        )
    _check_count(paths)
    settings = _read_settings(source, family)
    files = [read_checkpoint(path, verify) for path in paths]
    names = dict.fromkeys(name for file in files for name in file.tensors)
    prefix = family.prefix if all(name.startswith(family.prefix) for name in names) else ""
    holders = {
        name.removeprefix(prefix): [index for index, file in enumerate(files) if name in file.tensors]
        for name in names
    }
    return OfficialModel(
        family=family,
        paths=paths,
        settings=settings,
        container=files[0].container,
        prefix=prefix,
        holders=holders,
        beside=sorted({name for file in files for name in file.beside}),
        pieces={name: files[held[0]].tensors[prefix + name] for name, held in holders.items()},
    )


def _check_count(paths: Sequence[Path]) -> None:
    """Refuse a part of the files, where their names say how many there are.

    Raises:
        UserError: Some are missing, or they are of two sets.
    """
    counts = {int(found[1]) for path in paths if (found := re.search(r"-of-(\d+)\.", path.name))}
    if counts and counts != {len(paths)}:
        raise UserError(
            f"{str(paths[0].parent)!r} has {len(paths)} files with weights, {paths[0].name!r} to "
            f"{paths[-1].name!r}. Put all files of one model into a folder, and no others."
        )


def _example(pattern: re.Pattern[str]) -> str:
    """A name that a pattern matches."""
    return "consolidated.00.pth" if pattern is CONSOLIDATED else "model-00001-of-00002.safetensors"


def _read_settings(source: Path, family: Family) -> dict[str, dict[str, Any]]:
    """Content of the settings files, the model's first.

    Raises:
        UserError: There is none, or one is no JSON.
    """
    present = [name for name in family.settings if (source / name).is_file()]
    if not present and family.settings_needed:
        raise UserError(
            f"There is no {' or '.join(family.settings)} in {str(source)!r}. "
            "Put the one that came with the weights into that folder."
        )
    settings = {}
    for name in present:
        settings[name] = read_object(source / name)
    return settings
