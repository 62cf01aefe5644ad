"""Files that are whole or absent: every file this package writes goes through ``write_atomically``.

May touch the file system only; imports nothing of the package, so that every room can use it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["remove_leftovers", "write_atomically"]


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` with a binary file beside ``path``, then move it into place.

    Temporary name, fsync, rename, fsync of folder.

    After a crash, a kill or a full disk ``path`` holds its old content or the new one, never a part. The folder must
    exist. Errors: OSError as the system raises it (no space, no permission), with the temporary file removed.
    """
    target = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as error:  # the user knows the file, not its temporary name
        raise type(error)(error.errno, error.strerror, str(target)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed writers left in a folder, which no other process may be writing to."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _umask() -> int:
    """Read the process's file mode mask (the system offers no call that only reads it)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
