"""Small covariance matrices: roots, units of their entries, directions of no variance."""

from __future__ import annotations

import numpy as np

from .._arrays import Array

RANK_TOLERANCE = 1e-14  # relative eigenvalues of a covariance below it are rounding
VANISHED = 1e-6  # effective parameters below which a direction's variance is as good as zero


def n_units(s: int, diagonal: bool) -> int:
    """Count the free entries of a covariance of order ``s``."""
    return s if diagonal else s * (s + 1) // 2


def symmetric_units(s: int, *, diagonal: bool) -> Array:
    """Symmetric units ``E_ab`` of shape (m, s, s), the coordinates of a covariance.

    Parameters
    ----------
    s : int
        Order of the matrix.
    diagonal : bool
        Only ``E_aa``.

    Returns
    -------
    ndarray of shape (m, s, s)
        ``m`` is ``s`` or ``s (s + 1) / 2``; lower triangle row by row.
    """
    pairs = [(a, b) for a in range(s) for b in range(a + 1) if a == b or not diagonal]
    units = np.zeros((len(pairs), s, s))
    for unit, (a, b) in zip(units, pairs, strict=True):
        unit[a, b] = unit[b, a] = 1.0
    return units


def null_directions(Sigma: Array) -> Array:
    """Orthonormal basis (s, r) of the directions in which a covariance is exactly zero.

    A covariance that a step set to zero in some direction keeps that up to rounding.
    """
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    return vectors[:, eigenvalues <= RANK_TOLERANCE * max(float(eigenvalues[-1]), 0.0)]


def principal_directions(Sigma: Array, N: Array, *, diagonal: bool) -> tuple[Array, Array, Array]:
    """Variances of a covariance along its eigenvectors, and their effective parameters.

    Parameters
    ----------
    Sigma, N : ndarray of shape (s, s)
        A covariance, and the trace part of the deviance's gradient there.
    diagonal : bool
        Whether the coordinates are the only directions.

    Returns
    -------
    variances : ndarray of shape (s,)
        Eigenvalues, rounding set to zero.
    vectors : ndarray of shape (s, s)
        Eigenvectors by column.
    gamma : ndarray of shape (s,)
        ``variance * w'N w`` of each eigenvector w.
    """
    variances, vectors = principal_variances(Sigma, diagonal=diagonal)
    return variances, vectors, variances * np.einsum("ai,ab,bi->i", vectors, N, vectors)


def principal_variances(Sigma: Array, *, diagonal: bool) -> tuple[Array, Array]:
    """Eigenvalues of a covariance, rounding set to zero, and eigenvectors by column.

    The coordinates are the only directions of a diagonal covariance, in their own order.
    """
    variances, vectors = np.linalg.eigh(Sigma)
    if diagonal:
        variances, vectors = np.diag(Sigma), np.eye(len(Sigma))
    floor = RANK_TOLERANCE * max(float(np.max(variances, initial=0.0)), 0.0)
    return np.where(variances > floor, variances, 0.0), vectors


def matrix_root(Sigma: Array) -> Array:
    """Symmetric square root of a positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T)


ZERO_INFORMATION = 1e-18  # a standard deviation whose share of the data rounds away


def covariance_factor(Sigma: Array, own: Array) -> tuple[Array, Array]:
    """``sd, vectors`` with ``T = vectors * sd``, ``TT' = Sigma``, null directions almost null.

    A direction of no variance still has a gradient, which decides whether it may stay at zero;
    columns of ``T`` that are tiny instead of zero let it be divided out exactly.
    """
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    null = eigenvalues <= RANK_TOLERANCE * eigenvalues[-1]
    floor = np.sqrt(ZERO_INFORMATION / max(float(np.max(np.trace(own))), 1.0))
    return np.where(null, floor, np.sqrt(np.where(null, 0.0, eigenvalues))), vectors
