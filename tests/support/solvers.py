"""Solvers of Gram blocks, with the layout that they choose."""

from __future__ import annotations

from collections.abc import Callable

from sklearn_mackay.evidence.solution import Solve, Variances
from sklearn_mackay.gram.crossproducts import CrossProducts
from sklearn_mackay.gram.layout import choose_layout
from sklearn_mackay.kernels import engine, exact
from sklearn_mackay.model.posterior import Posterior, factorise

Prepare = Callable[..., Solve]


def prepare_exact(crossproducts: CrossProducts, *, reml: bool) -> Solve:
    """Block elimination by TensorFlow."""
    return exact.prepare(crossproducts, choose_layout(crossproducts), reml=reml)


def exact_solver(crossproducts: CrossProducts, *, reml: bool) -> Solve:
    """The exact engine that the size of the problem asks for."""
    return engine.exact_solver(crossproducts, choose_layout(crossproducts), reml=reml)


def posterior_of(crossproducts: CrossProducts, variances: Variances) -> Posterior:
    """The factorised covariance of all effects."""
    return factorise(crossproducts, choose_layout(crossproducts), variances)
