"""One mixed model from arrays to estimates: fixed part, Gram blocks, variances, user's units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._machine import MODERATE, one_blas_thread
from ..design.components import RESIDUAL, AnyComponent, BlockComponent
from ..design.fixed import FixedPart, build_fixed_part
from ..evidence.criterion import deviance
from ..evidence.fixed_points import Freedom, StandardErrors, gradient_noise, standard_errors
from ..evidence.identification import Identification, identify
from ..evidence.loop import Fit, Iteration, estimate_variances
from ..evidence.restarts import other_starts
from ..evidence.solution import Engine, PenalizedSolution, Variances, n_units, null_directions
from ..gram.crossproducts import CrossProducts, build_crossproducts
from .fitted import FittedModel

Array = NDArray[np.float64]
Prepare = Callable[..., Engine]

MONTE_CARLO_SHARE = 0.05  # of a variance's standard error that random probes may add
ANOTHER_VALLEY = 1e-6  # of the deviance: what one start is lower than another in the same one
MOST_REPETITIONS = 2  # the first may move, the second then starts where it is
EXPLAINED = 1e-12  # residual of y on X, relative to the spread of y, that is rounding
ROUNDING_OF_Y = 5e-15  # the same relative to the size of y: a few units in its last place
KEPT_ENTRIES = 2**21  # numbers in Gram blocks that are kept unasked: 16 MiB
ILL_CONDITIONED = 1e7  # condition of the scaled columns of X beyond which digits are lost


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


def fit_model(
    X: Any,
    y: Array,
    weights: Array,
    components: Sequence[AnyComponent],
    options: Options,
    prepare: Prepare,
    report: Callable[[Iteration], None],
) -> list[Estimates]:
    """Estimate a mixed model, or several that share everything but the response.

    Parameters
    ----------
    X : ndarray or sparse array of shape (n, p)
        Fixed columns without intercept; overwritten where dense.
    y : ndarray of shape (n, t)
        Responses; each has variances of its own.
    weights : ndarray of shape (n,)
        Positive row weights.
    components : sequence of Component or BlockComponent
        The grouping factors, then the feature blocks.
    options : Options
        What to estimate.
    prepare : callable
        ``prepare(crossproducts, reml=...)`` returns an :class:`Engine`.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    list of Estimates
        One for each response.

    Raises
    ------
    ValueError
        Where rows do not suffice to estimate variances, or the equations are singular.
    """
    moments = _moments(y, weights)
    with one_blas_thread(n_entries=y.size + X.shape[0] * X.shape[1]):
        fixed, crossproducts, y_scale, unit, explained = _build(
            X, y, weights, components, options, spread=moments[2]
        )
        identification = _identification(crossproducts, components, options)
    return [
        _fit_output(
            crossproducts.for_output(j),
            fixed.for_output(j),
            components,
            options,
            prepare,
            report,
            y_scale=float(y_scale[j]),
            unit=unit,
            explained=bool(explained[j]),
            identification=identification,
            moments=moments[:, j],
        )
        for j in range(y.shape[1])
    ]


def _build(
    X: Any,
    y: Array,
    weights: Array,
    components: Sequence[AnyComponent],
    options: Options,
    *,
    spread: Array,
) -> tuple[FixedPart, CrossProducts, Array, float, NDArray[np.bool_]]:
    """Fixed part, Gram blocks, units of y and of weights, and which y the fixed part explains."""
    size = np.max(np.abs(y), axis=0)
    # Precision weights have a unit, which the residual variance takes on; in it they average 1.
    unit = 1.0 if options.frequency else float(np.mean(weights))
    if unit != 1.0:
        weights = weights / unit
    fixed = build_fixed_part(
        X, y, weights, alpha=options.alpha / unit, fit_intercept=options.fit_intercept
    )
    residual = np.sqrt(np.average(fixed.y**2, axis=0, weights=weights))
    explained = residual <= np.maximum(EXPLAINED * spread, ROUNDING_OF_Y * size)
    y_scale = np.where(explained, 1.0, residual)
    active = [component for component in components if component.term is not None]
    crossproducts = build_crossproducts(
        [component.term for component in active if component.term is not None],
        fixed.X,
        np.where(explained, 0.0, fixed.y / y_scale),
        weights,
        penalty=fixed.penalty,
        n=float(np.sum(weights)) if options.frequency else float(len(y)),
        sum_log_weights=0.0 if options.frequency else float(np.sum(np.log(weights))),
    )
    return fixed.without_rows(), crossproducts, y_scale, unit, explained


def _fit_output(
    crossproducts: CrossProducts,
    fixed: FixedPart,
    components: Sequence[AnyComponent],
    options: Options,
    prepare: Prepare,
    report: Callable[[Iteration], None],
    *,
    y_scale: float,
    unit: float,
    explained: bool,
    identification: Identification,
    moments: Array,
) -> Estimates:
    """Estimate the variances of one response, and return everything in the user's units."""
    sigma2_scale = y_scale**2 * unit
    active = [component for component in components if component.term is not None]
    freedom = _freedom(crossproducts, active, options, identification)
    start = _start(active, options, freedom, y_scale, sigma2_scale)
    if explained and freedom.residual:
        start = Variances(1.0, tuple(np.zeros_like(S) for S in start.Sigma))
        freedom = replace(freedom, terms=(False,) * len(active), residual=False)
    elif freedom.dof <= 0 and freedom.residual:
        _require_degrees_of_freedom(crossproducts, active)
        freedom = Freedom((), False, (), freedom.dof, ())
    engine = prepare(crossproducts, reml=options.method != "ml")
    with one_blas_thread(n_entries=crossproducts.dense_order**2, limit=MODERATE):
        fit, errors = estimate_with(engine, crossproducts, start, freedom, options, report)
    if not fit.solution.finite:
        raise ValueError(
            "The penalised equations are singular to working precision: the fixed features are too "
            "nearly collinear (sparse ones are not centred). Remove some, give a positive `alpha`, "
            "or pass a dense X."
        )
    return _to_user_units(
        fit,
        errors,
        engine,
        fixed,
        crossproducts,
        components,
        options,
        freedom,
        identification,
        y_scale=y_scale,
        sigma2_scale=sigma2_scale,
        explained=explained,
        moments=moments,
    )


@dataclass(frozen=True)
class MonteCarloErrors:
    """Standard errors of what random probes estimate, and their work; zero for the exact engine."""

    variances: StandardErrors
    deviance: float
    n_products: int


def estimate_with(
    engine: Engine,
    crossproducts: CrossProducts,
    start: Variances,
    freedom: Freedom,
    options: Options,
    report: Callable[[Iteration], None],
) -> tuple[Fit, MonteCarloErrors]:
    """Run the loop, with more probes where they leave too large an error.

    Parameters
    ----------
    engine : Engine
        Solves the equations.
    crossproducts : CrossProducts
        Gram blocks.
    start : Variances
        Where to begin.
    freedom : Freedom
        What may move.
    options : Options
        Method and tolerances.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    fit : Fit
        Its deviance and history are those of the criterion, also where only its slope was known.
    errors : MonteCarloErrors
        What the probes leave uncertain.
    """

    def run(start: Variances) -> Fit:
        return estimate_variances(
            engine.solve,
            crossproducts,
            start,
            freedom,
            method=options.method,
            max_iter=options.max_iter,
            tol=options.tol,
            report=report,
        )

    fit = run(start)
    monte_carlo = engine.monte_carlo
    if monte_carlo is None or not fit.solution.finite:
        fit = _best_of_restarts(fit, run, engine, crossproducts, start, freedom, options)
        none = tuple(np.zeros_like(S) for S in fit.solution.variances.Sigma)
        return fit, MonteCarloErrors(StandardErrors(none, 0.0), 0.0, 0)
    while True:
        variances = fit.solution.variances
        for _ in range(MOST_REPETITIONS):
            if not monte_carlo.is_accurate(variances):
                fit = replace(fit, solution=engine.solve(variances))
        samples = monte_carlo.trace_samples(variances)
        n_probes = len(samples[0])
        errors = standard_errors(fit.solution, freedom, gradient_noise(samples, freedom))
        ratio = _largest_ratio(errors, standard_errors(fit.solution, freedom))
        wanted = int(np.ceil(n_probes * (ratio / MONTE_CARLO_SHARE) ** 2))
        wanted = min(wanted, monte_carlo.most_probes)
        if wanted <= n_probes:
            break
        monte_carlo.add_probes(wanted - n_probes)
        again = run(variances)
        fit = replace(again, history=fit.history + again.history)
    log_det, error = monte_carlo.log_det(variances)
    value = _criterion(replace(fit.solution, log_det=log_det), crossproducts, freedom)
    history = tuple(
        replace(iteration, deviance=iteration.deviance + value - fit.deviance)
        for iteration in fit.history
    )
    fit = replace(fit, deviance=value, history=history)
    return fit, MonteCarloErrors(errors, error, monte_carlo.n_products)


def _criterion(
    solution: PenalizedSolution, crossproducts: CrossProducts, freedom: Freedom
) -> float:
    return deviance(
        solution,
        dof=freedom.dof,
        sum_log_weights=crossproducts.sum_log_weights,
        penalty=crossproducts.penalty,
    )


def _best_of_restarts(
    fit: Fit,
    run: Callable[[Variances], Fit],
    engine: Engine,
    crossproducts: CrossProducts,
    start: Variances,
    freedom: Freedom,
    options: Options,
) -> Fit:
    """The lowest of the valleys that other starts find, unless the user chose the start."""
    if options.method == "quick" or options.start or fit.zero_residual or not fit.solution.finite:
        return fit

    def height(variances: Variances) -> float:
        solution = engine.solve(variances)
        if freedom.scale:
            solution = solution.rescaled(solution.yPy / freedom.dof)
        return _criterion(solution, crossproducts, freedom)

    for other in other_starts(height, crossproducts, freedom, start, fit.solution.variances):
        again = run(other)
        is_better = again.converged and again.deviance < fit.deviance - ANOTHER_VALLEY
        if is_better and not again.zero_residual:
            fit = again
    return fit


def _largest_ratio(errors: StandardErrors, of: StandardErrors) -> float:
    """Largest Monte Carlo error of a variance as a share of the variance's standard error."""
    pairs = [(errors.sigma2, of.sigma2)]
    for error, std in zip(errors.Sigma, of.Sigma, strict=True):
        pairs += zip(np.diag(error), np.diag(std), strict=True)
    return max((a / b for a, b in pairs if b > 0), default=0.0)


def _moments(y: Array, weights: Array) -> Array:
    """Sum of the weights, mean and standard deviation (3, t) of each response."""
    mean = np.average(y, axis=0, weights=weights)
    spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weights))
    return np.array([np.full_like(mean, np.sum(weights)), mean, spread])


def _identification(
    crossproducts: CrossProducts, components: Sequence[AnyComponent], options: Options
) -> Identification:
    """What the rows cannot tell of the variances; it does not depend on the response."""
    active = [component for component in components if component.term is not None]
    return identify(
        crossproducts,
        [component.transform for component in active],
        free=[component.name not in options.held for component in active],
        residual=RESIDUAL not in options.held,
        reml=options.method != "ml",
    )


def _freedom(
    crossproducts: CrossProducts,
    active: Sequence[AnyComponent],
    options: Options,
    identification: Identification,
) -> Freedom:
    p = 0 if options.method == "ml" else crossproducts.n_unpenalized
    return Freedom(
        terms=tuple(component.name not in options.held for component in active),
        residual=RESIDUAL not in options.held,
        diagonal=tuple(component.diagonal for component in active),
        dof=crossproducts.n - p,
        directions=identification.bases,
    )


def _start(
    active: Sequence[AnyComponent],
    options: Options,
    freedom: Freedom,
    y_scale: float,
    sigma2_scale: float,
) -> Variances:
    """Equal shares of the variance of y, unless the user says otherwise."""
    given = {**options.start, **options.held}
    share = 1.0 / (len(active) + 1)
    sigma2 = float(given[RESIDUAL][0, 0]) / sigma2_scale if RESIDUAL in given else share
    Sigma = []
    for component, free, basis in zip(active, freedom.terms, freedom.directions, strict=True):
        S = np.eye(len(basis)) * share * component.start_share
        if component.name in given:
            S = component.to_internal(given[component.name], y_scale)
        Sigma.append(basis @ (basis.T @ S @ basis) @ basis.T if free else S)
    return Variances(sigma2, tuple(Sigma))


def _require_degrees_of_freedom(
    crossproducts: CrossProducts, active: Sequence[AnyComponent]
) -> None:
    if active:
        raise ValueError(
            f"The rows count as {crossproducts.n:g} (n_samples, or the sum of frequency weights), "
            f"too few to estimate variances beside {crossproducts.n_unpenalized} fixed "
            "coefficients. Use fewer fixed features, a positive `alpha`, or "
            "weight_type='precision' if the weights do not count rows."
        )


def _to_user_units(
    fit: Fit,
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
    fit: Fit, fixed: FixedPart, freedom: Freedom, y_scale: float, method: str, exact_fit: bool
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
    on_y, squares = response @ term.fixed[0], float(np.sum(term.own))
    if mean is not None:
        sums = term.fixed[0, len(response) - 2]
        on_y = on_y - mean * sums
        squares -= about_mean * float(sums @ sums) / n
    size = np.sqrt(max(squares, 0.0) * n)
    return float(np.linalg.norm(on_y) / size) if size > 0 else 0.0


def _log_det_fixed(crossproducts: CrossProducts) -> float:
    """``log|X'WX|`` of the unpenalised internal columns."""
    r = len(crossproducts.penalty)
    free = slice(r - crossproducts.n_unpenalized, r)
    return float(np.linalg.slogdet(crossproducts.fixed[free, free])[1])


def _is_singular(component: AnyComponent, fit: Fit, index: Mapping[str, int]) -> bool:
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
    active: Sequence[AnyComponent], fit: Fit, freedom: Freedom, options: Options
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
