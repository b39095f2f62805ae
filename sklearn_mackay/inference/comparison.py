"""Which fits a likelihood ratio may compare: marks of the data that a fit keeps, and nesting.

A mark is a number that the same data give whatever the units, the labels and the order of the rows,
and that other data give only by accident: the correlation of a column with y, the sums of y by
level, what the fixed part leaves of y. Names say what is meant to be the same, marks whether it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import chdtrc

from .._arrays import Array, Matrix, is_sparse, largest_entry, row_blocks
from ..design.design import Columns
from ..frames.making import Backend, Column, make_frame
from ..frames.options import RESIDUAL, Options
from ..frames.roles import ColumnRoles
from ..frames.tables import Header, Table
from ..gram.crossproducts import CrossProducts
from ..gram.sums import Sums
from ..model.problem import Fitted, Problem
from ..model.statistics import Description

Marks = Mapping[str, Any]

SAME = 1e-8  # of a standard deviation of y, or of a correlation: sums in another order agree
ROUNDING = 1e-13  # of the mean of y, which is subtracted from it
CACHED = 2**16  # numbers of a block of rows that is read several times
NO_NESTED_PAIR = -1e-6  # of a statistic: optima are found to less than this
MONTE_CARLO = 6.0  # standard errors of a statistic that random probes may take from it


class Response(NamedTuple):
    """Share of each row in the weights, and y less its mean in units of its spread, both (n,)."""

    share: Array
    y: Array


def standardise(y: Array, weights: Array) -> Response:
    """Bring a response to mean 0 and standard deviation 1; zeros where it is constant."""
    share = weights / np.sum(weights)
    centered = y - share @ y
    centered = centered / _positive(np.max(np.abs(centered), initial=0.0))
    return Response(share, centered / _positive(np.sqrt(share @ centered**2)))


def mark_columns(columns: Matrix, response: Response) -> Array:
    """Mean, standard deviation, and correlation with the response of columns.

    Parameters
    ----------
    columns : ndarray or sparse array of shape (n, p)
        Numeric columns.
    response : Response
        The response.

    Returns
    -------
    ndarray of shape (3, p)
        The correlation is 0.0 where a column is constant.
    """
    share, p = response.share, columns.shape[1]
    if is_sparse(columns):
        unit = _positive(abs(columns).max(axis=0).toarray().ravel())
        scaled = (columns @ sparse.diags_array(1.0 / unit)).tocsr()
        mean = np.asarray(scaled.T @ share)
        variance = np.asarray(scaled.multiply(scaled).T @ share) - mean**2
        products = np.asarray(scaled.T @ (share * response.y))
    else:
        unit = _positive(largest_entry(columns))
        mean = np.asarray(share @ columns) / unit
        variance, products = np.zeros((2, p))
        for rows in row_blocks(len(columns), p, CACHED):
            centered = columns[rows] / unit - mean
            weighted = centered * share[rows, np.newaxis]
            variance += np.einsum("ij,ij->j", weighted, centered)
            products += response.y[rows] @ weighted
    sd = np.sqrt(np.maximum(variance, 0.0))
    sd = np.where(sd > SAME * np.abs(mean), sd, 0.0)
    correlation = np.where(sd > 0, products / _positive(sd), 0.0)
    return np.array([mean * unit, sd * unit, correlation])


class DataMarks(NamedTuple):
    """Marks of the rows: of columns (3, m), see `mark_columns`, and sums of y by level."""

    columns: Array
    by_level: list[Array]


def mark_rows(table: Table, roles: ColumnRoles, columns: Columns, y: Array) -> DataMarks:
    """Marks of rows in memory.

    Parameters
    ----------
    table : Table
        The user's X.
    roles : ColumnRoles
        What its columns are for.
    columns : Columns
        Those of the model, as the user gave them.
    y : ndarray of shape (n,)
        Response on the rows that count.

    Returns
    -------
    DataMarks
    """
    response = standardise(y, columns.rows.weights)
    of_columns = [mark_columns(columns.X, response)]
    slopes = _only_slopes(roles)
    if slopes:
        of_columns.append(mark_columns(table.numeric(slopes)[columns.counted], response))
    share_of_y = response.share * response.y
    return DataMarks(
        np.hstack(of_columns),
        [
            np.sort(np.bincount(factor.codes, share_of_y, minlength=factor.n_levels))
            for factor in columns.factors
        ],
    )


def mark_sums(sums: Sums, roles: ColumnRoles) -> DataMarks:
    """The same of sums over rows, about a pivot, of one response.

    Parameters
    ----------
    sums : Sums
        Of the rows.
    roles : ColumnRoles
        What their columns are for.

    Returns
    -------
    DataMarks
    """
    terms = sums.products.terms
    at = {slope: (k, a) for k, of in enumerate(roles.factors) for a, slope in enumerate(of.slopes)}
    places = [at[slope] for slope in _only_slopes(roles)]
    # Sums of products with one, with itself and with y of each column about the pivot.
    FWF, total = sums.products.FWF, sums.products.FWF[0, 0]
    on_one = [*FWF[0, 1:-1], *(np.sum(terms[k].own[0, 1 + a]) for k, a in places)]
    squares = [*np.diag(FWF)[1:-1], *(np.sum(terms[k].own[1 + a, 1 + a]) for k, a in places)]
    on_y = [*FWF[1:-1, -1], *(np.sum(terms[k].ZWF[1 + a, -1]) for k, a in places)]
    shift = [*sums.coordinates.shift[:-1], *(sums.coordinates.of_slopes[k][a] for k, a in places)]
    y_mean, y_sd = FWF[0, -1] / total, _positive(sums.moments.sd[-1])
    mean = np.array(on_one) / total
    sd = np.sqrt(np.maximum(np.array(squares) / total - mean**2, 0.0))
    user_mean = np.array(shift) + mean
    sd = np.where(sd > SAME * np.abs(user_mean), sd, 0.0)
    covariance = np.array(on_y) / total - mean * y_mean
    correlation = np.where(sd > 0, covariance / _positive(sd) / y_sd, 0.0)
    return DataMarks(
        np.array([user_mean, sd, correlation]),
        [np.sort((term.ZWF[0, -1] - y_mean * term.ZWF[0, 0]) / total / y_sd) for term in terms],
    )


def _only_slopes(roles: ColumnRoles) -> list[int]:
    """Columns that are slopes and no fixed features."""
    return [c for c in dict.fromkeys(roles.slopes) if c not in roles.fixed]


def mark_fit(fitted: Fitted, rows: Description, data: DataMarks) -> dict[str, Any]:
    """What a comparison will know of a fit and of its data.

    Parameters
    ----------
    fitted : Fitted
        Problem and optimum.
    rows : Description
        What was fitted.
    data : DataMarks
        Of the rows.

    Returns
    -------
    dict
    """
    return {
        **_mark_model(rows.header, rows.roles, fitted.problem.options, data),
        **_mark_optimum(fitted),
    }


def _mark_model(
    header: Header, roles: ColumnRoles, options: Options, data: DataMarks
) -> dict[str, Any]:
    """What was fitted to which data."""
    features = [header.name(c) for c in roles.fixed]
    return {
        "method": options.method,
        "alpha": options.alpha,
        "weight_type": "frequency" if options.frequency else "precision",
        "intercept": options.fit_intercept,
        "features": features,
        "columns": [*features, *(header.name(c) for c in _only_slopes(roles))],
        "column_marks": data.columns,
        "held": options.held.get(RESIDUAL),
        "factors": {
            factor.name: {
                "intercept": factor.intercept,
                "slopes": list(factor.coefficient_names[int(factor.intercept) :]),
                "diagonal": not options.structures[factor.name].correlates,
                "held": options.held.get(factor.name),
                "sums": sums,
            }
            for factor, sums in zip(roles.factors, data.by_level, strict=True)
        },
        "blocks": {name: {"held": options.held.get(name)} for name in roles.blocks},
    }


def _mark_optimum(fitted: Fitted) -> dict[str, Any]:
    """Moments of y, and what features explain."""
    problem, blocks = fitted.problem, fitted.problem.crossproducts
    output, is_ml = problem.output, problem.options.method == "ml"
    position = {component.name: k for k, component in enumerate(problem.active)}
    return {
        "n": blocks.n,
        "sum_log_weights": blocks.sum_log_weights,
        "mean": output.mean,
        "sd": output.sd,
        "rank": blocks.n_unpenalized,
        "residual": 0.0 if output.is_explained else output.scale,
        "alignments": {
            component.name: _alignment(problem, position[component.name])
            if component.has_term
            else 0.0
            for component in problem.components
            if component.is_feature
        },
        "log_det_fixed": 0.0
        if is_ml
        else _log_det_fixed(blocks) - 2.0 * problem.fixed.log_det_basis,
    }


def _alignment(problem: Problem, k: int) -> float:
    """Correlation of y with a feature block, in units of the block, which no rotation moves."""
    output, blocks = problem.output, problem.crossproducts
    term, n = blocks.terms[k], blocks.n
    # y in the columns of the fixed part, the mean's the last, and the reduced response.
    in_columns = np.append(output.offset, output.scale)
    on_y, squares = in_columns @ term.ZWF[0], float(np.sum(term.own))
    if problem.options.fit_intercept:
        sums = term.ZWF[0, len(in_columns) - 2]
        on_y = on_y - output.mean * sums
        if problem.options.method != "ml":
            squares -= float(sums @ sums) / n
    size = np.sqrt(max(squares, 0.0) * n)
    covariance = float(np.linalg.norm(on_y) / size) if size > 0 else 0.0
    return covariance / max(output.sd, np.finfo(float).tiny)


def _log_det_fixed(crossproducts: CrossProducts) -> float:
    """``log|X'WX|`` of the unpenalised internal columns."""
    r = len(crossproducts.penalty)
    free = slice(r - crossproducts.n_unpenalized, r)
    return float(np.linalg.slogdet(crossproducts.FWF[free, free])[1])


def comparable(
    marks: Mapping[str, Any] | None, *, n_parameters: int, log_likelihood: float, mc_error: float
) -> dict[str, Any]:
    """The marks of a fit, with its likelihood.

    Raises
    ------
    ValueError
        For a fit that has none.
    """
    if marks is None:
        raise ValueError(
            "A fit that was read from JSON text does not know its data: compare the fits "
            "themselves, or pickles of them."
        )
    return {
        **marks,
        "columns": dict(zip(marks["columns"], marks["column_marks"].T, strict=True)),
        "n_parameters": n_parameters,
        "log_likelihood": log_likelihood,
        "mc_error": mc_error,
    }


def _positive(values: Any) -> Any:
    """Divisors: 1.0 in place of zeros."""
    return np.where(np.asarray(values) > 0, values, 1.0)


def order(one: Marks, other: Marks) -> tuple[Marks, Marks]:
    """The smaller fit and the larger one.

    Raises
    ------
    ValueError
        For fits by other criteria, to other data, or with as many parameters.
    """
    methods = one["method"], other["method"]
    if "quick" in methods or (methods[0] == "ml") != (methods[1] == "ml"):
        raise ValueError(
            f"Fits by method={one['method']!r} and method={other['method']!r} cannot be compared: "
            "their likelihoods are not the same."
        )
    if one["alpha"] != other["alpha"] or one["weight_type"] != other["weight_type"]:
        raise ValueError("Fits with different `alpha` or `weight_type` cannot be compared.")
    units = {
        "n": ("the sum of the weights", one["n"]),
        "sum_log_weights": ("the sum of the logarithms of the weights", one["n"]),
        "mean": ("the mean of y", _unit(one)),
        "sd": ("the standard deviation of y", _unit(one)),
    }
    for name, (what, unit) in units.items():
        _require_same(what, one[name] / unit, other[name] / unit, _noise(one))
    if one["n_parameters"] == other["n_parameters"]:
        raise ValueError(
            f"Both fits have {one['n_parameters']} parameters, so that neither is nested in the "
            "other. Compare `aic_`, `bic_` or the log density of `loo_predict`."
        )
    return (one, other) if one["n_parameters"] < other["n_parameters"] else (other, one)


def require_nested(small: Marks, large: Marks) -> None:
    """Refuse a smaller fit that the larger one does not contain.

    Raises
    ------
    ValueError
        Where they saw different data, have different fixed parts under REML, or the larger lacks
        something.
    """
    missing = [
        *_missing_fixed(small, large),
        *_missing_factors(small, large),
        *_missing_blocks(small, large),
        *_missing_freedom(small, large),
    ]
    if missing:
        raise ValueError(
            f"The fit with more parameters lacks {' and '.join(missing)} of the other, so that "
            "neither is nested in the other. Add it there, or compare the log density of "
            "`loo_predict`."
        )


def statistic(small: Marks, large: Marks) -> float:
    """Twice the difference of the log-likelihoods, of REML's less ``log|X'WX|``.

    Equation (25) of docs/theory.md.

    Parameters
    ----------
    small, large : dict
        Marks of the fits.

    Returns
    -------
    float
        Not negative.

    Raises
    ------
    ValueError
        Where the larger fit has the lower likelihood.
    """
    value = 2.0 * (large["log_likelihood"] - small["log_likelihood"])
    value += float(large["log_det_fixed"] - small["log_det_fixed"])
    mc_error = 2.0 * float(np.hypot(small["mc_error"], large["mc_error"]))
    if not value >= NO_NESTED_PAIR - MONTE_CARLO * mc_error:
        raise ValueError(
            f"The fit with more parameters has the lower likelihood, the statistic is {value:.3g}: "
            "the fits are not nested, or one of them is not at its optimum. See `converged_`."
        )
    return max(float(value), 0.0)


def _noise(marks: Marks) -> float:
    """What rounding leaves of a mark in units of the spread of y."""
    return float(SAME + ROUNDING * abs(marks["mean"]) / _unit(marks))


def _unit(marks: Marks) -> float:
    """Spread of y, or the size of a constant one."""
    return float(marks["sd"] or abs(marks["mean"]) or 1.0)


def _require_same(what: str, a: Any, b: Any, noise: float) -> None:
    if np.shape(a) != np.shape(b) or not np.all(np.abs(np.subtract(a, b)) <= noise):
        raise ValueError(
            f"The fits saw different data: {what} is not the same, so that their likelihoods are "
            "not comparable."
        )


def _missing_fixed(small: Marks, large: Marks) -> Iterable[str]:
    """Intercept and features of the smaller fit that the larger one has not."""
    if small["alpha"] > 0.0:
        return _missing_penalised(small, large)
    same_names = set(small["features"]) == set(large["features"])
    same_intercept = small["intercept"] == large["intercept"]
    residuals = small["residual"] / _unit(small), large["residual"] / _unit(small)
    noise = _noise(small)
    if small["rank"] == large["rank"] and abs(residuals[0] - residuals[1]) <= noise:
        return []
    if same_names and same_intercept and small["rank"] == large["rank"]:
        _require_same("what the fixed features leave of y", *residuals, noise)
    if small["method"] != "ml":
        for name in set(small["features"]) & set(large["features"]):
            _require_same_column(name, small, large)
        raise ValueError(
            "REML fits with different fixed parts cannot be compared. Fit both with method='ml'."
        )
    missing = [
        f"feature {name!r}"
        for name in small["features"]
        if _counterpart_column(name, small, large, large["features"]) is None
    ]
    if small["intercept"] and not large["intercept"]:
        missing.insert(0, "the intercept")
    return missing


def _missing_penalised(small: Marks, large: Marks) -> Iterable[str]:
    """Penalised features differ also where their units do."""
    missing = [
        f"feature {name!r} in its unit"
        for name in small["features"]
        if name not in large["features"]
        or abs(small["columns"][name][1] / _positive(large["columns"][name][1]) - 1.0) > SAME
    ]
    more = [name for name in large["features"] if name not in small["features"]]
    missing += [f"the value zero of the penalised feature {name!r}" for name in more]
    for name in small["features"]:
        if name in large["features"]:
            _require_same_column(name, small, large)
    if small["intercept"] and not large["intercept"]:
        missing.insert(0, "the intercept")
    return missing


def _require_same_column(name: str, small: Marks, large: Marks) -> None:
    a, b = (abs(marks["columns"][name][2]) for marks in (small, large))
    _require_same(f"the correlation of y with {name!r}", a, b, _noise(small))


def _counterpart_column(name: str, small: Marks, large: Marks, among: Iterable[str]) -> str | None:
    """Column of the larger fit, by its name or, under another name, by its correlation with y."""
    if name in among:
        _require_same_column(name, small, large)
        return name
    noise, mark = _noise(small), abs(small["columns"][name][2])
    for other in among:
        is_same = abs(mark - abs(large["columns"][other][2])) <= noise
        if other not in small["columns"] and is_same and mark > noise:
            return other
    return None


def _missing_factors(small: Marks, large: Marks) -> Iterable[str]:
    """Factors of the smaller fit, or parts of them, that the larger one has not."""
    for name, factor in small["factors"].items():
        counterpart = _counterpart_factor(name, small, large)
        if counterpart is None:
            yield f"grouping factor {name!r}"
        else:
            yield from _missing_in_factor(name, factor, counterpart, small, large)


def _counterpart_factor(name: str, small: Marks, large: Marks) -> Marks | None:
    """Factor of the larger fit, by its name or, under another name, by its sums of y by level."""
    sums, noise = small["factors"][name]["sums"], _noise(small)
    if name in large["factors"]:
        factor: Marks = large["factors"][name]
        _require_same(f"the sums of y by level of {name!r}", sums, factor["sums"], noise)
        return factor
    for other, factor in large["factors"].items():
        is_new = other not in small["factors"] and np.shape(sums) == np.shape(factor["sums"])
        if is_new and np.all(np.abs(sums - factor["sums"]) <= noise):
            return factor
    return None


def _missing_in_factor(
    name: str, factor: Marks, counterpart: Marks, small: Marks, large: Marks
) -> Iterable[str]:
    slopes, among = factor["slopes"], counterpart["slopes"]
    if factor["intercept"] and not counterpart["intercept"]:
        yield f"the random intercept of {name!r}"
    # With an intercept that may correlate with it a slope may start anywhere.
    is_fixed_zero = counterpart["diagonal"] or not counterpart["intercept"]
    for slope in slopes:
        other = _counterpart_column(slope, small, large, among)
        if other is None:
            yield f"random slope {slope!r} of {name!r}"
        elif is_fixed_zero and not _same_zero(small["columns"][slope], large["columns"][other]):
            yield f"the zero of random slope {slope!r} of {name!r}"
    n_coefficients = len(slopes) + factor["intercept"]
    if counterpart["diagonal"] and not factor["diagonal"] and n_coefficients > 1:
        yield f"the covariances of {name!r}"


def _same_zero(a: Array, b: Array) -> bool:
    """Whether a column has its zero at the same place, in any unit, also a negative one."""
    directions = (1.0, np.sign(a[2] * b[2]) or 1.0)
    ratios = [
        sign * mean / _positive(sd) for sign, (mean, sd, _) in zip(directions, (a, b), strict=True)
    ]
    return bool(abs(ratios[0] - ratios[1]) <= SAME * (1.0 + abs(ratios[0])))


def _missing_blocks(small: Marks, large: Marks) -> Iterable[str]:
    """Feature blocks of the smaller fit that the larger one has not."""
    for name in small["blocks"]:
        if name not in large["blocks"]:
            yield f"feature block {name!r}"
        elif small["intercept"] == large["intercept"]:
            a, b = (marks["alignments"][name] for marks in (small, large))
            _require_same(f"what y shares with feature block {name!r}", a, b, _noise(small))


def _missing_freedom(small: Marks, large: Marks) -> Iterable[str]:
    """Variances of the smaller fit that the larger one holds at another value."""
    for kind in ("factors", "blocks"):
        for name, term in large[kind].items():
            if term["held"] is not None:
                own = small[kind].get(name)
                if own is None or not _same_value(own["held"], term["held"]):
                    yield f"the variance of {name!r}"
    if large["held"] is not None and not _same_value(small["held"], large["held"]):
        yield f"the variance of {RESIDUAL!r}"


def _same_value(value: Any, held: Any) -> bool:
    if value is None or np.shape(value) != np.shape(held):
        return False
    return bool(np.all(np.abs(np.subtract(value, held)) <= SAME * np.max(np.abs(held))))


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


def compare_nested(small: Marks, large: Marks) -> LikelihoodRatio:
    """Test the smaller of two fits against the larger, where it is nested in it."""
    require_nested(small, large)
    return likelihood_ratio(statistic(small, large), large["n_parameters"] - small["n_parameters"])


def likelihood_ratio(statistic: float, df: int) -> LikelihoodRatio:
    """A statistic of nested fits with its p value."""
    return LikelihoodRatio(statistic, df, float(chdtrc(df, statistic)))
