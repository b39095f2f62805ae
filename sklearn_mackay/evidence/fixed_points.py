"""From one solution to the next variances: MacKay, MM, Hinton's quick method, Newton.

Every update is a pure function of a :class:`PenalizedSolution`. `free` says which terms may move.
"""

from __future__ import annotations

import numpy as np

from .._arrays import Array
from .freedom import Freedom
from .solution import PenalizedSolution, Variances


def mackay_update(solution: PenalizedSolution, freedom: Freedom) -> Variances:
    """MacKay's evidence update ``Sigma = U / gamma``, ``sigma2 = e'We / (n - p - sum gamma)``.

    A fixed point with regular covariances is a stationary point of the REML criterion (of the ML
    criterion if the solution carries that one's traces). A variance of zero stays at zero whatever
    the data, and a singular covariance keeps its range; `steepest_release` tells whether they may.
    ``U / gamma`` is no matrix update; for correlated coefficients it is the geodesic doubling of
    the MM update, which is positive semi-definite and, with one coefficient, ``U / gamma`` exactly.
    It need not lower the deviance. Equation (5) of docs/theory.md.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    freedom : Freedom
        What may move.

    Returns
    -------
    Variances

    References
    ----------
    MacKay (1992), "Bayesian interpolation", Neural Computation 4, equations 4.9 and 4.10. Schall
    (1991), "Estimation in generalized linear models with random effects", Biometrika 78(4), for
    mixed models.
    """
    return _fixed_point(solution, freedom, power=2)


def mm_update(solution: PenalizedSolution, freedom: Freedom) -> Variances:
    """Minorise-maximise update ``M``, the solution of ``M N M = U``; never raises the deviance.

    ``M = N^-1/2 (N^1/2 U N^1/2)^1/2 N^-1/2``, for one coefficient
    ``Sigma sqrt(U / (Sigma gamma))``. Equation (6) of docs/theory.md.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    freedom : Freedom
        What may move.

    Returns
    -------
    Variances

    References
    ----------
    Zhou, Hu, Zhou, Lange (2019), "MM algorithms for variance components models", JCGS 28.
    """
    return _fixed_point(solution, freedom, power=1)


def _fixed_point(solution: PenalizedSolution, freedom: Freedom, *, power: int) -> Variances:
    present = solution.variances
    Sigma = tuple(
        _geodesic(S, N, vv, power=power, diagonal=diagonal) if free else S
        for S, N, vv, free, diagonal in zip(
            present.Sigma,
            solution.N,
            solution.vv,
            freedom.terms,
            freedom.diagonal,
            strict=True,
        )
    )
    sigma2 = present.sigma2
    if freedom.residual:
        target = solution.eWe / (freedom.dof - sum(solution.gamma))
        sigma2 = sigma2 * (target / sigma2) ** (power / 2)
    return Variances(sigma2, Sigma)


def _geodesic(Sigma: Array, N: Array, vv: Array, *, power: int, diagonal: bool) -> Array:
    """``T M^power T'`` with ``Sigma = TT'`` and ``M (T'NT) M = T' vv T``."""
    if diagonal:
        ratio = np.divide(np.diag(vv), np.diag(N), out=np.zeros(len(N)), where=np.diag(N) > 0)
        return np.asarray(np.diag(np.diag(Sigma) * ratio ** (power / 2)))
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    active = eigenvalues > 0
    T = vectors[:, active] * np.sqrt(eigenvalues[active])
    root = _power(T.T @ N @ T, 0.5)
    inverse_root = _power(T.T @ N @ T, -0.5)
    M = inverse_root @ _power(root @ (T.T @ vv @ T) @ root, 0.5) @ inverse_root
    moved = T @ np.linalg.matrix_power(M, power) @ T.T
    return np.asarray(0.5 * (moved + moved.T))


def _power(matrix: Array, exponent: float) -> Array:
    """Power of a symmetric positive semi-definite matrix on its range."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    largest = np.max(eigenvalues, initial=0.0)
    positive = eigenvalues > len(matrix) * np.finfo(float).eps * largest
    powers = np.power(eigenvalues, exponent, out=np.zeros(len(matrix)), where=positive)
    return np.asarray((vectors * powers) @ vectors.T)


def quick_update(solution: PenalizedSolution, freedom: Freedom) -> Variances:
    """Hinton's "quick and dirty" update: ``Sigma`` is the sample covariance of the effects.

    ``Sigma = cov_j(b_kj)``, ``sigma2 = e'We / (n - tr H)`` with ``tr H = p + sum gamma``. The
    effects are shrunken, so their covariance is too small: the effective number of parameters
    that MacKay divides by is missing, and a variance of less than about three times the sampling
    variance of a level's estimate falls to zero. Equation (7) of docs/theory.md.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    freedom : Freedom
        What may move.

    Returns
    -------
    Variances

    References
    ----------
    Hinton (2012), "Neural Networks for Machine Learning", lecture 9f.
    """
    Sigma = []
    for S, b, free, diagonal in zip(
        solution.variances.Sigma, solution.b, freedom.terms, freedom.diagonal, strict=True
    ):
        covariance = np.atleast_2d(np.cov(b, rowvar=False, ddof=min(1, len(b) - 1)))
        if diagonal:
            covariance = np.diag(np.diag(covariance))
        Sigma.append(covariance if free else S)
    sigma2 = solution.variances.sigma2
    if freedom.residual:
        sigma2 = solution.eWe / (freedom.dof - sum(solution.gamma))
    return Variances(sigma2, tuple(Sigma))
