"""Belief propagation with an exponent of its own for every number: slow, general, and without underflow.

A number is m 2**(256 e): a mantissa, zero or between 2**-256 and about 1, and an integer e <= 0. Products of exact
zeros are zero and nothing else is; exponents end at ``LOWEST``, a number that is still positive. Messages of edge e
are at ``[e q:]``, edges by variable (``SweepPlan``), for both schedules.
"""

from __future__ import annotations

import math

import numpy as np

from lo_theory.posterior._bp_compile import allocating_kernel, kernel
from lo_theory.posterior._bp_kernels import compare, copy
from lo_theory.rng import fill_words, shuffle

_UP, _DOWN = 2.0**256, 2.0**-256
_LOG_UP = 256.0 * math.log(2.0)
_TOP = 4.0
LOWEST = -(2**40)

TABLE, ALL_EQUAL, PARITY = 0, 1, 2


@kernel
def _number(m, e):
    """Bring a positive mantissa back between 2**-256 and about 1."""
    if m == 0.0:
        return 0.0, 0
    if m < _DOWN:
        while m < _DOWN:
            m *= _UP
            e -= 1
    elif m > _TOP and e < 0:
        m *= _DOWN
        e += 1
    return m, max(e, LOWEST)


@kernel
def _sum(m, e, n, f):
    """Number (m, e) plus number (n, f)."""
    if n == 0.0 or (m > 0.0 and f < e - 1):
        return m, e
    if m == 0.0 or e < f - 1:
        return n, f
    if e == f:
        return m + n, e
    return (m + n * _DOWN, e) if e > f else (n + m * _DOWN, f)


@kernel
def _value(m, e):
    """As a float, small numbers as zero."""
    if e == 0:
        return m
    return m * _DOWN if e == -1 else 0.0


@kernel
def _total(m, e, at, q):
    """Sum of the q numbers from ``at`` on."""
    total, power = 0.0, 0
    for v in range(at, at + q):
        total, power = _sum(total, power, m[v], e[v])
    return total, power


@kernel
def _divide(m, e, at, q):
    """Divide q numbers by their sum; uniform if that is zero. Return whether it was."""
    total, power = _total(m, e, at, q)
    for v in range(at, at + q):
        if total > 0.0:
            m[v], e[v] = _number(m[v] / total, e[v] - power)
        else:
            m[v], e[v] = 1.0 / q, 0
    return total == 0.0


@kernel
def _table_message(edge, weights, plan, messages, received, digits):
    """Any table: a walk over its states."""
    (m, e), (out, power) = messages, received
    k, own, q = digits.shape[0], plan.argument[edge], messages[0].shape[0] // plan.table.shape[0]
    first = edge * q
    digits[:] = 0
    for v in range(first, first + q):
        out[v], power[v] = 0.0, 0
    for state in range(weights.shape[0]):
        weight, height = _number(weights[state], 0)
        b = 0
        for a in range(k):
            if a != own and weight > 0.0:
                p = plan.partners[edge, b] + digits[a]
                weight, height = _number(weight * m[p], height + e[p])
            b += a != own
        v = first + digits[own]
        out[v], power[v] = _sum(out[v], power[v], weight, height)
        a = k - 1
        while a >= 0:
            digits[a] += 1
            if digits[a] < q:
                break
            digits[a] = 0
            a -= 1


@kernel
def _all_equal_message(edge, weights, plan, messages, received):
    """``weights`` [1 + q]: where not all arguments are equal, and where all are v; see ``all_equal_pass``."""
    (m, e), (out, power), q = messages, received, weights.shape[0] - 1
    for v in range(q):
        same, level, differ, height = 1.0, 0, 0.0, 0
        for b in range(plan.partners.shape[1]):
            p = plan.partners[edge, b]
            others, depth = 0.0, 0
            for w in range(q):
                if w != v:
                    others, depth = _sum(others, depth, m[p + w], e[p + w])
            others, depth = _number(same * others, level + depth)
            differ, height = _sum(differ, height, others, depth)
            same, level = _number(same * m[p + v], level + e[p + v])
        same, level = _number(same * weights[1 + v], level)
        differ, height = _number(differ * weights[0], height)
        out[edge * q + v], power[edge * q + v] = _sum(differ, height, same, level)


@kernel
def _parity_message(edge, weights, plan, messages, received):
    """``weights`` (even, odd); see ``parity_pass``."""
    (m, e), (out, power) = messages, received
    same, level, differ, height = 1.0, 0, 0.0, 0
    for b in range(plan.partners.shape[1]):
        p = plan.partners[edge, b]
        s0, l0 = _number(same * m[p], level + e[p])
        s1, l1 = _number(same * m[p + 1], level + e[p + 1])
        d0, h0 = _number(differ * m[p], height + e[p])
        d1, h1 = _number(differ * m[p + 1], height + e[p + 1])
        same, level = _sum(s0, l0, d1, h1)
        differ, height = _sum(d0, h0, s1, l1)
    for v in range(2):
        s0, l0 = _number(same * weights[v], level)
        d0, h0 = _number(differ * weights[1 - v], height)
        out[2 * edge + v], power[2 * edge + v] = _sum(s0, l0, d0, h0)


@kernel
def _message(edge, tables, kind, scaled, plan, messages, received, digits):
    """Write the message to a variable along an edge to ``received``, from normalised messages to factors.

    ``tables`` [T, ...] are numbers of the closed form ``kind``, or all weights.
    """
    out, power = received
    t, q = plan.table[edge], messages[0].shape[0] // plan.table.shape[0]
    if kind == ALL_EQUAL:
        _all_equal_message(edge, tables[t], plan, messages, received)
    elif kind == PARITY:
        _parity_message(edge, tables[t], plan, messages, received)
    else:
        _table_message(edge, tables[t], plan, messages, received, digits)
    first = edge * q
    for v in range(first, first + q):
        out[v], power[v] = _number(out[v], power[v])
    if scaled[t]:
        total = _total(out, power, first, q)[0]
        if total > 0.0:
            _divide(out, power, first, q)


@kernel
def _damp(messages, kept, at, q, damping):
    """Mix q messages with those of before; exact zeros stay."""
    (m, e), (old, power) = messages, kept
    for v in range(at, at + q):
        if m[v] > 0.0:
            n, f = _number(damping * old[v], power[v])
            x, y = _number((1.0 - damping) * m[v], e[v])
            m[v], e[v] = _sum(x, y, n, f)
            m[v], e[v] = _number(m[v], e[v])


@kernel
def _products(i, field, plan, received, messages, scratch):
    """Renew the messages of variable i to its factors: field times the messages received from the others."""
    (m, e), (got, height), (prefix, power) = messages, received, scratch
    q, begin, end = field.shape[1], plan.first[i], plan.first[i + 1]
    for v in range(q):
        run, level = _number(field[i, v], 0)
        for edge in range(begin, end):
            p = edge * q + v
            prefix[p], power[p] = run, level
            run, level = _number(run * got[p], level + height[p])
        run, level = 1.0, 0
        for edge in range(end - 1, begin - 1, -1):
            p = edge * q + v
            m[p], e[p] = _number(prefix[p] * run, power[p] + level)
            run, level = _number(run * got[p], level + height[p])


@allocating_kernel
def deep_run(tables, kind, scaled, plan, field, key, limits, start, flooding):
    """Run belief propagation from the normalised messages ``start`` [E q] to factors.

    ``tables``, ``kind`` as in ``_message``; ``limits`` and the value returned are those of ``flood`` and ``sweep``,
    followed by mantissas and exponents of the messages to factors, normalised.
    """
    damping, iterations, tolerance = limits
    n, q = field.shape
    size = start.shape[0]
    order, words, digits = plan.variables, plan.words, np.zeros(plan.partners.shape[1] + 1, np.int64)
    for i in range(n):
        order[i] = i
    messages = (start.copy(), np.zeros(size, np.int64))
    received, scratch = (np.ones(size), np.zeros(size, np.int64)), (np.empty(size), np.zeros(size, np.int64))
    kept = (np.empty(size), np.zeros(size, np.int64))
    values = np.empty(size)
    for x in range(size):
        messages[0][x], messages[1][x] = _number(start[x], 0)
    n_edges, changes, vanished, t, done = size // q, (1, np.inf, np.inf), 0, 0, False
    while t < iterations and not done:
        if flooding:
            for edge in range(n_edges):
                _message(edge, tables, kind, scaled, plan, messages, received, digits)
                if damping > 0.0 and t > 0:
                    _damp(received, kept, edge * q, q, damping)
            if damping > 0.0:
                copy(kept[0], received[0])
                copy(kept[1], received[1])
        else:
            fill_words(words, t, key[0], key[1])
            shuffle(order, n, words)
            copy(kept[0], messages[0])
            copy(kept[1], messages[1])
        for place in range(n):
            i = order[place]
            for edge in range(plan.first[i], plan.first[i + 1]):
                if not flooding:
                    _message(edge, tables, kind, scaled, plan, messages, received, digits)
            _products(i, field, plan, received, messages, scratch)
            for edge in range(plan.first[i], plan.first[i + 1]):
                vanished += _divide(messages[0], messages[1], edge * q, q)
                if damping > 0.0 and not flooding:
                    _damp(messages, kept, edge * q, q, damping)
                    _divide(messages[0], messages[1], edge * q, q)
        t += 1
        compared = received if flooding else messages
        if t <= changes[0] + 2:
            for x in range(size):
                values[x] = _value(compared[0][x], compared[1][x])
        changes, done = compare(values, plan.mark, changes, t, limits)
    one, two = changes[1:]
    return t, one, two, vanished, max(one, two) <= tolerance, messages[0], messages[1]


@allocating_kernel
def deep_close(tables, kind, plan, m, e, to_factor, to_variable, belief):
    """Read everything off normalised messages to factors (m, e).

    Fill ``to_factor`` and ``to_variable`` [E, q], edges by variable, and ``belief`` [n, q], which holds the fields.
    Return (Bethe free entropy as in ``close``, vanished). Exponents are added as integers, so large ones cancel.
    """
    n, q = belief.shape
    k, size = plan.partners.shape[1] + 1, m.shape[0]
    digits, unscaled = np.zeros(k, np.int64), np.zeros(tables.shape[0], np.bool_)
    messages, received = (m, e), (np.empty(size), np.zeros(size, np.int64))
    entropy, powers, vanished = 0.0, 0, 0
    row, level = np.empty(q), np.zeros(q, np.int64)
    for i in range(n):
        for v in range(q):
            row[v], level[v] = _number(belief[i, v], 0)
        for edge in range(plan.first[i], plan.first[i + 1]):
            _message(edge, tables, kind, unscaled, plan, messages, received, digits)
            mass, height = 0.0, 0
            for v in range(q):
                p = edge * q + v
                row[v], level[v] = _number(row[v] * received[0][p], level[v] + received[1][p])
                x, y = _number(m[p] * received[0][p], e[p] + received[1][p])
                mass, height = _sum(mass, height, x, y)
            vanished += mass == 0.0
            if plan.argument[edge] == 0 and mass > 0.0:
                entropy -= (k - 1) * math.log(mass)
                powers -= (k - 1) * height
            vanished += _divide(received[0], received[1], edge * q, q)
            for v in range(q):
                p = edge * q + v
                to_factor[edge, v] = _value(m[p], e[p])
                to_variable[edge, v] = _value(received[0][p], received[1][p])
        total, height = _total(row, level, 0, q)
        if total > 0.0:
            entropy += math.log(total)
            powers += height
        vanished += _divide(row, level, 0, q)
        for v in range(q):
            belief[i, v] = _value(row[v], level[v])
    return entropy + powers * _LOG_UP, vanished
