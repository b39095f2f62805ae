"""The fixed part in coordinates that arithmetic likes: centred and orthonormal.

The fit does not depend on the basis of ``X``. In an orthonormal one the Gram blocks are as well
conditioned as they can be, however badly scaled or nearly collinear the user's columns are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import Array, Matrix, is_sparse, largest_entry, to_dense
from .terms import CONSTANT
from .weighted import WeightedRows, unweighted_root_mean_square

COLLINEAR = 1e-11  # relative size of a pivot of X below which its column is a combination
TIE = 1e-7  # relative, by which a column is taken to be shorter than the one before it
COLLINEAR_SPARSE = 1e-5  # the same where only X'X is formed, which squares it


@dataclass(frozen=True)
class FixedPart:
    """Internal coordinates of the fixed columns, and the way back.

    Attributes
    ----------
    penalty : ndarray of shape (r,)
        Ridge penalty of each internal column.
    to_coefficients : ndarray of shape (1 + p, r)
        Maps internal coefficients to the intercept and the user's coefficients.
    has_intercept : bool
        Whether the last internal column is the intercept.
    log_det_basis : float
        ``log|det A|`` where ``X_internal = X_user A`` on the columns kept.
    dropped : ndarray of int
        Columns that are combinations of others.
    condition : float
        Ratio of the largest to the smallest pivot of the scaled columns kept.
    """

    penalty: Array
    to_coefficients: Array
    has_intercept: bool
    log_det_basis: float
    dropped: NDArray[np.intp]
    condition: float

    def covariance(self, beta_cov: Array) -> Array:
        """Covariance (1 + p, 1 + p) of intercept and coefficients."""
        return np.asarray(self.to_coefficients @ beta_cov @ self.to_coefficients.T)


def center_columns(X: Matrix, rows: WeightedRows, *, fit_intercept: bool) -> tuple[Matrix, Array]:
    """Columns less their means where there is an intercept; sparse ones stay as they are.

    Parameters
    ----------
    X : ndarray or sparse array of shape (n, p)
        The user's columns; overwritten where dense.
    rows : WeightedRows
        Row weights.
    fit_intercept : bool
        Whether a shift of the columns is a mere change of the intercept.

    Returns
    -------
    columns : ndarray or sparse array of shape (n, p)
    center : ndarray of shape (p,)
        What was subtracted.
    """
    center = np.zeros(X.shape[1])
    if is_sparse(X):
        return X, center
    if fit_intercept and X.shape[1]:
        center = rows.mean(X)
    return _centered(X, center, rows), center


def build_fixed_part(
    columns: Matrix, center: Array, rows: WeightedRows, *, alpha: float, fit_intercept: bool
) -> tuple[Matrix, FixedPart]:
    """Scale ``X`` and reveal its rank.

    Without a penalty a dense ``X`` becomes orthonormal, by a QR decomposition with column
    pivoting. A column that depends on the others is dropped and gets coefficient 0. With a penalty
    the columns are scaled only.

    Parameters
    ----------
    columns : ndarray or sparse array of shape (n, p)
        From `center_columns`.
    center : ndarray of shape (p,)
        What has been subtracted from them.
    rows : WeightedRows
        Row weights that count rows: their sum is the number of rows.
    alpha : float
        Ridge penalty, 0.0 for none.
    fit_intercept : bool
        Whether to add an unpenalised intercept.

    Returns
    -------
    X : ndarray or sparse array of shape (n, r)
        Internal columns; the intercept, if any, last.
    FixedPart
    """
    p = columns.shape[1]
    on_sparse = is_sparse(columns)
    scale = unweighted_root_mean_square(columns) if on_sparse else rows.root_mean_square(columns)
    kept, condition = np.arange(p), 1.0
    if alpha > 0:
        basis, log_det = np.diag(1.0 / scale), 0.0
    elif on_sparse:
        kept, condition = _independent_sparse(columns, by_position(scale), rows, fit_intercept)
        basis = np.diag(1.0 / scale)[:, kept]
        log_det = -float(np.sum(np.log(scale[kept])))
    else:
        basis, kept, condition = _orthonormal_basis(columns, by_position(scale), rows)
        log_det = float(np.linalg.slogdet(basis[kept])[1]) if len(kept) else 0.0
    X, penalty, to_coefficients = _in_basis(columns, basis, center, alpha, fit_intercept)
    dropped = np.setdiff1d(np.arange(p), kept)
    return X, FixedPart(penalty, to_coefficients, fit_intercept, log_det, dropped, condition)


def least_norm_fixed_part(
    columns: Matrix, center: Array, rows: WeightedRows, X: Matrix, fixed: FixedPart
) -> tuple[Matrix, FixedPart]:
    """The same span in a basis whose coefficients have least norm, the limit of ``Ridge``.

    Parameters
    ----------
    columns, center, rows
        As for `build_fixed_part`; sparse columns become dense, which is no burden where they are no
        fewer than the rows.
    X, fixed
        What it made of them, without a penalty.

    Returns
    -------
    X : ndarray of shape (n, r)
        Internal columns.
    FixedPart
        No column is dropped.
    """
    rank = columns.shape[1] - len(fixed.dropped)
    if is_sparse(columns):
        dense = to_dense(columns)
        center = rows.average(dense) * fixed.has_intercept
        columns = _centered(dense, center, rows)
    root = np.sqrt(rows.weights / rows.total)[:, None]
    _, singular_values, vectors = linalg.svd(root * columns, full_matrices=False)
    basis = np.asarray(vectors[:rank].T / singular_values[:rank])
    new, penalty, to_coefficients = _in_basis(columns, basis, center, 0.0, fixed.has_intercept)
    # Both bases have one span, so that the criterion is that of the columns that were kept.
    log_det = fixed.log_det_basis + 0.5 * (_log_det_gram(new, rows) - _log_det_gram(X, rows))
    return new, FixedPart(
        penalty=penalty,
        to_coefficients=to_coefficients,
        has_intercept=fixed.has_intercept,
        log_det_basis=log_det,
        dropped=fixed.dropped[:0],
        condition=fixed.condition,
    )


def by_position(scale: Array) -> Array:
    """Units in which the first of columns of one length is the longest, whatever their rounding.

    Which of two collinear columns is dropped is then decided by their position. The fit depends on
    no unit.
    """
    return np.asarray(scale * (1.0 + TIE * np.arange(len(scale))))


def _log_det_gram(X: Matrix, rows: WeightedRows) -> float:
    return float(np.linalg.slogdet(rows.gram(X))[1]) if X.shape[1] else 0.0


def _in_basis(
    columns: Matrix, basis: Array, center: Array, alpha: float, fit_intercept: bool
) -> tuple[Matrix, Array, Array]:
    """Internal columns, their penalty, and the map to the user's coefficients."""
    # alpha |coef|^2 with coef = basis @ beta; basis is diagonal wherever alpha is positive.
    penalty = alpha * np.sum(basis**2, axis=0)
    X = columns @ (sparse.csr_array(basis) if is_sparse(columns) else basis)
    to_coefficients = np.vstack([-center @ basis, basis])
    if fit_intercept:
        one = np.ones((columns.shape[0], 1))
        if is_sparse(X):
            X = sparse.hstack([X, sparse.csr_array(one)], format="csr")
        else:
            X = np.hstack([X, one])
        penalty = np.append(penalty, 0.0)
        to_coefficients = np.column_stack([to_coefficients, np.eye(len(basis) + 1)[0]])
    return X, penalty, to_coefficients


def _centered(X: Array, center: Array, rows: WeightedRows) -> Array:
    """``X - center``, in place where it may be, exactly zero where a column is constant."""
    largest = largest_entry(X)
    columns = np.subtract(X, center, out=X if X.flags.writeable else None)
    if np.any(center):
        constant = rows.root_mean_square(columns) <= CONSTANT * largest
        columns[:, constant] = 0.0
        # Rounding of a large mean would leave the columns a common direction more.
        columns -= rows.mean(columns)
    return columns


def _orthonormal_basis(
    columns: Array, scale: Array, rows: WeightedRows
) -> tuple[Array, NDArray[np.intp], float]:
    """Basis (p, r) with ``columns @ basis`` orthogonal and of unit root mean square."""
    p = columns.shape[1]
    if p == 0:
        return np.zeros((0, 0)), np.arange(0), 1.0
    _, R, pivots = linalg.qr(rows.triangle(columns, scale), mode="economic", pivoting=True)
    # With a positive diagonal it is the Cholesky factor of X'WX, by which sums find the basis.
    R = R * np.where(np.diag(R) < 0, -1.0, 1.0)[:, None]
    sizes = np.diag(R)
    rank = int(np.sum(sizes > COLLINEAR * max(sizes[0], np.finfo(float).tiny)))
    basis = np.zeros((p, rank))
    if rank:
        kept = linalg.solve_triangular(R[:rank, :rank], np.eye(rank))
        basis[pivots[:rank]] = kept / scale[pivots[:rank], None]
    condition = float(sizes[0] / sizes[rank - 1]) if rank else 1.0
    return basis, np.sort(pivots[:rank]), condition


def _independent_sparse(
    X: Matrix, scale: Array, rows: WeightedRows, fit_intercept: bool
) -> tuple[NDArray[np.intp], float]:
    """Independent columns of a sparse X and their condition, by pivoted Cholesky of ``X'X``."""
    scaled = X @ sparse.diags_array(1.0 / scale)
    gram = rows.covariance(scaled, about_mean=fit_intercept)
    # LAPACK takes the first pivot however small it is.
    constant = np.diag(gram) <= COLLINEAR_SPARSE**2
    gram[constant] = gram[:, constant] = 0.0
    chol, pivots, rank, _ = linalg.lapack.dpstrf(gram, tol=COLLINEAR_SPARSE**2, lower=1)
    condition = float(chol[0, 0] / chol[rank - 1, rank - 1]) if rank else 1.0
    return np.sort(pivots[:rank] - 1).astype(np.intp), condition
