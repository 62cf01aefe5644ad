"""Mask laws and policies as settings: their names, as configurations and tables write them, made and checked."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lo_theory.lab.schema import closest
from lo_theory.rng import Key

if TYPE_CHECKING:
    from lo_theory.diffusion import Policy
    from lo_theory.diffusion.masks import MaskLaw
    from lo_theory.problem import Layout

__all__ = ["check_laws", "mask_law", "policy", "require_laws"]

_NAMED = re.compile(r"^([a-z_]+)(?:\(([^()]*)\))?$")


def mask_law(text: str) -> MaskLaw:
    """Make the law named by ``uniform``, ``pattern(4)``, ``two_rates(0.5,1)`` and so on, as tables print it."""
    from lo_theory.diffusion.masks import LAWS

    law: MaskLaw = _made(text, LAWS, "mask law", "laws")
    return law


def policy(text: str) -> Policy:
    """Make the decoding policy named by ``margin``, or by ``mine(0.5)`` for one in ``POLICIES`` that takes numbers."""
    from lo_theory.diffusion import POLICIES

    made: Policy = _made(text, POLICIES, "policy", "policies")
    return made


def _made(text: str, known: Mapping[str, Callable[..., Any]], kind: str, kinds: str) -> Any:
    match = _NAMED.match(text.replace(" ", ""))
    name = match.group(1) if match else text
    if match is None or name not in known:
        raise ValueError(
            f"unknown {kind} {text!r}: the closest is {closest(name, list(known))} ({kinds}: {', '.join(known)})"
        )
    try:
        return known[name](*_numbers(known[name], name, match.group(2) or ""))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind} {text!r}: {error}") from error


def _numbers(maker: Callable[..., Any], name: str, text: str) -> list[int | float]:
    """The numbers between the brackets of a name, as many as it takes; a reading order is no number."""
    takes = [
        part
        for part in inspect.signature(maker).parameters.values()
        if "tuple" not in str(part.annotation) and "ArrayLike" not in str(part.annotation)
    ]
    least = sum(part.default is part.empty for part in takes)
    parts = text.split(",") if text else []
    if not least <= len(parts) <= len(takes):
        count = str(least) if least == len(takes) else f"{least} to {len(takes)}"
        names = f" ({', '.join(part.name for part in takes)})" if takes else ""
        raise ValueError(f"{name} takes {count if takes else 'no'} numbers{names}, got {len(parts)}")
    try:
        return [int(part) if re.fullmatch("[+-]?[0-9]+", part) else float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"{name} takes numbers, got {text}") from error


def require_laws(texts: tuple[str, ...]) -> None:
    """Raise ValueError if a list of mask laws is empty or names one that is none."""
    if not texts:
        raise ValueError("at least one mask law is needed, such as uniform")
    for text in texts:
        mask_law(text)


def check_laws(
    named: Iterable[tuple[str, Iterable[str]]], layout: Layout, make: Callable[[str], MaskLaw] = mask_law
) -> None:
    """Raise ValueError, with the path in ``named``, for a mask law that sequences of ``layout`` cannot have."""
    from lo_theory.diffusion.masks import draw_masks

    for path, texts in named:
        for text in texts:
            try:
                draw_masks(make(text), Key(0), np.zeros((2, layout.length), np.int8), layout)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
