"""Belief propagation: flooding and random-order sequential sweeps, whole runs without returning to Python.

Only one message an edge is kept. In flooding, the messages to factors are overwritten by the messages to variables and
back, in place, so an iteration streams q numbers an edge through the variables (vector registers over lanes of
variables, prefix and suffix products in a scratch of a few kilobytes) and meets each edge's cache line once more
through the factors.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from lo_theory.jit import jit, tuple_setitem
from lo_theory.posterior._bp_compile import kernel
from lo_theory.posterior._bp_form_kernels import LOW, edge_message, factor_pass
from lo_theory.rng import fill_words, shuffle

_SMALL = 2.0**-60
"""Running products are scaled back below this; eight more messages cannot make them vanish by underflow."""
_SCALE_EVERY = 8
_DWARFED = 1e-100
"""Below this the largest entry of a message is no longer far above the floor, and the run ends."""
HELD, GONE = 1, 2


@kernel
def _rescale(run, q):
    """Scale the running product of every lane whose largest entry has become small to largest entry one. Return
    whether any was scaled, and whether an entry had lost digits.
    """
    scaled, low = False, False
    for lane in range(0, run.shape[0], q):
        largest = run[lane]
        for v in range(1, q):
            largest = max(largest, run[lane + v])
        if 0.0 < largest < _SMALL:
            scaled = True
            for v in range(q):
                low |= 0.0 < run[lane + v] < LOW
                run[lane + v] /= largest
    return scaled, low


@kernel
def hold(numbers, support, settled, floor, q, lossy):
    """Raise every number of messages that is below ``floor`` and no exact zero to it: a positive one, or a zero where
    ``support`` (if ``settled``) is not. Return ``HELD`` if one was raised, or if factors of messages were ``lossy``:
    had lost digits; ``GONE`` if so in a message that has no number far above; else 0.
    """
    found, least = 0, 0 if settled else 255
    for first in range(0, numbers.shape[0], q):
        largest, raised = 0.0, lossy
        for x in range(first, first + q):
            if numbers[x] < floor and (numbers[x] > 0.0 or support[x] > least):
                numbers[x] = floor
                raised = True
            largest = max(largest, numbers[x])
        if raised:
            found |= HELD if largest >= _DWARFED else GONE
    return found


@kernel
def _may_vanish(work, blocks):
    """Whether the positive numbers of a variable, multiplied, fall below ``LOW``; messages as in ``variable_pass``."""
    width, run, gone = blocks.field.shape[1], blocks.run, False
    for b in range(blocks.field.shape[0]):
        for x in range(width):
            run[x] = blocks.field[b, x] if blocks.field[b, x] > 0.0 else 1.0
        for row in range(blocks.start[b], blocks.start[b + 1]):
            for x in range(width):
                message = work[row * width + x]
                run[x] *= message if message > 0.0 else 1.0
        for x in range(width):
            gone |= run[x] < LOW
    return gone


@kernel
def _holds_small(work, early):
    """Whether there is a positive number below ``early``."""
    found = False
    for x in range(work.shape[0]):
        found |= 0.0 < work[x] < early
    return found


@kernel
def variable_pass(work, blocks, q, support, settled, floor):
    """Overwrite the messages to variables in ``work`` by the products of the others with the field, up to a factor.

    A row of ``blocks.field`` holds the fields of the variables of a block, q numbers a lane; block b owns rows
    ``blocks.start[b]:blocks.start[b + 1]`` of messages, one of each lane a row. Rows a lane does not need hold ones.
    ``support`` uint8, laid out as ``work``, is zero where a product may be zero; it counts if ``settled``. ``floor``
    and the value returned are those of ``hold``.
    """
    found = 0
    width = blocks.field.shape[1]
    run, scratch = blocks.run, blocks.scratch
    for b in range(blocks.field.shape[0]):
        begin, rows = blocks.start[b] * width, blocks.start[b + 1] - blocks.start[b]
        careful, lossy = False, False
        for x in range(width):
            run[x] = blocks.field[b, x]
        for s in range(rows):
            messages = work[begin + s * width : begin + (s + 1) * width]
            prefix = scratch[s * width : (s + 1) * width]
            for x in range(width):
                product = run[x]
                prefix[x] = product
                run[x] = product * messages[x]
            if s % _SCALE_EVERY == _SCALE_EVERY - 1:
                scaled, low = _rescale(run, q)
                careful, lossy = careful | scaled, lossy | low
        for x in range(width):  # no message is above one: no product of some is below the product of all
            careful |= run[x] < floor
        for x in range(width):
            run[x] = 1.0
        for s in range(rows - 1, -1, -1):
            messages = work[begin + s * width : begin + (s + 1) * width]
            prefix = scratch[s * width : (s + 1) * width]
            for x in range(width):
                product, message = run[x], messages[x]
                messages[x] = prefix[x] * product
                run[x] = product * message
            if s % _SCALE_EVERY == 0:
                scaled, low = _rescale(run, q)
                careful, lossy = careful | scaled, lossy | low
        if careful:
            end = begin + rows * width
            found |= hold(work[begin:end], support[begin:end], settled, floor, q, lossy)
    for p in blocks.pads:
        for v in range(q):
            work[p + uint64(v)] = 1.0
    return found


@jit(fastmath={"nnan", "nsz", "reassoc"})
def largest_difference(left, right):
    """Largest absolute difference; a maximum does not depend on the order in which it is taken."""
    worst = 0.0
    for x in range(left.shape[0]):
        worst = max(worst, abs(left[x] - right[x]))
    return worst


@kernel
def _blend(work, kept, damping):
    """Damp the messages in ``work`` by those of the iteration before, and keep the result. A zero is final: it is not
    damped.
    """
    for x in range(work.shape[0]):
        fresh = work[x]
        message = (1.0 - damping) * fresh + damping * kept[x] if fresh > 0.0 else 0.0
        work[x] = message
        kept[x] = message


@kernel
def _next_mark(t, iterations):
    """Iteration after which messages are marked next: an eighth of the way and a few on, and in time for the last
    two.
    """
    return max(t, min(t + 4 + t // 8, iterations - 2))


@kernel
def copy(target, source):
    """Fill ``target`` with as many numbers of ``source``."""
    for x in range(target.shape[0]):
        target[x] = source[x]


@kernel
def compare(work, mark, changes, t, limits):
    """Compare the messages after iteration ``t`` with those marked one or two before, and mark them when it is time.

    ``changes`` = (iteration of the mark, largest change over one, over two). Return the new ones, and whether both
    changes are small enough.
    """
    (marked, one, two), (_, iterations, tolerance), done = changes, limits, False
    if t == marked + 1:
        one = largest_difference(work, mark)
    elif t == marked + 2:
        two = largest_difference(work, mark)
        marked = _next_mark(t, iterations)
        done = max(one, two) <= tolerance
    if t == marked:
        copy(mark, work)
    return (marked, one, two), done


@kernel
def flood(form, work, plan, blocks, q, limits, support, settled, floors):
    """Run flooding iterations from the messages to factors in ``work``.

    ``limits`` = (damping, iterations, tolerance). Messages are marked now and then and compared with those one and two
    iterations later. ``support`` as in ``variable_pass`` counts from iteration ``settled`` on. ``floors``: that of
    ``hold``, and the smallest number that messages may hold before, when every zero counts as exact. Return
    (iterations, change over one, change over two, vanished messages, converged, what ``hold`` did; ``GONE`` ends the
    run).
    """
    (damping, iterations, tolerance), (floor, early) = limits, floors
    changes, vanished, t, done, found = (1, np.inf, np.inf), 0, 0, False, 0
    while t < iterations and not done and found < GONE:
        empty, low = factor_pass(form, work, plan.positions, plan.groups)
        vanished += empty
        t += 1
        if damping > 0.0 and t > 1:
            _blend(work, blocks.kept, damping)
        elif damping > 0.0:
            copy(blocks.kept, work)
        changes, done = compare(work, blocks.mark, changes, t, limits)
        low |= t < settled and _may_vanish(work, blocks)
        found |= variable_pass(work, blocks, q, support, t >= settled, floor)
        low |= t < settled and _holds_small(work, early)
        found |= GONE if low else 0
    one, two = changes[1:]
    return t, one, two, vanished, max(one, two) <= tolerance, found


@kernel
def _rescaled(run, q):
    """``_rescale`` of one running product in registers."""
    largest, scaled, low = run[0], False, False
    for v in range(1, q):
        largest = max(largest, run[v])
    if 0.0 < largest < _SMALL:
        scaled = True
        for v in range(q):
            low |= 0.0 < run[v] < LOW
            run = tuple_setitem(run, v, run[v] / largest)
    return run, scaled, low


@kernel
def _update_variable(i, form, work, plan, field, damping, support, settled, floor):
    """Fetch the messages to variable i, and renew its messages to factors in place. Return how many vanished, and
    what ``hold`` would.
    """
    q, begin, end = len(form.values), plan.first[i], plan.first[i + 1]
    received, prefix, least = plan.received, plan.prefix, 0 if settled else 255
    run, at, vanished, careful, lossy, found = form.values, uint64(0), 0, False, False, 0
    for v in range(q):
        run = tuple_setitem(run, v, field[i, v])
    for e in range(begin, end):
        found |= GONE if edge_message(form, work, plan, e, received, at) else 0
        for v in range(q):
            prefix[at] = run[v]
            run = tuple_setitem(run, v, run[v] * received[at])
            at += uint64(1)
        if (e - begin) % _SCALE_EVERY == _SCALE_EVERY - 1:
            run, scaled, low = _rescaled(run, q)
            careful, lossy = careful | scaled, lossy | low
    for v in range(q):  # see variable_pass
        careful |= run[v] < floor
    run = form.values
    for e in range(end - 1, begin - 1, -1):
        at -= uint64(q)
        target, message, total = uint64(e) * uint64(q), form.values, 0.0
        for v in range(q):
            product = prefix[at + uint64(v)] * run[v]
            message = tuple_setitem(message, v, product)
            total += product
            run = tuple_setitem(run, v, run[v] * received[at + uint64(v)])
        if careful:
            largest, raised = 0.0, lossy
            for v in range(q):
                if message[v] < floor and (message[v] > 0.0 or support[target + uint64(v)] > least):
                    message = tuple_setitem(message, v, floor)
                    raised = True
                largest = max(largest, message[v])
            if raised:
                found |= HELD if largest >= _DWARFED else GONE
                total = 0.0
                for v in range(q):
                    total += message[v]
            if total == 0.0:
                vanished += 1
                message, total = form.values, float(q)
        if damping > 0.0:
            share, total = (1.0 - damping) / total, 0.0
            for v in range(q):
                fresh = share * message[v]
                fresh = fresh + damping * work[target + uint64(v)] if fresh > 0.0 else 0.0
                message = tuple_setitem(message, v, fresh)
                total += fresh
        share = 1.0 / total if total > 0.0 else 0.0  # zero: numbers were lost, and the run ends
        for v in range(q):
            work[target + uint64(v)] = share * message[v]
        if (e - begin) % _SCALE_EVERY == 0:
            run, scaled, low = _rescaled(run, q)
            careful, lossy = careful | scaled, lossy | low
    return vanished, found


@kernel
def _early_loss(i, plan, field, work, early):
    """Whether a positive number may have been lost in the last update of variable i, or is below ``early`` after it."""
    q, begin, end = field.shape[1], plan.first[i], plan.first[i + 1]
    gone = False
    for v in range(q):
        product = field[i, v] if field[i, v] > 0.0 else 1.0
        for e in range(begin, end):
            message, fresh = plan.received[(e - begin) * q + v], work[e * q + v]
            product *= message if message > 0.0 else 1.0
            gone |= 0.0 < fresh < early
        gone |= product < LOW
    return gone


@kernel
def sweep(form, work, plan, field, key, limits, support, settled, floors):
    """Run sweeps over the variables in a new random order each, from the normalised messages to factors in ``work``.

    Message e is at ``work[e q:]``, edges by variable; sweep t is ordered by row t of the words of ``key``.
    ``limits``, ``settled``, ``floors`` and the value returned are those of ``flood``; ``support`` uint8[E q] is in the
    order of the messages.
    """
    (damping, iterations, tolerance), (floor, early) = limits, floors
    n, order, words = field.shape[0], plan.variables, plan.words
    for i in range(n):
        order[i] = i
    changes, vanished, t, done, found = (1, np.inf, np.inf), 0, 0, False, 0
    while t < iterations and not done and found < GONE:
        fill_words(words, t, key[0], key[1])
        shuffle(order, n, words)
        for place in range(n):
            empty, low = _update_variable(order[place], form, work, plan, field, damping, support, t >= settled, floor)
            vanished += empty
            found |= GONE if t < settled and _early_loss(order[place], plan, field, work, early) else low
        t += 1
        changes, done = compare(work, plan.mark, changes, t, limits)
    one, two = changes[1:]
    return t, one, two, vanished, max(one, two) <= tolerance, found
