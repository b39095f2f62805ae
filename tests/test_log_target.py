"""A response that was fitted on another scale: quantiles go back, means do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler

from sklearn_mackay import MacKayMixedRegressor

N_FITS = 400
LEVEL = 0.9
# Three standard errors of a share of N_FITS independent rows, and what is lost by taking the
# variances of 20 groups as known, at most a hundredth.
COVERAGE = 3.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / N_FITS) + 0.01
STANDARD_ERRORS = 3.5  # of a mean, which differs by more once in 2,000 times
N_DRAWS = 20_000
ROUNDING = 1e-12  # of the exponential of a mean
REVERSED_RTOL = 1e-9  # of the fit of -log y, which has the same numbers up to sign
RESCALED_RTOL = 1e-6  # of two fits with x in another unit


def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw 20 groups of 8 rows whose logarithm is a mixed model, and a row of a new group."""
    group = np.append(np.repeat(np.arange(20), 8), 20)
    X = pd.DataFrame({"x": rng.normal(size=len(group)), "group": group})
    log_y = 1.0 + 0.5 * X["x"] + 0.4 * rng.normal(size=21)[group]
    return X, np.exp(log_y.to_numpy() + 0.5 * rng.normal(size=len(group)))


def log_model() -> TransformedTargetRegressor:
    model = MacKayMixedRegressor(groups="group")
    return TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp)


def test_interval_median_and_mean_of_a_log_target(rng):
    X, y = draw(rng)
    model = log_model().fit(X[:-1], y[:-1])
    inner = model.regressor_
    direct = MacKayMixedRegressor(groups="group").fit(X[:-1], np.log(y[:-1]))
    rows = X.iloc[[0, -1]]
    bounds = model.transformer_.inverse_transform(inner.predict_interval(rows))
    assert_array_equal(bounds, np.exp(direct.predict_interval(rows)))
    assert_allclose(model.predict(rows), np.sqrt(bounds[:, 0] * bounds[:, 1]), rtol=ROUNDING)
    mean, std = inner.predict(rows, return_std=True)
    draws = np.exp(inner.sample_y(rows, N_DRAWS, random_state=0))
    error = draws.std(axis=1) / np.sqrt(N_DRAWS)
    assert np.all(np.abs(np.exp(mean + std**2 / 2) - draws.mean(axis=1)) < STANDARD_ERRORS * error)
    assert np.all(draws.mean(axis=1) - np.exp(mean) > 2 * STANDARD_ERRORS * error)
    share = np.mean((draws > bounds[:, :1]) & (draws < bounds[:, 1:]), axis=1)
    assert_allclose(share, 0.95, atol=STANDARD_ERRORS * np.sqrt(0.95 * 0.05 / N_DRAWS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["known group", "new group"])
def test_coverage_and_mean_over_simulated_fits(kind):
    covered, exact, naive = [], [], []
    for seed in range(N_FITS):
        X, y = draw(np.random.default_rng(seed))
        row, fitted = (-1, slice(0, -1)) if kind == "new group" else (0, slice(1, -1))
        inner = log_model().fit(X[fitted], y[fitted]).regressor_
        low, high = np.exp(inner.predict_interval(X.iloc[[row]], level=LEVEL))[0]
        (mean,), (std,) = inner.predict(X.iloc[[row]], return_std=True)
        covered.append(low < y[row] < high)
        exact.append(y[row] - np.exp(mean + std**2 / 2))
        naive.append(y[row] - np.exp(mean))
    assert_allclose(np.mean(covered), LEVEL, atol=COVERAGE)
    for differences, is_right in ((exact, True), (naive, False)):
        error = np.std(differences) / np.sqrt(N_FITS)
        assert (abs(np.mean(differences)) < STANDARD_ERRORS * error) == is_right


def test_a_transformer_of_one_column_takes_bound_after_bound(rng):
    X, y = draw(rng)
    model = TransformedTargetRegressor(
        MacKayMixedRegressor(groups="group"), transformer=PowerTransformer("box-cox")
    ).fit(X, y)
    bounds = model.regressor_.predict_interval(X)
    back = [model.transformer_.inverse_transform(bound[:, np.newaxis]) for bound in bounds.T]
    low, high = np.column_stack(back).T
    assert np.all((low < model.predict(X)) & (model.predict(X) < high))
    assert 0.9 < np.mean((low < y) & (y < high)) < 1.0


def test_a_decreasing_function_turns_the_bounds_around(rng):
    X, y = draw(rng)
    model = TransformedTargetRegressor(
        MacKayMixedRegressor(groups="group"),
        func=lambda y: -np.log(y),
        inverse_func=lambda z: np.exp(-z),
    ).fit(X, y)
    bounds = np.sort(model.transformer_.inverse_transform(model.regressor_.predict_interval(X)))
    expected = np.exp(log_model().fit(X, y).regressor_.predict_interval(X))
    assert_allclose(bounds, expected, rtol=REVERSED_RTOL)


def test_features_that_a_pipeline_prepares(rng):
    X, y = draw(rng)
    scaler = make_column_transformer(
        (StandardScaler(), ["x"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scaler, MacKayMixedRegressor(groups="group"))
    model = TransformedTargetRegressor(pipeline, func=np.log, inverse_func=np.exp).fit(X, y)
    rows = model.regressor_[:-1].transform(X)
    bounds = np.exp(model.regressor_[-1].predict_interval(rows))
    expected = np.exp(log_model().fit(X, y).regressor_.predict_interval(X))
    assert_allclose(bounds, expected, rtol=RESCALED_RTOL)
