"""The exact engine of a single grouping factor: its levels are independent, everything is closed.

With ``A_j = Z_j'WZ_j``, ``F_j = Z_j'W[X y]`` and ``R_j = (A_j Sigma + I)^-1``, for sigma2 = 1,

    Z_j'V^-1 [X y] = R_j F_j = H_j ,    Z_j'V^-1 Z_j = R_j A_j = Q_j ,
    [X y]'V^-1 [X y] = [X y]'W[X y] - sum_j F_j' Sigma H_j ,

and with ``G`` the inverse of its part of X, ``N = sum_j Q_j - H_j G H_j'`` and
``v_j = H_j (-beta; 1)``; equation (12) of docs/theory.md. A solve takes some fifty operations on
the levels, instead of the hundreds that differentiating an elimination does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ..gram.crossproducts import CrossProducts
from .linalg import Tensor, factor_corner, inverse_and_log_det, matmul
from .tensors import Raw


class OneFactorSystem(NamedTuple):
    """Gram blocks of a single factor as tensors. Data only.

    Attributes
    ----------
    own : (s, s, L)
        ``A_j``.
    ZWF : (s, P, L)
        ``F_j``.
    corner : (P, P)
        ``[X y]'W[X y]`` with the ridge penalty.
    units : (m, s, s)
        Symmetric units of the covariance.
    n_determinant : ()
        Columns of X which the criterion takes the determinant of.
    """

    own: Tensor
    ZWF: Tensor
    corner: Tensor
    units: Tensor
    n_determinant: Tensor


def prepare_raw(
    crossproducts: CrossProducts, *, reml: bool, lapack_on_cpu: bool
) -> Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Raw]:
    """Move the Gram blocks to tensors; the result solves, given ``T`` and ``T^-1'``.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks of a single term and the fixed part.
    reml : bool
        Whether determinant and traces belong to REML or to ML.
    lapack_on_cpu : bool
        See `factor_corner`.

    Returns
    -------
    callable
        Of one-tuples, as `exact` hands them over.
    """
    (term,) = crossproducts.terms
    s, p = term.n_coefficients, len(crossproducts.penalty)
    corner = crossproducts.FWF.copy()
    corner[:p, :p] += np.diag(crossproducts.penalty)
    units = term.structure.units(s)
    n_determinant = p if reml else p - crossproducts.n_unpenalized
    system = OneFactorSystem(
        tf.constant(term.own),
        tf.constant(term.ZWF),
        tf.constant(corner),
        tf.constant(units),
        tf.constant(n_determinant, tf.int32),
    )
    # Every data-dependent length is left open, so that one trace serves all data.
    lengths: list[list[int | None]] = [[s, s, None], [s, None, None], [None, None], [*units.shape]]
    shapes = OneFactorSystem(
        *(tf.TensorSpec(shape, x.dtype) for shape, x in zip([*lengths, []], system, strict=True))
    )
    square = tf.TensorSpec([s, s], tf.float64)
    traced = solve_one_factor.get_concrete_function(lapack_on_cpu, shapes, square, square)
    return lambda T, T_inverse_t: traced(lapack_on_cpu, system, *T, *T_inverse_t)


@tf.function(autograph=False)
def solve_one_factor(
    lapack_on_cpu: bool, system: OneFactorSystem, T: Tensor, T_inverse_t: Tensor
) -> Raw:
    """Solve for sigma2 = 1 and ``Sigma = TT'``.

    Parameters
    ----------
    lapack_on_cpu : bool
        See `factor_corner`.
    system : OneFactorSystem
        The Gram blocks.
    T, T_inverse_t : (s, s)
        Root of the covariance, and its inverse transposed.

    Returns
    -------
    Raw
    """
    own, ZWF, corner, units, n_determinant = system
    s = own.shape[0]
    spherical = _between(T, own, T) + tf.eye(s, dtype=T.dtype)[:, :, None]
    inverse, log_dets = inverse_and_log_det(spherical)
    # R = T^-T (T'AT + I)^-1 T', a form that a singular Sigma does not harm.
    R = _between(tf.transpose(T_inverse_t), inverse, tf.transpose(T))
    H, Q = matmul(R, ZWF), matmul(R, own)
    FH = _over_levels(ZWF, H)
    taken = tf.einsum("apbq,ac,bc->pq", FH, T, T)
    factor = factor_corner(corner - taken, n_determinant, lapack_on_cpu=lapack_on_cpu)
    contrast = tf.concat([-factor.solution, tf.ones([1], T.dtype)], 0)
    v = tf.matmul(contrast[None, None], H)
    N = tf.reduce_sum(Q, axis=2) - tf.einsum("apbq,pq->ab", _over_levels(H, H), factor.inverse)
    on_X = tf.einsum("apbz,mab->pm", _over_levels(H[:, :-1], v), units)
    reduced = tf.linalg.triangular_solve(factor.cholesky, on_X, lower=False, adjoint=True)
    vQv = _over_levels(Q, v * tf.transpose(v, [1, 0, 2]))
    FWF = tf.einsum("acbd,mab,ncd->mn", vQv, units, units)
    identity = tf.eye(tf.shape(on_X)[0], dtype=T.dtype)
    return Raw(
        v=(v[:, 0],),
        N=(N,),
        beta=factor.solution,
        remainder=factor.remainder,
        log_det=tf.reduce_sum(log_dets) + factor.log_det,
        information=FWF - tf.matmul(reduced, reduced, transpose_a=True),
        beta_cov=tf.linalg.cholesky_solve(tf.transpose(factor.cholesky), identity),
    )


def _between(a: Tensor, blocks: Tensor, b: Tensor) -> Tensor:
    """``a' B b`` level by level for (s, s, L), in one product."""
    s = a.shape[0]
    kron = tf.reshape(tf.einsum("ai,bj->ijab", a, b), [s * s, s * s])
    return tf.reshape(tf.matmul(kron, tf.reshape(blocks, [s * s, -1])), tf.shape(blocks))


def _over_levels(a: Tensor, b: Tensor) -> Tensor:
    """Sum over levels of all products: (s, i, L) and (s, k, L) give (s, i, s, k)."""
    flat = [tf.reshape(x, [-1, tf.shape(x)[-1]]) for x in (a, b)]
    leading = [tf.shape(x)[:2] for x in (a, b)]
    return tf.reshape(tf.matmul(*flat, transpose_b=True), tf.concat(leading, 0))
