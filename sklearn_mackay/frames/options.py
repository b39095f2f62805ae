"""The estimator's parameters, read: those beside columns, whose roles `roles` finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from .._arrays import Array
from ..covariances.structures import DIAGONAL, FULL, Structure
from .roles import ColumnRoles

Method: TypeAlias = Literal["reml", "ml", "mackay", "quick"]
Solver: TypeAlias = Literal["auto", "exact", "iterative"]
Covariance: TypeAlias = Literal["full", "diagonal"]
Effects: TypeAlias = Literal["conditional", "population"] | list[str] | tuple[str, ...]
UnknownGroups: TypeAlias = Literal["population", "error"]
WeightType: TypeAlias = Literal["frequency", "precision"]

METHODS: tuple[Method, ...] = get_args(Method)
RESIDUAL = "residual"
STRUCTURES: dict[Covariance, Structure] = {"full": FULL, "diagonal": DIAGONAL}
OF_BLOCK = ("column",)  # the one coefficient whose variance a feature block's columns share
CHOICES: dict[str, tuple[Any, ...]] = {
    "method": METHODS,
    "solver": get_args(Solver),
    "fit_intercept": (True, False),
    "copy_X": (True, False),
    "unknown_groups": get_args(UnknownGroups),
    "weight_type": get_args(WeightType),
    "store_covariance": (True, False, "auto"),
}
NUMBERS: tuple[tuple[str, Any, str, int], ...] = (
    ("alpha", Real, "'auto' or a number", 0),
    ("n_probes", Integral, "an integer", 2),
    ("max_iter", Integral, "an integer", 1),
    ("tol", Real, "a number", 0),
)


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
    structures : mapping of str to Structure
        Of each factor's covariance.
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
    structures: Mapping[str, Structure]
    held: Mapping[str, Array]
    start: Mapping[str, Array]
    max_iter: int
    tol: float
    keep: bool | str


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters outside their values, as far as they are not about columns.

    Parameters
    ----------
    parameters : mapping of str to object
        Of the estimator.

    Raises
    ------
    ValueError
        For the first that is.
    """
    for name, allowed in CHOICES.items():
        value = parameters[name]
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}."
            )
    for name, kind, noun, least in NUMBERS:
        value = parameters[name]
        if name == "alpha" and value == "auto":
            continue
        valid = isinstance(value, kind) and not isinstance(value, bool)
        if not (valid and least <= value < np.inf):
            raise ValueError(f"`{name}` must be {noun} of at least {least}, got {value!r}.")


def read_options(parameters: Mapping[str, Any], roles: ColumnRoles) -> Options:
    """Read the parameters that name components, beside those that `check_parameters` has seen.

    Parameters
    ----------
    parameters : mapping of str to object
        Of the estimator.
    roles : ColumnRoles
        Factors and feature blocks.

    Returns
    -------
    Options

    Raises
    ------
    ValueError
        For a component called "residual", an unknown name, or variances that are none.
    """
    method, alpha = parameters["method"], parameters["alpha"]
    names = [factor.name for factor in roles.factors]
    if RESIDUAL in names:
        raise ValueError("A grouping factor cannot be called 'residual': rename its column.")
    if roles.blocks and method == "quick":
        raise ValueError(
            "method='quick' is published for grouping factors only: use method='mackay' with "
            "feature blocks or alpha='auto'."
        )
    if RESIDUAL in roles.blocks:
        raise ValueError("A feature block cannot be called 'residual': give it another name.")
    choose_factors(parameters["effects"], names)
    structures = read_covariance(parameters["covariance"], names)
    coefficients = {factor.name: factor.coefficient_names for factor in roles.factors}
    coefficients |= dict.fromkeys(roles.blocks, OF_BLOCK)
    held, start = (
        read_variances(parameters[name], coefficients, structures, name)
        for name in ("fixed_variances", "initial_variances")
    )
    return Options(
        method=method,
        alpha=0.0 if alpha == "auto" else float(alpha),
        fit_intercept=bool(parameters["fit_intercept"]),
        frequency=parameters["weight_type"] == "frequency",
        structures=structures,
        held=held,
        start=start,
        max_iter=parameters["max_iter"],
        tol=parameters["tol"],
        keep=parameters["store_covariance"],
    )


def choose_factors(effects: object, known: Sequence[str]) -> list[str]:
    """Names of the factors whose effects are added.

    Parameters
    ----------
    effects : {"conditional", "population"} or sequence of str
        The estimator's parameter.
    known : sequence of str
        All factors.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        For another value, or a name that is no factor.
    """
    if isinstance(effects, str) and effects in ("conditional", "population"):
        return list(known) if effects == "conditional" else []
    if isinstance(effects, str) or not isinstance(effects, Sequence):
        raise ValueError(
            "`effects` must be 'conditional', 'population' or a list of grouping factors, "
            f"got {effects!r}."
        )
    for name in effects:
        if name not in known:
            raise ValueError(
                f"`effects` names {name!r}, which is no grouping factor: "
                f"{', '.join(map(repr, known)) or 'there is none'}."
            )
    return list(effects)


def read_covariance(covariance: Any, factors: Sequence[str]) -> dict[str, Structure]:
    """Structure of each factor's covariance.

    Parameters
    ----------
    covariance : {"full", "diagonal"} or dict of factor to these
        The estimator's parameter.
    factors : sequence of str
        Names of the factors; those that a dict leaves out are "full".

    Returns
    -------
    dict of str to Structure
    """
    given = covariance if isinstance(covariance, Mapping) else dict.fromkeys(factors, covariance)
    _check_names(given, factors, "covariance")
    kinds = [covariance] if not isinstance(covariance, Mapping) else list(given.values())
    for kind in kinds:
        if kind not in get_args(Covariance):
            raise ValueError(f"`covariance` must be 'full' or 'diagonal', got {kind!r}.")
    return {factor: STRUCTURES[given.get(factor, "full")] for factor in factors}


def read_variances(
    given: Any,
    coefficients: Mapping[str, tuple[str, ...]],
    structures: Mapping[str, Structure],
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
    structures : mapping of str to Structure
        Of each factor's covariance.
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
        if name in structures and np.any(matrix != structures[name].projected(matrix)):
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
