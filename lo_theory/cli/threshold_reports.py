"""Thresholds as tables, in words and as records: what ``lo-theory thresholds`` prints. Computes nothing."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lo_theory.cli.shared import show_tables
from lo_theory.cli.threshold_requests import Request
from lo_theory.thresholds import Fold, MaskWindow, Threshold, Transition, threshold_columns, transition_columns

if TYPE_CHECKING:
    from lo_theory.lab.rows import Row
    from lo_theory.lab.table import Table

__all__ = ["show_kesten_stigum", "show_results", "show_words", "transition_record", "window_record"]

_WIDTH = 100  # of words
_FAMILIES = ("nae", "xor", "colouring")  # whose thresholds are published, where they are


def show_words(words: str) -> None:
    """Print a paragraph; a number stays on the line of its per cent."""
    kept = words.replace(" %", "\0%")
    print(textwrap.fill(kept, _WIDTH, break_long_words=False, break_on_hyphens=False).replace("\0", " "))


def _observed(request: Request) -> str:
    observed = request.settings["observed"]
    return observed if isinstance(observed, str) else "values " + ", ".join(map(str, observed))


def show_kesten_stigum(request: Request) -> None:
    """Print what was asked, and the threshold that is known at once."""
    share, critical = request.ensemble.revealed, request.kesten_stigum
    print(f"{request.ensemble.name}, revealed: {_observed(request)} ({share:.4g} of all observations)")
    infinite = "infinite: from a weak start belief propagation learns nothing at any finite degree"
    show_words(f"Kesten-Stigum: {infinite if math.isinf(critical.value) else critical}")
    print()


def show_results(request: Request, found: Transition | None, window: MaskWindow | None, fold: Fold | None) -> None:
    """Print the tables of the thresholds found and what follows from them."""
    from lo_theory.lab import measures
    from lo_theory.lab.experiments.thresholds import fold_units
    from lo_theory.lab.frame import from_rows
    from lo_theory.lab.subject import as_rows

    if found is None:
        return
    keys = _keys(request)
    _show(as_rows("thresholds", keys, [*measures.transition(found, {}), *measures.curve(found.curve, {})]))
    show_words(_transition_words(found))
    if window is not None and found.decided:
        print()
        show_words(f"{_window_title(request)}: {window.statement}")
    if fold is not None:
        findings = [*measures.fold(fold, {}), *measures.curve(fold.curve, {})]
        rows = as_rows("thresholds", {**keys, "revealed": fold.rate}, findings)
        print()
        _show(rows, [fold_units(from_rows(rows))] if fold.survives else ())
        show_words(f"with a share {fold.rate:g} of the latents revealed: {_fold_words(fold)}")


def _keys(request: Request) -> dict[str, Any]:
    """What identifies the ensemble in rows; a family only where no noise or table makes it another one."""
    settings = request.settings
    keys = {"row": 0, "label": request.ensemble.name, "q": settings["q"], "k": settings["k"]}
    keys |= {"observed": _observed(request), "revealed": 0.0, "seed": settings["seed"]}
    plain = settings["law"] in _FAMILIES and settings["noise"] == 0 and isinstance(settings["observed"], str)
    return keys | ({"family": settings["law"]} if plain else {})


def _show(rows: Sequence[Row], more: Sequence[Table] = ()) -> None:
    """Print the tables of the experiment on thresholds that these rows fill."""
    from lo_theory.lab.experiments.thresholds import titled
    from lo_theory.lab.frame import from_rows

    sys.stdout.flush()
    show_tables([*(table for table in titled(from_rows(rows), "Thresholds") if any(table.sections)), *more])


def _transition_words(found: Transition) -> str:
    if not found.decided:
        return (
            "not decided: no planted state below Kesten-Stigum is resolved, and one up to "
            f"{100 * found.resolution:.1f} % below is not excluded; take more --messages"
        )
    if found.continuous:
        # Rounded up, so that what is said to be excluded is.
        resolution = max(0.01, math.ceil(1e4 * found.resolution) / 100)
        return (
            "continuous transition: dynamic = condensation = Kesten-Stigum, no hard phase; a planted state more than "
            f"{resolution:.2f} % below Kesten-Stigum is excluded"
        )
    words = f"discontinuous transition: the planted state appears at overlap {found.overlap:.3f}; "
    condensation, critical = found.condensation.value, found.kesten_stigum.value
    if math.isinf(critical):
        hard = f"recovery is possible but believed to be hard at every c above {condensation:.5g}"
        return words + hard + "; for parities without noise that is belief only: linear algebra solves them"
    if condensation < critical:
        hard = f"recovery is possible but believed to be hard for c from {condensation:.5g} to {critical:.6g}"
        resolved = condensation + found.condensation.error < critical
        return words + hard + ("" if resolved else ", which the error of condensation does not tell from nothing")
    return words + "it dominates only above Kesten-Stigum, so no recovery that is possible is believed to be hard"


def _window_title(request: Request) -> str:
    if request.n_observations is None:
        count = math.perm(request.n_latents or 0, request.ensemble.k)
        return f"all ordered {request.ensemble.k}-subsets of N = {request.n_latents} latents (P = {count})"
    return f"N = {request.n_latents} latents and P = {request.n_observations} observations"


def _fold_words(fold: Fold) -> str:
    if not fold.survives:
        return f"no fold is resolved, so no hard phase; one wider than {100 * fold.resolution:.2f} % of c is excluded"
    words = "the hard phase survives, as a fold of c(overlap)"
    return words if fold.spinodal is not None else f"{words} whose end lies beyond the weakest overlap followed"


def _fold_thresholds(fold: Fold) -> dict[str, Threshold | None]:
    return {"dynamic": fold.dynamic, "equal_free_entropy": fold.crossing, "end_of_uninformed": fold.spinodal}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def window_record(window: MaskWindow) -> dict[str, Any]:
    """A window as plain values; an empty one has no rates but a reason."""
    rates = (None, None) if window.empty else (window.lowest, window.highest)
    masked = [_finite(probability) for probability in window.all_latents_masked]
    return {
        "empty": window.empty,
        "lowest": rates[0],
        "highest": rates[1],
        "all_latents_masked": masked,
        "ground": window.ground,
        "reason": window.reason or None,
        "statement": window.statement,
    }


def transition_record(
    request: Request, found: Transition | None, window: MaskWindow | None, fold: Fold | None
) -> dict[str, Any]:
    """Everything that was found as plain values; what was not asked for is None, and so is an infinite number."""
    record = dict(request.settings) | {"N": request.n_latents, "P": request.n_observations}
    record |= {"kesten_stigum_infinite": math.isinf(request.kesten_stigum.value)}
    if found is None:
        unknown = threshold_columns("dynamic", None) | threshold_columns("condensation", None)
        record |= {"continuous": None} | threshold_columns("kesten_stigum", request.kesten_stigum) | unknown
        record |= {"overlap_at_dynamic": None, "resolution": None, "statement": None}
    else:
        record |= transition_columns(found) | {"statement": _transition_words(found)}
    record["window"] = window_record(window) if window else None
    record["fold"] = None if fold is None else _fold_record(fold)
    return record


def _fold_record(fold: Fold) -> dict[str, Any]:
    record: dict[str, Any] = {"rate": fold.rate, "survives": fold.survives, "resolution": fold.resolution}
    for name, threshold in _fold_thresholds(fold).items():
        record |= threshold_columns(name, threshold)
    return record | {"statement": _fold_words(fold)}
