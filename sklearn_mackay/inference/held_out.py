"""Predictions of rows by a model that did not see them, from one fit at given variances.

Leaving rows ``J`` out of the equations changes the residuals ``e_J`` to ``(I - H_JJ)^-1 e_J`` with
``H = W C W' Omega / sigma2``, where ``W`` are the rows of ``[Z X]``, ``Omega`` their weights and
``C`` is the covariance of the effects; and ``v = W_J C W_J'`` to ``(I - H_JJ)^-1 v``. Equation (18)
of docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import Array, to_dense
from .._messages import Message
from ..frames.making import Backend, make_frame
from ..model.fitted import FittedModel, Rows
from ..model.prediction import NewRows, Predictor

Index = NDArray[np.intp]
Folds = Sequence[Index]

UNDETERMINED = 1e-10  # of 1 - h: what is left when the row alone determines an effect
LARGEST_FOLD = 5000  # order of a dense matrix that takes seconds to factorise


@dataclass(frozen=True)
class HeldOut:
    """What a model without a row says about it, row by row.

    Attributes
    ----------
    mean : ndarray of shape (n_samples,)
        Prediction, in units of y.
    std : ndarray of shape (n_samples,)
        Standard deviation of a new y there, in units of y.
    log_density : ndarray of shape (n_samples,)
        Natural logarithm of the normal density with this mean and std at the row's y; the sum
        compares models of the same y.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> held_out = model.loo_predict(X, y)
    >>> print(((y - held_out.mean) / held_out.std).std().round(2))
    1.0
    """

    mean: Array
    std: Array
    log_density: Array

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of it.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `mean`, `std` and `log_density`, row by row.

        Raises
        ------
        ValueError
            For another library.
        ImportError
            Where it is not installed.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> model.loo_predict(X, y).to_frame().columns.tolist()
        ['mean', 'std', 'log_density']
        """
        columns = {"mean": self.mean, "std": self.std, "log_density": self.log_density}
        return make_frame(columns, backend)


def rows_by_level(factor: str, rows: NewRows) -> list[Index]:
    """Rows of each level of a factor, as folds."""
    codes = rows.factors[factor].codes
    order = np.argsort(codes, kind="stable")
    _, starts = np.unique(codes[order], return_index=True)
    return np.split(order, starts[1:])


def hold_out_rows(
    model: FittedModel,
    predictor: Predictor,
    rows: NewRows,
    y: Array,
    weights: Array,
    folds: Folds | None,
    *,
    is_precision: bool,
) -> HeldOut:
    """Predict the rows of a fit, each fold by what all other rows give.

    Parameters
    ----------
    model : FittedModel
        Of all rows, at the variances that are to hold without a fold as well.
    predictor : Predictor
        The same fit.
    rows : NewRows
        All rows.
    y, weights : ndarray of shape (n,)
        Responses and row weights.
    folds : sequence of ndarray of int, or None
        Rows that are left out together; None for each row alone.
    is_precision : bool
        Whether a weight divides the residual variance of its row.

    Returns
    -------
    HeldOut
    """
    noise = np.full(len(y), model.sigma2)
    if is_precision:
        noise = noise / np.where(weights > 0, weights, 1.0)
    known, _ = predictor.internal_rows(model, rows, rows.factors)
    return hold_out(model, known, y, y - predictor.mean(rows), weights, noise, folds)


def lost_rows(mean: Array) -> list[Message]:
    """Say how many rows cannot be predicted without their fold."""
    n_lost = int(np.sum(np.isnan(mean)))
    if not n_lost:
        return []
    return [
        Message(
            f"{n_lost} of the rows cannot be predicted without their fold, which alone "
            "determines a fixed effect: they are NaN. Use smaller folds or more rows, or "
            "remove fixed features that are zero elsewhere."
        )
    ]


def hold_out(
    model: FittedModel,
    rows: Rows,
    y: Array,
    residual: Array,
    weights: Array,
    noise: Array,
    folds: Folds | None,
) -> HeldOut:
    """Predict each fold by the model that all other rows give, at the same variances.

    Parameters
    ----------
    model : FittedModel
        Of all rows.
    rows : Rows
        The same rows.
    y, residual, weights : ndarray of shape (n,)
        Responses, what the model leaves of them, and row weights as the residual variance means
        them.
    noise : ndarray of shape (n,)
        Residual variance of each row.
    folds : sequence of ndarray of int, or None
        Rows that are left out together, each row in one fold; None for each row alone.

    Returns
    -------
    HeldOut
        NaN where the fold alone determines an effect, so that nothing can be predicted.

    Raises
    ------
    ValueError
        For a fold with more than 5,000 rows that touches more than 5,000 effects.
    """
    scale = model.share_of_errors * model.y_scale**2
    omega = weights / model.sigma2
    if folds is None:
        v = scale * model.posterior.variance(rows.known)
        share = 1.0 - omega * v
        share = np.where(share > UNDETERMINED, share, np.nan)
        left, variance = residual / share, v / share
    else:
        left, variance = residual.copy(), np.empty(len(y))
        small = [fold for fold in folds if 0 < len(fold) <= LARGEST_FOLD]
        covariances = model.posterior.covariances(rows.known, small)
        for fold, v in zip(small, covariances, strict=True):
            left[fold], variance[fold] = _leave_out(scale * v, residual[fold], omega[fold])
        for fold in (fold for fold in folds if len(fold) > LARGEST_FOLD):
            left[fold], variance[fold] = _leave_many_out(
                model, rows.known[fold], residual[fold], omega[fold]
            )
    total = variance + rows.prior_variance * model.y_scale**2 + noise
    log_density = -0.5 * (np.log(2 * np.pi * total) + left**2 / total)
    return HeldOut(y - left, np.sqrt(total), log_density)


def _leave_out(v: Array, residual: Array, omega: Array) -> tuple[Array, Array]:
    """Residuals and variances of the mean without the fold's rows."""
    root = np.sqrt(omega)
    on_v = v * root
    M = np.eye(len(v)) - root[:, None] * on_v
    cholesky, failed = linalg.lapack.dpotrf(M, lower=1)
    if failed or np.min(cholesky.diagonal()) ** 2 <= UNDETERMINED:
        return _leave_out_singular(v, on_v, M, residual, root * residual)
    turned = linalg.solve_triangular(cholesky, on_v.T, lower=True, check_finite=False)
    weighted = linalg.solve_triangular(cholesky, root * residual, lower=True, check_finite=False)
    return residual + weighted @ turned, np.diag(v) + np.einsum("ji,ji->i", turned, turned)


def _leave_out_singular(
    v: Array, on_v: Array, M: Array, residual: Array, weighted: Array
) -> tuple[Array, Array]:
    """The same where the fold alone determines an effect; NaN for the rows that need it."""
    values, vectors = np.linalg.eigh(M)
    gone = values <= UNDETERMINED
    inverse = np.where(gone, 0.0, 1.0 / np.where(gone, 1.0, values))
    turned = on_v @ vectors
    left = residual + turned @ (inverse * (vectors.T @ weighted))
    variance = np.diag(v) + np.einsum("ij,j,ij->i", turned, inverse, turned)
    lost = np.any(np.abs(turned[:, gone]) > UNDETERMINED * np.sqrt(np.max(v)), axis=1)
    return np.where(lost, np.nan, left), np.where(lost, np.nan, variance)


def _leave_many_out(
    model: FittedModel, rows: Any, residual: Array, omega: Array
) -> tuple[Array, Array]:
    """The same where the rows are more than the effects that they touch."""
    touched = np.unique(rows.indices)
    if len(touched) > LARGEST_FOLD:
        raise ValueError(
            f"A fold of {rows.shape[0]:,} rows touches {len(touched):,} effects; the closed form "
            f"takes up to {LARGEST_FOLD:,} of one or the other. Use smaller folds, or "
            "sklearn.model_selection.cross_val_predict."
        )
    units = sparse.csr_array(
        (np.ones(len(touched)), touched, np.arange(len(touched) + 1)),
        shape=(len(touched), rows.shape[1]),
    )
    C = model.share_of_errors * model.y_scale**2 * model.posterior.covariance(units)
    W = rows[:, touched]
    gram = to_dense(W.T @ W.multiply(omega[:, None]))
    M = np.eye(len(touched)) - gram @ C
    lu = linalg.lu_factor(M.T)
    without = linalg.lu_solve(lu, C).T  # C (I - gram C)^-1
    if np.min(np.abs(np.diag(lu[0]))) <= UNDETERMINED:
        without = np.full_like(C, np.nan)
    left = residual + W @ (without @ (W.T @ (omega * residual)))
    return np.asarray(left), np.einsum("ij,ij->i", np.asarray(W @ without), to_dense(W))
