"""What scikit-learn asks of an estimator, and its tools around a mixed model."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from coefficients import fixed_errors, fixed_estimates
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor, StackingRegressor
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.fixes import parse_version

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.model.export import SCHEMA

SKLEARN = parse_version(sklearn.__version__)

SAME = 1e-10  # the same numbers; where arrays lie in memory changes the order of sums
RIDGE_RTOL = 1e-8  # Ridge forms X'X where it can, which squares the condition number
RELABELLED = 1e-8  # sums over levels in another order, through a loop that ends at 1e-7
PICKLE_BYTES = 100  # two fits that differ in the number of rows only: digits of floats

DATA = Path(__file__).parent / "data"


def crossed(rng: np.random.Generator, n: int = 240) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of 20 subjects and 8 items, whose effects explain most of y."""
    subject, item = rng.integers(0, 20, n), rng.integers(0, 8, n)
    frame = pd.DataFrame(
        {
            "days": rng.normal(3.0, 2.0, n),
            "subject": [f"s{code:02d}" for code in subject],
            "age": rng.normal(size=n),
            "item": item,
        }
    )
    effect = 2.0 * rng.normal(size=20)[subject] + rng.normal(size=8)[item]
    slope = 0.5 + 0.3 * rng.normal(size=20)[subject]
    return frame, 1.0 + slope * frame["days"].to_numpy() + effect + 0.5 * rng.normal(size=n)


@pytest.fixture
def data(rng) -> tuple[pd.DataFrame, np.ndarray]:
    return crossed(rng)


def crossed_model(**parameters) -> MacKayMixedRegressor:
    return MacKayMixedRegressor(groups=["subject", "item"], **parameters)


def manual_scores(model, X, y, splits) -> list[float]:
    return [
        clone(model).fit(X.iloc[train], y[train]).score(X.iloc[test], y[test])
        for train, test in splits
    ]


def assert_same_fit(a: MacKayMixedRegressor, b: MacKayMixedRegressor, *, rtol: float) -> None:
    """Equal numbers; names and labels may differ."""
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=rtol)
    assert_allclose(a.intercept_, b.intercept_, rtol=rtol)
    assert_allclose(a.coef_, b.coef_, rtol=rtol)
    for x, y in zip(a.variance_components_.values(), b.variance_components_.values(), strict=True):
        assert_allclose(x, y, rtol=rtol, atol=rtol * np.max(np.abs(x)))
    for x, y in zip(a.random_effects_.values(), b.random_effects_.values(), strict=True):
        assert_allclose(x, y, rtol=rtol, atol=rtol * np.max(np.abs(x)))


# scikit-learn's own checks.


def checks():
    for estimator in (
        MacKayMixedRegressor(),
        MacKayMixedRegressor(alpha=1.0),
        MacKayMixedRegressor(groups=[0]),
        MacKayMixedRegressor(method="mackay"),
        MacKayMixedRegressor(groups=[0], method="mackay"),
        MacKayMixedRegressor(alpha="auto"),
        MacKayMixedRegressor(feature_blocks={"first": [0]}),
    ):
        for instance, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            yield pytest.param(instance, check, id=f"{instance}-{name}")


@pytest.mark.filterwarnings("ignore:Grouping factor 'x0' has only 2 levels:UserWarning")
@pytest.mark.filterwarnings("ignore:Grouping factor 'x0' has as many levels as rows:UserWarning")
@pytest.mark.filterwarnings("ignore:The model fits y exactly:UserWarning")
@pytest.mark.filterwarnings("ignore:The fixed features take up:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_labels_and_features_may_be_negative():
    X = np.array([[-3.0, -1.0], [-3.0, -2.5], [-1.0, 0.5], [-1.0, 1.0], [2.0, -1.5], [2.0, 3.0]])
    y = np.array([1.0, 2.0, 5.0, 7.0, -3.0, -4.0])
    model = MacKayMixedRegressor(groups=[0]).fit(X, y)
    assert model.group_levels_["x0"].tolist() == [-3.0, -1.0, 2.0]


def test_tags():
    tags = MacKayMixedRegressor().__sklearn_tags__()
    assert tags.input_tags.sparse
    assert tags.target_tags.required


# Ridge and ordinary least squares are the models without groups.


@pytest.mark.parametrize("shape", [(50, 7), (20, 35)], ids=["tall", "wide"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csr_array])
@pytest.mark.parametrize("alpha", [0.3, 40.0])
def test_without_groups_it_is_ridge(rng, shape, fit_intercept, weighted, container, alpha):
    X = rng.normal(2.0, 1.0, size=shape) * (rng.random(shape) < 0.7)
    y = rng.normal(5.0, 1.0, size=shape[0])
    weights = rng.uniform(0.5, 3.0, size=shape[0]) if weighted else None
    ridge = Ridge(alpha=alpha, fit_intercept=fit_intercept).fit(X, y, sample_weight=weights)
    model = MacKayMixedRegressor(alpha=alpha, fit_intercept=fit_intercept)
    model.fit(container(X), y, sample_weight=weights)
    assert_allclose(model.coef_, ridge.coef_, rtol=RIDGE_RTOL)
    assert_allclose(model.intercept_, ridge.intercept_, rtol=RIDGE_RTOL)
    assert_allclose(model.predict(container(X)), ridge.predict(X), rtol=RIDGE_RTOL)
    assert_allclose(model.score(X, y), ridge.score(X, y), rtol=RIDGE_RTOL)


@pytest.mark.parametrize("shape", [(50, 7), (20, 35)], ids=["tall", "wide"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_without_groups_and_penalty_it_is_least_squares(
    rng, shape, fit_intercept, weighted, container
):
    X = rng.normal(2.0, 1.0, size=shape)
    y = rng.normal(5.0, 1.0, size=shape[0])
    weights = rng.uniform(0.5, 3.0, size=shape[0]) if weighted else None
    ols = LinearRegression(fit_intercept=fit_intercept).fit(X, y, sample_weight=weights)
    model = MacKayMixedRegressor(fit_intercept=fit_intercept)
    model.fit(container(X), y, sample_weight=weights)
    assert_allclose(model.coef_, ols.coef_, rtol=RIDGE_RTOL)
    assert_allclose(model.intercept_, ols.intercept_, rtol=RIDGE_RTOL, atol=RIDGE_RTOL)
    assert_allclose(model.predict(X), ols.predict(X), rtol=RIDGE_RTOL)


def test_least_squares_has_its_classical_numbers(rng):
    # Residual variance, standard errors and ML criterion of a regression, from the textbook.
    X = rng.normal(size=(40, 3))
    y = X @ [1.0, -2.0, 0.0] + rng.normal(size=40)
    A = np.column_stack([np.ones(40), X])
    beta, (rss,), *_ = np.linalg.lstsq(A, y, rcond=None)
    model = MacKayMixedRegressor().fit(X, y)
    std = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * rss / 36)
    assert_allclose(fixed_estimates(model), beta, rtol=RIDGE_RTOL)
    assert_allclose(fixed_errors(model), std, rtol=RIDGE_RTOL)
    assert_allclose(model.variance_components_["residual"], rss / 36, rtol=RIDGE_RTOL)
    ml = MacKayMixedRegressor(method="ml").fit(X, y)
    criterion = 40 * (1 + np.log(2 * np.pi * rss / 40))
    assert_allclose(-2 * ml.log_likelihood_, criterion, rtol=RIDGE_RTOL)
    assert_allclose(ml.aic_, criterion + 2 * 5, rtol=RIDGE_RTOL)


# One model, many ways to hand it over.


def test_a_bare_name_is_a_list_of_one(data):
    X, y = data
    a = MacKayMixedRegressor(groups="subject", fixed_features="days").fit(X, y)
    b = MacKayMixedRegressor(groups=["subject"], fixed_features=["days"]).fit(X, y)
    assert a.groups_ == b.groups_ == ["subject"]
    assert_same_fit(a, b, rtol=SAME)


def test_pandas_polars_and_numpy_give_the_same_fit(data):
    X, y = data
    parameters = {"random_slopes": {"subject": ["days"]}}
    by_position = MacKayMixedRegressor(groups=[1, 3], random_slopes={1: [0]})
    expected = crossed_model(**parameters).fit(X, y)
    polars = crossed_model(**parameters).fit(pl.from_dict(X.to_dict("list")), pl.Series(y))
    numpy = by_position.fit(X.to_numpy(dtype=object), y)
    listed = clone(by_position).fit(X.to_numpy(dtype=object).tolist(), list(y))
    assert expected.groups_ == polars.groups_ == ["subject", "item"]
    assert numpy.groups_ == listed.groups_ == ["x1", "x3"]
    assert not hasattr(numpy, "feature_names_in_")
    for other in (polars, numpy, listed):
        assert_same_fit(expected, other, rtol=SAME)
        assert other.n_features_in_ == 4
    prediction = expected.predict(X)
    assert_allclose(polars.predict(pl.from_dict(X.to_dict("list"))), prediction, rtol=SAME)
    assert_allclose(numpy.predict(X.to_numpy(dtype=object)), prediction, rtol=SAME)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_names_of_columns_are_remembered(data, frame):
    X, y = data
    table = frame(X.to_dict("list"))
    model = crossed_model().fit(table, y)
    assert model.feature_names_in_.tolist() == ["days", "subject", "age", "item"]
    with pytest.raises(ValueError, match="in the same order as they were in fit"):
        model.predict(table[["age", "subject", "days", "item"]])
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- days"):
        model.predict(table[["age", "subject", "item"]])


def test_strings_integers_and_categories_are_labels_alike(data):
    X, y = data
    expected = crossed_model().fit(X, y)
    integers = X.assign(subject=X["subject"].str[1:].astype(int))
    categories = X.assign(
        subject=pd.Categorical(X["subject"], categories=[f"s{i:02d}" for i in range(25)]),
        item=X["item"].astype("category"),
    )
    assert_same_fit(expected, crossed_model().fit(integers, y), rtol=SAME)
    by_dtype = MacKayMixedRegressor(groups="from_dtype").fit(categories, y)
    assert by_dtype.groups_ == ["subject", "item"]
    assert_same_fit(expected, by_dtype, rtol=SAME)
    assert_array_equal(by_dtype.predict(categories), by_dtype.predict(X))
    numeric = MacKayMixedRegressor(groups=[1, 3]).fit(integers.to_numpy(dtype=np.float64), y)
    assert_same_fit(expected, numeric, rtol=SAME)


# Pipelines and model selection.


def scaling_pipeline():
    """The crossed model behind a scaler that keeps the names of the columns."""
    columns = ColumnTransformer(
        [("scale", StandardScaler(), ["days", "age"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    return make_pipeline(columns, crossed_model())


def test_pipeline_with_names(data):
    X, y = data
    pipeline = scaling_pipeline().fit(X, y)
    scaled = X.assign(
        **{name: (X[name] - X[name].mean()) / X[name].std(ddof=0) for name in ("days", "age")}
    )
    direct = crossed_model().fit(scaled, y)
    assert pipeline[-1].fixed_features_[:2].tolist() == ["days", "age"]
    assert_allclose(pipeline.predict(X), direct.predict(scaled), rtol=RIDGE_RTOL)
    assert_allclose(pipeline.score(X, y), direct.score(scaled, y), rtol=RIDGE_RTOL)
    # A change of scale of the fixed features changes neither prediction nor variances.
    assert_allclose(pipeline.predict(X), crossed_model().fit(X, y).predict(X), rtol=RELABELLED)


def test_pipeline_with_positions(data):
    X, y = data
    columns = ColumnTransformer(
        [("scale", StandardScaler(), ["days", "age"])], remainder="passthrough"
    )
    # Positions count in what comes out: days, age, subject, item.
    pipeline = make_pipeline(columns, MacKayMixedRegressor(groups=[2, 3])).fit(X, y)
    assert np.flatnonzero(~np.isnan(pipeline[-1].coef_)).tolist() == [0, 1]
    assert pipeline[-1].groups_ == ["x2", "x3"]
    assert_allclose(pipeline.predict(X), crossed_model().fit(X, y).predict(X), rtol=RELABELLED)


@pytest.mark.parametrize(
    ("cv", "column"), [(KFold(4, shuffle=True, random_state=0), None), (GroupKFold(4), "subject")]
)
def test_cross_val_score(data, cv, column):
    X, y = data
    splits = list(cv.split(X, y, None if column is None else X[column]))
    expected = manual_scores(crossed_model(), X, y, splits)
    found = cross_val_score(crossed_model(), X, y, cv=splits)
    assert_allclose(found, expected, rtol=SAME)
    by_name = cross_val_score(crossed_model(), X, y, cv=splits, scoring="r2")
    assert_allclose(by_name, expected, rtol=SAME)


def test_known_groups_are_predicted_better_than_new_ones(data):
    X, y = data
    known = cross_val_score(crossed_model(), X, y, cv=KFold(4, shuffle=True, random_state=0))
    new = cross_val_score(crossed_model(), X, y, cv=GroupKFold(4), groups=X["subject"])
    population = cross_val_score(
        crossed_model(effects="population"), X, y, cv=KFold(4, shuffle=True, random_state=0)
    )
    assert known.mean() > 0.8
    assert known.mean() > new.mean() + 0.3
    assert known.mean() > population.mean() + 0.3


def test_cross_val_predict(data):
    X, y = data
    cv = KFold(3, shuffle=True, random_state=1)
    expected = np.empty_like(y)
    for train, test in cv.split(X):
        model = crossed_model().fit(X.iloc[train], y[train])
        expected[test] = model.predict(X.iloc[test])
    assert_allclose(cross_val_predict(crossed_model(), X, y, cv=cv), expected, rtol=SAME)


def test_grid_search_over_covariance(data):
    X, y = data
    model = crossed_model(random_slopes={"subject": ["days"]})
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"covariance": ["full", "diagonal"]}, cv=cv).fit(X, y)
    expected = [
        np.mean(manual_scores(clone(model).set_params(covariance=c), X, y, cv.split(X)))
        for c in ("full", "diagonal")
    ]
    assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=SAME)
    best = clone(model).set_params(**search.best_params_).fit(X, y)
    assert_allclose(search.predict(X), best.predict(X), rtol=SAME)


def test_grid_search_over_groups(data):
    X, y = data
    model = MacKayMixedRegressor(fixed_features=["days", "age"])
    choices = [["subject"], ["item"], ["subject", "item"], [("subject", "item")]]
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(model, {"groups": choices}, cv=cv).fit(X, y)
    expected = [
        np.mean(manual_scores(clone(model).set_params(groups=g), X, y, cv.split(X)))
        for g in choices
    ]
    assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=SAME)
    assert search.best_params_ == {"groups": ["subject", "item"]}


def test_grid_search_over_a_pipeline(data):
    X, y = data
    pipeline = scaling_pipeline()
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(pipeline, {"mackaymixedregressor__alpha": [0.0, 10.0]}, cv=cv).fit(X, y)
    expected = [
        np.mean(
            manual_scores(
                clone(pipeline).set_params(mackaymixedregressor__alpha=alpha), X, y, cv.split(X)
            )
        )
        for alpha in (0.0, 10.0)
    ]
    assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=SAME)
    assert search.best_score_ > 0.8


@pytest.mark.slow
def test_two_processes_equal_one(data):
    X, y = data
    cv = KFold(3, shuffle=True, random_state=0)
    serial = cross_val_score(crossed_model(), X, y, cv=cv)
    with parallel_config(backend="loky", n_jobs=2):
        parallel = cross_val_score(crossed_model(), X, y, cv=cv)
    assert_allclose(parallel, serial, rtol=RELABELLED)


def test_learning_curve(data):
    X, y = data
    cv = KFold(3, shuffle=True, random_state=0)
    sizes, train, test = learning_curve(crossed_model(), X, y, cv=cv, train_sizes=[80, 160])
    assert sizes.tolist() == [80, 160]
    assert_allclose(test[1], cross_val_score(crossed_model(), X, y, cv=cv), rtol=RELABELLED)
    assert train.shape == (2, 3)
    assert np.all(train > test)


def test_permutation_importance(data):
    X, y = data
    model = crossed_model().fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=3, random_state=0)
    mean = dict(zip(X.columns, importance.importances_mean, strict=True))
    assert mean["subject"] > mean["item"] > 0.1
    assert mean["days"] > 0.1
    assert abs(mean["age"]) < 0.02


def test_stacking(data):
    X, y = data
    ridge = make_pipeline(ColumnTransformer([("keep", "passthrough", ["days", "age"])]), Ridge())
    stack = StackingRegressor(
        [("mixed", crossed_model()), ("ridge", ridge)], final_estimator=LinearRegression(), cv=3
    ).fit(X, y)
    assert_allclose(stack.transform(X)[:, 0], crossed_model().fit(X, y).predict(X), rtol=SAME)
    assert stack.score(X, y) > 0.8
    assert stack.final_estimator_.coef_[0] > 0.8


def test_transformed_target(data):
    X, y = data
    positive = np.exp(y / 10)
    model = TransformedTargetRegressor(crossed_model(), func=np.log, inverse_func=np.exp)
    model.fit(X, positive)
    expected = np.exp(crossed_model().fit(X, np.log(positive)).predict(X))
    assert_allclose(model.predict(X), expected, rtol=RELABELLED)


def test_bagging_with_positions(data):
    # BaggingRegressor turns frames into arrays: numeric codes and positions survive that.
    X, y = data
    numbers = X.assign(subject=X["subject"].str[1:].astype(int)).to_numpy(dtype=np.float64)
    model = MacKayMixedRegressor(groups=[1, 3])
    bagging = BaggingRegressor(model, n_estimators=3, random_state=0).fit(numbers, y)
    assert bagging.score(numbers, y) > 0.8
    members = [member.predict(numbers) for member in bagging.estimators_]
    assert_allclose(bagging.predict(numbers), np.mean(members, axis=0), rtol=SAME)


# Metadata routing.


def test_groups_for_the_splitter_alone(data):
    # Grouping columns are named in the constructor: `groups` in `params` belongs to GroupKFold.
    X, y = data
    groups = X["subject"].to_numpy()
    expected = manual_scores(crossed_model(), X, y, GroupKFold(4).split(X, y, groups))
    model = crossed_model()
    with config_context(enable_metadata_routing=True):
        if parse_version("1.8") > SKLEARN:
            model.set_score_request(groups=False)  # its scorer ignores get_metadata_routing
        found = cross_val_score(model, X, y, cv=GroupKFold(4), params={"groups": groups})
        assert_allclose(found, expected, rtol=SAME)
        search = GridSearchCV(model, {"method": ["reml"]}, cv=GroupKFold(4))
        search.fit(X, y, groups=groups)
    assert_allclose(search.best_score_, np.mean(expected), rtol=SAME)


def test_a_request_that_the_user_set_stays(data):
    with config_context(enable_metadata_routing=True):
        model = crossed_model().set_fit_request(groups="labels", sample_weight=True)
        routing = model.get_metadata_routing()
        assert routing.fit.requests == {"groups": "labels", "sample_weight": True}
        assert routing.predict.requests == {"groups": False, "return_std": None, "effects": None}
        assert routing.score.requests == {"groups": False, "sample_weight": None}
        # With labels given to fit, an unset request stays unset: scikit-learn's error is the point.
        routing = MacKayMixedRegressor().get_metadata_routing()
        assert routing.fit.requests == {"groups": None, "sample_weight": None}


@pytest.mark.parametrize("routing", [True, False])
def test_arguments_of_predict_through_a_pipeline(data, routing):
    X, y = data
    with config_context(enable_metadata_routing=routing):
        pipeline = scaling_pipeline()
        if routing:
            pipeline[-1].set_predict_request(return_std=True, effects=True)
        pipeline.fit(X, y)
        rows = pipeline[:-1].transform(X)
        for arguments in ({"return_std": True}, {"effects": "population"}, {"effects": ["item"]}):
            assert_array_equal(
                pipeline.predict(X, **arguments), pipeline[-1].predict(rows, **arguments)
            )
        mean, std = pipeline.predict(X, return_std=True, effects=["subject"])
        assert_array_equal(mean, pipeline.predict(X, effects=["subject"]))
        assert np.all(std > pipeline.predict(X, return_std=True)[1])


def test_arguments_of_predict_that_nobody_asked_for_are_refused(data):
    # As with BayesianRidge.
    X, y = data
    with config_context(enable_metadata_routing=True):
        pipeline = scaling_pipeline().fit(X, y)
        with pytest.raises(UnsetMetadataPassedError, match="return_std.*not explicitly set"):
            pipeline.predict(X, return_std=True)
        pipeline[-1].set_predict_request(return_std=True, effects=False)
        with pytest.raises(TypeError, match="effects"):
            pipeline.predict(X, effects="population")


def test_groups_and_arguments_of_predict_are_routed_together(data):
    X, y = data
    numbers, labels = X[["days", "age"]], X["subject"]
    with config_context(enable_metadata_routing=True):
        model = MacKayMixedRegressor().set_fit_request(groups=True)
        model.set_predict_request(groups=True, return_std=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(numbers, y, groups=labels)
        found = pipeline.predict(numbers, groups=labels, return_std=True)
    scaled = pipeline[:-1].transform(numbers)
    assert_array_equal(found, pipeline[-1].predict(scaled, labels, return_std=True))


def test_array_groups_by_routing(data):
    X, y = data
    numbers, groups = X[["days", "age"]], X["subject"].to_numpy()
    cv = KFold(4, shuffle=True, random_state=0)
    expected = []
    for train, test in cv.split(X):
        model = MacKayMixedRegressor().fit(numbers.iloc[train], y[train], groups=groups[train])
        prediction = model.predict(numbers.iloc[test], groups=groups[test])
        expected.append(r2_score(y[test], prediction))
    with config_context(enable_metadata_routing=True):
        model = MacKayMixedRegressor().set_fit_request(groups=True).set_score_request(groups=True)
        found = cross_val_score(model, numbers, y, cv=cv, params={"groups": groups})
    assert_allclose(found, expected, rtol=SAME)
    assert np.mean(expected) > 0.5


def test_array_groups_need_a_request(data):
    X, y = data
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(UnsetMetadataPassedError, match="groups"),
    ):
        cross_val_score(
            MacKayMixedRegressor(), X[["days"]], y, cv=3, params={"groups": X["subject"]}
        )


# Parameters, copies, repeated fits.


def test_parameters_are_kept_as_given():
    given = {
        "groups": [("a", "b"), "a"],
        "random_slopes": {"a": ["x"]},
        "covariance": {"a": "diagonal"},
        "fixed_variances": {"residual": 1.0},
    }
    model = MacKayMixedRegressor(**given)
    for name, value in given.items():
        assert model.get_params()[name] is value
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert model.set_params(method="ml", alpha=2.0) is model
    assert (model.method, model.alpha) == ("ml", 2.0)
    with pytest.raises(ValueError, match="Invalid parameter 'slopes' for estimator MacKay"):
        model.set_params(slopes=1)


def test_repr():
    assert repr(MacKayMixedRegressor()) == "MacKayMixedRegressor()"
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x"]}, method="ml")
    assert repr(model) == (
        "MacKayMixedRegressor(groups='g', method='ml', random_slopes={'g': ['x']})"
    )
    assert "MacKayMixedRegressor" in model._repr_html_()


def test_unfitted(data):
    X, y = data
    model = crossed_model()
    for call in (lambda: model.predict(X), lambda: model.score(X, y)):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


def test_clone_is_unfitted(data):
    X, y = data
    model = crossed_model(method="ml").fit(X, y)
    copied = clone(model)
    assert not any(name.endswith("_") for name in vars(copied))
    assert_same_fit(model, copied.fit(X, y), rtol=SAME)


def test_fit_twice_is_fit_once(data):
    X, y = data
    model = crossed_model().fit(X, y)
    once = copy.deepcopy(vars(model))
    assert model.fit(X, y) is model
    assert vars(model).keys() == once.keys()
    assert model.n_iter_ == once["n_iter_"]
    assert_allclose(model.coef_, once["coef_"], rtol=SAME)
    assert_allclose(model.log_likelihood_, once["log_likelihood_"], rtol=SAME)
    for name, variance in model.variance_components_.items():
        assert_allclose(variance, once["variance_components_"][name], rtol=SAME)


def test_refit_on_other_data(data, rng):
    X, y = data
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}).fit(X[["days", "item"]], y)
    other = np.column_stack([rng.normal(size=60), np.arange(60) % 6, rng.normal(size=60)])
    target = rng.normal(size=60) + 2.0 * (other[:, 1] % 2)
    fresh = clone(model).fit(other, target)
    model.fit(other, target)
    assert vars(model).keys() == vars(fresh).keys()
    assert model.groups_ == ["x1"]
    assert not hasattr(model, "feature_names_in_")
    assert_same_fit(model, fresh, rtol=SAME)


FAILURES = {
    "parameter": ({"method": "em"}, {}, "`method` must be one of"),
    "column": ({"groups": ["object"]}, {}, "column 'object' not found"),
    "label": ({}, {"X": lambda X: X.assign(subject=[None, *X["subject"][1:]])}, "missing labels"),
    "level": ({}, {"X": lambda X: X.assign(item=1)}, "'item' has a single level"),
    "feature": ({}, {"X": lambda X: X.assign(age=np.nan)}, "contains NaN"),
    "new column": ({}, {"X": lambda X: X.assign(new="a")}, "not numeric: 'new'"),
    "target": ({}, {"y": lambda y: np.full_like(y, np.inf)}, "y contains infinity"),
    "length": ({}, {"y": lambda y: y[:-1]}, "inconsistent numbers of samples"),
    "weights": ({}, {"sample_weight": lambda w: -np.ones(240)}, "negative values"),
    "variance": ({"fixed_variances": {"item": -1.0}}, {}, "cannot be negative"),
}


@pytest.mark.parametrize("fitted", [True, False], ids=["fitted", "unfitted"])
@pytest.mark.parametrize(("parameters", "inputs", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failed_fit_leaves_no_trace(data, fitted, parameters, inputs, message):
    X, y = data
    model = crossed_model()
    if fitted:
        model.fit(X, y)
    model.set_params(**parameters)
    before = dict(vars(model))
    arguments = {"X": X, "y": y, "sample_weight": None}
    arguments |= {name: change(arguments[name]) for name, change in inputs.items()}
    with pytest.raises(ValueError, match=message):
        model.fit(**arguments)
    assert vars(model).keys() == before.keys()
    for name, value in before.items():
        assert vars(model)[name] is value
    assert any(name.endswith("_") for name in vars(model)) == fitted


# Serving: small pickles, and no TensorFlow but in fit.


def test_pickle_predicts_alike(data):
    X, y = data
    model = crossed_model(random_slopes={"subject": ["days"]}).fit(X, y)
    restored = pickle.loads(pickle.dumps(model))
    assert_array_equal(restored.predict(X), model.predict(X))
    assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))


def as_pickle(model):
    return pickle.loads(pickle.dumps(model))


def as_file_of_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def as_cloudpickle(model):
    return pickle.loads(pytest.importorskip("cloudpickle").dumps(model))


COPIES = [copy.copy, copy.deepcopy, as_pickle, as_file_of_joblib, as_cloudpickle, clone]


@pytest.mark.parametrize("made", COPIES)
def test_a_copy_has_the_same_attributes(data, made):
    model = crossed_model(effects=["item"])
    again = made(model)
    assert again is not model
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()
    model.fit(*data)
    again = made(model)
    expected = model.get_params() if made is clone else vars(model)
    assert vars(again).keys() == expected.keys()


def of_version(model, **version):
    """A model whose pickle has another version, or none."""
    state = model.__getstate__()
    del state["_format"]
    again = object.__new__(type(model))
    again.__setstate__({**state, **version})
    return again


@pytest.mark.parametrize(
    ("version", "written"),
    [
        ({}, "no version of the format"),
        ({"_format": 1}, "format 1"),
        ({"_format": 99}, "format 99"),
    ],
)
def test_a_pickle_of_another_version_is_refused_by_name(data, version, written):
    model = crossed_model()
    unfitted = of_version(model, **version)
    assert unfitted.get_params() == model.get_params()
    assert vars(unfitted).keys() == vars(model).keys()
    message = (
        f"This fitted MacKayMixedRegressor was pickled by another version of the package, with "
        f"{written}; this version reads format {SCHEMA}. Fit again, or read it with the version"
    )
    with pytest.raises(ValueError, match=message):
        of_version(model.fit(*data), **version)


def test_a_pickle_has_the_version_of_the_text(data):
    model = crossed_model().fit(*data)
    assert model.__getstate__()["_format"] == json.loads(model.to_json())["schema"] == SCHEMA
    assert "_format" not in vars(model)


@pytest.mark.parametrize("store_covariance", [False, True])
def test_pickle_does_not_grow_with_the_rows(rng, store_covariance):
    sizes = []
    for n in (600, 6000):
        X, y = crossed(rng, n)
        # As many iterations for both, so that the history is equally long.
        model = crossed_model(
            fixed_variances={"subject": 4.0, "item": 1.0, "residual": 1.0},
            store_covariance=store_covariance,
        )
        model.fit(X, y).predict(X)
        sizes.append(len(pickle.dumps(model)))
    assert abs(sizes[1] - sizes[0]) <= PICKLE_BYTES
    assert sizes[0] < 12_000


def test_pickle_of_a_million_rows_is_small(rng):
    group = rng.integers(1_000, size=1_000_000)
    y = rng.normal(size=1_000)[group] + rng.normal(size=len(group))
    model = MacKayMixedRegressor(groups=[0], store_covariance=False).fit(group[:, None], y)
    assert len(pickle.dumps(model)) < 100_000


def test_pickle_leaves_out_the_factorised_covariance(data):
    X, y = data
    model = crossed_model().fit(X, y)
    size = len(pickle.dumps(model))
    std = model.predict(X, return_std=True)[1]
    assert len(pickle.dumps(model)) == size
    restored = pickle.loads(pickle.dumps(model))
    assert_array_equal(restored.predict(X, return_std=True)[1], std)


def run_python(code: str, *arguments: object) -> str:
    """Run code in a process of its own, which sees the modules that this one sees."""
    setup = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", setup + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVE = """
import pickle, sys
if sys.argv[2] == "block":
    sys.modules["tensorflow"] = None
import numpy as np
import sklearn_mackay
from sklearn_mackay.datasets import load_sleepstudy
X, y = load_sleepstudy(return_X_y=True)
with open(sys.argv[1], "rb") as file:
    model = pickle.load(file)
std = model.predict(X, return_std=True)[1]
print(*(repr(float(x)) for x in (np.sum(model.predict(X)), np.sum(std), model.score(X, y))))
assert sys.modules.get("tensorflow") is None, "TensorFlow was imported"
assert not [name for name in sys.modules if name.startswith("keras")], "Keras was imported"
"""


@pytest.mark.slow
@pytest.mark.parametrize("tensorflow", ["block", "allow"])
def test_serving_needs_no_tensorflow(tmp_path, tensorflow):
    from sklearn_mackay.datasets import load_sleepstudy

    X, y = load_sleepstudy(return_X_y=True)
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}).fit(X, y)
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(model))
    total, std, score = run_python(SERVE, path, tensorflow).split()
    assert_allclose(float(total), np.sum(model.predict(X)), rtol=SAME)
    assert_allclose(float(std), np.sum(model.predict(X, return_std=True)[1]), rtol=SAME)
    assert_allclose(float(score), model.score(X, y), rtol=SAME)


def test_nothing_of_tensorflow_is_kept(data):
    X, y = data
    model = crossed_model().fit(X, y)
    assert b"tensorflow" not in pickle.dumps(model)
