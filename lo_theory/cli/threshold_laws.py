"""Observation laws as ``lo-theory thresholds`` names them: the paper's predicates, and any table in a file.

Reads the file named, never executes what is in it, and looks at its header before taking memory for it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import Predicate, TableObservations, colouring, flip, from_array, nae, sat, xor
from lo_theory.thresholds import PlantedEnsemble, planted_ensemble

__all__ = ["make_ensemble", "read_table"]

_LARGEST_TABLE = 2**20  # numbers in a table; what population dynamics takes
_LARGEST_Q = 40  # Kesten-Stigum needs the eigenvalues of a (q-1)**2 square matrix


def _laws() -> dict[str, Callable[[argparse.Namespace], Predicate | TableObservations]]:
    return {
        "nae": lambda options: nae(options.q, options.k),
        "xor": lambda options: xor(options.k),
        "colouring": lambda options: colouring(options.q),
        "sat": lambda options: sat(options.k),
        "table": lambda options: read_table(options.file, options.k),
    }


def make_ensemble(options: argparse.Namespace) -> tuple[PlantedEnsemble, dict[str, Any]]:
    """Make the planted ensemble of a law, and what identifies it in a record.

    ValueError for sizes below 2 or too large, a noise that is no rate, a noise on a table that has its own, values that
    the law does not have, and a law that breaks Assumption B.11, which it names.
    """
    if not 0 <= options.noise <= 1:
        raise ValueError(f"--noise is a flip rate between 0 and 1, got {options.noise}")
    if options.law != "table":
        _check_size(getattr(options, "q", 2), getattr(options, "k", 2))
    law, observed = _laws()[options.law](options), _observed(options.observed)
    name = law.name if isinstance(law, Predicate) else options.file.name
    if options.noise > 0 and not isinstance(law, Predicate):
        raise ValueError(f"--noise is for truth tables, {name} holds probabilities: put the noise into them")
    channel = flip(options.noise) if options.noise > 0 else None
    name += f", noise {options.noise:g}" if options.noise > 0 else ""
    ensemble = planted_ensemble(law, observed=observed, channel=channel, name=name)
    record = {"law": options.law, "name": name, "q": ensemble.q, "k": ensemble.k, "noise": options.noise}
    observed_record = observed if isinstance(observed, str) else list(observed)
    return ensemble, record | {"observed": observed_record, "revealed_observations": ensemble.revealed}


def _observed(text: str) -> str | Sequence[int]:
    if text in ("satisfied", "all"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--observed is satisfied, all, or values such as 0,2; got {text!r}") from None


def _check_size(q: int, k: int) -> None:
    if q < 2:
        raise ValueError(f"a latent has at least 2 values, got q = {q}: take q of 2 or more")
    if k < 2:
        raise ValueError(f"thresholds are for observations of at least 2 latents, got k = {k}: take k of 2 or more")
    if q > _LARGEST_Q:
        raise ValueError(f"q = {q} is over the limit of {_LARGEST_Q}: Kesten-Stigum takes (q-1)**4 numbers of memory")
    if k * math.log(q) > math.log(_LARGEST_TABLE) + 1e-9:
        raise ValueError(
            f"a table of q**k = {q}**{k} states is over the limit of {_LARGEST_TABLE}: take a smaller q or k"
        )


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a .npy file announces, without reading on."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the format holds no plain numbers")
        shape, _, dtype = readers[version](file)
    return shape, dtype


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is no whole .npy file of numbers ({error}): write it with numpy.save(file, table)")


def _read_numbers(path: Path) -> NDArray[Any]:
    """The array of a .npy file, of which nothing is read before its announced size and type are known to be fit."""
    try:
        shape, dtype = _header(path)
    except OSError:
        raise
    except Exception as error:  # a damaged header makes the reader fail in a dozen ways
        raise _damaged(path, error) from error
    if dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {dtype}, not numbers: save a table of bool, integers or floats")
    if not all(0 < length <= _LARGEST_TABLE for length in shape) or math.prod(shape) > _LARGEST_TABLE:
        raise ValueError(f"{path} has shape {shape}: a table has 1 to {_LARGEST_TABLE} entries, take a smaller q or k")
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise _damaged(path, error) from error


def read_table(path: Path, k: int | None = None) -> Predicate | TableObservations:
    """Read a truth table or likelihood [q, ..., q] or, for a given k, emission tables [q**k, r] or [E, q**k, r].

    Zeros and ones only are a predicate, other numbers [q, ..., q] the probability of the value 1. Each emission table
    counts for an equal share of the observations. Errors: OSError for a file that cannot be opened, ValueError for one
    that is damaged, holds something else or is over 2**20 numbers, before its content is read.
    """
    table = _read_numbers(path)
    if k is not None:
        return _read_emission(path, table, k)
    if table.ndim < 2 or len(set(table.shape)) != 1:
        raise ValueError(
            f"{path} has shape {table.shape}: a truth table or likelihood has one axis of length q for each of k >= 2 "
            "arguments; for emission tables [q**k, r] give --k"
        )
    _check_size(table.shape[0], table.ndim)
    if np.isin(table, (0, 1)).all():
        return from_array(table, name=path.name)
    likelihood = table.astype(np.float64)
    if not (np.isfinite(likelihood).all() and (likelihood >= 0).all() and (likelihood <= 1).all()):
        bad = likelihood[~((likelihood >= 0) & (likelihood <= 1))].flat[0]
        raise ValueError(f"{path} holds {bad:g}: a likelihood holds probabilities of the value 1, between 0 and 1")
    emission = np.stack([1 - likelihood.ravel(), likelihood.ravel()], axis=1)
    return TableObservations(np.arange(likelihood.ndim, dtype=np.int32)[None], emission[None])


def _read_emission(path: Path, tables: NDArray[Any], k: int) -> TableObservations:
    if tables.ndim not in (2, 3) or tables.shape[-1] < 2:
        raise ValueError(f"{path} has shape {tables.shape}: emission tables are [q**k, r] or [E, q**k, r] with r >= 2")
    states = tables.shape[-2]
    q = round(states ** (1 / k)) if k > 0 else 0
    _check_size(max(q, 2), k)
    if q < 2 or q**k != states:
        raise ValueError(f"{path} has {states} states in a table, which is no q**k for k = {k} and q >= 2: correct --k")
    each = np.asarray(tables, np.float64).reshape(-1, states, tables.shape[-1])
    scopes = np.arange(len(each) * k, dtype=np.int32).reshape(-1, k)
    try:
        return TableObservations(scopes, each, np.arange(len(each), dtype=np.int32))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
