"""The fixed part in coordinates that arithmetic likes: centred, orthonormal, taken out of y.

The fit does not depend on the basis of ``X``. In an orthonormal one the Gram blocks are as well
conditioned as they can be, however badly scaled or nearly collinear the user's columns are, and
with ``y`` regressed on ``X`` first, ``y'Py`` is no difference of large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.linalg import norm as sparse_norm

from .._arrays import Array, largest_entry, root_mean_square, row_blocks, row_scaled, to_dense
from .terms import CONSTANT

COLLINEAR = 1e-11  # relative size of a pivot of X below which its column is a combination
COLLINEAR_SPARSE = 1e-5  # the same where only X'X is formed, which squares it
SATURATED = 1e-10  # relative residual of y on X below which X explains every row


@dataclass(frozen=True)
class FixedPart:
    """Fixed columns in internal coordinates, and the way back.

    Attributes
    ----------
    X : ndarray or sparse array of shape (n, r)
        Internal columns; the intercept, if any, last.
    y : ndarray of shape (n,) or (n, t)
        Response less its regression on the unpenalised columns.
    penalty : ndarray of shape (r,)
        Ridge penalty of each internal column.
    to_coefficients : ndarray of shape (1 + p, r)
        Maps internal coefficients to the intercept and the user's coefficients.
    offset : ndarray of shape (r,) or (r, t)
        Internal coefficients of the regression already taken out of y.
    log_det_basis : float
        ``log|det A|`` where ``X_internal = X_user A`` on the columns kept.
    dropped : ndarray of int
        Columns that are combinations of others.
    condition : float
        Ratio of the largest to the smallest pivot of the scaled columns kept.
    """

    X: Any
    y: Array
    penalty: Array
    to_coefficients: Array
    offset: Array
    log_det_basis: float
    dropped: NDArray[np.intp]
    condition: float

    def without_rows(self) -> FixedPart:
        """What is left to know once the Gram blocks are built."""
        return replace(self, X=self.X[:0].copy(), y=self.y[:0].copy())

    def for_output(self, output: int) -> FixedPart:
        """One of several responses."""
        return replace(self, y=self.y[:, output], offset=self.offset[:, output])

    def coefficients(self, beta: Array) -> Array:
        """Intercept and coefficients (1 + p,) for internal ``beta`` of the reduced response."""
        return np.asarray(self.to_coefficients @ (self.offset + beta))

    def covariance(self, beta_cov: Array) -> Array:
        """Covariance (1 + p, 1 + p) of intercept and coefficients."""
        return np.asarray(self.to_coefficients @ beta_cov @ self.to_coefficients.T)


def build_fixed_part(
    X: Any, y: Array, weights: Array, *, alpha: float, fit_intercept: bool
) -> FixedPart:
    """Centre, scale and rank-reveal ``X``; take the regression on it out of ``y``.

    Without a penalty a dense ``X`` becomes orthonormal, by a QR decomposition with column
    pivoting. A column that depends on the others is dropped and gets coefficient 0, unless the
    columns explain every row: then the coefficients are those of least norm, the limit of
    ``Ridge``. With a penalty the columns are centred and scaled only.

    Parameters
    ----------
    X : ndarray or sparse array of shape (n, p)
        The user's fixed columns; overwritten where dense.
    y : ndarray of shape (n,) or (n, t)
        Response, or several.
    weights : ndarray of shape (n,)
        Positive row weights that count rows: their sum is the number of rows.
    alpha : float
        Ridge penalty, 0.0 for none.
    fit_intercept : bool
        Whether to add an unpenalised intercept.

    Returns
    -------
    FixedPart
    """
    p = X.shape[1]
    is_sparse = sparse.issparse(X)
    center = np.zeros(p)
    if fit_intercept and not is_sparse and p:
        center = _mean(X, weights)
    columns = X if is_sparse else _centered(X, center, weights)
    scale = _sparse_scale(X) if is_sparse else root_mean_square(columns, weights)
    kept, condition = np.arange(p), 1.0
    if alpha > 0:
        basis, log_det = np.diag(1.0 / scale), 0.0
    elif is_sparse:
        kept, condition = _independent_sparse(X, scale, weights, fit_intercept)
        basis = np.diag(1.0 / scale)[:, kept]
        log_det = -float(np.sum(np.log(scale[kept])))
    else:
        basis, kept, condition = _orthonormal_basis(columns, scale, weights)
        log_det = float(np.linalg.slogdet(basis[kept])[1]) if len(kept) else 0.0
    part = _assemble(columns, y, weights, basis, center, alpha, fit_intercept)
    if len(kept) < p and _is_saturated(part, y, weights, p + fit_intercept):
        if is_sparse:  # no more rows than columns: dense is no burden
            dense = to_dense(X)
            center = np.average(dense, axis=0, weights=weights) * fit_intercept
            columns = _centered(dense, center, weights)
        basis = _least_norm_basis(columns, weights, len(kept))
        part = _assemble(columns, y, weights, basis, center, alpha, fit_intercept)
        kept, log_det = np.arange(p), 0.0
    residual, coefficients, penalty, X_internal, to_coefficients = part
    return FixedPart(
        X=X_internal,
        y=residual,
        penalty=penalty,
        to_coefficients=to_coefficients,
        offset=coefficients,
        log_det_basis=log_det,
        dropped=np.setdiff1d(np.arange(p), kept),
        condition=condition,
    )


def _mean(X: Array, weights: Array) -> Array:
    return np.asarray(weights @ X / np.sum(weights))


def _centered(X: Array, center: Array, weights: Array) -> Array:
    """``X - center``, in place where it may be, exactly zero where a column is constant."""
    largest = largest_entry(X)
    columns = np.subtract(X, center, out=X if X.flags.writeable else None)
    if np.any(center):
        constant = root_mean_square(columns, weights) <= CONSTANT * largest
        columns[:, constant] = 0.0
        # Rounding of a large mean would leave the columns a common direction more.
        columns -= _mean(columns, weights)
    return columns


def _assemble(
    columns: Any,
    y: Array,
    weights: Array,
    basis: Array,
    center: Array,
    alpha: float,
    fit_intercept: bool,
) -> tuple[Array, Array, Array, Any, Array]:
    """Residual of y, its coefficients, penalty, internal X, map to the user's coefficients."""
    # alpha |coef|^2 with coef = basis @ beta; basis is diagonal wherever alpha is positive.
    penalty = alpha * np.sum(basis**2, axis=0)
    X = columns @ (sparse.csr_array(basis) if sparse.issparse(columns) else basis)
    to_coefficients = np.vstack([-center @ basis, basis])
    if fit_intercept:
        one = np.ones((len(y), 1))
        X = sparse.hstack([X, one], format="csr") if sparse.issparse(X) else np.hstack([X, one])
        penalty = np.append(penalty, 0.0)
        to_coefficients = np.column_stack([to_coefficients, np.eye(len(basis) + 1)[0]])
    free = np.flatnonzero(penalty == 0.0)
    coefficients = np.zeros((len(penalty), *y.shape[1:]))
    residual = y
    if fit_intercept:
        # Exact where the offset is large beside what varies; a product with X would round it.
        coefficients[-1] = _mean(y, weights)
        residual = y - coefficients[-1]
    if len(free):
        X_free = X if len(free) == X.shape[1] else X[:, free]
        gram = sum(
            to_dense(X_free[rows].T @ row_scaled(X_free[rows], weights[rows]))
            for rows in row_blocks(*X_free.shape)
        )
        # A second pass removes what rounding left in the first.
        for _ in range(2):
            delta = linalg.lstsq(gram, X_free.T @ (weights * residual.T).T)[0]
            residual = residual - X_free @ delta
            coefficients[free] += delta
    return residual, coefficients, penalty, X, to_coefficients


def _orthonormal_basis(
    columns: Array, scale: Array, weights: Array
) -> tuple[Array, NDArray[np.intp], float]:
    """Basis (p, r) with ``columns @ basis`` orthogonal and of unit root mean square."""
    p = columns.shape[1]
    if p == 0:
        return np.zeros((0, 0)), np.arange(0), 1.0
    R = np.zeros((0, p))
    total = np.sum(weights)
    for rows in row_blocks(*columns.shape):
        root = np.sqrt(weights[rows] / total)[:, None]
        stacked = np.vstack([R, root * (columns[rows] / scale)])
        R = np.asarray(np.linalg.qr(stacked, mode="r"))
    _, R, pivots = linalg.qr(R, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(R))
    rank = int(np.sum(sizes > COLLINEAR * max(sizes[0], np.finfo(float).tiny)))
    basis = np.zeros((p, rank))
    if rank:
        kept = linalg.solve_triangular(R[:rank, :rank], np.eye(rank))
        basis[pivots[:rank]] = kept / scale[pivots[:rank], None]
    condition = float(sizes[0] / sizes[rank - 1]) if rank else 1.0
    return basis, np.sort(pivots[:rank]), condition


def _least_norm_basis(columns: Array, weights: Array, rank: int) -> Array:
    """Right singular vectors: coefficients in their span have least norm."""
    root = np.sqrt(weights / np.sum(weights))[:, None]
    _, singular_values, rows = linalg.svd(root * columns, full_matrices=False)
    return np.asarray(rows[:rank].T / singular_values[:rank])


def _is_saturated(part: Any, y: Array, weights: Array, n_columns: int) -> bool:
    """Whether the fixed part leaves no residual, or could not with as many columns as rows."""
    residual = weights @ part[0] ** 2
    total = weights @ (y - np.average(y, axis=0, weights=weights)) ** 2
    return bool(n_columns >= float(np.sum(weights)) or np.all(residual <= SATURATED**2 * total))


def _sparse_scale(X: Any) -> Array:
    norms = sparse_norm(X, axis=0) / np.sqrt(X.shape[0])
    return np.where(norms > 0, norms, 1.0)


def _independent_sparse(
    X: Any, scale: Array, weights: Array, fit_intercept: bool
) -> tuple[NDArray[np.intp], float]:
    """Independent columns of a sparse X and their condition, by pivoted Cholesky of ``X'X``."""
    scaled = X @ sparse.diags_array(1.0 / scale)
    gram = _centered_gram(scaled, weights, fit_intercept)
    # LAPACK takes the first pivot however small it is.
    constant = np.diag(gram) <= COLLINEAR_SPARSE**2
    gram[constant] = gram[:, constant] = 0.0
    chol, pivots, rank, _ = linalg.lapack.dpstrf(gram, tol=COLLINEAR_SPARSE**2, lower=1)
    condition = float(chol[0, 0] / chol[rank - 1, rank - 1]) if rank else 1.0
    return np.sort(pivots[:rank] - 1).astype(np.intp), condition


def _centered_gram(X: Any, weights: Array, fit_intercept: bool) -> Array:
    """Weighted covariance of sparse columns, about zero without an intercept."""
    gram = to_dense(X.T @ row_scaled(X, weights)) / np.sum(weights)
    mean = (X.T @ weights / np.sum(weights)) * fit_intercept
    return gram - np.outer(mean, mean)
