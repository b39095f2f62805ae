"""The deviance's curvature at the optimum, by differences of its exact gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._arrays import Array
from ..evidence.solution import PenalizedSolution, Solve
from ..model.fitted import FittedModel
from .coordinates import Coordinates

DIFFERENCE = 1e-4  # step of a difference of gradients, in units of the coordinate
FLAT = 1e-8  # eigenvalue of the scaled Hessian relative to the largest that tells nothing
LEAST_MOVE = 1e-2  # of a standard deviation of zero, relative to that of y


@dataclass(frozen=True)
class Curvature:
    """The deviance around the optimum, and the covariance of the fixed effects there.

    Attributes
    ----------
    estimate : ndarray of shape (m,)
        Coordinates of the optimum.
    covariance : ndarray of shape (m, m)
        ``2 H^-1`` with the observed Hessian ``H`` of the deviance; zero for what has no slope.
    beta_cov : ndarray of shape (1 + p, 1 + p)
        Covariance of intercept and coefficients.
    beta_cov_slopes : ndarray of shape (m, 1 + p, 1 + p)
        Its derivatives.
    """

    estimate: Array
    covariance: Array
    beta_cov: Array
    beta_cov_slopes: Array


def curvature(model: FittedModel, solve: Solve, coordinates: Coordinates) -> Curvature:
    """Difference the exact gradient around the optimum.

    Parameters
    ----------
    model : FittedModel
        The fit.
    solve : callable
        Exact engine on its Gram blocks.
    coordinates : Coordinates
        In which the deviance is smooth.

    Returns
    -------
    Curvature
    """
    estimate = coordinates.at(model.variances)
    m, scale = len(estimate), move_sizes(coordinates, estimate)
    beta_cov = fixed_cov_at(model, solve(model.variances))
    slopes, H = np.zeros((m, *beta_cov.shape)), np.zeros((m, m))
    for j in range(m):
        step = DIFFERENCE * scale[j] * np.eye(m)[j]
        ends = [
            (phi, solve(coordinates.variances(phi))) for phi in (estimate + step, estimate - step)
        ]
        (above, cov_above), (below, cov_below) = (
            (coordinates.gradient(phi, solution), fixed_cov_at(model, solution))
            for phi, solution in ends
        )
        H[j] = (above - below) / (2 * step[j])
        slopes[j] = (cov_above - cov_below) / (2 * step[j])
    values, vectors = np.linalg.eigh(0.5 * (H + H.T) * np.outer(scale, scale))
    kept = values > FLAT * np.max(values, initial=0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return Curvature(estimate, 2.0 * inverse * np.outer(scale, scale), beta_cov, slopes)


def fixed_cov_at(model: FittedModel, solution: PenalizedSolution) -> Array:
    """Covariance (1 + p, 1 + p) of intercept and coefficients in the user's units."""
    return model.fixed.covariance(solution.beta_cov * model.y_scale**2)


def move_sizes(coordinates: Coordinates, phi: Array) -> Array:
    """Size of a coordinate's moves: of a standard deviation itself, or of what y leaves it."""
    unit = np.ones(len(phi))
    for place in coordinates.places:
        share = coordinates.model.active[place.term].start_share
        smallest = LEAST_MOVE * np.sqrt(share) * np.linalg.norm(place.back, axis=1)
        unit[place.sds] = np.maximum(np.abs(phi[place.sds]), smallest)
    if coordinates.model.freedom.residual:
        unit[-1] = phi[-1]
    return unit
