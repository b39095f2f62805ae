"""Standard deviations and correlations as parameters: their names and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..covariances.matrices import RANK_TOLERANCE
from ..evidence.solution import Variances
from ..model.fitted import FittedModel

RESIDUAL_SD = "sd(residual)"


class Parameter(NamedTuple):
    """A standard deviation or a correlation.

    Attributes
    ----------
    name : str
        "sd(Subject: Days)", "cor(Subject: intercept, Days)" or "sd(residual)".
    component : str or None
        Factor or feature block; None for the residual.
    coefficients : tuple of int
        One for a standard deviation, two for a correlation.
    """

    name: str
    component: str | None
    coefficients: tuple[int, ...]


def variance_parameters(model: FittedModel) -> list[Parameter]:
    """Return the standard deviations and correlations that were estimated."""
    found = [
        Parameter(name, component.name, coefficients)
        for component, is_free, basis in zip(
            model.active, model.freedom.terms, model.freedom.directions, strict=True
        )
        if is_free
        for name, coefficients in component.parameters(basis)
    ]
    if model.freedom.residual:
        found.append(Parameter(RESIDUAL_SD, None, (0,)))
    return found


def choose_parameters(
    wanted: Any, known: Mapping[str, Parameter | int]
) -> dict[str, Parameter | int]:
    """Look up parameters by name, or all those of a factor or block; None for all.

    Raises
    ------
    ValueError
        For a name that is none of them.
    """
    if wanted is None:
        return dict(known)
    chosen: dict[str, Parameter | int] = {}
    for name in [wanted] if isinstance(wanted, str) else wanted:
        matching = {
            key: p
            for key, p in known.items()
            if name in (key, p.component if isinstance(p, Parameter) else None)
        }
        if not matching:
            raise ValueError(f"{name!r} is no parameter: {', '.join(map(repr, known))}.")
        chosen |= matching
    return chosen


def parameter_value(model: FittedModel, parameter: Parameter, variances: Variances) -> float:
    """A standard deviation or correlation, in the user's units.

    Parameters
    ----------
    model : FittedModel
        A fit, for its units.
    parameter : Parameter
        Which one.
    variances : Variances
        In internal units.

    Returns
    -------
    float
        NaN for a correlation beside a standard deviation of zero.
    """
    if parameter.component is None:
        return float(np.sqrt(variances.sigma2 * model.sigma2_scale))
    k, component = model.component(parameter.component)
    assert k is not None
    S = variances.Sigma[k]
    at = list(parameter.coefficients)
    T = component.transform[at]
    Sigma = T @ S @ T.T
    largest = np.linalg.eigvalsh(S)[-1] * np.sum(T**2, axis=1)
    variance = np.where(np.diag(Sigma) > RANK_TOLERANCE * largest, np.diag(Sigma), 0.0)
    if len(at) == 1:
        return float(np.sqrt(variance[0]) * model.y_scale)
    if not np.all(variance > 0.0):
        return np.nan
    return float(np.clip(Sigma[0, 1] / np.sqrt(variance[0] * variance[1]), -1.0, 1.0))
