"""Conjugate gradients for many right-hand sides, and Gauss quadrature from their coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import linalg

from .._arrays import Array
from .linalg import Tensor

MAX_PRODUCTS = 2000


class Continued(NamedTuple):
    """Vectors of the remaining terms, with what the whole system makes of them.

    Attributes
    ----------
    rest : (R, c)
        The vectors.
    chain : list of (s_m, L_m, c)
        ``Sigma^-1 b`` of the continuation into the chain on which the chain's rows of ``K`` vanish.
    gram : (R, c)
        ``Z'WZ b`` of the continued vector; ``S rest = rest + T' gram``.
    product : (R, c)
        ``S rest``.
    """

    rest: Tensor
    chain: list[Tensor]
    gram: Tensor
    product: Tensor

    def plus(self, length: Tensor, other: Continued) -> Continued:
        """Move along other vectors, each by its own length (c,)."""
        return Continued(
            self.rest + length * other.rest,
            [a + length * b for a, b in zip(self.chain, other.chain, strict=True)],
            self.gram + length * other.gram,
            self.product + length * other.product,
        )

    def columns(self, which: slice) -> Continued:
        """Some of the vectors."""
        return Continued(
            self.rest[:, which],
            [part[..., which] for part in self.chain],
            self.gram[:, which],
            self.product[:, which],
        )


class Krylov(NamedTuple):
    """Result of conjugate gradients; the coefficients make up Lanczos' matrix."""

    solution: Continued
    residual: Tensor
    n_products: int
    converged: bool
    lengths: Array
    ratios: Array


def conjugate_gradients(
    apply: Callable[[Tensor], Continued],
    precondition: Callable[[Tensor], Tensor],
    rhs: Tensor,
    start: Continued,
    tolerance: float,
) -> Krylov:
    """Solve ``S x = rhs`` column by column, all columns in one batch.

    Parameters
    ----------
    apply : callable
        ``S``, symmetric positive definite.
    precondition : callable
        Approximate inverse of ``S``, symmetric positive definite.
    rhs : (R, c)
        Right-hand sides.
    start : Continued
        Where to begin.
    tolerance : float
        Residual relative to the right-hand side, in the preconditioner's norm.

    Returns
    -------
    Krylov
        `lengths` and `ratios` of shape (n_products, c).
    """
    x = start
    residual = rhs - start.product
    enough = tolerance**2 * _dot(rhs, precondition(rhs))
    z = precondition(residual)
    rz = _dot(residual, z)
    direction = z
    lengths: list[Array] = []
    ratios: list[Array] = []
    while np.any(rz > enough) and len(lengths) < MAX_PRODUCTS:
        moved = apply(direction)
        curvature = _dot(direction, moved.product)
        length = np.divide(rz, curvature, out=np.zeros_like(rz), where=curvature > 0)
        x = x.plus(length, moved)
        residual = residual - length * moved.product
        z = precondition(residual)
        before, rz = rz, _dot(residual, z)
        ratio = np.divide(rz, before, out=np.zeros_like(rz), where=before > 0)
        direction = z + ratio * direction
        lengths.append(length)
        ratios.append(ratio)
    return Krylov(
        solution=x,
        residual=residual,
        n_products=len(lengths),
        converged=bool(np.all(rz <= enough)),
        lengths=np.array(lengths).reshape(-1, len(rz)),
        ratios=np.array(ratios).reshape(-1, len(rz)),
    )


def _dot(a: Tensor, b: Tensor) -> Array:
    return np.asarray(tf.reduce_sum(a * b, axis=0))


def log_quadrature(lengths: Array, ratios: Array, size: int) -> Array:
    """``r' log(A) r`` by Gauss quadrature, for Rademacher ``r`` of each column.

    ``A`` is the preconditioned operator; conjugate gradients started from zero with the right-hand
    side ``L r``, where the preconditioner is ``(L L')^-1``.

    Parameters
    ----------
    lengths, ratios : ndarray of shape (n_products, c)
        Coefficients of conjugate gradients.
    size : int
        ``r'r``.

    Returns
    -------
    ndarray of shape (c,)

    References
    ----------
    Ubaru, Chen, Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature",
    SIAM Journal on Matrix Analysis 38(4), section 3.
    """
    values = []
    for length, ratio in zip(lengths.T, ratios.T, strict=True):
        used = np.count_nonzero(np.cumprod(length > 0))
        length, ratio = length[:used], ratio[:used]
        diagonal = 1.0 / length + np.append(0.0, ratio[:-1] / length[:-1])[:used]
        theta, vectors = linalg.eigh_tridiagonal(diagonal, np.sqrt(ratio[:-1]) / length[:-1])
        values.append(size * float(vectors[0] ** 2 @ np.log(theta)))
    return np.array(values)
