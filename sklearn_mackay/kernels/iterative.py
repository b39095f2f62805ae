"""The iterative engine: conjugate gradients and random probes where a dense corner is too large.

The spherical system is the exact engine's. The same chain of nested terms is eliminated exactly;
of what it leaves, the Schur complement ``S`` of the remaining random terms is never formed but
applied by sparse products, and solved by conjugate gradients for many right-hand sides at once.
The fixed part is closed exactly by a small dense matrix. No step sees a row.

``log|S|`` has the derivative ``tr(S^-1 dS)``. With the block diagonal ``M`` of ``S``, whose part
is exact, ``E = S - M`` and probes ``x = M^-1/2 r``, ``y = S^-1 M x``, ``r`` Rademacher,

    tr(S^-1 dS) = tr(M^-1 dM) + mean[(y - x)' dS x + (M^-1 S x - x)' dM x] .

This is equation (13) of docs/theory.md. The last summand has expectation zero and takes away what
is of first order in ``E``: the error is of second order. By equation (14) of docs/theory.md
``l' dS r`` equals ``L' dK R`` of the whole system when ``l`` and ``r`` are continued into the
eliminated terms as ``L`` and ``R``, and so needs no further product.

Sources: Hutchinson (1990) and Meyer, Musco, Musco, Woodruff (2021) for the probes, Ubaru, Chen,
Saad (2017) for the quadrature, Pandolfi, Papaspiliopoulos, Zanella (2024) for crossed effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import linalg

from .._arrays import Array
from ..covariances.matrices import covariance_factor
from ..evidence.solution import PenalizedSolution, Variances, solver_of_any_scale
from ..gram.crossproducts import CrossProducts, LargeColumns, TermGram
from ..gram.layout import Layout
from .couplings import CouplingSystem, build_system
from .elimination import eliminate, spherical
from .krylov import Continued, conjugate_gradients, log_quadrature
from .lapack import reordered
from .linalg import Tensor
from .schur import Diagonal, Schur, block_diagonal, gram_times, joined

LOOSEST = 1e-2  # relative residual of the first solve
TIGHTEST = 1e-9
REPORTED = 1e-5  # relative residual that a reported solution may have
TOLERANCE_PER_CHANGE = 1e-2  # relative residual for a relative change of the variances
INFORMATION_TOLERANCE = 1e-2  # the information's error is its square
QUADRATURE_TOLERANCE = 1e-6
MOST_PROBES = 512
MOST_PROBE_ENTRIES = 2**23  # 64 MiB, of which a solve holds a dozen
SMALL = 64  # coefficients that are cheaper as right-hand sides than as unknowns


class Linearised(NamedTuple):
    """The system at given variances.

    Attributes
    ----------
    T, T_inverse : list of (s, s)
        Factors of the relative covariances, and their inverses.
    schur, diagonal : Schur, Diagonal
        Schur complement of the chain and its diagonal blocks ``M``.
    log_det : float
        ``log|K_cc| + log|M|``, the part of ``log|K_rr|`` that is known.
    gradient : callable
        ``(a, [A_k]) -> d (a log|K_cc| + sum tr(A_k' M_k)) / dT`` by term.
    """

    T: list[Array]
    T_inverse: list[Array]
    schur: Schur
    diagonal: Diagonal
    log_det: float
    gradient: Callable[[float, list[Tensor]], list[Array]]

    def solution(self, on_chain: list[Tensor], x: Continued) -> list[Tensor]:
        """``Sigma^-1 b`` by term of ``K (T^-1 b) = T'g``, from what `Schur.reduced` gave."""
        chain = [a + c for a, c in zip(on_chain, x.chain, strict=True)]
        rest = zip(self.T_inverse[len(chain) :], self.schur.split(x.rest), strict=True)
        return chain + [tf.tensordot(t.T, part, 1) for t, part in rest]


class Probes(NamedTuple):
    """Solved probes: ``x``, ``y - z`` with ``y = S^-1 M z``, and ``M^-1 S z - z``.

    ``x = M^-1/2 r / w`` and ``z = M^-1/2 w r``. The weights ``w`` are ones but along variances next
    to zero.
    """

    x: Continued
    deviation: Continued
    control: Tensor


class IterativeEngine:
    """Penalised least squares by conjugate gradients; called with variances it solves.

    Each call starts where the last one ended, and is the more exact the less the variances moved.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Order of elimination; something must remain.
    large : mapping of int to ndarray or sparse array of shape (n, L)
        ``W^1/2 Z`` of large blocks by term.
    reml : bool
        Whether determinant and traces belong to REML or to ML.
    n_probes : int
        Random probes for the traces.
    random_state : numpy.random.RandomState
        Draws the probes; they stay the same in every call.

    Attributes
    ----------
    n_products : int
        Applications of the Schur complement so far, each to a batch of vectors.
    most_probes : int
        How many there may be, for the memory they take.
    """

    def __init__(
        self,
        crossproducts: CrossProducts,
        layout: Layout,
        large: LargeColumns,
        *,
        reml: bool,
        n_probes: int,
        random_state: np.random.RandomState,
    ) -> None:
        layout, small = set_small_aside(crossproducts, layout)
        self._order = layout.chain + layout.rest + small
        self._terms = [crossproducts.terms[k] for k in self._order]
        self._units = [t.structure.units(t.n_coefficients) for t in self._terms]
        self._n_fixed = len(crossproducts.penalty)
        self._n_large = len(layout.chain + layout.rest)
        self._system = build_system(crossproducts, layout, small, large, reml=reml)
        self._size = sum(term.n_effects for term in self._large[len(layout.chain) :])
        self._random_state = random_state
        self._r = tf.zeros([self._size, 0], tf.float64)
        self._T: list[Array] | None = None
        self._solved = tf.zeros([self._size, len(self._system.fixed)], tf.float64)
        self._working = tf.zeros([self._size, sum(map(len, self._units))], tf.float64)
        self._last: tuple[list[Array], tuple[Linearised, Probes, float]] | None = None
        self._reached = np.inf
        self.n_products = 0
        self.most_probes = min(MOST_PROBES, MOST_PROBE_ENTRIES // self._size)
        self.add_probes(n_probes)

    def add_probes(self, n_probes: int) -> None:
        """Draw more probes, for the solves to come."""
        r = self._random_state.choice([-1.0, 1.0], size=(self._size, n_probes))
        self._r = tf.concat([self._r, r], 1)
        self._solved = tf.pad(self._solved, [[0, 0], [0, n_probes]])
        self._T = self._last = None

    @property
    def _large(self) -> list[TermGram]:
        """The terms that are eliminated or iterated on."""
        return self._terms[: self._n_large]

    def __call__(self, variances: Variances) -> PenalizedSolution:
        """Solve at `variances`."""
        return solver_of_any_scale(self._solve_relative)(variances)

    def _solve_relative(self, relative: Variances) -> PenalizedSolution:
        Sigma = [relative.Sigma[k] for k in self._order]
        factors = [
            covariance_factor(S, term.own) for S, term in zip(Sigma, self._terms, strict=True)
        ]
        at = linearise(self._system, factors[: self._n_large])
        vF, probes, FF, solved = self._solve(at)
        T_small = [vectors * sd for sd, vectors in factors[self._n_large :]]
        corner = close(FF, T_small, self._terms[self._n_large :], self._system.n_determinant)
        self._last = list(relative.Sigma), (at, probes, corner.log_det)

        contrast = np.append(-corner.coefficients, 1.0)
        v = [part @ contrast for part in vF] + self._split_small(FF[:-1] @ contrast)
        m = self._system.n_determinant
        N = [
            trace - np.einsum("alp,pr,blr->ab", part[..., :m], corner.G_determinant, part[..., :m])
            for trace, part in zip(random_traces(at, probes), vF, strict=True)
        ]
        left = FF[:m, :m] - FF[:m, :m] @ corner.G_determinant @ FF[:m, :m]
        N += self._split_small_blocks(left)
        information, informed = self._information(at, vF, FF, v, corner.G)
        order = np.argsort(self._order)
        n_small = len(corner.G) - self._n_fixed
        return PenalizedSolution(
            variances=relative,
            beta=corner.coefficients[n_small:],
            b=tuple((Sigma[i] @ v[i]).T for i in order),
            N=tuple(_symmetric(N[i]) for i in order),
            vv=tuple(v[i] @ v[i].T for i in order),
            n_levels=tuple(self._terms[i].n_levels for i in order),
            yPy=float(FF[-1] @ contrast),
            log_det=None,
            information=reordered(information, list(map(len, self._units)), order),
            beta_cov=corner.G[n_small:, n_small:],
            finite=bool(np.all(np.isfinite(FF))),
            solved=solved and informed,
        )

    def _split_small(self, flat: Array) -> list[Array]:
        """Rows of ``F`` of each small term, (s, L, ...)."""
        parts, start = [], 0
        for term in self._terms[self._n_large :]:
            s, L = term.n_coefficients, term.n_levels
            parts.append(flat[start : start + s * L].reshape(s, L, *flat.shape[1:]))
            start += s * L
        return parts

    def _split_small_blocks(self, matrix: Array) -> list[Array]:
        """Sum over levels of the diagonal blocks of each small term."""
        sums, start = [], 0
        for part in self._split_small(matrix):
            s, L = part.shape[:2]
            own = part[:, :, start : start + s * L].reshape(s, L, s, L)
            sums.append(np.einsum("albl->ab", own))
            start += s * L
        return sums

    def _solve(self, at: Linearised) -> tuple[list[Array], Probes, Array, bool]:
        """``Z'V^-1 F`` by term, the probes, and ``F'V^-1 F``, for sigma2 = 1 and no small terms."""
        system, schur, diagonal = self._system, at.schur, at.diagonal
        P = len(system.fixed)
        grams = fixed_grams(system)
        rhs, on_chain = schur.reduced(grams)
        weight = self._probe_weights(at.T)
        z = diagonal.whitened(self._r * weight)
        at_z, start = schur.both(z, self._solved)
        lacking = diagonal.lacks(at_z)
        tolerance = self._tolerance(at.T)
        krylov = conjugate_gradients(
            schur,
            diagonal.solve,
            tf.concat([rhs, lacking], 1),
            start,
            tolerance,
        )
        self._reached = tolerance
        self.n_products += 1 + krylov.n_products
        self._T, self._solved = at.T, krylov.solution.rest
        fixed = krylov.solution.columns(slice(P))
        # One more sweep: components along a variance of zero are too small for any norm.
        rest = krylov.solution.rest + diagonal.solve(krylov.residual)
        probes = Probes(
            x=at_z if np.all(weight == 1.0) else schur(diagonal.whitened(self._r / weight)),
            deviation=krylov.solution.columns(slice(P, None))._replace(rest=rest[:, P:]),
            control=-diagonal.solve(lacking),
        )
        corner = system.fixed - self._form(at, grams, on_chain, fixed, krylov.residual[:, :P])
        vX = at.solution(on_chain, fixed._replace(rest=rest[:, :P]))
        return [np.asarray(part) for part in vX], probes, corner, krylov.converged

    def _form(
        self,
        at: Linearised,
        grams: list[Tensor],
        on_chain: list[Tensor],
        x: Continued,
        residual: Tensor,
    ) -> Array:
        """``g'T K^-1 T'g`` by equation (15) of docs/theory.md, with the square of x's error."""
        solution = at.solution(on_chain, x)
        inner = sum(
            _inner(joined(g), joined(tf.tensordot(t @ t.T, v, 1)))
            for g, t, v in zip(grams, at.T, solution, strict=True)
        )
        return _symmetric(inner + _inner(x.rest, residual))

    def _probe_weights(self, T: list[Array]) -> Array:
        """Weights (R, 1) that keep the traces' error bounded along variances next to zero."""
        n_chain = len(self._system.chain)
        weights = [np.ones(0)]
        for t, term in zip(T[n_chain:], self._large[n_chain:], strict=True):
            shares = np.einsum("ai,ab,bi->i", t, term.own.mean(axis=2), t)
            weights.append(np.repeat(1.0 / np.sqrt(np.minimum(shares, 1.0)), term.n_levels))
        return np.concatenate(weights)[:, None]

    def _tolerance(self, T: list[Array]) -> float:
        if self._T is None:
            return LOOSEST
        change = max(
            np.linalg.norm(new @ new.T - old @ old.T) / np.linalg.norm(new @ new.T + old @ old.T)
            for new, old in zip(T, self._T, strict=True)
        )
        return float(np.clip(TOLERANCE_PER_CHANGE * change, TIGHTEST, LOOSEST))

    def _information(
        self, at: Linearised, vF: list[Array], FF: Array, v: list[Array], G: Array
    ) -> tuple[Array, bool]:
        """``F'PF`` of the working vectors ``Z_k (I (x) E) v_k``, from Gram blocks."""
        w = _working_vectors(self._units, v)
        large, small = w[: self._n_large], w[self._n_large :]
        grams = gram_times(self._system, large)
        rhs, on_chain = at.schur.reduced(grams)
        krylov = conjugate_gradients(
            at.schur, at.diagonal.solve, rhs, at.schur.start(self._working), INFORMATION_TOLERANCE
        )
        self.n_products += 1 + krylov.n_products
        self._working = krylov.solution.rest
        inner = np.sum([_inner(joined(x), joined(g)) for x, g in zip(large, grams, strict=True)], 0)
        inner -= self._form(at, grams, on_chain, krylov.solution, krylov.residual)
        on_F = np.sum([_inner(joined(V), joined(x)) for V, x in zip(vF, large, strict=True)], 0)
        if small:
            w_small = np.concatenate([np.asarray(joined(x)) for x in small])
            Q = len(w_small)
            cross = on_F[:Q].T @ w_small
            inner += cross + cross.T + w_small.T @ FF[:Q, :Q] @ w_small
            on_F += FF[:, :Q] @ w_small
        return _symmetric(inner) - on_F[:-1].T @ G @ on_F[:-1], krylov.converged

    def trace_samples(self, variances: Variances) -> tuple[Array, ...]:
        """What each probe adds to ``N_k``: (n_probes, s_k, s_k) by term."""
        at, probes, _ = self._solved_at(variances)
        c = self._r.shape[1]
        each = [probe_traces(at, probes, slice(i, i + 1)) for i in range(c)]
        samples = [np.array(part) / variances.sigma2 for part in zip(*each, strict=True)]
        # The small terms' traces are exact.
        samples += [np.zeros((c, *term.own.shape[:2])) for term in self._terms[self._n_large :]]
        return tuple(samples[i] for i in np.argsort(self._order))

    def log_det(self, variances: Variances) -> tuple[float, float]:
        """``log|K|`` of the spherical system by Lanczos quadrature, and its standard error."""
        at, _, corner_log_det = self._solved_at(variances)
        schur, diagonal = at.schur, at.diagonal
        x = schur(diagonal.whitened(self._r))
        rhs = diagonal.times(x.rest)
        n_rows, c = rhs.shape
        krylov = conjugate_gradients(
            schur, diagonal.solve, rhs, schur.zeros(c), QUADRATURE_TOLERANCE
        )
        self.n_products += 1 + krylov.n_products
        samples = log_quadrature(krylov.lengths, krylov.ratios, n_rows)
        # Less a part of expectation zero, which is of first order in S - M.
        samples += n_rows - np.asarray(tf.reduce_sum(x.rest * x.product, axis=0))
        error = float(np.std(samples, ddof=1) / np.sqrt(c))
        return at.log_det + float(np.mean(samples)) + corner_log_det, error

    def is_accurate(self, variances: Variances) -> bool:
        """Whether the last solve was there, and exact enough to report."""
        return self._was_at(variances) and self._reached <= REPORTED

    def _was_at(self, variances: Variances) -> bool:
        if self._last is None:
            return False
        pairs = zip(variances.Sigma, self._last[0], strict=True)
        return all(np.allclose(S / variances.sigma2, there, atol=0.0) for S, there in pairs)

    def _solved_at(self, variances: Variances) -> tuple[Linearised, Probes, float]:
        if not self._was_at(variances):
            self(variances)
        assert self._last is not None
        return self._last[1]


def set_small_aside(crossproducts: CrossProducts, layout: Layout) -> tuple[Layout, tuple[int, ...]]:
    """Take small terms out of what is iterated on: exact in the corner, they couple the others."""
    sizes = {k: crossproducts.terms[k].n_effects for k in layout.rest}
    small: list[int] = []
    for k in sorted(layout.rest, key=sizes.__getitem__)[:-1]:
        if sum(sizes[l] for l in small) + sizes[k] <= SMALL:
            small.append(k)
    rest = tuple(k for k in layout.rest if k not in small)
    return Layout(layout.chain, rest), tuple(small)


class Corner(NamedTuple):
    """Small terms and fixed columns, with everything else eliminated.

    Attributes
    ----------
    coefficients : (Q + p,)
        Effects of the small terms, and beta.
    G : (Q + p, Q + p)
        Their covariance, for sigma2 = 1.
    G_determinant : (m, m)
        The same where only the determinant's columns are in the model.
    log_det : float
        Of the spherical corner.
    """

    coefficients: Array
    G: Array
    G_determinant: Array
    log_det: float


def close(FF: Array, T_small: list[Array], small: list[TermGram], n_determinant: int) -> Corner:
    """Solve the corner ``D'(F'V^-1F)D + I`` with ``D`` of the small terms' factors."""
    p = len(FF) - 1 - sum(term.n_effects for term in small)
    expanded = [np.kron(t, np.eye(term.n_levels)) for t, term in zip(T_small, small, strict=True)]
    D = linalg.block_diag(*expanded, np.eye(p))
    K = D.T @ FF[:-1, :-1] @ D
    K[np.diag_indices(len(K) - p)] += 1.0

    def inverse(m: int) -> Array:
        return np.asarray(D[:m, :m] @ np.linalg.pinv(K[:m, :m], hermitian=True) @ D[:m, :m].T)

    G = inverse(len(K))
    return Corner(
        coefficients=G @ FF[:-1, -1],
        G=G,
        G_determinant=inverse(n_determinant),
        log_det=float(np.linalg.slogdet(K[:n_determinant, :n_determinant])[1]),
    )


def linearise(system: CouplingSystem, factors: Sequence[tuple[Array, Array]]) -> Linearised:
    """Eliminate the chain at given variances, and take the diagonal blocks of what is left."""
    n_chain = len(system.chain)
    T = [tf.constant(vectors * sd) for sd, vectors in factors]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(T)
        elimination = eliminate([term.nested for term in system.chain], T[:n_chain])
        unscaled = [block_diagonal(system, elimination, i) for i in range(len(system.rest))]
        blocks = list(map(spherical, T[n_chain:], unscaled))

    def gradient(weight: float, cotangents: list[Tensor]) -> list[Array]:
        targets = [elimination.log_det, *blocks]
        out = tape.gradient(
            targets, T, output_gradients=[tf.constant(weight, tf.float64), *cotangents]
        )
        return [np.asarray(part) for part in out]

    T_arrays = [t.numpy() for t in T]
    T_inverse = [(vectors / sd).T for sd, vectors in factors]
    schur = Schur(system, elimination, T_arrays, T_inverse)
    diagonal = Diagonal(schur, unscaled, blocks)
    return Linearised(
        T=T_arrays,
        T_inverse=T_inverse,
        schur=schur,
        diagonal=diagonal,
        log_det=float(elimination.log_det) + diagonal.log_det,
        gradient=gradient,
    )


def random_traces(at: Linearised, probes: Probes) -> list[Array]:
    """``d log|K_rr| / dSigma_k`` by term, the mean over the probes."""
    c = probes.control.shape[1]
    control = _control(at, probes, slice(None))
    cotangents = [a + b / c for a, b in zip(at.diagonal.inverses, control, strict=True)]
    known = _by_covariance(at, at.gradient(1.0, cotangents))
    return [a + b / c for a, b in zip(known, _coupling(at, probes, slice(None)), strict=True)]


def probe_traces(at: Linearised, probes: Probes, columns: slice) -> list[Array]:
    """Sum over some probes of ``(y - z)' dS x + (M^-1 S z - z)' dM x``, by term."""
    control = _by_covariance(at, at.gradient(0.0, _control(at, probes, columns)))
    return [a + b for a, b in zip(control, _coupling(at, probes, columns), strict=True)]


def _by_covariance(at: Linearised, gradients: list[Array]) -> list[Array]:
    """Derivatives with respect to ``Sigma = TT'``, of those with respect to ``T``."""
    return [_symmetric(0.5 * g @ t) for g, t in zip(gradients, at.T_inverse, strict=True)]


def _control(at: Linearised, probes: Probes, columns: slice) -> list[Tensor]:
    """Weights of ``dM`` by level, summed over some probes."""
    split = at.schur.split
    pairs = zip(split(probes.control[:, columns]), split(probes.x.rest[:, columns]), strict=True)
    return [_outer_by_level(a, b) for a, b in pairs]


def _coupling(at: Linearised, probes: Probes, columns: slice) -> list[Array]:
    """Sum over some probes of ``(y - z)' dS x``, by term."""
    split = at.schur.split
    x, deviation = probes.x.columns(columns), probes.deviation.columns(columns)
    # The chain's rows of K vanish on a continued vector, so that its gram is -Sigma^-1 b.
    traces = [-_symmetric(_outer(a, b)) for a, b in zip(x.chain, deviation.chain, strict=True)]
    parts = map(split, (x.rest, x.gram, deviation.rest, deviation.gram))
    for t, x_rest, x_gram, d_rest, d_gram in zip(at.T_inverse[len(traces) :], *parts, strict=True):
        traces.append(_symmetric(0.5 * (_outer(x_gram, d_rest) + _outer(d_gram, x_rest)) @ t))
    return traces


def fixed_grams(system: CouplingSystem) -> list[Tensor]:
    """``Z_k'WF`` by term, (s, L, P)."""
    return [tf.transpose(term.fixed, [0, 2, 1]) for term in system.terms]


def _working_vectors(units: Sequence[Array], v: Sequence[Array]) -> list[Tensor]:
    """``(I (x) E) v_k`` for each unit of each term: (s_k, L_k, m), zero for other terms' units."""
    ends = np.cumsum([0, *map(len, units)])
    vectors = []
    for k, (unit, vk) in enumerate(zip(units, v, strict=True)):
        w = np.zeros((*vk.shape, ends[-1]))
        w[:, :, ends[k] : ends[k + 1]] = np.einsum("mab,bl->alm", unit, vk)
        vectors.append(tf.constant(w))
    return vectors


def _symmetric(matrix: Tensor) -> Array:
    return np.asarray(0.5 * (matrix + matrix.T))


def _inner(a: Tensor, b: Tensor) -> Array:
    """``a'b`` for flat vectors (R, c)."""
    return np.asarray(tf.matmul(a, b, transpose_a=True))


def _outer(a: Tensor, b: Tensor) -> Array:
    """``sum a b'`` over levels and columns of vectors (s, L, c)."""
    s = a.shape[0]
    return np.asarray(tf.matmul(tf.reshape(a, [s, -1]), tf.reshape(b, [s, -1]), transpose_b=True))


def _outer_by_level(a: Tensor, b: Tensor) -> Tensor:
    """Symmetric part of ``sum a b'`` over the columns of vectors (s, L, c): (s, s, L)."""
    product = tf.reduce_sum(a[:, None] * b[None, :], axis=-1)
    return 0.5 * (product + tf.transpose(product, [1, 0, 2]))
