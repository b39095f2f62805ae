"""The theory page: its numbering, and its statements that no test of the code makes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import STRUCTURES, Dense, Problem, dense_solver, moved, random_problem
from scipy import stats
from scipy.linalg import block_diag
from structured import structure_of

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.design.terms import Term
from sklearn_mackay.evidence.boundary import steepest_release
from sklearn_mackay.evidence.criterion import deviance
from sklearn_mackay.evidence.fixed_points import mackay_update, mm_update
from sklearn_mackay.evidence.solution import Variances
from sklearn_mackay.kernels.dense import prepare

ROOT = Path(__file__).parent.parent
TAG = re.compile(r"\\tag\{(\d+)\}")
CITATION = re.compile(
    r"equations? \((\d+)\)(?: and \((\d+)\))?\s+of\s+docs/theory\.md", re.IGNORECASE
)

RTOL = 1e-10  # of the largest number in a sum; both sides lose a few digits of 16
STEP = 1e-4  # of a difference of four points; its errors h^4 and 1e-16/h are both below 1e-11
DIFFERENCE_RTOL = 1e-8  # of the largest number that cancels, a hundred times what was seen
FITTED_RTOL = 1e-5  # of a statistic; the optimum errs by 1e-6 standard errors, statistics by less
N_DRAWS = 100_000  # of balanced layouts, by their sums of squares; a share errs by 0.0016 at most
SHARE_ATOL = 0.005  # three standard errors of a share
SHARE_OF_SINGULAR_ATOL = 0.03  # the same where one fit in twenty counts
MSE_RTOL = 0.01  # three standard errors of a mean of squares over the draws and levels
STATED_ATOL = 5e-4  # a share is stated to three digits after the point

by_criterion = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])


def test_equations_are_numbered_in_order_and_each_is_cited_by_the_code_that_computes_it():
    equations = [int(n) for n in TAG.findall((ROOT / "docs" / "theory.md").read_text())]
    sources = sorted((ROOT / "sklearn_mackay").rglob("*.py"))
    cited = {
        int(n)
        for source in sources
        for numbers in CITATION.findall(source.read_text())
        for n in numbers
        if n
    }
    assert equations == list(range(1, len(equations) + 1))
    assert cited == set(equations)


def test_no_line_of_the_page_is_a_comment():
    # MyST drops lines that begin with a percent sign, as a share does that wraps.
    assert not re.search(r"^\s*%", (ROOT / "docs" / "theory.md").read_text(), re.MULTILINE)


def derivative(function, at: float = 0.0):
    """From four points."""
    h = STEP
    near, far = function(at + h) - function(at - h), function(at + 2 * h) - function(at - 2 * h)
    return (8 * near - far) / (12 * h)


def factors(variances: Variances) -> list[np.ndarray]:
    """Lower triangular ``T_k`` with ``Sigma_k = sigma2 T_k T_k'``."""
    return [np.linalg.cholesky(S / variances.sigma2) for S in variances.Sigma]


def spherical(problem: Problem, T: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Henderson's matrix of equation (2), and how many of its rows are random effects."""
    Z = np.hstack([term.Z().toarray() for term in problem.terms])
    expanded = [np.kron(np.eye(term.n_levels), t) for term, t in zip(problem.terms, T, strict=True)]
    columns = np.hstack([Z @ block_diag(*expanded), problem.X])
    q = Z.shape[1]
    K = columns.T @ (problem.weights[:, None] * columns)
    K += np.diag(np.concatenate([np.ones(q), problem.penalty]))
    return K, q


def log_det(problem: Problem, T: list[np.ndarray], *, reml: bool) -> float:
    """Of the part of the matrix that the criterion takes; penalised columns come first."""
    K, q = spherical(problem, T)
    n = len(K) if reml else q + int(np.count_nonzero(problem.penalty))
    return float(np.linalg.slogdet(K[:n, :n])[1])


@by_criterion
def test_derivative_in_sigma2_has_the_penalty_beside_the_residual(rng, reml):
    structure = STRUCTURES["2 crossed, 2 coefficients"]
    problem = random_problem(rng, p=4, n_penalized=2, weighted=True, **structure)
    here = problem.variances
    dense = Dense(problem, here, reml)
    fitted = problem.X @ dense.beta
    for k, Z in enumerate(dense.Z):
        fitted += Z @ dense.b(k).ravel()
    eWe = problem.weights @ (problem.y - fitted) ** 2
    penalty = problem.penalty @ dense.beta**2
    gamma = sum(np.sum(dense.N(k) * S) for k, S in enumerate(here.Sigma))
    squares = eWe + penalty
    expected = (dense.dof - gamma) / here.sigma2 - squares / here.sigma2**2

    actual = derivative(
        lambda sigma2: Dense(problem, replace(here, sigma2=sigma2), reml).deviance, here.sigma2
    )
    atol = DIFFERENCE_RTOL * dense.dof / here.sigma2
    assert_allclose(actual, expected, rtol=0, atol=atol)
    assert penalty / here.sigma2**2 > 1e3 * atol
    assert_allclose(dense.solution().eWe, squares, rtol=RTOL)


def test_penalised_columns_add_their_own_part_to_the_trace_of_the_hat_matrix(rng):
    problem = random_problem(rng, p=4, n_penalized=2, weighted=True)
    dense = Dense(problem, problem.variances, True)
    X, penalty = problem.X[:, :2], problem.penalty[:2]
    of_penalised = problem.variances.sigma2 * np.sum(np.diag(X.T @ dense.P @ X) / penalty)
    expected = 2 + np.sum(dense.N(0) * problem.variances.Sigma[0]) + of_penalised
    assert_allclose(dense.hat_trace, expected, rtol=RTOL)


@by_criterion
def test_trace_part_is_the_derivative_of_the_log_determinant_over_twice_sigma2(rng, reml):
    structure = STRUCTURES["2 crossed, 2 coefficients"]
    problem = random_problem(rng, p=3, n_penalized=1, weighted=True, **structure)
    # Far from one, which would hide the factor.
    problem = replace(problem, variances=problem.variances.scaled(3.0))
    dense, T = Dense(problem, problem.variances, reml), factors(problem.variances)
    for k in range(2):
        slopes = np.zeros((2, 2))
        for a, b in np.ndindex(2, 2):

            def along(h, k=k, a=a, b=b):
                changed = [t.copy() for t in T]
                changed[k][a, b] += h
                return log_det(problem, changed, reml=reml)

            slopes[a, b] = derivative(along)
        N = slopes @ np.linalg.inv(T[k]) / (2 * problem.variances.sigma2)
        scale = np.max(np.abs(dense.N(k)))
        assert_allclose(N, dense.N(k), rtol=0, atol=DIFFERENCE_RTOL * scale)
    assert_allclose(log_det(problem, T, reml=reml), dense.log_det, rtol=RTOL)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1.0, 1e8])
def test_the_random_block_is_bounded_below_and_the_whole_matrix_is_not(rng, size):
    structure = STRUCTURES["nested and crossed"]
    problem = random_problem(rng, p=3, weighted=True, **structure)
    problem = replace(problem, X=0.01 * problem.X)
    T = [size * t for t in factors(problem.variances)]
    K, q = spherical(problem, T)
    random = K[:q, :q]
    largest = np.linalg.eigvalsh(random)[-1]
    assert np.linalg.eigvalsh(random)[0] >= 1.0 - RTOL * largest
    assert np.linalg.eigvalsh(K)[0] < 0.1

    # What eliminating some of the effects leaves of the others.
    left = random[5:, 5:] - random[5:, :5] @ np.linalg.solve(random[:5, :5], random[:5, 5:])
    assert np.linalg.eigvalsh(left)[0] >= 1.0 - RTOL * largest

    # And what eliminating all of them leaves of X.
    XWX = problem.X.T @ (problem.weights[:, None] * problem.X)
    of_X = K[q:, q:] - K[q:, :q] @ np.linalg.solve(random, K[:q, q:])
    rounding = RTOL * np.linalg.norm(XWX)
    assert np.linalg.eigvalsh(of_X - XWX / largest)[0] >= -rounding
    assert np.linalg.eigvalsh(XWX - of_X)[0] >= -rounding


@pytest.mark.parametrize("update", [mackay_update, mm_update])
@pytest.mark.parametrize("signal", [True, False], ids=["zero is wrong", "zero is right"])
def test_zero_is_a_fixed_point_and_the_gradient_decides_whether_it_is_the_answer(
    rng, update, signal
):
    problem = random_problem(rng, levels=(6, 5), p=2)
    y = problem.y + 3.0 * problem.terms[0].codes
    if not signal:
        # What is orthogonal to all columns has no effects.
        ZX = np.hstack([*(term.Z().toarray() for term in problem.terms), problem.X])
        y = y - ZX @ np.linalg.lstsq(ZX, y, rcond=None)[0]
    zero = np.zeros((1, 1))
    here = Variances(problem.variances.sigma2, (zero, problem.variances.Sigma[1]))
    problem = replace(problem, y=y)
    solution = dense_solver(problem)(here)
    moved_to = update(solution, problem.freedom())
    assert_array_equal(moved_to.Sigma[0], zero)

    slope, _ = steepest_release(zero, solution.N[0], solution.gradient[0], structure_of(False))
    along = Variances(0.0, (np.eye(1), zero))
    change = derivative(lambda h: Dense(problem, moved(here, along, h), True).deviance)
    atol = DIFFERENCE_RTOL * float(solution.N[0][0, 0])
    assert_allclose(slope, change, rtol=0, atol=atol)
    assert (slope < 0.0) == signal


@by_criterion
def test_a_fixed_point_of_a_singular_covariance_is_stationary_on_its_range_alone(rng, reml):
    problem = random_problem(rng, n=80, levels=(12,), coefficients=(2,), p=2)
    solve, freedom = dense_solver(problem, reml=reml), problem.freedom(reml=reml)
    here = Variances(problem.variances.sigma2, (np.diag([1.0, 0.0]),))
    for _ in range(100):
        here = mackay_update(solve(here), freedom)
    solution = solve(here)
    again = mackay_update(solution, freedom)
    assert_allclose(again.Sigma[0], here.Sigma[0], rtol=0, atol=RTOL * here.Sigma[0][0, 0])
    G, scale = solution.gradient[0], float(np.trace(solution.N[0]))
    assert here.Sigma[0][0, 0] > 0.0
    assert_allclose(here.Sigma[0][1], 0.0, atol=RTOL)
    assert_allclose(G[0, 0], 0.0, atol=RTOL * scale)
    assert abs(G[0, 1]) > 0.01 * scale


@by_criterion
def test_frequency_weights_are_rows_and_precision_weights_are_variances(rng, reml):
    problem = random_problem(rng, levels=(6, 5), coefficients=(2, 1), p=3)
    counts = rng.integers(1, 4, size=len(problem.y))
    weighted = replace(problem, weights=counts.astype(float))
    rows = np.repeat(np.arange(len(counts)), counts)
    expanded = replace(
        problem,
        terms=tuple(
            Term(t.codes[rows], t.n_levels, t.columns[:, rows], t.transform, t.structure)
            for t in problem.terms
        ),
        X=problem.X[rows],
        y=problem.y[rows],
        weights=np.ones(len(rows)),
    )
    solution = prepare(weighted.crossproducts(), reml=reml)(problem.variances)
    of_rows = Dense(expanded, problem.variances, reml)
    for actual, desired in zip(solution.N, of_rows.solution().N, strict=True):
        assert_allclose(actual, desired, rtol=0, atol=RTOL * np.max(np.abs(desired)))
    assert_allclose(solution.eWe, of_rows.solution().eWe, rtol=RTOL)

    p = problem.X.shape[1] * reml
    arguments = dict(penalty=problem.penalty)
    frequency = deviance(solution, dof=len(rows) - p, sum_log_weights=0.0, **arguments)
    assert_allclose(frequency, of_rows.deviance, rtol=RTOL)
    log_weights = float(np.sum(np.log(counts)))
    precision = deviance(solution, dof=len(counts) - p, sum_log_weights=log_weights, **arguments)
    assert_allclose(precision, Dense(weighted, problem.variances, reml).deviance, rtol=RTOL)
    more_rows = len(rows) - len(counts)
    difference = more_rows * np.log(2 * np.pi * problem.variances.sigma2) + log_weights
    assert_allclose(frequency - precision, difference, rtol=RTOL)


@pytest.mark.parametrize(("n_levels", "share"), [(6, 0.131), (20, 0.067), (50, 0.056)])
def test_the_likelihood_ratio_of_a_coefficient_between_few_groups_errs_too_often(n_levels, share):
    # With x between balanced levels the statistic is L log(1 + t^2/(L - 2)), and t exact.
    bound = stats.chi2.isf(0.05, 1)
    t2 = (n_levels - 2) * np.expm1(bound / n_levels)
    assert_allclose(stats.f.sf(t2, 1, n_levels - 2), share, rtol=0, atol=STATED_ATOL)


def test_the_likelihood_ratio_between_balanced_groups_is_a_function_of_t(rng):
    codes = np.repeat(np.arange(6), 5)
    x = np.linspace(-1.0, 1.0, 6)[codes][:, None]
    y = 3.0 * rng.normal(size=6)[codes] + rng.normal(size=30)
    large = MacKayMixedRegressor(method="ml").fit(x, y, groups=codes)
    small = MacKayMixedRegressor(method="ml", fixed_features=[]).fit(x, y, groups=codes)
    tests = MacKayMixedRegressor().fit(x, y, groups=codes).fixed_effects()
    assert_allclose(tests.df[1], 4.0, rtol=FITTED_RTOL)
    expected = 6 * np.log1p(tests.t_value[1] ** 2 / 4)
    assert_allclose(large.compare(small).statistic, expected, rtol=FITTED_RTOL)


def test_a_variance_of_zero_drops_out_of_the_degrees_of_freedom(rng):
    codes = np.repeat(np.arange(6), 5)
    x = np.linspace(-1.0, 1.0, 6)[codes][:, None]
    y = rng.normal(size=30)
    y -= np.bincount(codes, y)[codes] / 5
    model = MacKayMixedRegressor().fit(x, y + x[:, 0], groups=codes)
    assert model.singular_
    assert_allclose(model.fixed_effects().df, 28.0, rtol=FITTED_RTOL)


def draw_balanced(n_levels: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects and means (n_draws, L) of levels, and sums of squares within; both variances one."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(N_DRAWS, n_levels))
    means = effects + rng.normal(size=effects.shape) / np.sqrt(n_rows)
    return effects, means, rng.chisquare(n_levels * (n_rows - 1), size=N_DRAWS)


def test_both_tests_of_a_coefficient_between_six_groups_in_simulations():
    L, m, n = 6, 5, 30
    _, means, within = draw_balanced(L, m)
    x = np.linspace(-1.0, 1.0, L)
    means = means - np.mean(means, axis=1, keepdims=True)
    of_slope = m * (means @ x) ** 2 / (x @ x)
    left = m * np.sum(means**2, axis=1) - of_slope

    def ml(between):
        free = (n - L) * np.log(within / (n - L)) + L * np.log(between / L)
        pooled = n * np.log((within + between) / n)
        return np.where(between / L >= within / (n - L), free, pooled)

    errs = ml(left + of_slope) - ml(left) > stats.chi2.isf(0.05, 1)
    assert_allclose(np.mean(errs), 0.126, rtol=0, atol=SHARE_ATOL)

    singular = left / (L - 2) < within / (n - L)
    scale = np.where(singular, (within + left) / (n - 2), left / (L - 2))
    errs = stats.f.sf(of_slope / scale, 1, np.where(singular, n - 2, L - 2)) < 0.05
    assert_allclose(np.mean(errs), 0.052, rtol=0, atol=SHARE_ATOL)
    assert_allclose(np.mean(singular), 0.046, rtol=0, atol=SHARE_ATOL)
    assert_allclose(np.mean(errs[singular]), 0.40, rtol=0, atol=SHARE_OF_SINGULAR_ATOL)


def predict_balanced(means: np.ndarray, within: np.ndarray, n_rows: int):
    """Predicted means of levels by REML, and their stated variance at the estimated variances."""
    L = means.shape[-1]
    n = L * n_rows
    center = np.mean(means, axis=-1, keepdims=True)
    between = n_rows * np.sum((means - center) ** 2, axis=-1)
    interior = between / (L - 1) > within / (n - L)
    pooled = (within + between) / (n - 1)
    inner = np.where(interior, within / (n - L), pooled)
    outer = np.where(interior, between / (L - 1), pooled)
    shrinkage = 1 - inner / outer
    variance = inner / n_rows * (shrinkage * (1 - 1 / L) + 1 / L)
    return center + shrinkage[..., None] * (means - center), variance


def test_the_stated_variance_of_a_level_takes_the_variances_as_known(rng):
    codes = np.repeat(np.arange(6), 5)
    y = 2.0 * rng.normal(size=6)[codes] + rng.normal(size=30)
    means = np.bincount(codes, y) / 5
    mean, variance = predict_balanced(means, np.sum((y - means[codes]) ** 2), 5)
    levels = np.arange(6)
    model = MacKayMixedRegressor(fixed_features=[]).fit(codes[:, None], y, groups=codes)
    actual, std = model.predict(levels[:, None], groups=levels, return_std=True)
    assert_allclose(actual, mean, rtol=FITTED_RTOL)
    residual = model.variance_components_["residual"]
    assert_allclose(std**2 - residual, variance, rtol=FITTED_RTOL)


@pytest.mark.parametrize(
    ("n_levels", "mse", "known", "stated"),
    [(6, 0.1894, 0.1722, 0.1539), (12, 0.1775, 0.1694, 0.1613), (50, 0.1692, 0.1673, 0.1654)],
)
def test_what_the_stated_variance_of_a_level_leaves_out(n_levels, mse, known, stated):
    effects, means, within = draw_balanced(n_levels, 5)
    predicted, variance = predict_balanced(means, within, 5)
    assert_allclose(np.mean((predicted - effects) ** 2), mse, rtol=MSE_RTOL)
    assert_allclose(np.mean(variance), stated, rtol=MSE_RTOL)
    at_the_truth = (5 / 6 * (1 - 1 / n_levels) + 1 / n_levels) / 5
    assert_allclose(at_the_truth, known, rtol=MSE_RTOL)
