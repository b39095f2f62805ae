"""Elimination without a corner: operators on the Gram blocks at given variances.

A chain of nested terms is eliminated; the Schur complement of the remaining terms is applied by
sparse products. Vectors have shape (s, L, c): coefficient, level, column of the batch; flat ones
(R, c) join the remaining terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from .._arrays import Array, Index
from .couplings import CouplingSystem
from .elimination import Elimination, between
from .krylov import Continued
from .linalg import Tensor, inverse_and_log_det

CHUNK_PAIRS = 2**18  # pairs of levels gathered at once: 2 MiB a coefficient stays in cache


class Schur:
    """The Schur complement of the chain at given variances, as an operator."""

    def __init__(
        self,
        system: CouplingSystem,
        elimination: Elimination,
        T: Sequence[Array],
        T_inverse: Sequence[Array],
    ) -> None:
        self.system, self.elimination = system, elimination
        n_chain = len(system.chain)
        self.T_rest = T[n_chain:]
        self.Sigma_chain = [t @ t.T for t in T[:n_chain]]
        # (A Sigma + I)^-1, in a form without cancellation.
        self._R = [
            between(tf.constant(back), inverse, tf.constant(t.T))
            for back, inverse, t in zip(T_inverse, elimination.inverses, T, strict=False)
        ]
        self.shapes = [(term.own.shape[0], term.own.shape[2]) for term in system.rest]

    def split(self, x: Tensor) -> list[Tensor]:
        """(R, c) as one (s_k, L_k, c) per remaining term."""
        parts = tf.split(x, [s * L for s, L in self.shapes])
        return [
            tf.reshape(part, [s, L, x.shape[1]])
            for part, (s, L) in zip(parts, self.shapes, strict=True)
        ]

    def join(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return tf.concat([joined(part) for part in parts], 0)

    def scaled(self, x: Tensor) -> list[Tensor]:
        """``T x`` by term."""
        return [
            tf.tensordot(t, part, 1) for t, part in zip(self.T_rest, self.split(x), strict=True)
        ]

    def scaled_back(self, x: list[Tensor]) -> Tensor:
        """``T' x``."""
        return self.join(
            [tf.tensordot(t, part, [[0], [0]]) for t, part in zip(self.T_rest, x, strict=True)]
        )

    def zeros(self, n_columns: int) -> Continued:
        """Vectors of zeros."""
        flat = tf.zeros([sum(s * L for s, L in self.shapes), n_columns], tf.float64)
        chain = [tf.zeros([*R.shape[1:], n_columns], tf.float64) for R in self._R]
        return Continued(flat, chain, flat, flat)

    def start(self, x: Tensor) -> Continued:
        """Apply to ``x``, which costs nothing where it is zero."""
        return self(x) if np.any(x) else self.zeros(x.shape[1])

    def both(self, x: Tensor, start: Tensor) -> tuple[Continued, Continued]:
        """Apply to ``x`` and to a `start`, in one batch."""
        if not np.any(start):
            return self(x), self.start(start)
        together, c = self(tf.concat([x, start], 1)), x.shape[1]
        return together.columns(slice(c)), together.columns(slice(c, None))

    def reduced(self, grams: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Eliminate the chain from right-hand sides ``T'g``.

        Parameters
        ----------
        grams : list of (s_k, L_k, c)
            ``g`` of every term, the chain first.

        Returns
        -------
        rhs : (R, c)
            Right-hand sides of ``S``.
        chain : list of (s_m, L_m, c)
            The chain's part ``Sigma^-1 b`` of the solution where the remaining terms are zero.
        """
        n_chain = len(self._R)
        chain = self.chain_solve(grams[:n_chain])
        taken = self.from_chain(chain)
        left = [g - part for g, part in zip(grams[n_chain:], taken, strict=True)]
        return self.scaled_back(left), chain

    def chain_solve(self, g: list[Tensor]) -> list[Tensor]:
        """Solve ``(Z'WZ + Sigma^-1) b = g`` of the chain alone for ``v = Sigma^-1 b``, by term."""
        v = list(g)
        links, chain = self.elimination.links, self.system.chain
        for m, term in enumerate(chain):
            v[m] = _block_times(self._R[m], v[m])
            b = tf.tensordot(self.Sigma_chain[m], v[m], 1)
            for j, parents in enumerate(term.parents):
                later = m + 1 + j
                taken = _block_transposed_times(links[m][j], b)
                v[later] -= _sum_by_parent(taken, parents, v[later].shape[1])
        for m in reversed(range(len(chain))):
            for j, parents in enumerate(chain[m].parents):
                above = tf.tensordot(self.Sigma_chain[m + 1 + j], v[m + 1 + j], 1)
                link_times = _block_times(links[m][j], tf.gather(above, parents, axis=1))
                v[m] -= _block_times(self._R[m], link_times)
        return v

    def from_chain(self, v: list[Tensor]) -> list[Tensor]:
        """``Z_r'W Z_c b`` for vectors ``v = Sigma^-1 b`` of the chain."""
        b = [tf.tensordot(S, x, 1) for S, x in zip(self.Sigma_chain, v, strict=True)]
        return rest_from_chain(self.system, b)

    def __call__(self, x: Tensor) -> Continued:
        """Continue vectors (R, c) into the chain and apply ``S``."""
        b = self.scaled(x)
        chain = [-part for part in self.chain_solve(chain_from_rest(self.system, b))]
        gram = [
            mine + theirs
            for mine, theirs in zip(rest_gram(self.system, b), self.from_chain(chain), strict=True)
        ]
        return Continued(x, chain, self.join(gram), x + self.scaled_back(gram))


class Diagonal:
    """Diagonal blocks ``M = T'HT + I`` of ``S``: preconditioner and control variate."""

    def __init__(self, schur: Schur, unscaled: list[Tensor], blocks: list[Tensor]) -> None:
        self._schur = schur
        self._unscaled = unscaled
        self.blocks = blocks
        self.inverses, log_dets = zip(*map(inverse_and_log_det, blocks), strict=True)
        self.log_det = float(sum(tf.reduce_sum(x) for x in log_dets))

    def solve(self, x: Tensor) -> Tensor:
        """``M^-1 x`` for vectors (R, c)."""
        return self._blockwise(self.inverses, x)

    def times(self, x: Tensor) -> Tensor:
        """``M x``."""
        return self._blockwise(self.blocks, x)

    def lacks(self, x: Continued) -> Tensor:
        """``(M - S) x``, without cancellation where a variance is next to zero."""
        grams = list(map(_block_times, self._unscaled, self._schur.scaled(x.rest)))
        of_S = self._schur.split(x.gram)
        return self._schur.scaled_back([a - b for a, b in zip(grams, of_S, strict=True)])

    def whitened(self, r: Tensor) -> Tensor:
        """``L'^-1 r`` with ``M = L L'``: of covariance ``M^-1`` where that of r is the identity."""
        parts = []
        for block, part in zip(self.blocks, self._schur.split(r), strict=True):
            chol = tf.linalg.cholesky(tf.transpose(block, [2, 0, 1]))
            solved = tf.linalg.triangular_solve(chol, tf.transpose(part, [1, 0, 2]), adjoint=True)
            parts.append(tf.transpose(solved, [1, 0, 2]))
        return self._schur.join(parts)

    def _blockwise(self, blocks: Sequence[Tensor], x: Tensor) -> Tensor:
        parts = self._schur.split(x)
        return self._schur.join(list(map(_block_times, blocks, parts)))


def block_diagonal(system: CouplingSystem, elimination: Elimination, i: int) -> Tensor:
    """Diagonal blocks (s, s, L) of one remaining term, ``H`` in ``M = T'HT + I``; unscaled."""
    own = system.rest[i].own
    for m, term in enumerate(system.chain):
        crossing = term.crossings[i]
        values, W = elimination.values[m][i], elimination.W[m]
        own -= _eliminated_part(values, W, crossing.levels, crossing.columns, own.shape[2])
    return own


def _eliminated_part(
    values: Tensor, W: Tensor, levels: Tensor, columns: Tensor, n_levels: int
) -> Tensor:
    """Sum ``V'WV`` over the pairs of each remaining level.

    In NumPy, since counting into bins takes a third of the time of TensorFlow's segment sums.
    """
    n_eliminated = W.shape[2]

    def of_both(values: Tensor, W: Tensor) -> Tensor:
        V, inner = np.asarray(values), np.asarray(W)

        def at_values(outer: Tensor) -> Tensor:
            turned = np.einsum("cap,abp->cbp", V, np.asarray(outer)[:, :, columns])
            return tf.constant(2.0 * np.einsum("cdp,dbp->cbp", inner[:, :, levels], turned))

        def at_W(outer: Tensor) -> Tensor:
            V_transposed = V.swapaxes(0, 1)
            blocks = np.asarray(outer)
            return tf.constant(_sum_over_pairs(V_transposed, blocks, columns, levels, n_eliminated))

        total = tf.constant(_sum_over_pairs(V, inner, levels, columns, n_levels))
        return total, at_values, at_W

    def of_data(W: Tensor) -> Tensor:
        total, _, at_W = of_both(values, W)
        return total, at_W

    def of_variables(values: Tensor, W: Tensor) -> Tensor:
        total, at_values, at_W = of_both(values, W)
        return total, lambda outer: (at_values(outer), at_W(outer))

    if isinstance(values, np.ndarray):
        return tf.custom_gradient(of_data)(W)
    return tf.custom_gradient(of_variables)(values, W)


def _sum_over_pairs(V: Array, blocks: Array, at: Index, to: Index, n_levels: int) -> Array:
    """Sum ``V' blocks[at] V`` by level `to`, some pairs at a time."""
    s = V.shape[1]
    total = np.zeros((s, s, n_levels))
    for start in range(0, V.shape[2], CHUNK_PAIRS):
        piece = slice(start, start + CHUNK_PAIRS)
        turned = np.einsum("cdp,dbp->cbp", blocks[:, :, at[piece]], V[:, :, piece])
        for a in range(s):
            for b in range(a + 1):
                products = np.einsum("cp,cp->p", V[:, a, piece], turned[:, b])
                total[a, b] += np.bincount(to[piece], products, n_levels)
    lower = np.tril_indices(s)
    total[lower[1], lower[0]] = total[lower]
    return total


def gram_times(system: CouplingSystem, w: list[Tensor]) -> list[Tensor]:
    """``Z'WZ w``, unscaled, for vectors of every term."""
    n_chain = len(system.chain)
    chain, rest = w[:n_chain], w[n_chain:]
    own = [_block_times(term.own, x) for term, x in zip(system.chain, chain, strict=True)]
    on_chain = [a + b for a, b in zip(own, chain_from_rest(system, rest), strict=True)]
    for m, term in enumerate(system.chain):
        for j, (parents, link) in enumerate(zip(term.parents, term.links, strict=True)):
            later = m + 1 + j
            on_chain[m] += _block_times(link, tf.gather(chain[later], parents, axis=1))
            up = _block_transposed_times(link, chain[m])
            on_chain[later] += _sum_by_parent(up, parents, on_chain[later].shape[1])
    on_rest = zip(rest_gram(system, rest), rest_from_chain(system, chain), strict=True)
    return on_chain + [a + b for a, b in on_rest]


def chain_from_rest(system: CouplingSystem, b: list[Tensor]) -> list[Tensor]:
    """``Z_c'W Z_r b`` for vectors of the remaining terms."""
    return [
        _sum_of_products([crossing.matrix for crossing in term.crossings], b, term)
        for term in system.chain
    ]


def rest_from_chain(system: CouplingSystem, b: list[Tensor]) -> list[Tensor]:
    """``Z_r'W Z_c b`` for vectors of the chain."""
    return [
        _sum_of_products([term.crossings[i].transposed for term in system.chain], b, rest)
        for i, rest in enumerate(system.rest)
    ]


def rest_gram(system: CouplingSystem, b: list[Tensor]) -> list[Tensor]:
    """``Z_r'W Z_r b`` for vectors of the remaining terms."""
    out = [
        tf.zeros_like(part) if i in system.large else _block_times(term.own, part)
        for i, (term, part) in enumerate(zip(system.rest, b, strict=True))
    ]
    for (i, j), matrix in system.between.items():
        out[i] += tf.reshape(_product(matrix, joined(b[j])), out[i].shape)
    if system.large:
        fitted = _product(system.columns, tf.concat([joined(b[i]) for i in system.large], 0))
        back = tf.split(_product(system.transposed, fitted), [b[i].shape[1] for i in system.large])
        for i, part in zip(system.large, back, strict=True):
            out[i] += part[None]
    return out


def _sum_of_products(matrices: list[Tensor], b: list[Tensor], term: Tensor) -> Tensor:
    """Sum of sparse matrices times vectors, as vectors of the term (s, L, c)."""
    products = [_product(matrix, joined(x)) for matrix, x in zip(matrices, b, strict=True)]
    return tf.reshape(tf.add_n(products), [*term.own.shape[1:], -1]) if products else 0.0


def joined(x: Tensor) -> Tensor:
    """(s, L, c) as (s L, c)."""
    return tf.reshape(x, [x.shape[0] * x.shape[1], x.shape[2]])


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """Sparse matrix, or a dense one, (s_a L_a, s_b L_b) times vectors (s_b L_b, c)."""
    if matrix.dtype != tf.variant:
        return tf.matmul(matrix, x)
    return tf.raw_ops.SparseMatrixMatMul(a=matrix, b=x)


def _block_times(blocks: Tensor, x: Tensor) -> Tensor:
    """Blocks (a, b, L) times vectors (b, L, c), level by level."""
    return tf.add_n([blocks[:, b, :, None] * x[b][None] for b in range(blocks.shape[1])])


def _block_transposed_times(blocks: Tensor, x: Tensor) -> Tensor:
    return _block_times(tf.transpose(blocks, [1, 0, 2]), x)


def _sum_by_parent(x: Tensor, parents: Tensor, n_parents: int) -> Tensor:
    """Sum vectors (s, L, c) over the levels of each parent."""
    return tf.stack([tf.math.unsorted_segment_sum(part, parents, n_parents) for part in x])
