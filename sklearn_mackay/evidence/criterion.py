"""The criteria: the deviance, and its change where only its slope is known."""

from __future__ import annotations

import numpy as np

from .._arrays import Array
from .solution import PenalizedSolution


def deviance(
    solution: PenalizedSolution, *, dof: float, sum_log_weights: float, penalty: Array
) -> float:
    """``-2 log-likelihood`` with lme4's constants; REML and ML differ in `dof` and `log_det`.

    ``dof log(2 pi sigma2) + log|spherical K| + y'Py - sum log w - sum log penalty``, equation (1)
    of docs/theory.md.

    Parameters
    ----------
    solution : PenalizedSolution
        Must know its `log_det`.
    dof : float
        ``n - p`` for REML, ``n`` for ML.
    sum_log_weights : float
        ``sum log w`` of precision weights.
    penalty : ndarray of shape (p,)
        Ridge penalties; each positive one belongs to a coefficient with prior variance
        ``sigma2 / penalty``.

    Returns
    -------
    float

    References
    ----------
    Bates, Maechler, Bolker, Walker (2015), "Fitting linear mixed-effects models using lme4",
    equation 41.
    """
    if solution.log_det is None:
        raise ValueError("This solution was computed without its log determinant.")
    sigma2 = solution.variances.sigma2
    return (
        dof * float(np.log(2 * np.pi * sigma2))
        + solution.log_det
        + solution.yPy
        - sum_log_weights
        - float(np.sum(np.log(penalty[penalty > 0])))
    )


def deviance_change(before: PenalizedSolution, after: PenalizedSolution, *, dof: float) -> float:
    """Difference of the deviance where an engine does not know its log determinants.

    The trapezoidal rule with the gradients at both ends, on the line in ``Sigma_k / sigma2`` and
    ``log sigma2``. Its sign is what a step is judged by: a step beyond the minimum ends uphill.

    Parameters
    ----------
    before, after : PenalizedSolution
        The ends.
    dof : float
        ``n - p`` for REML, ``n`` for ML.

    Returns
    -------
    float
    """
    old, new = before.variances, after.variances
    change = (dof - 0.5 * (before.yPy + after.yPy)) * float(np.log(new.sigma2 / old.sigma2))
    for S, R, G, F in zip(old.Sigma, new.Sigma, before.gradient, after.gradient, strict=True):
        move = R / new.sigma2 - S / old.sigma2
        change += 0.5 * float(np.sum(move * (old.sigma2 * G + new.sigma2 * F)))
    return change
