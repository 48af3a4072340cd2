"""Point clouds from files: arrays, .ply, .off and .pcd.

Unusual: of a mesh the corners are read, its faces are not. Comments may be in any encoding, lines end in any
way. Compressed .pcd files are refused.

Dimensions: N points, C values of a point.
"""

import codecs
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.processing.arrays import ARRAYS, read_array
from imagebind_llm.processing.config import PointConfig
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding
from llama_adapter.lazy import needed

_PCD_KINDS = {"I": "i", "U": "u", "F": "f"}
_AXES = ("x", "y", "z")
_FARTHEST = 1e30
_MOST_VALUES = 16
"""Of a point: coordinates, normals, colours, labels. Longer rows are columns."""
_OFF = re.compile(r"(?:ST)?C?N?OFF\s*")
"""How a file begins whose vertices begin with x, y and z."""


def load_points(path: str | Path, config: PointConfig) -> Float[Tensor, "N 3"]:
    """A point cloud as the point tower takes it.

    Raises:
        UserError: the file is missing, damaged, of another type, empty, or holds NaN.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        points = _rows(read_array(path))
    elif suffix in _READERS:
        with decoding(path, "a point cloud"):
            points = _READERS[suffix](path)
    else:
        known = sorted([*_READERS, *ARRAYS])
        raise UserError(f"{str(path)!r} is no point cloud known here. Use one of {known}.")
    if points.ndim != 2 or not 3 <= points.shape[1] <= _MOST_VALUES or not len(points):
        raise UserError(f"{str(path)!r} has the shape {points.shape}. Use rows of x, y and z.")
    points = np.ascontiguousarray(points[:, :3], dtype=np.float64)
    if bad := int((~np.isfinite(points)).any(1).sum()):
        raise UserError(
            f"{str(path)!r} holds NaN or infinite coordinates in {bad} points. Remove these points."
        )
    if (farthest := np.abs(points).max()) > _FARTHEST:
        raise UserError(
            f"{str(path)!r} holds coordinates up to {farthest:g}, which no unit of length needs. "
            "Replace the file."
        )
    # in double precision until the centre is taken off, for coordinates of maps with many digits
    return prepare(torch.from_numpy(points), config).float()


def prepare(points: Float[Tensor, "N 3"], config: PointConfig) -> Float[Tensor, "_ 3"]:
    """At most so many points, centred and of radius 1."""
    if len(points) > config.count:
        points = points[torch.arange(config.count) * len(points) // config.count]
    if not config.normalise:
        return points
    points = points - points.mean(0)
    radius = points.norm(dim=1).max()
    return points / radius if radius > 0 else points


def _rows(points: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Points in rows, of an array that holds them in rows or columns, or as a batch of one."""
    if points.ndim == 3 and len(points) == 1:
        points = points[0]
    in_columns = points.ndim == 2 and points.shape[0] == 3 and points.shape[1] > 3
    return points.T if in_columns else points


def _unmarked(path: Path) -> bytes:
    """A file's content without byte order mark, one byte per letter of a text."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16").encode("ascii", errors="replace")
    return content.removeprefix(codecs.BOM_UTF8)


def _lines(content: bytes) -> list[str]:
    """Lines that end in any of the three ways, and in no others."""
    return [line.decode("ascii", errors="replace") for line in content.splitlines()]


def _read_ply(path: Path) -> Shaped[np.ndarray, "N 3"]:
    """Polygon File Format, as text or binary."""
    plyfile: Any = needed("plyfile", "plyfile", "Point clouds in .ply", "point")
    head, mark, body = _unmarked(path).partition(b"end_header")
    plain = head.decode("ascii", errors="replace").encode("ascii", errors="replace")
    with decoding(path, "a point cloud"):
        vertices = plyfile.PlyData.read(io.BytesIO(plain + mark + body))["vertex"]
        return np.stack([np.asarray(vertices[axis], dtype=np.float64) for axis in _AXES], axis=1)


def _read_off(path: Path) -> Shaped[np.ndarray, "N 3"]:
    """Object File Format; the counts may follow the first word without a space, as in ModelNet.

    A vertex has a line; behind its coordinates may stand a normal and colours, which are left.
    """
    lines = [line.partition("#")[0].strip() for line in _lines(_unmarked(path))]
    text = "\n".join(line for line in lines if line)
    begin = _OFF.match(text)
    if begin is None:
        raise ValueError("the first word is not OFF, nor that of coloured or textured corners in space")
    counts, *vertices = text[begin.end() :].splitlines() or [""]
    count = int(counts.split()[0])
    if not 0 <= count <= len(vertices):
        raise ValueError(f"{count} corners were announced, but {len(vertices)} lines follow")
    return np.array([line.split()[:3] for line in vertices[:count]], dtype=np.float64).reshape(count, 3)


def _read_pcd(path: Path) -> Shaped[np.ndarray, "N 3"]:
    """Point Cloud Data, as text or binary; points that the sensor did not see (NaN) are left out."""
    content = b"\n" + _unmarked(path)
    start = content.index(b"\n", content.index(b"\nDATA ") + 1) + 1
    lines = [line.split() for line in _lines(content[:start]) if line[:1] != "#"]
    header = {line[0]: line[1:] for line in lines if line}
    count, layout = int(header["POINTS"][0]), header["DATA"][0]
    header.setdefault("COUNT", ["1"] * len(header["FIELDS"]))
    if layout == "ascii":
        rows = [line.split() for line in _lines(content[start:]) if line.strip()]
        offsets = dict(zip(header["FIELDS"], np.cumsum([0, *map(int, header["COUNT"])]), strict=False))
        points = np.array(rows, dtype=np.float64)[:, [offsets[axis] for axis in _AXES]]
        if len(points) != count:
            raise ValueError(f"{count} points were announced, but {len(points)} lines follow")
    elif layout == "binary":
        records = np.frombuffer(content[start:], _pcd_record(header), count)
        points = np.stack([records[axis] for axis in _AXES], axis=1)
    else:
        raise ValueError(f"its data are {layout!r}, not 'ascii' or 'binary'")
    return points[~np.isnan(points).all(1)]


def _pcd_record(header: dict[str, list[str]]) -> np.dtype:
    """The layout of a point in a binary file."""
    names, repeats = header["FIELDS"], map(int, header["COUNT"])
    # fields without a meaning share the name `_`
    unique = [f"_{index}" if name == "_" else name for index, name in enumerate(names)]
    kinds = [f"<{_PCD_KINDS[kind]}{size}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    fields = zip(unique, kinds, repeats, strict=True)
    return np.dtype(
        [(name, kind, (repeat,)) if repeat > 1 else (name, kind) for name, kind, repeat in fields]
    )


_READERS = {".off": _read_off, ".ply": _read_ply, ".pcd": _read_pcd}
