"""Variances of zero: when a direction goes there, and when it may not stay."""

from __future__ import annotations

import numpy as np

from .._arrays import Array
from ..covariances.matrices import VANISHED
from ..covariances.structures import Structure, principal_directions
from .freedom import Freedom
from .solution import PenalizedSolution, Variances


def steepest_release(
    Sigma: Array, N: Array, gradient: Array, structure: Structure, *, below: float = VANISHED
) -> tuple[float, Array]:
    """Test of the Karush-Kuhn-Tucker condition where a covariance is zero, or as good as zero.

    A covariance may stay at zero in some directions only if the gradient ``N - vv'`` is positive
    semi-definite on them; otherwise the deviance falls along the direction returned.
    Equation (10) of docs/theory.md.

    Parameters
    ----------
    Sigma, N, gradient : ndarray of shape (s, s)
        A covariance, the trace part of the deviance's gradient there, and the gradient.
    structure : Structure
        Of the covariance.
    below : float
        Effective parameters below which a direction is as good as zero.

    Returns
    -------
    slope : float
        Least eigenvalue of the gradient on those directions; ``inf`` where there are none.
    direction : ndarray of shape (s,)
        Its eigenvector.
    """
    _, vectors, gamma = principal_directions(structure, Sigma, N)
    basis = vectors[:, gamma < below]
    if basis.shape[1] == 0:
        return np.inf, np.zeros(len(Sigma))
    reduced = structure.projected(basis.T @ gradient @ basis)
    slopes, combinations = np.linalg.eigh(reduced)
    return float(slopes[0]), basis @ combinations[:, 0]


def drop_vanished(
    solution: PenalizedSolution,
    freedom: Freedom,
    *,
    below: float = VANISHED,
    uphill_only: bool = True,
) -> Variances:
    """Set to exactly zero each direction of variance with next to no effective parameters.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    freedom : Freedom
        What may move.
    below : float
        Effective parameters below which a direction goes.
    uphill_only : bool
        Keep a direction in which the deviance falls; it merely started small.

    Returns
    -------
    Variances
        The same object as the solution's where nothing vanished.
    """
    present = solution.variances
    Sigma = []
    changed = False
    for S, N, G, free, structure in zip(
        present.Sigma, solution.N, solution.gradient, freedom.terms, freedom.structures, strict=True
    ):
        variances, vectors, gamma = principal_directions(structure, S, N)
        slope = np.einsum("ai,ab,bi->i", vectors, G, vectors)
        gone = (variances > 0) & (gamma < below) & ((slope > 0) | (not uphill_only))
        if free and np.any(gone):
            S = (vectors * np.where(gone, 0.0, variances)) @ vectors.T
            changed = True
        Sigma.append(S)
    return Variances(present.sigma2, tuple(Sigma)) if changed else present


def release(solution: PenalizedSolution, k: int, direction: Array, slope: float) -> Variances:
    """Give a direction of zero variance the variance that Newton's model on it asks for.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    k : int
        Term.
    direction : ndarray of shape (s_k,)
        Unit vector in the null space of ``Sigma_k``.
    slope : float
        Derivative of the deviance along it, negative.

    Returns
    -------
    Variances
    """
    # With balanced levels the deviance along it is L log(1 + N t / L) - t vv / (1 + N t / L).
    N = float(direction @ solution.N[k] @ direction)
    length = -slope * solution.n_levels[k] / N**2
    Sigma = list(solution.variances.Sigma)
    Sigma[k] = Sigma[k] + length * np.outer(direction, direction)
    return Variances(solution.variances.sigma2, tuple(Sigma))
