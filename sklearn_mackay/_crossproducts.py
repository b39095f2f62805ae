"""Gram blocks: everything later steps need of the rows, in one pass over them.

``[Z X y]' W [Z X y]`` block by block. A factor with itself is block-diagonal, two factors form a
sparse cross-table, and the fixed part is a small dense corner. Nothing here depends on a variance
and, once it is built, nothing is as long as ``n``. The level axis comes last, so that the
arithmetic on the small ``s x s`` blocks runs along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ._design import Term, row_blocks, row_scaled, to_dense

Array = NDArray[np.float64]
Index = NDArray[np.int32]


@dataclass(frozen=True)
class TermGram:
    """One term with itself and with the fixed part. Data only.

    Attributes
    ----------
    own : ndarray of shape (s, s, L)
        Blocks of ``Z_k'WZ_k``.
    fixed : ndarray of shape (s, p + 1, L)
        ``Z_k'W[X y]``.
    diagonal : bool
        Whether the covariance of the term is restricted to its diagonal.
    """

    own: Array
    fixed: Array
    diagonal: bool

    @property
    def n_coefficients(self) -> int:
        """``s``."""
        return int(self.own.shape[0])

    @property
    def n_levels(self) -> int:
        """``L``."""
        return int(self.own.shape[2])

    @property
    def n_effects(self) -> int:
        """``q = L s``."""
        return self.n_coefficients * self.n_levels


@dataclass(frozen=True)
class CrossGram:
    """Cross-table ``Z_k'WZ_l`` of two terms: one block per pair of levels that meet. Data only.

    Attributes
    ----------
    row_levels, column_levels : ndarray of shape (m,)
        The pairs, sorted by row.
    blocks : ndarray of shape (s_k, s_l, m)
        Their blocks.
    """

    row_levels: Index
    column_levels: Index
    blocks: Array

    @property
    def transposed(self) -> CrossGram:
        """``Z_l'WZ_k``, again sorted by row."""
        order = np.argsort(self.column_levels, kind="stable")
        return CrossGram(
            self.column_levels[order],
            self.row_levels[order],
            np.ascontiguousarray(self.blocks[:, :, order].swapaxes(0, 1)),
        )


@dataclass(frozen=True)
class CrossProducts:
    """The Gram blocks of a data set. Data only; two data sets' blocks would add.

    Attributes
    ----------
    terms : tuple of TermGram
        One per random term.
    cross : dict of (int, int) to CrossGram
        Pairs of terms ``k < l``.
    fixed : ndarray of shape (p + 1, p + 1)
        ``[X y]'W[X y]``, penalised columns of X first.
    penalty : ndarray of shape (p,)
        Ridge penalty of each column, relative to sigma2; positive ones first, then zeros.
    n : float
        Number of rows (frequency weights: their sum).
    sum_log_weights : float
        ``sum log w`` (0 for frequency weights).
    """

    terms: tuple[TermGram, ...]
    cross: dict[tuple[int, int], CrossGram]
    fixed: Array
    penalty: Array
    n: float
    sum_log_weights: float

    @property
    def n_unpenalized(self) -> int:
        """Rank of the unpenalised fixed part, the ``p`` of ``n - p``."""
        return int(np.count_nonzero(self.penalty == 0.0))


def build_crossproducts(
    terms: Sequence[Term],
    X: Any,
    y: Array,
    weights: Array,
    *,
    penalty: Array,
    n: float,
    sum_log_weights: float,
) -> CrossProducts:
    """Build ``[Z X y]' W [Z X y]``.

    Parameters
    ----------
    terms : sequence of Term
        The random terms.
    X : ndarray or sparse array of shape (n_rows, p)
        Fixed columns of full rank, penalised ones first.
    y : ndarray of shape (n_rows,)
        Response.
    weights : ndarray of shape (n_rows,)
        Positive row weights.
    penalty : ndarray of shape (p,)
        Ridge penalty by column.
    n : float
        What the criterion counts as number of rows.
    sum_log_weights : float
        The weights' part of the criterion.

    Returns
    -------
    CrossProducts
    """
    cross = {
        (k, l): _cross_gram(terms[k], terms[l], weights)
        for k in range(len(terms))
        for l in range(k + 1, len(terms))
    }
    if sparse.issparse(X):
        Xy = sparse.hstack([X, y[:, None]]).tocsr()
        weighted = row_scaled(Xy, weights)
        fixed = to_dense(Xy.T @ weighted)
        on_fixed = [_sparse_fixed(term, weighted) for term in terms]
    else:
        fixed, on_fixed = _dense_fixed(terms, X, y, weights)
    return CrossProducts(
        terms=tuple(
            TermGram(_own(term, weights), on_X, term.diagonal)
            for term, on_X in zip(terms, on_fixed, strict=True)
        ),
        cross=cross,
        fixed=fixed,
        penalty=penalty,
        n=n,
        sum_log_weights=sum_log_weights,
    )


def _cross_gram(k: Term, l: Term, weights: Array) -> CrossGram:
    shape = (k.n_levels, l.n_levels)
    blocks = []
    for a in range(k.n_coefficients):
        row = []
        for b in range(l.n_coefficients):
            product = weights * k.columns[a] * l.columns[b]
            # Summing duplicates keeps zeros, so that all coefficients have one pattern.
            table = sparse.coo_array((product, (k.codes, l.codes)), shape=shape).tocsr()
            row.append(table.data)
        blocks.append(row)
    return CrossGram(
        np.repeat(np.arange(k.n_levels, dtype=np.int32), np.diff(table.indptr)),
        table.indices.astype(np.int32, copy=False),
        np.array(blocks),
    )


def _own(term: Term, weights: Array) -> Array:
    """``Z_k'WZ_k`` of shape (s, s, L)."""
    s, L = term.n_coefficients, term.n_levels
    own = np.zeros((s, s, L))
    for rows in row_blocks(len(weights)):
        for a in range(s):
            for b in range(a + 1):
                product = weights[rows] * term.columns[a, rows] * term.columns[b, rows]
                own[a, b] += np.bincount(term.codes[rows], product, minlength=L)
    for a in range(s):
        own[:a, a] = own[a, :a]
    return own


def _dense_fixed(
    terms: Sequence[Term], X: Array, y: Array, weights: Array
) -> tuple[Array, list[Array]]:
    """``[X y]'W[X y]``, and ``Z_k'W[X y]`` of shape (s, P, L) of each term."""
    P = X.shape[1] + 1
    fixed = np.zeros((P, P))
    on_terms = [np.zeros((term.n_coefficients, P, term.n_levels)) for term in terms]
    for rows in row_blocks(len(y)):
        Xy = np.column_stack([X[rows], y[rows]])
        weighted = Xy * weights[rows, None]
        fixed += Xy.T @ weighted
        for term, total in zip(terms, on_terms, strict=True):
            for a, j in np.ndindex(*total.shape[:2]):
                product = weighted[:, j] * term.columns[a, rows]
                total[a, j] += np.bincount(term.codes[rows], product, minlength=term.n_levels)
    return fixed, on_terms


def _sparse_fixed(term: Term, weighted: Any) -> Array:
    on_fixed = to_dense(term.Z().T @ weighted).reshape(term.n_levels, term.n_coefficients, -1)
    return np.ascontiguousarray(on_fixed.transpose(1, 2, 0))
