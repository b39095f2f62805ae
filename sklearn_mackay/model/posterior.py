"""Covariance of the estimates at given variances: how sure predictions and effects are.

The inverse ``C`` of Henderson's matrix is factorised and never formed. With
``Sigma_k = sigma2 T_k T_k'`` and ``D = blockdiag(I (x) T_k, I)`` it is ``C = sigma2 D K^-1 D'``
with a spherical ``K``, from which nested terms are eliminated level by level. They leave sparse
loadings ``Lambda`` and a dense corner with inverse ``G``, so that for rows ``w`` in the coordinates
of ``K``

    w'K^-1 w = w_chain' K_chain^-1 w_chain + r'Gr ,    r = w_corner - Lambda'w_chain .

This is equation (17) of docs/theory.md; it takes the variances as known. Only SciPy is at
work here: predicting with a standard deviation needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import BLOCK_ENTRIES, Array, Matrix, Sparse, row_blocks, to_dense
from .._machine import require_memory
from ..covariances.matrices import matrix_root
from ..evidence.solution import Variances
from ..gram.crossproducts import CrossProducts, TermGram
from ..gram.layout import Layout, oriented

KEPT_ENTRIES = 2**24  # of the loadings times the corner's inverse: 128 MiB


@dataclass(frozen=True)
class Eliminated:
    """One eliminated term.

    Attributes
    ----------
    inverse : sparse array of shape (q, q)
        Inverse of its block-diagonal Schur complement.
    loadings : sparse array of shape (q, later)
        That times the block with all later unknowns.
    """

    inverse: sparse.bsr_array
    loadings: Sparse


@dataclass(frozen=True)
class Posterior:
    """Factorised covariance of random and fixed effects, in the internal coordinates.

    Attributes
    ----------
    order : tuple of int
        Terms in the order of their unknowns; those of the fixed part come last.
    coefficients, sizes : tuple of int
        ``s_k`` and ``q_k`` of each term.
    root : sparse array of shape (Q, Q)
        ``sqrt(sigma2) D``.
    chain : tuple of Eliminated
        Eliminated terms, which lead `order`.
    loadings : sparse array of shape (q_chain, Q - q_chain)
        ``Lambda``.
    corner_cholesky : ndarray of shape (Q - q_chain, Q - q_chain)
        Lower Cholesky factor of the corner.
    """

    order: tuple[int, ...]
    coefficients: tuple[int, ...]
    sizes: tuple[int, ...]
    root: Sparse
    chain: tuple[Eliminated, ...]
    loadings: Sparse
    corner_cholesky: Array

    @cached_property
    def corner_inverse(self) -> Array:
        """``G``."""
        identity = np.eye(len(self.corner_cholesky))
        return np.asarray(linalg.cho_solve((self.corner_cholesky, True), identity))

    @cached_property
    def _loaded_inverse(self) -> Array | None:
        """``Lambda G``, where it is not too large to keep."""
        q, C = self.loadings.shape
        return self.loadings @ self.corner_inverse if q * C <= KEPT_ENTRIES else None

    def rows(self, random: Sequence[Sparse], X: Array) -> Sparse:
        """Join rows of the terms' ``Z_k``, in the order of the terms, and of the fixed part."""
        parts = [*(random[k] for k in self.order), sparse.csr_array(X)]
        return sparse.csr_array(sparse.hstack(parts, format="csr"))

    def of_term(self, k: int, values: Matrix) -> Sparse:
        """Rows in which only one term's ``Z`` is not zero."""
        sizes = [self.sizes[l] for l in self.order]
        at = self.order.index(k)
        n, before, after = values.shape[0], sum(sizes[:at]), sum(sizes[at + 1 :])
        rest = self.root.shape[0] - sum(sizes)
        parts = [sparse.csr_array((n, before)), sparse.csr_array(values)]
        parts = [*parts, sparse.csr_array((n, after + rest))]
        return sparse.csr_array(sparse.hstack(parts, format="csr"))

    def variance_of_term(self, k: int, values: Array) -> Array:
        """Variance of combinations (n, q) of one term's effects."""
        steps = row_blocks(*values.shape)
        parts = [self.variance(self.of_term(k, values[step])) for step in steps]
        return np.concatenate([np.zeros(0), *parts])

    def level_covariances(self, k: int) -> Array:
        """Covariance (L, s, s) of the coefficients of each level of a term."""
        s, q = self.coefficients[k], self.sizes[k]
        pairs = list(combinations_with_replacement(range(s), 2))
        # Variances of coefficients and of sums of two tell the covariances.
        sums = sparse.csr_array([np.eye(s)[list({a, b})].sum(axis=0) for a, b in pairs])
        rows = self.of_term(k, sparse.kron(sparse.eye_array(q // s), sums))
        variance = dict(zip(pairs, self.variance(rows).reshape(q // s, -1).T, strict=True))
        covariance = np.zeros((q // s, s, s))
        for a, b in pairs:
            half_sum = 0.5 * (variance[a, a] + variance[b, b])
            entry = variance[a, a] if a == b else 0.5 * variance[a, b] - half_sum
            covariance[:, a, b] = covariance[:, b, a] = entry
        return covariance

    def variance(self, rows: Sparse) -> Array:
        """``w'Cw`` for each row ``w`` of a sparse array (n, Q)."""
        steps = row_blocks(rows.shape[0], max(len(self.corner_cholesky), 1))
        return np.concatenate([np.zeros(0), *(self._variance(rows[step]) for step in steps)])

    def _variance(self, rows: Sparse) -> Array:
        within, reduced, on_inverse = self._reduced(rows)
        total = np.einsum("ij,ij->i", to_dense(reduced), on_inverse)
        for part, term in zip(within, self.chain, strict=True):
            total += ((part @ term.inverse) * part).sum(axis=1)
        return np.asarray(np.maximum(total, 0.0))

    def covariance(self, rows: Sparse) -> Array:
        """``WCW'`` for the rows ``W`` of a sparse array (n, Q), dense."""
        return next(self.covariances(rows, [np.arange(rows.shape[0])]))

    def cross_covariance(self, rows: Sparse, others: Sparse) -> Array:
        """``WCV'`` for the rows ``W`` and ``V`` of sparse arrays (n, Q) and (m, Q), dense."""
        within, reduced, _ = self._reduced(rows)
        others_within, _, on_inverse = self._reduced(others)
        total = np.asarray(reduced @ on_inverse.T)
        for part, other, term in zip(within, others_within, self.chain, strict=True):
            total += to_dense((part @ term.inverse) @ other.T)
        return total

    def covariances(self, rows: Sparse, folds: Sequence[NDArray[np.intp]]) -> Iterator[Array]:
        """``W_J C W_J'`` of the rows of each fold, dense; eliminating for many folds at once."""
        step = max(BLOCK_ENTRIES // max(len(self.corner_cholesky), 1), 1)
        start = 0
        while start < len(folds):
            size = np.cumsum([len(fold) for fold in folds[start : start + step]])
            stop = start + max(int(np.searchsorted(size, step)), 1)
            together = rows[np.concatenate(folds[start:stop])]
            within, reduced, on_inverse = self._reduced(together)
            weighted = [part @ term.inverse for part, term in zip(within, self.chain, strict=True)]
            ends = np.append(0, size[: stop - start])
            for first, last in zip(ends[:-1], ends[1:], strict=True):
                here = slice(first, last)
                total = np.asarray(reduced[here] @ on_inverse[here].T)
                for a, b in zip(weighted, within, strict=True):
                    total += to_dense(a[here] @ b[here].T)
                yield 0.5 * (total + total.T)
            start = stop

    def _reduced(self, rows: Sparse) -> tuple[list[Sparse], Sparse, Array]:
        """Rows with the chain eliminated: the chain's parts, ``r``, and ``r'G``."""
        rows = rows @ self.root
        q = self.loadings.shape[0]
        on_chain, on_corner = rows[:, :q], rows[:, q:]
        reduced = on_corner - on_chain @ self.loadings
        if self._loaded_inverse is None:
            on_inverse = reduced @ self.corner_inverse
        else:
            on_inverse = on_corner @ self.corner_inverse - on_chain @ self._loaded_inverse
        within = []
        for term in self.chain:
            size = term.inverse.shape[0]
            within.append(on_chain[:, :size])
            later = on_chain[:, size:]
            on_chain = later - within[-1] @ term.loadings[:, : later.shape[1]]
        return within, reduced, np.asarray(on_inverse)

    def sample(self, n_samples: int, random_state: np.random.RandomState) -> Array:
        """Draw errors ``theta - theta_hat ~ N(0, C)``, of shape (Q, n_samples)."""
        shape = (len(self.corner_cholesky), n_samples)
        u = linalg.solve_triangular(
            self.corner_cholesky, random_state.standard_normal(shape), lower=True, trans=1
        )
        for term in reversed(self.chain):
            blocks = np.linalg.cholesky(term.inverse.data)
            z = random_state.standard_normal((*blocks.shape[:2], n_samples))
            u = np.vstack([(blocks @ z).reshape(-1, n_samples) - term.loadings @ u, u])
        return np.asarray(self.root @ u)


def factorise(crossproducts: CrossProducts, layout: Layout, variances: Variances) -> Posterior:
    """Factorise the covariance of all effects.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks, without a feature block too large for principal axes.
    layout : Layout
        Order of elimination.
    variances : Variances
        Where; singular ones are welcome.

    Returns
    -------
    Posterior

    Raises
    ------
    MemoryError
        Where the machine has no room for the dense corner.
    numpy.linalg.LinAlgError
        Where the fixed columns are collinear.

    References
    ----------
    Henderson (1975), "Best linear unbiased estimation and prediction under a selection model",
    Biometrics 31(2).
    """
    corner = sum(crossproducts.terms[k].n_effects for k in layout.rest)
    require_memory(
        corner + len(crossproducts.penalty),
        "There is no standard deviation for so many effects that are crossed.",
    )
    order = layout.chain + layout.rest
    terms = [crossproducts.terms[k] for k in order]
    T = [matrix_root(variances.Sigma[k] / variances.sigma2) for k in order]
    expanded = [
        sparse.kron(sparse.eye_array(term.n_levels), t) for term, t in zip(terms, T, strict=True)
    ]
    p = len(crossproducts.penalty)
    D = sparse.block_diag([*expanded, sparse.eye_array(p)], format="csr")
    K = (D.T @ _gram(crossproducts, order) @ D).tocsr()
    K += sparse.diags_array(np.repeat([1.0, 0.0], [K.shape[0] - p, p]))
    chain = []
    for term in terms[: len(layout.chain)]:
        q = term.n_effects
        own = K[:q, :q].tobsr((term.n_coefficients,) * 2)
        inverse = sparse.bsr_array((np.linalg.inv(own.data), own.indices, own.indptr))
        loadings = (inverse @ K[:q, q:]).tocsr()
        K = (K[q:, q:] - K[q:, :q] @ loadings).tocsr()
        chain.append(Eliminated(inverse, loadings))
    loadings = sparse.csr_array((0, K.shape[0]))
    for eliminated in reversed(chain):
        n_later = loadings.shape[0]
        on_corner = eliminated.loadings[:, n_later:]
        if n_later:
            on_corner = on_corner - eliminated.loadings[:, :n_later] @ loadings
        loadings = sparse.vstack([on_corner, loadings], format="csr")
    return Posterior(
        order=order,
        coefficients=tuple(term.n_coefficients for term in crossproducts.terms),
        sizes=tuple(term.n_effects for term in crossproducts.terms),
        root=D * np.sqrt(variances.sigma2),
        chain=tuple(chain),
        loadings=loadings,
        corner_cholesky=linalg.cholesky(to_dense(K), lower=True),
    )


def _gram(crossproducts: CrossProducts, order: tuple[int, ...]) -> Sparse:
    """``[Z X]'W[Z X]`` with the ridge penalty, sparse; the coefficients of a level side by side."""
    p, m = len(crossproducts.penalty), len(order)
    blocks: list[list[Matrix]] = [[None] * (m + 1) for _ in range(m + 1)]
    for i, k in enumerate(order):
        term = crossproducts.terms[k]
        levels = np.arange(term.n_levels)
        blocks[i][i] = _sparse_table(levels, levels, term.own, term, term)
        for j in range(i + 1, m):
            table, other = oriented(crossproducts, k, order[j]), crossproducts.terms[order[j]]
            pairs = (table.row_levels, table.column_levels)
            blocks[i][j] = _sparse_table(*pairs, table.blocks, term, other)
            blocks[j][i] = blocks[i][j].T
        fixed = term.ZWF[:, :p].transpose(2, 0, 1).reshape(term.n_effects, p)
        blocks[i][m] = sparse.csr_array(fixed)
        blocks[m][i] = blocks[i][m].T
    corner = crossproducts.FWF[:p, :p] + np.diag(crossproducts.penalty)
    blocks[m][m] = sparse.csr_array(corner)
    return sparse.block_array(blocks, format="csr")


def _sparse_table(
    rows: NDArray[Any], columns: NDArray[Any], blocks: Array, k: TermGram, l: TermGram
) -> Sparse:
    """Blocks (s_k, s_l, m) at pairs of levels as a sparse array."""
    s, r = k.n_coefficients, l.n_coefficients
    at_rows = np.broadcast_to(rows * s + np.arange(s)[:, None, None], blocks.shape)
    at_columns = np.broadcast_to(columns * r + np.arange(r)[:, None], blocks.shape)
    pairs = (at_rows.ravel(), at_columns.ravel())
    return sparse.csr_array((blocks.ravel(), pairs), shape=(k.n_effects, l.n_effects))
