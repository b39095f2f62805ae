"""Leaving rows, levels and folds out in closed form, against refits at the same variances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crossed_data import Data
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, ShuffleSplit, cross_val_predict

from sklearn_mackay import MacKayMixedRegressor

RTOL = 1e-8  # of a refit's prediction: two factorisations, each good to ten digits
DENSITY_ATOL = 1e-6  # of a log density, which has the squares of those errors; 3e-13 was seen
CROSSED = {"groups": ["a", "b"], "random_slopes": {"a": ["x"]}}
NESTED = {"groups": ["a", ("a", "b")]}
MODELS = {
    "crossed with slope": CROSSED,
    "nested": NESTED,
    "one factor": {"groups": ["a"], "fixed_features": ["x", "z"]},
    "ml": {**CROSSED, "method": "ml"},
    "ridge": {"groups": ["a"], "alpha": 2.0, "fixed_features": ["x", "z"]},
    "block": {"groups": ["a"], "feature_blocks": {"both": ["x", "z"]}, "fixed_features": []},
}


@pytest.fixture
def data() -> Data:
    return Data(np.random.default_rng(0))


def refitted(model, X, y, left_out, weights=None):
    """Mean and standard deviation of the rows of a fold, from a fit to the others."""
    kept = np.setdiff1d(np.arange(len(y)), left_out)
    other = clone(model).set_params(fixed_variances=model.variance_components_)
    other.fit(X.iloc[kept], y[kept], None if weights is None else weights[kept])
    return other.predict(X.iloc[left_out], return_std=True)


def assert_held_out(held, model, X, y, folds, weights=None):
    for fold in folds:
        mean, std = refitted(model, X, y, fold, weights)
        assert_allclose(held.mean[fold], mean, rtol=RTOL, atol=RTOL * np.std(y))
        assert_allclose(held.std[fold], std, rtol=RTOL)
        density = stats.norm(mean, std).logpdf(y[fold])
        assert_allclose(held.log_density[fold], density, rtol=0, atol=DENSITY_ATOL)


@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_loo_is_that_of_refits(data, parameters, weighted):
    X, y = data.frame, data.y
    weights = np.random.default_rng(1).integers(1, 4, len(y)).astype(float) if weighted else None
    model = MacKayMixedRegressor(**parameters).fit(X, y, weights)
    held = model.loo_predict(X, y, weights)
    assert_held_out(held, model, X, y, [[0], [17], [80], [149]], weights)


@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_leaving_levels_out_is_that_of_refits(data, parameters, weighted):
    X, y = data.frame, data.y
    weights = np.random.default_rng(1).integers(1, 4, len(y)).astype(float) if weighted else None
    model = MacKayMixedRegressor(**parameters).fit(X, y, weights)
    held = model.logo_predict(X, y, "a", weights)
    folds = [np.flatnonzero(X["a"] == level) for level in np.unique(X["a"])[::4]]
    assert_held_out(held, model, X, y, folds, weights)


@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
def test_folds_are_those_of_refits(data, parameters):
    X, y = data.frame, data.y
    model = MacKayMixedRegressor(**parameters).fit(X, y)
    splitter = KFold(4, shuffle=True, random_state=0)
    held = model.cv_predict(X, y, splitter)
    assert_held_out(held, model, X, y, [test for _, test in splitter.split(X)])


def test_precision_weights_are_part_of_the_noise(data):
    X, y = data.frame, data.y
    weights = np.random.default_rng(2).uniform(0.3, 3.0, len(y))
    model = MacKayMixedRegressor(**CROSSED, weight_type="precision").fit(X, y, weights)
    held = model.loo_predict(X, y, weights)
    sigma2 = model.variance_components_["residual"]
    for row in (0, 80):
        # The refit's weights have another mean, which only its residual variance's unit knows.
        mean, std = refitted(model, X, y, [row], weights)
        assert_allclose(held.mean[row], mean[0], rtol=RTOL)
        assert_allclose(held.std[row] ** 2, std[0] ** 2 + sigma2 / weights[row] - sigma2, rtol=RTOL)


def test_large_folds_take_the_way_through_the_effects(data, monkeypatch):
    X, y = data.frame, data.y
    model = MacKayMixedRegressor(**CROSSED).fit(X, y)
    expected = model.cv_predict(X, y, 3)
    monkeypatch.setattr("sklearn_mackay.inference.held_out.LARGEST_FOLD", 40)
    held = model.cv_predict(X, y, 3)
    for name in ("mean", "std", "log_density"):
        assert_allclose(getattr(held, name), getattr(expected, name), rtol=RTOL)
    monkeypatch.setattr("sklearn_mackay.inference.held_out.LARGEST_FOLD", 10)
    with pytest.raises(ValueError, match="Use smaller folds"):
        model.cv_predict(X, y, 3)


def test_several_ways_to_leave_the_same_out(data):
    X, y = data.frame, data.y
    model = MacKayMixedRegressor(**CROSSED).fit(X, y)
    loo, by_fold = model.loo_predict(X, y), model.cv_predict(X, y, LeaveOneOut())
    assert_allclose(by_fold.mean, loo.mean, rtol=RTOL)
    by_factor = model.logo_predict(X, y, "a")
    by_group = model.cv_predict(X, y, GroupKFold(12), split_groups=X["a"])
    assert_allclose(by_group.mean, by_factor.mean, rtol=RTOL)
    assert_allclose(by_group.std, by_factor.std, rtol=RTOL)


def test_without_groups_it_is_least_squares_left_out():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(30, 2))
    y = X @ [1.0, -1.0] + rng.normal(size=30)
    held = MacKayMixedRegressor().fit(X, y).loo_predict(X, y)
    assert_allclose(held.mean, cross_val_predict(LinearRegression(), X, y, cv=30), rtol=RTOL)


def test_rows_need_not_be_those_of_the_fit(data):
    X, y = data.frame, data.y
    model = MacKayMixedRegressor(**CROSSED).fit(X, y)
    half = X.iloc[:75].replace({"a": {"a00": "new"}})
    held = model.loo_predict(half, y[:75])
    assert_held_out(held, model, half, y[:75], [[3], [50]])


def test_array_groups(data):
    X, y, labels = data.frame[["x", "z"]], data.y, data.frame["a"]
    by_array = MacKayMixedRegressor().fit(X, y, groups=labels)
    by_column = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "z", "a"]], y)
    expected = by_column.logo_predict(data.frame[["x", "z", "a"]], y, "a")
    held = by_array.logo_predict(X, y, "a", groups=labels)
    assert_allclose(held.mean, expected.mean, rtol=RTOL)
    with pytest.raises(ValueError, match="give `groups` too"):
        by_array.logo_predict(X, y, "a")


def test_a_row_of_weight_zero_is_predicted_like_a_new_one(data):
    X, y, weights = data.frame, data.y, np.ones(150)
    weights[:2] = 0.0
    model = MacKayMixedRegressor(**CROSSED).fit(X, y, weights)
    held = model.loo_predict(X, y, weights)
    mean, std = model.predict(X, return_std=True)
    assert_allclose(held.mean[:2], mean[:2], rtol=RTOL)
    assert_allclose(held.std[:2], std[:2], rtol=RTOL)


def test_a_row_that_alone_determines_an_effect_cannot_be_predicted():
    rng = np.random.default_rng(4)
    X = pd.DataFrame({"x": np.append(1.0, np.zeros(29)), "g": np.repeat(np.arange(6), 5)})
    y = rng.normal(size=30) + rng.normal(size=6)[X["g"]]
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    with pytest.warns(UserWarning, match="1 of the rows cannot be predicted without their fold"):
        held = model.loo_predict(X, y)
    assert_array_equal(np.isnan(held.mean), np.arange(30) == 0)
    with pytest.warns(UserWarning, match="1 of the rows cannot be predicted without their fold"):
        by_level = model.logo_predict(X, y, "g")
    assert_array_equal(np.isnan(by_level.std), np.arange(30) == 0)


def test_a_variance_of_zero_leaves_pooled_predictions():
    X = pd.DataFrame({"g": np.repeat(np.arange(6), 4)})
    y = np.tile([-1.0, 0.0, 0.5, 2.0], 6)
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    assert model.variance_components_["g"] == 0.0
    held = model.loo_predict(X, y)
    assert_allclose(held.mean, (np.sum(y) - y) / 23, rtol=RTOL)


def test_the_fit_is_left_as_it_is(data):
    model = MacKayMixedRegressor(**CROSSED).fit(data.frame, data.y)
    before = dict(vars(model))
    model.loo_predict(data.frame, data.y)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


def test_no_covariance_need_be_kept(data):
    model = MacKayMixedRegressor(**CROSSED).fit(data.frame, data.y)
    expected = model.loo_predict(data.frame, data.y)
    model.set_params(store_covariance=False).fit(data.frame, data.y)
    assert_array_equal(model.loo_predict(data.frame, data.y).std, expected.std)


@pytest.mark.filterwarnings("ignore:The model fits y exactly")
def test_an_exact_fit_has_no_errors_to_speak_of(data):
    frame, y = data.frame[["x", "b"]], 2 * data.frame["x"]
    model = MacKayMixedRegressor(groups="b").fit(frame, y)
    with pytest.raises(ValueError, match="residual variance is zero"):
        model.loo_predict(frame, y)


def test_folds_must_be_a_partition(data):
    model = MacKayMixedRegressor(**CROSSED).fit(data.frame, data.y)
    with pytest.raises(ValueError, match="every row exactly once"):
        model.cv_predict(data.frame, data.y, ShuffleSplit(3, random_state=0))


def test_factor_must_be_known(data):
    model = MacKayMixedRegressor(**CROSSED).fit(data.frame, data.y)
    with pytest.raises(ValueError, match="'x' is no grouping factor"):
        model.logo_predict(data.frame, data.y, "x")
    with pytest.raises(ValueError, match="None is no grouping factor"):
        model.logo_predict(data.frame, data.y, None)


def test_the_users_array_is_left_as_it_is(data):
    X = data.frame[["x", "z"]].to_numpy() + 3.0
    expected = MacKayMixedRegressor().fit(X, data.y, groups=data.a)
    expected = expected.loo_predict(X, data.y, groups=data.a)
    model = MacKayMixedRegressor(copy_X=False).fit(X.copy(), data.y, groups=data.a)
    before = X.copy()
    assert_allclose(model.loo_predict(X, data.y, groups=data.a).mean, expected.mean, rtol=RTOL)
    assert_array_equal(X, before)


def test_several_outputs_are_refused(data):
    model = MacKayMixedRegressor(**CROSSED).fit(data.frame, np.column_stack([data.y] * 2))
    with pytest.raises(ValueError, match="one output"):
        model.loo_predict(data.frame, data.y)


FEW_ROWS = {
    "intercepts": {"groups": "g"},
    "slopes": {"groups": "g", "random_slopes": {"g": ["x"]}},
    "diagonal": {"groups": "g", "random_slopes": {"g": ["x"]}, "covariance": "diagonal"},
    "block": {"groups": "g", "alpha": "auto"},
    "ridge": {"groups": "g", "alpha": 1.0},
    "ml": {"groups": "g", "random_slopes": {"g": ["x"]}, "method": "ml"},
}


@pytest.fixture
def sloped() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(5)
    X = pd.DataFrame({"x": rng.normal(size=80), "g": np.arange(80) % 8})
    b = rng.normal(size=(8, 2))[X["g"]]
    return X, 2.0 + b[:, 0] + (1.0 + b[:, 1]) * X["x"].to_numpy() + rng.normal(size=80)


@pytest.mark.parametrize("parameters", FEW_ROWS.values(), ids=FEW_ROWS)
def test_nothing_is_known_without_all_rows(sloped, parameters):
    """One row, a fold that is all rows, and the only level: no row is left to predict from."""
    X, y = sloped
    model = MacKayMixedRegressor(**parameters).fit(X, y)
    one, level = X.iloc[:1], X[X["g"] == 0]
    ways = {
        "a row": lambda: model.loo_predict(one, y[:1]),
        "a row as a level": lambda: model.logo_predict(one, y[:1], "g"),
        "the only level": lambda: model.logo_predict(level, y[level.index], "g"),
        "all rows": lambda: model.cv_predict(X, y, [(np.arange(0), np.arange(80))]),
    }
    for name, way in ways.items():
        with pytest.warns(UserWarning, match="cannot be predicted without their fold") as record:
            held = way()
        assert len(record) == 1, name
        for values in (held.mean, held.std, held.log_density):
            assert np.isnan(values).all(), name


def test_without_intercept_the_prior_predicts_a_row(sloped):
    X, y = sloped
    model = MacKayMixedRegressor(
        groups="g", random_slopes={"g": ["x"]}, fixed_features=[], fit_intercept=False
    ).fit(X, y)
    held = model.loo_predict(X.iloc[:1], y[:1])
    z = np.array([1.0, X["x"].iloc[0]])
    variance = z @ model.variance_components_["g"] @ z + model.variance_components_["residual"]
    assert_allclose(held.mean, 0.0, atol=RTOL)
    assert_allclose(held.std, np.sqrt(variance), rtol=RTOL)
