"""The attributes that a fit sets, from its estimates, and as a pickle holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import Array
from ..frames.options import RESIDUAL
from ..frames.roles import ColumnRoles
from .estimates import Estimates
from .export import SCHEMA
from .fitted import keep
from .problem import Fitted
from .statistics import Description

STATE_VERSION = "_format"  # key in a pickle


def attributes_of(fits: Sequence[tuple[Fitted, Estimates]], rows: Description) -> dict[str, Any]:
    """Fitted attributes, public ones and private ones.

    Parameters
    ----------
    fits : sequence of (Fitted, Estimates)
        One for each response.
    rows : Description
        What was fitted.

    Returns
    -------
    dict of str to object
    """
    header, roles, groupings = rows.header, rows.roles, rows.groupings
    outputs = [_of_output(fitted, one, header.n_columns, roles) for fitted, one in fits]
    models = tuple(model for fitted, _ in fits if (model := keep(fitted)) is not None)
    columns = range(header.n_columns) if header.names is None else header.names
    return {
        **(stacked(outputs) if rows.has_outputs else outputs[0]),
        "_models": models or None,
        "_marks": None,
        "_statistics": None,
        "_diagonal": {
            name: not structure.correlates
            for name, structure in fits[0][0].problem.options.structures.items()
        },
        "_fixed_names": ("intercept", *(header.name(c) for c in roles.fixed)),
        "group_levels_": {grouping.name: grouping.labels for grouping in groupings},
        "groups_": [factor.name for factor in roles.factors],
        "fixed_features_": np.array(columns),
        "_roles": roles,
        "_groupings": groupings,
    }


def _of_output(
    fitted: Fitted, estimates: Estimates, n_columns: int, roles: ColumnRoles
) -> dict[str, Any]:
    """Fitted attributes of one response."""
    fixed_cov = estimates.fixed_cov.copy()
    if roles.blocks and fitted.problem.options.fit_intercept:
        # Of the rows' mean; at zero of the blocks' columns the blocks are part of it.
        fixed_cov[0] = fixed_cov[:, 0] = np.nan
    std = np.sqrt(np.diag(fixed_cov))
    k = estimates.n_parameters
    coef, coef_std = np.full((2, n_columns), np.nan)
    coef[list(roles.fixed)] = estimates.coef
    coef_std[list(roles.fixed)] = std[1:]
    for name, columns in roles.blocks.items():
        coef[list(columns)] = estimates.b[name]
    sigma2 = float(estimates.Sigma[RESIDUAL][0, 0])
    return {
        "coef_": coef,
        "intercept_": estimates.intercept,
        "_vcov": fixed_cov,
        "_n_parameters": k,
        "_n": estimates.n,
        "_intercept_std": float(std[0]),
        "_coef_std": coef_std,
        "variance_components_": by_component(estimates.Sigma),
        "alpha_": {
            name: penalty_of(sigma2, float(estimates.Sigma[name][0, 0])) for name in roles.blocks
        },
        "random_effects_": {factor.name: estimates.b[factor.name] for factor in roles.factors},
        "effective_dof_": estimates.gamma,
        "variance_mc_error_": by_component(estimates.mc_error),
        "log_likelihood_mc_error_": 0.5 * estimates.deviance_mc_error,
        "solver_": fitted.solver,
        "kernel_": fitted.kernel,
        "n_products_": estimates.n_products,
        "log_likelihood_": -0.5 * estimates.deviance,
        "aic_": estimates.deviance + 2.0 * k,
        "bic_": estimates.deviance + float(np.log(estimates.n)) * k,
        "n_iter_": estimates.n_iter,
        "converged_": estimates.converged,
        "singular_": estimates.singular,
        "_history": [
            {**iteration, "variances": by_component(iteration["variances"])}
            for iteration in estimates.history
        ],
    }


def stacked(outputs: Sequence[Any]) -> Any:
    """Attributes of several responses: numbers and arrays along a new first axis."""
    first = outputs[0]
    if isinstance(first, dict):
        return {key: stacked([output[key] for output in outputs]) for key in first}
    if isinstance(first, str):
        return first
    return list(outputs) if isinstance(first, list) else np.array(outputs)


def by_component(matrices: Mapping[str, Any]) -> dict[str, float | Array]:
    """Covariances as users see them: a number where there is one coefficient."""
    return {name: np.asarray(S).item() if np.size(S) == 1 else S for name, S in matrices.items()}


def penalty_of(sigma2: float, variance: float) -> float:
    """Ridge penalty that a prior variance stands for, equation (11) of docs/theory.md."""
    return sigma2 / variance if variance > 0 else float(np.inf)


def with_version(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as a pickle or a copy holds them, with the version of their form."""
    return {**attributes, STATE_VERSION: SCHEMA}


def of_this_version(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Attributes of a pickle, refused where a fit is of another form.

    Parameters
    ----------
    state : mapping of str to object
        From `with_version`; an estimator without a fit has no form that could be another.
    name : str
        Of the estimator, for the message.

    Returns
    -------
    dict of str to object

    Raises
    ------
    ValueError
        For a fit that another version of the package wrote.
    """
    attributes = dict(state)
    found = attributes.pop(STATE_VERSION, None)
    if found != SCHEMA and "coef_" in attributes:
        written = "no version of the format" if found is None else f"format {found}"
        raise ValueError(
            f"This fitted {name} was pickled by another version of the package, "
            f"with {written}; this version reads format {SCHEMA}. Fit again, or read it with "
            "the version that wrote it."
        )
    return attributes
