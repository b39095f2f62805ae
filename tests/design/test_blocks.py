"""Feature blocks: one penalty per block of columns, chosen by the evidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, optimize, sparse
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import BayesianRidge, LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.design.blocks import make_block
from sklearn_mackay.design.weighted import WeightedRows
from sklearn_mackay.frames.roles import FIXED_BLOCK
from sklearn_mackay.gram.layout import Layout, choose_layout
from sklearn_mackay.kernels import engine

EVIDENCE = 1e-6  # relative, of a variance; the loop ends where its error is 1e-6 standard errors
BAYESIAN_RIDGE = 1e-8  # relative; both ends of an iteration to 1e-12
SCALED = 1e-8  # relative, of variances under a change of units
CRITERION = 1e-6  # in units of the deviance
ROUNDING = 1e-9  # relative, the same equations in another arrangement
MANY_ERRORS = 5.0  # Monte Carlo standard errors
DENSE = 1e-7  # relative, of coefficients by a dense covariance of the rows; 4e-14 was seen
DENSE_EFFECTS = 1e-8  # of effects of order one, and relative, of predictions, by the same
STATIONARY = 1e-4  # of the squares of a block: two terms of a derivative that cancel at an optimum
OFFSET = 1e-7  # relative, of columns moved by 1e4, whose squares keep eight digits of their spread
SAME_CRITERION = 1e-12  # relative, of a criterion that is flat at the optimum
SAME_VARIANCE = 1e-8  # relative, of two ways to one optimum
NEXT_TO_ZERO = 1e-10  # of a number of order one that is zero
IN_TURN = 1e-7  # of coefficients and predictions: each of two fits ends where it likes
PROBED = 2e-3  # of coefficients of order one, whose variances err by those of the probes
PROBED_PREDICTION = 0.02  # of predictions, sums of several such coefficients
ML_SHRINKS = 0.1  # relative, of alpha: ML takes the one coefficient that is not penalised for known
MACKAY = 1e-5  # relative, of alpha: the same optimum, by a method that ends by its own changes

SHAPES = {"tall": (120, 8), "square": (30, 30), "wide": (40, 90)}


def regression(rng, n, p, *, scale=0.4):
    """Columns of unequal spread about an offset, and a response."""
    X = rng.normal(size=(n, p)) * rng.uniform(0.5, 2.0, size=p) + 3.0
    return X, X @ rng.normal(size=p) * scale + rng.normal(size=n) + 5.0


def evidence_optimum(X, y, weights=None):
    """Variances (tau2, sigma2) where the evidence, the intercept integrated out, is greatest.

    The root of its derivative in ``log tau2 / sigma2``, in the eigenbasis of ``XX'`` on contrasts.
    """
    weights = np.ones(len(y)) if weights is None else weights
    root = np.sqrt(weights)
    contrasts = linalg.null_space(root[None])
    d, U = np.linalg.eigh(contrasts.T @ (root[:, None] * (X @ X.T) * root) @ contrasts)
    d, z = np.maximum(d, 0.0), U.T @ contrasts.T @ (root * y)

    def slope(log_ratio):
        signal = d * np.exp(log_ratio)
        V = 1.0 + signal
        return np.sum(signal / V) - len(z) * np.sum(z**2 * signal / V**2) / np.sum(z**2 / V)

    log_ratio = optimize.brentq(slope, -9.0, 6.0, xtol=1e-14)
    sigma2 = np.mean(z**2 / (1.0 + d * np.exp(log_ratio)))
    return sigma2 * np.exp(log_ratio), sigma2


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_auto_is_the_optimum_of_the_evidence(rng, shape, weighted):
    X, y = regression(rng, *shape)
    weights = rng.uniform(0.5, 2.0, size=len(y)) if weighted else None
    model = MacKayMixedRegressor(alpha="auto", weight_type="precision")
    model.fit(X, y, sample_weight=weights)
    tau2, sigma2 = evidence_optimum(X, y, weights)
    assert model.converged_
    assert_allclose(model.variance_components_[FIXED_BLOCK], tau2, rtol=EVIDENCE)
    assert_allclose(model.variance_components_["residual"], sigma2, rtol=EVIDENCE)
    assert_allclose(model.alpha_[FIXED_BLOCK], sigma2 / tau2, rtol=EVIDENCE)
    ridge = Ridge(alpha=sigma2 / tau2, solver="svd").fit(X, y, sample_weight=weights)
    assert_allclose(model.coef_, ridge.coef_, rtol=EVIDENCE, atol=EVIDENCE)
    assert_allclose(model.intercept_, ridge.intercept_, rtol=EVIDENCE)


def test_steps_beyond_the_tolerance_are_no_condition_of_convergence(rng):
    X, y = regression(rng, 30, 30)
    model = MacKayMixedRegressor(alpha="auto").fit(X, y)
    changes = [entry["change"] for entry in model.history_]
    reached = next(i for i, change in enumerate(changes) if change <= model.tol)
    assert reached < model.n_iter_
    assert MacKayMixedRegressor(alpha="auto", max_iter=reached).fit(X, y).converged_


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_auto_equals_ridge_at_its_penalty(rng, shape):
    X, y = regression(rng, *shape)
    model = MacKayMixedRegressor(alpha="auto").fit(X, y)
    ridge = Ridge(alpha=model.alpha_[FIXED_BLOCK], solver="svd").fit(X, y)
    assert_allclose(model.coef_, ridge.coef_, rtol=ROUNDING, atol=ROUNDING)
    assert_allclose(model.predict(X), ridge.predict(X), rtol=ROUNDING)
    hat = linalg.solve(
        (X - X.mean(0)).T @ (X - X.mean(0)) + model.alpha_[FIXED_BLOCK] * np.eye(X.shape[1]),
        (X - X.mean(0)).T @ (X - X.mean(0)),
    )
    assert_allclose(model.effective_dof_[FIXED_BLOCK], np.trace(hat), rtol=ROUNDING)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_without_intercept_it_is_bayesian_ridge_with_flat_priors(rng, shape):
    X, y = regression(rng, *shape, scale=0.1)
    X, y = X - X.mean(axis=0), y - y.mean()
    flat = {"alpha_1": 0.0, "alpha_2": 0.0, "lambda_1": 0.0, "lambda_2": 0.0}
    expected = BayesianRidge(fit_intercept=False, tol=1e-13, max_iter=100_000, **flat).fit(X, y)
    model = MacKayMixedRegressor(alpha="auto", fit_intercept=False, tol=1e-12).fit(X, y)
    assert_allclose(
        [model.variance_components_[FIXED_BLOCK], model.variance_components_["residual"]],
        [1 / expected.lambda_, 1 / expected.alpha_],
        rtol=BAYESIAN_RIDGE,
    )
    assert_allclose(model.coef_, expected.coef_, rtol=BAYESIAN_RIDGE, atol=BAYESIAN_RIDGE)


def block_criterion(blocks, y, log_variances):
    """REML deviance of ``sum_k tau2_k X_k X_k' + sigma2 I`` beside an intercept, and gradient."""
    variances = np.exp(log_variances)
    n, one = len(y), np.ones((len(y), 1))
    parts = [*(B @ B.T for B in blocks), np.eye(n)]
    V = sum(v * part for v, part in zip(variances, parts, strict=True))
    inverse = np.linalg.inv(V)
    XVX = (one.T @ inverse @ one).item()
    P = inverse - inverse @ one @ one.T @ inverse / XVX
    Py = P @ y
    value = (n - 1) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + np.log(XVX) + y @ Py
    slopes = [
        v * (np.sum(P * part) - Py @ part @ Py) for v, part in zip(variances, parts, strict=True)
    ]
    return float(value), np.array(slopes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sizes", [(4, 7), (30, 5, 12), (50, 60)])
def test_no_start_finds_a_better_criterion(seed, sizes):
    rng = np.random.default_rng(seed)
    n = 45
    columns = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    X = rng.normal(size=(n, sum(sizes)))
    # Strong, weak and no signal.
    y = rng.normal(size=n) + 2.0
    for strength, block in zip((1.0, 0.1, 0.0), columns, strict=False):
        y += X[:, block] @ rng.normal(size=len(block)) * strength / np.sqrt(len(block))
    names = {f"block {i}": list(map(int, block)) for i, block in enumerate(columns)}
    model = MacKayMixedRegressor(feature_blocks=names).fit(X, y)
    blocks = [X[:, block] for block in columns]
    found = [
        optimize.minimize(
            lambda theta: block_criterion(blocks, y, theta),
            rng.normal(size=len(sizes) + 1) * 2,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-25.0, 8.0)] * len(sizes) + [(-8.0, 8.0)],
            options={"ftol": 1e-15, "gtol": 1e-9},
        ).fun
        for _ in range(20)
    ]
    assert model.converged_
    assert -2 * model.log_likelihood_ <= min(found) + CRITERION


@pytest.mark.slow
def test_most_blocks_of_noise_get_no_variance_at_all():
    zeros = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(150, 13))
        y = X[:, :10] @ rng.normal(size=10) + rng.normal(size=150)
        blocks = {"signal": list(range(10)), "noise": [10, 11, 12]}
        model = MacKayMixedRegressor(feature_blocks=blocks).fit(X, y)
        variances = model.variance_components_
        is_zero = variances["noise"] == 0.0
        zeros += is_zero
        assert np.all((model.coef_[10:] == 0.0) == is_zero)
        assert np.all(model.coef_[:10] != 0.0)
        assert model.singular_ == is_zero == (model.alpha_["noise"] == np.inf)
        # Zero just where the slope of the criterion without the block says so.
        without = MacKayMixedRegressor(alpha="auto").fit(X[:, :10], y).variance_components_
        start = np.log([without[FIXED_BLOCK], 1e-9, without["residual"]])
        _, slopes = block_criterion([X[:, :10], X[:, 10:]], y, start)
        assert is_zero == (slopes[1] > 0)
    # A chi-squared variable with three degrees of freedom is below its mean with probability 0.61.
    assert zeros == 32


def test_units_of_the_response_and_of_a_block(rng):
    X, y = regression(rng, 80, 12)
    blocks = {"a": [0, 1, 2, 3], "b": list(range(4, 12))}
    base = MacKayMixedRegressor(feature_blocks=blocks, tol=1e-11).fit(X, y)
    scaled_y = MacKayMixedRegressor(feature_blocks=blocks, tol=1e-11).fit(X, 1e4 * y)
    X_scaled = X * np.repeat([1e-3, 1.0], [4, 8])
    scaled_X = MacKayMixedRegressor(feature_blocks=blocks, tol=1e-11).fit(X_scaled, y)
    for name in ("a", "b", "residual"):
        expected = base.variance_components_[name]
        assert_allclose(scaled_y.variance_components_[name], expected * 1e8, rtol=SCALED)
        factor = 1e6 if name == "a" else 1.0
        assert_allclose(scaled_X.variance_components_[name], expected * factor, rtol=SCALED)
    assert_allclose(scaled_X.predict(X_scaled), base.predict(X), rtol=SCALED)


def test_an_offset_of_the_columns_changes_the_intercept_only(rng):
    X, y = regression(rng, 60, 6)
    base, moved = (MacKayMixedRegressor(alpha="auto").fit(Z, y) for Z in (X, X + 1e4))
    assert_allclose(moved.coef_, base.coef_, rtol=OFFSET)
    assert_allclose(moved.predict(X + 1e4), base.predict(X), rtol=OFFSET)


def with_groups(rng, n=300):
    """Two crossed factors, a fixed feature and two blocks."""
    g, h = rng.integers(25, size=n), rng.integers(15, size=n)
    X = rng.normal(size=(n, 9))
    y = X @ np.append([2.0], rng.normal(size=8) * np.repeat([1.0, 0.3], 4)) + rng.normal(size=n)
    y += rng.normal(size=25)[g] + 0.5 * rng.normal(size=15)[h]
    return np.column_stack([X, g, h]), y


BOTH = {
    "groups": [9, 10],
    "feature_blocks": {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]},
}


def test_groups_and_blocks_in_one_criterion(rng):
    X, y = with_groups(rng)
    model = MacKayMixedRegressor(**BOTH).fit(X, y)
    v = model.variance_components_
    G = [np.eye(25)[X[:, 9].astype(int)], np.eye(15)[X[:, 10].astype(int)]]
    A, B = X[:, 1:5], X[:, 5:9]
    V = v["x9"] * G[0] @ G[0].T + v["x10"] * G[1] @ G[1].T + v["residual"] * np.eye(len(y))
    V += v["a"] * A @ A.T + v["b"] * B @ B.T
    F = np.column_stack([X[:, 0], np.ones(len(y))])
    VF = np.linalg.solve(V, F)
    beta = np.linalg.solve(F.T @ VF, VF.T @ y)
    Py = np.linalg.solve(V, y - F @ beta)
    assert_allclose([model.coef_[0], model.intercept_], beta, rtol=DENSE)
    assert_allclose(model.coef_[1:5], v["a"] * A.T @ Py, rtol=DENSE)
    assert_allclose(model.coef_[5:9], v["b"] * B.T @ Py, rtol=DENSE)
    assert_allclose(model.random_effects_["x9"][:, 0], v["x9"] * G[0].T @ Py, atol=DENSE_EFFECTS)
    assert_allclose(model.predict(X), y - v["residual"] * Py, rtol=DENSE_EFFECTS)
    # Stationary in every variance.
    P = np.linalg.inv(V)
    P -= VF @ np.linalg.solve(F.T @ VF, VF.T)
    for Z in (*G, A, B):
        assert abs(np.sum((Z.T @ P) * Z.T) - np.sum((Z.T @ Py) ** 2)) < STATIONARY * np.sum(Z**2)


@pytest.mark.slow
def test_engines_agree_on_groups_and_blocks(rng):
    X, y = with_groups(rng)
    expected = MacKayMixedRegressor(**BOTH, solver="exact").fit(X, y)
    model = MacKayMixedRegressor(**BOTH, solver="iterative", random_state=0).fit(X, y)
    assert model.solver_ == "iterative"
    for name, variance in expected.variance_components_.items():
        error = model.variance_mc_error_[name]
        assert abs(model.variance_components_[name] - variance) <= MANY_ERRORS * error
    assert_allclose(model.coef_, expected.coef_, rtol=0, atol=PROBED)


LAYOUTS = {
    "crossed": {"groups": [9, 10], "random_slopes": {9: [0]}},
    "nested": {"groups": [9, 11], "random_slopes": {9: [0]}},
    "nested and crossed": {"groups": [9, 11, 10]},
    "one factor": {"groups": [9]},
    "no factor": {"groups": None, "fixed_features": [0]},
}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [{"a": [1, 2, 3]}, BOTH["feature_blocks"]], ids=["one", "two"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_elimination_and_one_dense_matrix_agree(rng, monkeypatch, layout, blocks):
    X, y = with_groups(rng)
    X = np.column_stack([X, X[:, 9] // 5])
    models = []
    for order in (0, 10_000):
        monkeypatch.setattr(engine, "FEW_EFFECTS", order)
        models.append(MacKayMixedRegressor(**layout, feature_blocks=blocks).fit(X, y))
    eliminated, dense = models
    assert_allclose(eliminated.log_likelihood_, dense.log_likelihood_, rtol=SAME_CRITERION)
    assert_allclose(eliminated.coef_, dense.coef_, rtol=ROUNDING, atol=ROUNDING)
    for name, variance in dense.variance_components_.items():
        assert_allclose(
            eliminated.variance_components_[name], variance, rtol=SAME_VARIANCE, atol=NEXT_TO_ZERO
        )


def test_rows_and_columns_give_the_same_axes(rng):
    # The same block by its columns' cross-products and by its rows'.
    X = rng.normal(size=(12, 9)) + 2.0
    weights = rng.uniform(0.5, 2.0, size=12)
    tall = make_block(X, WeightedRows(weights), centered=True)
    padded = np.column_stack([X, np.full((12, 8), 7.0)])
    wide = make_block(padded, WeightedRows(weights), centered=True)
    assert tall.principal is None
    assert wide.principal.shape == (12, 9)
    rows = tall.rows(slice(None)) * tall.scale
    principal = wide.principal * wide.scale
    assert_allclose(principal @ principal.T, rows @ rows.T, rtol=ROUNDING, atol=ROUNDING)
    c = rng.normal(size=9)
    centered = padded - np.average(padded, axis=0, weights=weights)
    assert_allclose(centered @ wide.coefficients(c), wide.principal @ c, atol=ROUNDING)


def test_wide_blocks_never_form_a_matrix_of_their_columns(rng, monkeypatch):
    orders, eigh = [], linalg.eigh

    def counted(matrix):
        orders.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr("sklearn_mackay.design.blocks.linalg.eigh", counted)
    X, y = regression(rng, 20, 700, scale=0.05)
    MacKayMixedRegressor(feature_blocks={"a": range(400), "b": range(400, 700)}).fit(X, y)
    assert orders == [20, 20]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("grouped", [False, True], ids=["", "grouped"])
def test_sparse_equals_dense(rng, shape, grouped):
    n, p = shape
    X = np.where(rng.random((n, p)) < 0.3, rng.normal(size=(n, p)), 0.0)
    g = rng.permutation(np.arange(n) % 8)
    y = X @ rng.normal(size=p) + rng.normal(size=n) + grouped * rng.normal(size=8)[g]
    table = np.column_stack([g, X])
    parameters = {"groups": [0] if grouped else None, "alpha": "auto"}
    if not grouped:
        table = X
    expected = MacKayMixedRegressor(**parameters).fit(table, y)
    model = MacKayMixedRegressor(**parameters).fit(sparse.csr_array(table), y)
    for name, variance in expected.variance_components_.items():
        assert_allclose(model.variance_components_[name], variance, rtol=EVIDENCE)
    assert_allclose(model.coef_, expected.coef_, rtol=EVIDENCE, atol=EVIDENCE)
    assert_allclose(model.intercept_, expected.intercept_, rtol=EVIDENCE)


@pytest.mark.slow
@pytest.mark.parametrize("container", [np.array, sparse.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("grouped", [False, True], ids=["", "grouped"])
def test_large_blocks_are_iterated_on(rng, monkeypatch, container, grouped):
    n, p = 400, 60
    X = np.where(rng.random((n, p)) < 0.2, rng.normal(size=(n, p)), 0.0)
    g, x = rng.integers(20, size=n), rng.normal(size=n)
    y = X @ rng.normal(size=p) + rng.normal(size=n) + grouped * rng.normal(size=20)[g] * (1 + x)
    table = container(np.column_stack([g, x, X]))
    parameters = {
        "groups": [0] if grouped else None,
        "random_slopes": {0: [1]} if grouped else None,
        "fixed_features": [1],
        "feature_blocks": {"a": range(2, 42), "b": range(42, 62)},
    }
    expected = MacKayMixedRegressor(**parameters).fit(table, y)
    assert expected.solver_ == "exact"
    monkeypatch.setattr("sklearn_mackay.design.blocks.LARGEST_GRAM", 30)  # "a" is large, "b" is not
    model = MacKayMixedRegressor(**parameters, random_state=0).fit(table, y)
    assert model.solver_ == "iterative"
    assert model.converged_
    for name, variance in expected.variance_components_.items():
        error = np.max(model.variance_mc_error_[name])
        assert error > 0
        difference = model.variance_components_[name] - variance
        assert np.all(np.abs(difference) <= MANY_ERRORS * error + EVIDENCE)
    assert_allclose(model.predict(table), expected.predict(table), rtol=0, atol=PROBED_PREDICTION)
    with pytest.raises(MemoryError, match="a feature block of 40 columns.*solver='iterative'"):
        MacKayMixedRegressor(**parameters, solver="exact").fit(table, y)


def test_variances_of_blocks_may_be_held(rng):
    X, y = regression(rng, 50, 6)
    held = {FIXED_BLOCK: 0.25, "residual": 2.0}
    model = MacKayMixedRegressor(alpha="auto", fixed_variances=held).fit(X, y)
    assert model.variance_components_ == held
    assert_allclose(model.coef_, Ridge(alpha=8.0).fit(X, y).coef_, rtol=ROUNDING)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_methods(rng, method):
    X, y = regression(rng, 60, 10)
    model = MacKayMixedRegressor(alpha="auto", method=method).fit(X, y)
    reml = MacKayMixedRegressor(alpha="auto").fit(X, y)
    assert model.converged_
    rtol = {"reml": 0.0, "ml": ML_SHRINKS, "mackay": MACKAY}[method]
    assert_allclose(model.alpha_[FIXED_BLOCK], reml.alpha_[FIXED_BLOCK], rtol=rtol)


def test_a_block_that_does_not_vary(rng):
    X, y = regression(rng, 40, 3)
    X = np.column_stack([X, np.full((40, 2), 1.5)])
    model = MacKayMixedRegressor(feature_blocks={"constant": [3, 4]})
    with pytest.warns(UserWarning, match="No column of feature block 'constant' varies"):
        model.fit(X, y)
    assert model.variance_components_["constant"] == 0.0
    assert_array_equal(model.coef_[3:], 0.0)
    assert_allclose(model.coef_[:3], LinearRegression().fit(X[:, :3], y).coef_, rtol=ROUNDING)


def test_coefficients_stand_in_the_order_of_the_columns(rng):
    X, y = regression(rng, 80, 5)
    names = list("vwxyz")
    frame = pd.DataFrame(X, columns=names)
    blocks = {"second": ["z", "v"], "first": ["x"]}
    model = MacKayMixedRegressor(feature_blocks=blocks, fixed_features=["y", "w"]).fit(frame, y)
    assert model.fixed_features_.tolist() == names
    assert list(model.variance_components_) == ["second", "first", "residual"]
    assert np.all(model.coef_std_ > 0)
    model.set_params(store_covariance=False).fit(frame, y)
    assert_array_equal(np.isnan(model.coef_std_), [True, False, True, False, True])
    assert_allclose(model.predict(frame), X @ model.coef_ + model.intercept_, rtol=ROUNDING)


INVALID = {
    "no dict": ({"feature_blocks": [0, 1]}, "`feature_blocks` must be a dict such as"),
    "empty": ({"feature_blocks": {"a": []}}, "`feature_blocks` has no columns for 'a'"),
    "unknown": ({"feature_blocks": {"a": [9]}}, "`feature_blocks` asks for column 9, but X has 4"),
    "twice": ({"feature_blocks": {"a": [0], "b": [0]}}, "`feature_blocks` lists 'x0' more than"),
    "fixed too": (
        {"feature_blocks": {"a": [0]}, "fixed_features": [0, 1]},
        "`fixed_features` and `feature_blocks` lists 'x0' more than once",
    ),
    "grouping column": (
        {"feature_blocks": {"a": [3]}, "groups": [3]},
        "`feature_blocks` lists 'x3', also a grouping column",
    ),
    "name of a factor": (
        {"feature_blocks": {"x3": [0]}, "groups": [3]},
        "`feature_blocks` has the name 'x3' of a grouping factor",
    ),
    "residual": ({"feature_blocks": {"residual": [0]}}, "cannot be called 'residual'"),
    "name of the fixed features": (
        {"feature_blocks": {FIXED_BLOCK: [0]}, "alpha": "auto"},
        "the fixed features are the block 'features'",
    ),
    "quick": ({"alpha": "auto", "method": "quick"}, "is published for grouping factors only"),
    "alpha": ({"alpha": "Auto"}, "`alpha` must be 'auto' or a number of at least 0, got 'Auto'"),
}


@pytest.mark.parametrize(("parameters", "message"), INVALID.values(), ids=INVALID)
def test_parameters_that_are_refused(rng, parameters, message):
    X, y = regression(rng, 30, 4)
    model = MacKayMixedRegressor(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(np.round(X), y)
    assert not hasattr(model, "coef_")


# Several responses.


@pytest.mark.slow
def test_several_responses_equal_fits_in_turn(rng):
    X, y = with_groups(rng)
    Y = np.column_stack([y, rng.normal(size=len(y)), 3.0 - 2.0 * y + rng.normal(size=len(y))])
    parameters = {**BOTH, "random_slopes": {9: [0]}}
    model = MacKayMixedRegressor(**parameters).fit(X, Y)
    for j in range(3):
        one = MacKayMixedRegressor(**parameters).fit(X, Y[:, j])
        assert_allclose(model.coef_[j], one.coef_, rtol=IN_TURN, atol=NEXT_TO_ZERO)
        assert_allclose(model.intercept_[j], one.intercept_, rtol=IN_TURN)
        for name, variance in one.variance_components_.items():
            assert_allclose(
                model.variance_components_[name][j], variance, rtol=EVIDENCE, atol=ROUNDING
            )
        assert_allclose(model.random_effects_["x9"][j], one.random_effects_["x9"], atol=IN_TURN)
        assert_allclose(model.predict(X)[:, j], one.predict(X), rtol=IN_TURN, atol=ROUNDING)
        assert_allclose(model.log_likelihood_[j], one.log_likelihood_, rtol=ROUNDING)
    assert model.predict(X.astype(object)).shape == (len(y), 3)
    assert model.score(X, Y) > 0.3


def test_a_column_of_responses_stays_a_column(rng):
    X, y = regression(rng, 40, 3)
    model = MacKayMixedRegressor(alpha="auto").fit(X, y[:, None])
    one = MacKayMixedRegressor(alpha="auto").fit(X, y)
    assert model.coef_.shape == (1, 3)
    assert model.predict(X).shape == (40, 1)
    assert_allclose(model.predict(X)[:, 0], one.predict(X), rtol=ROUNDING)


def test_warnings_name_the_response(rng):
    X, y = regression(rng, 40, 3)
    with pytest.warns(UserWarning, match="Output 1: The model fits y exactly"):
        MacKayMixedRegressor(alpha="auto").fit(X, np.column_stack([y, np.ones(40)]))


# A drop-in for Ridge.


@pytest.mark.parametrize(
    "around",
    [
        lambda model: make_pipeline(StandardScaler(), model),
        lambda model: TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp),
        lambda model: StackingRegressor([("mixed", model), ("ols", LinearRegression())], cv=3),
        lambda model: GridSearchCV(model, {"fit_intercept": [True, False]}, cv=3),
    ],
    ids=["pipeline", "transformed target", "stacking", "grid search"],
)
def test_takes_the_place_of_ridge(around):
    X, y = load_diabetes(return_X_y=True)
    model, ridge = around(MacKayMixedRegressor(alpha="auto")), around(Ridge(alpha=0.1))
    ours, theirs = (np.mean(cross_val_score(estimator, X, y, cv=3)) for estimator in (model, ridge))
    assert ours > theirs - 0.01


@pytest.mark.parametrize(
    ("blocks", "grouped", "largest", "expected"),
    [
        ({"a": range(80)}, False, 100, Layout((0,), ())),
        ({"a": range(80)}, True, 100, Layout((0,), (1,))),
        ({"a": range(50), "b": range(50, 80)}, False, 100, Layout((), (0, 1))),
        ({"a": range(80)}, False, 50, Layout((), (0,))),
    ],
    ids=["alone", "beside a factor", "two", "alone without axes"],
)
def test_only_a_block_alone_is_eliminated(rng, monkeypatch, blocks, grouped, largest, expected):
    # A block's axes meet all others, and a block without axes is not diagonal.
    layouts = []

    def recorded(crossproducts):
        layouts.append(choose_layout(crossproducts))
        return layouts[-1]

    monkeypatch.setattr("sklearn_mackay.model.posing.choose_layout", recorded)
    monkeypatch.setattr("sklearn_mackay.design.blocks.LARGEST_GRAM", largest)
    X, y = regression(rng, 200, 80)
    table = np.column_stack([X, np.arange(200) % 60])
    groups = [80] if grouped else None
    fixed = [] if grouped else [80]
    model = MacKayMixedRegressor(
        groups, fixed_features=fixed, feature_blocks=blocks, random_state=0
    )
    model.fit(table, y)
    assert set(layouts) == {expected}
