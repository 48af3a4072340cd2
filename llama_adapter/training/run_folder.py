"""The folder of a run: whose it is, whether it can be written, and what of an earlier run is in it.

What is unusual: a run holds a lock of the operating system on its folder, so that a crash frees it, and names
itself in a file beside the lock, so that another can say who is there. Only what carries a manifest of ours
is ever deleted or replaced. What a checkpoint holds, this module does not know.
"""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from llama_adapter.errors import UserError
from llama_adapter.training.checkpoint import checkpoint_folders, read_manifest

LOCK = ".run.lock"
HOLDER = ".run.json"


@contextmanager
def claimed(folder: Path) -> Iterator[str | None]:
    """Keeps other runs out of a folder, which is made where it is missing.

    Args:
        folder: of the run.

    Yields:
        What to tell the user, if a run before this one did not end properly; else None.

    Raises:
        UserError: the folder cannot be written, or another run is in it.
    """
    _check_writable(folder)
    holder = folder / HOLDER
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"training.output_dir is {str(folder)!r}, where a run is going on ({_name(holder)}). "
            "Choose another folder, or wait for its end."
        ) from error
    try:
        left = f"The run before ({_name(holder)}) did not end properly." if holder.exists() else None
        started = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(
            json.dumps({"host": socket.gethostname(), "process": os.getpid(), "started": started}),
            encoding="utf-8",
        )
        yield left
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def check_earlier(folder: Path, result: Path, resuming: bool, overwrite: bool) -> None:
    """Keeps a new run from mixing with an old one, and from replacing what no run wrote.

    Args:
        folder: of the run.
        result: folder in it where the run will put its result.
        resuming: whether the run continues what is there.
        overwrite: whether an earlier run may be deleted.

    Raises:
        UserError: checkpoints or a result are there, and neither was asked for; or folders of their names are
            not of a run.
    """
    earlier = [*checkpoint_folders(folder), *([result] if result.exists() else [])]
    for found in earlier:
        if not _is_ours(found) and (found == result or not resuming):
            raise UserError(
                f"{str(found)!r} has no manifest.json, so no run has finished it. Move it away, or choose "
                "another training.output_dir: it would be deleted or replaced."
            )
    if earlier and not resuming and not overwrite:
        what = f"checkpoints of an earlier run, up to {earlier[0].name}"
        raise UserError(
            f"training.output_dir is {str(folder)!r}, which holds "
            f"{what if earlier[0] != result else 'the result of an earlier run'}. "
            "Use --training.resume true to continue it, choose another --training.output_dir, "
            "or delete it with --training.overwrite_output_dir true."
        )


def delete_earlier(folder: Path, result: Path) -> None:
    """Deletes checkpoints and result of an earlier run; whatever else is there stays."""
    for found in [*checkpoint_folders(folder), result]:
        if found.exists() and _is_ours(found):
            shutil.rmtree(found)


def _is_ours(folder: Path) -> bool:
    try:
        return "files" in read_manifest(folder)
    except (OSError, ValueError):
        return False


def _name(holder: Path) -> str:
    """The run that a folder belongs to, in words."""
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['host']}, started {found['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown process"


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"training.output_dir is {str(folder)!r}: {reason}. Use a folder that can be written."
        ) from error
