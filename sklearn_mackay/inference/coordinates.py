"""How sure estimates are: degrees of freedom, intervals, comparison and shares of variance.

Variances are looked at as standard deviations and correlations of the user's coefficients. With
the rows of a Cholesky factor of the correlations on the unit sphere, by angles, the deviance is
smooth in all of them, through zero and through correlations of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize
from scipy.special import chdtrc, ndtr, ndtri, stdtr, stdtrit

from ..design.components import RESIDUAL, AnyComponent, BlockComponent
from ..evidence.criterion import deviance
from ..evidence.loop import Fit, Solve, estimate_variances
from ..evidence.solution import RANK_TOLERANCE, PenalizedSolution, Variances, null_directions
from ..frames.making import Backend, Column, PartlyKnown, make_frame
from ..gram.crossproducts import CrossProducts
from ..model.fitted import FittedModel

Array = NDArray[np.float64]
Prepare = Callable[[CrossProducts], Solve]
IntervalMethod: TypeAlias = Literal["auto", "profile", "wald", "bootstrap"]
IntervalKind: TypeAlias = Literal["profile", "wald", "bootstrap", "t"]

COMPLEX_STEP = 1e-30  # of a derivative without cancellation
PARALLEL = 1e-4  # sine of half an angle between coefficients whose correlation rounding decides
DIFFERENCE = 1e-4  # step of a difference of gradients, in units of the coordinate
FLAT = 1e-8  # eigenvalue of the scaled Hessian relative to the largest that tells nothing
TOO_FLAT = 1.0  # standard error of a log or of Fisher's z beyond which the curvature tells nothing
LEAST_MOVE = 1e-2  # of a standard deviation of zero, relative to that of y
LEAST_RESIDUAL = 1e-4  # of the standard deviation of y: stands for zero, where nothing divides
OFF_ZERO = 0.1  # of its unit: where a standard deviation of zero starts to look for a better place
SEARCH = {"ftol": 1e-15, "gtol": 1e-8, "maxiter": 1000}  # of the deviance, to its rounding
ROOT_TOLERANCE = 1e-8  # of a bound, relative to the width of the search
LONGEST_SEARCH = 60  # doublings of a step that looks for a bound
TIED = 1e-9  # relative difference of a refit from the estimate that is rounding
RESIDUAL_SD = "sd(residual)"
NO_BOUNDS = (np.nan, np.nan)
NO_CURVATURE = (
    "at the boundary of a parameter, or where it is hardly determined, the curvature says nothing. "
    "Use method='profile'"
)
NO_FREEDOM = "its degrees of freedom are not known"
NUMBERS_GIVE_OUT = (ArithmeticError, np.linalg.LinAlgError)
PROFILE_ITERATIONS = 100
PROFILE_TOLERANCE = 1e-10  # of the deviance, where a coefficient is held


class Interval(NamedTuple):
    """Bounds of a parameter, NaN where there are none, and then why."""

    bounds: tuple[float, float]
    reason: str | None = None


class Parameter(NamedTuple):
    """A standard deviation or a correlation.

    Attributes
    ----------
    name : str
        "sd(Subject: Days)", "cor(Subject: intercept, Days)" or "sd(residual)".
    component : str or None
        Factor or feature block; None for the residual.
    coefficients : tuple of int
        One for a standard deviation, two for a correlation.
    """

    name: str
    component: str | None
    coefficients: tuple[int, ...]


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


def variance_parameters(model: FittedModel) -> list[Parameter]:
    """Return the standard deviations and correlations that were estimated."""
    found = []
    for component, is_free, basis in zip(
        model.active, model.freedom.terms, model.freedom.directions, strict=True
    ):
        if not is_free:
            continue
        name, labels = component.name, component.coefficients
        if isinstance(component, BlockComponent):
            found += [Parameter(f"sd({name})", name, (0,))] * basis.shape[1]
            continue
        varying = np.flatnonzero(np.any(component.loadings(basis) != 0.0, axis=1)).tolist()
        found += [Parameter(f"sd({name}: {labels[a]})", name, (a,)) for a in varying]
        if not component.diagonal:
            found += [
                Parameter(f"cor({name}: {labels[a]}, {labels[b]})", name, (a, b))
                for a, b in combinations(varying, 2)
            ]
    if model.freedom.residual:
        found.append(Parameter(RESIDUAL_SD, None, (0,)))
    return found


class _Place(NamedTuple):
    """Coordinates of one term: from internal ones and back, and positions of their parameters.

    `to_internal` has shape (s, r) and `back` (r, s), for a covariance with variance in ``r``
    directions.
    """

    term: int
    to_internal: Array
    back: Array
    sds: slice
    angles: slice


@dataclass(frozen=True)
class Coordinates:
    """Free variances as standard deviations and angles of some coefficients.

    Attributes
    ----------
    model : FittedModel
        The fit.
    parameter : Parameter or None
        One that is to be a coordinate: a standard deviation in the user's units, or a correlation
        as its arc cosine. The other coordinates of its term are at right angles to its
        coefficients, in internal units: far from the data an intercept and its slopes are hardly
        to be told apart, an intercept and what is left beside it always are.
    """

    model: FittedModel
    parameter: Parameter | None = None

    @cached_property
    def places(self) -> list[_Place]:
        """One entry for each term that is free."""
        places, start = [], 0
        model, parameter = self.model, self.parameter
        for k, component in enumerate(model.active):
            basis = model.freedom.directions[k]
            r = basis.shape[1]
            if not model.freedom.terms[k] or not r:
                continue
            rows = np.eye(r) * model.y_scale
            if component.diagonal:
                rows = np.diag(np.diag(component.transform)[np.argmax(basis, axis=0)]) @ rows
            elif parameter is not None and parameter.component == component.name:
                leading = _leading(model, parameter)
                rows[: len(leading)] = leading
                rows[len(leading) :] = model.y_scale * linalg.null_space(_directions(leading)).T
            n_angles = 0 if component.diagonal else r * (r - 1) // 2
            sds = slice(start, start + r)
            angles = slice(sds.stop, sds.stop + n_angles)
            to_internal = basis @ np.linalg.inv(rows)
            places.append(_Place(k, to_internal, rows @ basis.T, sds, angles))
            start = angles.stop
        return places

    @property
    def n_coordinates(self) -> int:
        """How many there are, the residual standard deviation last."""
        end = self.places[-1].angles.stop if self.places else 0
        return int(end) + self.model.freedom.residual

    def index(self, parameter: Parameter) -> int:
        """Which coordinate is a parameter, or its arc cosine."""
        if parameter.component is None:
            return self.n_coordinates - 1
        place, component = self._place_of(parameter)
        if component.diagonal:
            basis = self.model.freedom.directions[place.term]
            return int(place.sds.start + np.argmax(basis[parameter.coefficients[0]]))
        return int(place.sds.start if len(parameter.coefficients) == 1 else place.angles.start)

    def _place_of(self, parameter: Parameter) -> tuple[_Place, AnyComponent]:
        pairs = ((place, self.model.active[place.term]) for place in self.places)
        return next(pair for pair in pairs if pair[1].name == parameter.component)

    def at(self, variances: Variances) -> Array:
        """Coordinates of variances; the angles of a coefficient without variance are right."""
        phi = np.zeros(self.n_coordinates)
        for place in self.places:
            Sigma = place.back @ variances.Sigma[place.term] @ place.back.T
            sds = np.sqrt(np.maximum(np.diag(Sigma), 0.0))
            phi[place.sds] = sds
            if place.angles.stop > place.angles.start:
                phi[place.angles] = _angles(Sigma, sds)
        if self.model.freedom.residual:
            phi[-1] = np.sqrt(variances.sigma2 * self.model.sigma2_scale)
        return phi

    def variances(self, phi: Array) -> Variances:
        """Internal variances of coordinates; those that are held stay."""
        model = self.model
        sigma2 = model.variances.sigma2
        if model.freedom.residual:
            sigma2 = float(phi[-1] ** 2 / model.sigma2_scale)
        Sigma = list(model.variances.Sigma)
        for place in self.places:
            Sigma[place.term] = self._internal(place, phi)
        return Variances(sigma2, tuple(Sigma))

    def _internal(self, place: _Place, phi: Array) -> Array:
        """Internal covariance (s, s) of a term; complex where `phi` is."""
        Sigma = _covariance(phi[place.sds], phi[place.angles])
        return np.asarray(place.to_internal @ Sigma @ place.to_internal.T)

    def value(self, parameter: Parameter, phi: Array) -> Any:
        """A parameter at coordinates, complex where they are."""
        if parameter.component is None:
            return phi[-1]
        place, component = self._place_of(parameter)
        transform = self.model.y_scale * component.transform
        Sigma = transform @ self._internal(place, phi) @ transform.T
        at = parameter.coefficients
        sds = [np.sqrt(Sigma[a, a]) for a in at]
        return sds[0] if len(at) == 1 else Sigma[at[0], at[1]] / (sds[0] * sds[1])

    def gradient(self, phi: Array, solution: PenalizedSolution) -> Array:
        """Derivative of the deviance in the coordinates."""
        model, present = self.model, solution.variances
        slope = np.zeros(len(phi))
        for place in self.places:
            G = solution.gradient[place.term]
            for j in (
                *range(place.sds.start, place.sds.stop),
                *range(place.angles.start, place.angles.stop),
            ):
                moved = phi.astype(complex)
                moved[j] += 1j * COMPLEX_STEP
                slope[j] = np.sum(G * self._internal(place, moved).imag) / COMPLEX_STEP
        if model.freedom.residual:
            # All variances together scale V.
            total = model.freedom.dof - solution.yPy
            pairs = zip(solution.gradient, present.Sigma, strict=True)
            of_sigma2 = total - sum(float(np.sum(G * S)) for G, S in pairs)
            slope[-1] = 2.0 * of_sigma2 / phi[-1]
        return slope


def _leading(model: FittedModel, parameter: Parameter) -> Array:
    """A parameter's coefficients in the user's units, of those of its term's basis (1 or 2, r)."""
    assert parameter.component is not None
    k, component = model.component(parameter.component)
    assert k is not None
    loadings = component.loadings(model.freedom.directions[k])
    return np.asarray(model.y_scale * loadings[list(parameter.coefficients)])


def _directions(rows: Array) -> Array:
    """Rows of unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def unresolved(model: FittedModel, parameter: Parameter, method: str) -> str | None:
    """Why the rows cannot tell a parameter by a method, or None."""
    if method != "profile" and (parameter.component or RESIDUAL) in model.untold:
        return (
            "the rows tell the variances of its factor only in part, as the fit has warned. Use "
            "method='profile', which is as wide as that"
        )
    if len(parameter.coefficients) < 2:
        return None
    directions = _directions(_leading(model, parameter))
    if directions.shape[1] > 1 and np.linalg.svd(directions)[1][1] > PARALLEL:
        return None
    return (
        "in every row its two coefficients vary as one. They are multiples of one another, so that "
        "one of them suffices, or a random intercept beside a slope with values far from zero, "
        "where it is an extrapolation: subtract a typical value from the slope"
    )


def _covariance(sds: Array, angles: Array) -> Array:
    """``D R D`` with ``R = NN'``, row i of the lower triangular ``N`` given by i angles.

    Equation (19) of docs/theory.md.
    """
    s = len(sds)
    if not len(angles):
        return np.asarray(np.diag(sds**2))
    N = np.zeros((s, s), dtype=angles.dtype)
    N[0, 0] = 1.0
    start = 0
    for i in range(1, s):
        theta = angles[start : start + i]
        sines = np.cumprod(np.sin(theta))
        N[i, :i] = np.cos(theta) * np.append(1.0, sines[:-1])
        N[i, i] = sines[-1]
        start += i
    scaled = sds[:, None] * N
    return np.asarray(scaled @ scaled.T)


def _angles(Sigma: Array, sds: Array) -> Array:
    """Angles of a covariance; right ones where a standard deviation is zero."""
    positive = np.where(sds > 0, sds, 1.0)
    R = Sigma / np.outer(positive, positive)
    np.fill_diagonal(R, 1.0)
    N = np.zeros_like(R)
    angles = []
    for i in range(len(R)):
        left = 1.0
        for j in range(i):
            rest = R[i, j] - N[i, :j] @ N[j, :j]
            N[i, j] = rest / N[j, j] if N[j, j] > 1e-8 else 0.0
            cosine = N[i, j] / left if left > 1e-8 else 0.0
            angles.append(np.arccos(np.clip(cosine, -1.0, 1.0)))
            left *= np.sin(angles[-1])
        N[i, i] = np.sqrt(max(1.0 - N[i, :i] @ N[i, :i], 0.0))
    return np.array(angles)


@dataclass(frozen=True)
class Curvature:
    """The deviance around the optimum, and the covariance of the fixed effects there.

    Attributes
    ----------
    estimate : ndarray of shape (m,)
        Coordinates of the optimum.
    covariance : ndarray of shape (m, m)
        ``2 H^-1`` with the observed Hessian ``H`` of the deviance; zero for what has no slope.
    beta_cov : ndarray of shape (1 + p, 1 + p)
        Covariance of intercept and coefficients.
    beta_cov_slopes : ndarray of shape (m, 1 + p, 1 + p)
        Its derivatives.
    """

    estimate: Array
    covariance: Array
    beta_cov: Array
    beta_cov_slopes: Array


def curvature(model: FittedModel, solve: Solve, coordinates: Coordinates) -> Curvature:
    """Difference the exact gradient around the optimum.

    Parameters
    ----------
    model : FittedModel
        The fit.
    solve : callable
        Exact engine on its Gram blocks.
    coordinates : Coordinates
        In which the deviance is smooth.

    Returns
    -------
    Curvature
    """
    estimate = coordinates.at(model.variances)
    m, scale = len(estimate), _scale(coordinates, estimate)
    beta_cov = _fixed_cov(model, solve(model.variances))
    slopes, H = np.zeros((m, *beta_cov.shape)), np.zeros((m, m))
    for j in range(m):
        step = DIFFERENCE * scale[j] * np.eye(m)[j]
        ends = [
            (phi, solve(coordinates.variances(phi))) for phi in (estimate + step, estimate - step)
        ]
        (above, cov_above), (below, cov_below) = (
            (coordinates.gradient(phi, solution), _fixed_cov(model, solution))
            for phi, solution in ends
        )
        H[j] = (above - below) / (2 * step[j])
        slopes[j] = (cov_above - cov_below) / (2 * step[j])
    values, vectors = np.linalg.eigh(0.5 * (H + H.T) * np.outer(scale, scale))
    kept = values > FLAT * np.max(values, initial=0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return Curvature(estimate, 2.0 * inverse * np.outer(scale, scale), beta_cov, slopes)


def _fixed_cov(model: FittedModel, solution: PenalizedSolution) -> Array:
    """Covariance (1 + p, 1 + p) of intercept and coefficients in the user's units."""
    return model.fixed.covariance(solution.beta_cov * model.y_scale**2)


def _scale(coordinates: Coordinates, phi: Array) -> Array:
    """Size of a coordinate's moves: of a standard deviation itself, or of what y leaves it."""
    unit = np.ones(len(phi))
    for place in coordinates.places:
        share = coordinates.model.active[place.term].start_share
        smallest = LEAST_MOVE * np.sqrt(share) * np.linalg.norm(place.back, axis=1)
        unit[place.sds] = np.maximum(np.abs(phi[place.sds]), smallest)
    if coordinates.model.freedom.residual:
        unit[-1] = phi[-1]
    return unit


@dataclass(frozen=True)
class FixedEffects:
    """Tests of single coefficients: ``t = estimate / std_error``, two-sided.

    Attributes
    ----------
    names : tuple of str
        "intercept" where there is one, then the fixed features that are in no feature block; the
        arrays, of shape (1 + p,), follow this order.
    estimate, std_error : ndarray of shape (1 + p,)
        Coefficients and their standard errors, in units of y for a unit of the column.
    df : ndarray of shape (1 + p,)
        Satterthwaite's degrees of freedom. A variance that is estimated as zero counts as known to
        be zero: where the fit is singular they can be far too many, and the p value too small.
    t_value, p_value : ndarray of shape (1 + p,)
        Of the hypothesis that the coefficient is zero.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> tests = model.fixed_effects()
    >>> print(tests.names, tests.t_value.round(1))
    ('intercept', 'Days') [25.8 13. ]
    """

    names: tuple[str, ...]
    estimate: Array
    std_error: Array
    df: Array
    t_value: Array
    p_value: Array

    def interval(self, level: float) -> Array:
        """Confidence intervals ``estimate -/+ t(df) std_error``.

        Parameters
        ----------
        level : float
            Probability between 0 and 1.

        Returns
        -------
        ndarray of shape (1 + p, 2)
            Lower and upper bounds.

        Raises
        ------
        ValueError
            For a level outside (0, 1).

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> print(model.fixed_effects().interval(0.95).round(1))
        [[231.2 271.6]
         [  8.9  12.1]]
        """
        width = stdtrit(self.df, 0.5 + 0.5 * check_level(level)) * self.std_error
        return np.column_stack([self.estimate - width, self.estimate + width])

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of the tests, one row for each coefficient.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `name`, `estimate`, `std_error`, `df`, `t_value` and `p_value`.

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
        >>> print(model.fixed_effects().to_frame().round(1))
                name  estimate  std_error     df  t_value  p_value
        0  intercept     251.4        9.7   22.8     25.8      0.0
        1       Days      10.5        0.8  161.0     13.0      0.0
        """
        columns = {
            "name": np.array(self.names, dtype=np.str_),
            "estimate": self.estimate,
            "std_error": self.std_error,
            "df": self.df,
            "t_value": self.t_value,
            "p_value": self.p_value,
        }
        return make_frame(columns, backend)


def without_intercept(tests: FixedEffects) -> FixedEffects:
    """The tests of the features alone."""
    arrays = (tests.estimate, tests.std_error, tests.df, tests.t_value, tests.p_value)
    return FixedEffects(tests.names[1:], *(array[1:] for array in arrays))


def with_intercept_std(tests: FixedEffects, std: float) -> FixedEffects:
    """The same tests with a standard error of the intercept that has no degrees of freedom."""
    arrays = [array.copy() for array in (tests.std_error, tests.df, tests.t_value, tests.p_value)]
    for array, value in zip(arrays, (std, np.nan, tests.estimate[0] / std, np.nan), strict=True):
        array[0] = value
    return FixedEffects(tests.names, tests.estimate, *arrays)


def in_unit_of_y(model: FittedModel) -> FittedModel:
    """The same fit with its internal unit of y as the user's.

    What is a square of a variance leaves the range of floating point numbers long before the
    variances do.
    """
    return replace(model, y_scale=1.0, sigma2_scale=model.sigma2_scale / model.y_scale**2)


def satterthwaite(curve: Curvature) -> Array:
    """Degrees of freedom of each coefficient's variance ``v``: ``2 v^2 / Var(v)``.

    ``Var(v) = g' A g`` with the derivatives ``g`` of ``v`` and the covariance ``A`` of the
    variance parameters from the observed Hessian. Equation (20) of docs/theory.md. A variance of
    zero and a correlation of one have no slope: they count as known.

    References
    ----------
    Giesbrecht, Burns (1985), "Two-stage analysis based on a mixed model: large-sample asymptotic
    theory and small-sample simulation results", Biometrics 41(2). Kuznetsova, Brockhoff,
    Christensen (2017), "lmerTest package: tests in linear mixed effects models", Journal of
    Statistical Software 82(13).
    """
    v = np.diag(curve.beta_cov)
    # Of the logarithm: columns in an extreme unit have extreme variances.
    g = np.einsum("mjj->jm", curve.beta_cov_slopes) / np.where(v > 0, v, 1.0)[:, None]
    spread = np.einsum("jm,mn,jn->j", g, curve.covariance, g)
    return np.asarray(np.divide(2.0, spread, out=np.full(len(v), np.inf), where=spread > 0))


def coefficient_tests(
    names: Sequence[str], estimate: Array, curve: Curvature, y_scale: float
) -> FixedEffects:
    """Wald tests with Satterthwaite's degrees of freedom; NaN where a column was dropped.

    Parameters
    ----------
    names : sequence of str
        Of the coefficients.
    estimate : ndarray of shape (1 + p,)
        Coefficients in the user's units.
    curve : Curvature
        In units of `y_scale`.
    y_scale : float
        Unit of y.

    Returns
    -------
    FixedEffects
    """
    std = np.sqrt(np.diag(curve.beta_cov)) * y_scale
    std = np.where(std > 0, std, np.nan)
    df = np.where(np.isnan(std), np.nan, satterthwaite(curve))
    t = estimate / std
    return FixedEffects(tuple(names), estimate, std, df, t, 2.0 * stdtr(df, -np.abs(t)))


def normal_quantile(level: Any) -> float:
    """Half width of the interval that holds a standard normal variable with probability `level`."""
    return float(ndtri(0.5 + 0.5 * check_level(level)))


def check_level(level: Any) -> float:
    """Return a probability, or refuse it."""
    if not (isinstance(level, Real) and 0 < float(level) < 1):
        raise ValueError(f"`level` must be a probability between 0 and 1, got {level!r}.")
    return float(level)


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


def choose_parameters(
    wanted: Any, known: Mapping[str, Parameter | int]
) -> dict[str, Parameter | int]:
    """Look up parameters by name, or all those of a factor or block; None for all.

    Raises
    ------
    ValueError
        For a name that is none of them.
    """
    if wanted is None:
        return dict(known)
    chosen: dict[str, Parameter | int] = {}
    for name in [wanted] if isinstance(wanted, str) else wanted:
        matching = {
            key: p
            for key, p in known.items()
            if name in (key, p.component if isinstance(p, Parameter) else None)
        }
        if not matching:
            raise ValueError(f"{name!r} is no parameter: {', '.join(map(repr, known))}.")
        chosen |= matching
    return chosen


class Resamples(NamedTuple):
    """Parameters of refits, one row each: values of variance parameters, t values of coefficients.

    Attributes
    ----------
    values : ndarray of shape (n_resamples, m)
        NaN where a refit has none: a correlation beside a standard deviation of zero.
    estimates, std : ndarray of shape (m,)
        Of the fit that was simulated; `std` is NaN but for coefficients.
    """

    values: Array
    estimates: Array
    std: Array


def resample(
    model: FittedModel,
    refits: Iterable[Fit],
    parameters: Sequence[Parameter | int],
    tests: FixedEffects,
) -> Resamples:
    """Collect parameters from refits to simulated cross-products with fixed effects of zero.

    Parameters
    ----------
    model : FittedModel
        The fit that was simulated, in the unit in which the parameters are wanted.
    refits : iterable of Fit
        Fits to the draws.
    parameters : sequence of Parameter or int
        Variance parameters, and positions of coefficients.
    tests : FixedEffects
        Of all coefficients of the fit, in the same unit.

    Returns
    -------
    Resamples
    """
    values = [_refitted(model, fit, parameters) for fit in refits]
    estimates = [
        tests.estimate[p] if isinstance(p, int) else parameter_value(model, p, model.variances)
        for p in parameters
    ]
    std = [tests.std_error[p] if isinstance(p, int) else np.nan for p in parameters]
    return Resamples(np.array(values), np.array(estimates), np.array(std))


def _refitted(model: FittedModel, fit: Fit, parameters: Sequence[Parameter | int]) -> list[float]:
    """Variance parameters of a refit, and t values of its coefficients, whose truth is zero."""
    if not fit.solution.finite:
        return [np.nan] * len(parameters)
    beta = model.fixed.to_coefficients @ fit.solution.beta * model.y_scale
    std = np.sqrt(np.diag(_fixed_cov(model, fit.solution)))
    return [
        float(beta[p] / std[p])
        if isinstance(p, int)
        else parameter_value(model, p, fit.solution.variances)
        for p in parameters
    ]


def parameter_value(model: FittedModel, parameter: Parameter, variances: Variances) -> float:
    """A standard deviation or correlation, in the user's units.

    Parameters
    ----------
    model : FittedModel
        A fit, for its units.
    parameter : Parameter
        Which one.
    variances : Variances
        In internal units.

    Returns
    -------
    float
        NaN for a correlation beside a standard deviation of zero.
    """
    if parameter.component is None:
        return float(np.sqrt(variances.sigma2 * model.sigma2_scale))
    k, component = model.component(parameter.component)
    assert k is not None
    S = variances.Sigma[k]
    at = list(parameter.coefficients)
    T = component.transform[at]
    Sigma = T @ S @ T.T
    largest = np.linalg.eigvalsh(S)[-1] * np.sum(T**2, axis=1)
    variance = np.where(np.diag(Sigma) > RANK_TOLERANCE * largest, np.diag(Sigma), 0.0)
    if len(at) == 1:
        return float(np.sqrt(variance[0]) * model.y_scale)
    if not np.all(variance > 0.0):
        return np.nan
    return float(np.clip(Sigma[0, 1] / np.sqrt(variance[0] * variance[1]), -1.0, 1.0))


def bootstrap_interval(
    parameter: Parameter | int, values: Array, estimate: float, std: float, level: float
) -> tuple[float, float]:
    """Interval from the refits that have a value: studentised, or corrected for bias and skewness.

    Equation (23) of docs/theory.md. NaN where fewer than two refits have a value.

    Parameters
    ----------
    parameter : Parameter or int
        A variance parameter, or a coefficient's position.
    values : ndarray of shape (n_resamples,)
        Of the refits, a coefficient's in units of its standard error.
    estimate, std : float
        Of the fit.
    level : float
        Probability.

    Returns
    -------
    tuple of float

    References
    ----------
    Efron (1987), "Better bootstrap confidence intervals", Journal of the American Statistical
    Association 82(397).
    """
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    if isinstance(parameter, int):
        # The draws are symmetric about zero.
        width = float(np.quantile(np.abs(values), level) * std)
        return float(estimate - width), float(estimate + width)
    is_correlation = len(parameter.coefficients) == 2
    acceleration = 0.0 if is_correlation else _skewness(values**2) / 6.0
    z = _bias(values, estimate) + normal_quantile(level) * np.array([-1.0, 1.0])
    bend = 1.0 - acceleration * z
    corrected = np.where(bend > 0.0, z / np.where(bend > 0.0, bend, 1.0), np.inf)
    lower, upper = np.quantile(values, ndtr(_bias(values, estimate) + corrected))
    return float(lower), float(upper)


def _bias(values: Array, estimate: float) -> float:
    """Normal quantile of the estimate among its refits; zero where it is their median."""
    if np.isnan(estimate):
        return 0.0
    tie = TIED * np.max(np.abs(values))
    below, up_to = np.mean(values < estimate - tie), np.mean(values <= estimate + tie)
    # Of an estimate at a boundary, where many refits are too, the quantile closest to the median.
    share = np.clip(0.5, below, up_to)
    return float(ndtri(np.clip(share, 0.5 / len(values), 1.0 - 0.5 / len(values))))


def _skewness(values: Array) -> float:
    """Third standardised moment; zero where the values are equal."""
    centered = values - np.mean(values)
    largest = np.max(np.abs(centered))
    if not largest > 0.0:
        return 0.0
    centered = centered / largest
    return float(np.mean(centered**3) / np.mean(centered**2) ** 1.5)


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


def singular(error: BaseException) -> str:
    """Reason for an interval that ended in one of `NUMBERS_GIVE_OUT`."""
    return f"the equations are singular on the way ({error})"


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
    unit = _scale(coordinates, curve.estimate)
    std = np.sqrt(np.diag(curve.covariance))
    scale = np.where((std > 0) & (std < unit), std, unit)[others]
    is_sd = np.ones(len(curve.estimate), dtype=bool)
    for place in coordinates.places:
        is_sd[place.angles] = False
    # Standard deviations of both signs would also be correlations of the other sign.
    lowest = np.where(is_sd, 0.0, -np.inf)
    if model.freedom.residual:
        lowest[-1] = min(curve.estimate[-1], LEAST_RESIDUAL * np.sqrt(model.sigma2_scale))
    bounds = optimize.Bounds(lowest[others] / scale, np.inf)
    least = _deviance(model, solve(model.variances))
    # Zero is stationary in a standard deviation, whatever the data say.
    off_zero = np.where(is_sd[others], OFF_ZERO * unit[others], -np.inf)
    starts = [np.maximum(curve.estimate[others], off_zero)]
    has_valleys = bool(model.untold) or _is_singular(model)
    if has_valleys:
        angles = ~is_sd[others]
        mirrored, right, wide = starts[0].copy(), starts[0].copy(), unit[others].copy()
        mirrored[angles] = np.pi - mirrored[angles]
        right[angles] = wide[angles] = np.pi / 2
        starts += [mirrored, right, wide]
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

        def search(start: Array) -> Any:
            return optimize.minimize(
                at, start, jac=True, method="L-BFGS-B", bounds=bounds, options=SEARCH
            )

        found = min((search(start / scale) for start in starts), key=lambda result: result.fun)
        stuck = is_sd[others] & (found.x == 0.0)
        if np.any(stuck):
            again = search(np.where(stuck, OFF_ZERO * unit[others] / scale, found.x))
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
        along = (value - float(direction @ model.fixed.offset)) / model.y_scale
        held = hold_combination(model.crossproducts, direction, along)
        fit = estimate_variances(
            prepare(held),
            held,
            model.variances,
            model.freedom,
            method="ml",
            max_iter=PROFILE_ITERATIONS,
            tol=PROFILE_TOLERANCE,
        )
        return fit.deviance - least

    return Zeta(rise, estimate, -np.inf, np.inf, std)


def hold_combination(crossproducts: CrossProducts, direction: Array, value: float) -> CrossProducts:
    """Gram blocks of the model in which ``direction'beta`` is known, with one column less.

    Equation (21) of docs/theory.md.
    """
    r = len(direction)
    move = np.zeros((r + 1, r))
    move[:r, :-1] = linalg.null_space(direction[None])
    move[:, -1] = np.append(-direction * value / (direction @ direction), 1.0)
    terms = tuple(
        replace(term, fixed=np.ascontiguousarray(np.einsum("apl,pr->arl", term.fixed, move)))
        for term in crossproducts.terms
    )
    fixed = move.T @ crossproducts.fixed @ move
    return replace(crossproducts, terms=terms, fixed=fixed, penalty=crossproducts.penalty[:-1])


def _deviance(model: FittedModel, solution: PenalizedSolution) -> float:
    """Criterion in internal units; differences are the user's."""
    return deviance(
        solution,
        dof=model.freedom.dof,
        sum_log_weights=model.crossproducts.sum_log_weights,
        penalty=model.crossproducts.penalty,
    )


@dataclass(frozen=True)
class LikelihoodRatio:
    """Comparison of two nested fits: ``2 (l_large - l_small)`` against chi-square.

    Attributes
    ----------
    statistic : float
        Twice the difference of the log-likelihoods, the larger model's less the smaller's; of
        REML's without ``log|X'WX|``, which only the units of the columns move.
    df : int
        Difference of their numbers of parameters.
    p_value : float
        Of the chi-square distribution. It is too large where the smaller model sets a variance to
        zero, which lies on the boundary: at least twice where this is the only difference. It is
        too small where the smaller model sets fixed coefficients to zero and groups are few: with
        six groups a 5 % test of a coefficient between them errs in 12.6 %. Test single
        coefficients with ``fixed_effects()``, which errs in 5.2 % there.

    References
    ----------
    Self, Liang (1987), "Asymptotic properties of maximum likelihood estimators and likelihood
    ratio tests under nonstandard conditions", Journal of the American Statistical Association
    82(398), for the boundary; Crainiceanu, Ruppert (2004), "Likelihood ratio tests in linear mixed
    models with one variance component", Journal of the Royal Statistical Society B 66(1), for the
    boundary with few groups.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> line = MacKayMixedRegressor().fit(X[["Days"]], y)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> ratio = model.compare(line)
    >>> round(ratio.statistic, 1), ratio.df
    (107.2, 1)
    """

    statistic: float
    df: int
    p_value: float

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of one row.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `statistic`, `df` and `p_value`.

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
        >>> print(model.compare(MacKayMixedRegressor().fit(X[["Days"]], y)).to_frame().round(1))
           statistic  df  p_value
        0      107.2   1      0.0
        """
        columns: dict[str, Column] = {
            "statistic": [self.statistic],
            "df": [self.df],
            "p_value": [self.p_value],
        }
        return make_frame(columns, backend)


def likelihood_ratio(statistic: float, df: int) -> LikelihoodRatio:
    """A statistic of nested fits with its p value."""
    return LikelihoodRatio(statistic, df, float(chdtrc(df, statistic)))


@dataclass(frozen=True)
class VarianceShares:
    """What the variance of y is made of, by the model.

    Attributes
    ----------
    r2_marginal, r2_conditional : float
        Share of fixed features and feature blocks; of these and of the grouping factors. NaN
        without an intercept. The variance of the fixed part is that of its predictions over the
        rows, with the denominator n where R's ``performance`` has n - 1.
    icc : dict of str to float
        Intraclass correlation: share of each factor in the variance that features leave.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> shares = model.explained_variance()
    >>> round(shares.r2_marginal, 3), round(shares.icc["Subject"], 3)
    (0.279, 0.589)
    """

    r2_marginal: float
    r2_conditional: float
    icc: dict[str, float]

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of the shares.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `name`: "r2_marginal", "r2_conditional" or "icc"; `factor`, null but for the
            latter; and `share`.

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
        >>> for row in model.explained_variance().to_frame("polars").rows():
        ...     print(row)
        ('r2_marginal', None, 0.27...)
        ('r2_conditional', None, 0.70...)
        ('icc', 'Subject', 0.58...)
        """
        factors = ["", "", *self.icc]
        columns = {
            "name": ["r2_marginal", "r2_conditional", *["icc"] * len(self.icc)],
            "factor": PartlyKnown(np.array(factors), np.arange(len(factors)) >= 2),
            "share": [self.r2_marginal, self.r2_conditional, *self.icc.values()],
        }
        return make_frame(columns, backend)


def variance_shares(model: FittedModel, *, has_intercept: bool) -> VarianceShares:
    """Shares of variance over the (weighted) rows; with slopes their mean over the rows.

    Parameters
    ----------
    model : FittedModel
        The fit.
    has_intercept : bool
        Whether the last internal column is the intercept, which the mean is taken of.

    Returns
    -------
    VarianceShares

    References
    ----------
    Nakagawa, Schielzeth (2013), "A general and simple method for obtaining R2 from generalized
    linear mixed-effects models", Methods in Ecology and Evolution 4; Johnson (2014), the same 5.
    """
    n, r = model.crossproducts.n, len(model.beta)
    of_fixed = np.nan
    if has_intercept:
        # In units of y, whose squares are within the range of floating point numbers.
        features = model.fixed.offset[:-1] / model.y_scale + model.beta[:-1]
        gram = _centered_gram(model.crossproducts.fixed[:r, :r]) / n
        of_fixed = max(float(features @ gram @ features), 0.0)
    of_blocks, of_factors = 0.0, {}
    for k, component in enumerate(model.active):
        term = model.crossproducts.terms[k]
        own = term.own.sum(axis=2) / n
        if has_intercept and isinstance(component, BlockComponent):
            own = np.maximum(own - np.sum((term.fixed[0, r - 1] / n) ** 2), 0.0)
        variance = float(np.sum(own * model.variances.Sigma[k]))
        if isinstance(component, BlockComponent):
            of_blocks += variance
        else:
            of_factors[component.name] = variance
    random = sum(of_factors.values())
    of_features = of_fixed + of_blocks
    sigma2 = model.sigma2 / model.y_scale**2
    whole = of_features + random + sigma2
    return VarianceShares(
        r2_marginal=_share(of_features, whole),
        r2_conditional=_share(of_features + random, whole),
        icc={name: _share(value, random + sigma2) for name, value in of_factors.items()},
    )


def _centered_gram(gram: Array) -> Array:
    """Gram matrix of the columns before the last, the intercept, less their means."""
    of_intercept = gram[:-1, -1]
    return np.asarray(gram[:-1, :-1] - np.outer(of_intercept, of_intercept) / gram[-1, -1])


def _share(part: float, whole: float) -> float:
    """A ratio; NaN where there is nothing to share."""
    return part / whole if whole != 0.0 else np.nan
