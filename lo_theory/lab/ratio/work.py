"""What one cell of the ratio sweep computes: the units of Table 1, and what uniform masks leave open."""

from __future__ import annotations

from collections.abc import Iterator

from lo_theory.diffusion import Uniform
from lo_theory.diffusion.uncertainty import uncertainty
from lo_theory.lab import measures
from lo_theory.lab.subject import Finding, Subject
from lo_theory.lab.table1 import work
from lo_theory.lab.units import Unit

__all__ = ["units"]


def units(s: Subject) -> Iterator[Unit]:
    """The units of a row of Table 1; where the exact posterior is asked for, also the uncertainty of its contexts, and
    the dead ends of the model's decodes. At the small sizes of a sweep that costs seconds; at the paper's, with all
    observations written and no latent, it could cost hours.
    """
    setting, law, s = s.row.evaluation, Uniform(), work.named(s)
    yield from work.units(s, find_all_dead_ends=setting.exact)

    def left_open() -> list[Finding]:
        exact, key = s.exact(setting.limit_states), s.key.fold("uncertainty")
        found = uncertainty({}, exact, s.distribution, law, key=key, n=setting.sequences)
        return measures.left_open(found, "uncertainty", {"law": law.name})

    if setting.exact:
        yield s.unit("uncertainty", "what uniform masks leave open", left_open)
