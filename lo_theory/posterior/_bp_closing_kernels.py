"""Belief propagation: starting messages, and what is read off the last ones (beliefs, Bethe free entropy, masked
observations).
"""

from __future__ import annotations

import math

import numpy as np
from numba import uint64

from lo_theory.posterior._bp_compile import kernel
from lo_theory.posterior._bp_form_kernels import LOW, factor_pass, normalise
from lo_theory.rng import philox, unit

_LIFTED = 1e-15  # what is smaller gets an exponent; times LOW this is still a number of full precision


@kernel
def random_messages(messages, noise, key0, key1):
    """Fill ``messages`` [E, q] with normalised entries 1 + noise (2u - 1), u uniform; word e q + v makes entry (e,
    v). No entry is zero, whatever u.
    """
    n_edges, q = messages.shape
    flat = messages.reshape(-1)
    for draw in range((flat.shape[0] + 3) // 4):
        words = philox(uint64(draw), uint64(0), key0, key1)
        for lane in range(min(4, flat.shape[0] - 4 * draw)):
            flat[4 * draw + lane] = max(1.0 + noise * (2.0 * unit(words[lane]) - 1.0), 2.0**-53)
    for e in range(n_edges):
        total = 0.0
        for v in range(q):
            total += messages[e, v]
        for v in range(q):
            messages[e, v] /= total


@kernel
def scatter(messages, positions, work, q):
    """Put ``messages`` [F k q] at their places in ``work``."""
    for j in range(positions.shape[0]):
        for a in range(positions.shape[1]):
            p, e = uint64(positions[j, a]), (j * positions.shape[1] + a) * q
            for v in range(q):
                work[p + uint64(v)] = messages[e + v]


@kernel
def gather(messages, positions, work, q):
    """The inverse of ``scatter``."""
    for j in range(positions.shape[0]):
        for a in range(positions.shape[1]):
            p, e = uint64(positions[j, a]), (j * positions.shape[1] + a) * q
            for v in range(q):
                messages[e + v] = work[p + uint64(v)]


@kernel
def beliefs(to_variable, scopes, belief, exponent):
    """Multiply ``belief`` [n, q] (the fields) by all messages and normalise; ``exponent`` zeros[n, q] are of each
    value.

    Return (sum over variables of ln of the normalisation, number of variables whose belief vanished).
    """
    n, q = belief.shape
    for i in range(n):
        for v in range(q):
            if 0.0 < belief[i, v] < _LIFTED:
                exponent[i, v] = math.log(belief[i, v])
                belief[i, v] = 1.0
    for j in range(scopes.shape[0]):
        for a in range(scopes.shape[1]):
            i = scopes[j, a]
            for v in range(q):
                belief[i, v] *= to_variable[j, a, v]
                if 0.0 < belief[i, v] < _LIFTED:
                    exponent[i, v] += math.log(belief[i, v])
                    belief[i, v] = 1.0
    log_sum, vanished = 0.0, 0
    for i in range(n):
        largest = -np.inf
        for v in range(q):
            if belief[i, v] > 0.0:
                largest = max(largest, exponent[i, v])
        total = 0.0
        for v in range(q):
            belief[i, v] *= math.exp(exponent[i, v] - largest) if belief[i, v] > 0.0 else 1.0
            total += belief[i, v]
        if total > 0.0:
            log_sum += math.log(total) + largest
        else:
            vanished += 1
        for v in range(q):
            belief[i, v] = belief[i, v] / total if total > 0.0 else 1.0 / q
    return log_sum, vanished


@kernel
def pass_once(form, work, positions, groups):
    """``factor_pass`` by itself: the messages to factors in ``work`` become messages to variables."""
    return factor_pass(form, work, positions, groups)


@kernel
def take_normalised(messages, positions, work, q):
    """Normalise the messages to factors in ``work`` and ``gather`` them. Return how many had vanished."""
    vanished = 0
    for j in range(positions.shape[0]):
        vanished += normalise(work, positions, j, q)
    gather(messages, positions, work, q)
    return vanished


@kernel
def close(to_factor, to_variable, scopes, belief, exponent, reached):
    """Read everything off normalised messages to factors and the unscaled messages to variables that they lead to.

    Both [F, k, q], factors in one order; messages to variables are normalised here. ``belief`` and ``exponent`` as in
    ``beliefs``. Bethe free entropy: sum_i ln Z_i - (k - 1) sum_a ln Z_a, where Z_a = sum_v to_factor to_variable
    is the same at every argument. ``reached`` uint8[F, k, q] is zero where a message to a variable may be zero. Return
    (free entropy, vanished, whether a number was lost).
    """
    q = belief.shape[1]
    free_entropy, vanished = beliefs(to_variable, scopes, belief, exponent)
    gone = False
    for j in range(scopes.shape[0]):
        mass, shared = 0.0, False
        for v in range(q):
            mass += to_factor[j, 0, v] * to_variable[j, 0, v]
            shared |= to_factor[j, 0, v] > 0.0 and to_variable[j, 0, v] > 0.0
        gone |= shared and mass < LOW
        if mass > 0.0:
            free_entropy -= (scopes.shape[1] - 1) * math.log(mass)
        else:
            vanished += 1
        for a in range(scopes.shape[1]):
            total = 0.0
            for v in range(q):
                entry = to_variable[j, a, v]
                total += entry
                gone |= entry < LOW and (entry > 0.0 or reached[j, a, v] > 0)
            vanished += total == 0.0
            for v in range(q):
                to_variable[j, a, v] = to_variable[j, a, v] / total if total > 0.0 else 1.0 / q
    return free_entropy, vanished, gone


@kernel
def observation_laws(masked, scopes, tables, index, belief, laws):
    """Fill ``laws`` [len(masked), r]: tables averaged over independent beliefs of the scope, repeated latents counted
    once.
    """
    k, q = scopes.shape[1], belief.shape[1]
    for row in range(masked.shape[0]):
        j = masked[row]
        for o in range(tables.shape[2]):
            laws[row, o] = 0.0
        for state in range(tables.shape[1]):
            weight, rest = 1.0, state
            for a in range(k - 1, -1, -1):
                value = rest % q
                rest //= q
                # The last mention of a latent carries its belief; an earlier one must agree with it.
                again, above = -1, state
                for b in range(k - 1, a, -1):
                    if scopes[j, b] == scopes[j, a]:
                        again = above % q
                    above //= q
                if again < 0:
                    weight *= belief[scopes[j, a], value]
                elif again != value:
                    weight = 0.0
            if weight > 0.0:
                for o in range(tables.shape[2]):
                    laws[row, o] += weight * tables[index[j], state, o]
