"""The deviance against densities of y, and the certificate at a variance of zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Dense, Problem, dense_solver, moved, random_problem
from scipy import stats
from scipy.linalg import null_space
from structured import structure_of
from threadpoolctl import threadpool_limits

from sklearn_mackay.covariances.matrices import VANISHED
from sklearn_mackay.evidence.boundary import steepest_release
from sklearn_mackay.evidence.criterion import deviance, deviance_change
from sklearn_mackay.evidence.solution import Variances

RTOL = 1e-12  # sums of some dozen logarithms of numbers near one
STEP = 1e-6  # of a one-sided difference; its error is the step times the curvature
SLOPE_RTOL = 1e-4  # of the trace part N: the step times a curvature of about N^2
FAR_STEP = 3e-4  # of a difference of four points, along a path on which the deviance bends sharply
CHANGE_ATOL = 1e-8  # of slopes of about ten; the differences were exact to 1e-10
RELEASE_TOL = 1e-8  # of a slope of two and of a unit vector; 1e-15 was seen

STRUCTURES = {
    "no terms": dict(levels=(), p=2),
    "one factor": dict(levels=(6,), p=0),
    "crossed slopes": dict(levels=(6, 5), coefficients=(2, 1), p=3),
    "nested": dict(levels=(9, 4), coarsens=(None, 0), p=1),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of order 40 lose more than they gain by threads."""
    with threadpool_limits(limits=1):
        yield


by_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
by_criterion = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])


def value(problem: Problem, *, reml: bool, variances: Variances | None = None) -> float:
    return deviance(
        dense_solver(problem, reml=reml)(variances or problem.variances),
        dof=problem.freedom(reml=reml).dof,
        sum_log_weights=float(np.sum(np.log(problem.weights))),
        penalty=problem.penalty,
    )


@by_criterion
@by_structure
def test_deviance_equals_the_twins(rng, structure, reml):
    problem = random_problem(rng, weighted=True, **structure)
    expected = Dense(problem, problem.variances, reml).deviance
    assert_allclose(value(problem, reml=reml), expected, rtol=RTOL)


@by_structure
def test_ml_deviance_is_the_density_of_y(rng, structure):
    problem = random_problem(rng, weighted=True, **structure)
    dense = Dense(problem, problem.variances, False)
    density = stats.multivariate_normal(problem.X @ dense.beta, dense.V)
    assert_allclose(value(problem, reml=False), -2 * density.logpdf(problem.y), rtol=RTOL)


@by_structure
def test_reml_deviance_is_the_density_of_error_contrasts(rng, structure):
    problem = random_problem(rng, weighted=True, **structure)
    X = problem.X
    contrasts = null_space(X.T) if X.shape[1] else np.eye(len(X))
    V = Dense(problem, problem.variances, True).V
    density = stats.multivariate_normal(cov=contrasts.T @ V @ contrasts)
    # lme4's constant: log|X'X| belongs to contrasts that are not orthonormal.
    basis = np.linalg.slogdet(X.T @ X)[1] if X.shape[1] else 0.0
    expected = -2 * density.logpdf(contrasts.T @ problem.y) + basis
    assert_allclose(value(problem, reml=True), expected, rtol=RTOL)


@by_criterion
def test_penalised_columns_have_a_prior(rng, reml):
    problem = random_problem(rng, levels=(6,), p=4, n_penalized=2, weighted=True)
    assert_allclose(
        value(problem, reml=reml), Dense(problem, problem.variances, reml).deviance, rtol=RTOL
    )
    # Under ML a penalised column is one more independent normal part of y.
    if not reml:
        dense = Dense(problem, problem.variances, False)
        mean = problem.X[:, 2:] @ dense.beta[2:]
        density = stats.multivariate_normal(mean, dense.V)
        assert_allclose(value(problem, reml=False), -2 * density.logpdf(problem.y), rtol=RTOL)


@by_criterion
def test_zero_variance_equals_the_model_without_the_term(rng, reml):
    problem = random_problem(rng, levels=(6, 5), coefficients=(2, 1), weighted=True)
    sigma2, Sigma = problem.variances.sigma2, problem.variances.Sigma
    without = replace(problem, terms=problem.terms[1:], variances=Variances(sigma2, Sigma[1:]))
    zero = Variances(sigma2, (np.zeros((2, 2)), Sigma[1]))
    expected = value(without, reml=reml)
    assert_allclose(value(problem, reml=reml, variances=zero), expected, rtol=RTOL)


def test_a_solution_without_determinant_has_no_deviance(rng):
    problem = random_problem(rng)
    solution = replace(dense_solver(problem)(problem.variances), log_det=None)
    with pytest.raises(ValueError, match="log determinant"):
        deviance(solution, dof=38, sum_log_weights=0.0, penalty=problem.penalty)


@by_criterion
@pytest.mark.parametrize("n_penalized", [0, 2])
def test_change_without_determinants_is_the_mean_of_the_slopes_at_both_ends(rng, n_penalized, reml):
    problem = random_problem(
        rng, levels=(6, 5), coefficients=(2, 1), p=3, n_penalized=n_penalized, weighted=True
    )
    start = problem.variances
    # The logarithms of two and of a half are opposite to the last bit.
    sigma2, Sigma = 2.0 * start.sigma2, (0.3 * start.Sigma[0] + 0.2 * np.ones((2, 2)), np.eye(1))
    end = Variances(sigma2, Sigma)

    def on_the_path(t):
        scale = start.sigma2 ** (1 - t) * end.sigma2**t
        pairs = zip(start.Sigma, end.Sigma, strict=True)
        relative = [(1 - t) * S / start.sigma2 + t * R / end.sigma2 for S, R in pairs]
        return Dense(problem, Variances(scale, tuple(scale * S for S in relative)), reml).deviance

    def slope(t):
        h = FAR_STEP
        near, far = on_the_path(t + h) - on_the_path(t - h), on_the_path(t + 2 * h)
        return (8 * near - far + on_the_path(t - 2 * h)) / (12 * h)

    solve, dof = dense_solver(problem, reml=reml), problem.freedom(reml=reml).dof
    there = deviance_change(solve(start), solve(end), dof=dof)
    assert_allclose(there, (slope(0.0) + slope(1.0)) / 2, rtol=0, atol=CHANGE_ATOL)
    assert deviance_change(solve(end), solve(start), dof=dof) == -there


@pytest.mark.parametrize("diagonal", [False, True])
def test_nothing_to_release_from_a_regular_covariance(diagonal):
    Sigma = np.diag([1.0, 2.0, 10 * VANISHED])
    slope, direction = steepest_release(Sigma, np.eye(3), -np.eye(3), structure_of(diagonal))
    assert slope == np.inf
    assert_array_equal(direction, np.zeros(3))


def test_steepest_direction_of_a_zero_covariance_is_the_least_eigenvector(rng):
    G = rng.normal(size=(3, 3))
    G = G + G.T
    slope, direction = steepest_release(np.zeros((3, 3)), np.eye(3), G, structure_of(False))
    assert_allclose(slope, np.linalg.eigvalsh(G)[0], rtol=RTOL)
    assert_allclose(G @ direction, slope * direction, atol=RTOL)
    assert_allclose(np.linalg.norm(direction), 1.0, rtol=RTOL)


@pytest.mark.parametrize("small", [0.0, 0.1 * VANISHED])
def test_direction_stays_where_there_is_no_variance_to_speak_of(rng, small):
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    Sigma = basis * [3.0, 0.5, small, 0.0] @ basis.T
    # Downhill everywhere, most of all where the variance is positive already.
    G = -basis * [100.0, 100.0, 2.0, 1.0] @ basis.T
    slope, direction = steepest_release(Sigma, np.eye(4), G, structure_of(False))
    assert_allclose(slope, -2.0, rtol=RELEASE_TOL)
    assert_allclose(np.abs(basis.T @ direction), [0, 0, 1, 0], atol=RELEASE_TOL)


def test_small_is_measured_in_effective_parameters():
    Sigma, G = np.diag([1.0, 0.1 * VANISHED]), np.diag([0.0, -3.0])
    assert steepest_release(Sigma, np.eye(2), G, structure_of(False))[0] == -3.0
    assert steepest_release(Sigma, 100 * np.eye(2), G, structure_of(False))[0] == np.inf
    assert steepest_release(1e3 * Sigma, 1e-3 * np.eye(2), G, structure_of(False))[0] == -3.0


def test_larger_variances_are_looked_at_where_asked():
    Sigma, G = np.diag([1.0, 0.05]), np.diag([0.0, -3.0])
    assert steepest_release(Sigma, np.eye(2), G, structure_of(False))[0] == np.inf
    assert steepest_release(Sigma, np.eye(2), G, structure_of(False), below=0.1)[0] == -3.0


def test_diagonal_covariances_are_released_along_coordinates():
    G = np.array([[-5.0, 9.0, 0.0], [9.0, 1.0, -8.0], [0.0, -8.0, -2.0]])
    slope, direction = steepest_release(np.diag([1.0, 0, 0]), np.eye(3), G, structure_of(True))
    assert slope == -2.0
    assert_array_equal(np.abs(direction), [0.0, 0.0, 1.0])
    slope, direction = steepest_release(np.diag([1.0, 0, 0.5]), np.eye(3), G, structure_of(True))
    assert slope == 1.0
    assert_array_equal(np.abs(direction), [0.0, 1.0, 0.0])


@by_criterion
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_slope_is_the_change_of_the_deviance_and_the_steepest(rng, rank, diagonal, reml):
    for _ in range(5):
        problem = random_problem(rng, levels=(6,), coefficients=(3,), diagonal=diagonal, rank=rank)
        here = problem.variances
        solution = dense_solver(problem, reml=reml)(here)

        def change(direction, problem=problem, here=here):
            along = Variances(0.0, (np.outer(direction, direction),))
            after = Dense(problem, moved(here, along, STEP), reml).deviance
            return (after - Dense(problem, here, reml).deviance) / STEP

        slope, direction = steepest_release(
            here.Sigma[0], solution.N[0], solution.gradient[0], structure_of(diagonal)
        )
        atol = SLOPE_RTOL * np.trace(solution.N[0]) ** 2
        assert_allclose(change(direction), slope, rtol=0, atol=atol)
        null = null_space(here.Sigma[0]) if rank else np.eye(3)
        if diagonal:
            null = np.eye(3)[:, rank:]
        for other in null.T:
            assert change(other) >= slope - atol
