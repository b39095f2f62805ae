"""A slow and obvious twin of the kernel: dense n x n algebra, straight from the definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from designs import gram_blocks
from scipy import linalg, optimize
from structured import structure_of

from sklearn_mackay.covariances.structures import DIAGONAL
from sklearn_mackay.design.terms import Term
from sklearn_mackay.evidence.freedom import Freedom
from sklearn_mackay.evidence.solution import PenalizedSolution, Variances
from sklearn_mackay.gram.crossproducts import CrossProducts

CROSSED = {
    f"{n_terms} crossed, {s} coefficients": dict(
        levels=(5, 7, 4)[:n_terms], coefficients=(s,) * n_terms
    )
    for n_terms in (1, 2, 3)
    for s in (1, 2, 3)
}
STRUCTURES = {
    **CROSSED,
    "4 coefficients": dict(levels=(5, 7), coefficients=(1, 4)),
    "diagonal": dict(levels=(5, 7), coefficients=(2, 3), diagonal=True),
    "chain of 2": dict(levels=(9, 4), coarsens=(None, 0)),
    "chain of 2, slopes": dict(levels=(9, 4), coefficients=(2, 3), coarsens=(None, 0)),
    "chain of 3": dict(levels=(14, 6, 3), coefficients=(1, 2, 1), coarsens=(None, 0, 1)),
    "nested and crossed": dict(levels=(9, 4, 5), coefficients=(1, 1, 2), coarsens=(None, 0, None)),
    "chain of 2 and 2 crossed": dict(
        levels=(9, 4, 5, 3), coefficients=(2, 1, 1, 2), coarsens=(None, 0, None, None)
    ),
}


@dataclass(frozen=True)
class Problem:
    """Rows of a mixed model, and variances; penalised columns of X come first."""

    terms: tuple[Term, ...]
    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    penalty: np.ndarray
    variances: Variances

    def crossproducts(self) -> CrossProducts:
        return gram_blocks(
            self.terms,
            self.X,
            self.y,
            self.weights,
            penalty=self.penalty,
            n=len(self.y),
            sum_log_weights=float(np.sum(np.log(self.weights))),
        )

    def freedom(self, *, reml: bool = True) -> Freedom:
        """Everything is free."""
        return Freedom(
            terms=(True,) * len(self.terms),
            residual=True,
            structures=tuple(term.structure for term in self.terms),
            dof=len(self.y) - reml * int(np.sum(self.penalty == 0)),
            directions=tuple(np.eye(len(S)) for S in self.variances.Sigma),
        )


@dataclass(frozen=True)
class Dense:
    """V, P and everything that follows from them."""

    problem: Problem
    variances: Variances
    reml: bool

    @cached_property
    def free(self) -> np.ndarray:
        """Which columns of X carry no penalty."""
        return self.problem.penalty == 0

    @cached_property
    def Z(self) -> list[np.ndarray]:
        return [term.Z().toarray() for term in self.problem.terms]

    @cached_property
    def V_given_all_X(self) -> np.ndarray:
        """Covariance of y given all of beta, penalised or not."""
        V = np.diag(self.variances.sigma2 / self.problem.weights)
        for term, Z, Sigma in zip(self.problem.terms, self.Z, self.variances.Sigma, strict=True):
            V += Z @ np.kron(np.eye(term.n_levels), Sigma) @ Z.T
        return V

    @cached_property
    def V(self) -> np.ndarray:
        """Covariance of y; a penalised coefficient is random with variance sigma2 / penalty."""
        X = self.problem.X[:, ~self.free]
        prior = self.variances.sigma2 / self.problem.penalty[~self.free]
        return self.V_given_all_X + X * prior @ X.T

    @cached_property
    def V_inverse(self) -> np.ndarray:
        return np.linalg.inv(self.V)

    @cached_property
    def XVX(self) -> np.ndarray:
        X = self.problem.X[:, self.free]
        return X.T @ self.V_inverse @ X

    @cached_property
    def P(self) -> np.ndarray:
        VX = self.V_inverse @ self.problem.X[:, self.free]
        return self.V_inverse - VX @ np.linalg.solve(self.XVX, VX.T)

    @cached_property
    def beta_cov(self) -> np.ndarray:
        X, penalty = self.problem.X, self.problem.penalty
        precision = X.T @ np.linalg.solve(self.V_given_all_X, X)
        return np.linalg.inv(precision + np.diag(penalty) / self.variances.sigma2)

    @cached_property
    def beta(self) -> np.ndarray:
        """Generalised least squares, and the prediction of penalised coefficients."""
        problem = self.problem
        beta = np.empty(len(problem.penalty))
        X = problem.X[:, self.free]
        beta[self.free] = np.linalg.solve(self.XVX, X.T @ self.V_inverse @ problem.y)
        prior = self.variances.sigma2 / problem.penalty[~self.free]
        beta[~self.free] = prior * (problem.X[:, ~self.free].T @ self.P @ problem.y)
        return beta

    @cached_property
    def yPy(self) -> float:
        return float(self.problem.y @ self.P @ self.problem.y)

    @cached_property
    def deviance(self) -> float:
        value = np.linalg.slogdet(self.V)[1] + self.yPy
        if self.reml:
            value += np.linalg.slogdet(self.XVX)[1]
        return float(value + self.dof * np.log(2 * np.pi))

    @property
    def dof(self) -> int:
        return len(self.problem.y) - self.reml * int(np.sum(self.free))

    def v(self, k: int) -> np.ndarray:
        """``Z_k'Py`` as (L_k, s_k)."""
        v = self.Z[k].T @ self.P @ self.problem.y
        return v.reshape(self.problem.terms[k].n_levels, -1)

    def b(self, k: int) -> np.ndarray:
        return self.v(k) @ self.variances.Sigma[k]

    def N(self, k: int) -> np.ndarray:
        term = self.problem.terms[k]
        s = term.n_coefficients
        full = self.Z[k].T @ (self.P if self.reml else self.V_inverse) @ self.Z[k]
        return sum(full[j * s : (j + 1) * s, j * s : (j + 1) * s] for j in range(term.n_levels))

    def gradient(self, k: int) -> np.ndarray:
        return self.N(k) - self.v(k).T @ self.v(k)

    @cached_property
    def sigma2_gradient(self) -> float:
        """Derivative of the deviance in sigma2, which the prior of a penalised column follows."""
        X = self.problem.X[:, ~self.free]
        dV = np.diag(1 / self.problem.weights) + X / self.problem.penalty[~self.free] @ X.T
        Py = self.P @ self.problem.y
        trace_part = self.P if self.reml else self.V_inverse
        return float(np.sum(trace_part * dV) - Py @ dV @ Py)

    @cached_property
    def information(self) -> np.ndarray:
        """``F'PF``, a working vector for each symmetric unit of each term."""
        vectors = [np.zeros((len(self.problem.y), 0))]
        for k, term in enumerate(self.problem.terms):
            units = term.structure.units(term.n_coefficients)
            vectors += [(self.Z[k] @ (self.v(k) @ E).ravel())[:, None] for E in units]
        F = np.hstack(vectors)
        return F.T @ self.P @ F

    @cached_property
    def covariance(self) -> np.ndarray:
        """Covariance of estimate less truth: effects term by term, penalised beta, other beta."""
        problem, sigma2 = self.problem, self.variances.sigma2
        Z = np.hstack([*self.Z, problem.X[:, ~self.free]])
        G = linalg.block_diag(
            *(
                np.kron(np.eye(term.n_levels), S)
                for term, S in zip(problem.terms, self.variances.Sigma, strict=True)
            ),
            np.diag(sigma2 / problem.penalty[~self.free]),
        )
        beta_cov = np.linalg.inv(self.XVX)
        cross = -G @ Z.T @ self.V_inverse @ problem.X[:, self.free] @ beta_cov
        return np.block([[G - G @ Z.T @ self.P @ Z @ G, cross], [cross.T, beta_cov]])

    @cached_property
    def hat_trace(self) -> float:
        """Trace of the matrix that maps y to its fit ``y - sigma2 W^-1 P y``."""
        leverage = 1 - self.variances.sigma2 / self.problem.weights * np.diag(self.P)
        return float(np.sum(leverage))

    @cached_property
    def log_det(self) -> float:
        """``log|K|`` of the spherical system, from ``V`` in units of the residual covariance."""
        problem, sigma2 = self.problem, self.variances.sigma2
        value = np.linalg.slogdet(self.V / sigma2)[1] + np.sum(np.log(problem.weights))
        value += np.sum(np.log(problem.penalty[~self.free]))
        if self.reml:
            value += np.linalg.slogdet(self.XVX * sigma2)[1]
        return float(value)

    def solution(self) -> PenalizedSolution:
        """The same record that the kernel returns."""
        terms = range(len(self.problem.terms))
        return PenalizedSolution(
            variances=self.variances,
            beta=self.beta,
            b=tuple(self.b(k) for k in terms),
            N=tuple(self.N(k) for k in terms),
            vv=tuple(self.v(k).T @ self.v(k) for k in terms),
            n_levels=tuple(term.n_levels for term in self.problem.terms),
            yPy=self.yPy,
            log_det=self.log_det,
            information=self.information,
            beta_cov=self.beta_cov,
            finite=True,
        )


def dense_solver(
    problem: Problem, *, reml: bool = True
) -> Callable[[Variances], PenalizedSolution]:
    """The twin as an engine."""
    return lambda variances: Dense(problem, variances, reml).solution()


def random_problem(
    rng: np.random.Generator,
    *,
    n: int = 40,
    levels: Sequence[int] = (6,),
    coefficients: Sequence[int] | None = None,
    coarsens: Sequence[int | None] | None = None,
    diagonal: bool = False,
    p: int = 2,
    n_penalized: int = 0,
    weighted: bool = False,
    rank: int | None = None,
) -> Problem:
    """Rows drawn from a mixed model with unbalanced levels, and its true variances.

    Parameters
    ----------
    rng : Generator
    n : int
        Number of rows.
    levels, coefficients : sequence of int
        ``L_k`` and ``s_k`` (ones) of each term; the first coefficient is an intercept.
    coarsens : sequence of int or None
        For each term the earlier term that is nested in it, or None for a crossed term.
    diagonal : bool
        Whether covariances are restricted to their diagonal.
    p, n_penalized : int
        Columns of X, the first of them penalised; the first free one is constant.
    weighted : bool
        Random weights instead of ones.
    rank : int or None
        Largest rank of the covariances; None for full rank.
    """
    coefficients = coefficients or (1,) * len(levels)
    terms: list[Term] = []
    for L, s, nested in zip(levels, coefficients, coarsens or (None,) * len(levels), strict=True):
        codes = rng.permutation(np.concatenate([np.arange(L), rng.integers(L, size=n - L)]))
        if nested is not None:
            codes = rng.permutation(np.arange(terms[nested].n_levels) % L)[terms[nested].codes]
        columns = np.vstack([np.ones(n), rng.normal(size=(s - 1, n))])
        terms.append(Term(codes, L, columns, np.eye(s), structure_of(diagonal)))
    X = rng.normal(size=(n, p))
    if p > n_penalized:
        X[:, n_penalized] = 1.0
    weights = rng.uniform(0.3, 3.0, size=n) if weighted else np.ones(n)
    sigma2 = float(rng.uniform(0.5, 2.0))
    Sigma = tuple(_random_covariance(rng, term, rank) for term in terms)
    y = X @ rng.normal(size=p) + rng.normal(size=n) * np.sqrt(sigma2 / weights)
    for term, S in zip(terms, Sigma, strict=True):
        b = rng.multivariate_normal(np.zeros(len(S)), S, size=term.n_levels)
        y += term.Z() @ b.ravel()
    penalty = np.concatenate([rng.uniform(0.5, 5.0, size=n_penalized), np.zeros(p - n_penalized)])
    return Problem(tuple(terms), X, y, weights, penalty, Variances(sigma2, Sigma))


def _random_covariance(rng: np.random.Generator, term: Term, rank: int | None) -> np.ndarray:
    s = term.n_coefficients
    rank = s if rank is None else min(rank, s)
    if term.structure is DIAGONAL:
        return np.diag(rng.uniform(0.3, 2.0, size=s) * (np.arange(s) < rank))
    directions = np.linalg.qr(rng.normal(size=(s, s)))[0][:, :rank]
    return directions * rng.uniform(0.3, 2.0, size=rank) @ directions.T


def unit_directions(problem: Problem) -> list[Variances]:
    """Directions of change: each symmetric unit of each term in turn, sigma2 last."""
    zero = Variances(0.0, tuple(np.zeros_like(S) for S in problem.variances.Sigma))
    directions = []
    for k, term in enumerate(problem.terms):
        for E in term.structure.units(term.n_coefficients):
            Sigma = list(zero.Sigma)
            Sigma[k] = E
            directions.append(Variances(0.0, tuple(Sigma)))
    return [*directions, Variances(1.0, zero.Sigma)]


def moved(variances: Variances, direction: Variances, length: float) -> Variances:
    """``variances + length * direction``."""
    return Variances(
        variances.sigma2 + length * direction.sigma2,
        tuple(S + length * D for S, D in zip(variances.Sigma, direction.Sigma, strict=True)),
    )


def best_of_many_starts(
    problem: Problem, rng: np.random.Generator, *, reml: bool = True, n_starts: int = 8
) -> float:
    """Least deviance that L-BFGS-B finds from random starts, in Cholesky factors and log sigma2."""
    sizes = [term.n_coefficients for term in problem.terms]
    diagonal = [(term.structure is DIAGONAL) for term in problem.terms]
    masks = [
        np.eye(s, dtype=bool) if d else np.tri(s, dtype=bool)
        for s, d in zip(sizes, diagonal, strict=True)
    ]
    cuts = np.cumsum([np.count_nonzero(mask) for mask in masks])

    def factors(theta: np.ndarray) -> list[np.ndarray]:
        roots = [np.zeros(mask.shape) for mask in masks]
        for root, mask, values in zip(roots, masks, np.split(theta, cuts), strict=False):
            root[mask] = values
        return roots

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        roots = factors(theta)
        sigma2 = float(np.exp(theta[-1]))
        dense = Dense(problem, Variances(sigma2, tuple(R @ R.T for R in roots)), reml)
        slopes = [
            (2 * dense.gradient(k) @ R)[mask]
            for k, (R, mask) in enumerate(zip(roots, masks, strict=True))
        ]
        return dense.deviance, np.concatenate([*slopes, [sigma2 * dense.sigma2_gradient]])

    scale = float(np.std(problem.y))
    best = np.inf
    for _ in range(n_starts):
        start = rng.normal(size=int(cuts[-1]) + 1 if len(cuts) else 1) * scale
        start[-1] = 2 * np.log(scale) + rng.normal()
        result = optimize.minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(None, None)] * (len(start) - 1) + [(start[-1] - 12, start[-1] + 8)],
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
        )
        best = min(best, float(result.fun))
    return best
