"""The fixed part: an orthonormal basis inside, ordinary least squares and Ridge outside."""

from __future__ import annotations

import numpy as np
import pytest
from designs import RegressedPart, columns_of, factor_rows, options, regressed
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.linear_model import Ridge

from sklearn_mackay._arrays import row_blocks
from sklearn_mackay.evidence.solution import Engine
from sklearn_mackay.frames.options import RESIDUAL
from sklearn_mackay.kernels.exact import prepare
from sklearn_mackay.model.estimates import Estimates, estimates
from sklearn_mackay.model.fit import fit_model
from sklearn_mackay.model.posing import pose_rows
from sklearn_mackay.model.problem import Fitted

N = 30
RTOL = 1e-11  # of the largest coefficient; well conditioned problems lose some digits of 16
DUPLICATE_RTOL = 1e-10  # equal columns under alpha = 1e-3: the penalised Gram has condition 1e5
OFFSET_RTOL = 1e-15  # per unit of offset: y + 1e12 has four digits after the point left
TINY_SPREAD_RTOL = 1e-7  # X of spread 1e-5 about 1: eleven digits of X are left
ORTHONORMAL = 1e-13  # of inner products of orthonormal columns of 30 rows; 4e-15 was seen
INTERCEPT_RTOL = 1e-14  # of an intercept that an offset makes up: some roundings
RIDGE_RTOL = 1e-7  # of the limit of ridge regression, where 1e-9 stands for no penalty

CONTAINERS = {"dense": np.array, "sparse": sparse.csr_array}
in_both_containers = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [True, False])


@pytest.fixture
def data(rng):
    X = rng.normal(size=(N, 3)) + [0.0, 1.0, -2.0]
    weights = rng.uniform(0.5, 2.0, size=N)
    y = 4.0 + X @ [1.0, 2.0, 3.0] + rng.normal(size=N)
    return X, y, weights


def build(X, y, weights, *, fit_intercept=True, alpha=0.0, container=np.array) -> RegressedPart:
    # A dense X is overwritten, so that each call gets its own.
    return regressed(container(X), y, weights, options(alpha, fit_intercept))


def least_squares(X, y, weights, fit_intercept=True):
    """Intercept and coefficients, and their covariance over sigma2, of weighted least squares."""
    design = np.column_stack([np.ones(len(y)), X]) if fit_intercept else X
    scale = np.max(np.abs(design), axis=0)
    root = np.sqrt(weights)[:, None] * (design / scale)
    coefficients = np.linalg.lstsq(root, np.sqrt(weights) * y, rcond=None)[0] / scale
    covariance = np.linalg.inv(root.T @ root) / np.outer(scale, scale)
    if not fit_intercept:
        coefficients = np.append(0.0, coefficients)
        covariance = np.pad(covariance, [(1, 0), (1, 0)])
    return coefficients, covariance


def estimates_of(part: RegressedPart, weights):
    """What a model without random terms makes of a fixed part."""
    X = part.X.toarray() if sparse.issparse(part.X) else part.X
    gram = X.T @ (weights[:, None] * X)
    beta = np.linalg.solve(gram, X.T @ (weights * part.y))
    return part.coefficients(beta), part.fixed.covariance(np.linalg.inv(gram))


def assert_close(actual, expected, *, rtol=RTOL, scale=None):
    scale = np.max(np.abs(expected if scale is None else scale), initial=0.0)
    assert_allclose(actual, expected, rtol=0, atol=rtol * scale)


@with_and_without_intercept
def test_dense_columns_become_orthonormal(data, fit_intercept):
    X, y, weights = data
    part = build(X * [1.0, 1e6, 1e-6], y, weights, fit_intercept=fit_intercept)
    r = 3 + fit_intercept
    assert part.X.shape == (N, r)
    gram = part.X.T @ (weights[:, None] * part.X) / np.sum(weights)
    assert_close(gram, np.eye(r), rtol=ORTHONORMAL)
    if fit_intercept:
        assert_array_equal(part.X[:, -1], 1.0)
    assert_array_equal(part.fixed.penalty, np.zeros(r))
    assert_array_equal(part.fixed.dropped, [])


@in_both_containers
@with_and_without_intercept
def test_response_is_reduced_to_its_residual(data, fit_intercept, container):
    X, y, weights = data
    part = build(X, y, weights, fit_intercept=fit_intercept, container=container)
    coefficients, _ = least_squares(X, y, weights, fit_intercept)
    assert_close(part.y, y - coefficients[0] - X @ coefficients[1:], scale=y)
    assert_close(
        part.X.T @ (weights * part.y), np.zeros(part.X.shape[1]), scale=[N], rtol=ORTHONORMAL
    )
    assert_array_equal(
        part.coefficients(np.zeros(part.X.shape[1])), part.fixed.to_coefficients @ part.offset
    )


@in_both_containers
@with_and_without_intercept
@pytest.mark.parametrize("scale", [1e-150, 1e-75, 1.0, 1e75, 1e150])
def test_estimates_equal_least_squares_in_any_unit(data, fit_intercept, scale, container):
    X, y, weights = data
    expected, expected_cov = least_squares(X, y, weights, fit_intercept)
    part = build(X * scale, y, weights, fit_intercept=fit_intercept, container=container)
    with np.errstate(under="ignore", over="ignore"):
        coefficients, covariance = estimates_of(part, weights)
    unit = np.array([1.0, scale, scale, scale])
    assert_close(coefficients * unit, expected)
    assert_close(covariance[1:, 1:] * scale * scale, expected_cov[1:, 1:])
    assert_close(covariance[0] * unit, expected_cov[0])


@in_both_containers
@with_and_without_intercept
def test_columns_of_very_different_units(data, fit_intercept, container):
    X, y, weights = data
    expected, _ = least_squares(X, y, weights, fit_intercept)
    unit = np.array([1e-120, 1.0, 1e120])
    part = build(X * unit, y, weights, fit_intercept=fit_intercept, container=container)
    coefficients, _ = estimates_of(part, weights)
    assert_array_equal(part.fixed.dropped, [])
    assert_close(coefficients * np.append(1.0, unit), expected)
    assert part.fixed.condition < 10


@with_and_without_intercept
@pytest.mark.parametrize("offset", [1e8, 1e12])
def test_offset_of_the_response(data, fit_intercept, offset):
    X, y, weights = data
    shifted = y + offset
    y = shifted - offset  # what rounding left of y
    expected, _ = least_squares(X, y, weights)
    if fit_intercept:
        part = build(X, shifted, weights)
        exact = build(X, y, weights)
        assert_close(part.y, exact.y, rtol=OFFSET_RTOL * offset)
        coefficients, _ = estimates_of(part, weights)
        assert_close(coefficients[1:], expected[1:], rtol=OFFSET_RTOL * offset)
        assert_close(coefficients[0], expected[0] + offset, rtol=INTERCEPT_RTOL)
        # Rounding of the offset is in y, but none of it is left along X.
        assert_close(part.X.T @ (weights * part.y) / N, np.zeros(4), rtol=ORTHONORMAL, scale=[1.0])
    else:
        # Without an intercept the offset is for X to explain; it is no small residual.
        part = build(X, shifted, weights, fit_intercept=False)
        expected, _ = least_squares(X, shifted, weights, fit_intercept=False)
        assert_close(estimates_of(part, weights)[0], expected)


@pytest.mark.parametrize("offset", [1e8, 1e12])
def test_offset_of_the_columns(data, offset):
    X, y, weights = data
    shifted = X + offset
    expected, expected_cov = least_squares(shifted - offset, y, weights)
    part = build(shifted, y, weights)
    coefficients, covariance = estimates_of(part, weights)
    assert_array_equal(part.fixed.dropped, [])
    # Rounding of the mean shifts a column by a few units in the last place of the offset.
    assert_close(coefficients[1:], expected[1:], rtol=OFFSET_RTOL * offset)
    assert_close(covariance[1:, 1:], expected_cov[1:, 1:], rtol=OFFSET_RTOL * offset)
    residual = y - np.average(y, weights=weights)
    centered = shifted - offset - np.average(shifted - offset, axis=0, weights=weights)
    assert_close(part.y, residual - centered @ expected[1:], rtol=OFFSET_RTOL * offset)


def test_condition_is_that_of_the_scaled_columns(data, rng):
    X, y, weights = data
    assert build(X, y, weights).fixed.condition < 10
    close = np.column_stack([X, X[:, 0] + 1e-5 * rng.normal(size=N)])
    part = build(close, y, weights)
    assert_array_equal(part.fixed.dropped, [])
    assert 1e4 < part.fixed.condition < 1e6
    expected, _ = least_squares(close, y, weights)
    fitted = part.X @ part.offset
    assert_close(fitted, expected[0] + close @ expected[1:], scale=y)
    assert_close(estimates_of(part, weights)[0], expected, rtol=TINY_SPREAD_RTOL)


def test_near_duplicate_of_a_sparse_column_shows_in_its_condition(data, rng):
    X, y, weights = data
    close = np.column_stack([X, X[:, 0] + 1e-4 * rng.normal(size=N)])
    part = build(close, y, weights, container=sparse.csr_array)
    assert_array_equal(part.fixed.dropped, [])
    assert 1e3 < part.fixed.condition < 1e5


DEPENDENT = {
    "collinear": (lambda X: X[:, 0] - 2 * X[:, 1], {0, 1, 3}),
    "duplicate": (lambda X: X[:, 2], {2, 3}),
    "scaled duplicate": (lambda X: 1e9 * X[:, 2], {2, 3}),
    "zero": (lambda X: np.zeros(N), {3}),
}


@in_both_containers
@with_and_without_intercept
@pytest.mark.parametrize(("column", "candidates"), DEPENDENT.values(), ids=DEPENDENT)
def test_dependent_columns_are_dropped_and_named(
    data, column, candidates, fit_intercept, container
):
    X, y, weights = data
    wide = np.column_stack([X, column(X)])
    part = build(wide, y, weights, fit_intercept=fit_intercept, container=container)
    assert len(part.fixed.dropped) == 1
    assert set(part.fixed.dropped) <= candidates
    kept = np.setdiff1d(np.arange(4), part.fixed.dropped)
    expected, expected_cov = least_squares(wide[:, kept], y, weights, fit_intercept)
    coefficients, covariance = estimates_of(part, weights)
    assert_array_equal(coefficients[1 + part.fixed.dropped], 0.0)
    at = np.append(0, 1 + kept)
    # Coefficients of a column in units of 1e9 are compared in those units.
    unit = np.append(1.0, np.max(np.abs(wide[:, kept]), axis=0))
    assert_close(coefficients[at] * unit, expected * unit)
    units = np.outer(unit, unit)
    assert_close(covariance[np.ix_(at, at)] * units, expected_cov * units)
    fitted = coefficients[0] + wide @ coefficients[1:]
    assert_close(fitted, y - part.y, scale=y)


@in_both_containers
def test_a_constant_column_beside_the_intercept(data, container):
    X, y, weights = data
    for constant in (1.0, -3e-7, 0.1, 1e9):
        wide = np.column_stack([X[:, :1], np.full(N, constant), X[:, 1:]])
        part = build(wide, y, weights, container=container)
        assert_array_equal(part.fixed.dropped, [1])
        coefficients, _ = estimates_of(part, weights)
        expected, _ = least_squares(X, y, weights)
        assert_close(coefficients, np.insert(expected, 2, 0.0))


@in_both_containers
@pytest.mark.parametrize("n", [2, 23])
@pytest.mark.parametrize(
    "constants", [(3e-5,), (0.1,), (1e9,), (0.1, 7.0), (0.0, 0.0), (3e-5, 0.0)]
)
def test_nothing_but_constant_columns(rng, n, constants, container):
    y = rng.normal(size=n)
    part = build(np.tile(constants, (n, 1)), y, np.ones(n), container=container)
    assert part.X.shape == (n, 1)
    expected = np.append(np.mean(y), np.zeros(len(constants)))
    assert_close(part.coefficients(np.zeros(1)), expected, scale=y)
    assert_close(part.y, y - np.mean(y), scale=y)


@in_both_containers
def test_a_constant_column_without_an_intercept_stays(data, container):
    X, y, weights = data
    wide = np.column_stack([X, np.full(N, 5.0)])
    part = build(wide, y, weights, fit_intercept=False, container=container)
    assert_array_equal(part.fixed.dropped, [])
    expected, _ = least_squares(X, y, weights)
    assert_close(estimates_of(part, weights)[0], [0.0, *expected[1:], expected[0] / 5.0])


def test_several_dependent_columns(data):
    X, y, weights = data
    wide = np.column_stack([np.zeros(N), X, X @ [1.0, 1.0, 0.0], np.full(N, 2.0), X[:, 0]])
    part = build(wide, y, weights)
    assert len(part.fixed.dropped) == 4
    assert {0, 5} < set(part.fixed.dropped)
    expected, _ = least_squares(X, y, weights)
    coefficients, _ = estimates_of(part, weights)
    assert_close(coefficients[0] + wide @ coefficients[1:], expected[0] + X @ expected[1:])


@with_and_without_intercept
def test_no_columns_or_only_columns_of_zeros(data, fit_intercept):
    _, y, weights = data
    for X, container in [
        (np.zeros((N, 0)), np.array),
        (np.zeros((N, 2)), np.array),
        (np.zeros((N, 2)), sparse.csr_array),
    ]:
        part = build(X, y, weights, fit_intercept=fit_intercept, container=container)
        assert part.X.shape == (N, int(fit_intercept))
        assert_array_equal(part.fixed.dropped, np.arange(X.shape[1]))
        mean = np.average(y, weights=weights) if fit_intercept else 0.0
        coefficients = part.coefficients(np.zeros(int(fit_intercept)))
        assert_close(coefficients, np.append(mean, np.zeros(X.shape[1])))
        assert_close(part.y, y - mean)


@in_both_containers
@with_and_without_intercept
@pytest.mark.parametrize("weighted", [False, True])
def test_saturated_gives_the_least_norm_solution(rng, fit_intercept, weighted, container):
    n, p = 8, 20
    X, y = rng.normal(size=(n, p)) + 1.0, rng.normal(size=n) + 3.0
    weights = rng.uniform(0.5, 2.0, size=n) if weighted else np.ones(n)
    part = build(X, y, weights, fit_intercept=fit_intercept, container=container)
    # Of all exact fits the one of least norm; the intercept is free and weights play no part.
    center = fit_intercept * np.mean(X, axis=0)
    slopes = np.linalg.pinv(X - center) @ (y - fit_intercept * np.mean(y))
    intercept = np.mean(y - X @ slopes) if fit_intercept else 0.0
    coefficients = part.coefficients(np.zeros(part.X.shape[1]))
    assert_close(coefficients, np.append(intercept, slopes))
    assert_close(part.y, np.zeros(n), scale=y)
    assert_array_equal(part.fixed.dropped, [])
    limit = Ridge(alpha=1e-9, fit_intercept=fit_intercept, solver="svd").fit(X, y)
    assert_close(coefficients[1:], limit.coef_, rtol=RIDGE_RTOL)


@with_and_without_intercept
@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("n", [2, 3, 8])
def test_saturated_columns_with_an_offset(rng, n, offset, fit_intercept):
    X, y = rng.normal(size=(n, n + 3)) + offset, rng.normal(size=n)
    part = build(X, y, np.ones(n), fit_intercept=fit_intercept)
    assert part.X.shape == (n, n)
    columns = X
    if fit_intercept:
        columns = (X - offset) - np.mean(X - offset, axis=0)
    # The mean of a column of 1e6 is rounded at 1e-10; that is no further direction of X.
    slopes = np.linalg.pinv(columns, rcond=1e-9) @ (y - fit_intercept * np.mean(y))
    coefficients = part.coefficients(np.zeros(n))
    assert_close(coefficients[1:], slopes, rtol=OFFSET_RTOL * offset**1.5)
    assert_close(part.y, np.zeros(n), scale=y)


def test_an_exact_fit_by_dependent_columns_has_least_norm(data):
    X, _, weights = data
    y = 1.0 + X[:, 0]
    part = build(np.column_stack([X, X[:, 0]]), y, weights)
    coefficients = part.coefficients(np.zeros(part.X.shape[1]))
    assert_close(coefficients, [1.0, 0.5, 0.0, 0.0, 0.5])
    assert_array_equal(part.fixed.dropped, [])


@in_both_containers
@with_and_without_intercept
def test_log_det_of_the_basis(data, fit_intercept, container):
    X, y, weights = data
    wide = np.column_stack([X * [1.0, 50.0, 0.1], X[:, 0] + X[:, 1]])
    part = build(wide, y, weights, fit_intercept=fit_intercept, container=container)
    kept = np.setdiff1d(np.arange(4), part.fixed.dropped)
    design = np.column_stack([np.ones(N)] * fit_intercept + [wide[:, kept]])
    internal = part.X.toarray() if sparse.issparse(part.X) else part.X
    # X_internal = X_user A gives |X_i'WX_i| = |X_u'WX_u| |A|^2.
    user_det, internal_det = (
        np.linalg.slogdet(columns.T @ (weights[:, None] * columns))[1]
        for columns in (design, internal)
    )
    assert_close(part.fixed.log_det_basis, 0.5 * (internal_det - user_det), scale=[1.0])


@in_both_containers
@with_and_without_intercept
def test_penalised_columns_keep_their_penalty_in_the_users_units(data, fit_intercept, container):
    X, y, weights = data
    X = X * [1.0, 1e3, 1e-3]
    part = build(X, y, weights, alpha=2.5, fit_intercept=fit_intercept, container=container)
    assert_array_equal(part.fixed.penalty > 0, [True] * 3 + [False] * fit_intercept)
    beta = np.array([0.3, -1.0, 2.0, 0.7][: 3 + fit_intercept])
    user = part.fixed.to_coefficients @ beta
    assert_close(np.sum(part.fixed.penalty * beta**2), 2.5 * np.sum(user[1:] ** 2))
    internal = part.X.toarray() if sparse.issparse(part.X) else part.X
    assert_close(internal @ beta, user[0] + X @ user[1:])
    assert_array_equal(part.fixed.dropped, [])


def exact_engine(crossproducts, layout, large, *, reml):
    assert not large
    return Engine("exact", "tensorflow", prepare(crossproducts, layout, reml=reml))


def fit(X, y, weights, settings, factors=()) -> tuple[Fitted, Estimates]:
    posed = pose_rows(columns_of(X, weights, factors), y[:, None], settings)
    ((fitted, errors),) = fit_model(posed, exact_engine, lambda _: None)
    return fitted, estimates(fitted, errors)


@in_both_containers
@with_and_without_intercept
@pytest.mark.parametrize("seed", range(5))
def test_of_columns_alike_the_first_is_kept(seed, fit_intercept, container):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, 3))
    alike = np.column_stack([X[:, 0], X, -3.7 * X[:, 1], X[:, 2] / 3.0])
    y = rng.normal(size=N)
    part = build(alike, y, np.ones(N), fit_intercept=fit_intercept, container=container)
    assert_array_equal(part.fixed.dropped, [1, 4, 5])


@in_both_containers
@with_and_without_intercept
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
def test_penalised_model_equals_ridge(data, alpha, fit_intercept, container):
    X, y, weights = data
    wide = np.column_stack([X, X[:, 0] * 1e3, np.zeros(N)])
    _, model = fit(container(wide), y, weights, options(alpha, fit_intercept))
    ridge = Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd")
    ridge.fit(wide, y, sample_weight=weights)
    unit = np.array([1.0, 1.0, 1.0, 1e3, 1.0])
    assert_close(model.coef * unit, ridge.coef_ * unit, rtol=DUPLICATE_RTOL)
    assert_close(
        model.intercept, ridge.intercept_, scale=[ridge.intercept_, 1.0], rtol=DUPLICATE_RTOL
    )


@with_and_without_intercept
def test_penalised_model_with_a_factor_equals_ridge_on_its_columns(data, rng, fit_intercept):
    X, y, weights = data
    codes = rng.permutation(np.arange(N) % 5)
    alpha, sigma2, tau2 = 3.0, 1.5, 0.8
    held = {"g": np.array([[tau2]]), RESIDUAL: np.array([[sigma2]])}
    settings = options(alpha, fit_intercept, held)
    _, model = fit(X.copy(), y, weights, settings, [factor_rows(codes, 5)])
    # b ~ N(0, tau2) is a column whose ridge penalty is sigma2 / tau2.
    scale = np.sqrt(alpha * tau2 / sigma2)
    Z = np.eye(5)[codes] * scale
    ridge = Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd")
    ridge.fit(np.hstack([X, Z]), y, sample_weight=weights)
    assert_close(model.coef, ridge.coef_[:3])
    assert_close(model.b["g"][:, 0], ridge.coef_[3:] * scale)
    assert_close(model.intercept, ridge.intercept_, scale=[1.0])


@in_both_containers
@pytest.mark.parametrize("alpha", [0.0, 2.0])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_precision_weights_have_the_unit_of_the_residual_variance(data, factor, alpha, container):
    X, y, weights = data
    wide = np.column_stack([X, X[:, 0] - 2 * X[:, 1]])

    def in_unit(unit):
        settings = options(alpha * unit, True, frequency=False)
        return fit(container(wide), y, weights * unit, settings)

    (fit_expected, expected), (fit_actual, actual) = in_unit(1.0), in_unit(factor)
    dropped = fit_actual.problem.fixed.dropped
    assert_array_equal(dropped, fit_expected.problem.fixed.dropped)
    assert len(dropped) == (alpha == 0)
    assert_close(actual.coef, expected.coef)
    assert_close(actual.Sigma[RESIDUAL], factor * expected.Sigma[RESIDUAL])
    assert_close(actual.deviance, expected.deviance)
    known = np.isfinite(expected.fixed_cov)
    assert_close(actual.fixed_cov[known], expected.fixed_cov[known])


def test_rows_in_blocks_give_the_same(data, monkeypatch):
    X, y, weights = data
    whole = build(X, y, weights)
    monkeypatch.setattr("sklearn_mackay._arrays.BLOCK_ENTRIES", 28)
    assert len(row_blocks(*X.shape)) > 1
    blocks = build(X, y, weights)
    assert_close(blocks.y, whole.y)
    assert_close(blocks.X @ blocks.X.T, whole.X @ whole.X.T)
    assert_allclose(blocks.fixed.log_det_basis, whole.fixed.log_det_basis, rtol=RTOL)


@in_both_containers
@with_and_without_intercept
def test_combinations_that_fit_every_row_leave_the_criterion(rng, fit_intercept, container):
    X = rng.normal(size=(N, 2))
    y = X @ [2.0, -1.0]
    settings = options(0.0, fit_intercept, held={RESIDUAL: np.array([[1.0]])})
    _, alone = fit(container(X), y, np.ones(N), settings)
    fitted, twice = fit(container(np.column_stack([X, X[:, 0] - X[:, 1]])), y, np.ones(N), settings)
    assert len(fitted.problem.fixed.dropped) == 0
    assert_close(twice.deviance, alone.deviance)
    assert twice.n_parameters == alone.n_parameters
