"""Files that are whole or absent, and arrays in them: every file this package writes goes through ``write_atomically``.

May touch the file system only; imports nothing of the package, so that every room can use it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import math
import os
import secrets
import stat
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["digest_arrays", "read_arrays", "remove_leftovers", "write_arrays", "write_atomically"]

_ABANDONED = 60.0  # seconds after which an unlocked temporary file belongs to nobody
_IGNORED = "allow_pickle"  # numpy 2.0 and 2.1 write this argument of savez as an array


def digest_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits of the names, kinds, shapes and bytes of ``arrays``, the same on every machine."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` with a binary file beside ``path``, then move it into place.

    Temporary name, fsync, rename, fsync of folder. After a crash, a kill or a full disk ``path`` holds its old content
    or the new one, never a part. A file that is replaced keeps its permissions; of a symbolic link the file it leads to
    is replaced. What is no regular file (a device, a FIFO) is written to and not replaced. Temporary files of ``path``
    that a killed process left over a minute ago are removed. The folder must exist. Errors: OSError as the system
    raises it (no space, no permission), with the temporary file removed.
    """
    target = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        content = io.BytesIO()  # what writes archives goes back and forth, which a device cannot
        write(content)
        with open(target, "wb") as file:
            file.write(content.getbuffer())
        return Path(path)
    prefix = f".{target.name[:200]}."
    remove_leftovers(target.parent, prefix, age=_ABANDONED)
    temporary = target.parent / f"{prefix}{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:  # the user knows the file, not its temporary name
        raise type(error)(error.errno, error.strerror, str(target)) from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _lock(file)
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Path(path)


def _lock(file: BinaryIO) -> bool:
    """Mark an open file as in use until it is closed; False if it is in use already. Not every file system can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file; OSError for a link, and at once for a FIFO, which nobody may ever write to."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


def remove_leftovers(folder: Path, prefix: str = ".", *, age: float = 0.0) -> None:
    """Remove the temporary files that killed writers left in a folder: those that no process holds.

    A killed process lets go of its lock. Where a file system has no locks, ``age`` (seconds since the last write) keeps
    the files of others; with 0 the caller knows that nobody else writes to the folder.
    """
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if name.startswith(prefix) and name.endswith(".tmp")]
    for name in names:
        with contextlib.suppress(OSError), open(folder / name, "rb", opener=_open_regular) as file:
            if time.time() - os.fstat(file.fileno()).st_mtime >= age and _lock(file):
                os.unlink(folder / name)


def write_arrays(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Write arrays as an uncompressed .npz: the same bytes for the same arrays, under every version of numpy.

    Errors: ValueError for an array of Python objects.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_arrays(path: str | Path, axes: Mapping[str, tuple[str, int]]) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz that ``write_arrays`` wrote; ``axes`` gives the kinds and number of axes by name.

    Nothing is read before names, kinds, axes and sizes have been compared, and nothing is decompressed, so the memory
    taken is at most the size of the file. Errors: ValueError for another content, OSError as the system raises it.
    """
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        members.pop(_IGNORED, None)
        if len(members) > len(axes):
            raise ValueError(f"it holds {len(members)} arrays, at most {len(axes)} belong there")
        total = sum(member.file_size for member in members.values())
        compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members.values())
        if compressed or total > os.path.getsize(path):
            raise ValueError("its arrays are compressed, and could be of any size: save writes them as they are")
        return {name: _read(archive, member, name, axes) for name, member in members.items()}


def _read(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, axes: Mapping[str, tuple[str, int]]
) -> NDArray[Any]:
    if name not in axes:
        raise ValueError(f"no array {name!r} belongs there: it takes {', '.join(axes)}")
    kinds, count = axes[name]
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.kind not in kinds or len(shape) != count:
            raise ValueError(f"the array {name!r} has {len(shape)} axes of {dtype}, and must have {count} of {kinds!r}")
        if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"the array {name!r} of shape {shape} is not as large as its {member.file_size} bytes")
    with archive.open(member) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array
