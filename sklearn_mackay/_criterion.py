"""The criteria and the certificate: deviance, and what must hold at a variance of zero."""

from __future__ import annotations

import numpy as np

from ._solution import VANISHED, Array, PenalizedSolution, principal_directions


def deviance(
    solution: PenalizedSolution, *, dof: float, sum_log_weights: float, penalty: Array
) -> float:
    """``-2 log-likelihood`` with lme4's constants; REML and ML differ in `dof` and `log_det`.

    ``dof log(2 pi sigma2) + log|spherical K| + y'Py - sum log w - sum log penalty``

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


def steepest_release(
    Sigma: Array, N: Array, gradient: Array, *, diagonal: bool, below: float = VANISHED
) -> tuple[float, Array]:
    """Test of the Karush-Kuhn-Tucker condition where a covariance is zero, or as good as zero.

    A covariance may stay at zero in some directions only if the gradient ``N - vv'`` is positive
    semi-definite on them; otherwise the deviance falls along the direction returned.

    Parameters
    ----------
    Sigma, N, gradient : ndarray of shape (s, s)
        A covariance, the trace part of the deviance's gradient there, and the gradient.
    diagonal : bool
        Whether only the coordinate directions are free.
    below : float
        Effective parameters below which a direction is as good as zero.

    Returns
    -------
    slope : float
        Least eigenvalue of the gradient on those directions; ``inf`` where there are none.
    direction : ndarray of shape (s,)
        Its eigenvector.
    """
    _, vectors, gamma = principal_directions(Sigma, N, diagonal=diagonal)
    basis = vectors[:, gamma < below]
    if basis.shape[1] == 0:
        return np.inf, np.zeros(len(Sigma))
    reduced = basis.T @ gradient @ basis
    if diagonal:
        reduced = np.diag(np.diag(reduced))
    slopes, combinations = np.linalg.eigh(reduced)
    return float(slopes[0]), basis @ combinations[:, 0]
