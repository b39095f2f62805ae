"""A slow and obvious twin of the kernel: dense n x n algebra, straight from the definitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sklearn_mackay._crossproducts import CrossProducts, build_crossproducts
from sklearn_mackay._design import Term
from sklearn_mackay._solution import Variances, symmetric_units


@dataclass(frozen=True)
class Problem:
    """Rows of a random mixed model, and its variances."""

    terms: tuple[Term, ...]
    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    variances: Variances
    penalty: np.ndarray

    def crossproducts(self) -> CrossProducts:
        return build_crossproducts(
            self.terms,
            self.X,
            self.y,
            self.weights,
            penalty=self.penalty,
            n=len(self.y),
            sum_log_weights=float(np.sum(np.log(self.weights))),
        )


@dataclass(frozen=True)
class Dense:
    """V, P and everything that follows from them."""

    problem: Problem
    variances: Variances
    reml: bool

    def __post_init__(self) -> None:
        p = self.problem
        Z = [term.Z().toarray() for term in p.terms]
        penalized = p.penalty > 0
        V = np.diag(self.variances.sigma2 / p.weights)
        for term, Zk, Sigma in zip(p.terms, Z, self.variances.Sigma, strict=True):
            V += Zk @ np.kron(np.eye(term.n_levels), Sigma) @ Zk.T
        prior = self.variances.sigma2 / p.penalty[penalized]
        V += p.X[:, penalized] * prior @ p.X[:, penalized].T
        X = p.X[:, ~penalized]
        Vi = np.linalg.inv(V)
        XVX = X.T @ Vi @ X
        gls = np.linalg.solve(XVX, X.T @ Vi)
        P = Vi - Vi @ X @ gls
        set_field = object.__setattr__
        set_field(self, "Z", Z)
        set_field(self, "P", P)
        set_field(self, "trace_matrix", P if self.reml else Vi)
        set_field(self, "log_det_V", np.linalg.slogdet(V)[1])
        set_field(self, "log_det_XVX", np.linalg.slogdet(XVX)[1] if X.shape[1] else 0.0)
        beta = np.empty(p.X.shape[1])
        beta[~penalized] = gls @ p.y
        beta[penalized] = prior * (p.X[:, penalized].T @ P @ p.y)
        set_field(self, "beta", beta)

    @property
    def deviance(self) -> float:
        n, p = len(self.problem.y), int(np.sum(self.problem.penalty == 0))
        yPy = float(self.problem.y @ self.P @ self.problem.y)
        if self.reml:
            return (n - p) * np.log(2 * np.pi) + self.log_det_V + self.log_det_XVX + yPy
        return n * np.log(2 * np.pi) + self.log_det_V + yPy

    def v(self, k: int) -> np.ndarray:
        """Z_k' P y as (L_k, s_k)."""
        term = self.problem.terms[k]
        return (self.Z[k].T @ self.P @ self.problem.y).reshape(term.n_levels, -1)

    def b(self, k: int) -> np.ndarray:
        return self.v(k) @ self.variances.Sigma[k]

    def N(self, k: int) -> np.ndarray:
        term = self.problem.terms[k]
        s = term.n_coefficients
        full = self.Z[k].T @ self.trace_matrix @ self.Z[k]
        return sum(full[j * s : (j + 1) * s, j * s : (j + 1) * s] for j in range(term.n_levels))

    def gradient(self, k: int) -> np.ndarray:
        return self.N(k) - self.v(k).T @ self.v(k)

    @property
    def information(self) -> np.ndarray:
        vectors = []
        for k, term in enumerate(self.problem.terms):
            for E in symmetric_units(term.n_coefficients, diagonal=term.diagonal):
                vectors.append(self.Z[k] @ (self.v(k) @ E).ravel())
        F = np.array(vectors).T
        return F.T @ self.P @ F
