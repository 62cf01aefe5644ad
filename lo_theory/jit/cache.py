"""Compiled kernels on disk, kept by what they were made of and never by the time of a file.

A kernel depends on its own source, on the kernels it calls, and on the fields of the named tuples that it is
given. So one digest of all sources of the rooms with kernels and of the rooms below them names the folder they are
kept in; an update gives another folder, wherever it is and whatever times its files have. Within it a file's name is a
digest of the kernel, its argument types, the processor, the versions and numba's settings OPT, BOUNDSCHECK and
DEBUGINFO, and the file begins with a digest of its content: a damaged one is removed and made again. Files are replaced
whole, and no file lists others, so processes that start at the same time do not meet. What others can write to is not
loaded, and kernels of other modules are not kept.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import shutil
import stat
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config as numba_config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps, loads
from numba.misc.appdirs import AppDirs

config: Any = numba_config  # made at run time, so a type checker knows none of it

__all__ = ["KernelCache", "digest_of_sources", "kernel_folders"]

_PACKAGE = Path(__file__).parent.parent
_MADE_OF = ("jit", "rng.py", "problem", "posterior", "thresholds", "diffusion", "neural/_kernels.py")
_PREFIX = "lo_theory-kernels-"
_DIGEST = hashlib.sha256().digest_size
_VERSIONS = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)

_OTHERS = 7  # folders of other versions that stay, those last used
_IN_USE = 3600.0  # seconds since its last use after which one may go


def digest_of_sources() -> str:
    """Return the digest of all sources that kernels are made of, as they are now; "" where they are no files (a zip).

    Costs some 0.3 ms; a file is read again when its time or size has changed since the last call in this process.
    """
    with contextlib.suppress(OSError):
        found = [path for name in _MADE_OF for path in (*_PACKAGE.glob(name), *(_PACKAGE / name).rglob("*.py"))]
        # Editors keep locks and copies beside a file, named as no module can be: ".#rng.py", a link to nowhere.
        sources = sorted(path for path in found if path.suffix == ".py" and path.stem.isidentifier())
        return _digest(tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in sources))
    return ""


@functools.lru_cache(maxsize=1)
def _digest(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in stamps:
        text = path.read_bytes()
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest() if stamps else ""


@functools.cache
def _digest_at_start() -> str:
    """Return the digest at the first kernel of this process: what its modules were made of."""
    return digest_of_sources()


def kernel_folders() -> list[Path]:
    """Return where kernels are looked for: NUMBA_CACHE_DIR if set, else the package and the user's own cache.

    They are kept in the first that can be written. The list is empty where the sources are no files.
    """
    roots = [_PACKAGE / "__pycache__", Path(AppDirs("lo_theory", appauthor=False).user_cache_dir)]
    roots = [Path(config.CACHE_DIR)] if config.CACHE_DIR else roots
    digest = _digest_at_start()
    return [root / f"{_PREFIX}{digest[:24]}" for root in roots] if digest else []


def _is_digested(module: str) -> bool:
    """Say whether the source of a module is in the digest: only its kernels can be kept."""
    made_of = {f"{_PACKAGE.name}.{name.removesuffix('.py').replace('/', '.')}" for name in _MADE_OF}
    return any(module == name or module.startswith(f"{name}.") for name in made_of)


def _require_own(path: Path) -> None:
    """Raise OSError for what others may have written, since what is loaded is run.

    A folder or file must belong to this user or to root, and not everybody may write to it.
    """
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EACCES, "others can write to it", str(path))


def _forget_others(folder: Path) -> None:
    """Remove the folders of versions that were not used for an hour, but for the seven used last.

    So too the parts of files that killed processes left an hour ago.
    """
    used = []
    for other in folder.parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process may have been faster
            used.append((other.stat().st_mtime, other))
    others = sorted((when, other) for when, other in used if other != folder)
    for when, other in others[:-_OTHERS]:
        if time.time() - when > _IN_USE:
            shutil.rmtree(other, ignore_errors=True)
    for part in folder.parent.glob(f"{_PREFIX}*/*.kernel.*"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _IN_USE:
                part.unlink()


@functools.cache
def _mark_used(folder: Path) -> None:
    """Set the time of a folder to now, once a process."""
    with contextlib.suppress(OSError):
        os.utime(folder)


@functools.cache
def _say_unkept(reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept: {reason}. Every process will compile its own, for up to a minute; set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )


class KernelCache(_Cache):
    """What is kept of one kernel; numba asks it before it compiles and gives it what it has compiled."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._enabled = function, True
        self._folders = kernel_folders() if _is_digested(function.__module__) else []

    @property
    def cache_path(self) -> str | None:
        """The folder in which kernels are kept, as numba's statistics show it."""
        return str(self._folders[0]) if self._folders else None

    def enable(self) -> None:
        """Look for kept kernels and keep new ones."""
        self._enabled = True

    def disable(self) -> None:
        """Neither look for kernels nor keep any."""
        self._enabled = False

    def flush(self) -> None:
        """Forget what is kept of this kernel, for all types of arguments."""
        for folder in self._folders:
            for path in folder.glob(f"{self._stem()}-*"):
                path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel for arguments of types ``sig``, or None."""
        target_context.refresh()
        for folder in self._folders if self._is_current() else []:
            path = folder / self._name(sig, target_context.codegen())
            try:
                _require_own(folder)
                _require_own(path)
                content = path.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            _mark_used(folder)
            return CompileResult._rebuild(target_context, *loads(content[_DIGEST:]))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled kernel ``data``; where that is impossible, warn once and go without."""
        if not self._is_current() or data.lifted or data.library.has_dynamic_globals:
            return
        if not self._folders and _digest_at_start():
            return  # a kernel of another module, whose source is in no digest
        body, failures = dumps(data._reduce()), []
        for folder in self._folders:
            try:
                self._write(folder, self._name(sig, data.codegen), hashlib.sha256(body).digest() + body)
                return
            except OSError as error:
                failures.append(f"{folder.parent} ({error.strerror})")
        _say_unkept(", ".join(failures) or "the sources of lo_theory are no files")

    def _is_current(self) -> bool:
        """Say whether the sources are those this process began with; else modules of two versions may be mixed."""
        return self._enabled and digest_of_sources() == _digest_at_start()

    def _stem(self) -> str:
        return f"{self._function.__module__.split('.', 1)[-1]}.{self._function.__name__}"

    def _name(self, sig: Any, codegen: Any) -> str:
        function, settings = self._function, (config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)
        enclosed = dumps(tuple(cell.cell_contents for cell in function.__closure__ or ()))
        place = (function.__module__, function.__qualname__, function.__code__.co_firstlineno)
        key = repr((place, enclosed, sig, codegen.magic_tuple(), settings, _VERSIONS))
        return f"{self._stem()}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.kernel"

    @staticmethod
    def _write(folder: Path, name: str, content: bytes) -> None:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _forget_others(folder)
        _require_own(folder)
        part = folder / f"{name}.{uuid.uuid4().hex[:16]}"
        try:
            part.write_bytes(content)
            part.replace(folder / name)
        finally:
            part.unlink(missing_ok=True)
