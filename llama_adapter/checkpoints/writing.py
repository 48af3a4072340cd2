"""Output that is there whole or not at all: written beside its place, renamed at the end."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_adapter.errors import UserError


@contextmanager
def new_folder(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` if nothing goes wrong.

    Args:
        target: The folder; must be new or empty.
        overwrite: Replace a folder that is not.

    Raises:
        UserError: ``target`` is a file, or a folder with content and ``overwrite`` is off.
    """
    target = Path(target)
    if target.is_file():
        raise UserError(f"The output {str(target)!r} is a file. Use a folder that does not exist yet.")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise UserError(
            f"The output folder {str(target)!r} is not empty. Use another one, or `--overwrite true`."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o777 & ~_umask())
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def new_file(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes ``target`` if nothing goes wrong.

    Raises:
        UserError: ``target`` exists and ``overwrite`` is off, or it is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise UserError(f"The output {str(target)!r} is a folder. Use the path of a file in it.")
    if target.exists() and not overwrite:
        raise UserError(f"The output {str(target)!r} exists. Use another path, or `--overwrite true`.")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield work
        work.replace(target)
    finally:
        work.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
