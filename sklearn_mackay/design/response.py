"""The response in coordinates that arithmetic likes: less its regression on ``X``, of unit scale.

With ``y`` regressed on ``X`` first, ``y'Py`` is no difference of large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .._arrays import Array, Matrix
from .fixed import FixedPart
from .weighted import WeightedRows

EXPLAINED = 1e-12  # residual of y on X, relative to the spread of y, that is rounding
ROUNDING_OF_Y = 5e-15  # the same relative to the size of y: a few units in its last place
SATURATED = 1e-10  # relative residual of y on X below which X explains every row


@dataclass(frozen=True)
class Output:
    """One response in the user's units, and the way there; it holds no rows.

    Attributes
    ----------
    offset : ndarray of shape (r,)
        Internal coefficients of the regression on the fixed part that is taken out of y.
    scale : float
        Unit of what is left; 1.0 where nothing is.
    is_explained : bool
        Whether the fixed part leaves nothing but rounding.
    mean, sd : float
        Weighted moments of y.
    """

    offset: Array
    scale: float
    is_explained: bool
    mean: float
    sd: float


@dataclass(frozen=True)
class Response:
    """Responses less their regressions on the fixed part, of unit scale.

    Attributes
    ----------
    y : ndarray of shape (n, t)
        What is left, zero where that is rounding.
    outputs : tuple of Output
        Each column in the user's units.
    """

    y: Array
    outputs: tuple[Output, ...]


def regress(X: Matrix, y: Array, rows: WeightedRows, fixed: FixedPart) -> tuple[Array, Array]:
    """Residual of y (n, t) on the unpenalised columns, and their coefficients (r, t)."""
    free = np.flatnonzero(fixed.penalty == 0.0)
    coefficients = np.zeros((len(fixed.penalty), *y.shape[1:]))
    residual = y
    if fixed.has_intercept:
        # Exact where the offset is large beside what varies; a product with X would round it.
        coefficients[-1] = rows.mean(y)
        residual = y - coefficients[-1]
    if len(free):
        X_free = X if len(free) == X.shape[1] else X[:, free]
        gram = rows.gram(X_free)
        # A second pass removes what rounding left in the first.
        for _ in range(2):
            delta = linalg.lstsq(gram, rows.on_residual(X_free, residual))[0]
            residual = residual - X_free @ delta
            coefficients[free] += delta
    return residual, coefficients


def is_saturated(y: Array, residual: Array, rows: WeightedRows, n_columns: int) -> bool:
    """Whether the fixed part leaves no residual, or could not with as many columns as rows."""
    left = rows.products(residual**2)
    total = rows.products((y - rows.average(y)) ** 2)
    return bool(n_columns >= rows.total or np.all(left <= SATURATED**2 * total))


def is_rounding(left: Array, sd: Array, largest: Array) -> NDArray[np.bool_]:
    """Whether a residual is no more than rounding, given the spread and the size of y (t,)."""
    return np.asarray(left <= np.maximum(EXPLAINED * sd, ROUNDING_OF_Y * largest))


def make_response(y: Array, residual: Array, offset: Array, rows: WeightedRows) -> Response:
    """Bring residuals to unit scale, and note what y was like.

    Parameters
    ----------
    y : ndarray of shape (n, t)
        Responses.
    residual : ndarray of shape (n, t)
        What the fixed part leaves of them.
    offset : ndarray of shape (r, t)
        Internal coefficients of the fixed part.
    rows : WeightedRows
        Row weights.

    Returns
    -------
    Response
    """
    mean = rows.average(y)
    sd = np.sqrt(rows.average((y - mean) ** 2))
    left = np.sqrt(rows.average(residual**2))
    is_explained = is_rounding(left, sd, np.max(np.abs(y), axis=0))
    scale = np.where(is_explained, 1.0, left)
    return Response(
        np.where(is_explained, 0.0, residual / scale),
        tuple(
            Output(
                offset[:, j], float(scale[j]), bool(is_explained[j]), float(mean[j]), float(sd[j])
            )
            for j in range(y.shape[1])
        ),
    )
