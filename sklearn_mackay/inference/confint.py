"""Confidence intervals of chosen parameters, by the method that each is to have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from .._messages import Message
from ..evidence.loop import Optimum
from ..model.messages import few_values, no_intervals
from .at_optimum import AtOptimum
from .bootstrap import Resamples, bootstrap_interval, resample
from .coefficients import untested
from .coordinates import unresolved
from .intervals import (
    NO_BOUNDS,
    NO_CURVATURE,
    NUMBERS_GIVE_OUT,
    Interval,
    IntervalKind,
    IntervalMethod,
    Intervals,
    interval_kind,
    singular,
    t_interval,
    wald_interval,
)
from .parameters import RESIDUAL_SD, Parameter, parameter_value
from .profiles import profiled

Chosen = Mapping[str, Parameter | int]


def confidence_intervals(
    at: AtOptimum,
    chosen: Chosen,
    method: IntervalMethod,
    level: float,
    refits: Callable[[], Iterable[Optimum]],
) -> tuple[Intervals, list[Message]]:
    """Intervals of some parameters.

    Parameters
    ----------
    at : AtOptimum
        The fit.
    chosen : mapping of str to Parameter or int
        Variance parameters, and positions of coefficients.
    method : {"auto", "profile", "wald", "bootstrap"}
        How; see `interval_kind`.
    level : float
        Probability.
    refits : callable
        Fits to draws from the model, asked for where there is a bootstrap.

    Returns
    -------
    intervals : Intervals
        NaN where a parameter has none.
    messages : list of Message
        Which ones, and why; and what rests on few draws of the bootstrap.
    """
    kinds = {name: interval_kind(p, method) for name, p in chosen.items()}
    reasons = {
        name: why
        for name, p in chosen.items()
        if isinstance(p, Parameter) and (why := unresolved(at.model, p, kinds[name]))
    }

    def told(*by: IntervalKind) -> dict[str, Parameter | int]:
        return {name: p for name, p in chosen.items() if kinds[name] in by and name not in reasons}

    found = {name: profiled(partial(at.zeta, p), level) for name, p in told("profile").items()}
    if from_curvature := told("wald", "t"):
        found |= _from_curvature(at, from_curvature, level)
    messages = []
    if resampled := told("bootstrap"):
        drawn = resample(at.model, refits(), list(resampled.values()), untested(at.coefficients))
        messages += few_values(list(resampled), drawn.values)
        found |= _bootstrapped(resampled, drawn, level)
    reasons |= {name: one.reason for name, one in found.items() if one.reason}
    bounds = {name: found[name].bounds if name in found else NO_BOUNDS for name in chosen}
    messages += no_intervals(reasons)
    return Intervals(bounds, _estimates_of(at, chosen), kinds), messages


def _from_curvature(at: AtOptimum, chosen: Chosen, level: float) -> dict[str, Interval]:
    try:
        coordinates, curve = at.curvature()
    except NUMBERS_GIVE_OUT as error:
        return dict.fromkeys(chosen, Interval(NO_BOUNDS, singular(error)))
    tests = at.tests(curve)
    found = {
        name: wald_interval(p, coordinates, curve, level, at.model.y_scale)
        if isinstance(p, Parameter)
        else t_interval(tests, p, level)
        for name, p in chosen.items()
    }
    if RESIDUAL_SD in found and at.residual_sd == 0.0:
        found[RESIDUAL_SD] = Interval(NO_BOUNDS, NO_CURVATURE)
    return found


def _bootstrapped(chosen: Chosen, drawn: Resamples, level: float) -> dict[str, Interval]:
    return {
        name: Interval(bootstrap_interval(p, values, estimate, std, level))
        for (name, p), values, estimate, std in zip(
            chosen.items(), drawn.values.T, drawn.estimates, drawn.std, strict=True
        )
    }


def _estimates_of(at: AtOptimum, chosen: Chosen) -> dict[str, float]:
    """Coefficients, standard deviations and correlations as the attributes have them."""
    return {
        name: float(at.coefficients.estimate[p])
        if isinstance(p, int)
        else at.residual_sd
        if name == RESIDUAL_SD
        else parameter_value(at.model, p, at.model.variances)
        for name, p in chosen.items()
    }
