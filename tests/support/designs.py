"""Designs from arrays, for tests of what comes after the user's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_mackay.covariances.structures import FULL
from sklearn_mackay.design.blocks import Block
from sklearn_mackay.design.components import Component
from sklearn_mackay.design.design import Columns, Design, lay_out
from sklearn_mackay.design.fixed import FixedPart
from sklearn_mackay.design.response import Response
from sklearn_mackay.design.terms import Term
from sklearn_mackay.design.weighted import WeightedRows
from sklearn_mackay.frames.options import Options
from sklearn_mackay.gram.crossproducts import CrossProducts
from sklearn_mackay.gram.from_rows import build_crossproducts


def design_of(
    terms: Sequence[Term | Block],
    X: Any,
    weights: np.ndarray,
    *,
    penalty: np.ndarray,
    n: float,
    sum_log_weights: float,
) -> Design:
    """A design whose columns are internal already; factors come before blocks."""
    p = X.shape[1]
    return Design(
        rows=WeightedRows(weights),
        X=X,
        fixed=FixedPart(penalty, np.eye(1 + p, p, -1), False, 0.0, np.arange(0), 1.0),
        factors=tuple(term for term in terms if isinstance(term, Term)),
        blocks=tuple(term for term in terms if isinstance(term, Block)),
        components=(),
        weight_unit=1.0,
        n=n,
        sum_log_weights=sum_log_weights,
    )


def gram_blocks(
    terms: Sequence[Term | Block], X: Any, y: np.ndarray, weights: np.ndarray, **counts: Any
) -> CrossProducts:
    """Gram blocks of such a design, without large blocks; `counts` as for `design_of`."""
    crossproducts, large = build_crossproducts(design_of(terms, X, weights, **counts), y)
    assert not large
    return crossproducts


def options(
    alpha: float = 0.0, fit_intercept: bool = True, held: Any = None, frequency: bool = True
) -> Options:
    """Read parameters of a fit by REML that keeps nothing."""
    return Options(
        method="reml",
        alpha=alpha,
        fit_intercept=fit_intercept,
        frequency=frequency,
        structures={"g": FULL},
        held=held or {},
        start={},
        max_iter=100,
        tol=1e-8,
        keep=False,
    )


def laid_out(
    X: Any,
    y: np.ndarray,
    weights: np.ndarray,
    settings: Options,
    factors: Sequence[tuple[Component, Term]] = (),
) -> tuple[Design, Response]:
    """Design and response of a user's columns; a dense X is overwritten."""
    columns = Columns(
        rows=WeightedRows(weights),
        counted=slice(None),
        X=X,
        components=tuple(component for component, _ in factors),
        factors=tuple(term for _, term in factors),
        blocks=(),
        notes=(),
    )
    return lay_out(columns, y.reshape(len(y), -1), settings)


@dataclass(frozen=True)
class RegressedPart:
    """A fixed part with its rows, and one response regressed on it."""

    X: Any
    y: np.ndarray
    offset: np.ndarray
    fixed: FixedPart

    def coefficients(self, beta: np.ndarray) -> np.ndarray:
        """Intercept and coefficients for internal ``beta`` of the reduced response."""
        return self.fixed.to_coefficients @ (self.offset + beta)


def regressed(X: Any, y: np.ndarray, weights: np.ndarray, settings: Options) -> RegressedPart:
    """Fixed part of a user's columns, and what it leaves of a response, in the user's units."""
    design, response = laid_out(X, y, weights, settings)
    (output,) = response.outputs
    return RegressedPart(design.X, response.y[:, 0] * output.scale, output.offset, design.fixed)
