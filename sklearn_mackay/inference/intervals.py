"""Confidence intervals: the record, and those that come from the curvature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from ..frames.making import Backend, make_frame
from .coefficients import FixedEffects
from .coordinates import COMPLEX_STEP, Coordinates
from .curvature import Curvature
from .parameters import Parameter, parameter_value
from .quantiles import normal_quantile

IntervalMethod: TypeAlias = Literal["auto", "profile", "wald", "bootstrap"]
IntervalKind: TypeAlias = Literal["profile", "wald", "bootstrap", "t"]

TOO_FLAT = 1.0  # standard error of a log or of Fisher's z beyond which the curvature tells nothing
NO_BOUNDS = (np.nan, np.nan)
NO_CURVATURE = (
    "at the boundary of a parameter, or where it is hardly determined, the curvature says nothing. "
    "Use method='profile'"
)
NO_FREEDOM = "its degrees of freedom are not known"
NUMBERS_GIVE_OUT = (ArithmeticError, np.linalg.LinAlgError)


class Interval(NamedTuple):
    """Bounds of a parameter, NaN where there are none, and then why."""

    bounds: tuple[float, float]
    reason: str | None = None


class Intervals(dict[str, tuple[float, float]]):
    """Lower and upper bound of each parameter by its name; a dict that makes a table of itself.

    Parameters
    ----------
    bounds : mapping of str to (float, float)
        In units of the parameter, NaN where it has no interval.
    estimates : mapping of str to float
        Of the same parameters.
    methods : mapping of str to {"profile", "wald", "bootstrap", "t"}
        How each interval was made.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> intervals = MacKayMixedRegressor(groups="Subject").fit(X, y).confint("Days")
    >>> lower, upper = intervals["Days"]
    >>> round(lower, 2), round(upper, 2)
    (8.88, 12.06)
    """

    def __init__(
        self,
        bounds: Mapping[str, tuple[float, float]],
        estimates: Mapping[str, float],
        methods: Mapping[str, IntervalKind],
    ) -> None:
        super().__init__(bounds)
        self.estimates, self.methods = dict(estimates), dict(methods)

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of the intervals, one row for each parameter.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `name`, `estimate`, `lower`, `upper` and `method`: "profile", "wald",
            "bootstrap", or "t" for the intervals that "wald" and "auto" give coefficients.

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
        >>> print(model.confint().to_frame().round(2))
                             name  estimate   lower   upper   method
        0  sd(Subject: intercept)     37.12   26.62   55.19  profile
        1            sd(residual)     30.99   27.89   34.71  profile
        2               intercept    251.41  231.23  271.58        t
        3                    Days     10.47    8.88   12.06        t
        """
        bounds = np.reshape([*self.values()], (-1, 2)).astype(np.float64)
        columns = {
            "name": np.array([*self], dtype=np.str_),
            "estimate": np.array([self.estimates[name] for name in self], dtype=np.float64),
            "lower": bounds[:, 0],
            "upper": bounds[:, 1],
            "method": np.array([self.methods[name] for name in self], dtype=np.str_),
        }
        return make_frame(columns, backend)


def t_interval(tests: FixedEffects, which: int, level: float) -> Interval:
    """Interval of one of the tested coefficients."""
    lower, upper = tests.interval(level)[which].tolist()
    return Interval((lower, upper), NO_FREEDOM if np.isnan(tests.df[which]) else None)


def wald_interval(
    parameter: Parameter,
    coordinates: Coordinates,
    curve: Curvature,
    level: float,
    y_scale: float,
) -> Interval:
    """Interval from the curvature: of the logarithm of a standard deviation, of Fisher's z.

    NaN at the boundary, where the curvature says nothing about the way inside. Coordinates are in
    units of `y_scale`, the interval in the user's.
    """
    is_correlation = len(parameter.coefficients) == 2
    transform, back = (np.arctanh, np.tanh) if is_correlation else (np.log, np.exp)
    value = parameter_value(coordinates.model, parameter, coordinates.model.variances)
    if not (-1.0 < value < 1.0 if is_correlation else value > 0.0):
        return Interval(NO_BOUNDS, NO_CURVATURE)
    directions = curve.estimate + 1j * COMPLEX_STEP * np.eye(len(curve.estimate))
    slopes = [transform(coordinates.value(parameter, phi)).imag for phi in directions]
    g = np.array(slopes) / COMPLEX_STEP
    std = float(np.sqrt(g @ curve.covariance @ g))
    if not 0.0 < std < TOO_FLAT:
        return Interval(NO_BOUNDS, NO_CURVATURE)
    center, width = transform(value), normal_quantile(level) * std
    unit = 1.0 if is_correlation else y_scale
    return Interval((float(unit * back(center - width)), float(unit * back(center + width))))


def interval_kind(parameter: Parameter | int, method: IntervalMethod) -> IntervalKind:
    """What a method makes of a standard deviation or correlation, or of a coefficient."""
    if isinstance(parameter, int) and method in ("auto", "wald"):
        return "t"
    return "profile" if method == "auto" else method


def singular(error: BaseException) -> str:
    """Reason for an interval that ended in one of `NUMBERS_GIVE_OUT`."""
    return f"the equations are singular on the way ({error})"
