"""The two records between the kernel and the variance loop: variances in, solution out.

Notation (one table for the whole package): ``y = X beta + sum_k Z_k b_k + e``, term ``k`` has
``L_k`` levels with ``s_k`` coefficients each, ``b_k ~ N(0, I (x) Sigma_k)``,
``e ~ N(0, sigma2 W^-1)``, ``V = sum_k Z_k (I (x) Sigma_k) Z_k' + sigma2 W^-1`` and
``P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .._arrays import Array


@dataclass(frozen=True)
class Variances:
    """Residual variance and one covariance matrix per term.

    Attributes
    ----------
    sigma2 : float
        Residual variance.
    Sigma : tuple of ndarray of shape (s_k, s_k)
        Covariance of the coefficients of one level; positive semi-definite, possibly singular.
    """

    sigma2: float
    Sigma: tuple[Array, ...]

    def scaled(self, factor: float) -> Variances:
        """All variances times ``factor``."""
        return Variances(self.sigma2 * factor, tuple(S * factor for S in self.Sigma))


@dataclass(frozen=True)
class PenalizedSolution:
    """Henderson's solution at given variances, with what the variance updates need of it.

    Everything depends on the variances. The trace part `N` belongs to the criterion asked for:
    with ``P`` for REML, with ``V^-1`` for ML.

    Attributes
    ----------
    variances : Variances
        Where the equations were solved.
    beta : ndarray of shape (p,)
        Fixed effects.
    b : tuple of ndarray of shape (L_k, s_k)
        Predicted random effects.
    N : tuple of ndarray of shape (s_k, s_k)
        ``sum_j Z_kj' P Z_kj`` (ML: ``V^-1`` in place of ``P``).
    vv : tuple of ndarray of shape (s_k, s_k)
        ``sum_j v_kj v_kj'`` with ``v_k = Z_k' P y``.
    n_levels : tuple of int
        ``L_k``.
    yPy : float
        ``y' P y``.
    log_det : float or None
        ``sum_k L_k log|Sigma_k| + log|K|`` less its powers of sigma2 (the log determinant of the
        spherical system); None where an engine does not know it.
    information : ndarray of shape (m, m)
        ``F' P F``, twice the average information. Its working vectors are
        ``Z_k (I (x) E) v_k`` with the symmetric units ``E`` of each term in turn.
    beta_cov : ndarray of shape (p, p)
        Covariance of `beta`.
    finite : bool
        False where the factorisation broke down; the numbers are then meaningless.
    solved : bool
        False where an iteration ended before its tolerance was met.
    """

    variances: Variances
    beta: Array
    b: tuple[Array, ...]
    N: tuple[Array, ...]
    vv: tuple[Array, ...]
    n_levels: tuple[int, ...]
    yPy: float
    log_det: float | None
    information: Array
    beta_cov: Array
    finite: bool
    solved: bool = True

    @property
    def U(self) -> tuple[Array, ...]:
        """``sum_j b_kj b_kj'``."""
        return tuple(S @ vv @ S for S, vv in zip(self.variances.Sigma, self.vv, strict=True))

    @property
    def T(self) -> tuple[Array, ...]:
        """``sum_j Cov(b_kj - b_kj true)``, from ``N = L Sigma^-1 - Sigma^-1 T Sigma^-1``."""
        Sigma = self.variances.Sigma
        return tuple(
            L * S - S @ N @ S for L, S, N in zip(self.n_levels, Sigma, self.N, strict=True)
        )

    @property
    def gamma(self) -> tuple[float, ...]:
        """MacKay's effective number of parameters of each term, ``tr(N Sigma)``.

        This form does not cancel where a variance is small, ``q - tr(Sigma^-1 T)`` does.
        """
        pairs = zip(self.N, self.variances.Sigma, strict=True)
        return tuple(float(np.sum(N * S)) for N, S in pairs)

    @property
    def gradient(self) -> tuple[Array, ...]:
        """``d deviance / d Sigma_k = N_k - v_k v_k'``, equation (3) of docs/theory.md."""
        return tuple(N - vv for N, vv in zip(self.N, self.vv, strict=True))

    @property
    def eWe(self) -> float:
        """Weighted residual sum of squares (with a ridge penalty, its penalty included)."""
        quadratic = sum(
            float(np.sum(vv * S)) for vv, S in zip(self.vv, self.variances.Sigma, strict=True)
        )
        return self.variances.sigma2 * (self.yPy - quadratic)

    def rescaled(self, factor: float) -> PenalizedSolution:
        """Return the solution at variances all ``factor`` times as large, without solving again.

        ``V`` scales as a whole, so `beta` and `b` stay and ``P`` divides by ``factor``.
        """
        return replace(
            self,
            variances=self.variances.scaled(factor),
            N=tuple(N / factor for N in self.N),
            vv=tuple(vv / factor**2 for vv in self.vv),
            yPy=self.yPy / factor,
            information=self.information / factor**3,
            beta_cov=self.beta_cov * factor,
        )


def solver_of_any_scale(solve_relative: Solve) -> Solve:
    """Solve at any variances by a solver at ``sigma2 = 1``, of ``Sigma_k / sigma2``."""

    def solve(variances: Variances) -> PenalizedSolution:
        sigma2 = variances.sigma2
        relative = Variances(1.0, tuple(S / sigma2 for S in variances.Sigma))
        # Variances that are held are to stay the same to the last bit.
        return replace(solve_relative(relative).rescaled(sigma2), variances=variances)

    return solve


class MonteCarlo(Protocol):
    """What an engine with random probes tells beside its solutions."""

    n_products: int
    most_probes: int

    def is_accurate(self, variances: Variances) -> bool:
        """Whether the last solve was there, and exact enough to report."""
        ...

    def log_det(self, variances: Variances) -> tuple[float, float]:
        """``log_det`` there, and its standard error."""
        ...

    def trace_samples(self, variances: Variances) -> tuple[Array, ...]:
        """What each probe adds to ``N_k``, shape (n_probes, s_k, s_k); `N` holds their mean."""
        ...

    def add_probes(self, n_probes: int) -> None:
        """Draw more probes, for the solves to come."""
        ...


@dataclass(frozen=True)
class Engine:
    """A way to solve Henderson's equations of one data set.

    Attributes
    ----------
    name : {"exact", "iterative"}
        Which one.
    kernel : {"lapack", "tensorflow"}
        What it computes with.
    solve : callable
        ``variances -> PenalizedSolution``.
    monte_carlo : MonteCarlo or None
        None where nothing is random.
    """

    name: str
    kernel: str
    solve: Callable[[Variances], PenalizedSolution]
    monte_carlo: MonteCarlo | None = None


Solve = Callable[[Variances], PenalizedSolution]
