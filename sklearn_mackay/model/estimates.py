"""Estimates of one response in the user's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import Array
from ..covariances.matrices import null_directions
from ..design.components import Component
from ..evidence.loop import Iteration
from ..evidence.solution import Variances
from ..frames.options import RESIDUAL
from .monte_carlo import MonteCarloErrors
from .problem import Fitted, Problem


@dataclass(frozen=True)
class Estimates:
    """A fitted model in the user's units.

    Attributes
    ----------
    intercept : float
        Fixed intercept.
    coef : ndarray of shape (p,)
        Fixed coefficients; those of the blocks are in `b`.
    fixed_cov : ndarray of shape (1 + p, 1 + p)
        Covariance of intercept and coefficients; NaN for dropped columns.
    Sigma : dict of str to ndarray
        Covariance of each factor, and the residual variance as a (1, 1) matrix.
    b : dict of str to ndarray of shape (L_k, s_k)
        Random effects; for a block the coefficients (p,) of its columns.
    gamma : dict of str to float
        Effective number of parameters.
    deviance : float
        ``-2 log-likelihood``; ``-inf`` where the model fits y exactly.
    n : float
        Number of rows the criterion counted.
    n_parameters : int
        Estimated parameters, for information criteria.
    converged, singular : bool
        Whether the loop converged, and to a boundary.
    solved : bool
        Whether the engine met its own tolerance.
    n_iter : int
        Number of iterations.
    history : list of dict
        What each iteration saw.
    mc_error : dict of str to ndarray
        Monte Carlo standard error of each entry of `Sigma`.
    deviance_mc_error : float
        That of the deviance.
    n_products : int
        Products of the iterative engine.
    exact_fit : bool
        Whether the model leaves no residual though it could not fit every y.
    collapsed : tuple of (str, ndarray)
        Directions of a factor's covariance that the quick method lost.
    """

    intercept: float
    coef: Array
    fixed_cov: Array
    Sigma: dict[str, Array]
    b: dict[str, Array]
    gamma: dict[str, float]
    deviance: float
    n: float
    n_parameters: int
    converged: bool
    singular: bool
    solved: bool
    n_iter: int
    history: list[dict[str, Any]]
    mc_error: dict[str, Array]
    deviance_mc_error: float
    n_products: int
    exact_fit: bool
    collapsed: tuple[tuple[str, Array], ...]


def estimates(fitted: Fitted, errors: MonteCarloErrors) -> Estimates:
    """Bring what the loop found of one response to the user's units.

    Parameters
    ----------
    fitted : Fitted
        Problem and optimum.
    errors : MonteCarloErrors
        What random probes leave uncertain.

    Returns
    -------
    Estimates
    """
    problem, optimum = fitted.problem, fitted.optimum
    solution, held = optimum.solution, problem.options.held
    shown = _shown(problem)
    b = {
        component.name: component.effects(
            fitted.effects.get(component.name, np.zeros(len(component.center))), problem.y_scale
        )
        for component in shown
    }
    coefficients = problem.fixed.to_coefficients @ (
        problem.output.offset + problem.y_scale * solution.beta
    )
    for component in shown:
        if component.is_feature:
            coefficients[0] -= component.center @ b[component.name]
    gamma = dict(zip((c.name for c in problem.active), solution.gamma, strict=True))
    Sigma = {**_covariances(problem, shown, solution.variances), **held}
    return Estimates(
        intercept=float(coefficients[0]),
        coef=coefficients[1:],
        fixed_cov=_fixed_covariance(fitted),
        Sigma={**Sigma, RESIDUAL: np.array([[_residual_variance(fitted)]])},
        b=b,
        gamma={component.name: gamma.get(component.name, 0.0) for component in shown},
        deviance=_deviance(fitted),
        n=problem.crossproducts.n,
        n_parameters=_count_parameters(problem),
        converged=optimum.converged,
        solved=solution.solved,
        singular=optimum.zero_residual or _has_singular(problem, solution.variances),
        n_iter=max(len(optimum.history) - 1, 1),
        history=[_shown_iteration(problem, shown, one) for one in optimum.history],
        mc_error=_monte_carlo_errors(problem, errors),
        deviance_mc_error=errors.deviance,
        n_products=errors.n_products,
        exact_fit=fitted.is_exact,
        collapsed=_collapsed(fitted),
    )


def _shown(problem: Problem) -> list[Component]:
    """All components, without a trace of directions that have no variance."""
    bases = iter(problem.freedom.directions)
    return [
        component.beside(next(bases)) if component.has_term else component
        for component in problem.components
    ]


def _of_components(problem: Problem, by_term: Sequence[Array]) -> dict[str, Array]:
    """Matrices of the terms by component; of one without a term zero."""
    matrices = iter(by_term)
    return {
        component.name: next(matrices) if component.has_term else np.zeros((1, 1))
        for component in problem.components
    }


def _covariances(
    problem: Problem, shown: Sequence[Component], variances: Variances
) -> dict[str, Array]:
    Sigma = _of_components(problem, variances.Sigma)
    return {c.name: c.to_user(Sigma[c.name], problem.y_scale) for c in shown}


def _monte_carlo_errors(problem: Problem, errors: MonteCarloErrors) -> dict[str, Array]:
    of_terms = _of_components(problem, errors.variances.Sigma)
    return {
        **{
            component.name: component.error_to_user(of_terms[component.name], problem.y_scale)
            for component in problem.components
        },
        RESIDUAL: np.array([[errors.variances.sigma2 * problem.sigma2_scale]]),
    }


def _shown_iteration(
    problem: Problem, shown: Sequence[Component], iteration: Iteration
) -> dict[str, Any]:
    return {
        "step": iteration.step,
        "deviance": iteration.deviance,
        "change": iteration.change,
        "variances": {
            **_covariances(problem, shown, iteration.variances),
            RESIDUAL: iteration.variances.sigma2 * problem.sigma2_scale,
        },
    }


def _fixed_covariance(fitted: Fitted) -> Array:
    """Covariance of intercept and coefficients; NaN for what was dropped."""
    fixed, y_scale = fitted.problem.fixed, fitted.problem.y_scale
    covariance = fixed.covariance(fitted.optimum.solution.beta_cov) * y_scale**2
    lost = 1 + fixed.dropped
    covariance[lost] = covariance[:, lost] = np.nan
    return covariance * fitted.share_of_errors


def _residual_variance(fitted: Fitted) -> float:
    """In the user's units; NaN where no degree of freedom tells it."""
    if fitted.is_exact or fitted.optimum.zero_residual:
        return 0.0
    if fitted.certainty == "no_dof":
        return np.nan
    return fitted.optimum.solution.variances.sigma2 * fitted.problem.sigma2_scale


def _deviance(fitted: Fitted) -> float:
    """Criterion of the user's y and X, for one of scaled y and orthonormal X."""
    problem = fitted.problem
    if fitted.is_exact:
        return -np.inf
    if problem.dof <= 0:
        return np.nan
    basis = 0.0 if problem.options.method == "ml" else 2.0 * problem.fixed.log_det_basis
    return fitted.optimum.deviance + 2.0 * problem.dof * float(np.log(problem.y_scale)) - basis


def _count_parameters(problem: Problem) -> int:
    """Estimated parameters that the rows tell, as lme4 counts them."""
    n_free = sum(
        component.structure.n_parameters(basis.shape[1])
        for component, basis in zip(problem.active, problem.freedom.directions, strict=True)
        if component.name not in problem.options.held
    )
    rank, n_flat = problem.crossproducts.n_unpenalized, problem.identification.n_flat
    return rank + n_free + problem.estimates_residual - n_flat


def _has_singular(problem: Problem, variances: Variances) -> bool:
    """Whether a covariance that is estimated has a direction without variance."""
    Sigma = _of_components(problem, variances.Sigma)
    return any(
        null_directions(matrix).shape[1] > 0
        for name, matrix in Sigma.items()
        if name not in problem.options.held
    )


def _collapsed(fitted: Fitted) -> tuple[tuple[str, Array], ...]:
    """Combinations of the user's coefficients that the quick method left without variance."""
    problem = fitted.problem
    if fitted.is_exact or problem.options.method != "quick":
        return ()
    return tuple(
        (component.name, direction)
        for component, Sigma, basis in zip(
            problem.active,
            fitted.optimum.solution.variances.Sigma,
            problem.freedom.directions,
            strict=True,
        )
        if component.name not in problem.options.held
        for direction in _null_combinations(component, Sigma, basis).T
    )


def _null_combinations(component: Component, Sigma: Array, basis: Array) -> Array:
    """Combinations (s, r) of the user's coefficients that have no variance, though they might."""
    null = null_directions(basis.T @ Sigma @ basis)
    return np.asarray(np.linalg.pinv(component.transform @ basis).T @ null)
