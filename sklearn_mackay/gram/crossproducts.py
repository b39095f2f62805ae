"""Gram blocks: everything later steps need of the rows, in one pass over them.

``[Z X y]' W [Z X y]`` block by block. A factor with itself is block-diagonal, two factors form a
sparse cross-table, and the fixed part is a small dense corner. A feature block along its principal
axes is a factor whose levels, the axes, meet every level of other terms. Nothing here depends on a
variance and, once it is built, nothing is as long as ``n``. The level axis comes last, so that the
arithmetic on the small ``s x s`` blocks runs along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from ..design.blocks import Block, principal_axes
from ..design.terms import Term, row_blocks, row_scaled, to_dense

Array = NDArray[np.float64]
Index = NDArray[np.int32]


@dataclass(frozen=True)
class TermGram:
    """One term with itself and with the fixed part. Data only.

    Attributes
    ----------
    own : ndarray of shape (s, s, L)
        Blocks of ``Z_k'WZ_k``.
    fixed : ndarray of shape (s, p + t, L)
        ``Z_k'W[X y]``.
    diagonal : bool
        Whether the covariance of the term is restricted to its diagonal.
    axes : ndarray of shape (c, L) or None
        Principal axes of a feature block, in the columns that products were taken of; None for
        a factor, and for a block too large to have any.
    columns : ndarray or sparse array of shape (n, L) or None
        ``W^1/2 Z`` of a block too large for principal axes: its levels meet one another, `own` is
        the diagonal only.
    """

    own: Array
    fixed: Array
    diagonal: bool
    axes: Array | None = None
    columns: Any = None

    @property
    def is_block(self) -> bool:
        """Whether the term is a feature block."""
        return self.axes is not None or self.columns is not None

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
    cross : dict of int to dict of int to CrossGram
        ``cross[k][l]`` of terms ``k < l``; not of two large blocks. Formats that are safer than
        pickle write keys that are numbers, and no pairs of them.
    fixed : ndarray of shape (p + t, p + t)
        ``[X y]'W[X y]``, penalised columns of X first.
    penalty : ndarray of shape (p,)
        Ridge penalty of each column, relative to sigma2; positive ones first, then zeros.
    n : float
        Number of rows (frequency weights: their sum).
    sum_log_weights : float
        ``sum log w`` (0 for frequency weights).
    """

    terms: tuple[TermGram, ...]
    cross: dict[int, dict[int, CrossGram]]
    fixed: Array
    penalty: Array
    n: float
    sum_log_weights: float

    @property
    def n_unpenalized(self) -> int:
        """Rank of the unpenalised fixed part, the ``p`` of ``n - p``."""
        return int(np.count_nonzero(self.penalty == 0.0))

    @property
    def dense_order(self) -> int:
        """Order of the largest dense matrix that solving may need: one term is eliminated."""
        sizes = [term.n_effects for term in self.terms]
        return sum(sizes) - max(sizes, default=0) + len(self.penalty)

    @property
    def n_entries(self) -> int:
        """Numbers stored, a measure of memory."""
        terms = sum(term.own.size + term.fixed.size for term in self.terms)
        return terms + sum(2 * table.blocks.size for table in self.tables.values())

    @property
    def tables(self) -> dict[tuple[int, int], CrossGram]:
        """The cross-tables by pair of terms."""
        return {(k, l): table for k, row in self.cross.items() for l, table in row.items()}

    def without_fixed(self) -> CrossProducts:
        """The blocks of the model without a fixed part."""
        p = len(self.penalty)
        terms = tuple(replace(term, fixed=term.fixed[:, p:]) for term in self.terms)
        fixed, penalty = self.fixed[p:, p:], self.penalty[:0]
        return replace(self, terms=terms, fixed=fixed, penalty=penalty)

    def for_output(self, output: int) -> CrossProducts:
        """The blocks of one of several responses, which engines and the loop work on."""
        p = len(self.penalty)
        if len(self.fixed) == p + 1:
            return self
        kept = [*range(p), p + output]
        terms = tuple(replace(term, fixed=term.fixed[:, kept]) for term in self.terms)
        return replace(self, terms=terms, fixed=self.fixed[np.ix_(kept, kept)])


def build_crossproducts(
    terms: Sequence[Term | Block],
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
    terms : sequence of Term or Block
        The random terms: factors, then large blocks, then the other blocks.
    X : ndarray or sparse array of shape (n_rows, p)
        Fixed columns of full rank, penalised ones first.
    y : ndarray of shape (n_rows,) or (n_rows, t)
        Response, or several.
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
    factors = [term for term in terms if isinstance(term, Term)]
    blocks = [term for term in terms if isinstance(term, Block)]
    large = [block for block in blocks if block.is_large]
    blocks = [block for block in blocks if not block.is_large]
    cross = {
        k: {l: _cross_gram(factors[k], factors[l], weights) for l in range(k + 1, len(factors))}
        for k in range(len(factors))
    }
    products = _sparse_products if sparse.issparse(X) else _dense_products
    dense, on_dense = products(factors, blocks, X, y, weights)
    own = [_own(factor, weights) for factor in factors]
    grams = [
        TermGram(A, on_X, factor.diagonal)
        for A, on_X, factor in zip(own, on_dense, factors, strict=True)
    ]
    root = np.sqrt(weights)
    for block in large:
        columns = row_scaled(block.rows(slice(None)), root)
        for k, factor in enumerate(factors):
            cross[k][len(grams)] = _cross_gram_with_columns(factor, columns, root)
        grams.append(_large_gram(columns, [b.rows(slice(None)) for b in blocks], X, y, root))
    return _separate_blocks(
        CrossProducts(
            terms=tuple(grams),
            cross=cross,
            fixed=dense,
            penalty=penalty,
            n=n,
            sum_log_weights=sum_log_weights,
        ),
        blocks,
    )


def _large_gram(columns: Any, blocks: list[Any], X: Any, y: Array, root: Array) -> TermGram:
    """Gram blocks of a large block with itself, the other blocks and the fixed part."""
    F = np.hstack([to_dense(part) for part in (*blocks, X, y.reshape(len(y), -1))]) * root[:, None]
    squares = columns.multiply(columns) if sparse.issparse(columns) else columns**2
    own = np.asarray(squares.sum(axis=0)).ravel()
    fixed = np.ascontiguousarray(to_dense(columns.T @ F).T)
    return TermGram(own[None, None], fixed[None], False, columns=columns)


def _cross_gram_with_columns(factor: Term, columns: Any, root: Array) -> CrossGram:
    """Cross-table of a factor with the columns ``W^1/2 Z`` of a large block."""
    L, p = factor.n_levels, columns.shape[1]
    rows = np.arange(len(root))
    tables = [
        sparse.csr_array((root * values, (factor.codes, rows)), shape=(L, len(root))) @ columns
        for values in factor.columns
    ]
    if not sparse.issparse(columns):
        return _full_table(np.array(tables)[:, None])
    tables = [table.tocoo() for table in tables]
    keys = [table.row.astype(np.int64) * p + table.col for table in tables]
    pairs = np.unique(np.concatenate(keys))
    blocks = np.zeros((len(tables), 1, len(pairs)))
    for block, key, table in zip(blocks, keys, tables, strict=True):
        block[0, np.searchsorted(pairs, key)] = table.data
    return CrossGram((pairs // p).astype(np.int32), (pairs % p).astype(np.int32), blocks)


def _separate_blocks(products: CrossProducts, blocks: Sequence[Block]) -> CrossProducts:
    """Make terms of the feature blocks, whose columns lead the fixed part, on principal axes."""
    if not blocks:
        return products
    n_factors = len(products.terms)
    axes, own, start = [], [], 0
    for block in blocks:
        place = slice(start, start + block.n_products)
        gram = products.fixed[place, place]
        if block.principal is None:
            values, vectors = principal_axes(gram)
        else:
            values, vectors = np.diag(gram), np.eye(len(gram))
        own.append(values)
        axes.append(vectors)
        start = place.stop
    turn = linalg.block_diag(*axes, np.eye(len(products.fixed) - start))
    fixed = turn.T @ products.fixed @ turn
    on_factors = [
        np.tensordot(term.fixed, turn, ([1], [0])).transpose(0, 2, 1) for term in products.terms
    ]
    ends = np.cumsum([0, *map(len, own)])
    places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    rest = slice(int(ends[-1]), None)
    factors = [
        replace(term, fixed=np.ascontiguousarray(on_X[:, rest]))
        for term, on_X in zip(products.terms, on_factors, strict=True)
    ]
    block_terms = [
        TermGram(values[None, None], fixed[rest, place][None], False, vectors)
        for values, place, vectors in zip(own, places, axes, strict=True)
    ]
    cross = {k: dict(products.cross.get(k, {})) for k in range(n_factors + len(blocks))}
    for i, place in enumerate(places):
        for k, on_X in enumerate(on_factors):
            cross[k][n_factors + i] = _full_table(on_X[:, None, place].swapaxes(2, 3))
        for j in range(i + 1, len(places)):
            cross[n_factors + i][n_factors + j] = _full_table(fixed[None, None, place, places[j]])
    return replace(
        products, terms=(*factors, *block_terms), cross=cross, fixed=fixed[rest, rest].copy()
    )


def _full_table(blocks: Array) -> CrossGram:
    """Cross-table in which all levels meet, of blocks (s_k, s_l, L_k, L_l)."""
    s_k, s_l, L_k, L_l = blocks.shape
    return CrossGram(
        np.repeat(np.arange(L_k, dtype=np.int32), L_l),
        np.tile(np.arange(L_l, dtype=np.int32), L_k),
        np.ascontiguousarray(blocks).reshape(s_k, s_l, L_k * L_l),
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


def _dense_products(
    factors: Sequence[Term], blocks: Sequence[Block], X: Array, y: Array, weights: Array
) -> tuple[Array, list[Array]]:
    """``F'WF`` of ``F = [blocks X y]``, and ``Z_k'WF`` of shape (s, P, L) of each factor."""
    P = sum(block.n_products for block in blocks) + X.shape[1] + y[:1].size
    total = np.zeros((P, P))
    on_factors = [np.zeros((term.n_coefficients, P, term.n_levels)) for term in factors]
    for rows in row_blocks(len(y), P):
        root = np.sqrt(weights[rows])
        F = np.column_stack([*(to_dense(b.rows(rows)) for b in blocks), X[rows], y[rows]])
        F *= root[:, None]
        total += F.T @ F
        for term, on_term in zip(factors, on_factors, strict=True):
            for a, j in np.ndindex(*on_term.shape[:2]):
                product = root * F[:, j] * term.columns[a, rows]
                on_term[a, j] += np.bincount(term.codes[rows], product, minlength=term.n_levels)
    return total, on_factors


def _sparse_products(
    factors: Sequence[Term], blocks: Sequence[Block], X: Any, y: Array, weights: Array
) -> tuple[Array, list[Array]]:
    """The same of sparse columns."""
    columns = [sparse.csr_array(block.rows(slice(None))) for block in blocks]
    F = sparse.hstack([*columns, X, y.reshape(len(y), -1)], format="csr")
    weighted = row_scaled(F, weights)
    return to_dense(F.T @ weighted), [_sparse_on_term(term, weighted) for term in factors]


def _sparse_on_term(term: Term, weighted: Any) -> Array:
    on_fixed = to_dense(term.Z().T @ weighted).reshape(term.n_levels, term.n_coefficients, -1)
    return np.ascontiguousarray(on_fixed.transpose(1, 2, 0))
