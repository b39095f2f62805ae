"""The exact engine: Henderson's equations by block elimination, at given variances.

With ``Sigma_k = sigma2 T_k T_k'`` and ``b_k = (I (x) T_k) u_k`` the system is spherical,

    K = [T'Z'WZT + I   T'Z'WX]
        [X'WZT         X'WX  ] ,

whose random block is bounded below by the identity however small or singular a variance is;
equation (2) of docs/theory.md. A chain of nested factors is eliminated level by level, as the
iterative engine does. What it leaves, the crossed terms and the fixed part, is the dense corner.
Eliminating never adds to a pattern: the parent of a level meets every column that the level meets.

The trace part ``N_k`` of the gradient is ``d log|K| / dT_k`` times ``T_k^-1 / (2 sigma2)``;
reverse-mode differentiation of the elimination gives it without the inverse of ``K``, only the
corner's inverse enters, as cotangent: equation (4) of docs/theory.md. Sources: Henderson (1975) for
``K``, Gilmour, Thompson and Cullis (1995) for the information matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from ..covariances.matrices import covariance_factor
from ..evidence.solution import PenalizedSolution, Variances, solver_of_any_scale
from ..gram.crossproducts import CrossProducts
from ..gram.layout import Layout
from . import one_factor
from .elimination import Elimination, eliminate
from .lapack import reordered
from .linalg import (
    Factor,
    Tensor,
    block_quadratic,
    factor_corner,
    matmul,
    matmul_transposed,
    segment_sum,
    to_rows,
)
from .tensors import ChainBlocks, EliminationSystem, Raw, shapes, to_tensors


def prepare(
    crossproducts: CrossProducts, layout: Layout, *, reml: bool
) -> Callable[[Variances], PenalizedSolution]:
    """Move the Gram blocks to tensors once; the result solves at any variances.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Order of elimination.
    reml : bool
        Whether determinant and traces belong to REML or to ML.

    Returns
    -------
    callable
        ``solve(variances) -> PenalizedSolution``.
    """
    on_cpu = not tf.config.list_logical_devices("GPU")
    if len(crossproducts.terms) == 1:
        run = one_factor.prepare_raw(crossproducts, reml=reml, lapack_on_cpu=on_cpu)
    else:
        run = _prepare_elimination(crossproducts, layout, reml=reml, lapack_on_cpu=on_cpu)
    return solver_of_any_scale(partial(solve_penalized_gls, crossproducts, run, layout))


def _prepare_elimination(
    crossproducts: CrossProducts, layout: Layout, *, reml: bool, lapack_on_cpu: bool
) -> Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Raw]:
    coefficients = [crossproducts.terms[k].n_coefficients for k in layout.chain + layout.rest]
    T_spec = tuple(tf.TensorSpec([s, s], tf.float64) for s in coefficients)
    system = to_tensors(crossproducts, layout, reml=reml)
    traced = _solve_spherical.get_concrete_function(lapack_on_cpu, shapes(system), T_spec, T_spec)
    return partial(traced, lapack_on_cpu, system)


@np.errstate(invalid="ignore")  # numbers that are not finite are reported, not warned of
def solve_penalized_gls(
    crossproducts: CrossProducts,
    run: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Raw],
    layout: Layout,
    relative: Variances,
) -> PenalizedSolution:
    """Solve ``K (u, beta) = (T'Z'Wy, X'Wy)`` and return what the variance updates need.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    run : callable
        The traced function on the blocks' tensors, of ``T_k`` and ``T_k^-1'`` in elimination order.
    layout : Layout
        Order of elimination.
    relative : Variances
        Where to solve, with sigma2 = 1.

    Returns
    -------
    PenalizedSolution
        `finite` is False where the system was not positive definite.
    """
    order = layout.chain + layout.rest
    factors = [covariance_factor(relative.Sigma[k], crossproducts.terms[k].own) for k in order]
    T = tuple(tf.constant(vectors * sd) for sd, vectors in factors)
    T_inverse_t = tuple(tf.constant(vectors / sd) for sd, vectors in factors)
    raw = tf.nest.map_structure(lambda tensor: tensor.numpy(), run(T, T_inverse_t))

    at = np.argsort(order)
    units = [crossproducts.terms[k] for k in order]
    information = reordered(
        raw.information, [t.structure.n_parameters(t.n_coefficients) for t in units], at
    )
    return PenalizedSolution(
        variances=relative,
        beta=raw.beta,
        b=tuple((relative.Sigma[order[i]] @ raw.v[i]).T for i in at),
        N=tuple(0.5 * (raw.N[i] + raw.N[i].T) for i in at),
        vv=tuple(raw.v[i] @ raw.v[i].T for i in at),
        n_levels=tuple(term.n_levels for term in crossproducts.terms),
        yPy=float(raw.remainder),
        log_det=float(raw.log_det),
        information=information,
        beta_cov=raw.beta_cov,
        finite=bool(np.isfinite(raw.log_det) and np.isfinite(raw.remainder)),
    )


@tf.function(autograph=False)
def _solve_spherical(
    lapack_on_cpu: bool,
    system: EliminationSystem,
    T: tuple[Tensor, ...],
    T_inverse_t: tuple[Tensor, ...],
) -> Raw:
    with tf.GradientTape() as tape:
        tape.watch(T)
        blocks, elimination, corner = _eliminate(system, T)
    factor = factor_corner(corner, system.n_determinant, lapack_on_cpu=lapack_on_cpu)
    log_det_gradient = tape.gradient(
        [elimination.log_det, corner],
        T,
        output_gradients=[tf.ones_like(elimination.log_det), factor.inverse],
    )
    u, beta = _substitute_back(system, blocks, elimination.inverses, T, factor)
    v = tuple(tf.matmul(t, effects) for t, effects in zip(T_inverse_t, u, strict=True))
    information = _information(system, blocks, elimination.W, T, factor, v)
    R = tf.reduce_sum(system.rest_sizes)
    p = tf.shape(beta)[0]
    beta_cov = tf.linalg.cholesky_solve(
        tf.transpose(factor.cholesky[R:, R:]), tf.eye(p, dtype=beta.dtype)
    )
    N = tuple(
        0.5 * tf.matmul(gradient, t, transpose_b=True)
        for gradient, t in zip(log_det_gradient, T_inverse_t, strict=True)
    )
    return Raw(
        v=v,
        N=N,
        beta=beta,
        remainder=factor.remainder,
        log_det=elimination.log_det + factor.log_det,
        information=information,
        beta_cov=beta_cov,
    )


def _eliminate(
    system: EliminationSystem, T: tuple[Tensor, ...]
) -> tuple[list[ChainBlocks], Elimination, Tensor]:
    """Eliminate the chain; return what it leaves of its blocks, and the spherical corner."""
    n_chain = len(system.chain)
    elimination = eliminate([block.nested for block in system.chain], T[:n_chain])
    left = zip(system.chain, elimination.links, elimination.values, strict=True)
    blocks = [block.with_left(links, values) for block, links, values in left]
    corner = system.corner
    for block, W in zip(blocks, elimination.W, strict=True):
        if block.pattern:
            corner -= block_quadratic(
                block.values, W, block.fixed, block.levels, block.columns, block.pattern
            )
        else:
            rows = to_rows(block.fixed)
            corner -= tf.matmul(rows, to_rows(matmul(W, block.fixed)), transpose_a=True)
    if len(T) > n_chain:
        corner = _to_spherical(corner, T[n_chain:], system.rest_sizes)
    return blocks, elimination, corner


def _to_spherical(corner: Tensor, T_rest: tuple[Tensor, ...], sizes: Tensor) -> Tensor:
    """``T' corner T + I`` on the rows and columns of the corner's random terms."""
    R = tf.reduce_sum(sizes)
    if all(t.shape[0] == 1 for t in T_rest):
        sd = [tf.repeat(t[0], sizes[i]) for i, t in enumerate(T_rest)]
        scale = tf.concat([*sd, tf.ones(tf.shape(corner)[:1] - R, corner.dtype)], 0)
        scaled = corner * tf.tensordot(scale, scale, 0)
    else:
        scaled = _scale_rows(tf.transpose(_scale_rows(corner, T_rest, sizes)), T_rest, sizes)
    return tf.linalg.set_diag(
        scaled,
        tf.linalg.diag_part(scaled) + tf.cast(tf.range(tf.shape(corner)[0]) < R, corner.dtype),
    )


def _scale_rows(rows: Tensor, T_rest: tuple[Tensor, ...], sizes: Tensor) -> Tensor:
    """``T'`` times the rows of each random term in the corner; the rows below stay."""
    start = 0
    pieces = []
    for i, t in enumerate(T_rest):
        piece = rows[start : start + sizes[i]]
        scaled = tf.matmul(t, tf.reshape(piece, [t.shape[0], -1]), transpose_a=True)
        pieces.append(tf.reshape(scaled, tf.shape(piece)))
        start += sizes[i]
    return tf.concat([*pieces, rows[start:]], 0)


def _substitute_back(
    system: EliminationSystem,
    blocks: list[ChainBlocks],
    inverses: list[Tensor],
    T: Tensor,
    factor: Factor,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return ``u`` of every term (s, L) and ``beta`` (p,)."""
    n_chain = len(blocks)
    u_rest, b_rest = [], []
    start = 0
    for i, t in enumerate(T[n_chain:]):
        piece = factor.solution[start : start + system.rest_sizes[i]]
        u_rest.append(tf.reshape(piece, [t.shape[0], -1]))
        b_rest.append(tf.reshape(tf.matmul(t, u_rest[-1]), [-1]))
        start += system.rest_sizes[i]
    beta = factor.solution[start:]
    on_corner = tf.concat([*b_rest, beta], 0)
    u: list[Tensor] = [None] * n_chain
    b: list[Tensor] = [None] * n_chain
    for m in reversed(range(n_chain)):
        block = blocks[m]
        on_dense = on_corner[tf.shape(on_corner)[0] + 1 - tf.shape(block.fixed)[1] :]
        rhs = block.fixed[:, -1] - tf.reduce_sum(block.fixed[:, :-1] * on_dense[:, None], axis=1)
        if block.pattern:
            at_pairs = block.values * tf.gather(on_corner, block.columns)
            rhs -= segment_sum(at_pairs, block.levels, tf.shape(rhs)[-1])
        for j, parents in enumerate(block.parents):
            above = tf.gather(b[m + 1 + j], parents, axis=-1)
            rhs -= matmul(block.links[j], above[:, None, :])[:, 0]
        u[m] = matmul(inverses[m], tf.matmul(T[m], rhs, transpose_a=True)[:, None])[:, 0]
        b[m] = tf.matmul(T[m], u[m])
    return (*u, *u_rest), beta


def _information(
    system: EliminationSystem,
    blocks: list[ChainBlocks],
    W: list[Tensor],
    T: tuple[Tensor, ...],
    factor: Factor,
    v: tuple[Tensor, ...],
) -> Tensor:
    """``F'PF`` from Gram blocks: ``F'WF`` less what the elimination of ``[Z X]`` takes off.

    Equation (8) of docs/theory.md.
    """
    n_chain = len(blocks)
    w = _working_vectors(system.units, v)
    on_chain, on_corner, FWF = _gram_times(system, w, n_chain)
    total = FWF
    for m, block in enumerate(blocks):
        solved = matmul(W[m], on_chain[m])
        total -= _inner(on_chain[m], solved)
        on_corner -= _times_corner_columns(block, solved)
        for j, parents in enumerate(block.parents):
            L = tf.shape(on_chain[m + 1 + j])[-1]
            taken = segment_sum(matmul_transposed(block.links[j], solved), parents, L)
            on_chain[m + 1 + j] -= taken
    on_corner = _scale_rows(on_corner, T[n_chain:], system.rest_sizes)
    reduced = tf.linalg.triangular_solve(factor.cholesky, on_corner, lower=False, adjoint=True)
    return total - tf.matmul(reduced, reduced, transpose_a=True)


def _working_vectors(units: tuple[Tensor, ...], v: tuple[Tensor, ...]) -> list[Tensor]:
    """``(I (x) E) v_k`` for each unit of each term: (s_k, m, L_k), zero for other terms' units."""
    counts = [unit.shape[0] for unit in units]
    vectors = []
    for k, (unit, vk) in enumerate(zip(units, v, strict=True)):
        m, s, _ = unit.shape
        own = tf.reshape(tf.matmul(tf.reshape(unit, [m * s, s]), vk), [m, s, -1])
        before, after = sum(counts[:k]), sum(counts[k + 1 :])
        vectors.append(tf.pad(tf.transpose(own, [1, 0, 2]), [[0, 0], [before, after], [0, 0]]))
    return vectors


def _gram_times(
    system: EliminationSystem, w: list[Tensor], n_chain: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """``[Z X]'W F`` by part, and ``F'WF``, for ``F = sum_k Z_k w_k``."""
    m = sum(unit.shape[0] for unit in system.units)
    w_rest = tf.concat([tf.zeros([0, m], tf.float64), *(to_rows(x) for x in w[n_chain:])], 0)
    R = tf.shape(w_rest)[0]
    on_corner = tf.matmul(system.corner[:-1, :R], w_rest)
    on_chain = [matmul(block.own, w[i]) for i, block in enumerate(system.chain)]
    for i, block in enumerate(system.chain):
        on_corner += _times_corner_columns(block, w[i])
        n_factors = 0
        if block.pattern:
            n_factors = block.pattern.n_columns
            at_pairs = tf.transpose(tf.gather(w_rest, block.columns))
            L = tf.shape(on_chain[i])[-1]
            on_chain[i] += segment_sum(block.values[:, None] * at_pairs, block.levels, L)
        on_chain[i] += tf.matmul(
            w_rest[n_factors:], block.fixed[:, : R - n_factors], transpose_a=True
        )
        for j, (parents, link) in enumerate(zip(block.parents, block.links, strict=True)):
            l = i + 1 + j
            on_chain[i] += matmul(link, tf.gather(w[l], parents, axis=-1))
            L = tf.shape(on_chain[l])[-1]
            on_chain[l] += segment_sum(matmul_transposed(link, w[i]), parents, L)
    FWF = tf.matmul(w_rest, on_corner[:R], transpose_a=True)
    for i in range(n_chain):
        FWF += _inner(w[i], on_chain[i])
    return on_chain, on_corner, FWF


def _times_corner_columns(block: ChainBlocks, x: Tensor) -> Tensor:
    """The block with the corner transposed times x, without y: (s, m, L) gives (C - 1, m)."""
    on_fixed = tf.matmul(to_rows(block.fixed[:, :-1]), to_rows(x), transpose_a=True)
    if not block.pattern:
        return on_fixed
    at_pairs = tf.reduce_sum(block.values[:, None] * tf.gather(x, block.levels, axis=-1), axis=0)
    on_random = segment_sum(at_pairs, block.columns, block.pattern.n_columns)
    return tf.concat([tf.transpose(on_random), on_fixed], 0)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return tf.matmul(to_rows(a), to_rows(b), transpose_a=True)
