"""Gram blocks from rows in memory, in one pass: the last place that sees a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import linalg, sparse

from .._arrays import Array, Matrix, is_sparse, row_blocks, row_scaled, to_dense
from ..covariances.structures import FULL
from ..design.blocks import Block, principal_axes
from ..design.design import Design
from ..design.terms import Term
from .columns import in_columns
from .crossproducts import CrossGram, CrossProducts, LargeColumns, TermGram


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
    small = [block for block in design.blocks if not block.is_large]
    cross = {
        k: {l: _cross_gram(factors[k], factors[l], weights) for l in range(k + 1, len(factors))}
        for k in range(len(factors))
    }
    products = _sparse_products if is_sparse(X) else _dense_products
    FWF, on_F = products(factors, small, X, y, weights)
    grams = [
        TermGram(_own(factor, weights), ZWF, factor.structure)
        for ZWF, factor in zip(on_F, factors, strict=True)
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
