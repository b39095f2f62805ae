"""Least squares in each level alone: what random effects shrank from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array
from ..frames.tables import read_target

SAME_DIRECTION = 1e-10  # ratio of eigenvalues below which a level's columns are dependent


def model_inside(estimator: Any, X: Any = None, y: Any = None) -> tuple[Any, Any, Any]:
    """Find the fitted mixed model in an estimator, and rows as they reach it."""
    model, passed = estimator, []
    while not hasattr(model, "random_effects_"):
        check_is_fitted(model)
        passed.append(type(model).__name__)
        if isinstance(model, Pipeline):
            before, model = model[:-1], model[-1]
            X = before.transform(X) if len(before) and X is not None else X
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, TransformedTargetRegressor):
            y = y if y is None else _transformed_target(model.transformer_, y)
            model = model.regressor_
        else:
            raise TypeError(
                "Expected `estimator` to be a fitted MacKayMixedRegressor, or a pipeline, a search "
                f"or a TransformedTargetRegressor of one, got {' of '.join(passed)}."
            )
    if np.ndim(model.intercept_):
        raise ValueError(
            "This model was fitted on several outputs: to display it fit one, with y of shape "
            "(n_samples,)."
        )
    return model, X, y


def _transformed_target(transformer: Any, y: Any) -> Any:
    """A response as TransformedTargetRegressor hands it on: a column to transform, and back."""
    y = np.asarray(y)
    return transformer.transform(y[:, np.newaxis]).ravel() if y.ndim == 1 else y


def check_unpooled(unpooled: Array) -> None:
    """Refuse estimates none of which is known."""
    if not np.isfinite(unpooled).all(axis=1).any():
        raise ValueError("No level has rows enough for an unpooled estimate.")


def _level_rows(
    estimator: Any, factor: str, X: Any, groups: Any
) -> tuple[NDArray[np.integer[Any]], Array]:
    """Level of each row, -1 for one not known, and the columns (s, n) of its coefficients."""
    estimator._require_labels(groups)
    codes, columns = estimator._read_rows(X, groups, [factor]).factors[factor]
    return codes, columns


def unpooled_effects(estimator: Any, factor: str, X: Any, y: Any, groups: Any) -> Array:
    """What each level's rows alone say of its effects, all else as fitted."""
    if X is None or y is None:
        raise ValueError("A shrinkage plot needs the rows: give X and y.")
    codes, columns = _level_rows(estimator, factor, X, groups)
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
