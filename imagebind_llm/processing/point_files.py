"""Point clouds from files: .npy, .ply, .off, .pcd, and .pt that holds nothing but tensors.

Unusual: of a mesh the corners are read, its faces are not. Compressed .pcd files are refused.

Dimensions: N points.
"""

import pickle
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.processing.config import PointConfig
from imagebind_llm.processing.pictures import read_array
from llama_adapter.errors import UserError

_PLY_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_PLY_ORDER = {"binary_little_endian": "<", "binary_big_endian": ">"}
_PCD_KINDS = {"I": "i", "U": "u", "F": "f"}
_AXES = ("x", "y", "z")
_BROKEN = (OSError, ValueError, IndexError, KeyError, TypeError, EOFError, RuntimeError, struct.error)
"""What comes of damaged files."""


def load_points(path: str | Path, config: PointConfig) -> Float[Tensor, "N 3"]:
    """A point cloud as the point tower takes it.

    Raises:
        UserError: the file is missing, damaged, of another type, empty, or holds NaN.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{str(path)!r} is no point cloud known here. Use one of {sorted(_READERS)}.")
    try:
        points = np.ascontiguousarray(reader(path), dtype=np.float32)
    except UserError:
        raise
    except (*_BROKEN, pickle.UnpicklingError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as a point cloud: {error or type(error).__name__}. "
            "Replace the file."
        ) from error
    if points.ndim != 2 or points.shape[1] < 3 or not len(points):
        raise UserError(f"{str(path)!r} has the shape {points.shape}. Use rows of x, y and z.")
    points = points[:, :3]
    if bad := int((~np.isfinite(points)).any(1).sum()):
        raise UserError(
            f"{str(path)!r} holds NaN or infinite coordinates in {bad} points. Remove these points."
        )
    return prepare(torch.from_numpy(points.copy()), config)


def prepare(points: Float[Tensor, "N 3"], config: PointConfig) -> Float[Tensor, "_ 3"]:
    """At most so many points, centred and of radius 1."""
    if len(points) > config.count:
        points = points[torch.arange(config.count) * len(points) // config.count]
    if not config.normalise:
        return points
    points = points - points.mean(0)
    radius = points.norm(dim=1).max()
    return points / radius if radius > 0 else points


def _read_npy(path: Path) -> np.ndarray:
    """NumPy's."""
    return read_array(path)


def _read_pt(path: Path) -> np.ndarray:
    """torch's, without running anything that the file may contain."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{str(path)!r} wants to run code while loading. Save the tensor alone, with torch.save."
        ) from error
    if not isinstance(content, Tensor):
        raise UserError(f"{str(path)!r} holds a {type(content).__name__}. Use a file with one tensor.")
    found: np.ndarray = content.detach().float().numpy()
    return found.squeeze(0) if found.ndim == 3 and len(found) == 1 else found


def _read_off(path: Path) -> np.ndarray:
    """Object File Format; the counts may follow the first word without a space, as in ModelNet."""
    words = path.read_text(encoding="ascii").split("\n")
    text = " ".join(line.partition("#")[0] for line in words).strip()
    if not text.startswith("OFF"):
        raise ValueError("the first word is not OFF")
    numbers = text[3:].split()
    count = int(numbers[0])
    return np.array(numbers[3 : 3 + 3 * count], dtype=np.float32).reshape(count, 3)


def _read_ply(path: Path) -> np.ndarray:
    """Polygon File Format, as text or binary."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii").splitlines()]
    if lines[0] != ["ply"]:
        raise ValueError("the first line is not 'ply'")
    layout = next(line[1] for line in lines if line[0] == "format")
    elements = [index for index, line in enumerate(lines) if line[0] == "element"]
    first = lines[elements[0]]
    if first[1] != "vertex":
        raise ValueError(f"its first element is {first[1]!r}, not 'vertex'")
    end = elements[1] if len(elements) > 1 else len(lines)
    fields = {line[2]: _PLY_TYPES[line[1]] for line in lines[elements[0] + 1 : end] if line[0] == "property"}
    count = int(first[2])
    if layout == "ascii":
        rows = [line.split()[: len(fields)] for line in body.decode("ascii").splitlines()[:count]]
        table = np.array(rows, dtype=np.float64)
        return table[:, [list(fields).index(axis) for axis in _AXES]]
    order = _PLY_ORDER[layout]
    records = np.frombuffer(body, np.dtype([(name, order + kind) for name, kind in fields.items()]), count)
    return np.stack([records[axis] for axis in _AXES], axis=1)


def _read_pcd(path: Path) -> np.ndarray:
    """Point Cloud Data, as text or binary; points that the sensor did not see (NaN) are left out."""
    content = path.read_bytes()
    start = content.index(b"\n", content.index(b"\nDATA ") + 1) + 1
    lines = [line.split() for line in content[:start].decode("ascii").splitlines() if line[:1] != "#"]
    header = {line[0]: line[1:] for line in lines if line}
    count, layout = int(header["POINTS"][0]), header["DATA"][0]
    if layout == "ascii":
        rows = [line.split() for line in content[start:].decode("ascii").splitlines()[:count]]
        repeats = map(int, header.get("COUNT", ["1"] * len(header["FIELDS"])))
        offsets = dict(zip(header["FIELDS"], np.cumsum([0, *repeats]), strict=False))
        points = np.array(rows, dtype=np.float64)[:, [offsets[axis] for axis in _AXES]]
    elif layout == "binary":
        records = np.frombuffer(content[start:], _pcd_record(header), count)
        points = np.stack([records[axis] for axis in _AXES], axis=1)
    else:
        raise ValueError(f"its data are {layout!r}, not 'ascii' or 'binary'")
    return points[~np.isnan(points).all(1)]


def _pcd_record(header: dict[str, list[str]]) -> np.dtype:
    """The layout of a point in a binary file."""
    names = header["FIELDS"]
    repeats = map(int, header.get("COUNT", ["1"] * len(names)))
    # fields without a meaning share the name `_`
    unique = [f"_{index}" if name == "_" else name for index, name in enumerate(names)]
    kinds = [f"<{_PCD_KINDS[kind]}{size}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    fields = zip(unique, kinds, repeats, strict=True)
    return np.dtype(
        [(name, kind, (repeat,)) if repeat > 1 else (name, kind) for name, kind, repeat in fields]
    )


_READERS = {".npy": _read_npy, ".pt": _read_pt, ".off": _read_off, ".ply": _read_ply, ".pcd": _read_pcd}
