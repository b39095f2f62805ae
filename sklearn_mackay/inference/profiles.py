"""Profiles of the deviance: one parameter held, everything else re-estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from .._arrays import Array
from ..covariances.matrices import null_directions
from ..evidence.criterion import deviance
from ..evidence.loop import Stopping, estimate_variances
from ..evidence.solution import PenalizedSolution, Solve
from ..frames.making import Backend, make_frame
from ..gram.columns import hold_combination
from ..gram.crossproducts import CrossProducts
from ..model.fitted import FittedModel, in_unit_of_y
from .coordinates import Coordinates
from .curvature import curvature, move_sizes
from .intervals import NO_BOUNDS, NUMBERS_GIVE_OUT, Interval, singular
from .parameters import Parameter
from .quantiles import normal_quantile

Prepare = Callable[[CrossProducts], Solve]

LEAST_RESIDUAL = 1e-4  # of the standard deviation of y: stands for zero, where nothing divides
OFF_ZERO = 0.1  # of its unit: where a standard deviation of zero starts to look for a better place
FROZEN = 1e-6  # of its unit: less than the standard error of any number of rows is rounding
ROUNDING = 1e-15  # of the deviance: a search ends there
SLOPE = 1e-8  # of the deviance, in scaled coordinates: the same
MOST_STEPS = 1000  # of a search
ROOT_TOLERANCE = 1e-8  # of a bound, relative to the width of the search
LONGEST_SEARCH = 60  # doublings of a step that looks for a bound
PROFILE_STOPPING = Stopping(100, 1e-10)  # of the deviance, where a coefficient is held


@dataclass(frozen=True)
class Profile:
    """How the deviance rises where one parameter is held and the others follow.

    Attributes
    ----------
    parameter : str
        Its name.
    values : ndarray of shape (n_points,) or (n_points + 1,)
        Where it was held, ascending, in its units; the estimate is among them.
    zeta : ndarray of the same shape
        Signed root of the rise of the deviance; normal quantiles cut intervals off it.
    estimate : float
        Where the deviance is least.
    interval : tuple of float
        Bounds at 95 %; a bound of the parameter itself where the deviance stays low up to it.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> profile = model.profile("sd(residual)", 5)
    >>> round(profile.estimate, 1), [round(bound, 1) for bound in profile.interval]
    (31.0, [27.9, 34.7])
    """

    parameter: str
    values: Array
    zeta: Array
    estimate: float
    interval: tuple[float, float]

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of the curve, one row for each point.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `parameter`, `value` and `zeta`.

        Raises
        ------
        ValueError
            For another library.
        ImportError
            Where it is not installed.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> print(model.profile("sd(residual)", 2).to_frame().round(1))
              parameter  value  zeta
        0  sd(residual)   27.0  -2.6
        1  sd(residual)   31.0   0.0
        2  sd(residual)   36.0   2.6
        """
        columns = {
            "parameter": np.full(len(self.values), self.parameter),
            "value": self.values,
            "zeta": self.zeta,
        }
        return make_frame(columns, backend)


class Zeta:
    """Signed root of the deviance's rise, as a function of one parameter's value.

    Parameters
    ----------
    rise : callable
        ``value -> deviance`` less that of the optimum, minimised over everything else.
    estimate : float
        Optimum.
    lower, upper : float
        Bounds of the parameter.
    step : float
        A first step away from the estimate, such as a standard error.
    """

    def __init__(
        self,
        rise: Callable[[float], float],
        estimate: float,
        lower: float,
        upper: float,
        step: float,
    ) -> None:
        self._rise = rise
        self.estimate, self.lower, self.upper, self._step = estimate, lower, upper, step

    def __call__(self, value: float) -> float:
        """Evaluate."""
        if value == self.estimate:
            return 0.0
        return float(np.sign(value - self.estimate) * np.sqrt(max(self._rise(value), 0.0)))

    def crossing(self, target: float) -> float:
        """Value at which it is `target`, or the bound that it does not get there before."""
        sign, bound = (1.0, self.upper) if target > 0 else (-1.0, self.lower)
        near, step = self.estimate, abs(target) * self._step
        for _ in range(LONGEST_SEARCH):
            far = near + sign * step
            if sign * far >= sign * bound:
                far = bound
            if abs(self(far)) >= abs(target):
                if abs(self(near)) >= abs(target):
                    return np.nan  # rounding: the profile is no function that could be searched
                width = abs(far - self.estimate)
                return float(
                    optimize.brentq(
                        lambda value: self(value) - target, near, far, xtol=ROOT_TOLERANCE * width
                    )
                )
            if far == bound:
                return float(bound)
            near, step = far, 2.0 * step
        return float(sign * np.inf)

    def interval(self, level: float) -> tuple[float, float]:
        """Confidence interval."""
        z = normal_quantile(level)
        return self.crossing(-z), self.crossing(z)

    def curve(self, name: str, n_points: int, level: float = 0.99) -> Profile:
        """Tabulate between the bounds of a wide interval."""
        lower, upper = self.interval(level)
        values = np.unique(np.append(np.linspace(lower, upper, n_points), self.estimate))
        zeta = np.array([self(float(value)) for value in values])
        return Profile(name, values, zeta, self.estimate, self.interval(0.95))


def profiled(find: Callable[[], Zeta], level: float) -> Interval:
    """Interval of one parameter, whatever its profile is like.

    Parameters
    ----------
    find : callable
        Makes the profile.
    level : float
        Probability.

    Returns
    -------
    Interval
        NaN with a reason where the numbers give out, so that other parameters have their intervals.
    """
    try:
        bounds = find().interval(level)
    except NUMBERS_GIVE_OUT as error:
        return Interval(NO_BOUNDS, singular(error))
    is_known = not np.any(np.isnan(bounds))
    return Interval(bounds, None if is_known else "rounding hides how the criterion rises")


def _is_singular(model: FittedModel) -> bool:
    """Whether a covariance that is free lacks a direction that it might have."""
    return any(
        is_free and null_directions(basis.T @ S @ basis).size > 0
        for S, is_free, basis in zip(
            model.variances.Sigma, model.freedom.terms, model.freedom.directions, strict=True
        )
        if basis.shape[1]
    )


def variance_zeta(model: FittedModel, solve: Solve, parameter: Parameter) -> Zeta:
    """Profile the deviance of the fit's own criterion, REML or ML, in one of its variances.

    Parameters
    ----------
    model : FittedModel
        The fit.
    solve : callable
        Exact engine on its Gram blocks, for its criterion.
    parameter : Parameter
        Which one.

    Returns
    -------
    Zeta
    """
    is_correlation = len(parameter.coefficients) == 2
    unit_of_y, model = model.y_scale, in_unit_of_y(model)
    coordinates = Coordinates(model, parameter)
    j = coordinates.index(parameter)
    curve = curvature(model, solve, coordinates)
    others = np.delete(np.arange(len(curve.estimate)), j)
    unit = move_sizes(coordinates, curve.estimate)
    std = np.sqrt(np.diag(curve.covariance))
    scale = np.where((std > FROZEN * unit) & (std < unit), std, unit)[others]
    is_sd = np.ones(len(curve.estimate), dtype=bool)
    for place in coordinates.places:
        is_sd[place.angles] = False
    # Standard deviations of both signs would also be correlations of the other sign.
    lowest = np.where(is_sd, 0.0, -np.inf)
    if model.freedom.residual:
        lowest[-1] = min(curve.estimate[-1], LEAST_RESIDUAL * np.sqrt(model.sigma2_scale))
    bounds = optimize.Bounds(lowest[others] / scale, np.inf)
    least = _deviance(model, solve(model.variances))
    has_valleys = bool(model.untold) or _is_singular(model)
    starts = _starts(curve.estimate[others], unit[others], is_sd[others], several=has_valleys)
    n_starts = len(starts)

    def rise(value: float) -> float:
        held = np.arccos(np.clip(value, -1.0, 1.0)) if is_correlation else max(value, lowest[j])

        def at(psi: Array) -> tuple[float, Array]:
            phi = curve.estimate.copy()
            phi[j], phi[others] = held, scale * psi
            solution = solve(coordinates.variances(phi))
            if not solution.finite:
                return np.inf, np.zeros(len(psi))
            slope = coordinates.gradient(phi, solution)[others]
            return _deviance(model, solution) - least, scale * slope

        if not len(others):
            return at(np.zeros(0))[0]

        found = min(
            (_search(at, start / scale, bounds) for start in starts),
            key=lambda result: result.fun,
        )
        stuck = is_sd[others] & (found.x == 0.0)
        if np.any(stuck):
            beside = np.where(stuck, OFF_ZERO * unit[others] / scale, found.x)
            again = _search(at, beside, bounds)
            found = min(found, again, key=lambda result: result.fun)
        if has_valleys:
            starts[n_starts:] = [scale * found.x]
        return float(found.fun)

    value = float(curve.estimate[j])
    step = float(std[j]) if 0 < std[j] < unit[j] else 0.1 * float(unit[j])
    if is_correlation:
        step = max(step * float(np.sin(value)), 0.05)
        return Zeta(rise, float(np.cos(value)), -1.0, 1.0, step)
    return Zeta(lambda sd: rise(sd / unit_of_y), value * unit_of_y, 0.0, np.inf, step * unit_of_y)


def _starts(
    estimate: Array, unit: Array, is_sd: NDArray[np.bool_], *, several: bool
) -> list[Array]:
    """Where searches of the other coordinates begin: at the estimate, and where valleys may be."""
    # Zero is stationary in a standard deviation, whatever the data say.
    off_zero = np.where(is_sd, OFF_ZERO * unit, -np.inf)
    starts = [np.maximum(estimate, off_zero)]
    if several:
        mirrored, right, wide = starts[0].copy(), starts[0].copy(), unit.copy()
        mirrored[~is_sd] = np.pi - mirrored[~is_sd]
        right[~is_sd] = wide[~is_sd] = np.pi / 2
        starts += [mirrored, right, wide]
    return starts


def _search(
    at: Callable[[Array], tuple[float, Array]], start: Array, bounds: optimize.Bounds
) -> optimize.OptimizeResult:
    """Descend from a start."""
    return optimize.minimize(
        at,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": ROUNDING, "gtol": SLOPE, "maxiter": MOST_STEPS},
    )


def coefficient_zeta(
    model: FittedModel, prepare: Prepare, which: int, estimate: float, std: float
) -> Zeta:
    """Profile the ML deviance in one fixed coefficient, 0 for the intercept.

    Parameters
    ----------
    model : FittedModel
        A fit by ML, without ridge penalty.
    prepare : callable
        Exact engine for Gram blocks, by ML.
    which : int
        The coefficient.
    estimate, std : float
        Its value and standard error.

    Returns
    -------
    Zeta
    """
    direction = model.fixed.to_coefficients[which]
    least = _deviance(model, prepare(model.crossproducts)(model.variances))

    def rise(value: float) -> float:
        along = (value - float(direction @ model.offset)) / model.y_scale
        held = hold_combination(model.crossproducts, direction, along)
        fit = estimate_variances(
            prepare(held),
            held,
            model.variances,
            model.freedom,
            method="ml",
            stopping=PROFILE_STOPPING,
        )
        return fit.deviance - least

    return Zeta(rise, estimate, -np.inf, np.inf, std)


def _deviance(model: FittedModel, solution: PenalizedSolution) -> float:
    """Criterion in internal units; differences are the user's."""
    return deviance(
        solution,
        dof=model.freedom.dof,
        sum_log_weights=model.crossproducts.sum_log_weights,
        penalty=model.crossproducts.penalty,
    )
