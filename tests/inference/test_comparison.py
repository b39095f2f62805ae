"""Comparisons of fits: what moves no statistic, what is no nested pair, and what is other data."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy
from sklearn_mackay.inference.comparison import mark_columns, standardise

STATISTIC_ATOL = 1e-6  # two optima, found to 1e-7 of the deviance
RTOL = 1e-10  # of a sum over some hundred rows
CANCELLED_RTOL = 1e-7  # squares of 1e3 cancel to those of 2
CONSTANT_ATOL = 1e-12  # of the standard deviation of a column of sevens: rounding
SLOPES = {"random_slopes": {"Subject": ["Days"]}}
FIXED = {"fixed_features": ["Days"]}


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray]:
    X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    rng = np.random.default_rng(0)
    X = X.assign(
        z=rng.normal(size=180), u=rng.normal(size=180), item=[f"i{i}" for i in np.arange(180) % 7]
    )
    return X, np.asarray(y, dtype=float)


def fit(data, X=None, y=None, weights=None, groups="Subject", **parameters):
    X, y = data[0] if X is None else X, data[1] if y is None else y
    return MacKayMixedRegressor(groups, **{**FIXED, **parameters}).fit(X, y, weights)


@pytest.fixture(scope="module")
def pair(data) -> tuple[MacKayMixedRegressor, MacKayMixedRegressor]:
    return fit(data), fit(data, **SLOPES)


def assert_same(ratio, expected) -> None:
    assert ratio.df == expected.df
    assert_allclose(ratio.statistic, expected.statistic, atol=STATISTIC_ATOL)
    assert_allclose(ratio.p_value, stats.chi2.sf(ratio.statistic, ratio.df), rtol=RTOL)


# What moves nothing.

UNITS = {
    "thousandths": lambda days: 1000 * days,
    "millions": lambda days: 1e-6 * days,
    "reversed": lambda days: -days,
    "centred": lambda days: days - 4.5,
    "far away": lambda days: days + 1e5,
}


@pytest.mark.parametrize("change", UNITS.values(), ids=UNITS)
def test_units_of_a_fixed_column_move_nothing(data, pair, change):
    small, large = pair
    expected = large.compare(small)
    X = data[0].assign(Days=change(data[0]["Days"]))
    assert_same(large.compare(fit(data, X)), expected)
    assert_same(fit(data, X, **SLOPES).compare(small), expected)


def test_a_basis_of_the_fixed_part_moves_nothing(data):
    days = data[0]["Days"]
    X = data[0].assign(a=days, b=days**2)
    Y = data[0].assign(p=days - 3 * days**2 + 2, q=days**2 - 9 * days)
    large = fit(data, X, fixed_features=["a", "b"], **SLOPES)
    expected = large.compare(fit(data, X, fixed_features=["a", "b"]))
    assert_same(large.compare(fit(data, Y, fixed_features=["p", "q"])), expected)


def test_contrasts_with_and_without_an_intercept_are_one_space(data):
    items = pd.get_dummies(data[0]["item"], dtype=float)
    X = pd.concat([items, data[0]], axis=1)
    treatment = {"fixed_features": [*items.columns[1:], "Days"]}
    cells = {"fixed_features": [*items.columns, "Days"], "fit_intercept": False}
    small = fit(data, X, **treatment)
    expected = fit(data, X, **treatment, **SLOPES).compare(small)
    assert_same(fit(data, X, **cells, **SLOPES).compare(small), expected)
    with pytest.warns(UserWarning, match="combinations of the others"):
        redundant = fit(data, X, fixed_features=cells["fixed_features"], **SLOPES)
    assert_same(redundant.compare(small), expected)


def test_rows_in_another_order_are_the_same_data(data, pair):
    small, large = pair
    order = np.random.default_rng(1).permutation(180)
    assert_same(large.compare(fit(data, data[0].iloc[order], data[1][order])), large.compare(small))


def test_labels_and_names_may_differ(data, pair):
    small, large = pair
    X = data[0].assign(Subject=data[0]["Subject"].astype(int), item=0)
    assert_same(large.compare(fit(data, X)), large.compare(small))
    renamed = X.rename(columns={"Days": "d", "Subject": "person"})
    other = fit(data, renamed, groups="person", fixed_features=["d"])
    assert_same(large.compare(other), large.compare(small))
    by_array = MacKayMixedRegressor().fit(X[["Days"]].to_numpy(), data[1], groups=X["Subject"])
    assert_same(large.compare(by_array), large.compare(small))


def test_names_may_differ_under_ml(data):
    small, large = (fit(data, method="ml", fixed_features=f) for f in (["Days"], ["Days", "z"]))
    other = fit(data, data[0].rename(columns={"Days": "d"}), method="ml", fixed_features=["d"])
    assert_same(large.compare(other), large.compare(small))


def test_frequency_weights_are_repeated_rows(data):
    weights = np.random.default_rng(2).integers(1, 4, 180)
    X, y = (np.repeat(part, weights, axis=0) for part in (data[0], data[1]))
    repeated = pd.DataFrame(X, columns=data[0].columns)
    repeated = repeated.astype({"Days": float, "z": float})
    small, large = fit(data, weights=weights), fit(data, weights=weights, **SLOPES)
    assert_same(large.compare(fit(data, repeated, y)), large.compare(small))


def test_the_unit_of_precision_weights_moves_nothing(data):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 180)
    small, large = (
        fit(data, weights=c * weights, weight_type="precision", **slopes)
        for c, slopes in ((1.0, {}), (10.0, SLOPES))
    )
    expected = large.compare(fit(data, weights=10 * weights, weight_type="precision"))
    assert_same(large.compare(small), expected)


@pytest.mark.parametrize("unit", [1e-140, 1e-80, 1e80, 1e140])
def test_the_unit_of_both_responses_moves_nothing(data, pair, unit):
    small, large = (fit(data, y=unit * data[1], **slopes) for slopes in ({}, SLOPES))
    assert_same(large.compare(small), pair[1].compare(pair[0]))


def test_a_copy_is_compared_like_the_fit(pair):
    small, large = pair
    expected = large.compare(small)
    copied = [pickle.loads(pickle.dumps(model)) for model in pair]
    assert copied[1].compare(copied[0]) == expected
    read = [MacKayMixedRegressor.from_json(model.to_json()) for model in pair]
    with pytest.raises(ValueError, match="read from JSON text does not know its data"):
        read[1].compare(small)
    with pytest.raises(ValueError, match="read from JSON text does not know its data"):
        large.compare(read[0])


def test_parameters_set_after_the_fit_do_not_matter(data, pair):
    small, large = fit(data), pair[1]
    expected = large.compare(small)
    small.set_params(method="ml", alpha=3.0, weight_type="precision", fit_intercept=False)
    assert large.compare(small) == expected


def test_a_smaller_model_with_the_same_likelihood_has_a_statistic_of_zero(data):
    """Effects that are orthogonal to y: the variance is zero and the fits are equal."""
    X = pd.DataFrame({"g": np.repeat(np.arange(8), 5)})
    y = np.random.default_rng(4).normal(size=40)
    y -= pd.Series(y).groupby(X["g"]).transform("mean").to_numpy()
    model = MacKayMixedRegressor("g").fit(X, y)
    assert model.singular_
    ratio = model.compare(MacKayMixedRegressor(fixed_features=[]).fit(X, y))
    assert_allclose(ratio.statistic, 0.0, atol=STATISTIC_ATOL)
    assert ratio.df == 1
    assert ratio.p_value > 0.99


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_statistic_is_that_of_the_likelihoods_where_units_agree(data, method):
    small, large = (fit(data, method=method, **slopes) for slopes in ({}, SLOPES))
    expected = 2 * (large.log_likelihood_ - small.log_likelihood_)
    assert_allclose(large.compare(small).statistic, expected, rtol=RTOL)
    assert_allclose(small.compare(large).statistic, expected, rtol=RTOL)


# Nested pairs, and others.

NESTED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "no factor": ({"groups": None}, {}, 1),
    "another factor": ({}, {"groups": ["Subject", "item"]}, 1),
    "interaction": ({}, {"groups": ["Subject", ("Subject", "item")]}, 1),
    "turned interaction": (
        {"groups": [("item", "Subject")]},
        {"groups": ["Subject", ("Subject", "item")]},
        1,
    ),
    "diagonal in full": ({"covariance": "diagonal", **SLOPES}, SLOPES, 1),
    "slope without intercept": (
        {"random_slopes": {"Subject": {"slopes": ["Days"], "intercept": False}}},
        SLOPES,
        2,
    ),
    "held in free": ({"fixed_variances": {"Subject": [600.0, 30.0]}, **SLOPES}, SLOPES, 3),
    "held in both": (
        {"fixed_variances": {"Subject": 900.0}},
        {"groups": ["Subject", "item"], "fixed_variances": {"Subject": 900.0}},
        1,
    ),
    "residual held": ({"fixed_variances": {"residual": 900.0}}, {}, 1),
    "feature": ({"method": "ml"}, {"method": "ml", "fixed_features": ["Days", "z"]}, 1),
    "intercept": ({"method": "ml", "fit_intercept": False}, {"method": "ml"}, 1),
    "no feature": ({"method": "ml", "fixed_features": []}, {"method": "ml"}, 1),
    "block": (
        {"groups": None, "feature_blocks": {"b": ["z", "u"]}},
        {"feature_blocks": {"b": ["z", "u"]}},
        1,
    ),
    "block beside factor": ({}, {"feature_blocks": {"b": ["z", "u"]}}, 1),
    "automatic penalty": (
        {"groups": None, "alpha": "auto"},
        {"alpha": "auto"},
        1,
    ),
    "penalty": ({"groups": None, "alpha": 2.0}, {"alpha": 2.0}, 1),
}


@pytest.mark.parametrize(("small", "large", "df"), NESTED.values(), ids=NESTED)
def test_nested_pairs_are_compared(data, small, large, df):
    small, large = fit(data, **small), fit(data, **large)
    ratio = small.compare(large)
    assert ratio.df == df
    assert ratio.statistic >= 0.0
    expected = 2 * (large.log_likelihood_ - small.log_likelihood_)
    assert_allclose(ratio.statistic, expected, atol=STATISTIC_ATOL)


ITEM = {"groups": ["Subject", "item"]}
ML = {"method": "ml"}
NOT_NESTED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "factor": (
        {"groups": "item"},
        SLOPES,
        "lacks grouping factor 'item' of the other",
    ),
    "slope": (SLOPES, {"random_slopes": {"Subject": ["z", "u"]}}, "random slope 'Days' of 'Sub"),
    "random intercept": (
        {},
        {"random_slopes": {"Subject": {"slopes": ["Days", "z"], "intercept": False}}},
        "the random intercept of 'Subject'",
    ),
    "feature": ({**ML}, {**ML, "fixed_features": ["z", "u"]}, "lacks feature 'Days'"),
    "intercept": (
        {**ML, "fixed_features": []},
        {**ML, "fit_intercept": False, "fixed_features": ["Days", "z"]},
        "lacks the intercept",
    ),
    "covariances": (
        SLOPES,
        {**ITEM, "covariance": "diagonal", "random_slopes": {"Subject": ["Days"], "item": ["z"]}},
        "the covariances of 'Subject'",
    ),
    "held variance": (
        {},
        {**ITEM, "fixed_variances": {"Subject": 900.0}, "random_slopes": {"item": ["Days"]}},
        "lacks the variance of 'Subject'",
    ),
    "held residual": (
        {},
        {**SLOPES, "fixed_variances": {"residual": 600.0}},
        "lacks the variance of 'residual'",
    ),
    "block": (
        {"groups": None, "feature_blocks": {"b": ["z", "u"]}},
        SLOPES,
        "lacks feature block 'b'",
    ),
    "fixed in block": ({**ML}, {**ML, **SLOPES, "alpha": "auto"}, "lacks feature 'Days'"),
}


@pytest.mark.parametrize(("small", "large", "message"), NOT_NESTED.values(), ids=NOT_NESTED)
def test_what_the_larger_fit_lacks_is_named(data, small, large, message):
    small, large = fit(data, **small), fit(data, **large)
    for one, other in ((small, large), (large, small)):
        with pytest.raises(ValueError, match=message):
            one.compare(other)


def test_a_moved_slope_is_another_uncorrelated_model(data):
    moved = data[0].assign(Days=data[0]["Days"] - 4.5)
    small = fit(data, covariance="diagonal", **SLOPES)
    with pytest.raises(ValueError, match="the zero of random slope 'Days' of 'Subject'"):
        fit(data, moved, groups=["Subject", "item"], covariance="diagonal", **SLOPES).compare(small)
    full = fit(data, moved, **SLOPES)
    assert_same(full.compare(small), fit(data, **SLOPES).compare(small))


def test_penalised_features_are_the_same_in_the_same_unit_only(data):
    small = fit(data, groups=None, alpha=2.0)
    moved = data[0].assign(Days=10 * data[0]["Days"])
    with pytest.raises(ValueError, match="feature 'Days' in its unit"):
        fit(data, moved, alpha=2.0).compare(small)
    with pytest.raises(ValueError, match="the value zero of the penalised feature 'z'"):
        fit(data, alpha=2.0, fixed_features=["Days", "z"]).compare(small)


@pytest.mark.parametrize(("x", "z"), [("z", "u"), ("Days", "u")])
def test_reml_fits_with_other_fixed_spaces_are_not_compared(data, x, z):
    large = fit(data, fixed_features=[x, z], **SLOPES)
    with pytest.raises(ValueError, match="REML fits with different fixed parts"):
        large.compare(fit(data))
    with pytest.raises(ValueError, match="REML fits with different fixed parts"):
        fit(data, fixed_features=[z], **SLOPES).compare(fit(data))


def test_a_lower_likelihood_of_the_larger_fit_is_told(data, pair):
    with pytest.warns(UserWarning, match="did not converge"):
        early = fit(data, initial_variances={"Subject": [1e-4, 1e-4]}, max_iter=1, **SLOPES)
    assert early.log_likelihood_ < pair[0].log_likelihood_
    with pytest.raises(ValueError, match="has the lower likelihood, the statistic is -"):
        early.compare(pair[0])


@pytest.mark.filterwarnings("ignore:The model fits y exactly")
def test_exact_fits_have_no_likelihood_to_compare(data):
    y = 2.0 * data[0]["Days"].to_numpy()
    with pytest.raises(ValueError, match="residual variance is zero"):
        fit(data, y=y, **SLOPES).compare(fit(data, y=y))


# Other data.


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("slopes", [{}, SLOPES], ids=["intercepts", "slopes"])
def test_columns_shuffled_against_y_are_told(data, method, slopes):
    large = fit(data, method=method, groups=["Subject", "item"], **slopes)
    order = np.random.default_rng(5).permutation(180)
    shuffled = data[0].iloc[order].reset_index(drop=True)
    told = "The fits saw different data"
    with pytest.raises(ValueError, match=told):
        large.compare(fit(data, shuffled, method=method))
    with pytest.raises(ValueError, match="the sums of y by level of 'Subject'"):
        large.compare(fit(data, data[0].assign(Subject=shuffled["Subject"]), method=method))
    with pytest.raises(ValueError, match=told):
        large.compare(fit(data, data[0].assign(Days=shuffled["Days"]), method=method))
    with pytest.raises(ValueError, match=told):
        large.compare(fit(data, y=data[1][order], method=method))


def test_a_shuffled_column_is_named_under_ml(data):
    rng = np.random.default_rng(6)
    large = fit(data, method="ml", fixed_features=["Days", "z"])
    with pytest.raises(ValueError, match="the correlation of y with 'Days'"):
        large.compare(fit(data, data[0].assign(Days=rng.permutation(data[0]["Days"])), method="ml"))


def test_a_shuffled_slope_and_a_shuffled_block_are_told(data):
    shuffled = data[0].assign(z=np.random.default_rng(7).permutation(data[0]["z"]))
    slope = {"random_slopes": {"Subject": ["z"]}}
    large = fit(data, groups=["Subject", "item"], **slope)
    with pytest.raises(ValueError, match="the correlation of y with 'z'"):
        large.compare(fit(data, shuffled, **slope))
    block = {"feature_blocks": {"b": ["z", "u"]}}
    with pytest.raises(ValueError, match="what y shares with feature block 'b'"):
        fit(data, **block).compare(fit(data, shuffled, groups=None, **block))


OTHER = {
    "offset": (lambda y: y + 1.0, None, "the mean of y"),
    "unit": (lambda y: y / 1000.0, None, "the mean of y"),
    "spread": (lambda y: y.mean() + 2.0 * (y - y.mean()), None, "the standard deviation of y"),
    "weights": (lambda y: y, np.full(180, 2.0), "the sum of the weights"),
}


@pytest.mark.parametrize(("change", "weights", "what"), OTHER.values(), ids=OTHER)
def test_another_response_is_told(data, pair, change, weights, what):
    other = fit(data, y=change(data[1]), weights=weights)
    with pytest.raises(ValueError, match=f"saw different data: {what} is not the same"):
        pair[1].compare(other)


def test_other_precision_weights_are_told(data):
    weights = np.random.default_rng(8).uniform(0.5, 2.0, 180)
    small, large = (
        fit(data, weights=w, weight_type="precision", **slopes)
        for w, slopes in ((weights, {}), (weights[::-1], SLOPES))
    )
    with pytest.raises(ValueError, match="saw different data"):
        large.compare(small)


def test_an_offset_of_y_far_beyond_its_spread_hides_no_shuffle(data):
    y = 1e9 + data[1]
    order = np.random.default_rng(9).permutation(180)
    small, large = fit(data, y=y), fit(data, y=y, **SLOPES)
    assert_allclose(large.compare(small).df, 2)
    with pytest.raises(ValueError, match="saw different data"):
        large.compare(fit(data, y=y[order]))


# Marks.


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_marks_of_columns_are_weighted_moments(container, offset):
    rng = np.random.default_rng(10)
    X, y, w = rng.normal(offset, 2.0, size=(50, 3)), rng.normal(size=50), rng.uniform(1, 2, 50)
    X[:, 2] = 7.0
    marks = mark_columns(container(X), standardise(y, w))
    mean = np.average(X, axis=0, weights=w)
    sd = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=w))
    cov = np.average((X - mean).T * (y - np.average(y, weights=w)), axis=1, weights=w)
    spread = np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w))
    assert_allclose(marks[0], mean, rtol=RTOL)
    assert_allclose(marks[1], sd, rtol=CANCELLED_RTOL, atol=CONSTANT_ATOL)
    assert_allclose(marks[2, :2], cov[:2] / sd[:2] / spread, rtol=CANCELLED_RTOL)
    assert_array_equal(marks[1:, 2], 0.0)


@pytest.mark.parametrize("unit", [1e-170, 1e170])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_marks_of_columns_in_an_extreme_unit(container, unit):
    rng = np.random.default_rng(11)
    X, response = rng.normal(size=(50, 2)), standardise(rng.normal(size=50), np.ones(50))
    expected, marks = (mark_columns(container(c * X), response) for c in (1.0, unit))
    assert_allclose(marks[:2] / unit, expected[:2], rtol=RTOL)
    assert_allclose(marks[2], expected[2], rtol=RTOL)


def test_what_is_kept_is_as_long_as_the_levels_and_not_as_the_rows(pair):
    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max((longest(part) for part in value.values()), default=0)
        return len(value) if isinstance(value, list | np.ndarray) and np.ndim(value) else 0

    assert longest(pair[0]._marks) == 18


def test_a_reflected_slope_of_an_uncorrelated_model_is_another_model():
    # The variance grows towards t = 1 in one model and towards t = 0 in the other.
    rng = np.random.default_rng(5)
    g, t = np.repeat(np.arange(20), 10), np.tile([0.0, 1.0], 100)
    h = rng.permutation(200) % 10
    y = rng.normal(size=20)[g] * (1 + 2 * t) + rng.normal(size=10)[h] + rng.normal(size=200)
    data = {"g": g, "h": h}
    arguments = {"covariance": "diagonal", "fixed_features": ["t"]}
    small = MacKayMixedRegressor("g", random_slopes={"g": ["t"]}, **arguments)
    small.fit(pd.DataFrame({"t": t, **data}), y)
    large = MacKayMixedRegressor(["g", "h"], random_slopes={"g": ["t"]}, **arguments)
    for column in (t, 5.0 * t, -t):
        large.fit(pd.DataFrame({"t": column, **data}), y)
        assert large.compare(small).df == 1
    large.fit(pd.DataFrame({"t": 1.0 - t, **data}), y)
    with pytest.raises(ValueError, match="lacks the zero of random slope 't' of 'g'"):
        large.compare(small)
