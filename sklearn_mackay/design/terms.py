"""Terms: the sparse Z of each grouping factor.

A one-hot ``Z`` never has to exist as a dense matrix: row i of term k has its ``s_k`` values in the
``s_k`` columns of one level, so ``Z_k'WZ_k`` is block-diagonal and the product of two factors is a
weighted cross-table, as sparse as the pairs of levels that meet in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._arrays import Array, largest_entry
from ..covariances.structures import Structure
from .weighted import WeightedRows

CONSTANT = 1e-14  # relative spread of a column below which it is rounding of a constant


@dataclass(frozen=True)
class Term:
    """One random term: a factor's levels and the columns whose coefficients vary by level.

    Attributes
    ----------
    codes : ndarray of shape (n,)
        Level of each row, 0 to ``n_levels - 1``.
    n_levels : int
        ``L``.
    columns : ndarray of shape (s, n)
        Values that multiply the level's coefficients: ones for an intercept, and the slopes;
        centred and scaled by `transform`.
    transform : ndarray of shape (s, s)
        ``A`` in ``b = A b_internal`` and ``Sigma = A Sigma_internal A'``: undoes the scaling.
    structure : Structure
        Of the covariance.
    """

    codes: NDArray[np.integer[Any]]
    n_levels: int
    columns: Array
    transform: Array
    structure: Structure

    @property
    def n_coefficients(self) -> int:
        """``s``."""
        return int(self.columns.shape[0])

    def Z(self) -> sparse.csr_array:
        """Sparse ``Z`` of shape (n, L s), the coefficients of a level side by side."""
        return level_columns(self.codes, self.columns, self.n_levels)


@dataclass(frozen=True)
class FactorRows:
    """A grouping factor by row, as the user gave it.

    Attributes
    ----------
    name : str
        Factor.
    coefficients : tuple of str
        "intercept" and slopes, as the user knows them.
    codes : ndarray of shape (n,)
        Level of each row, 0 to ``n_levels - 1``.
    n_levels : int
        ``L``.
    slopes : ndarray of shape (n, s - intercept)
        Columns whose coefficient varies by level.
    intercept : bool
        Whether the intercept varies by level; it comes first.
    structure : Structure
        Of the covariance.
    """

    name: str
    coefficients: tuple[str, ...]
    codes: NDArray[np.integer[Any]]
    n_levels: int
    slopes: Array
    intercept: bool
    structure: Structure


def is_centered(intercept: bool, structure: Structure) -> bool:
    """Whether a shift of a factor's slopes is a reparametrisation of its covariance."""
    return intercept and structure.correlates


def level_columns(
    codes: NDArray[np.integer[Any]], columns: Array, n_levels: int
) -> sparse.csr_array:
    """Sparse ``Z`` of shape (n, L s) for codes (n,) and columns (s, n); a code of -1 has zeros."""
    s, n = columns.shape
    known = codes >= 0
    indices = (np.where(known, codes, 0)[:, None] * s + np.arange(s)).ravel()
    return sparse.csr_array(
        ((columns * known).T.ravel(), indices, np.arange(0, s * n + 1, s)),
        shape=(n, n_levels * s),
    )


def make_term(factor: FactorRows, rows: WeightedRows) -> Term:
    """Build a term with its slopes in units of their root mean square.

    With a random intercept that may correlate with them the slopes are centred as well: a shift
    of a slope is then a reparametrisation of ``Sigma``, so the fit does not depend on it.

    Parameters
    ----------
    factor : FactorRows
        Levels and slopes.
    rows : WeightedRows
        Row weights, for means.

    Returns
    -------
    Term
    """
    codes, n_levels, slopes = factor.codes, factor.n_levels, factor.slopes
    intercept, structure = factor.intercept, factor.structure
    if not slopes.shape[1]:
        ones = np.broadcast_to(1.0, (int(intercept), len(codes)))  # no memory
        return Term(codes, n_levels, ones, np.eye(int(intercept)), structure)
    center = np.zeros(slopes.shape[1])
    if is_centered(intercept, structure):
        center = rows.average(slopes)
    centered = slopes - center
    # What is left of a constant is the rounding of its mean, which scaling would make a column of.
    constant = rows.root_mean_square(centered) <= CONSTANT * largest_entry(slopes)
    centered[:, constant] = 0.0
    scale = rows.root_mean_square(centered)
    columns = (centered / scale).T
    transform = np.diag(1.0 / scale)
    if intercept:
        columns = np.vstack([np.ones(len(codes)), columns])
        top = np.concatenate([[1.0], -center / scale])
        transform = np.vstack([top, np.column_stack([np.zeros(len(scale)), transform])])
    return Term(codes, n_levels, np.ascontiguousarray(columns), transform, structure)


def random_part(codes: NDArray[np.integer[Any]], columns: Array, effects: Array) -> Array:
    """``Z b`` of one term by lookup; a code of -1 has no effect.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Level of each row.
    columns : ndarray of shape (s, n)
        Unscaled values that multiply the coefficients.
    effects : ndarray of shape (L, s) or (t, L, s)
        Random effects, of one response or of several.

    Returns
    -------
    ndarray of shape (n,) or (n, t)
    """
    known = codes >= 0
    at_rows = effects[..., np.where(known, codes, 0), :]
    part = np.einsum("sn,...ns->...n", columns, at_rows)
    return np.where(known, part, 0.0).T
