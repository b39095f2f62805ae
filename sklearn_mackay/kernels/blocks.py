"""Gram blocks as tensors for block elimination: a chain of nested terms, and the dense corner."""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .._crossproducts import CrossGram, CrossProducts
from .._solution import symmetric_units
from .linalg import Pattern

Array = NDArray[np.float64]

CHUNK_ENTRIES = 2**23  # entries of a dense intermediate product: 64 MiB


class Layout(NamedTuple):
    """Which terms are eliminated.

    Attributes
    ----------
    chain : tuple of int
        Nested terms in the order of their elimination.
    rest : tuple of int
        Terms that stay in the dense corner.
    """

    chain: tuple[int, ...]
    rest: tuple[int, ...]


class ChainBlocks(NamedTuple):
    """Gram blocks of an eliminated term. Data only.

    Attributes
    ----------
    own : (s, s, L)
        ``Z_k'WZ_k``.
    fixed : (s, P, L)
        ``Z_k'W[X y]``.
    parents : tuple of (L,)
        The level of each later chain term that contains each level.
    links : tuple of (s, s_l, L)
        The block with that parent.
    values : (s, m)
        Block with the columns of the corner's random terms, by pair of level and column.
    levels, columns : (m,)
        Those pairs.
    positions : tuple of (m,)
        Where each pair's parent pair stands in the later chain terms.
    pattern : Pattern or ()
        `levels` and `columns` as a sparse matrix; empty where no random term is in the corner.
    """

    own: Any
    fixed: Any
    parents: tuple[Any, ...]
    links: tuple[Any, ...]
    values: Any
    levels: Any
    columns: Any
    positions: tuple[Any, ...]
    pattern: Any


class System(NamedTuple):
    """The Gram blocks as tensors. Data only.

    Attributes
    ----------
    chain : tuple of ChainBlocks
        Eliminated terms.
    corner : (C, C)
        Gram block of the rest, ``X`` and ``y``, with the ridge penalty.
    rest_sizes : (n_rest,)
        ``q_k`` of each random term in the corner.
    units : tuple of (m_k, s_k, s_k)
        Symmetric units of each term's covariance, chain first.
    n_determinant : ()
        Size of the leading part of the corner which the criterion takes the determinant of.
    """

    chain: tuple[ChainBlocks, ...]
    corner: Any
    rest_sizes: Any
    units: tuple[Any, ...]
    n_determinant: Any


def choose_layout(crossproducts: CrossProducts) -> Layout:
    """Eliminate the chain of nested terms that leaves the smallest corner."""
    n_terms = len(crossproducts.terms)
    size = [term.n_effects for term in crossproducts.terms]
    chains = [
        chain
        for length in range(min(n_terms, 1), n_terms + 1)
        for chain in combinations(sorted(range(n_terms), key=lambda k: -size[k]), length)
        if all(_is_nested(crossproducts, k, l) for k, l in combinations(chain, 2))
    ]
    chain = max(chains, key=lambda chain: sum(size[k] for k in chain))
    rest = tuple(k for k in range(n_terms) if k not in chain)
    return Layout(chain, rest)


def _is_nested(crossproducts: CrossProducts, k: int, l: int) -> bool:
    """Whether each level of term k meets one level of term l only."""
    table = oriented(crossproducts, k, l)
    return len(table.row_levels) <= len(np.unique(table.row_levels))


def oriented(crossproducts: CrossProducts, k: int, l: int) -> CrossGram:
    """Cross-table with the levels of term k as rows."""
    return crossproducts.cross[k, l] if k < l else crossproducts.cross[l, k].transposed


def parents_and_links(
    crossproducts: CrossProducts, k: int, l: int
) -> tuple[NDArray[np.int32], Array]:
    """For a term k nested in l: the level of l that contains each level, and their blocks."""
    table = oriented(crossproducts, k, l)
    n_levels = crossproducts.terms[k].n_levels
    parent = np.zeros(n_levels, np.int32)
    parent[table.row_levels] = table.column_levels
    link = np.zeros((*table.blocks.shape[:2], n_levels))
    link[:, :, table.row_levels] = table.blocks
    return parent, link


def flat_rows(blocks: Array) -> Array:
    """Blocks (s, P, L) as rows (s L, P)."""
    return blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])


def to_tensors(crossproducts: CrossProducts, layout: Layout, *, reml: bool) -> System:
    """Gram blocks in the order of their elimination; `reml` decides the determinant's part."""
    terms = crossproducts.terms
    sizes = [terms[k].n_effects for k in layout.rest]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    R = int(offsets[-1])
    pairs = [_corner_pairs(crossproducts, k, layout.rest, offsets) for k in layout.chain]
    n_penalized = len(crossproducts.penalty) - crossproducts.n_unpenalized
    n_determinant = R + (len(crossproducts.penalty) if reml else n_penalized)
    return System(
        chain=tuple(
            _chain_blocks(crossproducts, layout.chain, m, pairs, R)
            for m in range(len(layout.chain))
        ),
        corner=tf.constant(_corner(crossproducts, layout.rest, offsets)),
        rest_sizes=tf.constant(sizes, tf.int32),
        units=tuple(
            tf.constant(symmetric_units(terms[k].n_coefficients, diagonal=terms[k].diagonal))
            for k in layout.chain + layout.rest
        ),
        n_determinant=tf.constant(n_determinant, tf.int32),
    )


def _corner_pairs(
    crossproducts: CrossProducts, k: int, rest: tuple[int, ...], offsets: NDArray[np.int_]
) -> tuple[Array, NDArray[np.int32], NDArray[np.int32]]:
    """Values (s, m), levels and corner columns of term k's block with the corner's terms."""
    s = crossproducts.terms[k].n_coefficients
    values, levels, columns = [np.empty((s, 0))], [np.empty(0, int)], [np.empty(0, int)]
    for l, offset in zip(rest, offsets[:-1], strict=True):
        table = oriented(crossproducts, k, l)
        for a in range(crossproducts.terms[l].n_coefficients):
            values.append(table.blocks[:, a])
            levels.append(table.row_levels)
            columns.append(offset + a * crossproducts.terms[l].n_levels + table.column_levels)
    level, column = np.concatenate(levels), np.concatenate(columns)
    order = np.lexsort((column, level))
    return (
        np.concatenate(values, axis=1)[:, order],
        level[order].astype(np.int32),
        column[order].astype(np.int32),
    )


def _chain_blocks(
    crossproducts: CrossProducts, chain: tuple[int, ...], m: int, pairs: list[Any], R: int
) -> ChainBlocks:
    term = crossproducts.terms[chain[m]]
    values, levels, columns = pairs[m]
    parents, links, positions = [], [], []
    for later in range(m + 1, len(chain)):
        parent, link = parents_and_links(crossproducts, chain[m], chain[later])
        _, later_levels, later_columns = pairs[later]
        keys = later_levels.astype(np.int64) * max(R, 1) + later_columns
        position = np.searchsorted(keys, parent[levels].astype(np.int64) * max(R, 1) + columns)
        parents.append(tf.constant(parent))
        links.append(tf.constant(link))
        positions.append(tf.constant(position, tf.int32))
    return ChainBlocks(
        own=tf.constant(term.own),
        fixed=tf.constant(term.fixed),
        parents=tuple(parents),
        links=tuple(links),
        values=tf.constant(values),
        levels=tf.constant(levels),
        columns=tf.constant(columns),
        positions=tuple(positions),
        pattern=_pattern(levels, columns, term, R) if R else (),
    )


def _pattern(levels: NDArray[np.int32], columns: NDArray[np.int32], term: Any, R: int) -> Pattern:
    s, L = term.n_coefficients, term.n_levels
    rows = (np.arange(s)[:, None] * L + levels).ravel()
    flat_columns = np.tile(columns, s)
    order = np.argsort(flat_columns, kind="stable")
    step = max(1, CHUNK_ENTRIES // (R + term.fixed.shape[1]))
    chunk_rows = np.append(np.arange(0, s * L, step), s * L)
    return Pattern(
        indices=tf.constant(np.column_stack([rows, flat_columns]), tf.int64),
        transposed_indices=tf.constant(
            np.column_stack([flat_columns[order], rows[order]]), tf.int64
        ),
        transposed_order=tf.constant(order, tf.int32),
        chunk_rows=tf.constant(chunk_rows, tf.int32),
        chunk_values=tf.constant(np.searchsorted(rows, chunk_rows), tf.int32),
        n_columns=tf.constant(R, tf.int32),
    )


def _corner(
    crossproducts: CrossProducts, rest: tuple[int, ...], offsets: NDArray[np.int_]
) -> Array:
    R = int(offsets[-1])
    corner = np.zeros((R + len(crossproducts.fixed),) * 2)
    p = len(crossproducts.penalty)
    corner[R:, R:] = crossproducts.fixed
    corner[R : R + p, R : R + p] += np.diag(crossproducts.penalty)
    for i, k in enumerate(rest):
        term = crossproducts.terms[k]
        s, L = term.n_coefficients, term.n_levels
        here = offsets[i] + np.arange(s)[:, None] * L + np.arange(L)  # (s, L)
        corner[here[:, None], here[None, :]] = term.own
        fixed = flat_rows(term.fixed)
        corner[offsets[i] : offsets[i + 1], R:] = fixed
        corner[R:, offsets[i] : offsets[i + 1]] = fixed.T
        for j in range(i + 1, len(rest)):
            table = oriented(crossproducts, k, rest[j])
            other = crossproducts.terms[rest[j]]
            there = offsets[j] + np.arange(other.n_coefficients)[:, None] * other.n_levels
            rows = here[:, table.row_levels][:, None]  # (s, 1, m)
            columns = (there + table.column_levels)[None]  # (1, s_j, m)
            corner[rows, columns] = table.blocks
            corner[columns, rows] = table.blocks
    return corner


def shapes(system: System) -> System:
    """Shapes with every data-dependent length left open, so that one trace serves all data."""

    def spec(tensor: Any, *fixed: int) -> Any:
        shape = [size if axis in fixed else None for axis, size in enumerate(tensor.shape)]
        return tf.TensorSpec(shape, tensor.dtype)

    def block_spec(block: ChainBlocks) -> ChainBlocks:
        return ChainBlocks(
            own=spec(block.own, 0, 1),
            fixed=spec(block.fixed, 0),
            parents=tuple(spec(x) for x in block.parents),
            links=tuple(spec(x, 0, 1) for x in block.links),
            values=spec(block.values, 0),
            levels=spec(block.levels),
            columns=spec(block.columns),
            positions=tuple(spec(x) for x in block.positions),
            pattern=Pattern(
                indices=spec(block.pattern.indices, 1),
                transposed_indices=spec(block.pattern.transposed_indices, 1),
                transposed_order=spec(block.pattern.transposed_order),
                chunk_rows=spec(block.pattern.chunk_rows),
                chunk_values=spec(block.pattern.chunk_values),
                n_columns=spec(block.pattern.n_columns),
            )
            if block.pattern
            else (),
        )

    return System(
        chain=tuple(block_spec(block) for block in system.chain),
        corner=spec(system.corner),
        rest_sizes=spec(system.rest_sizes, 0),
        units=tuple(spec(unit, 0, 1, 2) for unit in system.units),
        n_determinant=spec(system.n_determinant),
    )
