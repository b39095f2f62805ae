"""Gram blocks from rows in memory, in one pass: the last place that sees a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import linalg, sparse

from .._arrays import Array, row_blocks, row_scaled, to_dense
from ..design.blocks import Block, principal_axes
from ..design.terms import Term
from .crossproducts import CrossGram, CrossProducts, TermGram


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
            FWF=dense,
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
        gram = products.FWF[place, place]
        if block.principal is None:
            values, vectors = principal_axes(gram)
        else:
            values, vectors = np.diag(gram), np.eye(len(gram))
        own.append(values)
        axes.append(vectors)
        start = place.stop
    turn = linalg.block_diag(*axes, np.eye(len(products.FWF) - start))
    fixed = turn.T @ products.FWF @ turn
    on_factors = [
        np.tensordot(term.ZWF, turn, ([1], [0])).transpose(0, 2, 1) for term in products.terms
    ]
    ends = np.cumsum([0, *map(len, own)])
    places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    rest = slice(int(ends[-1]), None)
    factors = [
        replace(term, ZWF=np.ascontiguousarray(on_X[:, rest]))
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
        products, terms=(*factors, *block_terms), cross=cross, FWF=fixed[rest, rest].copy()
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
