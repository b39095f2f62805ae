"""Tools that read `coef_` by position are right, or refuse: never silently wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import StackingRegressor
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, Ridge

from sklearn_mackay import MacKayMixedRegressor

ROUNDING = 1e-12  # one sum in another order
RIDGE_RTOL = 1e-8  # of coefficients by two solvers; 3e-15 was seen
LINEAR_RTOL = 1e-9  # of differences of predictions, by their slopes
SIZES = {"a": 3.0, "b": 1.0, "c": 0.3, "d": 0.0}  # of the coefficients; their errors are about 0.06
BETWEEN = 0.6  # separates those of a and b from those of c and d


@pytest.fixture
def data(rng) -> tuple[pd.DataFrame, np.ndarray]:
    """Four features, of which the first is the strongest, and eight groups."""
    n = 300
    group = rng.integers(0, 8, n)
    X = pd.DataFrame(rng.normal(size=(n, 4)), columns=list(SIZES))
    y = X.to_numpy() @ list(SIZES.values()) + rng.normal(size=8)[group] + rng.normal(size=n)
    return X.assign(g=group), y


def importance(model: MacKayMixedRegressor) -> np.ndarray:
    """Size of each coefficient; of a column without one, more than any."""
    size = np.abs(model.coef_)
    return np.nan_to_num(size, nan=2.0 * np.nanmax(size))


PLACES = {"first": list("gabcd"), "middle": list("abgcd"), "last": list("abcdg")}
GROUPS = {
    "name": lambda X: "g",
    "position": lambda X: [X.columns.get_loc("g")],
    "from the end": lambda X: [X.columns.get_loc("g") - X.shape[1]],
    "mask": lambda X: (X.columns == "g").tolist(),
    "callable": lambda X: lambda _: [X.columns.get_loc("g")],
}


@pytest.mark.parametrize("order", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_every_column_has_an_entry_in_the_order_of_X(data, order, groups):
    X, y = data[0][order], data[1]
    model = MacKayMixedRegressor(groups=groups(X)).fit(X, y)
    expected = MacKayMixedRegressor().fit(X.drop(columns="g"), y, groups=X["g"])
    found = pd.Series(model.coef_, model.feature_names_in_)
    assert model.fixed_features_.tolist() == order
    assert np.isnan(found["g"])
    assert np.isnan(model.coef_std_[order.index("g")])
    assert_allclose(found[list(SIZES)], expected.coef_, rtol=ROUNDING)
    std = pd.Series(model.coef_std_, model.fixed_features_)[list(SIZES)]
    assert_allclose(std, expected.coef_std_, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("parameters", "without"),
    [
        ({"groups": "g"}, "g"),
        ({"groups": "g", "fixed_features": ["c", "a"]}, "bdg"),
        ({"groups": "g", "fixed_features": ["c"], "feature_blocks": {"B": ["b", "a"]}}, "dg"),
        ({"groups": "g", "fixed_features": ["c"], "random_slopes": {"g": ["a"]}}, "abdg"),
        ({"groups": "g", "alpha": "auto"}, "g"),
        ({"groups": "g", "fixed_features": [], "fit_intercept": False}, "abcdg"),
        ({"groups": [("g", "h")]}, "gh"),
    ],
    ids=["all", "some", "block", "slope", "penalised", "none", "interaction"],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_columns_without_one_coefficient_are_nan(data, parameters, without, outputs):
    X, y = data
    if any("h" in part for part in parameters["groups"]):
        X = X.assign(h=np.arange(len(X)) % 5)
    target = y if outputs == 1 else np.column_stack([y, 1.0 - y])
    model = MacKayMixedRegressor(**parameters).fit(X, target)
    missing = np.isin(X.columns, list(without))
    for values in (model.coef_, model.coef_std_):
        assert values.shape == (*target.shape[1:], X.shape[1])
        assert_array_equal(np.isnan(values), np.broadcast_to(missing, values.shape))
    # What there is predicts: the fixed part is the product with it.
    parts = model.predict_components(X)
    fixed = sum(part for name, part in parts.items() if name not in model.groups_)
    expected = X.loc[:, ~missing].to_numpy() @ model.coef_[..., ~missing].T + model.intercept_
    assert_allclose(fixed, expected, atol=ROUNDING * np.max(np.abs(y)))


def test_without_groups_coef_is_that_of_ridge(data):
    X, y = data
    model = MacKayMixedRegressor(alpha=1.0).fit(X, y)
    assert_allclose(model.coef_, Ridge(1.0).fit(X, y).coef_, rtol=RIDGE_RTOL)


# Selectors.


@pytest.mark.parametrize("selector", [RFE, RFECV])
@pytest.mark.parametrize("groups", [[2], [-3], [False, False, True, False, False]])
def test_recursive_elimination_refuses(data, selector, groups):
    X, y = data[0][PLACES["middle"]].to_numpy(), data[1]
    with pytest.raises(ValueError, match="Input contains NaN"):
        selector(MacKayMixedRegressor(groups=groups)).fit(X, y)
    with pytest.raises(ValueError, match="Input contains NaN"):
        selector(MacKayMixedRegressor(groups=groups)).fit(X, np.column_stack([y, y**2]))


@pytest.mark.parametrize("selector", [RFE, RFECV, SequentialFeatureSelector])
@pytest.mark.filterwarnings("ignore:Scoring failed:UserWarning")
@pytest.mark.filterwarnings("ignore:Estimator fit failed:sklearn.exceptions.FitFailedWarning")
def test_selectors_that_make_arrays_of_frames_are_refused_by_names(data, selector):
    X, y = data
    with pytest.raises(ValueError, match="X has no column names|All the 5 fits failed"):
        selector(MacKayMixedRegressor(groups="g")).fit(X, y)


@pytest.mark.parametrize(("place", "groups"), [("first", [0]), ("last", [-1])])
@pytest.mark.parametrize("selector", [RFE, RFECV])
def test_recursive_elimination_with_importances(data, place, groups, selector):
    order = PLACES[place]
    X, y = data[0][order].to_numpy(), data[1]
    model = MacKayMixedRegressor(groups=groups)
    size = {"n_features_to_select": 3} if selector is RFE else {"min_features_to_select": 3}
    found = selector(model, importance_getter=importance, **size).fit(X, y)
    kept = {name for name, kept in zip(order, found.support_, strict=True) if kept}
    assert {"g", "a", "b"} <= kept
    assert "d" not in kept or selector is RFECV
    assert found.ranking_[order.index("d")] == max(found.ranking_)


@pytest.mark.parametrize("order", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("prefit", [True, False])
def test_select_from_model_by_a_number(data, order, prefit):
    X, y = data[0][order], data[1]
    model = MacKayMixedRegressor(groups="g")
    if prefit:
        model.fit(X, y)
    selector = SelectFromModel(model, threshold=BETWEEN, prefit=prefit)
    selected = selector.fit(X, y).get_feature_names_out()
    assert sorted(selected) == ["a", "b", "g"]


def test_select_from_model_of_several_outputs(data):
    X, y = data
    selector = SelectFromModel(MacKayMixedRegressor(groups="g"), threshold=2.0 * BETWEEN)
    selected = selector.fit(X, np.column_stack([y, -y])).get_feature_names_out()
    assert sorted(selected) == ["a", "b", "g"]


@pytest.mark.parametrize("threshold", [None, "mean", "median", "1.5*mean"])
def test_a_threshold_from_all_coefficients_selects_nothing(data, threshold):
    selector = SelectFromModel(MacKayMixedRegressor(groups="g"), threshold=threshold).fit(*data)
    assert np.isnan(selector.threshold_)
    assert selector.get_support().all()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"threshold": "median"}, "abg"),
        ({"threshold": "mean"}, "ag"),
        ({"threshold": -np.inf, "max_features": 2}, "ag"),
        ({"max_features": 3}, "ag"),
    ],
)
def test_select_from_model_with_importances(data, options, kept):
    model = MacKayMixedRegressor(groups="g")
    selector = SelectFromModel(model, importance_getter=importance, **options).fit(*data)
    assert sorted(selector.get_feature_names_out()) == list(kept)


def test_sequential_selection_warns_where_a_position_is_another_column(data):
    X, y = data[0][PLACES["first"]].to_numpy(), data[1]
    with pytest.warns(UserWarning, match="has as many levels as rows"):
        SequentialFeatureSelector(MacKayMixedRegressor(groups=[0])).fit(X, y)


# Tools that predict.


def test_permutation_importance_ranks_the_strongest_first(data):
    X, y = data
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=3, random_state=0).importances_mean
    by_name = pd.Series(found, X.columns).sort_values(ascending=False)
    assert by_name.index[0] == "a"
    assert by_name["g"] > by_name["d"]


def test_partial_dependence_of_features_and_groups(data):
    X, y = data[0].assign(g="level " + data[0]["g"].astype(str)), data[1]
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    line = partial_dependence(model, X, ["a"], grid_resolution=5)
    slopes = np.diff(line["average"][0]) / np.diff(line["grid_values"][0])
    assert_allclose(slopes, model.coef_[0], rtol=LINEAR_RTOL)
    levels = partial_dependence(model, X, ["g"], categorical_features=["g"])
    assert levels["grid_values"][0].tolist() == model.group_levels_["g"].tolist()
    differences = levels["average"][0] - levels["average"][0].mean()
    effects = model.random_effects_["g"][:, 0]
    assert_allclose(differences, effects - effects.mean(), rtol=0, atol=ROUNDING * 10)


def test_stacking_of_a_frame_with_names(data):
    X, y = data
    model = MacKayMixedRegressor(groups="g")
    stack = StackingRegressor([("mixed", model)], LinearRegression(), cv=3).fit(X, y)
    assert_allclose(stack.transform(X)[:, 0], clone(model).fit(X, y).predict(X), rtol=ROUNDING)
    assert stack.final_estimator_.coef_[0] > 0.9


@pytest.fixture
def shap():
    return pytest.importorskip("shap")


@pytest.mark.filterwarnings("ignore")  # those of shap and what it imports are not ours
def test_shap_of_coefficients_is_nan_for_groups_and_right_for_features(data, shap):
    X, y = data[0][PLACES["middle"]].to_numpy(dtype=float), data[1]
    model = MacKayMixedRegressor(groups=[2]).fit(X, y)
    for explainer in (shap.LinearExplainer(model, X), shap.Explainer(model, X)):
        found = explainer(X[:5])
        assert np.isnan(found.values[:, 2]).all()
        assert np.isnan(found.base_values).all()
        # The background is a sample of the rows: differences of two rows do not depend on it.
        differences = np.diff(X[:5], axis=0) * model.coef_
        assert_allclose(np.diff(found.values, axis=0), differences, rtol=LINEAR_RTOL)


@pytest.mark.filterwarnings("ignore")
def test_shap_of_predictions_adds_up(data, shap):
    X, y = data
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    found = shap.Explainer(model.predict, X, seed=0)(X[:5])
    total = found.values.sum(axis=1) + found.base_values
    assert_allclose(total.astype(float), model.predict(X[:5]), rtol=LINEAR_RTOL)
    assert np.all(np.ptp(found.values, axis=0)[[0, 1, 4]] > 0.1)
