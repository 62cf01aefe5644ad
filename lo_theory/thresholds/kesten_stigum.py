"""The Kesten-Stigum threshold: the degree at which a weak local signal starts to grow under belief propagation.

Linearise the factor update at the uniform message: a perturbation of the message into argument b becomes T_ab times it
at argument a, T_ab the law of one argument given the other. Perturbations of different branches are independent, so
what grows or dies is their covariance, by c (k-1) times the mean of T_ab (x) T_ab. The global value-imbalance mode, c
(k-1) mean T_ab, is another matter: it is no local signal and is not counted. Two independent routes,
closed form and numerical Jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lo_theory.problem import pair_channels
from lo_theory.problem.seams import checked
from lo_theory.thresholds.ensemble import PlantedEnsemble
from lo_theory.thresholds.units import Threshold

__all__ = ["factor_jacobian", "kesten_stigum", "kesten_stigum_from_jacobian"]

_LARGEST_Q = 40  # (q - 1)**4 numbers and (q - 1)**6 operations
_ZERO = 1e-26  # a spectral radius (square of a channel eigenvalue) below it is rounding
_STEP = 1e-30  # of the complex-step derivative, whose error is its square


def _zero_sum_basis(q: int) -> NDArray[np.float64]:
    """Orthonormal columns float64[q, q-1] that sum to zero."""
    return np.linalg.svd(np.ones((1, q)))[2][1:].T


def _threshold(matrices: NDArray[np.float64], shares: NDArray[np.float64], k: int) -> Threshold:
    """From the linear maps [K, k, k, q, q] of every kind and ordered pair of arguments."""
    q = matrices.shape[-1]
    if q > _LARGEST_Q:
        raise ValueError(
            f"Kesten-Stigum for q = {q} values takes matrices of {(q - 1) ** 4:.3g} numbers, the limit is q = "
            f"{_LARGEST_Q}: lower q"
        )
    basis = _zero_sum_basis(q)
    inner = np.einsum("xi,nabxy,yj->nabij", basis, matrices, basis)
    mean = sum(
        share * np.kron(inner[kind, a, b], inner[kind, a, b]) / (k * (k - 1))
        for kind, share in enumerate(shares)
        for a in range(k)
        for b in range(k)
        if a != b
    )
    rho = float(np.abs(np.linalg.eigvals(np.asarray(mean))).max())
    return Threshold(math.inf if rho < _ZERO else 1 / ((k - 1) * rho), k)


@checked
def kesten_stigum(ensemble: PlantedEnsemble) -> Threshold:
    """Kesten-Stigum threshold in closed form, c_KS = 1/((k-1) rho); exact to rounding.

    rho is the spectral radius of the mean of T_ab (x) T_ab over ordered argument pairs a != b and over revealed kinds
    with their shares, on (zero-sum) (x) (zero-sum) vectors; infinite where rho = 0, as for parities of k >= 3. Cost K
    (k**2 q**k + (q-1)**6).
    """
    channels = np.stack([pair_channels(likelihood) for likelihood in ensemble.likelihoods])
    return _threshold(channels, ensemble.shares, ensemble.k)


def _factor_update(
    likelihood: NDArray[np.float64], incoming: Sequence[NDArray[np.complex128]], a: int
) -> NDArray[np.complex128]:
    """The factor-to-variable message of belief propagation (Definition B.10) to argument a, normalised."""
    result = np.moveaxis(likelihood, a, 0).astype(np.complex128)
    for message in reversed([message for b, message in enumerate(incoming) if b != a]):
        result = result @ message
    return result / result.sum()


def factor_jacobian(likelihood: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jacobian float64[k, k, q, q] of the factor update at uniform messages: d out_a(x) / d in_b(y), zero for a = b.

    The update itself is differentiated, by complex steps (no subtraction, so the error is rounding); it is a rational
    function of the messages with a positive denominator. Defined up to a constant along y, which zero-sum perturbations
    do not see.
    """
    k, q = likelihood.ndim, likelihood.shape[0]
    jacobian = np.zeros((k, k, q, q))
    for a in range(k):
        for b in range(k):
            if a == b:
                continue
            for y in range(q):
                incoming = [np.full(q, 1 / q, np.complex128) for _ in range(k)]
                incoming[b][y] += 1j * _STEP
                jacobian[a, b, :, y] = _factor_update(likelihood, incoming, a).imag / _STEP
    return jacobian


@checked
def kesten_stigum_from_jacobian(ensemble: PlantedEnsemble) -> Threshold:
    """Kesten-Stigum threshold from the numerical Jacobian; agrees with ``kesten_stigum`` to rounding.

    Nothing but the update of Definition B.10 is used, so a disagreement means that one of the two is wrong. Cost K k**2
    q**(k+1).
    """
    jacobians = np.stack([factor_jacobian(likelihood) for likelihood in ensemble.likelihoods])
    return _threshold(jacobians, ensemble.shares, ensemble.k)
