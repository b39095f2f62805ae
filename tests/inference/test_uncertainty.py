"""Standard deviations, intervals, parts and draws of predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from coefficients import fixed_errors
from crossed_data import Data
from joblib import Parallel, delayed
from numpy.testing import assert_allclose, assert_array_equal
from reference import Dense, Problem
from scipy import sparse, stats
from sklearn.linear_model import BayesianRidge
from threadpoolctl import threadpool_info

from sklearn_mackay import MacKayMixedRegressor, _machine
from sklearn_mackay.evidence.solution import Variances

RTOL = 1e-8  # the dense twin inverts V, which loses some digits
SAME_RTOL = 1e-10  # the same sums in another order
POLARISED_RTOL = 1e-6  # a covariance is a difference of variances of sums
OPTIMUM_RTOL = 1e-5  # two optima, each found to its own tolerance
DRAWS = 20_000
DRAWS_RTOL = 6 / np.sqrt(DRAWS)  # six standard errors of a standard deviation, or of a correlation
PARAMETERS = {"groups": ["a", "b"], "random_slopes": {"a": ["x"]}}


@pytest.fixture
def data() -> Data:
    return Data(np.random.default_rng(0))


def dense_twin(model, data: Data, weights: np.ndarray) -> Dense:
    """Dense algebra at the fitted variances, in the user's units."""
    fitted = model.variance_components_
    Sigma = (fitted["a"], np.atleast_2d(fitted["b"]))
    problem = Problem(
        data.terms(),
        data.design,
        data.y,
        weights,
        np.zeros(3),
        Variances(fitted["residual"], Sigma),
    )
    return Dense(problem, problem.variances, reml=True)


def dense_rows(data: Data) -> np.ndarray:
    """``[Z X]`` of the training rows."""
    return np.hstack([*(term.Z().toarray() for term in data.terms()), data.design])


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_std_of_known_levels_is_that_of_dense_algebra(data, weighted):
    weights = np.random.default_rng(1).uniform(0.3, 3.0, len(data.y)) if weighted else np.ones(150)
    model = MacKayMixedRegressor(**PARAMETERS, weight_type="precision")
    model.fit(data.frame, data.y, sample_weight=weights)
    W, C = dense_rows(data), dense_twin(model, data, weights).covariance
    variance = np.einsum("ij,jk,ik->i", W, C, W)
    mean, std = model.predict(data.frame, return_std=True)
    assert_array_equal(mean, model.predict(data.frame))
    assert_allclose(std**2, variance + model.variance_components_["residual"], rtol=RTOL)
    interval = model.predict_interval(data.frame, kind="confidence", level=0.9)
    half_width = stats.norm.ppf(0.95) * np.sqrt(variance)
    assert_allclose(interval, np.column_stack([mean - half_width, mean + half_width]), rtol=RTOL)


def test_effects_and_coefficients_know_their_errors(data):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    dense = dense_twin(model, data, np.ones(150))
    C = dense.covariance
    blocks = np.array([C[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] for j in range(12)])
    assert_allclose(model.random_effects_covariance("a"), blocks, rtol=POLARISED_RTOL)
    std = np.sqrt(np.diag(C))
    assert_allclose(model.random_effects_std_["a"].ravel(), std[:24], rtol=RTOL)
    assert_allclose(model.random_effects_std_["b"].ravel(), std[24:31], rtol=RTOL)
    assert_allclose(model.vcov_, C[-3:, -3:], rtol=POLARISED_RTOL)
    assert_allclose(fixed_errors(model), std[-3:], rtol=RTOL)
    known = Dense(
        Problem(
            data.terms(), data.design[:, :0], data.y, np.ones(150), np.zeros(0), dense.variances
        ),
        dense.variances,
        reml=True,
    )
    given_fixed = model.random_effects_covariance("b", given_fixed=True)
    assert_allclose(given_fixed.ravel(), np.diag(known.covariance)[24:31], rtol=RTOL)


def test_unknown_levels_carry_their_full_variance(data):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    rows = data.frame.iloc[:4].copy()
    rows["a"] = ["new", None, np.nan, "other"]
    rows.loc[3, "b"] = -1
    fitted = model.variance_components_
    z = np.column_stack([np.ones(4), rows["x"]])
    prior = np.einsum("ij,jk,ik->i", z, fitted["a"], z)
    prior[3] += fitted["b"]
    known = model.predict_interval(rows, effects=["b"], kind="confidence")
    std = np.diff(known, axis=1)[:, 0] / (2 * stats.norm.ppf(0.975))
    expected = np.sqrt(std**2 + prior + fitted["residual"])
    expected[3] = np.sqrt(std[3] ** 2 + prior[3] - fitted["b"] + fitted["residual"])
    assert_allclose(model.predict(rows, return_std=True)[1], expected, rtol=SAME_RTOL)
    # Left out, a factor is as unknown.
    left_out = model.predict(rows, return_std=True, effects=["b"])[1]
    assert_allclose(left_out, expected, rtol=SAME_RTOL)


def test_a_level_in_the_place_of_groups_is_told(data):
    model = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="got 0.9: give `level` by its name"):
        model.predict_interval(data.frame[["x", "a"]], 0.9)


def test_prediction_interval_is_that_of_the_standard_deviation(data):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    mean, std = model.predict(data.frame, return_std=True)
    interval = model.predict_interval(data.frame, level=0.8)
    assert_allclose(interval, np.column_stack(stats.norm(mean, std).interval(0.8)), rtol=SAME_RTOL)


def test_std_without_groups_is_that_of_least_squares():
    rng = np.random.default_rng(2)
    X = rng.normal(3.0, 1.0, size=(40, 2))
    y = X @ [1.0, -2.0] + rng.normal(size=40)
    model = MacKayMixedRegressor().fit(X, y)
    design = np.column_stack([np.ones(40), X])
    sigma2 = np.sum((y - model.predict(X)) ** 2) / 37
    variance = np.einsum("ij,jk,ik->i", design, np.linalg.inv(design.T @ design), design)
    assert_allclose(
        model.predict(X, return_std=True)[1], np.sqrt(sigma2 * (1 + variance)), rtol=RTOL
    )


@pytest.mark.parametrize("shape", [(60, 5), (20, 30)], ids=["tall", "wide"])
def test_std_of_a_block_is_that_of_bayesian_ridge(shape):
    rng = np.random.default_rng(3)
    # Columns of unequal size tell signal from noise also where there are more of them than rows.
    size = 1 / np.arange(1, 1 + shape[1])
    X, new = rng.normal(size=shape) * size, rng.normal(size=(7, shape[1])) * size
    y = 5 * X @ rng.normal(size=shape[1]) + rng.normal(size=shape[0])
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    theirs = BayesianRidge(fit_intercept=False, max_iter=10_000, tol=1e-13, **flat).fit(X, y)
    model = MacKayMixedRegressor(alpha="auto", fit_intercept=False).fit(X, y)
    # Its own sigma_ lacked the directions that no row sees before scikit-learn 1.7.
    precision = theirs.alpha_ * X.T @ X + theirs.lambda_ * np.eye(shape[1])
    covariance = np.linalg.inv(precision)
    for rows in (X, new):
        std = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows) + 1 / theirs.alpha_)
        for ours, other in zip(
            model.predict(rows, return_std=True), (theirs.predict(rows), std), strict=True
        ):
            assert_allclose(ours, other, rtol=0, atol=OPTIMUM_RTOL * np.std(y))
    assert_allclose(model.coef_std_, np.sqrt(np.diag(covariance)), rtol=OPTIMUM_RTOL)


@pytest.mark.parametrize("shape", [(60, 5), (20, 30)], ids=["tall", "wide"])
@pytest.mark.parametrize("to_matrix", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_intercept_of_a_block_is_at_zero_of_its_columns(shape, to_matrix):
    rng = np.random.default_rng(4)
    X = rng.normal(5.0, 1.0, size=shape)
    y = X @ rng.normal(size=shape[1]) + rng.normal(size=shape[0])
    model = MacKayMixedRegressor(alpha="auto").fit(to_matrix(X), y)
    at_zero = to_matrix(np.zeros((1, shape[1])))
    interval = model.predict_interval(at_zero, kind="confidence")
    width = np.diff(interval)[0, 0] / (2 * stats.norm.ppf(0.975))
    assert_allclose(model.intercept_std_, width, rtol=SAME_RTOL)


def test_parts_add_up_to_the_prediction(data):
    rng = np.random.default_rng(5)
    frame = data.frame.assign(**{f"g{i}": rng.normal(size=150) for i in range(3)})
    model = MacKayMixedRegressor(**PARAMETERS, feature_blocks={"genes": ["g0", "g1", "g2"]})
    parts = model.fit(frame, data.y).predict_components(frame)
    assert list(parts) == ["fixed", "genes", "a", "b"]
    assert_allclose(sum(parts.values()), model.predict(frame), rtol=SAME_RTOL)
    assert_allclose(
        parts["fixed"], model.predict(frame.assign(g0=0, g1=0, g2=0), effects="population")
    )


def test_draws_have_the_predictive_distribution(data):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    rows = pd.concat([data.frame.iloc[:3]] * 2, ignore_index=True)
    rows["a"] = ["new", "new", "other", *rows["a"][3:]]
    draws = model.sample_y(rows, DRAWS, random_state=0)
    mean, std = model.predict(rows, return_std=True)
    assert draws.shape == (6, DRAWS)
    assert_allclose(draws.std(axis=1), std, rtol=DRAWS_RTOL)
    assert_allclose(draws.mean(axis=1), mean, rtol=0, atol=6 * std.max() / np.sqrt(DRAWS))
    # The rows of a new level share its effect.
    z = np.column_stack([np.ones(2), rows["x"][:2]])
    together = z[0] @ model.variance_components_["a"] @ z[1]
    without = model.sample_y(rows.assign(a=["p", "q", "r", *rows["a"][3:]]), DRAWS, random_state=0)
    gained = np.cov(draws)[0, 1] - np.cov(without)[0, 1]
    assert_allclose(gained, together, rtol=0, atol=2 * DRAWS_RTOL * std[0] * std[1])


def test_draws_of_a_wide_block_have_the_predictive_distribution():
    rng = np.random.default_rng(6)
    X, new = rng.normal(size=(15, 20)), rng.normal(size=(4, 20))
    model = MacKayMixedRegressor(alpha="auto").fit(X, X @ rng.normal(size=20))
    draws = model.sample_y(new, DRAWS, random_state=1)
    assert_allclose(draws.std(axis=1), model.predict(new, return_std=True)[1], rtol=DRAWS_RTOL)


def test_draws_without_groups_have_the_variance_of_unknown_levels(data):
    X = data.frame[["x", "z"]]
    model = MacKayMixedRegressor().fit(X, data.y, groups=data.a)
    with pytest.warns(UserWarning, match="predicts without groups"):
        draws = model.sample_y(X.iloc[:2], DRAWS)
    with pytest.warns(UserWarning, match="predicts without groups"):
        std = model.predict(X.iloc[:2], return_std=True)[1]
    assert_allclose(draws.std(axis=1), std, rtol=DRAWS_RTOL)


@pytest.mark.slow
def test_fits_in_threads_leave_the_number_of_threads_alone(data):
    before = [pool["num_threads"] for pool in threadpool_info()]
    X = data.frame[["x", "a"]]
    Parallel(4, backend="threading")(
        delayed(MacKayMixedRegressor(groups="a").fit)(X, data.y + i) for i in range(40)
    )
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_draws_can_be_repeated(data):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    assert_array_equal(model.sample_y(data.frame, 2), model.sample_y(data.frame, 2))
    assert np.any(model.sample_y(data.frame, 2) != model.sample_y(data.frame, 2, random_state=1))


def test_several_outputs_have_each_their_own(data):
    Y = np.column_stack([data.y, 3 * data.y + np.random.default_rng(7).normal(size=150)])
    together = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, Y)
    mean, std = together.predict(data.frame, return_std=True)
    interval = together.predict_interval(data.frame)
    assert mean.shape == std.shape == (150, 2)
    assert interval.shape == (150, 2, 2)
    assert together.sample_y(data.frame, 3).shape == (150, 2, 3)
    for j in range(2):
        alone = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, Y[:, j])
        assert_allclose(std[:, j], alone.predict(data.frame, return_std=True)[1], rtol=RTOL)
        assert_allclose(interval[:, j], alone.predict_interval(data.frame), rtol=RTOL)
        for name, expected in alone.random_effects_std_.items():
            assert_allclose(together.random_effects_std_[name][j], expected, rtol=RTOL)
        assert_allclose(together.coef_std_[j], alone.coef_std_, rtol=RTOL)


def test_groups_given_as_an_array(data):
    X, labels = data.frame[["x", "z"]], data.frame["a"]
    by_column = MacKayMixedRegressor(groups="a").fit(data.frame.drop(columns="b"), data.y)
    by_array = MacKayMixedRegressor().fit(X, data.y, groups=labels)
    expected = by_column.predict(data.frame.drop(columns="b"), return_std=True)[1]
    assert_allclose(by_array.predict(X, labels, return_std=True)[1], expected, rtol=SAME_RTOL)
    assert_array_equal(by_array.sample_y(X, 2, groups=labels).shape, (150, 2))


def test_a_variance_of_zero_leaves_effects_certain():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"g": np.repeat(np.arange(10), 5), "x": rng.normal(size=50)})
    y = rng.normal(size=50)
    y -= pd.Series(y).groupby(frame["g"]).transform("mean").to_numpy()
    model = MacKayMixedRegressor(groups="g").fit(frame, y)
    assert model.variance_components_["g"] == 0.0
    assert_array_equal(model.random_effects_std_["g"], 0.0)


@pytest.mark.filterwarnings("ignore:The model fits y exactly")
def test_an_exact_fit_is_certain_of_known_levels(data):
    model = MacKayMixedRegressor(groups="b").fit(data.frame[["x", "b"]], 2 * data.frame["x"])
    assert_array_equal(model.predict(data.frame[["x", "b"]], return_std=True)[1], 0.0)


def test_without_a_covariance_the_error_says_how_to_get_it(data):
    model = MacKayMixedRegressor(**PARAMETERS, store_covariance=False).fit(data.frame, data.y)
    advice = r"store_covariance=False\. Fit with True"
    with pytest.raises(ValueError, match=advice):
        model.predict(data.frame, return_std=True)
    with pytest.raises(ValueError, match=advice):
        model.predict_interval(data.frame)
    with pytest.raises(ValueError, match=advice):
        model.sample_y(data.frame)
    with pytest.raises(AttributeError, match=advice):
        _ = model.random_effects_std_
    assert np.all(np.isfinite(fixed_errors(model)))


def test_auto_keeps_what_is_small(monkeypatch, data):
    monkeypatch.setattr("sklearn_mackay.model.fit.KEPT_ENTRIES", 10)
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    assert not hasattr(model, "random_effects_std_")
    with pytest.raises(ValueError, match="more than the 16 MiB of store_covariance='auto'"):
        model.sample_y(data.frame)
    assert hasattr(
        model.set_params(store_covariance=True).fit(data.frame, data.y), "random_effects_std_"
    )


@pytest.mark.slow
def test_iterative_fit_keeps_the_covariance_when_asked(data):
    exact = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    parameters = {**PARAMETERS, "solver": "iterative", "random_state": 0}
    iterative = MacKayMixedRegressor(**parameters).fit(data.frame, data.y)
    if iterative.solver_ == "iterative":
        with pytest.raises(AttributeError, match="After the iterative engine it is kept with"):
            _ = iterative.random_effects_std_
    held = {**parameters, "fixed_variances": exact.variance_components_, "store_covariance": True}
    iterative = MacKayMixedRegressor(**held).fit(data.frame, data.y)
    std = iterative.predict(data.frame, return_std=True)[1]
    assert_allclose(std, exact.predict(data.frame, return_std=True)[1], rtol=RTOL)


def test_a_covariance_beyond_the_memory_is_refused(data, monkeypatch):
    model = MacKayMixedRegressor(**PARAMETERS).fit(data.frame, data.y)
    monkeypatch.setattr(_machine, "physical_memory", lambda: 1e3)
    with pytest.raises(MemoryError, match="no standard deviation for so many effects"):
        model.predict(data.frame, return_std=True)


@pytest.mark.parametrize("level", [0.0, 1.0, -1, "95"])
def test_level_must_be_a_probability(data, level):
    model = MacKayMixedRegressor(groups="b").fit(data.frame[["x", "b"]], data.y)
    with pytest.raises(ValueError, match="`level` must be a probability"):
        model.predict_interval(data.frame[["x", "b"]], level=level)


def test_kind_must_be_known(data):
    model = MacKayMixedRegressor(groups="b").fit(data.frame[["x", "b"]], data.y)
    with pytest.raises(ValueError, match="`kind` must be"):
        model.predict_interval(data.frame[["x", "b"]], kind="tolerance")


# Feature blocks beside an intercept: centring dense columns moves the internal intercept.

CONTAINERS = {"dense": np.asarray, "sparse": sparse.csr_array}
HELD = {"g": 1.5, "genes": 0.5, "other": 0.2, "residual": 0.8}


class BesideBlocks:
    """Ten groups, a fixed feature and two blocks of large mean, at given variances."""

    def __init__(self, shape: tuple[int, int]) -> None:
        rng = np.random.default_rng(11)
        n, p = shape
        self.g = np.arange(n) % 10
        self.x = rng.normal(2.0, 1.0, size=n)
        self.genes, self.other = rng.normal(5.0, 1.0, size=(n, p)), rng.normal(-3.0, 1.0, (n, 2))
        self.y = self.x + self.genes.mean(axis=1) + rng.normal(size=n)
        self.X = np.column_stack([self.x, self.genes, self.other, self.g])

    def fit(self, container, **parameters) -> MacKayMixedRegressor:
        group = self.X.shape[1] - 1
        model = MacKayMixedRegressor(
            groups=[group],
            feature_blocks={"genes": range(1, group - 2), "other": [group - 2, group - 1]},
            fixed_variances={f"x{group}" if key == "g" else key: v for key, v in HELD.items()},
            **parameters,
        )
        return model.fit(container(self.X), self.y)

    def covariance(self, fixed: np.ndarray) -> np.ndarray:
        """Of estimate less truth: group effects, blocks' coefficients, coefficients of `fixed`."""
        p = self.genes.shape[1]
        W = np.column_stack([np.eye(10)[self.g], self.genes, self.other, fixed])
        prior = np.repeat([HELD["g"], HELD["genes"], HELD["other"]], [10, p, 2])
        precision = np.append(1 / prior, np.zeros(fixed.shape[1]))
        return np.linalg.inv(W.T @ W / HELD["residual"] + np.diag(precision))


@pytest.fixture(params=[(60, 5), (25, 40)], ids=["tall", "wide"])
def beside_blocks(request):
    return BesideBlocks(request.param)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_effects_given_the_fixed_effects_beside_blocks_are_those_of_dense_algebra(
    beside_blocks, container
):
    model = beside_blocks.fit(container)
    factor, n = model.groups_[0], len(beside_blocks.y)
    given = model.random_effects_covariance(factor, given_fixed=True)
    expected = np.diag(beside_blocks.covariance(np.empty((n, 0))))[:10]
    assert_allclose(given.ravel(), expected, rtol=RTOL)
    design = np.column_stack([np.ones(n), beside_blocks.x])
    C = beside_blocks.covariance(design)
    assert_allclose(model.random_effects_covariance(factor).ravel(), np.diag(C)[:10], rtol=RTOL)
    assert_allclose(model.vcov_, C[-2:, -2:], rtol=POLARISED_RTOL)
    assert_allclose(model.intercept_std_, np.sqrt(C[-2, -2]), rtol=RTOL)
    std = model.coef_std_[~np.isnan(model.coef_)]
    assert_allclose(std[:-2], np.sqrt(np.diag(C))[[-1, *range(10, len(C) - 4)]])


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_without_a_kept_covariance_the_intercept_beside_blocks_has_none(beside_blocks, container):
    model, kept = (beside_blocks.fit(container, store_covariance=keep) for keep in (False, True))
    assert np.isnan(model.vcov_[0]).all()
    assert_allclose(model.vcov_[1, 1], kept.vcov_[1, 1], rtol=RTOL)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("value", [0.1, 3.0])
def test_a_constant_block_of_given_variance_keeps_its_prior(container, value):
    """With an intercept the data say nothing about its coefficients: they have their prior."""
    rng = np.random.default_rng(12)
    x, g = rng.normal(size=60), np.arange(60) % 6
    X = np.column_stack([x, np.full(60, value), np.full(60, 2 * value)])
    y = 1.0 + x + rng.normal(size=6)[g] + rng.normal(size=60)
    held = {"flat": 4.0, "residual": 1.0}
    model = MacKayMixedRegressor(feature_blocks={"flat": [1, 2]}, fixed_variances=held)
    model.fit(container(X), y, groups=g)
    alone = MacKayMixedRegressor(fixed_variances={"residual": 1.0})
    alone.fit(container(X[:, :1]), y, groups=g)
    assert model.variance_components_["flat"] == 4.0
    assert_allclose(model.coef_, [alone.coef_[0], 0.0, 0.0], atol=SAME_RTOL)
    assert_allclose(model.coef_std_, [alone.coef_std_[0], 2.0, 2.0], rtol=RTOL)
    assert_allclose(model.log_likelihood_, alone.log_likelihood_, rtol=RTOL)
    flat = 4.0 * (value**2 + (2 * value) ** 2)
    assert_allclose(model.intercept_std_**2, alone.intercept_std_**2 + flat, rtol=RTOL)
    new = np.array([[0.5, value + 1.0, 2 * value], [0.5, value, 2 * value - 3.0]])
    moved = 4.0 * np.array([1.0, 9.0])
    mean, std = model.predict(container(new), g[:2], return_std=True)
    mean_alone, std_alone = alone.predict(container(new[:, :1]), g[:2], return_std=True)
    assert_allclose(mean, mean_alone, rtol=SAME_RTOL)
    assert_allclose(std**2, std_alone**2 + moved, rtol=RTOL)
    draws = model.sample_y(container(new), DRAWS, groups=g[:2])
    assert_allclose(draws.std(axis=1), std, rtol=DRAWS_RTOL)


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("shape", [(40, 3), (10, 30)], ids=["tall", "wide"])
def test_a_constant_block_of_free_variance_is_told(container, shape):
    X = np.column_stack([np.full(shape, 0.1), np.random.default_rng(13).normal(size=shape[0])])
    model = MacKayMixedRegressor(feature_blocks={"flat": range(shape[1])})
    with pytest.warns(UserWarning, match="No column of feature block 'flat' varies"):
        model.fit(container(X), X[:, -1] + np.random.default_rng(14).normal(size=shape[0]))
    assert model.variance_components_["flat"] == 0.0
    assert_array_equal(model.coef_std_[:-1], 0.0)


def test_a_constant_block_without_intercept_is_a_feature():
    X, y = np.full((30, 1), 2.0), np.random.default_rng(15).normal(4.0, 1.0, size=30)
    held = {"flat": 4.0, "residual": 1.0}
    model = MacKayMixedRegressor(
        feature_blocks={"flat": [0]}, fixed_variances=held, fit_intercept=False
    ).fit(X, y)
    precision = 30 * 2.0**2 + 1 / 4.0
    assert_allclose(model.coef_, 2.0 * y.sum() / precision, rtol=RTOL)
    assert_allclose(model.coef_std_, 1 / np.sqrt(precision), rtol=RTOL)
    zero = MacKayMixedRegressor(
        feature_blocks={"flat": [0]}, fixed_variances=held, fit_intercept=False
    ).fit(np.zeros((30, 1)), y)
    assert_allclose(zero.predict([[3.0]], return_std=True)[1], np.sqrt(9.0 * 4.0 + 1.0), rtol=RTOL)
