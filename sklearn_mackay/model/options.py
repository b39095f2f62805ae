"""The estimator's parameters, read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._arrays import Array


@dataclass(frozen=True)
class Options:
    """What to estimate and how; the estimator's parameters, read.

    Attributes
    ----------
    method : {"reml", "ml", "mackay", "quick"}
        Criterion or fixed point.
    alpha : float
        Ridge penalty of the fixed columns.
    fit_intercept : bool
        Whether the fixed part has an intercept.
    frequency : bool
        Whether a weight counts rows; otherwise it divides the residual variance.
    diagonal : mapping of str to bool
        Whether a factor's covariance is restricted to its diagonal.
    held, start : mapping of str to ndarray
        Covariances that are given, and where to start, in the user's units.
    max_iter : int
        Largest number of iterations.
    tol : float
        Tolerance of the loop.
    keep : bool or "auto"
        Whether to keep the Gram blocks.
    """

    method: str
    alpha: float
    fit_intercept: bool
    frequency: bool
    diagonal: Mapping[str, bool]
    held: Mapping[str, Array]
    start: Mapping[str, Array]
    max_iter: int
    tol: float
    keep: bool | str
