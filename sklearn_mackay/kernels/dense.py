"""The exact engine of small problems: one dense matrix in LAPACK.

The spherical system ``K = D'[Z X]'W[Z X]D + I`` with ``D = blockdiag(I (x) T_k, I)`` is formed and
factorised as a whole. Up to some two hundred random effects that takes less time than calling
TensorFlow, and far less than importing it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import linalg

from .._arrays import Array
from ..covariances.matrices import covariance_factor
from ..evidence.solution import PenalizedSolution, Variances, solver_of_any_scale
from ..gram.crossproducts import CrossProducts
from ..gram.layout import gram_matrix
from .lapack import factor_with_lapack


def prepare(
    crossproducts: CrossProducts, *, reml: bool
) -> Callable[[Variances], PenalizedSolution]:
    """Form the Gram matrix once; the result solves at any variances.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    reml : bool
        Whether determinant and traces belong to REML or to ML.

    Returns
    -------
    callable
        ``solve(variances) -> PenalizedSolution``.
    """
    terms = crossproducts.terms
    ends = np.cumsum([0, *(term.n_effects for term in terms)])
    places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    q, p = int(ends[-1]), len(crossproducts.penalty)
    n_determinant = q + p - (0 if reml else crossproducts.n_unpenalized)
    gram = gram_matrix(crossproducts, tuple(range(len(terms))), ends)
    units = [term.structure.units(term.n_coefficients) for term in terms]

    @np.errstate(invalid="ignore")  # numbers that are not finite are reported, not warned of
    def solve(relative: Variances) -> PenalizedSolution:
        factors = [
            covariance_factor(Sigma, term.own)
            for Sigma, term in zip(relative.Sigma, terms, strict=True)
        ]
        T = [vectors * sd for sd, vectors in factors]
        T_inverse = [(vectors / sd).T for sd, vectors in factors]
        half = _rows_scaled(gram, T, places)
        K = _rows_scaled(half.T, T, places)
        K[np.diag_indices(q)] += 1.0
        cholesky, inverse, solution, remainder, log_det = factor_with_lapack(K, n_determinant)
        solved = half.T[:q, :-1] @ inverse[:-1, :q]
        u = [solution[place].reshape(len(t), -1) for place, t in zip(places, T, strict=True)]
        v = [t.T @ part for t, part in zip(T_inverse, u, strict=True)]
        N = [
            _trace_over_levels(solved[place, place], len(t)) @ t
            for place, t in zip(places, T_inverse, strict=True)
        ]
        working = _working_vectors(units, v, places)
        on_all = gram[:, :q] @ working
        reduced = linalg.solve_triangular(
            cholesky, _rows_scaled(on_all, T, places)[:-1], trans=1, check_finite=False
        )
        information = working.T @ on_all[:q] - reduced.T @ reduced
        root = linalg.solve_triangular(cholesky[q:, q:], np.eye(p), check_finite=False)
        return PenalizedSolution(
            variances=relative,
            beta=solution[q:],
            b=tuple((S @ part).T for S, part in zip(relative.Sigma, v, strict=True)),
            N=tuple(0.5 * (part + part.T) for part in N),
            vv=tuple(part @ part.T for part in v),
            n_levels=tuple(term.n_levels for term in terms),
            yPy=float(remainder),
            log_det=float(log_det),
            information=information,
            beta_cov=root @ root.T,
            finite=bool(np.isfinite(log_det) and np.isfinite(remainder)),
        )

    return solver_of_any_scale(solve)


def _rows_scaled(matrix: Array, T: list[Array], places: list[slice]) -> Array:
    """``D'`` times a matrix."""
    out = matrix.copy()
    for t, place in zip(T, places, strict=True):
        out[place] = (t.T @ matrix[place].reshape(len(t), -1)).reshape(out[place].shape)
    return out


def _working_vectors(units: list[Array], v: list[Array], places: list[slice]) -> Array:
    """``(I (x) E) v_k`` for each unit of each term, one column each."""
    ends = np.cumsum([0, *map(len, units)])
    vectors = np.zeros((places[-1].stop if places else 0, ends[-1]))
    for E, part, place, start in zip(units, v, places, ends[:-1], strict=True):
        vectors[place, start : start + len(E)] = (E @ part).reshape(len(E), -1).T
    return vectors


def _trace_over_levels(block: Array, s: int) -> Array:
    """Sum of the diagonal blocks of the levels: (s L, s L) gives (s, s)."""
    return np.asarray(np.einsum("albl->ab", block.reshape(s, -1, s, len(block) // s)))
