"""From one solution to the next variances: MacKay, MM, Hinton's quick method."""

from __future__ import annotations

import numpy as np

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
        structure.geodesic(S, N, vv, power) if free else S
        for S, N, vv, free, structure in zip(
            present.Sigma,
            solution.N,
            solution.vv,
            freedom.terms,
            freedom.structures,
            strict=True,
        )
    )
    sigma2 = present.sigma2
    if freedom.residual:
        target = solution.eWe / (freedom.dof - sum(solution.gamma))
        sigma2 = sigma2 * (target / sigma2) ** (power / 2)
    return Variances(sigma2, Sigma)


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
    for S, b, free, structure in zip(
        solution.variances.Sigma, solution.b, freedom.terms, freedom.structures, strict=True
    ):
        covariance = np.atleast_2d(np.cov(b, rowvar=False, ddof=min(1, len(b) - 1)))
        Sigma.append(structure.projected(covariance) if free else S)
    sigma2 = solution.variances.sigma2
    if freedom.residual:
        sigma2 = solution.eWe / (freedom.dof - sum(solution.gamma))
    return Variances(sigma2, tuple(Sigma))
