"""Small covariance matrices of any structure: roots, powers, directions of no variance."""

from __future__ import annotations

import numpy as np

from .._arrays import Array

RANK_TOLERANCE = 1e-14  # relative eigenvalues of a covariance below it are rounding
ZERO_INFORMATION = 1e-18  # a standard deviation whose share of the data rounds away
INSIDE = 1e-4  # smallest eigenvalue of correlations that are no boundary
VANISHED = 1e-6  # effective parameters below which a direction's variance is as good as zero


def null_directions(Sigma: Array) -> Array:
    """Orthonormal basis (s, r) of the directions in which a covariance is exactly zero.

    A covariance that a step set to zero in some direction keeps that up to rounding.
    """
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    return vectors[:, eigenvalues <= RANK_TOLERANCE * np.max(eigenvalues, initial=0.0)]


def matrix_power(matrix: Array, exponent: float) -> Array:
    """Power of a symmetric positive semi-definite matrix on its range."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    largest = np.max(eigenvalues, initial=0.0)
    positive = eigenvalues > len(matrix) * np.finfo(float).eps * largest
    powers = np.power(eigenvalues, exponent, out=np.zeros(len(matrix)), where=positive)
    return np.asarray((vectors * powers) @ vectors.T)


def matrix_root(Sigma: Array) -> Array:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T)


def covariance_factor(Sigma: Array, own: Array) -> tuple[Array, Array]:
    """``sd, vectors`` with ``T = vectors * sd``, ``TT' = Sigma``, null directions almost null.

    A direction of no variance still has a gradient, which decides whether it may stay at zero;
    columns of ``T`` that are tiny instead of zero let it be divided out exactly.
    """
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    null = eigenvalues <= RANK_TOLERANCE * eigenvalues[-1]
    floor = np.sqrt(ZERO_INFORMATION / max(float(np.max(np.trace(own))), 1.0))
    return np.where(null, floor, np.sqrt(np.where(null, 0.0, eigenvalues))), vectors


def is_inside(Sigma: Array) -> bool:
    """Whether a covariance is away from the boundary: no variance zero, no correlation one."""
    variances = np.diag(Sigma)
    if not np.all(variances > 0):
        return False
    sd = np.sqrt(variances)
    return bool(np.linalg.eigvalsh(Sigma / np.outer(sd, sd))[0] > INSIDE)
