"""Row weights, and the sums over rows that columns are centred and scaled by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse.linalg import norm as sparse_norm

from .._arrays import Array, Matrix, is_sparse, root_mean_square, row_blocks, row_scaled, to_dense


@dataclass(frozen=True)
class WeightedRows:
    """The rows of a model, as far as its columns have to know them.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Positive row weights.
    """

    weights: Array

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.weights)

    @cached_property
    def total(self) -> float:
        """Sum of the weights."""
        return float(np.sum(self.weights))

    @property
    def sum_log(self) -> float:
        """Sum of their logarithms."""
        return float(np.sum(np.log(self.weights)))

    @property
    def root(self) -> Array:
        """Square roots of the weights."""
        return np.asarray(np.sqrt(self.weights))

    def average(self, columns: Array) -> Array:
        """Mean of each column, summed in pairs: exact to a few units in the last place."""
        return np.asarray(np.average(columns, axis=0, weights=self.weights))

    def mean(self, columns: Matrix) -> Array:
        """Mean of each column by one product, which needs no copy."""
        return self.products(columns) / self.total

    def products(self, columns: Matrix) -> Array:
        """``W``-weighted sum of each column."""
        return np.asarray(columns.T @ self.weights)

    def on_residual(self, columns: Matrix, residual: Array) -> Array:
        """``X'W e``."""
        return np.asarray(columns.T @ (self.weights * residual.T).T)

    def root_mean_square(self, columns: Array) -> Array:
        """``sqrt(sum w x^2 / sum w)`` by column; 1.0 for a column of zeros."""
        return root_mean_square(columns, self.weights)

    def sum_of_squares(self, columns: Matrix, center: Array) -> float:
        """``sum w (x - center)^2`` over all columns; sparse ones are not centred."""
        total = 0.0
        for rows in row_blocks(*columns.shape):
            weights, piece = self.weights[rows], columns[rows]
            if is_sparse(piece):
                total += float(np.sum(weights @ piece.multiply(piece)))
            else:
                centered = piece - center
                total += float(np.einsum("ij,ij,i->", centered, centered, weights))
        return total

    def gram(self, columns: Matrix) -> Array:
        """``X'WX``, some rows at a time."""
        return np.asarray(
            sum(
                to_dense(columns[rows].T @ row_scaled(columns[rows], self.weights[rows]))
                for rows in row_blocks(*columns.shape)
            )
        )

    def triangle(self, columns: Array, scale: Array) -> Array:
        """``R`` of the QR decomposition of ``(W / sum w)^1/2 X / scale``, some rows at a time."""
        R = np.zeros((0, columns.shape[1]))
        for rows in row_blocks(*columns.shape):
            root = np.sqrt(self.weights[rows] / self.total)[:, None]
            R = np.asarray(np.linalg.qr(np.vstack([R, root * (columns[rows] / scale)]), mode="r"))
        return R

    def covariance(self, columns: Matrix, *, about_mean: bool) -> Array:
        """Weighted covariance of sparse columns, about zero unless `about_mean`."""
        gram = to_dense(columns.T @ row_scaled(columns, self.weights)) / self.total
        mean = self.mean(columns) * about_mean
        return gram - np.outer(mean, mean)


def unweighted_root_mean_square(columns: Matrix) -> Array:
    """Root mean square of sparse columns, whatever the weights; 1.0 for a column of zeros."""
    norms = sparse_norm(columns, axis=0) / np.sqrt(columns.shape[0])
    return np.where(norms > 0, norms, 1.0)
