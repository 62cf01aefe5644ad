"""Numba kernel of the posterior of a list of sequences: the share of every value among the entries that match."""

from __future__ import annotations

import numpy as np

from lo_theory.jit import jit
from lo_theory.problem.layout import MASK


@jit()
def match_rows(tokens, sequences, weights, values, probs, log_evidence):
    """Answer ``tokens`` [B, L] into ``probs`` [B, L, V] and ``log_evidence`` [B], as ``Marginals`` has them.

    ``sequences`` int8[S, L] with positive ``weights`` [S]; ``values`` [L]: how many values a position takes. A value
    that all matching entries share gets probability 1 exactly. Cost: B S comparisons, up to the first that fails.
    """
    length = tokens.shape[1]
    known, hidden = np.empty(length, np.int64), np.empty(length, np.int64)
    for b in range(len(tokens)):
        n_known, n_hidden = 0, 0
        for position in range(length):
            for value in range(probs.shape[2]):
                probs[b, position, value] = 0.0
            if tokens[b, position] == MASK:
                hidden[n_hidden] = position
                n_hidden += 1
            else:
                known[n_known] = position
                n_known += 1
                probs[b, position, tokens[b, position]] = 1.0
        total = 0.0
        for s in range(len(sequences)):
            matches = True
            for i in range(n_known):
                if sequences[s, known[i]] != tokens[b, known[i]]:
                    matches = False
                    break
            if matches:
                total += weights[s]
                for i in range(n_hidden):
                    probs[b, hidden[i], sequences[s, hidden[i]]] += weights[s]
        log_evidence[b] = np.log(total) if total > 0.0 else -np.inf
        for i in range(n_hidden):
            position = hidden[i]
            for value in range(values[position]):
                if total > 0.0:
                    probs[b, position, value] /= total
                else:
                    probs[b, position, value] = 1.0 / values[position]
