"""Checkpoints that are either complete or not there.

A checkpoint is written into a hidden staging folder, flushed to disk, closed with a manifest (name, size and
SHA-256 of every file, written last) and only then renamed to ``checkpoint-STEP``. What is unusual: the name
alone is never believed. A folder counts as complete when its manifest is there and every file still agrees
with it; everything else is left over from a crash, a full disk or a copy that stopped half-way, and is passed
over with a reason. This module knows files, not what is in them.
"""

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d+)")
_STAGING = ".incomplete-checkpoint-"


@dataclass(frozen=True)
class Search:
    """What a search for the last complete checkpoint found."""

    path: Path | None
    """The last complete checkpoint, or None."""

    rejected: dict[Path, str]
    """Folders that were passed over on the way, and why."""


def staging_folder(output_dir: Path, step: int) -> Path:
    """Where a checkpoint is written before it is complete."""
    return output_dir / f"{_STAGING}{step}"


def clear_staging(output_dir: Path) -> None:
    """Delete what crashed runs left half-written."""
    for leftover in output_dir.glob(f"{_STAGING}*"):
        shutil.rmtree(leftover)


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """Folders named like a checkpoint, last step first; complete or not."""
    found = [
        (int(match[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True) if path.is_dir()]


def publish(written: Path, final: Path, notes: dict[str, Any]) -> None:
    """Close a written folder with its manifest and give it its name; a crash leaves all or nothing.

    Args:
        written: Folder whose files are all there.
        final: Its name from now on; a folder of that name is replaced.
        notes: Facts of the run, kept in the manifest.
    """
    paths = [path for path in sorted(written.rglob("*")) if path.is_file() and path.name != MANIFEST]
    for path in paths:
        _flush(path)
    files = {
        path.relative_to(written).as_posix(): {"size": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, _digests(paths), strict=True)
    }
    manifest = written / MANIFEST
    manifest.write_text(
        json.dumps({"format": FORMAT, "run": notes, "files": files}, indent=1), encoding="utf-8"
    )
    _flush(manifest)
    for folder in [*(path for path in written.rglob("*") if path.is_dir()), written]:
        _flush(folder)
    replaced = final.with_name(f".replaced-{final.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    written.rename(final)
    _flush(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def defect(folder: Path) -> str | None:
    """Why a folder is not a complete checkpoint; None when it is one."""
    try:
        files = read_manifest(folder)["files"]
    except FileNotFoundError:
        return f"{folder.name} has no manifest: it was never finished."
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return f"{folder.name} has a manifest that cannot be read."
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{folder.name} lacks {name}."
        if path.stat().st_size != expected["size"]:
            return f"{folder.name}/{name} has {path.stat().st_size} bytes instead of {expected['size']}."
    for name, digest in zip(files, _digests([folder / name for name in files]), strict=True):
        if digest != files[name]["sha256"]:
            return f"{folder.name}/{name} was changed after it was written."
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        FileNotFoundError: When there is none.
        json.JSONDecodeError: When it is not JSON.
    """
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def last_complete(output_dir: Path) -> Search:
    """The complete checkpoint with the highest step, and why later folders were passed over."""
    rejected: dict[Path, str] = {}
    for folder in checkpoint_folders(output_dir):
        reason = defect(folder)
        if reason is None:
            return Search(path=folder, rejected=rejected)
        rejected[folder] = reason
    return Search(path=None, rejected=rejected)


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that nothing takes it for one; returns the new path."""
    target = folder.with_name(f"damaged-{folder.name}")
    if target.exists():
        shutil.rmtree(target)
    return folder.rename(target)


def prune(output_dir: Path, keep: int | None, protected: list[Path]) -> None:
    """Delete the oldest checkpoints.

    Args:
        output_dir: Folder of the run.
        keep: How many stay, protected ones included; None or 0 keeps all.
        protected: Folders that stay in any case: the one just written, and the best.
    """
    if not keep:
        return
    safe = {path.resolve() for path in protected}
    spare = keep - len(safe)
    others = [folder for folder in checkpoint_folders(output_dir) if folder.resolve() not in safe]
    for folder in others[max(spare, 0) :]:
        shutil.rmtree(folder)


def _digests(paths: list[Path]) -> list[str]:
    """SHA-256 of files, several at a time: of a sharded model they are many and large, and processes wait."""
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Ask the system to put a file, or a folder's entries, on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows does not open folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
