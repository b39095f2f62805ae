"""Array types, and arithmetic on rows that takes dense and sparse matrices alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Array: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int32]
Matrix: TypeAlias = Any  # numbers by row and column, dense (ndarray) or sparse (SciPy's CSR)

Sparse: TypeAlias = "sparse.csr_array"

FEW_COLUMNS = 8  # in which reducing column by column is several times faster
BLOCK_ENTRIES = 2**22  # of rows taken at once, 32 MiB


def is_sparse(matrix: Matrix) -> TypeIs[sparse.csr_array]:
    """Whether a matrix is one of SciPy's, and not an array."""
    return bool(sparse.issparse(matrix))


def row_blocks(n_rows: int, n_columns: int = 4, n_entries: int | None = None) -> list[slice]:
    """Slices of rows, so that what is made of one of them, of `n_columns`, stays small."""
    step = max(min(n_entries or BLOCK_ENTRIES, BLOCK_ENTRIES) // max(n_columns, 1), 1)
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def largest_entry(columns: Array) -> Array:
    """``max |x|`` by column, 0.0 where there are no rows."""
    if columns.shape[1] <= FEW_COLUMNS:
        return np.array([max(np.max(x, initial=0.0), -np.min(x, initial=0.0)) for x in columns.T])
    highest, lowest = np.max(columns, axis=0, initial=0.0), np.min(columns, axis=0, initial=0.0)
    return np.asarray(np.maximum(highest, -lowest))


def root_mean_square(columns: Array, weights: Array) -> Array:
    """``sqrt(sum w x^2 / sum w)`` by column, without overflow; 1.0 for a column of zeros."""
    largest = largest_entry(columns)
    unit = np.where(largest > 0, largest, 1.0)
    total = np.zeros(columns.shape[1])
    for rows in row_blocks(*columns.shape):
        total += weights[rows] @ (columns[rows] / unit) ** 2
    rms = largest * np.sqrt(total / np.sum(weights))
    return np.where(rms > 0, rms, 1.0)


def first_of_each(ordered: NDArray[Any]) -> NDArray[np.intp]:
    """Where each value of a sorted array stands first."""
    changes = ordered[1:] != ordered[:-1]
    return np.flatnonzero(np.append(np.ones(min(len(ordered), 1), dtype=bool), changes))


def row_scaled(matrix: Matrix, weights: Array) -> Matrix:
    """``W matrix``, dense or sparse as it comes."""
    if is_sparse(matrix):
        return matrix.multiply(weights[:, None]).tocsr()
    return matrix * weights[:, None]


def to_dense(matrix: Matrix) -> Array:
    """A sparse or dense matrix as an array."""
    return np.asarray(matrix.toarray() if is_sparse(matrix) else matrix)
