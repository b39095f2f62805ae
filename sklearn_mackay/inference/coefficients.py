"""Tests of single fixed coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from .._arrays import Array
from ..frames.making import Backend, make_frame
from .curvature import Curvature
from .quantiles import check_level


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


@dataclass(frozen=True)
class Coefficients:
    """The fixed effects of one response.

    Attributes
    ----------
    names : tuple of str
        "intercept", also where there is none, then the fixed columns.
    estimate : ndarray of shape (1 + p,)
        In the user's units.
    covariance : ndarray of shape (1 + p, 1 + p)
        NaN for what was dropped.
    has_intercept : bool
        Whether there is an intercept.
    intercept_std : float
        Its standard error.
    beside_blocks : bool
        Whether there are feature blocks, whose coefficients are part of the intercept's error.
    """

    names: tuple[str, ...]
    estimate: Array
    covariance: Array
    has_intercept: bool
    intercept_std: float
    beside_blocks: bool

    @property
    def positions(self) -> dict[str, int]:
        """Where the coefficients of the model stand."""
        first = 0 if self.has_intercept else 1
        return {name: i for i, name in enumerate(self.names) if i >= first}

    def estimate_and_std(self, i: int) -> tuple[float, float]:
        """One coefficient and its standard error."""
        return float(self.estimate[i]), float(np.sqrt(self.covariance[i, i]))


def untested(coefficients: Coefficients) -> FixedEffects:
    """All fixed effects, with degrees of freedom that are not known."""
    std = np.sqrt(np.diag(coefficients.covariance))
    unknown = np.full(len(std), np.nan)
    return FixedEffects(coefficients.names, coefficients.estimate, std, unknown, unknown, unknown)


def tests_of(coefficients: Coefficients, curve: Curvature, y_scale: float) -> FixedEffects:
    """Tests of all fixed effects, the intercept first also where there is none.

    Parameters
    ----------
    coefficients : Coefficients
        What to test.
    curve : Curvature
        In units of `y_scale`.
    y_scale : float
        Unit of y.

    Returns
    -------
    FixedEffects
    """
    tests = coefficient_tests(coefficients.names, coefficients.estimate, curve, y_scale)
    if coefficients.beside_blocks and coefficients.has_intercept:
        return with_intercept_std(tests, coefficients.intercept_std)
    return tests


def shown(tests: FixedEffects, coefficients: Coefficients) -> FixedEffects:
    """The tests without an intercept where there is none."""
    return tests if coefficients.has_intercept else without_intercept(tests)


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
