"""Estimates of one response in the user's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from ..covariances.matrices import n_units, null_directions
from ..design.components import AnyComponent, BlockComponent
from ..design.fixed import FixedPart
from ..evidence.freedom import Freedom
from ..evidence.identification import Identification
from ..evidence.loop import Optimum
from ..evidence.solution import Engine, Variances
from ..frames.options import RESIDUAL
from ..gram.crossproducts import CrossProducts
from .fitted import FittedModel
from .monte_carlo import MonteCarloErrors
from .options import Options

KEPT_ENTRIES = 2**21  # numbers in Gram blocks that are kept unasked: 16 MiB
ILL_CONDITIONED = 1e7  # condition of the scaled columns of X beyond which digits are lost


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
    marks : dict of str to float
        What tells data apart: number of rows, logarithms of weights, mean and standard deviation
        of y, rank of the fixed part and what it leaves of y, and ``log|X'WX|`` of REML.
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
    dropped : ndarray of int
        Fixed columns that depend on others.
    condition : float
        Condition of the fixed columns.
    solver : {"exact", "iterative"}
        The engine.
    kernel : {"lapack", "tensorflow"}
        What it computed with.
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
    identification : Identification
        What the rows cannot tell of the variances.
    kept : FittedModel or None
        What tells how sure the estimates are.
    """

    intercept: float
    coef: Array
    fixed_cov: Array
    Sigma: dict[str, Array]
    b: dict[str, Array]
    gamma: dict[str, float]
    deviance: float
    n: float
    marks: dict[str, Any]
    n_parameters: int
    converged: bool
    singular: bool
    solved: bool
    n_iter: int
    history: list[dict[str, Any]]
    dropped: NDArray[np.intp]
    condition: float
    solver: str
    kernel: str
    mc_error: dict[str, Array]
    deviance_mc_error: float
    n_products: int
    exact_fit: bool
    collapsed: tuple[tuple[str, Array], ...]
    identification: Identification
    kept: FittedModel | None


def in_user_units(
    fit: Optimum,
    errors: MonteCarloErrors,
    engine: Engine,
    fixed: FixedPart,
    crossproducts: CrossProducts,
    components: Sequence[AnyComponent],
    options: Options,
    freedom: Freedom,
    identification: Identification,
    *,
    y_scale: float,
    sigma2_scale: float,
    explained: bool,
    moments: Array,
) -> Estimates:
    """Estimates of one response, of what the loop found in internal units."""
    solution = fit.solution
    active = [component for component in components if component.term is not None]
    index = {component.name: k for k, component in enumerate(active)}
    shown = [
        _beside(component, freedom.directions[index[component.name]])
        if component.term
        else component
        for component in components
    ]
    b = {
        component.name: component.effects(
            solution.b[index[component.name]],
            y_scale,
            crossproducts.terms[index[component.name]].axes,
        )
        if component.term
        else component.effects(np.zeros((0, 0)), y_scale, None)
        for component in shown
    }
    coefficients = fixed.coefficients(y_scale * solution.beta)
    for block in active:
        if isinstance(block, BlockComponent) and block.term:
            coefficients[0] -= block.term.center @ b[block.name]
    fixed_cov = fixed.covariance(solution.beta_cov) * y_scale**2
    lost = 1 + fixed.dropped
    fixed_cov[lost] = fixed_cov[:, lost] = np.nan
    exact_fit = (explained and RESIDUAL not in options.held) or fit.exact
    sigma2 = 0.0 if fit.zero_residual else solution.variances.sigma2 * sigma2_scale
    certainty = 1.0
    if exact_fit:
        sigma2, certainty = 0.0, 0.0
    elif freedom.dof <= 0 and RESIDUAL not in options.held:
        sigma2 = np.nan
    if freedom.dof <= 0 and RESIDUAL not in options.held:
        certainty = np.nan
    fixed_cov *= certainty

    def matrices(variances: Variances) -> dict[str, Array]:
        return {
            component.name: component.to_user(
                variances.Sigma[index[component.name]] if component.term else np.zeros((0, 0)),
                y_scale,
            )
            for component in shown
        }

    Sigma = {**matrices(solution.variances), **options.held}
    n_free = sum(
        component.name not in options.held and n_units(basis.shape[1], component.diagonal)
        for component, basis in zip(active, freedom.directions, strict=True)
    )
    return Estimates(
        intercept=float(coefficients[0]),
        coef=coefficients[1:],
        fixed_cov=fixed_cov,
        Sigma={**Sigma, RESIDUAL: np.array([[sigma2]])},
        b=b,
        gamma={
            component.name: solution.gamma[index[component.name]] if component.term else 0.0
            for component in components
        },
        deviance=_deviance(fit, fixed, freedom, y_scale, options.method, exact_fit),
        n=crossproducts.n,
        marks={
            "n": crossproducts.n,
            "sum_log_weights": crossproducts.sum_log_weights,
            "mean": float(moments[1]),
            "sd": float(moments[2]),
            "rank": crossproducts.n_unpenalized,
            "residual": 0.0 if explained else y_scale,
            "alignments": {
                component.name: 0.0
                if component.term is None
                else _alignment(
                    crossproducts,
                    index[component.name],
                    np.append(fixed.offset, y_scale),
                    mean=float(moments[1]) if options.fit_intercept else None,
                    about_mean=options.method != "ml",
                )
                / max(float(moments[2]), np.finfo(float).tiny)
                for component in components
                if isinstance(component, BlockComponent)
            },
            "log_det_fixed": 0.0
            if options.method == "ml"
            else _log_det_fixed(crossproducts) - 2.0 * fixed.log_det_basis,
        },
        n_parameters=crossproducts.n_unpenalized
        + n_free
        + (RESIDUAL not in options.held)
        - identification.n_flat,
        converged=fit.converged,
        solved=solution.solved,
        singular=fit.zero_residual
        or any(
            component.name not in options.held and _is_singular(component, fit, index)
            for component in components
        ),
        n_iter=max(len(fit.history) - 1, 1),
        history=[
            {
                "step": iteration.step,
                "deviance": iteration.deviance,
                "change": iteration.change,
                "variances": {
                    **matrices(iteration.variances),
                    RESIDUAL: iteration.variances.sigma2 * sigma2_scale,
                },
            }
            for iteration in fit.history
        ],
        dropped=fixed.dropped,
        condition=fixed.condition,
        solver=engine.name,
        kernel=engine.kernel,
        mc_error={
            component.name: component.error_to_user(
                errors.variances.Sigma[index[component.name]]
                if component.term
                else np.zeros((0, 0)),
                y_scale,
            )
            for component in components
        }
        | {RESIDUAL: np.array([[errors.variances.sigma2 * sigma2_scale]])},
        deviance_mc_error=errors.deviance,
        n_products=errors.n_products,
        exact_fit=exact_fit,
        collapsed=()
        if exact_fit or options.method != "quick"
        else _collapsed(active, fit, freedom, options),
        identification=identification,
        kept=_kept(
            FittedModel(
                crossproducts=crossproducts,
                variances=solution.variances,
                freedom=freedom,
                method=options.method,
                beta=solution.beta,
                fixed=fixed,
                components=tuple(component.without_rows() for component in components),
                loadings={},
                unseen={
                    component.name: float(options.held[component.name][0, 0]) / y_scale**2
                    for component in components
                    if component.term is None and component.name in options.held
                },
                y_scale=y_scale,
                sigma2_scale=sigma2_scale,
                certainty=certainty,
                untold=_untold(active, identification),
            ),
            active,
            options.keep,
            is_exact=engine.name == "exact",
        ),
    )


def _kept(
    model: FittedModel, active: Sequence[AnyComponent], keep: bool | str, *, is_exact: bool
) -> FittedModel | None:
    """Complete what a fit keeps, or None; the rows of a large block would have to be kept."""
    terms = model.crossproducts.terms
    blocks = [
        (component.name, component.term, term)
        for component, term in zip(active, terms, strict=True)
        if isinstance(component, BlockComponent) and component.term
    ]
    size = model.crossproducts.n_entries + sum(b.n_columns * t.n_levels for _, b, t in blocks)
    is_wanted = (is_exact and size <= KEPT_ENTRIES) if keep == "auto" else keep
    if not is_wanted or any(term.columns is not None for term in terms):
        return None
    return replace(model, loadings={name: b.loadings(term.axes) for name, b, term in blocks})


def _deviance(
    fit: Optimum, fixed: FixedPart, freedom: Freedom, y_scale: float, method: str, exact_fit: bool
) -> float:
    """Criterion of the user's y and X, for one of scaled y and orthonormal X."""
    if exact_fit:
        return -np.inf
    if freedom.dof <= 0:
        return np.nan
    basis = 0.0 if method == "ml" else 2.0 * fixed.log_det_basis
    return fit.deviance + 2.0 * freedom.dof * float(np.log(y_scale)) - basis


def _untold(active: Sequence[AnyComponent], found: Identification) -> tuple[str, ...]:
    """Components whose variances the rows tell only in part."""
    untold = {active[k].name for k in found.together}
    for component, n_flat, with_residual in zip(
        active, found.n_flat_within, found.with_residual, strict=True
    ):
        if n_flat:
            untold |= {component.name, *[RESIDUAL] * with_residual}
    return tuple(sorted(untold))


def _alignment(
    crossproducts: CrossProducts, k: int, response: Array, *, mean: float | None, about_mean: bool
) -> float:
    """Covariance of y with a feature block, in units of the block, which no rotation moves.

    `response` has y in the columns of the fixed part and the reduced response, of which the last is
    the mean's; `mean` is None without an intercept.
    """
    term, n = crossproducts.terms[k], crossproducts.n
    on_y, squares = response @ term.ZWF[0], float(np.sum(term.own))
    if mean is not None:
        sums = term.ZWF[0, len(response) - 2]
        on_y = on_y - mean * sums
        squares -= about_mean * float(sums @ sums) / n
    size = np.sqrt(max(squares, 0.0) * n)
    return float(np.linalg.norm(on_y) / size) if size > 0 else 0.0


def _log_det_fixed(crossproducts: CrossProducts) -> float:
    """``log|X'WX|`` of the unpenalised internal columns."""
    r = len(crossproducts.penalty)
    free = slice(r - crossproducts.n_unpenalized, r)
    return float(np.linalg.slogdet(crossproducts.FWF[free, free])[1])


def _is_singular(component: AnyComponent, fit: Optimum, index: Mapping[str, int]) -> bool:
    if component.term is None:
        return True
    Sigma = fit.solution.variances.Sigma[index[component.name]]
    return bool(null_directions(Sigma).shape[1] > 0)


def _beside(component: AnyComponent, basis: Array) -> AnyComponent:
    """The component without a trace of the directions beside the basis, not even of rounding."""
    if isinstance(component, BlockComponent) or len(basis) == basis.shape[1]:
        return component
    transform = component.loadings(basis) @ basis.T
    return replace(component, term=replace(component.term, transform=transform))


def _collapsed(
    active: Sequence[AnyComponent], fit: Optimum, freedom: Freedom, options: Options
) -> tuple[tuple[str, Array], ...]:
    """Directions in which a covariance might have variance and has none, in the user's units."""
    Sigma = fit.solution.variances.Sigma
    return tuple(
        (component.name, direction)
        for component, S, basis in zip(active, Sigma, freedom.directions, strict=True)
        if component.name not in options.held
        for direction in _null_combinations(component, S, basis).T
    )


def _null_combinations(component: AnyComponent, Sigma: Array, basis: Array) -> Array:
    """Combinations (s, r) of the user's coefficients that have no variance, though they might."""
    null = null_directions(basis.T @ Sigma @ basis)
    return np.asarray(np.linalg.pinv(component.transform @ basis).T @ null)
