"""Least squares in each level alone: what random effects shrank from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from ..frames.tables import read_target
from .reading import FittedEstimator, level_rows

SAME_DIRECTION = 1e-10  # ratio of eigenvalues below which a level's columns are dependent


def check_unpooled(unpooled: Array) -> None:
    """Refuse estimates none of which is known."""
    if not np.isfinite(unpooled).all(axis=1).any():
        raise ValueError("No level has rows enough for an unpooled estimate.")


def unpooled_effects(
    estimator: FittedEstimator, factor: str, X: object, y: object, groups: object
) -> Array:
    """What each level's rows alone say of its effects, all else as fitted."""
    if X is None or y is None:
        raise ValueError("A shrinkage plot needs the rows: give X and y.")
    codes, columns = level_rows(estimator, factor, X, groups)
    others = [name for name in estimator.groups_ if name != factor]
    target = read_target(estimator, y, len(codes))
    if target.ndim != 1:
        raise ValueError("A shrinkage plot needs one output: give y of shape (n_samples,).")
    rest = target - estimator.predict(X, groups, effects=others)
    return least_squares_by_level(codes, columns, rest, len(estimator.random_effects_[factor]))


def least_squares_by_level(
    codes: NDArray[np.integer[Any]], columns: Array, y: Array, n_levels: int
) -> Array:
    """Coefficients of y on the columns, level by level.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Level of each row, -1 for none.
    columns : ndarray of shape (s, n)
        Columns.
    y : ndarray of shape (n,)
        Response.
    n_levels : int
        Number of levels.

    Returns
    -------
    ndarray of shape (n_levels, s)
        NaN for a level whose rows do not tell its coefficients apart.
    """
    known = codes >= 0
    codes, columns, y = codes[known], columns[:, known], y[known]
    s = len(columns)
    size = np.sqrt(np.sum(columns**2, axis=1))
    columns = columns / np.where(size > 0, size, 1.0)[:, np.newaxis]

    def sums(values: Array) -> Array:
        return np.asarray(np.bincount(codes, weights=values, minlength=n_levels), dtype=float)

    gram = np.stack([sums(a * b) for a in columns for b in columns], axis=-1).reshape(-1, s, s)
    right = np.stack([sums(a * y) for a in columns], axis=-1)
    eigenvalues = np.linalg.eigvalsh(gram)
    told_apart = eigenvalues[:, 0] > SAME_DIRECTION * eigenvalues[:, -1]
    coefficients = np.full((n_levels, s), np.nan)
    solved = np.linalg.solve(gram[told_apart], right[told_apart][..., np.newaxis])
    coefficients[told_apart] = solved[..., 0] / size
    return coefficients
