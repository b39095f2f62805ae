"""Gram blocks from rows in memory, in one pass: the last place that sees a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import (
    Array,
    Matrix,
    is_sparse,
    largest_entry,
    row_blocks,
    row_scaled,
    to_dense,
)
from ..covariances.structures import FULL
from ..design.blocks import Block, principal_axes
from ..design.design import Columns, Design
from ..design.summed import Coordinates, first_coordinates
from ..design.terms import FactorRows, Term
from .columns import in_columns
from .crossproducts import CrossGram, CrossProducts, LargeColumns, TermGram
from .pairs import count_pairs, pair_keys, table_of
from .sums import Sums

CACHED = 2**18  # numbers of a block of rows, 2 MiB, each read several times


class Leveled(NamedTuple):
    """What is summed by level.

    Attributes
    ----------
    codes : ndarray of shape (n,)
        Level of each row.
    n_levels : int
        ``L``.
    columns : ndarray of shape (s, n)
        What multiplies the level's coefficients; ones take no memory.
    """

    codes: NDArray[np.integer[Any]]
    n_levels: int
    columns: Array

    @property
    def is_one(self) -> bool:
        """Whether all there is is a random intercept."""
        return len(self.columns) == 1 and self.columns.strides[1] == 0


def sum_columns(columns: Columns, y: Array, coordinates: Coordinates | None = None) -> Sums:
    """Sum products of columns and responses over rows.

    Parameters
    ----------
    columns : Columns
        Fixed columns, which are dense, and grouping factors; no feature blocks.
    y : ndarray of shape (n, t)
        Responses.
    coordinates : Coordinates, optional
        Which columns the sums are of; about the mean of the first rows if None.

    Returns
    -------
    Sums
    """
    X, rows, factors = columns.X, columns.rows, columns.factors
    p, t = X.shape[1], y.shape[1]
    if coordinates is None:
        coordinates = first_coordinates(X, y, factors, rows.weights)
    shift, turn, of_slopes = coordinates

    def shifted(some: slice) -> Array:
        F = np.ones((1 + p + t, len(y[some])))
        np.subtract(X[some].T, shift[:p, None], out=F[1 : 1 + p])
        np.subtract(y[some].T, shift[p:, None], out=F[1 + p :])
        if turn is not None:
            F[1:] = turn.T @ F[1:]
        return F

    leveled = [_leveled(factor, center) for factor, center in zip(factors, of_slopes, strict=True)]
    FWF, on_F = _dense_products(leveled, shifted, rows.weights)
    return Sums(
        products=CrossProducts(
            terms=tuple(
                TermGram(_own(term, rows.weights, ZWF), ZWF, FULL)
                for term, ZWF in zip(leveled, on_F, strict=True)
            ),
            cross=_tables(leveled, rows.weights),
            FWF=FWF,
            penalty=np.zeros(1 + p),
            n=rows.total,
            sum_log_weights=rows.sum_log,
        ),
        coordinates=coordinates,
        largest=np.concatenate([columns.largest, largest_entry(y)]),
        largest_slopes=columns.largest_slopes,
        n_rows=rows.n,
        n_outputs=t,
    )


def _leveled(factor: FactorRows, center: Array) -> Leveled:
    """Ones and shifted slopes of a factor."""
    ones = np.broadcast_to(1.0, (1, len(factor.codes)))
    columns = np.vstack([ones, (factor.slopes - center).T]) if len(center) else ones
    return Leveled(factor.codes, factor.n_levels, columns)


def build_crossproducts(design: Design, y: Array) -> tuple[CrossProducts, LargeColumns]:
    """Build ``[Z X y]' W [Z X y]``.

    Parameters
    ----------
    design : Design
        All columns; its terms are factors, then blocks without principal axes, then other blocks.
    y : ndarray of shape (n_rows,) or (n_rows, t)
        Response, or several.

    Returns
    -------
    CrossProducts
        The Gram blocks, which hold no rows.
    LargeColumns
        What does: the columns of blocks without principal axes.
    """
    X, weights, root = design.X, design.rows.weights, design.rows.root
    factors = design.factors
    leveled = [Leveled(term.codes, term.n_levels, term.columns) for term in factors]
    small = [block for block in design.blocks if not block.is_large]
    cross = _tables(leveled, weights)

    def internal(some: slice) -> Array:
        of_blocks = (to_dense(block.rows(some)) for block in small)
        return np.vstack([part.T for part in (*of_blocks, X[some], np.atleast_2d(y[some].T).T)])

    if is_sparse(X):
        FWF, on_F = _sparse_products(factors, small, X, y, weights)
    else:
        FWF, on_F = _dense_products(leveled, internal, weights)
    grams = [
        TermGram(_own(term, weights), ZWF, factor.structure)
        for term, ZWF, factor in zip(leveled, on_F, factors, strict=True)
    ]
    large: dict[int, Matrix] = {}
    for block in design.blocks[: len(design.blocks) - len(small)]:
        columns = row_scaled(block.rows(slice(None)), root)
        for k, factor in enumerate(factors):
            cross[k][len(grams)] = _cross_gram_with_columns(factor, columns, root)
        large[len(grams)] = columns
        grams.append(_large_gram(columns, [b.rows(slice(None)) for b in small], X, y, root))
    crossproducts = CrossProducts(
        terms=tuple(grams),
        cross=cross,
        FWF=FWF,
        penalty=design.fixed.penalty,
        n=design.n,
        sum_log_weights=design.sum_log_weights,
    )
    return _separate_blocks(crossproducts, small), large


def _large_gram(
    columns: Matrix, blocks: list[Matrix], X: Matrix, y: Array, root: Array
) -> TermGram:
    """Gram blocks of a large block with itself, the other blocks and the fixed part."""
    F = np.hstack([to_dense(part) for part in (*blocks, X, y.reshape(len(y), -1))]) * root[:, None]
    squares = columns.multiply(columns) if is_sparse(columns) else columns**2
    own = np.asarray(squares.sum(axis=0)).ravel()
    ZWF = np.ascontiguousarray(to_dense(columns.T @ F).T)
    return TermGram(own[None, None], ZWF[None], FULL, is_large=True)


def _cross_gram_with_columns(factor: Term, columns: Matrix, root: Array) -> CrossGram:
    """Cross-table of a factor with the columns ``W^1/2 Z`` of a large block."""
    L, p = factor.n_levels, columns.shape[1]
    rows = np.arange(len(root))
    tables = [
        sparse.csr_array((root * values, (factor.codes, rows)), shape=(L, len(root))) @ columns
        for values in factor.columns
    ]
    if not is_sparse(columns):
        return _full_table(np.array(tables)[:, None])
    tables = [table.tocoo() for table in tables]
    keys = [pair_keys(table.row, table.col, p) for table in tables]
    pairs = np.unique(np.concatenate(keys))
    blocks = np.zeros((len(tables), 1, len(pairs)))
    for block, key, table in zip(blocks, keys, tables, strict=True):
        block[0, np.searchsorted(pairs, key)] = table.data
    return table_of(pairs, p, blocks)


def _separate_blocks(products: CrossProducts, blocks: Sequence[Block]) -> CrossProducts:
    """Make terms of the feature blocks, whose columns lead the fixed part, on principal axes."""
    if not blocks:
        return products
    axes, own, start = [], [], 0
    for block in blocks:
        place = slice(start, start + block.n_products)
        gram = products.FWF[place, place]
        if block.principal is None:
            values, vectors = principal_axes(gram)
        else:
            values, vectors = np.diag(gram), np.eye(len(gram))
        own.append(values)
        axes.append(vectors)
        start = place.stop
    turn = linalg.block_diag(*axes, np.eye(len(products.FWF) - start))
    turned = in_columns(products, turn, penalty=products.penalty)
    ends = np.cumsum([0, *map(len, own)])
    places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    rest = slice(int(ends[-1]), None)
    FWF, on_F = turned.FWF, [term.ZWF for term in turned.terms]
    others = [replace(term, ZWF=np.ascontiguousarray(term.ZWF[:, rest])) for term in turned.terms]
    block_terms = [
        TermGram(values[None, None], FWF[rest, place][None], FULL, vectors)
        for values, place, vectors in zip(own, places, axes, strict=True)
    ]
    n_others = len(others)
    cross = {k: dict(products.cross.get(k, {})) for k in range(n_others + len(blocks))}
    for i, place in enumerate(places):
        for k, ZWF in enumerate(on_F):
            cross[k][n_others + i] = _full_table(ZWF[:, None, place].swapaxes(2, 3))
        for j in range(i + 1, len(places)):
            cross[n_others + i][n_others + j] = _full_table(FWF[None, None, place, places[j]])
    return replace(turned, terms=(*others, *block_terms), cross=cross, FWF=FWF[rest, rest].copy())


def _full_table(blocks: Array) -> CrossGram:
    """Cross-table in which all levels meet, of blocks (s_k, s_l, L_k, L_l)."""
    s_k, s_l, L_k, L_l = blocks.shape
    return CrossGram(
        np.repeat(np.arange(L_k, dtype=np.int32), L_l),
        np.tile(np.arange(L_l, dtype=np.int32), L_k),
        np.ascontiguousarray(blocks).reshape(s_k, s_l, L_k * L_l),
    )


def _tables(terms: Sequence[Leveled], weights: Array) -> dict[int, dict[int, CrossGram]]:
    return {
        k: {l: _cross_gram(terms[k], terms[l], weights) for l in range(k + 1, len(terms))}
        for k in range(len(terms))
    }


def _cross_gram(k: Leveled, l: Leveled, weights: Array) -> CrossGram:
    """Cross-table of two factors."""
    if k.is_one and l.is_one and np.all(weights == weights[:1]):
        counted = count_pairs(k.codes, l.codes, l.n_levels)
        return replace(counted, blocks=counted.blocks * weights[0])
    shape = (k.n_levels, l.n_levels)
    blocks = []
    for of_k in k.columns:
        row = []
        for of_l in l.columns:
            # Summing duplicates keeps zeros, so that all coefficients have one pattern.
            product = weights * of_k * of_l
            table = sparse.coo_array((product, (k.codes, l.codes)), shape=shape).tocsr()
            row.append(table.data)
        blocks.append(row)
    return CrossGram(
        np.repeat(np.arange(k.n_levels, dtype=np.int32), np.diff(table.indptr)),
        table.indices.astype(np.int32, copy=False),
        np.array(blocks),
    )


def _own(term: Leveled, weights: Array, ZWF: Array | None = None) -> Array:
    """``Z_k'WZ_k`` of shape (s, s, L), given ``Z_k'WF`` if the first column of F is one."""
    s, L = len(term.columns), term.n_levels
    own = np.zeros((s, s, L))
    first = 0
    if ZWF is not None:
        # So is the first of the term.
        own[:, 0], first = ZWF[:, 0], 1
    for rows in row_blocks(len(weights)) if first < s else ():
        codes = term.codes[rows].astype(np.intp, copy=False)
        for b in range(first, s):
            weighted = weights[rows] * term.columns[b, rows]
            for a in range(b, s):
                own[a, b] += np.bincount(codes, weighted * term.columns[a, rows], minlength=L)
    for b in range(s):
        own[b, b + 1 :] = own[b + 1 :, b]
    return own


def _dense_products(
    terms: Sequence[Leveled], columns: Callable[[slice], Array], weights: Array
) -> tuple[Array, list[Array]]:
    """``F'WF``, and ``Z_k'WF`` of shape (s, P, L) of each term.

    Parameters
    ----------
    terms : sequence of Leveled
        Levels and columns by row.
    columns : callable
        ``columns(rows)`` returns a new array (P, m), some rows of F.
    weights : ndarray of shape (n,)
        Row weights.
    """
    P = len(columns(slice(0, 0)))
    total = np.zeros((P, P))
    on_terms = [np.zeros((len(term.columns), P, term.n_levels)) for term in terms]
    # A block is small, unless levels would outnumber its rows.
    most = max((term.n_levels for term in terms), default=0)
    for rows in row_blocks(len(weights), P, max(4 * P * most, CACHED)):
        root, F = np.sqrt(weights[rows]), columns(rows)
        F *= root
        total += F @ F.T
        F *= root
        for term, on_term in zip(terms, on_terms, strict=True):
            codes = term.codes[rows].astype(np.intp, copy=False)
            for a, column in enumerate(term.columns):
                for j in range(P):
                    values = F[j] if term.is_one else F[j] * column[rows]
                    on_term[a, j] += np.bincount(codes, values, minlength=term.n_levels)
    return total, on_terms


def _sparse_products(
    factors: Sequence[Term], blocks: Sequence[Block], X: Matrix, y: Array, weights: Array
) -> tuple[Array, list[Array]]:
    """The same of sparse columns."""
    columns = [sparse.csr_array(block.rows(slice(None))) for block in blocks]
    fixed = [sparse.csr_array(X), sparse.csr_array(y.reshape(len(y), -1))]
    F = sparse.hstack([*columns, *fixed], format="csr")
    weighted = row_scaled(F, weights)
    return to_dense(F.T @ weighted), [_sparse_on_term(term, weighted) for term in factors]


def _sparse_on_term(term: Term, weighted: Matrix) -> Array:
    on_fixed = to_dense(term.Z().T @ weighted).reshape(term.n_levels, term.n_coefficients, -1)
    return np.ascontiguousarray(on_fixed.transpose(1, 2, 0))
