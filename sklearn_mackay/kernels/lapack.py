"""Dense factorisations by LAPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from .._arrays import Array


def reordered(matrix: Array, sizes: list[int], at: NDArray[np.intp]) -> Array:
    """Rows and columns of a matrix of blocks in another order of the blocks."""
    blocks = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    index = np.concatenate([blocks[i] for i in at]) if len(at) else np.arange(0)
    return np.asarray(matrix[np.ix_(index, index)])


def factor_with_lapack(corner: Array, n_determinant: int) -> tuple[Any, ...]:
    """Factorise ``[[A, a], [a', c]]``.

    Returns the upper Cholesky factor ``R`` of ``A`` (below its diagonal undefined), the inverse of
    the leading block that the determinant is taken of, with zeros to the size of the corner,
    ``A^-1 a``, ``c - a'A^-1 a`` and the log determinant of the leading block; all NaN where ``A``
    is not positive definite.
    """
    C, m = len(corner) - 1, int(n_determinant)
    inverse = np.zeros((C + 1, C + 1))
    if C == 0:
        return inverse[:0, :0], inverse, inverse[0, :0], corner[0, 0], np.float64(0.0)
    a = corner[:-1, -1]
    # The transpose of a C-ordered symmetric matrix is the Fortran-ordered one LAPACK wants.
    chol, failed = lapack.dpotrf(corner[:-1, :-1].copy().T, lower=1, clean=0, overwrite_a=1)
    if failed or not np.isfinite(chol.diagonal()).all():
        nan = np.float64(np.nan)
        return chol.T * nan, inverse * nan, a * nan, nan, nan
    solution = lapack.dpotrs(chol, a, lower=1)[0]
    if m:
        triangle = lapack.dpotri(chol[:m, :m], lower=1)[0]
        _mirror_lower(triangle, inverse[:m, :m])
    log_det = 2.0 * np.sum(np.log(chol.diagonal()[:m]))
    return chol.T, inverse, solution, corner[-1, -1] - a @ solution, log_det


def _mirror_lower(triangle: Array, symmetric: Array, width: int = 128) -> None:
    """Write a symmetric matrix given by its lower triangle, block by block to stay in cache."""
    for start in range(0, len(triangle), width):
        end = start + width
        below = triangle[end:, start:end]
        symmetric[end:, start:end] = below
        symmetric[start:end, end:] = below.T
        block = np.tril(triangle[start:end, start:end])
        symmetric[start:end, start:end] = block + np.tril(block, -1).T
