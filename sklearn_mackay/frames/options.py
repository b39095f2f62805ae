"""Parameters that name components of the model: covariances and variances as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import Array

RESIDUAL = "residual"


def read_covariance(covariance: Any, factors: Sequence[str]) -> dict[str, bool]:
    """Whether each factor's covariance is diagonal.

    Parameters
    ----------
    covariance : {"full", "diagonal"} or dict of factor to these
        The estimator's parameter.
    factors : sequence of str
        Names of the factors; those that a dict leaves out are "full".

    Returns
    -------
    dict of str to bool
    """
    given = covariance if isinstance(covariance, Mapping) else dict.fromkeys(factors, covariance)
    _check_names(given, factors, "covariance")
    kinds = [covariance] if not isinstance(covariance, Mapping) else list(given.values())
    for kind in kinds:
        if kind not in ("full", "diagonal"):
            raise ValueError(f"`covariance` must be 'full' or 'diagonal', got {kind!r}.")
    return {factor: given.get(factor, "full") == "diagonal" for factor in factors}


def read_variances(
    given: Any,
    coefficients: Mapping[str, tuple[str, ...]],
    diagonal: Mapping[str, bool],
    parameter: str,
) -> dict[str, Array]:
    """Covariance matrices of named components, the residual variance as a (1, 1) matrix.

    Parameters
    ----------
    given : dict or None
        ``{factor: variance or covariance matrix, "residual": variance}``; a sequence of variances
        stands for a diagonal matrix.
    coefficients : mapping of str to tuple of str
        Coefficients of each factor.
    diagonal : mapping of str to bool
        Whether a factor's covariance is restricted to its diagonal.
    parameter : str
        Which parameter is read, for messages.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        For an unknown name, a wrong shape, or a matrix that is no covariance.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"`{parameter}` must be a dict of component to variance, got {given!r}.")
    _check_names(given, [*coefficients, RESIDUAL], parameter)
    matrices = {}
    for name, value in given.items():
        s = 1 if name == RESIDUAL else len(coefficients[name])
        try:
            matrix = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{parameter}[{name!r}]` must be a variance or a matrix, got {value!r}."
            ) from error
        if matrix.ndim < 2 and matrix.size == s:
            matrix = np.diag(np.atleast_1d(matrix))
        if matrix.shape != (s, s):
            raise ValueError(
                f"`{parameter}[{name!r}]` has shape {matrix.shape}, but the component has "
                f"{s} coefficient{'s' * (s > 1)}."
            )
        _check_covariance(matrix, f"`{parameter}[{name!r}]`")
        if diagonal.get(name, False) and np.any(matrix != np.diag(np.diag(matrix))):
            raise ValueError(
                f"`{parameter}[{name!r}]` has covariances, but covariance='diagonal' asks for none."
            )
        if name == RESIDUAL and matrix[0, 0] <= 0:
            raise ValueError(f"`{parameter}['residual']` must be positive, got {value!r}.")
        matrices[name] = matrix
    return matrices


def _check_names(given: Mapping[str, Any], known: Sequence[str], parameter: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"`{parameter}` names {unknown[0]!r}, which is no component of the model: "
            f"{', '.join(map(repr, known))}."
        )


def _check_covariance(matrix: Array, where: str) -> None:
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{where} must be finite.")
    size = np.max(np.abs(matrix))
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-12 * size):
        raise ValueError(f"{where} must be symmetric.")
    if np.linalg.eigvalsh(matrix)[0] < -1e-12 * size:
        raise ValueError(f"{where} must be positive semi-definite, a variance cannot be negative.")
