"""Numba kernels of belief propagation on whole units of a Sudoku: the messages of one all-different factor, and rows.

Messages to cells are float64[3, L, n]: of the row, the column and the box of every cell, one number a digit.
"""

from __future__ import annotations

import numpy as np

from lo_theory.jit import jit
from lo_theory.problem._sudoku_kernels import count_bits

FLOOR = 1e-33
"""The smallest positive number of a message: a product of nine does not underflow, so every zero is exact."""


@jit()
def unit_messages(incoming, before, after, out):
    """Messages of an all-different factor on k cells and k digits, not normalised: ``out`` [k, k]; return its weight.

    out[i, v] = sum over permutations s with s(i) = v of the product over j other than i of incoming[j, s(j)]. For a set
    S of digits, bits of an index of the scratch ``before`` and ``after`` [2**k]: before[S] is the weight of the first
    |S| cells on S, after[S] that of the other cells on the other digits. Cost: 3 k 2**(k - 1) multiply-adds.
    """
    k = len(incoming)
    every = (1 << k) - 1
    before[:every] = 0.0
    before[0] = 1.0
    for used in range(every):
        cell, weight = count_bits(used), before[used]
        if cell == k - 1 or weight == 0.0:
            continue
        for digit in range(k):
            if not (used >> digit) & 1:
                before[used | (1 << digit)] += weight * incoming[cell, digit]
    out[:] = 0.0
    after[every] = 1.0
    for used in range(every - 1, -1, -1):
        cell, weight, total = count_bits(used), before[used], 0.0
        for digit in range(k):
            if not (used >> digit) & 1:
                rest = after[used | (1 << digit)]
                out[cell, digit] += weight * rest
                total += incoming[cell, digit] * rest
        after[used] = total
    return after[0]


@jit()
def _open_units(row, members, cells, digits, sizes):
    """List the hidden ``cells`` and the free ``digits`` [3n, n] of every unit, ``sizes`` [3n] of each; False where a
    unit shows a digit twice.
    """
    n = members.shape[1]
    for unit in range(len(members)):
        shown, count = 0, 0
        for i in range(n):
            cell = members[unit, i]
            if row[cell] < 0:
                cells[unit, count] = cell
                count += 1
            elif (shown >> row[cell]) & 1:
                return False
            else:
                shown |= 1 << row[cell]
        sizes[unit], free = count, 0
        for digit in range(n):
            if not (shown >> digit) & 1:
                digits[unit, free] = digit
                free += 1
    return True


@jit()
def _normalise(message):
    """Divide a message by its sum, which is returned, and raise what is positive to ``FLOOR``."""
    total = 0.0
    for v in range(len(message)):
        total += message[v]
    for v in range(len(message)):
        if message[v] > 0.0:
            message[v] = max(message[v] / total, FLOOR)
    return total


@jit()
def _gather(messages, kind, cells, digits, incoming):
    """What the other two units of each of the ``cells`` say of the ``digits``: ``incoming`` [k, k], normalised; False
    where they exclude all.
    """
    one, two = (kind + 1) % 3, (kind + 2) % 3
    for i in range(len(cells)):
        for j in range(len(digits)):
            incoming[i, j] = messages[one, cells[i], digits[j]] * messages[two, cells[i], digits[j]]
        if _normalise(incoming[i]) == 0.0:
            return False
    return True


@jit()
def _round(messages, fresh, cells, digits, sizes, damping, incoming, before, after, out):
    """Every unit answers what its cells say: ``fresh`` from ``messages``. Return the largest change, -1 where a message
    excludes every digit.
    """
    n, change = len(incoming), 0.0
    for unit in range(len(sizes)):
        k, kind = sizes[unit], unit // n
        inside, outside = incoming[:k, :k], out[:k, :k]
        if not _gather(messages, kind, cells[unit, :k], digits[unit, :k], inside):
            return -1.0
        if unit_messages(inside, before, after, outside) == 0.0:
            return -1.0
        for i in range(k):
            _normalise(outside[i])
            for j in range(k):
                at, number = messages[kind, cells[unit, i], digits[unit, j]], outside[i, j]
                if number > 0.0:
                    number = (1.0 - damping) * number + damping * at
                change = max(change, abs(number - at))
                fresh[kind, cells[unit, i], digits[unit, j]] = number
    return change


@jit()
def _read(row, messages, cells, digits, sizes, probs, incoming, before, after, out):
    """Write the beliefs of hidden cells to ``probs`` [L, n]; return the Bethe free entropy, -inf on a contradiction.

    It is the sum of ln Z of the units and of the cells, less that of their edges.
    """
    n, entropy = len(incoming), 0.0
    for cell in range(len(row)):
        if row[cell] < 0:
            for v in range(n):
                probs[cell, v] = messages[0, cell, v] * messages[1, cell, v] * messages[2, cell, v]
            total = _normalise(probs[cell])
            if total == 0.0:
                return -np.inf
            entropy += np.log(total)
    for unit in range(len(sizes)):
        k, kind = sizes[unit], unit // n
        inside = incoming[:k, :k]
        if not _gather(messages, kind, cells[unit, :k], digits[unit, :k], inside):
            return -np.inf
        weight = unit_messages(inside, before, after, out[:k, :k])
        if weight == 0.0:
            return -np.inf
        entropy += np.log(weight)
        for i in range(k):
            edge = 0.0
            for j in range(k):
                edge += inside[i, j] * messages[kind, cells[unit, i], digits[unit, j]]
            entropy -= np.log(edge)
    return entropy


@jit()
def answer_rows(tokens, members, limits, probs, entropy, converged):
    """Answer ``tokens`` [B, L] (-1 where empty): beliefs in ``probs`` [B, L, n], and Bethe free ``entropy``.

    ``limits`` = (rounds, damping, tolerance). From messages that are uniform over the digits that a unit does not show;
    the first round is not damped. A contradiction ends a run: uniform beliefs, -inf, and converged.
    """
    rounds, damping, tolerance = limits
    n, length = members.shape[1], tokens.shape[1]
    cells, digits, sizes = np.empty((3 * n, n), np.int64), np.empty((3 * n, n), np.int64), np.empty(3 * n, np.int64)
    incoming, out, before, after = np.empty((n, n)), np.empty((n, n)), np.empty(1 << n), np.empty(1 << n)
    messages, fresh = np.empty((3, length, n)), np.empty((3, length, n))
    for b in range(len(tokens)):
        entropy[b], converged[b] = -np.inf, False
        possible = _open_units(tokens[b], members, cells, digits, sizes)
        messages[:], fresh[:] = 0.0, 0.0
        for unit in range(3 * n if possible else 0):
            for i in range(sizes[unit]):
                for j in range(sizes[unit]):
                    messages[unit // n, cells[unit, i], digits[unit, j]] = 1.0 / sizes[unit]
        done = 0
        while possible and done < rounds and not converged[b]:
            kept = damping if done > 0 else 0.0
            change = _round(messages, fresh, cells, digits, sizes, kept, incoming, before, after, out)
            messages, fresh = fresh, messages
            possible, converged[b], done = change >= 0.0, change <= tolerance, done + 1
        if possible:
            entropy[b] = _read(tokens[b], messages, cells, digits, sizes, probs[b], incoming, before, after, out)
        if entropy[b] == -np.inf:
            converged[b] = True
            probs[b] = 1.0 / n
