"""Designs from arrays, for tests of what comes after the user's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_mackay.covariances.structures import FULL, Structure
from sklearn_mackay.design.blocks import Block
from sklearn_mackay.design.design import Columns, Design, lay_out
from sklearn_mackay.design.fixed import FixedPart
from sklearn_mackay.design.response import Response
from sklearn_mackay.design.terms import FactorRows, Term, make_term
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


def factor_rows(
    codes: Any,
    n_levels: int,
    slopes: Any = None,
    *,
    name: str = "g",
    intercept: bool = True,
    structure: Structure = FULL,
) -> FactorRows:
    """A factor by row."""
    slopes = np.zeros((len(codes), 0)) if slopes is None else slopes
    names = ("intercept",) * intercept + tuple(f"x{j}" for j in range(slopes.shape[1]))
    return FactorRows(name, names, codes, n_levels, slopes, intercept, structure)


def term_of(codes: Any, n_levels: int, slopes: Any, rows: WeightedRows, **kind: Any) -> Term:
    """The term of a factor; `kind` as for `factor_rows`."""
    return make_term(factor_rows(codes, n_levels, slopes, **kind), rows)


def columns_of(X: Any, weights: np.ndarray, factors: Sequence[FactorRows] = ()) -> Columns:
    """A user's columns; a dense X may be overwritten."""
    return Columns(
        rows=WeightedRows(weights),
        counted=slice(None),
        X=X,
        is_users_X=False,
        factors=tuple(factors),
        components=(),
        blocks=(),
        notes=(),
    )


def laid_out(
    X: Any, y: np.ndarray, weights: np.ndarray, settings: Options
) -> tuple[Design, Response]:
    """Design and response of a user's columns; a dense X is overwritten."""
    return lay_out(columns_of(X, weights), y.reshape(len(y), -1), settings)


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
