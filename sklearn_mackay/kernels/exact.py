"""The exact engine: Henderson's equations by block elimination, at given variances.

With ``Sigma_k = sigma2 T_k T_k'`` and ``b_k = (I (x) T_k) u_k`` the system is spherical,

    K = [T'Z'WZT + I   T'Z'WX]
        [X'WZT         X'WX  ] ,

bounded below by the identity however small or singular a variance is. A chain of nested factors is
eliminated level by level: each block stays block-diagonal, because a level of an earlier factor
touches one level of every later one. What the chain leaves, the crossed terms and the fixed part,
is the dense corner. Eliminating never adds to a pattern: the parent of a level meets every column
that the level meets.

The trace part ``N_k`` of the gradient is half of ``d log|K| / dT_k`` times ``T_k^-1``; reverse-mode
differentiation of the elimination gives it without the inverse of ``K``, only the corner's inverse
enters, as cotangent. Sources: Henderson (1975) for ``K``,
Gilmour, Thompson and Cullis (1995) for the information matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .._crossproducts import CrossGram, CrossProducts
from .._solution import RANK_TOLERANCE, PenalizedSolution, Variances, symmetric_units
from .linalg import (
    Factor,
    Pattern,
    block_quadratic,
    factor_corner,
    inverse_and_log_det,
    matmul,
    matmul_transposed,
    segment_sum,
)

Array = NDArray[np.float64]

CHUNK_ENTRIES = 2**23  # entries of a dense intermediate product: 64 MiB
ZERO_INFORMATION = 1e-18  # a standard deviation whose share of the data rounds away


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


class Raw(NamedTuple):
    """What the compiled function returns, in units of sigma2 = 1; terms in elimination order."""

    u: tuple[Any, ...]
    log_det_gradient: tuple[Any, ...]
    beta: Any
    remainder: Any
    log_det: Any
    information: Any
    beta_cov: Any


def prepare(
    crossproducts: CrossProducts, *, reml: bool
) -> Callable[[Variances], PenalizedSolution]:
    """Move the Gram blocks to tensors once; the result solves at any variances.

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
    layout = choose_layout(crossproducts)
    system = _to_tensors(crossproducts, layout, reml=reml)
    coefficients = [crossproducts.terms[k].n_coefficients for k in layout.chain + layout.rest]
    T_spec = tuple(tf.TensorSpec([s, s], tf.float64) for s in coefficients)
    on_cpu = not tf.config.list_logical_devices("GPU")
    traced = _solve_spherical.get_concrete_function(on_cpu, _shapes(system), T_spec, T_spec)
    run = partial(traced, on_cpu, system)
    return lambda variances: solve_penalized_gls(crossproducts, run, layout, variances)


def solve_penalized_gls(
    crossproducts: CrossProducts,
    run: Callable[[tuple[Any, ...], tuple[Any, ...]], Raw],
    layout: Layout,
    variances: Variances,
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
    variances : Variances
        Where to solve.

    Returns
    -------
    PenalizedSolution
        `finite` is False where the system was not positive definite.
    """
    order = layout.chain + layout.rest
    sigma2 = variances.sigma2
    factors = [
        _covariance_factor(variances.Sigma[k] / sigma2, crossproducts.terms[k].own) for k in order
    ]
    T = tuple(tf.constant(vectors * sd) for sd, vectors, _ in factors)
    T_inverse_t = tuple(tf.constant(vectors / sd) for sd, vectors, _ in factors)
    raw = tf.nest.map_structure(lambda tensor: tensor.numpy(), run(T, T_inverse_t))

    at = np.argsort(order)
    N = []
    b = []
    vv = []
    for i in at:
        (sd, vectors, active), u = factors[i], raw.u[i]
        N_relative = 0.5 * (raw.log_det_gradient[i] / sd) @ vectors.T
        v = (vectors / sd) @ u / sigma2
        N.append(0.5 * (N_relative + N_relative.T) / sigma2)
        vv.append(v @ v.T)
        b.append(((vectors * sd * active) @ u).T)
    units = [crossproducts.terms[k] for k in order]
    information = _reorder(
        raw.information, [_n_units(t.n_coefficients, t.diagonal) for t in units], at
    )
    return PenalizedSolution(
        variances=variances,
        beta=raw.beta,
        b=tuple(b),
        N=tuple(N),
        vv=tuple(vv),
        n_levels=tuple(term.n_levels for term in crossproducts.terms),
        yPy=float(raw.remainder) / sigma2,
        log_det=float(raw.log_det),
        information=information / sigma2**3,
        beta_cov=raw.beta_cov * sigma2,
        finite=bool(np.isfinite(raw.log_det) and np.isfinite(raw.remainder)),
    )


def _covariance_factor(Sigma: Array, own: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """``T = vectors * sd`` with ``TT' = Sigma``, null directions kept at a vanishing length.

    A direction of no variance still has a gradient, which decides whether it may stay at zero;
    columns of ``T`` that are tiny instead of zero let it be divided out exactly.
    """
    eigenvalues, vectors = np.linalg.eigh(Sigma)
    null = eigenvalues <= RANK_TOLERANCE * eigenvalues[-1]
    floor = np.sqrt(ZERO_INFORMATION / max(float(np.max(np.trace(own))), 1.0))
    return np.where(null, floor, np.sqrt(np.where(null, 0.0, eigenvalues))), vectors, ~null


def _n_units(s: int, diagonal: bool) -> int:
    return s if diagonal else s * (s + 1) // 2


def _reorder(matrix: Array, sizes: list[int], at: NDArray[np.intp]) -> Array:
    blocks = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    index = np.concatenate([blocks[i] for i in at]) if len(at) else np.arange(0)
    return np.asarray(matrix[np.ix_(index, index)])


@tf.function(autograph=False)
def _solve_spherical(
    lapack_on_cpu: bool, system: System, T: tuple[Any, ...], T_inverse_t: tuple[Any, ...]
) -> Raw:
    with tf.GradientTape() as tape:
        tape.watch(T)
        blocks, inverses, log_det, corner = _eliminate(system, T)
    factor = factor_corner(corner, system.n_determinant, lapack_on_cpu=lapack_on_cpu)
    log_det_gradient = tape.gradient(
        [log_det, corner], T, output_gradients=[tf.ones_like(log_det), factor.inverse]
    )
    u, beta = _substitute_back(system, blocks, inverses, T, factor)
    v = tuple(tf.matmul(t, effects) for t, effects in zip(T_inverse_t, u, strict=True))
    information = _information(system, blocks, inverses, T, factor, v)
    R = tf.reduce_sum(system.rest_sizes)
    p = tf.shape(beta)[0]
    beta_cov = tf.linalg.cholesky_solve(
        tf.transpose(factor.cholesky[R:, R:]), tf.eye(p, dtype=beta.dtype)
    )
    return Raw(
        u=u,
        log_det_gradient=log_det_gradient,
        beta=beta,
        remainder=factor.remainder,
        log_det=log_det + factor.log_det,
        information=information,
        beta_cov=beta_cov,
    )


def _eliminate(system: System, T: tuple[Any, ...]) -> tuple[list[ChainBlocks], list[Any], Any, Any]:
    """Eliminate the chain; return its Schur blocks, their inverses, log determinant and corner."""
    n_chain = len(system.chain)
    blocks = [_scale(block, T[m], T[m + 1 : n_chain]) for m, block in enumerate(system.chain)]
    log_det = tf.zeros([], tf.float64)
    corner = system.corner
    inverses = []
    for m in range(n_chain):
        block = blocks[m]
        inverse, log_dets = inverse_and_log_det(block.own)
        inverses.append(inverse)
        log_det += tf.reduce_sum(log_dets)
        if block.pattern:
            corner -= block_quadratic(
                block.values, inverse, block.fixed, block.levels, block.columns, block.pattern
            )
        else:
            rows = _rows(block.fixed)
            corner -= tf.matmul(rows, _rows(matmul(inverse, block.fixed)), transpose_a=True)
        for j, parent in enumerate(block.parents):
            blocks[m + 1 + j] = _update_parent(blocks[m + 1 + j], block, inverse, j, parent)
    if len(T) > n_chain:
        corner = _to_spherical(corner, T[n_chain:], system.rest_sizes)
    return blocks, inverses, log_det, corner


def _scale(block: ChainBlocks, T: Any, T_later: tuple[Any, ...]) -> ChainBlocks:
    """Bring a term's blocks to spherical form; the corner's own columns are scaled at the end."""
    t = T[:, :, None]
    identity = tf.eye(T.shape[0], dtype=T.dtype)[:, :, None]
    return block._replace(
        own=matmul_transposed(t, matmul(block.own, t)) + identity,
        fixed=matmul_transposed(t, block.fixed),
        links=tuple(
            matmul_transposed(t, matmul(link, later[:, :, None]))
            for link, later in zip(block.links, T_later, strict=True)
        ),
        values=tf.matmul(T, block.values, transpose_a=True),
    )


def _update_parent(
    parent: ChainBlocks, block: ChainBlocks, inverse: Any, j: int, parents: Any
) -> ChainBlocks:
    """Take an eliminated term out of the blocks of a later one, its ``j``-th."""
    L = tf.shape(parent.own)[-1]
    weights = matmul(inverse, block.links[j])  # (s, s_j, L_m)

    def taken(columns: Any) -> Any:
        return segment_sum(matmul_transposed(weights, columns), parents, L)

    values = parent.values
    if block.pattern:
        along_pairs = tf.gather(weights, block.levels, axis=-1)
        values -= segment_sum(
            matmul_transposed(along_pairs, block.values[:, None, :])[:, 0],
            block.positions[j],
            tf.shape(values)[-1],
        )
    return parent._replace(
        own=parent.own - taken(block.links[j]),
        fixed=parent.fixed - taken(block.fixed),
        links=tuple(
            link - taken(mine)
            for link, mine in zip(parent.links, block.links[j + 1 :], strict=True)
        ),
        values=values,
    )


def _to_spherical(corner: Any, T_rest: tuple[Any, ...], sizes: Any) -> Any:
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


def _scale_rows(rows: Any, T_rest: tuple[Any, ...], sizes: Any) -> Any:
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
    system: System, blocks: list[ChainBlocks], inverses: list[Any], T: Any, factor: Factor
) -> tuple[tuple[Any, ...], Any]:
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
    u: list[Any] = [None] * n_chain
    for m in reversed(range(n_chain)):
        block = blocks[m]
        rhs = block.fixed[:, -1] - tf.reduce_sum(block.fixed[:, :-1] * beta[:, None], axis=1)
        if b_rest:
            at_pairs = block.values * tf.gather(tf.concat(b_rest, 0), block.columns)
            rhs -= segment_sum(at_pairs, block.levels, tf.shape(rhs)[-1])
        for j, parents in enumerate(block.parents):
            above = tf.gather(u[m + 1 + j], parents, axis=-1)
            rhs -= matmul(block.links[j], above[:, None, :])[:, 0]
        u[m] = matmul(inverses[m], rhs[:, None, :])[:, 0]
    return (*u, *u_rest), beta


def _information(
    system: System,
    blocks: list[ChainBlocks],
    inverses: list[Any],
    T: tuple[Any, ...],
    factor: Factor,
    v: tuple[Any, ...],
) -> Any:
    """``F'PF`` from Gram blocks: ``F'WF`` less what the elimination of ``[Z X]`` takes off."""
    n_chain = len(blocks)
    w = _working_vectors(system.units, v)
    on_chain, on_corner, FWF = _gram_times(system, w, n_chain)
    on_chain = [
        matmul_transposed(t[:, :, None], rho) for t, rho in zip(T[:n_chain], on_chain, strict=True)
    ]
    total = FWF
    for m, block in enumerate(blocks):
        solved = matmul(inverses[m], on_chain[m])
        total -= _inner(on_chain[m], solved)
        on_corner -= _times_corner_columns(block, solved, system)
        for j, parents in enumerate(block.parents):
            L = tf.shape(on_chain[m + 1 + j])[-1]
            taken = segment_sum(matmul_transposed(block.links[j], solved), parents, L)
            on_chain[m + 1 + j] -= taken
    on_corner = _scale_rows(on_corner, T[n_chain:], system.rest_sizes)
    reduced = tf.linalg.triangular_solve(factor.cholesky, on_corner, lower=False, adjoint=True)
    return total - tf.matmul(reduced, reduced, transpose_a=True)


def _working_vectors(units: tuple[Any, ...], v: tuple[Any, ...]) -> list[Any]:
    """``(I (x) E) v_k`` for each unit of each term: (s_k, m, L_k), zero for other terms' units."""
    counts = [unit.shape[0] for unit in units]
    vectors = []
    for k, (unit, vk) in enumerate(zip(units, v, strict=True)):
        m, s, _ = unit.shape
        own = tf.reshape(tf.matmul(tf.reshape(unit, [m * s, s]), vk), [m, s, -1])
        before, after = sum(counts[:k]), sum(counts[k + 1 :])
        vectors.append(tf.pad(tf.transpose(own, [1, 0, 2]), [[0, 0], [before, after], [0, 0]]))
    return vectors


def _gram_times(system: System, w: list[Any], n_chain: int) -> tuple[list[Any], Any, Any]:
    """``[Z X]'W F`` by part, and ``F'WF``, for ``F = sum_k Z_k w_k``."""
    m = sum(unit.shape[0] for unit in system.units)
    w_rest = tf.concat([tf.zeros([0, m], tf.float64), *(_rows(x) for x in w[n_chain:])], 0)
    R = tf.shape(w_rest)[0]
    on_corner = tf.matmul(system.corner[:-1, :R], w_rest)
    on_chain = [matmul(block.own, w[i]) for i, block in enumerate(system.chain)]
    for i, block in enumerate(system.chain):
        on_corner += _times_corner_columns(block, w[i], system)
        if block.pattern:
            at_pairs = tf.transpose(tf.gather(w_rest, block.columns))
            L = tf.shape(on_chain[i])[-1]
            on_chain[i] += segment_sum(block.values[:, None] * at_pairs, block.levels, L)
        for j, (parents, link) in enumerate(zip(block.parents, block.links, strict=True)):
            l = i + 1 + j
            on_chain[i] += matmul(link, tf.gather(w[l], parents, axis=-1))
            L = tf.shape(on_chain[l])[-1]
            on_chain[l] += segment_sum(matmul_transposed(link, w[i]), parents, L)
    FWF = tf.matmul(w_rest, on_corner[:R], transpose_a=True)
    for i in range(n_chain):
        FWF += _inner(w[i], on_chain[i])
    return on_chain, on_corner, FWF


def _times_corner_columns(block: ChainBlocks, x: Any, system: System) -> Any:
    """``[B F]'x`` without the column of y: (s, m, L) gives (C - 1, m)."""
    on_fixed = tf.matmul(_rows(block.fixed[:, :-1]), _rows(x), transpose_a=True)
    if not block.pattern:
        return on_fixed
    at_pairs = tf.reduce_sum(block.values[:, None] * tf.gather(x, block.levels, axis=-1), axis=0)
    on_random = segment_sum(at_pairs, block.columns, tf.reduce_sum(system.rest_sizes))
    return tf.concat([tf.transpose(on_random), on_fixed], 0)


def _inner(a: Any, b: Any) -> Any:
    return tf.matmul(_rows(a), _rows(b), transpose_a=True)


def _rows(blocks: Any) -> Any:
    """(s, m, L) as (s L, m)."""
    return tf.reshape(tf.transpose(blocks, [0, 2, 1]), [-1, tf.shape(blocks)[1]])


def choose_layout(crossproducts: CrossProducts) -> Layout:
    """Eliminate the chain of nested terms that leaves the smallest corner."""
    n_terms = len(crossproducts.terms)
    size = [term.n_coefficients * term.n_levels for term in crossproducts.terms]
    chains = [
        chain
        for length in range(min(n_terms, 1), n_terms + 1)
        for chain in combinations(sorted(range(n_terms), key=lambda k: -size[k]), length)
        if all(_is_nested(crossproducts, k, l) for k, l in combinations(chain, 2))
    ]
    chain = max(chains, key=lambda chain: sum(size[k] for k in chain))
    rest = tuple(k for k in range(n_terms) if k not in chain)
    return Layout(chain, rest)


def _oriented(crossproducts: CrossProducts, k: int, l: int) -> CrossGram:
    return crossproducts.cross[k, l] if k < l else crossproducts.cross[l, k].transposed


def _is_nested(crossproducts: CrossProducts, k: int, l: int) -> bool:
    """Whether each level of term k meets one level of term l only."""
    table = _oriented(crossproducts, k, l)
    return len(table.row_levels) <= len(np.unique(table.row_levels))


def _to_tensors(crossproducts: CrossProducts, layout: Layout, *, reml: bool) -> System:
    terms = crossproducts.terms
    sizes = [terms[k].n_coefficients * terms[k].n_levels for k in layout.rest]
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
        table = _oriented(crossproducts, k, l)
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
        table = _oriented(crossproducts, chain[m], chain[later])
        parent = np.zeros(term.n_levels, np.int32)
        parent[table.row_levels] = table.column_levels
        link = np.zeros((*table.blocks.shape[:2], term.n_levels))
        link[:, :, table.row_levels] = table.blocks
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
        fixed = term.fixed.transpose(0, 2, 1).reshape(s * L, -1)
        corner[offsets[i] : offsets[i + 1], R:] = fixed
        corner[R:, offsets[i] : offsets[i + 1]] = fixed.T
        for j in range(i + 1, len(rest)):
            table = _oriented(crossproducts, k, rest[j])
            other = crossproducts.terms[rest[j]]
            there = offsets[j] + np.arange(other.n_coefficients)[:, None] * other.n_levels
            rows = here[:, table.row_levels][:, None]  # (s, 1, m)
            columns = (there + table.column_levels)[None]  # (1, s_j, m)
            corner[rows, columns] = table.blocks
            corner[columns, rows] = table.blocks
    return corner


def _shapes(system: System) -> System:
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
