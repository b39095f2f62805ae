"""The estimator: what it predicts, what its parameters mean, what may not change its answer."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from coefficients import deviance, existing_coef, fixed_errors, fixed_estimates
from crossed_data import SLOPES, Data, term
from numpy.testing import assert_allclose, assert_array_equal
from one_way import one_way
from reference import Dense, Problem, best_of_many_starts
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.evidence.solution import Variances

ROUNDING = 1e-10  # the same sums in another order
INVARIANT = 1e-8  # a loop that ends at 1e-7 of the deviance with one more Newton step
DENSE_RTOL = 1e-8  # the dense twin inverts V, which loses some digits
LIMIT_ATOL = 1e-5  # a residual variance of 1e-8 of the total stands for zero
CRITERION_ATOL = 1e-6  # the deviance of an optimum; `tol` is 1e-7
STEP = 1e-3  # of differences of a deviance of 400, good to 1e-13 of it: curvatures to 1e-4
OPTIMUM_RTOL = 1e-5  # a variance at two optima that agree to `tol`, from different starts
OFFSET_RTOL = 1e-7  # rounding of y + 1e8 is 1e-8 of its spread
EXTREME_RTOL = 1e-12  # powers of ten round once
SHIFT_RTOL = 1e-6  # a shift by 1e6 is squared in the variance of the intercept
EXACT_FIT_RTOL = 1e-5  # a residual below 1e-12 of the squares counts as none, 1e-6 of y
ZERO_RTOL = 1e-12  # without variances only ordinary least squares is left
WEIGHT_EXCESS = 1e-9  # of weights over one, which numbers follow in proportion
SQUARED_SHIFT = 1e-16  # of the square of a shift: rounding of a variance of that size
NEAR_ZERO_RTOL = 1e-3  # near zero `tol` leaves a variance a wider margin, relative to itself
CORRELATION_RTOL = 1e-7  # of a correlation of one, from rounded entries; 2e-16 was seen
NEGATIVE_RTOL = 1e-15  # a negative eigenvalue of this relative size is rounding
RISE_RTOL = 1e-10  # of a deviance from one iteration to the next: rounding


@pytest.fixture
def data(rng) -> Data:
    return Data(rng)


BY_POSITION = {"groups": [2, 3], "random_slopes": {2: [0]}}


def dense(terms, X, y, sigma2, Sigma, *, weights=None, penalty=None, reml=True) -> Dense:
    variances = Variances(float(sigma2), tuple(np.atleast_2d(S) for S in Sigma))
    problem = Problem(
        terms=tuple(terms),
        X=X,
        y=y,
        weights=np.ones(len(y)) if weights is None else weights,
        penalty=np.zeros(X.shape[1]) if penalty is None else penalty,
        variances=variances,
    )
    return Dense(problem, variances, reml)


def dense_at(model: MacKayMixedRegressor, terms, X, y, **keywords) -> Dense:
    components = dict(model.variance_components_)
    sigma2 = components.pop("residual")
    return dense(terms, X, y, sigma2, components.values(), **keywords)


def assert_is_optimal(model, terms, X, y, *, held=(), **keywords) -> None:
    """No change of one variance that is not held lowers the dense deviance by more than `tol`.

    The parabola through three points has its minimum ``slope^2 / (2 curvature)`` below the middle.
    """
    components = dict(model.variance_components_)

    def at(name: str, factor: float) -> float:
        changed = components | {name: np.asarray(components[name]) * factor}
        sigma2 = changed.pop("residual")
        return dense(terms, X, y, sigma2, changed.values(), **keywords).deviance

    for name in components.keys() - set(held):
        low, middle, high = (at(name, np.exp(step)) for step in (-STEP, 0.0, STEP))
        slope, curvature = (high - low) / (2 * STEP), (high - 2 * middle + low) / STEP**2
        assert curvature > 0
        assert slope**2 / (2 * curvature) <= model.tol


def assert_same_numbers(a, b, *, rtol: float, order: tuple[str, ...] | None = None) -> None:
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=rtol)
    assert_allclose(fixed_estimates(a), fixed_estimates(b), rtol=rtol)
    assert_allclose(fixed_errors(a), fixed_errors(b), rtol=rtol)
    for one, other in zip(order or a.variance_components_, b.variance_components_, strict=True):
        found, expected = a.variance_components_[one], b.variance_components_[other]
        assert_allclose(found, expected, rtol=rtol, atol=rtol * np.max(np.abs(expected)))


# Prediction.


def test_predictions_by_hand(data):
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    population = model.intercept_ + data.design[:, 1:] @ existing_coef(model)
    effect_a, effect_b = model.random_effects_["a"], model.random_effects_["b"]
    assert model.group_levels_["a"].tolist() == [f"a{code:02d}" for code in range(12)]
    assert model.group_levels_["b"].tolist() == list(range(7))
    by_a = effect_a[data.a, 0] + effect_a[data.a, 1] * data.x
    by_b = effect_b[data.b, 0]
    X = data.frame
    assert_allclose(model.predict(X), population + by_a + by_b, rtol=ROUNDING)
    assert_allclose(model.predict(X, effects="conditional"), model.predict(X), rtol=0)
    assert_allclose(model.predict(X, effects="population"), population, rtol=ROUNDING)
    assert_allclose(model.predict(X, effects=[]), population, rtol=ROUNDING)
    assert_allclose(model.predict(X, effects=["a"]), population + by_a, rtol=ROUNDING)
    assert_allclose(model.predict(X, effects=["b", "a"]), model.predict(X), rtol=ROUNDING)
    assert_allclose(model.predict(X, effects=("b",)), population + by_b, rtol=ROUNDING)
    assert_allclose(model.set_params(effects=["b"]).predict(X), population + by_b, rtol=ROUNDING)
    assert_allclose(
        model.predict(X, effects="conditional"), population + by_a + by_b, rtol=ROUNDING
    )


def test_score_is_r2_of_the_prediction(data, rng):
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    weights = rng.uniform(size=len(data.y))
    prediction = model.predict(data.frame)
    assert model.score(data.frame, data.y) == r2_score(data.y, prediction)
    weighted = r2_score(data.y, prediction, sample_weight=weights)
    assert model.score(data.frame, data.y, sample_weight=weights) == weighted
    assert model.score(data.frame, data.y) > 0.8


def test_unseen_and_missing_labels_have_no_effect(data):
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    rows = data.frame.iloc[:5].copy()
    rows["a"] = ["new", None, np.nan, "a00", "new"]
    rows["b"] = rows["b"].astype(object)
    rows.iloc[4, 3] = None
    b_only = model.predict(data.frame.iloc[:5], effects=["b"])
    population = model.predict(data.frame.iloc[:5], effects="population")
    a00 = model.random_effects_["a"][0] @ [1.0, data.x[3]]
    expected = [*b_only[:3], b_only[3] + a00, population[4]]
    assert_allclose(model.predict(rows), expected, rtol=ROUNDING)
    # One row predicts as it does in the batch.
    for row in range(5):
        alone = model.predict(rows.iloc[[row]])
        assert_allclose(alone, expected[row], rtol=ROUNDING)


def test_unknown_groups_may_be_an_error(data):
    model = MacKayMixedRegressor(unknown_groups="error", **SLOPES).fit(data.frame, data.y)
    rows = data.frame.iloc[:4].assign(a=["new", None, "a01", "other"])
    message = (
        r"factor 'a' has labels not seen in fit: 'new', 'other'. Set unknown_groups='population'"
    )
    with pytest.raises(ValueError, match=message):
        model.predict(rows)
    assert_allclose(
        model.predict(rows, effects=["b"]), model.predict(data.frame.iloc[:4], effects=["b"])
    )
    missing = rows.assign(a=None)
    assert_allclose(model.predict(missing), model.predict(rows, effects=["b"]), rtol=ROUNDING)


def test_predict_sets_nothing(data):
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    before = dict(vars(model))
    model.predict(data.frame, effects="population")
    model.score(data.frame, data.y)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


# Factors, slopes, covariances.


def test_interaction_is_the_factor_of_combined_labels(data):
    combined = data.frame.assign(ab=data.frame["a"] + ":" + data.frame["b"].astype(str))
    interaction = MacKayMixedRegressor(groups=("a", "b")).fit(data.frame, data.y)
    column = MacKayMixedRegressor(groups="ab", fixed_features=["x", "z"]).fit(combined, data.y)
    assert interaction.groups_ == ["a:b"]
    assert interaction.group_levels_["a:b"][0] == ("a00", data.b[data.a == 0].min())
    assert_same_numbers(interaction, column, rtol=ROUNDING, order=("a:b", "residual"))
    assert_allclose(interaction.predict(data.frame), column.predict(combined), rtol=ROUNDING)
    # Both labels are known, but not their combination.
    seen = set(zip(data.frame["a"], data.b, strict=True))
    new = next(
        pair for pair in itertools.product(set(data.frame["a"]), range(7)) if pair not in seen
    )
    row = data.frame.iloc[:1].assign(a=new[0], b=new[1])
    population = interaction.predict(row, effects="population")
    assert_array_equal(interaction.predict(row), population)


def test_nested_factors(data, rng):
    sample = np.arange(len(data.y)) % 3
    X = data.frame.assign(sample=sample)
    codes = np.unique(3 * data.a + sample, return_inverse=True)[1]
    y = data.y + rng.normal(size=36)[codes]
    model = MacKayMixedRegressor(groups=["a", ("a", "sample")], fixed_features=["x"])
    model.fit(X, y)
    assert model.groups_ == ["a", "a:sample"]
    ones = np.ones(len(data.y))
    terms, A = (term(data.a, ones), term(codes, ones)), data.design[:, :2]
    twin = dense_at(model, terms, A, y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_allclose(fixed_estimates(model), twin.beta, rtol=DENSE_RTOL)
    for k, name in enumerate(model.groups_):
        assert_allclose(model.random_effects_[name], twin.b(k), rtol=DENSE_RTOL, atol=DENSE_RTOL)
    assert_is_optimal(model, terms, A, y)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
@pytest.mark.parametrize("covariance", ["full", "diagonal", {"a": "diagonal"}, {"b": "diagonal"}])
def test_fit_is_the_dense_optimum(data, method, covariance):
    model = MacKayMixedRegressor(covariance=covariance, method=method, **SLOPES)
    model.fit(data.frame, data.y)
    diagonal = covariance in ("diagonal", {"a": "diagonal"})
    terms = data.terms(diagonal=diagonal)
    reml = method != "ml"
    twin = dense_at(model, terms, data.design, data.y, reml=reml)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_allclose(fixed_estimates(model), twin.beta, rtol=DENSE_RTOL)
    std = np.sqrt(np.diag(np.linalg.inv(twin.XVX)))
    assert_allclose(fixed_errors(model), std, rtol=DENSE_RTOL)
    for k, name in enumerate("ab"):
        assert_allclose(model.random_effects_[name], twin.b(k), rtol=DENSE_RTOL, atol=DENSE_RTOL)
        gamma = float(np.sum(twin.N(k) * twin.variances.Sigma[k]))
        assert_allclose(model.effective_dof_[name], gamma, rtol=DENSE_RTOL)
    assert_is_optimal(model, terms, data.design, data.y, reml=reml)
    assert (model.variance_components_["a"][0, 1] == 0.0) == diagonal
    n_parameters = 3 + (2 if diagonal else 3) + 1 + 1
    assert_allclose(model.aic_, deviance(model) + 2 * n_parameters, rtol=ROUNDING)
    assert_allclose(model.bic_, deviance(model) + np.log(150) * n_parameters, rtol=ROUNDING)


def test_covariances_are_exactly_symmetric(data):
    Sigma = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y).variance_components_["a"]
    assert_array_equal(Sigma, Sigma.T)


@pytest.mark.slow
def test_no_start_finds_a_better_optimum(rng):
    for _ in range(4):
        data = Data(rng, n=60)
        model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
        twin = dense_at(model, data.terms(), data.design, data.y)
        best = best_of_many_starts(twin.problem, rng, n_starts=3)
        assert deviance(model) <= best + CRITERION_ATOL


def test_slope_without_intercept(data):
    model = MacKayMixedRegressor(
        groups=["a", "b"], random_slopes={"a": {"slopes": ["x"], "intercept": False}}
    ).fit(data.frame, data.y)
    ones = np.ones(len(data.y))
    terms = term(data.a, data.x), term(data.b, ones)
    twin = dense_at(model, terms, data.design, data.y)
    assert model.random_effects_["a"].shape == (12, 1)
    assert isinstance(model.variance_components_["a"], float)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_allclose(model.random_effects_["a"], twin.b(0), rtol=DENSE_RTOL, atol=DENSE_RTOL)
    assert_is_optimal(model, terms, data.design, data.y)
    by_a = model.random_effects_["a"][data.a, 0] * data.x
    difference = model.predict(data.frame, effects=["a"]) - model.predict(data.frame, effects=[])
    assert_allclose(difference, by_a, rtol=0, atol=ROUNDING)


def test_slopes_that_are_no_fixed_features(data):
    model = MacKayMixedRegressor(fixed_features=["z"], **SLOPES).fit(data.frame, data.y)
    assert model.fixed_features_[~np.isnan(model.coef_)].tolist() == ["z"]
    twin = dense_at(model, data.terms(), data.design[:, [0, 2]], data.y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_is_optimal(model, data.terms(), data.design[:, [0, 2]], data.y)


def test_without_fixed_part(data):
    model = MacKayMixedRegressor(groups=["a", "b"], fixed_features=[], fit_intercept=False).fit(
        data.frame, data.y
    )
    terms = data.terms(slope=False)
    twin = dense_at(model, terms, np.zeros((len(data.y), 0)), data.y)
    assert np.isnan(model.coef_).all()
    assert model.intercept_ == 0.0
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_is_optimal(model, terms, np.zeros((len(data.y), 0)), data.y)


@pytest.mark.parametrize("alpha", [0.5, 50.0])
def test_ridge_penalty_beside_groups(data, alpha):
    # A penalised coefficient is random with variance sigma2 / alpha.
    model = MacKayMixedRegressor(groups=["a", "b"], alpha=alpha).fit(data.frame, data.y)
    terms, X = data.terms(slope=False), data.design[:, [1, 2, 0]]
    twin = dense_at(model, terms, X, data.y, penalty=np.array([alpha, alpha, 0.0]))
    assert_allclose([*existing_coef(model), model.intercept_], twin.beta, rtol=DENSE_RTOL)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_is_optimal(model, terms, X, data.y, penalty=np.array([alpha, alpha, 0.0]))


# Variances that are given.

GIVEN = {"a": np.array([[2.0, 0.3], [0.3, 0.4]]), "b": 1.3, "residual": 0.6}


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_all_variances_given_is_penalised_least_squares(data, method):
    model = MacKayMixedRegressor(fixed_variances=GIVEN, method=method, **SLOPES)
    model.fit(data.frame, data.y)
    twin = dense(data.terms(), data.design, data.y, 0.6, [GIVEN["a"], 1.3], reml=method != "ml")
    assert_allclose(fixed_estimates(model), twin.beta, rtol=DENSE_RTOL)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    for k, name in enumerate("ab"):
        assert_allclose(model.random_effects_[name], twin.b(k), rtol=DENSE_RTOL, atol=DENSE_RTOL)
    assert model.converged_
    assert model.n_iter_ == 1
    assert not model.singular_
    assert_allclose(model.aic_, deviance(model) + 2 * 3, rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
@pytest.mark.parametrize("held", [("a",), ("b",), ("residual",), ("a", "residual"), ("a", "b")])
def test_some_variances_given(data, method, held):
    given = {name: GIVEN[name] for name in held}
    model = MacKayMixedRegressor(fixed_variances=given, method=method, max_iter=1000, **SLOPES)
    model.fit(data.frame, data.y)
    for name, variance in given.items():
        # "residual" stands in the next test.
        assert name == "residual" or np.all(model.variance_components_[name] == variance)
    assert_is_optimal(model, data.terms(), data.design, data.y, held=held, reml=method != "ml")
    twin = dense_at(model, data.terms(), data.design, data.y, reml=method != "ml")
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)


def test_a_given_residual_variance_stays_as_given(data):
    for sigma2 in (0.1, 0.3, 0.6, 1.7, 654.94022724):
        model = MacKayMixedRegressor(fixed_variances={"residual": sigma2}, **SLOPES)
        assert model.fit(data.frame, data.y).variance_components_["residual"] == sigma2


def test_a_given_zero_is_the_model_without_the_factor(data):
    model = MacKayMixedRegressor(groups=["a", "b"], fixed_variances={"b": 0.0})
    model.fit(data.frame, data.y)
    without = MacKayMixedRegressor(groups=["a"], fixed_features=["x", "z"])
    without.fit(data.frame, data.y)
    assert_allclose(deviance(model), deviance(without), rtol=INVARIANT)
    assert_allclose(model.coef_, without.coef_, rtol=INVARIANT)
    assert model.variance_components_["b"] == 0.0
    assert np.all(model.random_effects_["b"] == 0.0)


def test_no_groups_and_a_given_residual_variance(data):
    X = data.design[:, 1:]
    model = MacKayMixedRegressor(fixed_variances={"residual": 2.0}).fit(X, data.y)
    twin = dense([], data.design, data.y, 2.0, [])
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    std = np.sqrt(np.diag(np.linalg.inv(twin.XVX)))
    assert_allclose(fixed_errors(model), std, rtol=DENSE_RTOL)


STARTS = {
    "near": {"a": [[1.0, 0.1], [0.1, 0.2]], "b": 0.5, "residual": 0.5},
    "small": {"a": [1e-6, 1e-6], "b": 1e-6, "residual": 1.0},
    "large": {"a": [1e4, 1e4], "b": 1e4, "residual": 1.0},
    "small residual": {"residual": 1e-5},
    "large residual": {"residual": 1e5},
    "zero": {"a": [0.0, 0.0], "b": 0.0},
    "zero slope": {"a": [1.0, 0.0]},
    "correlated": {"a": [[1.0, 0.5], [0.5, 0.25]]},
}


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_the_start_does_not_matter(data, method, start):
    expected = MacKayMixedRegressor(method=method, **SLOPES).fit(data.frame, data.y)
    model = MacKayMixedRegressor(method=method, initial_variances=start, **SLOPES)
    model.fit(data.frame, data.y)
    assert model.converged_
    assert abs(deviance(model) - deviance(expected)) <= CRITERION_ATOL
    for name, variance in expected.variance_components_.items():
        atol = OPTIMUM_RTOL * np.max(variance)
        assert_allclose(model.variance_components_[name], variance, rtol=OPTIMUM_RTOL, atol=atol)


def test_history_begins_at_the_start(data):
    start = {"a": [[1.0, 0.1], [0.1, 0.2]], "b": 0.5, "residual": 0.5}
    model = MacKayMixedRegressor(initial_variances=start, method="mackay", **SLOPES)
    first = model.fit(data.frame, data.y).history_[0]
    assert first["step"] == "start"
    for name, variance in start.items():
        assert_allclose(first["variances"][name], variance, rtol=ROUNDING)


# Weights.


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_a_frequency_weight_is_a_repeated_row(data, rng, method):
    times = rng.integers(1, 4, len(data.y))
    rows = np.repeat(np.arange(len(data.y)), times)
    model = MacKayMixedRegressor(method=method, covariance="diagonal", **SLOPES)
    repeated = model.fit(data.frame.iloc[rows], data.y[rows])
    prediction = repeated.predict(data.frame)
    weighted = MacKayMixedRegressor(method=method, covariance="diagonal", **SLOPES)
    weighted.fit(data.frame, data.y, sample_weight=times)
    assert_same_numbers(weighted, repeated, rtol=INVARIANT)
    assert_allclose(weighted.predict(data.frame), prediction, rtol=INVARIANT)
    assert_allclose([weighted.aic_, weighted.bic_], [repeated.aic_, repeated.bic_], rtol=INVARIANT)


def test_a_weight_of_two_on_singletons(rng):
    # Each row is a level of its own, but stands for two rows.
    n = 30
    X, y = np.column_stack([rng.normal(size=n), np.arange(n)]), rng.normal(size=n)
    weighted, repeated = MacKayMixedRegressor(groups=[1]), MacKayMixedRegressor(groups=[1])
    with pytest.warns(UserWarning, match="fits y exactly"):
        weighted.fit(X, y, sample_weight=np.full(n, 2.0))
    with pytest.warns(UserWarning, match="fits y exactly"):
        repeated.fit(np.vstack([X, X]), np.tile(y, 2))
    assert weighted.variance_components_["residual"] == 0.0
    assert repeated.variance_components_["residual"] == 0.0
    assert_allclose(weighted.predict(X), y, rtol=EXACT_FIT_RTOL)
    assert_allclose(repeated.predict(X), y, rtol=EXACT_FIT_RTOL)


@pytest.mark.parametrize("weight_type", ["frequency", "precision"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_a_weight_of_zero_leaves_the_row_out(data, rng, weight_type, method):
    weights = rng.uniform(0.5, 2.0, len(data.y))
    weights[::4] = 0.0
    weights[data.a == 3] = 0.0  # a level goes altogether
    kept = weights > 0
    model = MacKayMixedRegressor(weight_type=weight_type, method=method, **SLOPES)
    without = model.fit(data.frame[kept], data.y[kept], sample_weight=weights[kept])
    prediction = without.predict(data.frame)
    other = MacKayMixedRegressor(weight_type=weight_type, method=method, **SLOPES)
    other.fit(data.frame, data.y, sample_weight=weights)
    assert "a03" not in other.group_levels_["a"]
    assert_same_numbers(other, without, rtol=INVARIANT)
    assert_allclose(other.predict(data.frame), prediction, rtol=INVARIANT)


def test_what_stands_in_a_row_of_weight_zero_does_not_matter(data):
    weights = np.ones(len(data.y))
    weights[:3] = 0.0
    wild = data.frame.copy()
    wild.loc[:2, "a"] = [None, "other", "a00"]
    wild.loc[:2, "x"] = [1e9, -1e9, 0.0]
    y = data.y.copy()
    y[:3] = 1e12
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame[3:], data.y[3:])
    model = MacKayMixedRegressor(**SLOPES).fit(wild, y, sample_weight=weights)
    assert_same_numbers(model, expected, rtol=INVARIANT)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_precision_weights_divide_the_residual_variance(data, rng, method):
    weights = rng.uniform(0.2, 4.0, len(data.y))
    model = MacKayMixedRegressor(weight_type="precision", method=method, **SLOPES)
    model.fit(data.frame, data.y, sample_weight=weights)
    keywords = {"weights": weights, "reml": method == "reml"}
    twin = dense_at(model, data.terms(), data.design, data.y, **keywords)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_allclose(fixed_estimates(model), twin.beta, rtol=DENSE_RTOL)
    std = np.sqrt(np.diag(np.linalg.inv(twin.XVX)))
    assert_allclose(fixed_errors(model), std, rtol=DENSE_RTOL)
    assert_is_optimal(model, data.terms(), data.design, data.y, **keywords)


@pytest.mark.parametrize("unit", [1e6, 1e-6, 1e18, 1e-18])
def test_precision_weights_have_no_unit(data, rng, unit):
    # Inverse variances of measurements may be of any size.
    weights = rng.uniform(0.2, 4.0, len(data.y))
    model = MacKayMixedRegressor(weight_type="precision", **SLOPES)
    model.fit(data.frame, data.y, sample_weight=weights)
    other = MacKayMixedRegressor(weight_type="precision", **SLOPES)
    other.fit(data.frame, data.y, sample_weight=weights * unit)
    assert abs(deviance(other) - deviance(model)) <= CRITERION_ATOL
    assert_allclose(other.coef_, model.coef_, rtol=OPTIMUM_RTOL)
    expected, found = model.variance_components_, other.variance_components_
    atol = OPTIMUM_RTOL * np.max(expected["a"])
    assert_allclose(found["a"], expected["a"], rtol=OPTIMUM_RTOL, atol=atol)
    assert_allclose(found["residual"] / unit, expected["residual"], rtol=OPTIMUM_RTOL)


@pytest.mark.parametrize("weight_type", ["frequency", "precision"])
def test_weights_of_almost_one(data, weight_type):
    model = MacKayMixedRegressor(weight_type=weight_type, **SLOPES)
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    model.fit(data.frame, data.y, sample_weight=np.full(len(data.y), 1 + WEIGHT_EXCESS))
    assert_same_numbers(model, expected, rtol=10 * WEIGHT_EXCESS)


# Groups given to fit.


@pytest.mark.parametrize("kind", ["list", "array", "Series", "DataFrame", "column"])
def test_groups_given_to_fit_are_columns_of_X(data, kind):
    labels = data.frame["a"]
    groups = {
        "list": labels.tolist(),
        "array": labels.to_numpy(),
        "Series": labels.set_axis(range(1000, 1150)),
        "DataFrame": data.frame[["a"]],
        "column": labels.to_numpy()[:, None],
    }[kind]
    name = "a" if kind in ("Series", "DataFrame") else "group0"
    X = data.frame[["x", "z"]]
    expected = MacKayMixedRegressor(groups=["a"], random_slopes={"a": ["x"]})
    expected.fit(data.frame[["x", "z", "a"]], data.y)
    model = MacKayMixedRegressor(random_slopes={name: ["x"]}).fit(X, data.y, groups=groups)
    assert model.groups_ == [name]
    assert_same_numbers(model, expected, rtol=ROUNDING, order=(name, "residual"))
    prediction = expected.predict(data.frame[["x", "z", "a"]])
    assert_allclose(model.predict(X, groups=groups), prediction, rtol=ROUNDING)
    score = model.score(X, data.y, groups=groups)
    assert_allclose(score, r2_score(data.y, prediction), rtol=ROUNDING)


@pytest.mark.parametrize("kind", ["DataFrame", "array", "list"])
def test_two_factors_given_to_fit(data, kind):
    frame = data.frame[["a", "b"]]
    groups = {
        "DataFrame": frame.set_axis(range(1000, 1150)),
        "array": frame.to_numpy(dtype=object),
        "list": frame.to_numpy(dtype=object).tolist(),
    }[kind]
    names = ["a", "b"] if kind == "DataFrame" else ["group0", "group1"]
    X = data.design[:, 1:]
    expected = MacKayMixedRegressor(groups=["a", "b"]).fit(data.frame, data.y)
    model = MacKayMixedRegressor().fit(X, data.y, groups=groups)
    assert model.groups_ == names
    assert_same_numbers(model, expected, rtol=ROUNDING, order=(*names, "residual"))
    assert_allclose(model.predict(X, groups), expected.predict(data.frame), rtol=ROUNDING)
    only_b = model.predict(X, groups, effects=names[1:])
    assert_allclose(only_b, expected.predict(data.frame, effects=["b"]), rtol=ROUNDING)


def test_predict_without_groups_warns_and_is_the_population(data):
    X, groups = data.frame[["x", "z"]], data.frame["a"]
    model = MacKayMixedRegressor().fit(X, data.y, groups=groups)
    population = model.intercept_ + X.to_numpy() @ model.coef_
    message = (
        "fitted with `fit.X, y, groups=....` and predicts without groups.*"
        "leaves out the random effects.*Scorers given by name and GridSearchCV.predict.*"
        "name grouping columns of X in the constructor.*effects='population'"
    )
    with pytest.warns(UserWarning, match=message):
        assert_allclose(model.predict(X), population, rtol=ROUNDING)
    with pytest.warns(UserWarning, match=message):
        assert model.score(X, data.y) == r2_score(data.y, model.predict(X, effects="population"))
    # Asked for, the population needs no warning.
    assert_allclose(model.predict(X, effects="population"), population, rtol=ROUNDING)
    assert_allclose(model.predict(X, effects=[]), population, rtol=ROUNDING)
    model.set_params(effects="population")
    assert_allclose(model.predict(X), population, rtol=ROUNDING)
    assert_allclose(model.predict(X, groups=groups), population, rtol=ROUNDING)


# Sparse tables.


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_array])
@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_sparse_tables(data, rng, container, alpha):
    # Labels and slopes may be columns of a sparse table as well; what it leaves out is 0.
    X = data.array
    X[rng.random(len(X)) < 0.5, 1] = 0.0
    expected = MacKayMixedRegressor(alpha=alpha, **BY_POSITION).fit(X, data.y)
    model = MacKayMixedRegressor(alpha=alpha, **BY_POSITION).fit(container(X), data.y)
    assert 0.0 in model.group_levels_["x2"]
    assert_same_numbers(model, expected, rtol=INVARIANT)
    assert_allclose(model.predict(container(X)), expected.predict(X), rtol=INVARIANT)
    groups = X[:, 2:]
    by_array = MacKayMixedRegressor(alpha=alpha, random_slopes={"group0": [0]})
    by_array.fit(container(X[:, :2]), data.y, groups=groups)
    order = ("group0", "group1", "residual")
    assert_same_numbers(by_array, expected, rtol=INVARIANT, order=order)
    prediction = by_array.predict(container(X[:, :2]), groups)
    assert_allclose(prediction, expected.predict(X), rtol=INVARIANT)


def test_sparse_weights_and_offset(data, rng):
    X = data.array
    weights = rng.integers(0, 3, len(data.y))
    expected = MacKayMixedRegressor(**BY_POSITION).fit(X, data.y + 1e6, sample_weight=weights)
    model = MacKayMixedRegressor(**BY_POSITION)
    model.fit(sp.csr_array(X), data.y + 1e6, sample_weight=weights)
    assert_same_numbers(model, expected, rtol=OFFSET_RTOL)


# What may not change the answer.


def test_order_of_rows_levels_and_factors(data, rng):
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    rows = rng.permutation(len(data.y))
    permuted = MacKayMixedRegressor(**SLOPES).fit(data.frame.iloc[rows], data.y[rows])
    assert_same_numbers(permuted, expected, rtol=INVARIANT)
    assert_allclose(permuted.random_effects_["a"], expected.random_effects_["a"], rtol=INVARIANT)
    new_names = rng.permutation(12)
    relabelled = data.frame.assign(a=new_names[data.a])
    model = MacKayMixedRegressor(**SLOPES).fit(relabelled, data.y)
    assert_same_numbers(model, expected, rtol=INVARIANT)
    effects = model.random_effects_["a"][new_names]
    assert_allclose(effects, expected.random_effects_["a"], rtol=INVARIANT)
    model = MacKayMixedRegressor(groups=["b", "a"], random_slopes={"a": ["x"]})
    model.fit(data.frame, data.y)
    assert_same_numbers(model, expected, rtol=INVARIANT, order=("a", "b", "residual"))
    columns = MacKayMixedRegressor(**SLOPES).fit(data.frame[["b", "z", "a", "x"]], data.y)
    assert_allclose(existing_coef(columns)[::-1], existing_coef(expected), rtol=INVARIANT)
    assert_allclose(columns.log_likelihood_, expected.log_likelihood_, rtol=INVARIANT)


@pytest.mark.parametrize("offset", [1e3, 1e8, -1e8])
def test_offset_of_y(data, offset):
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y + offset)
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=OFFSET_RTOL)
    assert_allclose(model.coef_, expected.coef_, rtol=OFFSET_RTOL)
    assert_allclose(model.intercept_ - offset, expected.intercept_, rtol=OFFSET_RTOL)
    for name, variance in expected.variance_components_.items():
        atol = OFFSET_RTOL * np.max(variance)
        assert_allclose(model.variance_components_[name], variance, rtol=OFFSET_RTOL, atol=atol)


def test_fixed_effects_added_to_y(data):
    # y + X delta moves the coefficients by delta and nothing else.
    delta = np.array([3.0, -20.0])
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    model = MacKayMixedRegressor(**SLOPES)
    model.fit(data.frame, data.y + data.design[:, 1:] @ delta)
    assert_allclose(existing_coef(model) - delta, existing_coef(expected), rtol=INVARIANT)
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=INVARIANT)
    assert_allclose(model.random_effects_["a"], expected.random_effects_["a"], rtol=INVARIANT)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
@pytest.mark.parametrize("scale", [1e150, 1e-150, -3.0])
def test_scale_of_y(data, scale, method):
    parameters = {"method": method, "covariance": "diagonal", **SLOPES}
    expected = MacKayMixedRegressor(**parameters).fit(data.frame, data.y)
    model = MacKayMixedRegressor(**parameters).fit(data.frame, data.y * scale)
    for name, variance in expected.variance_components_.items():
        found = model.variance_components_[name] / scale / scale
        assert_allclose(found, variance, rtol=EXTREME_RTOL, atol=0)
    coefficients = fixed_estimates(model)
    assert_allclose(coefficients / scale, fixed_estimates(expected), rtol=EXTREME_RTOL)
    std = fixed_errors(model)
    assert_allclose(std / abs(scale), fixed_errors(expected), rtol=EXTREME_RTOL)
    dof = 150 - 3 * (method != "ml")
    moved = deviance(expected) + 2 * dof * np.log(abs(scale))
    assert_allclose(deviance(model), moved, rtol=EXTREME_RTOL)
    prediction = expected.predict(data.frame)
    assert_allclose(model.predict(data.frame) / scale, prediction, rtol=0, atol=10 * EXTREME_RTOL)


@pytest.mark.parametrize("scale", [1e150, 1e-150, -1e6])
def test_scale_of_a_feature_and_slope(data, scale):
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    scaled = data.frame.assign(x=data.x * scale)
    model = MacKayMixedRegressor(**SLOPES).fit(scaled, data.y)
    units = np.array([1.0, scale])
    Sigma = model.variance_components_["a"] * units[:, None] * units
    atol = 10 * EXTREME_RTOL  # all of these are about 1
    assert_allclose(Sigma, expected.variance_components_["a"], rtol=0, atol=atol)
    found = existing_coef(model) * [scale, 1.0]
    assert_allclose(found, existing_coef(expected), rtol=0, atol=atol)
    effects = model.random_effects_["a"] * units
    assert_allclose(effects, expected.random_effects_["a"], rtol=0, atol=atol)
    moved = expected.log_likelihood_ - np.log(abs(scale))
    assert_allclose(model.log_likelihood_, moved, rtol=EXTREME_RTOL)
    assert_allclose(model.predict(scaled), expected.predict(data.frame), rtol=0, atol=atol)


@pytest.mark.parametrize("shift", [-5.0, 1e3, 1e6])
def test_shift_of_a_slope_with_full_covariance(data, shift):
    # A reparametrisation: intercept + shift * slope is the intercept at the old zero.
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    shifted = data.frame.assign(x=data.x + shift)
    model = MacKayMixedRegressor(**SLOPES).fit(shifted, data.y)
    back = np.array([[1.0, shift], [0.0, 1.0]])
    Sigma = back @ model.variance_components_["a"] @ back.T
    atol = SQUARED_SHIFT * shift**2 + INVARIANT
    assert_allclose(Sigma, expected.variance_components_["a"], rtol=0, atol=atol)
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=INVARIANT)
    assert_allclose(model.coef_, expected.coef_, rtol=INVARIANT)
    assert_allclose(model.predict(shifted), expected.predict(data.frame), rtol=SHIFT_RTOL)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.astype(np.float32).astype(np.float64),
        np.asfortranarray,
        lambda X: np.repeat(X, 2, axis=0)[::2],
        lambda X: X[:, ::-1].copy()[:, ::-1],
    ],
    ids=["float64", "Fortran", "strided rows", "reversed columns"],
)
def test_layouts_of_X(data, change):
    X = data.array.astype(np.float32).astype(np.float64)
    expected = MacKayMixedRegressor(**BY_POSITION).fit(X, data.y)
    changed = change(X)
    model = MacKayMixedRegressor(**BY_POSITION).fit(changed, data.y)
    assert_same_numbers(model, expected, rtol=ROUNDING)
    assert_allclose(model.predict(changed), expected.predict(X), rtol=ROUNDING)


def test_float32_is_read_as_the_same_numbers(data):
    X, y = data.array.astype(np.float32), data.y.astype(np.float32)
    expected = MacKayMixedRegressor(**BY_POSITION)
    expected.fit(X.astype(np.float64), y.astype(np.float64))
    model = MacKayMixedRegressor(**BY_POSITION).fit(X, y)
    assert_same_numbers(model, expected, rtol=ROUNDING)
    assert model.coef_.dtype == model.predict(X).dtype == np.float64


def test_integers_are_numbers(data):
    X = np.round(10 * data.array).astype(np.int64)
    y = np.round(10 * data.y).astype(np.int32)
    expected = MacKayMixedRegressor(**BY_POSITION).fit(X.astype(np.float64), y.astype(np.float64))
    for dtype in (np.int64, np.int32, np.int16):
        model = MacKayMixedRegressor(**BY_POSITION).fit(X.astype(dtype), y)
        assert_same_numbers(model, expected, rtol=ROUNDING)


@pytest.mark.parametrize("copy_X", [True, False])
def test_read_only_memory_maps(data, tmp_path, copy_X):
    def on_disk(name: str, array: np.ndarray) -> np.ndarray:
        np.save(tmp_path / name, array)
        return np.load(tmp_path / name, mmap_mode="r")

    X, y = on_disk("X.npy", data.array), on_disk("y.npy", data.y)
    numbers, labels = on_disk("N.npy", data.design[:, 1:]), on_disk("a.npy", data.a)
    weights = on_disk("w.npy", np.arange(len(data.y)) % 3 + 1.0)
    expected = MacKayMixedRegressor(**BY_POSITION)
    expected.fit(data.array, data.y, sample_weight=np.array(weights))
    model = MacKayMixedRegressor(copy_X=copy_X, **BY_POSITION).fit(X, y, sample_weight=weights)
    assert_same_numbers(model, expected, rtol=ROUNDING)
    expected = MacKayMixedRegressor().fit(data.design[:, 1:], data.y, groups=data.a)
    model = MacKayMixedRegressor(copy_X=copy_X).fit(numbers, y, groups=labels)
    assert_same_numbers(model, expected, rtol=ROUNDING)


@pytest.mark.filterwarnings("ignore:Fixed features")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("collinear", [False, True])
def test_inputs_are_left_alone(data, rng, order, collinear):
    # Rows are looked at again where a column depends on others.
    X = np.column_stack([data.design[:, 1:], data.design[:, 1]][: 1 + collinear])
    inputs = {
        "X": np.array(X, order=order),
        "y": data.y.copy(),
        "sample_weight": rng.uniform(size=len(data.y)),
        "groups": np.column_stack([data.a, data.b]),
    }
    before = {name: array.copy() for name, array in inputs.items()}
    expected = MacKayMixedRegressor().fit(**inputs)
    for name, array in inputs.items():
        assert_array_equal(array, before[name])
    frame = data.frame.copy()
    MacKayMixedRegressor(copy_X=False, **SLOPES).fit(frame, data.y)
    pd.testing.assert_frame_equal(frame, data.frame)
    # copy_X=False may write into X, but must not change the fit.
    model = MacKayMixedRegressor(copy_X=False).fit(**inputs)
    assert_same_numbers(model, expected, rtol=ROUNDING)
    assert_array_equal(inputs["y"], before["y"])
    assert_array_equal(inputs["sample_weight"], before["sample_weight"])


@pytest.mark.parametrize("unit", [1e-150, 1e-100, 1e100, 1e150, 1e200, 1e300])
@pytest.mark.parametrize("slopes", [None, {"g": ["x"]}])
def test_a_column_in_another_unit(rng, unit, slopes):
    g, x = np.arange(120) % 8, rng.normal(size=120)
    y = x + rng.normal(size=8)[g] * (1.0 + x) + rng.normal(size=120)
    here, there = (
        MacKayMixedRegressor("g", random_slopes=slopes).fit(pd.DataFrame({"x": z, "g": g}), y)
        for z in (x, unit * x)
    )
    assert_allclose(there.coef_[0] * unit, here.coef_[0], rtol=INVARIANT)
    assert_allclose(
        there.predict(pd.DataFrame({"x": unit * x, "g": g})),
        here.predict(pd.DataFrame({"x": x, "g": g})),
        rtol=INVARIANT,
    )


# Designs.


def test_crossed_analysis_of_variance(rng):
    # Every row of a table meets every column once: REML is the analysis of variance.
    r, c = 8, 6
    table = 2.0 * rng.normal(size=(r, 1)) + 1.5 * rng.normal(size=(1, c)) + rng.normal(size=(r, c))
    rows, columns = (codes.ravel() for codes in np.indices((r, c)))
    X = np.column_stack([rows, columns])
    model = MacKayMixedRegressor(groups=[0, 1]).fit(X, table.ravel())
    by_row, by_column, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    rest = table - by_row[:, None] - by_column + mean
    mse = np.sum(rest**2) / ((r - 1) * (c - 1))
    row_ms, column_ms = c * by_row.var(ddof=1), r * by_column.var(ddof=1)
    found = model.variance_components_
    assert_allclose(found["residual"], mse, rtol=INVARIANT)
    assert_allclose(found["x0"], (row_ms - mse) / c, rtol=10 * INVARIANT)
    assert_allclose(found["x1"], (column_ms - mse) / r, rtol=10 * INVARIANT)
    assert_allclose(model.intercept_, mean, rtol=INVARIANT)
    shrunken = (by_row - mean) * (1 - mse / row_ms)
    assert_allclose(model.random_effects_["x0"][:, 0], shrunken, rtol=10 * INVARIANT)
    variance_of_mean = (row_ms + column_ms - mse) / (r * c)
    assert_allclose(model.intercept_std_, np.sqrt(variance_of_mean), rtol=INVARIANT)


def test_disconnected_design(rng):
    # Rows 0-5 of one factor meet only columns 0-3 of the other, rows 6-11 only columns 4-7.
    n = 120
    part = rng.integers(0, 2, n)
    a, b = rng.integers(0, 6, n) + 6 * part, rng.integers(0, 4, n) + 4 * part
    y = rng.normal(size=12)[a] + rng.normal(size=8)[b] + 0.5 * rng.normal(size=n)
    model = MacKayMixedRegressor(groups=[0, 1]).fit(np.column_stack([a, b]), y)
    ones = np.ones(n)
    terms = term(a, ones), term(b, ones)
    twin = dense_at(model, terms, ones[:, None], y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    for k, name in enumerate(model.groups_):
        assert_allclose(model.random_effects_[name], twin.b(k), rtol=DENSE_RTOL, atol=DENSE_RTOL)
    assert_is_optimal(model, terms, ones[:, None], y)


def test_some_levels_have_one_row(rng):
    codes = np.concatenate([np.arange(25), np.repeat(np.arange(25, 35), 6)])
    y = rng.normal(size=35)[codes] + 0.5 * rng.normal(size=len(codes))
    model = MacKayMixedRegressor(groups=[0]).fit(codes[:, None], y)
    ones = np.ones(len(y))
    twin = dense_at(model, [term(codes, ones)], ones[:, None], y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_is_optimal(model, [term(codes, ones)], ones[:, None], y)
    single = model.random_effects_["x0"][:25, 0]
    tau2, sigma2 = model.variance_components_["x0"], model.variance_components_["residual"]
    expected = (y[:25] - model.intercept_) * tau2 / (tau2 + sigma2)
    assert_allclose(single, expected, rtol=INVARIANT)


def test_as_many_coefficients_as_rows_but_identified(rng):
    # Two coefficients for two rows a level: 40 effects, 40 rows, three variances.
    codes, x = np.repeat(np.arange(20), 2), np.tile([0.0, 1.0], 20)
    x = x + 0.1 * rng.normal(size=40)
    y = rng.normal(size=20)[codes] + rng.normal(size=20)[codes] * x + 0.3 * rng.normal(size=40)
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}, covariance="diagonal")
    model.fit(np.column_stack([x, codes]), y)
    terms = [term(codes, np.ones(40), x, diagonal=True)]
    A = np.column_stack([np.ones(40), x])
    twin = dense_at(model, terms, A, y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    best = best_of_many_starts(twin.problem, rng, n_starts=3)
    assert deviance(model) <= best + CRITERION_ATOL


def test_effects_that_can_fit_every_row_leave_the_likelihood_finite():
    # Two coefficients for two rows a level span all rows, so that V has full rank without a
    # residual variance: an estimate of zero is an ordinary boundary, with a finite likelihood.
    rng = np.random.default_rng(5)
    codes, x = np.repeat(np.arange(20), 2), rng.normal(size=40)
    y = rng.normal(size=20)[codes] + rng.normal(size=20)[codes] * x + 0.3 * rng.normal(size=40)
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]})
    model.fit(np.column_stack([x, codes]), y)
    assert model.variance_components_["residual"] == 0.0
    assert model.singular_
    assert model.converged_
    terms, A = [term(codes, np.ones(40), x)], np.column_stack([np.ones(40), x])
    Sigma, sigma2 = model.variance_components_["x1"], model.variance_components_["residual"]
    limit = dense(terms, A, y, max(sigma2, 1e-9), [Sigma])
    best = best_of_many_starts(limit.problem, rng, n_starts=4)
    assert limit.deviance <= best + CRITERION_ATOL
    assert_allclose(deviance(model), limit.deviance, rtol=0, atol=LIMIT_ATOL)
    assert np.all(np.isfinite([model.aic_, model.bic_]))


@pytest.mark.parametrize(
    ("theta", "method"),
    [
        (0.3, "reml"),
        (0.1, "reml"),
        (0.05, "reml"),
        (0.028, "reml"),
        (0.3, "mackay"),
        (0.1, "mackay"),
    ],
)
def test_optimum_just_above_zero(rng, theta, method):
    y = one_way(rng, 1 + 5 * theta**2)
    X = np.repeat(np.arange(10), 5)[:, None]
    model = MacKayMixedRegressor(groups=[0], method=method, max_iter=1000).fit(X, y.ravel())
    found = model.variance_components_
    assert_allclose(np.sqrt(found["x0"] / found["residual"]), theta, rtol=NEAR_ZERO_RTOL)
    assert_allclose(found["residual"], 1.0, rtol=OPTIMUM_RTOL)
    assert not model.singular_


@pytest.mark.parametrize(
    ("F", "method"),
    # MacKay's steps shrink with the distance of F from 1.
    [(0.9997, "reml"), (0.999, "reml"), (0.99, "reml"), (0.9, "reml"), (0.3, "reml"), (0.0, "reml")]
    + [(0.9, "mackay"), (0.3, "mackay"), (0.0, "mackay")],
)
def test_optimum_at_zero(rng, F, method):
    y = one_way(rng, F)
    X = np.repeat(np.arange(10), 5)[:, None]
    model = MacKayMixedRegressor(groups=[0], method=method, max_iter=1000).fit(X, y.ravel())
    assert model.variance_components_["x0"] == 0.0
    assert model.singular_
    assert model.converged_
    assert_allclose(model.variance_components_["residual"], y.var(ddof=1), rtol=ZERO_RTOL)
    assert_allclose(model.intercept_std_, y.std(ddof=1) / np.sqrt(50), rtol=ZERO_RTOL)


def test_zero_is_found_exactly_as_often_as_theory_says(rng):
    # In the balanced one-way layout the REML variance is zero where MSB <= MSW, and only there.
    X = np.repeat(np.arange(6), 5)[:, None]
    zeros = 0
    for _ in range(60):
        y = 0.3 * rng.normal(size=(6, 1)) + rng.normal(size=(6, 5))
        msb = 5 * y.mean(axis=1).var(ddof=1)
        msw = np.mean(y.var(axis=1, ddof=1))
        model = MacKayMixedRegressor(groups=[0]).fit(X, y.ravel())
        assert model.singular_ == (model.variance_components_["x0"] == 0.0) == (msb <= msw)
        zeros += model.singular_
    assert 10 < zeros < 50  # probability .36 for a ratio of .09: 60 runs give 22 +- 4


def test_zero_among_other_variances(data):
    # Levels of c carry less than chance would give them, so that its variance is zero.
    codes = np.arange(len(data.y)) % 5
    y = data.y - pd.Series(data.y).groupby(codes).transform("mean").to_numpy()
    X = data.frame.assign(c=codes)
    model = MacKayMixedRegressor(groups=["a", "b", "c"]).fit(X, y)
    without = MacKayMixedRegressor(groups=["a", "b"]).fit(data.frame, y)
    assert model.variance_components_["c"] == 0.0
    assert np.all(model.random_effects_["c"] == 0.0)
    assert model.effective_dof_["c"] == 0.0
    assert model.singular_
    assert not without.singular_
    assert_allclose(deviance(model), deviance(without), rtol=INVARIANT)
    assert_allclose(existing_coef(model), existing_coef(without), rtol=INVARIANT)
    assert_allclose(model.predict(X), without.predict(data.frame), rtol=0, atol=INVARIANT)


def test_all_variances_zero_is_least_squares(rng):
    # Three rows in each cell of a table whose margins are zero.
    rows, columns = (np.repeat(codes.ravel(), 3) for codes in np.indices((8, 4)))
    noise = pd.Series(rng.normal(size=96))
    for codes in (rows, columns):
        noise = noise - noise.groupby(codes).transform("mean")
    X = np.column_stack([rng.normal(size=(96, 2)), rows, columns])
    y = X[:, 0] - X[:, 1] + noise.to_numpy()
    A = np.column_stack([np.ones(96), X[:, :2]])
    beta, (rss,), *_ = np.linalg.lstsq(A, y, rcond=None)
    model = MacKayMixedRegressor(groups=[2, 3]).fit(X, y)
    assert model.variance_components_["x2"] == model.variance_components_["x3"] == 0.0
    assert model.singular_
    assert_allclose(existing_coef(model), beta[1:], rtol=ZERO_RTOL)
    assert_allclose(model.variance_components_["residual"], rss / 93, rtol=ZERO_RTOL)
    std = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * rss / 93)
    assert_allclose(fixed_errors(model), std, rtol=ZERO_RTOL)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_correlation_of_one(rng, method, sign):
    codes, x = np.repeat(np.arange(10), 8), rng.normal(size=80)
    effects = rng.normal(size=10)
    y = 1 + x + effects[codes] * (1.0 + sign * 0.7 * x) + rng.normal(size=80)
    X = np.column_stack([x, codes])
    model = MacKayMixedRegressor(
        groups=[1], random_slopes={1: [0]}, method=method, max_iter=2000
    ).fit(X, y)
    Sigma = model.variance_components_["x1"]
    assert model.singular_
    assert model.converged_
    correlation = Sigma[0, 1] / np.sqrt(Sigma[0, 0] * Sigma[1, 1])
    assert_allclose(correlation, sign, rtol=CORRELATION_RTOL)
    assert np.linalg.eigvalsh(Sigma)[0] >= -NEGATIVE_RTOL * np.trace(Sigma)
    A = np.column_stack([np.ones(80), x])
    twin = dense_at(model, [term(codes, np.ones(80), x)], A, y, reml=method != "ml")
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    best = best_of_many_starts(twin.problem, rng, reml=method != "ml", n_starts=3)
    assert deviance(model) <= best + CRITERION_ATOL


def test_covariate_constant_within_levels(rng):
    # Its coefficient is estimated between levels; with a variance of zero by least squares.
    codes = np.repeat(np.arange(12), 6)
    between = rng.normal(size=12)[codes]
    ones, A = np.ones(72), np.column_stack([np.ones(72), between])
    y = 2.0 * between + 1.5 * rng.normal(size=12)[codes] + rng.normal(size=72)
    model = MacKayMixedRegressor(groups=[1]).fit(np.column_stack([between, codes]), y)
    twin = dense_at(model, [term(codes, ones)], A, y)
    assert_allclose(fixed_estimates(model), twin.beta, rtol=DENSE_RTOL)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert_is_optimal(model, [term(codes, ones)], A, y)
    residual = rng.normal(size=72)
    residual -= pd.Series(residual).groupby(codes).transform("mean").to_numpy()
    model = MacKayMixedRegressor(groups=[1])
    model.fit(np.column_stack([between, codes]), 2.0 * between + residual)
    assert model.variance_components_["x1"] == 0.0
    assert_allclose(fixed_estimates(model), [0.0, 2.0], rtol=0, atol=ZERO_RTOL)


@pytest.mark.slow
def test_one_level_holds_most_rows(rng):
    codes = np.where(rng.random(400) < 0.9, 0, rng.integers(1, 30, 400))
    codes = np.unique(codes, return_inverse=True)[1]
    y = rng.normal(size=30)[codes] + rng.normal(size=400)
    model = MacKayMixedRegressor(groups=[0]).fit(codes[:, None], y)
    ones = np.ones(400)
    assert model.n_iter_ < 20
    assert_is_optimal(model, [term(codes, ones)], ones[:, None], y)


def test_an_outlier(data):
    y = data.y.copy()
    y[7] += 1e6
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, y)
    assert model.converged_
    twin = dense_at(model, data.terms(), data.design, y)
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)
    assert np.all(np.isfinite(model.predict(data.frame)))


# The record of the iterations.


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_history(data, method):
    model = MacKayMixedRegressor(method=method, **SLOPES).fit(data.frame, data.y)
    history = model.history_
    assert model.n_iter_ == len(history) - 1
    assert history[0]["step"] == "start"
    assert {"step", "deviance", "change", "variances"} == set(history[-1])
    for name, variance in model.variance_components_.items():
        assert np.shape(history[-1]["variances"][name]) == np.shape(variance)
        assert_allclose(history[-1]["variances"][name], variance, rtol=ROUNDING)
    deviances = np.array([entry["deviance"] for entry in history])
    assert np.all(np.diff(deviances) <= RISE_RTOL * np.abs(deviances[1:]))
    # Up to a constant it is the deviance of the user's y at these variances.
    twins = [
        dense(
            data.terms(),
            data.design,
            data.y,
            np.squeeze(entry["variances"]["residual"]),
            [entry["variances"]["a"], entry["variances"]["b"]],
            reml=method != "ml",
        ).deviance
        for entry in history
    ]
    drops = np.array(twins) - twins[-1]
    assert_allclose(deviances - deviances[-1], drops, rtol=DENSE_RTOL, atol=CRITERION_ATOL)
    assert history[-1]["change"] <= model.tol


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_verbose_prints_one_line_an_iteration(data, capsys, method):
    parameters = {"method": method, "covariance": "diagonal", **SLOPES}
    MacKayMixedRegressor(**parameters).fit(data.frame, data.y)
    assert capsys.readouterr().out == ""
    model = MacKayMixedRegressor(verbose=1, **parameters).fit(data.frame, data.y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_ + 1  # and one for the start
    for line, entry in zip(lines, model.history_, strict=True):
        assert line.split()[0] == entry["step"]
        assert f"deviance {entry['deviance']:.8f}" in line


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_one_iteration_is_not_enough(data, method):
    model = MacKayMixedRegressor(max_iter=1, method=method, **SLOPES)
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations.*`max_iter`"):
        model.fit(data.frame, data.y)
    assert not model.converged_
    assert model.n_iter_ == 1
    values = [
        model.log_likelihood_,
        model.aic_,
        model.bic_,
        *fixed_estimates(model),
        *fixed_errors(model),
        *model.effective_dof_.values(),
        model.variance_components_["residual"],
        model.variance_components_["b"],
        *model.variance_components_["a"].ravel(),
        *model.random_effects_["a"].ravel(),
        *model.random_effects_["b"].ravel(),
    ]
    assert np.all(np.isfinite(values))
    assert model.score(data.frame, data.y) > 0.5
    twin = dense_at(model, data.terms(), data.design, data.y, reml=method != "ml")
    assert_allclose(deviance(model), twin.deviance, rtol=DENSE_RTOL)


def test_a_smaller_tolerance_takes_more_iterations(data):
    counts = [
        MacKayMixedRegressor(method="mackay", tol=tol, max_iter=1000, **SLOPES)
        .fit(data.frame, data.y)
        .n_iter_
        for tol in (1e-2, 1e-5, 1e-9)
    ]
    assert counts == sorted(set(counts))


def test_ids_beyond_32_bits_and_long_strings(data):
    expected = MacKayMixedRegressor(groups=["a", "b"]).fit(data.frame, data.y)
    big = data.frame.assign(a=data.a + 2**53, b=[f"{code:0300d}" for code in data.b])
    model = MacKayMixedRegressor(groups=["a", "b"]).fit(big, data.y)
    assert model.group_levels_["a"].tolist() == list(range(2**53, 2**53 + 12))
    assert_same_numbers(model, expected, rtol=ROUNDING)


def test_unused_categories_are_no_levels(data):
    categories = [f"a{code:02d}" for code in range(40)]
    X = data.frame.assign(a=pd.Categorical(data.frame["a"], categories=categories))
    model = MacKayMixedRegressor(**SLOPES).fit(X, data.y)
    assert len(model.group_levels_["a"]) == len(model.random_effects_["a"]) == 12
    assert_same_numbers(
        model, MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y), rtol=ROUNDING
    )
