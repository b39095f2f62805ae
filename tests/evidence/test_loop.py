"""The variance loop on the dense twin: optima, boundaries, closed forms and calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Dense, Problem, best_of_many_starts, dense_solver, random_problem
from scipy import stats
from structured import are_diagonal
from threadpoolctl import threadpool_limits

from sklearn_mackay.covariances.matrices import matrix_root, null_directions
from sklearn_mackay.covariances.structures import FULL
from sklearn_mackay.design.terms import Term
from sklearn_mackay.evidence.freedom import Freedom
from sklearn_mackay.evidence.loop import Optimum, Stopping, estimate_variances, relative_change
from sklearn_mackay.evidence.solution import Variances

TOL = 1e-7  # the estimator's default, in units of the deviance
TIGHT = 1e-14  # a decrement that puts gradients at the root of it
WORSE = 1e-6  # a peer's optimum may be this much better: ten times the default tolerance
GRADIENT = 5e-7  # in log variances at tolerance TIGHT (edge cases, section 5)
RISE = 1e-9  # rounding of a deviance of about 1e2
CLOSED_FORM = 1e-6  # relative, of variances at tolerance TIGHT; rounding is amplified near zero
NEAR_BOUNDARY = 1e-3  # |F - 1| below which TOL cannot tell a variance from zero
AT_TOL = 1e-3  # of a variance of order one, or a slope in its logarithm, at TOL, whose root is 3e-4
JUST_ABOVE_ZERO = 1e-5  # relative, of a variance of a thousandth at tolerance TIGHT
DEVIANCE_RTOL = 1e-12  # of a deviance, which is flat at its optimum
LEAST_SQUARES = 1e-12  # relative: without variances only orthogonal factors are left
HAT_TRACE = 1e-10  # of a trace of order ten, by way of a dense inverse
FIXED_POINT = 1e-9  # relative, of variances that a step of the method itself no longer changes
WITHOUT_ZERO = 1e-8  # of deviance and coefficients, where a term without variance is left out
NEGATIVE_RTOL = 1e-14  # a negative eigenvalue of this relative size is rounding
UNIT_RTOL = 1e-7  # of a residual variance at tolerance TIGHT, with y in another unit
EXACT_FIT = 1e-5  # relative: a residual below 1e-12 of the squares counts as none, 1e-6 of y
MULTISTART_SEEDS = range(12)  # few rows can have several optima; none of these seeds has
REJECTED = 1e-3  # probability of a false alarm of a calibration test; the seeds are fixed

STRUCTURES = {
    "one factor": dict(n=30, levels=(6,)),
    "crossed": dict(n=30, levels=(6, 5)),
    "nested": dict(n=36, levels=(9, 4), coarsens=(None, 0)),
    "slope": dict(n=30, levels=(7,), coefficients=(2,)),
    "two slopes": dict(n=36, levels=(8,), coefficients=(3,)),
    "diagonal": dict(n=30, levels=(6, 5), coefficients=(2, 2), diagonal=True),
    "crossed slopes": dict(n=36, levels=(6, 5), coefficients=(2, 2)),
}
MATRIX = ("slope", "two slopes", "crossed slopes")
SCALAR = tuple(name for name in STRUCTURES if name not in MATRIX)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of order 30 lose more than they gain by threads."""
    with threadpool_limits(limits=1):
        yield


by_structure = pytest.mark.parametrize("name", STRUCTURES)
by_criterion = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])


def draw(name: str, seed: int, **changes) -> Problem:
    """Regular, zero and rank-deficient true covariances in turn; p and weights vary too."""
    setting = dict(weighted=seed % 2 == 0, rank=(None, 0, 1, None)[seed % 4], p=(1, 0, 3)[seed % 3])
    return random_problem(np.random.default_rng(seed), **{**setting, **STRUCTURES[name], **changes})


def default_start(problem: Problem) -> Variances:
    share = float(np.var(problem.y)) / (len(problem.terms) + 1)
    return Variances(share, tuple(np.eye(t.n_coefficients) * share for t in problem.terms))


def estimate(
    problem: Problem,
    *,
    method="reml",
    start=None,
    freedom=None,
    max_iter=500,
    tol=TOL,
    report=lambda iteration: None,
) -> Optimum:
    reml = method != "ml"
    return estimate_variances(
        dense_solver(problem, reml=reml),
        problem.crossproducts(),
        start or default_start(problem),
        freedom or problem.freedom(reml=reml),
        method=method,
        stopping=Stopping(max_iter, tol),
        report=report,
    )


def interior_gradient(fit: Optimum, freedom: Freedom) -> float:
    """Largest derivative in log variances, and in directions that rotate a covariance."""
    solution = fit.solution
    parts = [abs(freedom.dof - solution.yPy)]  # of a common factor of all variances
    for Sigma, G, N, diagonal in zip(
        solution.variances.Sigma, solution.gradient, solution.N, are_diagonal(freedom), strict=True
    ):
        if diagonal:
            parts.append(np.max(np.abs(np.diag(G) * np.diag(Sigma))))
        else:
            # In units where N is the identity, so that gamma = tr Sigma.
            parts.append(np.max(np.abs(np.linalg.inv(matrix_root(N)) @ G @ matrix_root(Sigma))))
    return float(max(parts))


def least_slope(fit: Optimum, freedom: Freedom) -> float:
    """Least eigenvalue of the gradient relative to N; not negative at a boundary optimum."""
    slopes = []
    for G, N, diagonal in zip(
        fit.solution.gradient, fit.solution.N, are_diagonal(freedom), strict=True
    ):
        if diagonal:
            slopes.append(np.min(np.diag(G) / np.diag(N)))
        else:
            scale = np.linalg.inv(matrix_root(N))
            slopes.append(np.linalg.eigvalsh(scale @ G @ scale)[0])
    return float(min(slopes))


def is_singular(fit: Optimum) -> bool:
    return any(null_directions(Sigma).shape[1] > 0 for Sigma in fit.solution.variances.Sigma)


# Optima


@pytest.mark.slow
@by_criterion
@by_structure
def test_never_worse_than_many_starts_of_a_quasi_newton_method(name, reml):
    for seed in MULTISTART_SEEDS:
        problem = draw(name, seed)
        fit = estimate(problem, method="reml" if reml else "ml")
        assert fit.converged
        best = best_of_many_starts(problem, np.random.default_rng(seed), reml=reml)
        assert fit.deviance <= best + WORSE, seed
        assert_allclose(fit.deviance, Dense(problem, fit.solution.variances, reml).deviance)


@pytest.mark.slow
@by_criterion
@by_structure
def test_result_is_stationary_inside_and_uphill_at_the_boundary(name, reml):
    kinds = set()
    for seed in range(16):
        problem = draw(name, seed)
        freedom = problem.freedom(reml=reml)
        fit = estimate(problem, method="reml" if reml else "ml", tol=TIGHT)
        assert fit.converged
        assert interior_gradient(fit, freedom) <= GRADIENT
        assert least_slope(fit, freedom) >= -GRADIENT
        kinds.add(is_singular(fit))
    assert kinds == {True, False}


@pytest.mark.slow
@by_structure
def test_deviance_never_rises(name):
    for seed in range(12):
        problem = draw(name, seed)
        for method in ("reml", "ml", "mackay"):
            fit = estimate(problem, method=method, max_iter=40)
            deviances = [iteration.deviance for iteration in fit.history]
            assert np.max(np.diff(deviances)) <= RISE
            assert deviances[-1] == fit.deviance
            assert deviances[-1] < deviances[0]


@by_criterion
@by_structure
def test_effective_parameters_add_up_to_the_trace_of_the_hat_matrix(name, reml):
    for seed in range(4):
        problem = draw(name, seed)
        # Under ML the traces leave the estimation of beta out; the hat matrix does not.
        variances = estimate(problem, method="reml" if reml else "ml").solution.variances
        dense = Dense(problem, variances, True)
        total = problem.X.shape[1] + sum(dense.solution().gamma)
        assert_allclose(total, dense.hat_trace, rtol=HAT_TRACE, atol=HAT_TRACE)
        for term, gamma in zip(problem.terms, dense.solution().gamma, strict=True):
            assert 0 <= gamma < term.n_levels * term.n_coefficients


def agree(problem: Problem, tol=1e-8) -> None:
    newton = estimate(problem, tol=TIGHT)
    mackay = estimate(problem, method="mackay", tol=tol, max_iter=5000)
    assert newton.converged
    assert mackay.converged
    assert_allclose(mackay.deviance, newton.deviance, rtol=0, atol=WORSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCALAR)
def test_mackay_and_newton_reach_the_same_optimum(name):
    for seed in range(9):
        agree(draw(name, seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_mackay_and_newton_reach_the_same_regular_covariance(name):
    seen = 0
    for seed in range(0, 60, 4):
        problem = draw(name, seed, n=60)
        if not is_singular(estimate(problem)):
            agree(problem)
            seen += 1
    assert seen >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_mackay_and_newton_reach_the_same_singular_covariance(name):
    seen = 0
    for seed in range(2, 30, 4):
        problem = draw(name, seed)
        if is_singular(estimate(problem)):
            agree(problem)
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("name", SCALAR)
def test_mackay_fixed_point_is_reml_stationary(name):
    for seed in range(0, 12, 4):
        problem = draw(name, seed)
        fit = estimate(problem, method="mackay", tol=1e-11, max_iter=5000)
        solution, freedom = fit.solution, problem.freedom()
        assert interior_gradient(fit, freedom) <= GRADIENT
        if not is_singular(fit):
            for Sigma, U, N in zip(solution.variances.Sigma, solution.U, solution.N, strict=True):
                gamma = np.diag(Sigma) * np.diag(N)
                assert_allclose(np.diag(Sigma), np.diag(U) / gamma, rtol=FIXED_POINT)
        sigma2 = solution.eWe / (freedom.dof - sum(solution.gamma))
        assert_allclose(solution.variances.sigma2, sigma2, rtol=FIXED_POINT)


# Where it starts


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 1e-10, 1e-8, 1e-6, 1e-3, 1e6])
@pytest.mark.parametrize("name", ["one factor", "crossed", "nested", "slope"])
def test_start_does_not_matter(name, ratio):
    for seed in [*range(12), 52]:
        problem = draw(name, seed)
        start = default_start(problem)
        expected = estimate(problem).deviance
        elsewhere = Variances(start.sigma2, tuple(ratio * S for S in start.Sigma))
        fit = estimate(problem, start=elsewhere)
        assert fit.converged
        assert_allclose(fit.deviance, expected, rtol=0, atol=WORSE, err_msg=f"seed {seed}")


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_scale_of_the_start_does_not_matter(factor):
    for name in ("crossed", "slope"):
        problem = draw(name, 0)
        fit = estimate(problem, start=default_start(problem).scaled(factor))
        assert_allclose(fit.deviance, estimate(problem).deviance, rtol=0, atol=WORSE)


def test_start_of_rank_one_can_turn():
    for seed in range(0, 24, 4):
        problem = draw("slope", seed)
        first = np.diag([1.0, 0.0])
        fit = estimate(problem, start=Variances(1.0, (first,)))
        assert_allclose(fit.deviance, estimate(problem).deviance, rtol=0, atol=WORSE)


# Boundaries


def one_way(rng: np.random.Generator, k: int, m: int, rho: float) -> Problem:
    codes = np.repeat(np.arange(k), m)
    y = np.sqrt(rho) * rng.normal(size=k)[codes] + rng.normal(size=k * m)
    term = Term(codes, k, np.ones((1, k * m)), np.eye(1), FULL)
    ones = np.ones((k * m, 1))
    return Problem(
        (term,), ones, y, np.ones(k * m), np.zeros(1), Variances(1.0, (np.array([[rho]]),))
    )


def mean_squares(problem: Problem) -> tuple[float, float]:
    k = problem.terms[0].n_levels
    table = problem.y.reshape(k, -1)
    m = table.shape[1]
    means = table.mean(axis=1)
    within = float(np.sum((table - means[:, None]) ** 2)) / (k * (m - 1))
    return m * float(np.var(means, ddof=1)), within


def with_ratio(problem: Problem, F: float) -> Problem:
    """The same rows with the level means stretched so that MSB = F MSW."""
    k = problem.terms[0].n_levels
    table = problem.y.reshape(k, -1)
    means = table.mean(axis=1, keepdims=True)
    between, within = mean_squares(problem)
    stretched = np.mean(means) + (means - np.mean(means)) * np.sqrt(F * within / between)
    return replace(problem, y=(table - means + stretched).ravel())


def closed_form(problem: Problem) -> tuple[float, float, float]:
    """sigma2, tau2 and REML deviance (edge cases, section 3)."""
    k, n = problem.terms[0].n_levels, len(problem.y)
    m = n // k
    between, within = mean_squares(problem)
    constant = (n - 1) * (1 + np.log(2 * np.pi)) + np.log(n)
    if between > within:
        d = constant + k * (m - 1) * np.log(within) + (k - 1) * np.log(between)
        return within, (between - within) / m, d
    sigma2 = float(np.var(problem.y, ddof=1))
    return sigma2, 0.0, constant + (n - 1) * np.log(sigma2)


@pytest.mark.parametrize("method", ["reml", "mackay"])
@pytest.mark.parametrize("F", [0.0, 0.1, 0.9, 1.2, 3.0, 40.0])
@pytest.mark.parametrize(("k", "m"), [(2, 24), (6, 5), (20, 2)])
def test_balanced_one_way_closed_form(rng, k, m, F, method):
    problem = with_ratio(one_way(rng, k, m, 0.5), F)
    tol = TIGHT if method == "reml" else 1e-10
    fit = estimate(problem, method=method, tol=tol, max_iter=5000)
    sigma2, tau2, d = closed_form(problem)
    variances = fit.solution.variances
    assert fit.converged
    assert_allclose(variances.sigma2, sigma2, rtol=CLOSED_FORM)
    assert_allclose(fit.deviance, d, rtol=DEVIANCE_RTOL)
    if F < 1:
        assert variances.Sigma[0][0, 0] == 0.0
    else:
        assert_allclose(variances.Sigma[0][0, 0], tau2, rtol=CLOSED_FORM)


@pytest.mark.parametrize("excess", [1e-1, 1e-2, 3e-3])
@pytest.mark.parametrize("start", [0.0, 1e-12, 1e-4, 1.0, 1e4])
def test_optimum_just_above_zero_is_found(rng, excess, start):
    problem = with_ratio(one_way(rng, 30, 4, 0.0), 1 + excess)
    fit = estimate(problem, start=Variances(1.0, (np.array([[start]]),)), tol=TIGHT)
    sigma2, tau2, d = closed_form(problem)
    assert fit.converged
    assert_allclose(fit.deviance, d, rtol=DEVIANCE_RTOL)
    assert_allclose(fit.solution.variances.Sigma[0], [[tau2]], rtol=JUST_ABOVE_ZERO)
    assert_allclose(fit.solution.variances.sigma2, sigma2, rtol=CLOSED_FORM)


def test_a_flat_boundary_is_either_side_of_zero(rng):
    problem = with_ratio(one_way(rng, 30, 4, 0.0), 1.0)
    fit = estimate(problem)
    assert fit.converged
    assert_allclose(fit.deviance, closed_form(problem)[2], rtol=0, atol=WORSE)
    assert 0 <= fit.solution.variances.Sigma[0][0, 0] < AT_TOL


@pytest.mark.slow
@pytest.mark.parametrize(("k", "m", "rho"), [(6, 5, 0.0), (6, 5, 0.1), (10, 5, 0.1), (10, 5, 0.25)])
def test_probability_of_a_zero_variance(k, m, rho):
    n_runs = 300
    zeros = 0
    for seed in range(n_runs):
        problem = one_way(np.random.default_rng([k, m, int(100 * rho), seed]), k, m, rho)
        between, within = mean_squares(problem)
        sigma2, tau2, d = closed_form(problem)
        fit = estimate(problem)
        variances = fit.solution.variances
        assert fit.converged
        assert_allclose(fit.deviance, d, rtol=0, atol=WORSE)
        assert_allclose(variances.sigma2, sigma2, rtol=AT_TOL)
        assert_allclose(variances.Sigma[0][0, 0], tau2, rtol=0, atol=AT_TOL)
        if abs(between / within - 1) > NEAR_BOUNDARY:
            assert (variances.Sigma[0][0, 0] == 0.0) == (between <= within)
        zeros += variances.Sigma[0][0, 0] == 0.0
    probability = stats.f(k - 1, k * (m - 1)).cdf(1 / (1 + m * rho))
    assert stats.binomtest(zeros, n_runs, probability).pvalue > REJECTED


def test_a_true_zero_among_several_terms_equals_the_model_without_it(rng):
    seen = 0
    for seed in range(24):
        problem = draw("crossed", seed, rank=0)
        fit = estimate(problem, tol=TIGHT)
        zero = [bool(Sigma[0, 0] == 0.0) for Sigma in fit.solution.variances.Sigma]
        if zero != [True, False]:
            continue
        seen += 1
        without = replace(
            problem,
            terms=problem.terms[1:],
            variances=Variances(1.0, problem.variances.Sigma[1:]),
        )
        smaller = estimate(without, tol=TIGHT)
        assert_allclose(fit.deviance, smaller.deviance, rtol=0, atol=WITHOUT_ZERO)
        assert_allclose(fit.solution.beta, smaller.solution.beta, rtol=0, atol=WITHOUT_ZERO)
        assert_array_equal(fit.solution.b[0], 0.0)
    assert seen >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_correlations_of_one_are_reached(name):
    seen = 0
    for seed in range(2, 42, 4):
        problem = draw(name, seed)
        fit = estimate(problem, tol=TIGHT)
        for Sigma in fit.solution.variances.Sigma:
            assert np.linalg.eigvalsh(Sigma)[0] >= -NEGATIVE_RTOL * np.trace(Sigma)
            seen += 0 < null_directions(Sigma).shape[1] < len(Sigma)
        best = best_of_many_starts(problem, np.random.default_rng(seed))
        assert fit.deviance <= best + WORSE
    assert seen >= 4


def test_all_zero_gives_least_squares(rng):
    problem = draw("crossed", 0, rank=0, p=3)
    # Remove from y what the levels could explain, so that every variance is zero.
    Z = np.hstack([term.Z().toarray() for term in problem.terms])
    design = np.hstack([problem.X, Z]) * np.sqrt(problem.weights)[:, None]
    y = np.sqrt(problem.weights) * problem.y
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    problem = replace(problem, y=residual / np.sqrt(problem.weights) + problem.X @ [1.0, 2.0, 3.0])
    fit = estimate(problem)
    assert [float(S[0, 0]) for S in fit.solution.variances.Sigma] == [0.0, 0.0]
    assert_allclose(fit.solution.beta, [1.0, 2.0, 3.0], rtol=LEAST_SQUARES)
    assert_allclose(fit.solution.variances.sigma2, residual @ residual / 27, rtol=LEAST_SQUARES)


# What is held


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_held_components_stay(method):
    for seed in range(6):
        problem = draw("crossed", seed)
        start = Variances(0.7, (np.array([[0.4]]), np.array([[0.2]])))
        everything = problem.freedom(reml=method != "ml")
        for terms, residual in (
            ((False, True), True),
            ((True, True), False),
            ((True, False), False),
        ):
            freedom = replace(everything, terms=terms, residual=residual)
            fit = estimate(problem, method=method, start=start, freedom=freedom, max_iter=3000)
            assert fit.converged
            variances, gradient = fit.solution.variances, fit.solution.gradient
            if not residual:
                assert variances.sigma2 == 0.7
            for k, free in enumerate(terms):
                if not free:
                    assert_array_equal(variances.Sigma[k], start.Sigma[k])
                elif variances.Sigma[k][0, 0] == 0.0:
                    assert gradient[k][0, 0] >= 0
                else:
                    assert abs(gradient[k][0, 0] * variances.Sigma[k][0, 0]) < AT_TOL
            if residual:
                reml = method != "ml"
                slope = Dense(problem, variances, reml).sigma2_gradient * variances.sigma2
                assert abs(slope) < AT_TOL


def test_nothing_free_is_one_solve():
    problem = draw("crossed", 0)
    freedom = replace(problem.freedom(), terms=(False, False), residual=False)
    fit = estimate(problem, start=problem.variances, freedom=freedom)
    assert fit.converged
    assert [iteration.step for iteration in fit.history] == ["start"]
    assert_allclose(fit.deviance, Dense(problem, problem.variances, True).deviance)


def test_only_sigma2_is_free():
    problem = random_problem(np.random.default_rng(0), levels=(), p=2)
    for method in ("reml", "ml", "mackay", "quick"):
        fit = estimate(problem, method=method)
        assert fit.converged
        residual = problem.y - problem.X @ np.linalg.lstsq(problem.X, problem.y, rcond=None)[0]
        dof = 40 if method == "ml" else 38
        assert_allclose(
            fit.solution.variances.sigma2, residual @ residual / dof, rtol=LEAST_SQUARES
        )


# The quick method


@pytest.mark.parametrize(("F", "survives"), [(3.5, False), (4.5, True), (12.0, True)])
def test_quick_method_has_the_fixed_point_of_its_threshold(rng, F, survives):
    k, m, sigma2 = 12, 4, 1.3
    problem = one_way(rng, k, m, 1.0)
    means = problem.y.reshape(k, m).mean(axis=1)
    # Scale y so that S = F v; sigma2 is held.
    v = sigma2 / m
    problem = replace(problem, y=problem.y * np.sqrt(F * v / np.var(means, ddof=1)))
    S = F * v
    freedom = replace(problem.freedom(), residual=False)
    start = Variances(sigma2, (np.array([[10.0 * S]]),))
    fit = estimate(problem, method="quick", start=start, freedom=freedom, tol=1e-12, max_iter=5000)
    assert fit.converged
    tau2 = fit.solution.variances.Sigma[0][0, 0]
    if survives:
        assert_allclose(tau2, (S - 2 * v + np.sqrt(S**2 - 4 * v * S)) / 2, rtol=FIXED_POINT)
    else:
        assert tau2 == 0.0


def test_quick_method_sets_to_zero_what_has_next_to_no_effective_parameters(rng):
    # With any change small enough to stop at, it stops when what is left is zero.
    problem = one_way(rng, 12, 4, 1.0)
    start = Variances(1.0, (np.array([[1e-14]]),))
    fit = estimate(problem, method="quick", start=start, tol=1.0)
    assert fit.converged
    assert [iteration.step for iteration in fit.history][-2:] == ["zero", "quick"]
    assert fit.solution.variances.Sigma[0][0, 0] == 0.0


# Bookkeeping


def test_history_and_report():
    problem = draw("slope", 0)
    reported = []
    fit = estimate(problem, report=reported.append)
    assert tuple(reported) == fit.history
    assert fit.history[0].step == "start"
    assert fit.history[0].change == np.inf
    assert {iteration.step for iteration in fit.history} <= {
        "start",
        "mackay",
        "mm",
        "newton",
        "zero",
        "release",
    }
    assert fit.history[-1].variances is fit.solution.variances
    for iteration in fit.history:
        expected = Dense(problem, iteration.variances, True).deviance
        assert_allclose(iteration.deviance, expected, rtol=DEVIANCE_RTOL)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_one_iteration_does_not_converge(method):
    fit = estimate(draw("crossed", 0), method=method, max_iter=1)
    assert not fit.converged
    assert np.isfinite(fit.deviance)


def test_equivariance_to_the_unit_of_y_and_the_order_of_rows(rng):
    for name in ("crossed", "slope"):
        problem = draw(name, 4, p=2)
        fit = estimate(problem, tol=TIGHT)
        c = 1e6
        scaled = estimate(replace(problem, y=c * problem.y), tol=TIGHT)
        dof = problem.freedom().dof
        assert_allclose(scaled.deviance, fit.deviance + 2 * dof * np.log(c), rtol=DEVIANCE_RTOL)
        order = rng.permutation(len(problem.y))
        shuffled = replace(
            problem,
            terms=tuple(
                Term(t.codes[order], t.n_levels, t.columns[:, order], t.transform, t.structure)
                for t in problem.terms
            ),
            X=problem.X[order],
            y=problem.y[order],
            weights=problem.weights[order],
        )
        permuted = estimate(shuffled, tol=TIGHT)
        moved = estimate(replace(problem, y=problem.y + problem.X @ [2.0, -1.0]), tol=TIGHT)
        for other, unit in ((scaled, c**2), (permuted, 1.0), (moved, 1.0)):
            assert_allclose(
                other.solution.variances.sigma2,
                unit * fit.solution.variances.sigma2,
                rtol=UNIT_RTOL,
            )
            pairs = zip(other.solution.variances.Sigma, fit.solution.variances.Sigma, strict=True)
            for actual, expected in pairs:
                atol = CLOSED_FORM * unit * np.max(expected)
                assert_allclose(actual, unit * expected, rtol=0, atol=atol)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_an_exact_fit_is_reported(rng, method):
    problem = draw("crossed", 1, weighted=False, p=2)
    y = problem.X @ [1.0, 2.0]
    effects = sum(t.Z() @ rng.normal(size=t.n_levels) for t in problem.terms)
    for exact in (y, y + effects):
        fit = estimate(replace(problem, y=exact), method=method)
        assert fit.zero_residual
        assert np.isfinite(fit.solution.beta).all()
        assert_allclose(fit.solution.beta[1], 2.0, rtol=EXACT_FIT)
    assert not estimate(problem, method=method).zero_residual


def test_an_engine_that_fails_on_the_way_is_survived(rng):
    problem = draw("crossed", 0)
    solve = dense_solver(problem)
    calls = []

    def failing(variances):
        calls.append(variances)
        solution = solve(variances)
        return replace(solution, finite=len(calls) % 3 != 0)

    fit = estimate_variances(
        failing,
        problem.crossproducts(),
        default_start(problem),
        problem.freedom(),
        method="reml",
        stopping=Stopping(200, TOL),
    )
    assert fit.solution.finite
    assert fit.converged
    assert_allclose(fit.deviance, estimate(problem).deviance, rtol=0, atol=WORSE)


def estimate_with_failing_engine(problem: Problem, n_solved: int, *, method: str) -> Optimum:
    """The loop with an engine that solves so many times, and then never."""
    solve, calls = dense_solver(problem, reml=method != "ml"), []

    def failing(variances):
        calls.append(variances)
        return replace(solve(variances), finite=len(calls) <= n_solved)

    return estimate_variances(
        failing,
        problem.crossproducts(),
        default_start(problem),
        problem.freedom(reml=method != "ml"),
        method=method,
        stopping=Stopping(20, TOL),
    )


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_an_engine_that_fails_at_the_start_is_reported(method):
    fit = estimate_with_failing_engine(draw("crossed", 0), 0, method=method)
    assert not fit.converged
    assert not fit.solution.finite
    assert [iteration.step for iteration in fit.history] == ["start"]


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_an_engine_that_fails_everywhere_else_leaves_the_start(method):
    problem = draw("crossed", 0)
    fit = estimate_with_failing_engine(problem, 1, method=method)
    assert not fit.converged
    assert fit.solution.finite
    assert [iteration.step for iteration in fit.history] == ["start"]


def test_mackay_does_not_converge_where_the_engine_fails_everywhere_else():
    fit = estimate_with_failing_engine(draw("crossed", 0), 1, method="mackay")
    assert fit.solution.finite
    assert not fit.converged


def test_relative_change():
    before = Variances(2.0, (np.array([[4.0, 1.0], [1.0, 1.0]]), np.zeros((1, 1))))
    after = Variances(2.2, (np.array([[4.0, 2.0], [2.0, 1.0]]), np.ones((1, 1))))
    assert_allclose(relative_change(before, after), 0.25)
    assert_allclose(relative_change(before, Variances(1.0, before.Sigma)), 0.5)
    assert relative_change(before, before) == 0.0
