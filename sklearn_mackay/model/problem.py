"""One mixed model from arrays to estimates: fixed part, Gram blocks, variances, user's units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from .._machine import MODERATE, one_blas_thread
from ..design.components import AnyComponent
from ..design.fixed import FixedPart, build_fixed_part
from ..evidence.freedom import Freedom
from ..evidence.identification import Identification, identify
from ..evidence.loop import Iteration
from ..evidence.solution import Engine, Variances
from ..frames.options import RESIDUAL
from ..gram.crossproducts import CrossProducts
from ..gram.from_rows import build_crossproducts
from .estimates import Estimates, in_user_units
from .monte_carlo import estimate_with
from .options import Options

Prepare = Callable[..., Engine]

EXPLAINED = 1e-12  # residual of y on X, relative to the spread of y, that is rounding
ROUNDING_OF_Y = 5e-15  # the same relative to the size of y: a few units in its last place


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
    return in_user_units(
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
