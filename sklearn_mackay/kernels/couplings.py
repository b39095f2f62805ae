"""Gram blocks as tensors for elimination without a corner: sparse couplings of the terms."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from .._arrays import Array, is_sparse
from ..gram.crossproducts import CrossGram, CrossProducts, LargeColumns
from ..gram.layout import Layout, flat_rows, oriented, parents_and_links, with_columns_of
from .elimination import Coupling, Nested
from .linalg import Tensor


class Crossing(NamedTuple):
    """Block of an eliminated term with a remaining one. Data only.

    Attributes
    ----------
    values : (s_m, s_k, pairs)
        One block per pair of levels that meet.
    levels, columns : (pairs,)
        Level of the eliminated and of the remaining term, sorted by the first.
    positions : tuple of (pairs,)
        Where the pair of the parent level stands, for each later eliminated term.
    matrix, transposed : CSR matrices (s_m L_m, s_k L_k) and back
        The same for products.
    """

    values: Tensor
    levels: Tensor
    columns: Tensor
    positions: tuple[Tensor, ...]
    matrix: Tensor
    transposed: Tensor


class EliminatedTerm(NamedTuple):
    """Gram blocks of a term of the chain; see `blocks.ChainBlocks`. Data only."""

    own: Tensor
    fixed: Tensor
    parents: tuple[Tensor, ...]
    links: tuple[Tensor, ...]
    crossings: tuple[Crossing, ...]

    @property
    def nested(self) -> Nested:
        """What eliminating it reads."""
        couplings = tuple(Coupling(c.values, c.levels, c.positions) for c in self.crossings)
        return Nested(self.own, self.parents, self.links, couplings)


class RemainingTerm(NamedTuple):
    """Gram blocks ``Z_k'WZ_k`` (s, s, L) and ``Z_k'WF`` (s, P, L) of a term. Data only."""

    own: Tensor
    fixed: Tensor


class CouplingSystem(NamedTuple):
    """The Gram blocks as tensors. Data only.

    Attributes
    ----------
    chain : tuple of EliminatedTerm
        Eliminated terms.
    rest : tuple of RemainingTerm
        Terms that conjugate gradients solve for.
    between : dict of (int, int) to CSR matrix
        Products of the remaining terms, both ways.
    large : tuple of int
        Remaining terms that are large blocks.
    columns, transposed : CSR matrices or dense (n, p) and back
        ``W^1/2 Z`` of the large blocks side by side; their levels meet through it.
    fixed : (P, P)
        ``F'WF`` with the ridge penalty, ``F = [Z_s X y]`` with the small terms' columns.
    n_determinant : int
        Columns of ``F`` which the criterion takes the determinant of.
    """

    chain: tuple[EliminatedTerm, ...]
    rest: tuple[RemainingTerm, ...]
    between: dict[tuple[int, int], Tensor]
    large: tuple[int, ...]
    columns: Tensor
    transposed: Tensor
    fixed: Array
    n_determinant: int

    @property
    def terms(self) -> list[Tensor]:
        """All terms, the chain first."""
        return [*self.chain, *self.rest]


def build_system(
    crossproducts: CrossProducts,
    layout: Layout,
    small: tuple[int, ...],
    large: LargeColumns,
    *,
    reml: bool,
) -> CouplingSystem:
    """Gram blocks as tensors.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Terms to eliminate, and those that remain.
    small : tuple of int
        Terms whose columns join the fixed part.
    large : mapping of int to ndarray or sparse array of shape (n, L)
        ``W^1/2 Z`` of large blocks by term.
    reml : bool
        Whether the determinant is that of REML or of ML.

    Returns
    -------
    CouplingSystem
    """
    terms = crossproducts.terms
    fixed, n_determinant = _small_and_fixed(crossproducts, small, reml=reml)
    tables = [[oriented(crossproducts, k, l) for l in layout.rest] for k in layout.chain]
    keys = [[_pair_keys(table) for table in row] for row in tables]
    chain = []
    for m, k in enumerate(layout.chain):
        family = [parents_and_links(crossproducts, k, l) for l in layout.chain[m + 1 :]]
        parents = [parent for parent, _ in family]
        chain.append(
            EliminatedTerm(
                own=tf.constant(terms[k].own),
                fixed=tf.constant(with_columns_of(crossproducts, small, k)),
                parents=tuple(map(tf.constant, parents)),
                links=tuple(tf.constant(link) for _, link in family),
                crossings=tuple(
                    _crossing(
                        table,
                        [of_parent[i] for of_parent in keys[m + 1 :]],
                        parents,
                        (terms[k].n_levels, terms[layout.rest[i]].n_levels),
                    )
                    for i, table in enumerate(tables[m])
                ),
            )
        )
    between = {}
    large_rest = tuple(i for i, k in enumerate(layout.rest) if k in large)
    for i, k in enumerate(layout.rest):
        for j in range(i + 1, len(layout.rest)):
            if i in large_rest and j in large_rest:
                continue
            l = layout.rest[j]
            matrix = _to_csr(oriented(crossproducts, k, l), terms[k].n_levels, terms[l].n_levels)
            between[i, j] = _to_tensorflow(matrix)
            between[j, i] = _to_tensorflow(matrix.T.tocsr())
    return CouplingSystem(
        chain=tuple(chain),
        rest=tuple(
            RemainingTerm(
                tf.constant(terms[k].own), tf.constant(with_columns_of(crossproducts, small, k))
            )
            for k in layout.rest
        ),
        between=between,
        large=large_rest,
        **_columns_of([large[layout.rest[i]] for i in large_rest]),
        fixed=fixed,
        n_determinant=n_determinant,
    )


def _crossing(
    table: CrossGram,
    keys: list[NDArray[np.int64]],
    parents: list[NDArray[np.int32]],
    shape: tuple[int, int],
) -> Crossing:
    """A block of an eliminated term with a remaining one, and where its parents' blocks stand."""
    matrix = _to_csr(table, *shape)
    positions = [
        np.searchsorted(of_parent, _pair_keys(replace(table, row_levels=parent[table.row_levels])))
        for of_parent, parent in zip(keys, parents, strict=True)
    ]
    return Crossing(
        values=table.blocks,
        levels=table.row_levels,
        columns=table.column_levels,
        positions=tuple(tf.constant(p, tf.int32) for p in positions),
        matrix=_to_tensorflow(matrix),
        transposed=_to_tensorflow(matrix.T.tocsr()),
    )


def _columns_of(blocks: list[Tensor]) -> dict[str, Tensor]:
    """Large blocks side by side, and transposed."""
    if not blocks:
        return {"columns": (), "transposed": ()}
    if any(map(is_sparse, blocks)):
        matrix = sparse.hstack(blocks, format="csr")
        return {"columns": _to_tensorflow(matrix), "transposed": _to_tensorflow(matrix.T.tocsr())}
    dense = tf.constant(np.hstack(blocks))
    return {"columns": dense, "transposed": tf.transpose(dense)}


def _small_and_fixed(
    crossproducts: CrossProducts, small: tuple[int, ...], *, reml: bool
) -> tuple[Array, int]:
    """``F'WF`` with the ridge penalty, and how many of its columns the determinant is of."""
    p = len(crossproducts.penalty)
    fixed = crossproducts.FWF.copy()
    fixed[:p, :p] += np.diag(crossproducts.penalty)
    rows = [flat_rows(with_columns_of(crossproducts, small, k)) for k in small]
    Q = sum(len(block) for block in rows)
    out = np.zeros((Q + p + 1,) * 2)
    out[Q:, Q:] = fixed
    if rows:
        out[:Q] = np.concatenate(rows)
        out[Q:, :Q] = out[:Q, Q:].T
    return out, Q + p - (0 if reml else crossproducts.n_unpenalized)


def _pair_keys(table: CrossGram) -> NDArray[np.int64]:
    return table.row_levels.astype(np.int64) << 32 | table.column_levels.astype(np.int64)


def _to_csr(table: CrossGram, n_rows: int, n_columns: int) -> sparse.csr_array:
    """Cross-table as a sparse matrix, coefficient by coefficient."""
    s_k, s_l, _ = table.blocks.shape
    indptr = np.searchsorted(table.row_levels, np.arange(n_rows + 1))
    parts = [
        [
            sparse.csr_array(
                (table.blocks[a, b], table.column_levels, indptr), shape=(n_rows, n_columns)
            )
            for b in range(s_l)
        ]
        for a in range(s_k)
    ]
    return parts[0][0] if s_k * s_l == 1 else sparse.block_array(parts, format="csr")


def _to_tensorflow(matrix: sparse.csr_array) -> Tensor:
    indices = np.empty((matrix.nnz, 2), np.int64)
    indices[:, 0] = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
    indices[:, 1] = matrix.indices
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=indices, values=matrix.data, dense_shape=np.array(matrix.shape, np.int64)
    )
