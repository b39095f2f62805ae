"""Gram blocks as tensors for block elimination: a chain of nested terms, and the dense corner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .._arrays import Array
from ..gram.crossproducts import CrossProducts
from ..gram.layout import Layout, gram_matrix, oriented, parents_and_links, with_columns_of
from .elimination import Coupling, Nested
from .linalg import Pattern, Tensor

CHUNK_ENTRIES = 2**23  # entries of a dense intermediate product: 64 MiB


class ChainBlocks(NamedTuple):
    """Gram blocks of an eliminated term. Data only.

    Attributes
    ----------
    own : (s, s, L)
        ``Z_k'WZ_k``.
    fixed : (s, P, L)
        ``Z_k'W[B X y]`` with ``B`` the columns of the corner's feature blocks, which meet all
        levels.
    parents : tuple of (L,)
        The level of each later chain term that contains each level.
    links : tuple of (s, s_l, L)
        The block with that parent.
    values : (s, m)
        Block with the columns of the corner's factors, by pair of level and column.
    levels, columns : (m,)
        Those pairs.
    positions : tuple of (m,)
        Where each pair's parent pair stands in the later chain terms.
    pattern : Pattern or ()
        `levels` and `columns` as a sparse matrix; empty where no factor is in the corner.
    """

    own: Tensor
    fixed: Tensor
    parents: tuple[Tensor, ...]
    links: tuple[Tensor, ...]
    values: Tensor
    levels: Tensor
    columns: Tensor
    positions: tuple[Tensor, ...]
    pattern: Tensor

    @property
    def nested(self) -> Nested:
        """What eliminating it reads."""
        couplings = [Coupling(self.fixed, None, self.parents)]
        if self.pattern:
            couplings.append(Coupling(self.values[:, None], self.levels, self.positions))
        return Nested(self.own, self.parents, self.links, tuple(couplings))

    def with_left(self, links: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> ChainBlocks:
        """The same with what eliminating earlier terms left of links and couplings."""
        fixed, *others = values
        of_factors = others[0][:, 0] if others else self.values
        return self._replace(links=links, fixed=fixed, values=of_factors)


class Raw(NamedTuple):
    """What a compiled solve returns, in units of sigma2 = 1; terms in the order of elimination.

    Attributes
    ----------
    v : tuple of (s, L)
        ``Z_k'Py``.
    N : tuple of (s, s)
        Trace parts of the gradient, not yet symmetric.
    beta, beta_cov : (p,), (p, p)
        Fixed effects and their covariance.
    remainder : ()
        ``y'Py``.
    log_det : ()
        Of the spherical system.
    information : (m, m)
        ``F'PF`` of the working vectors.
    """

    v: tuple[Tensor, ...]
    N: tuple[Tensor, ...]
    beta: Tensor
    remainder: Tensor
    log_det: Tensor
    information: Tensor
    beta_cov: Tensor


class EliminationSystem(NamedTuple):
    """The Gram blocks as tensors. Data only.

    Attributes
    ----------
    chain : tuple of ChainBlocks
        Eliminated terms.
    corner : (C, C)
        Gram block of the rest, factors first, ``X`` and ``y``, with the ridge penalty.
    rest_sizes : (n_rest,)
        ``q_k`` of each random term in the corner.
    units : tuple of (m_k, s_k, s_k)
        Symmetric units of each term's covariance, chain first.
    n_determinant : ()
        Size of the leading part of the corner which the criterion takes the determinant of.
    """

    chain: tuple[ChainBlocks, ...]
    corner: Tensor
    rest_sizes: Tensor
    units: tuple[Tensor, ...]
    n_determinant: Tensor


def to_tensors(crossproducts: CrossProducts, layout: Layout, *, reml: bool) -> EliminationSystem:
    """Gram blocks in the order of their elimination; `reml` decides the determinant's part."""
    terms = crossproducts.terms
    sizes = [terms[k].n_effects for k in layout.rest]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    R = int(offsets[-1])
    factors = tuple(k for k in layout.rest if not terms[k].is_block)
    feature_blocks = layout.rest[len(factors) :]
    pairs = [_corner_pairs(crossproducts, k, factors, offsets) for k in layout.chain]
    n_penalized = len(crossproducts.penalty) - crossproducts.n_unpenalized
    n_determinant = R + (len(crossproducts.penalty) if reml else n_penalized)
    return EliminationSystem(
        chain=tuple(
            _chain_blocks(
                crossproducts, layout.chain, feature_blocks, m, pairs, int(offsets[len(factors)])
            )
            for m in range(len(layout.chain))
        ),
        corner=tf.constant(gram_matrix(crossproducts, layout.rest, offsets)),
        rest_sizes=tf.constant(sizes, tf.int32),
        units=tuple(
            tf.constant(terms[k].structure.units(terms[k].n_coefficients))
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
    for l, offset in zip(rest, offsets, strict=False):
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
    crossproducts: CrossProducts,
    chain: tuple[int, ...],
    feature_blocks: tuple[int, ...],
    m: int,
    pairs: list[Tensor],
    R: int,
) -> ChainBlocks:
    term = crossproducts.terms[chain[m]]
    fixed = with_columns_of(crossproducts, feature_blocks, chain[m])
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
        fixed=tf.constant(fixed),
        parents=tuple(parents),
        links=tuple(links),
        values=tf.constant(values),
        levels=tf.constant(levels),
        columns=tf.constant(columns),
        positions=tuple(positions),
        pattern=_pattern(levels, columns, fixed.shape, R) if R else (),
    )


def _pattern(
    levels: NDArray[np.int32], columns: NDArray[np.int32], shape: tuple[int, ...], R: int
) -> Pattern:
    s, P, L = shape
    rows = (np.arange(s)[:, None] * L + levels).ravel()
    flat_columns = np.tile(columns, s)
    order = np.argsort(flat_columns, kind="stable")
    step = max(1, CHUNK_ENTRIES // (R + P))
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


def shapes(system: EliminationSystem) -> EliminationSystem:
    """Shapes with every data-dependent length left open, so that one trace serves all data."""

    def spec(tensor: Tensor, *fixed: int) -> Tensor:
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

    return EliminationSystem(
        chain=tuple(block_spec(block) for block in system.chain),
        corner=spec(system.corner),
        rest_sizes=spec(system.rest_sizes, 0),
        units=tuple(spec(unit, 0, 1, 2) for unit in system.units),
        n_determinant=spec(system.n_determinant),
    )
