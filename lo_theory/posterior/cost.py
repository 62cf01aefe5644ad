"""What an exact answer would take, known before it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cost"]


@dataclass(frozen=True, eq=False)
class Cost:
    """Cost of the exact posterior of a batch of B partly masked sequences, each array [B].

    ``undetermined``: latents that the revealed tokens leave open. ``states``: states of the largest dense table, or of
    the largest enumeration where that is cheaper. ``width``: classes of latents in it (treewidth of the order found,
    plus one). ``operations``: multiplications and additions, an upper bound where zeros prune an enumeration.
    ``numbers``: float64 numbers held at once; ``bytes`` is eight times that. ``fits``: states of enumerations and
    numbers of tables are within the limit. Counts are floats: they may be astronomic, and of a row that does not fit
    they are lower bounds.
    """

    undetermined: NDArray[np.int64]
    states: NDArray[np.float64]
    width: NDArray[np.int64]
    operations: NDArray[np.float64]
    numbers: NDArray[np.float64]
    fits: NDArray[np.bool_]

    @property
    def bytes(self) -> NDArray[np.float64]:
        """Bytes held at once, float64[B]."""
        return 8 * self.numbers
