"""Feature blocks: columns whose coefficients share one variance, as terms like any other.

The prior ``b ~ N(0, tau2 I)`` does not change when the coefficients are rotated. Along the
principal axes ``V`` of the block, ``Z_r = Z V`` with ``Z'WZ = V D^2 V'``, the columns are
orthogonal: each axis is a level that meets no other level of its term, and ``b = V c``. Where there
are more columns than rows, the axes come from the matrix ``W^1/2 ZZ'W^1/2 = U D^2 U'`` of the rows,
``Z_r = W^-1/2 U D`` and ``b = Z'W^1/2 U D^-1 c``: no matrix of the columns' order is ever formed.
Where rows and columns are both too many for an eigendecomposition, the columns stay as they are,
and products with ``Z'WZ`` go through the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .._arrays import Array, Matrix, is_sparse, row_blocks, to_dense
from .weighted import WeightedRows

NEGLIGIBLE = 1e-14  # eigenvalue relative to the largest that is rounding
LARGEST_GRAM = 3000  # order of a matrix whose eigendecomposition takes seconds


@dataclass(frozen=True)
class Block:
    """Columns of a feature block, centred where there is an intercept, of unit mean square.

    Attributes
    ----------
    columns : ndarray or sparse array of shape (n, p)
        The user's columns.
    center : ndarray of shape (p,)
        What is subtracted from them.
    scale : float
        What they are divided by, the same for all.
    principal : ndarray of shape (n, r) or None
        ``Z_r`` where there are more columns than rows.
    dual : ndarray of shape (n, r) or None
        ``W^1/2 U D^-1`` then.
    """

    columns: Matrix
    center: Array
    scale: float
    principal: Array | None
    dual: Array | None

    @property
    def n_columns(self) -> int:
        """``p``."""
        return int(self.columns.shape[1])

    @property
    def n_products(self) -> int:
        """Number of columns that cross-products are taken of."""
        return self.n_columns if self.principal is None else int(self.principal.shape[1])

    @property
    def is_large(self) -> bool:
        """Whether the block has no principal axes, because they would take too long to find."""
        return bool(min(self.columns.shape) > LARGEST_GRAM)

    def rows(self, rows: slice) -> Matrix:
        """Some rows of the columns that cross-products are taken of; sparse where they are."""
        if self.principal is not None:
            return self.principal[rows]
        if is_sparse(self.columns):
            return self.columns[rows] / self.scale
        return (self.columns[rows] - self.center) / self.scale

    def coefficients(self, c: Array) -> Array:
        """Coefficients (p,) of the user's columns, of those of the columns of `rows`."""
        if self.dual is None:
            return np.asarray(c / self.scale)
        weights = self.dual @ c
        return np.asarray(self.columns.T @ weights - self.center * np.sum(weights)) / self.scale

    def loadings(self, axes: Array | None) -> Array:
        """Coefficients (p, r) of the user's columns for a unit of each coefficient along the axes.

        Rows of the columns, centred, times this are rows of the term's ``Z``.
        """
        if self.dual is None:
            return np.asarray((np.eye(self.n_columns) if axes is None else axes) / self.scale)
        spread = self.columns.T @ self.dual - np.outer(self.center, np.sum(self.dual, axis=0))
        return np.asarray(spread if axes is None else spread @ axes) / self.scale

    def effects(self, b: Array, axes: Array | None) -> Array:
        """Coefficients (p,) of the user's columns, of the solution's (r, 1) along the axes."""
        along_columns = b[:, 0] if axes is None else axes @ b[:, 0]
        return self.coefficients(along_columns)


def make_block(columns: Matrix, rows: WeightedRows, *, centered: bool) -> Block | None:
    """Scale a block as a whole, and find its principal axes from its rows where they are fewer.

    Parameters
    ----------
    columns : ndarray or sparse array of shape (n, p)
        The user's columns.
    rows : WeightedRows
        Row weights.
    centered : bool
        Whether an intercept makes centring a mere change of the intercept. Sparse columns are
        centred only where their principal axes come from the rows.

    Returns
    -------
    Block or None
        None where every column is constant, or zero without an intercept.
    """
    n, p = columns.shape
    is_dual = p > n and n <= LARGEST_GRAM
    center, constant = np.zeros(p), _constant_columns(columns)
    if centered and np.all(constant):
        return None
    if centered and p and (is_dual or not is_sparse(columns)):
        center = rows.mean(columns)
        # The mean of equal numbers may be another in its last place.
        center[constant] = to_dense(columns[:1])[0, constant]
    if not is_dual:
        scale = np.sqrt(rows.sum_of_squares(columns, center) / (rows.total * p)) if p else 0.0
        return Block(columns, center, float(scale), None, None) if scale > 0 else None
    root = rows.root
    values, U = linalg.eigh(_gram_of_rows(columns, center, rows) * np.outer(root, root))
    kept = values > NEGLIGIBLE * max(values[-1], 0.0)
    if not np.any(kept):
        return None
    D, U = np.sqrt(values[kept]), U[:, kept]
    scale = float(np.sqrt(np.sum(values[kept]) / (rows.total * p)))
    root = root[:, None]
    return Block(columns, center, scale, U * D / root / scale, root * U / D)


def _constant_columns(columns: Matrix) -> NDArray[np.bool_]:
    """Which columns hold one value."""
    highest, lowest = columns.max(axis=0), columns.min(axis=0)
    return np.asarray(to_dense(highest) == to_dense(lowest)).ravel()


def _gram_of_rows(columns: Matrix, center: Array, rows: WeightedRows) -> Array:
    """``ZZ'`` of the centred columns; dense ones are centred first, some at a time."""
    if not is_sparse(columns):
        n, p = columns.shape
        pieces = (columns[:, some] - center[some] for some in row_blocks(p, n))
        return np.asarray(sum((piece @ piece.T for piece in pieces), np.zeros((n, n))))
    gram = to_dense(columns @ columns.T)
    if np.any(center):
        mean = rows.mean(gram)
        gram += -mean[:, None] - mean + rows.mean(mean)
    return gram


def principal_axes(gram: Array) -> tuple[Array, Array]:
    """Eigenvalues (r,) and axes (p, r) of a block's ``Z'WZ``, without what is rounding."""
    values, axes = linalg.eigh(gram)
    kept = values > NEGLIGIBLE * values[-1]
    return values[kept], axes[:, kept]
