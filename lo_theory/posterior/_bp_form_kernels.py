"""Messages from a factor to its variables, for each form of table: any table, all-equal, parity.

A *form* is a named tuple of numbers (``bp_forms``); which kernel serves it is settled when the caller is compiled.
Alphabet and arity of the closed forms are lengths of tuples, known when the kernel is compiled, so their loops unroll.
Only products and sums of nonnegative numbers: zeros are exact and small probabilities keep their relative precision.
Addresses are unsigned: signed ones cost a comparison each.
"""

from __future__ import annotations

from numba import uint64
from numba.extending import overload

from lo_theory.jit import tuple_setitem
from lo_theory.posterior._bp_compile import message_kernel
from lo_theory.posterior.bp_forms import AllEqual, Parity, Table

SMALLEST_PRODUCT = 1e-250
"""Below this the sums of the incoming messages are divided out one by one."""

LOW = 1e-290
"""A number below this may have lost digits, or be zero by underflow."""


@message_kernel
def normalise(work, positions, j, q):
    """Divide the messages at ``positions[j]`` by their sums; a vanished one becomes uniform. Return how many had
    vanished.
    """
    vanished = 0
    for a in range(positions.shape[1]):
        p, total = uint64(positions[j, a]), 0.0
        for v in range(q):
            total += work[p + uint64(v)]
        if total > 0.0:
            for v in range(q):
                work[p + uint64(v)] /= total
        else:
            vanished += 1
            for v in range(q):
                work[p + uint64(v)] = 1.0 / q
    return vanished


@message_kernel
def _scale(work, p, q):
    """Divide a message by its sum where that is positive. Return whether a number had lost digits."""
    total, gone = 0.0, False
    for v in range(q):
        entry = work[p + uint64(v)]
        gone |= 0.0 < entry < LOW
        total += entry
    if total > 0.0:
        for v in range(q):
            work[p + uint64(v)] /= total
    return gone


def _all_equal_kernel(plain):
    """Make the kernel of one table; ``plain`` (weight 1 unless all are equal, then 0) is settled when it is
    compiled.
    """

    @message_kernel
    def kernel(form, work, positions, t, begin, end):
        """Turn the incoming messages of checks ``begin`` to ``end`` of table ``t`` into the outgoing ones."""
        q, k = len(form.values), len(form.arguments)
        unequal, equal, scaled = form.unequal[t], form.values, form.scaled[t]
        for v in range(q):
            equal = tuple_setitem(equal, v, form.equal[t, v])
        vanished, gone, j = 0, False, begin
        while j < end:
            x, sums, product = form.entries, form.arguments, 1.0
            for a in range(k):
                p, total = uint64(positions[j, a]), 0.0
                for v in range(q):
                    entry = work[p + uint64(v)]
                    x = tuple_setitem(x, a * q + v, entry)
                    total += entry
                sums = tuple_setitem(sums, a, total)
                product *= total
            if not product > SMALLEST_PRODUCT:
                vanished += normalise(work, positions, j, q)
                continue  # the same factor again: now its sums are one
            inverse = 1.0 / product
            for a in range(k):
                p, factor = uint64(positions[j, a]), inverse * sums[a]
                for v in range(q):
                    same, differ = 1.0, 0.0
                    for b in range(k):
                        if b != a:
                            others = 0.0
                            for w in range(q):
                                if w != v:
                                    others += x[b * q + w]
                            differ = differ * sums[b] + same * others
                            same *= x[b * q + v]
                    if not plain:
                        differ = unequal * differ + equal[v] * same
                    work[p + uint64(v)] = differ * factor
                if not plain and scaled:
                    gone |= _scale(work, p, q)
            j += 1
        return vanished, gone

    return kernel


_plain_table = _all_equal_kernel(True)
_weighted_table = _all_equal_kernel(False)


@message_kernel
def all_equal_pass(form, work, positions, groups):
    """All-equal tables: weight ``equal[v]`` where all arguments are v, else ``unequal``.

    The message at v is ``unequal R + equal[v] E``, E the probability that the other arguments are all v and R that they
    are not, built up as (E, R) -> (E x, R + E c) with x and c the normalised message at v and at the other values.
    """
    vanished, gone = 0, False
    for t in range(groups.shape[0] - 1):
        if form.unequal[t] == 1.0 and not form.equal[t].any():
            found, low = _plain_table(form, work, positions, t, groups[t], groups[t + 1])
        else:
            found, low = _weighted_table(form, work, positions, t, groups[t], groups[t + 1])
        vanished += found
        gone |= low
    return vanished, gone


@message_kernel
def parity_pass(form, work, positions, groups):
    """Parity tables: weight ``even`` or ``odd`` by the parity of the arguments; (even, odd) of the others by
    convolution.
    """
    k = len(form.arguments)
    vanished = 0
    for t in range(groups.shape[0] - 1):
        even, odd = form.even[t], form.odd[t]
        j = groups[t]
        while j < groups[t + 1]:
            zeros, ones, sums, product = form.arguments, form.arguments, form.arguments, 1.0
            for a in range(k):
                p = uint64(positions[j, a])
                zero, one = work[p], work[p + uint64(1)]
                zeros, ones = tuple_setitem(zeros, a, zero), tuple_setitem(ones, a, one)
                sums = tuple_setitem(sums, a, zero + one)
                product *= zero + one
            if not product > SMALLEST_PRODUCT:
                vanished += normalise(work, positions, j, 2)
                continue  # the same factor again: now its sums are one
            inverse = 1.0 / product
            for a in range(k):
                p, factor = uint64(positions[j, a]), inverse * sums[a]
                same, differ = factor, 0.0
                for b in range(k):
                    if b != a:
                        same, differ = same * zeros[b] + differ * ones[b], differ * zeros[b] + same * ones[b]
                work[p] = even * same + odd * differ
                work[p + uint64(1)] = odd * same + even * differ
            j += 1
    return vanished, False


@message_kernel
def _advance(digits, q):
    """Digits of the next scope state; return the first argument that changed."""
    a = digits.shape[0] - 1
    while a > 0 and digits[a] == q - 1:
        digits[a] = 0
        a -= 1
    digits[a] += 1
    return a


@message_kernel
def table_pass(form, work, positions, groups):
    """Any tables: one walk over the states, with prefix products kept and suffix products made on the way back."""
    q, k = len(form.values), positions.shape[1]
    before, digits, out = form.before, form.digits, form.out
    vanished, gone = 0, False
    for t in range(groups.shape[0] - 1):
        weights, scaled = form.tables[t], form.scaled[t]
        for j in range(groups[t], groups[t + 1]):
            vanished += normalise(work, positions, j, q)
            out[:] = 0.0
            digits[:] = 0
            before[0] = 1.0
            changed = 0
            for state in range(weights.shape[0]):
                for a in range(changed, k):
                    before[a + 1] = before[a] * work[positions[j, a] + digits[a]]
                weight = weights[state]
                if weight > 0.0:
                    after = weight
                    for a in range(k - 1, -1, -1):
                        out[a, digits[a]] += before[a] * after
                        after *= work[positions[j, a] + digits[a]]
                if state + 1 < weights.shape[0]:
                    changed = _advance(digits, q)
            for a in range(k):
                p = uint64(positions[j, a])
                for v in range(q):
                    work[p + uint64(v)] = out[a, v]
                if scaled:
                    gone |= _scale(work, p, q)
    return vanished, gone


@message_kernel
def all_equal_message(form, work, plan, e, out, first):
    """Write the message of edge e to ``out[first:]`` from normalised messages at ``plan.partners[e]``; see
    ``all_equal_pass``.
    """
    q, k = len(form.values), len(form.arguments)
    t = plan.table[e]
    x, unequal = form.entries, form.unequal[t]
    for b in range(k - 1):
        p = uint64(plan.partners[e, b])
        for v in range(q):
            x = tuple_setitem(x, b * q + v, work[p + uint64(v)])
    for v in range(q):
        same, differ = 1.0, 0.0
        for b in range(k - 1):
            others = 0.0
            for w in range(q):
                if w != v:
                    others += x[b * q + w]
            differ += same * others
            same *= x[b * q + v]
        out[first + uint64(v)] = unequal * differ + form.equal[t, v] * same
    return form.scaled[t] and _scale(out, first, q)


@message_kernel
def parity_message(form, work, plan, e, out, first):
    """Write the message of edge e to ``out[first:]`` from normalised messages at ``plan.partners[e]``; see
    ``parity_pass``.
    """
    same, differ, t = 1.0, 0.0, plan.table[e]
    for b in range(len(form.arguments) - 1):
        p = uint64(plan.partners[e, b])
        zero, one = work[p], work[p + uint64(1)]
        same, differ = same * zero + differ * one, differ * zero + same * one
    out[first] = form.even[t] * same + form.odd[t] * differ
    out[first + uint64(1)] = form.odd[t] * same + form.even[t] * differ
    return False


@message_kernel
def table_message(form, work, plan, e, out, first):
    """Write the message of edge e to ``out[first:]``: a walk over the states of its table."""
    q, k, t = len(form.values), plan.partners.shape[1] + 1, plan.table[e]
    weights, digits, own = form.tables[t], form.digits, plan.argument[e]
    digits[:] = 0
    for v in range(q):
        out[first + uint64(v)] = 0.0
    for state in range(weights.shape[0]):
        weight = weights[state]
        if weight > 0.0:
            b = 0
            for a in range(k):
                if a != own:
                    weight *= work[plan.partners[e, b] + digits[a]]
                    b += 1
            out[first + uint64(digits[own])] += weight
        if state + 1 < weights.shape[0]:
            _advance(digits, q)
    return form.scaled[t] and _scale(out, first, q)


def factor_pass(form, work, positions, groups):
    """Overwrite the messages to factors in ``work`` by the messages to variables. Return how many were found vanished,
    and whether a number lost digits before it was scaled.
    """
    return _PASSES[type(form)](form, work, positions, groups)


def edge_message(form, work, plan, e, out, first):
    """Write the message to a variable along edge e to ``out[first:]``, from normalised messages to factors. Return
    whether a number lost digits.
    """
    return _MESSAGES[type(form)](form, work, plan, e, out, first)


_PASSES = {AllEqual: all_equal_pass, Parity: parity_pass, Table: table_pass}
_MESSAGES = {AllEqual: all_equal_message, Parity: parity_message, Table: table_message}


@overload(factor_pass)
def _compiled_factor_pass(form, work, positions, groups):
    kernel = _PASSES[form.instance_class]

    def chosen(form, work, positions, groups):
        return kernel(form, work, positions, groups)

    return chosen


@overload(edge_message)
def _compiled_edge_message(form, work, plan, e, out, first):
    kernel = _MESSAGES[form.instance_class]

    def chosen(form, work, plan, e, out, first):
        return kernel(form, work, plan, e, out, first)

    return chosen
