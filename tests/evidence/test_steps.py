"""Each update of the variances against its equation, and Newton's step against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Dense, Problem, dense_solver, moved, random_problem
from scipy.linalg import block_diag, fractional_matrix_power, sqrtm
from structured import are_diagonal, structure_of
from threadpoolctl import threadpool_limits

from sklearn_mackay.covariances.matrices import (
    VANISHED,
    matrix_root,
    null_directions,
)
from sklearn_mackay.covariances.structures import FULL, principal_directions
from sklearn_mackay.design.terms import Term
from sklearn_mackay.evidence.boundary import drop_vanished, release, steepest_release
from sklearn_mackay.evidence.fixed_points import mackay_update, mm_update, quick_update
from sklearn_mackay.evidence.freedom import Freedom
from sklearn_mackay.evidence.loop import Stopping, estimate_variances
from sklearn_mackay.evidence.newton import (
    LEAST_CORRECTION,
    LONGEST_LOG_STEP,
    NewtonStep,
    StandardErrors,
    _corrected,
    _solve_downhill,
    gradient_noise,
    newton_step,
    standard_errors,
)
from sklearn_mackay.evidence.solution import Variances

RTOL = 1e-9  # matrix roots of covariances with condition up to 1e2
DEVIANCE_RISE = 1e-9  # rounding of a deviance of about 1e2
STEP = 1e-4  # part of a Newton step, for a difference of four points
SLOPE_RTOL = 1e-6  # of the deviance's terms along a step
ERRORS_RTOL = 1e-8  # the package inverts in roots, the test in the entries of covariances
PSD_RTOL = 1e-13  # a negative eigenvalue of this relative size is rounding
OPTIMUM = 1e-12  # decrement of a Newton step, in units of the deviance, after sixty of them
STILL = 1e-5  # of a variance that an update leaves: ten times the root of that decrement
STILL_MATRIX = 1e-4  # the same, of the largest entry of a covariance, which may be flat
DOWNHILL = 1e-6  # a decrement whose fall of a deviance of about 1e2 is clear of rounding
DAMPED_ATOL = 1e-3  # of a step of a half, of which damping takes 3e-4
NULL_ATOL = 1e-12  # of a covariance of order one times a direction without variance
SYMMETRY_ATOL = 1e-13  # of a matrix root, entries of order one
ROOT_ATOL = 1e-12  # of the square of a matrix root; 1e-14 was seen
ROOT_NEGATIVE = 1e-7  # the root of an eigenvalue of 1e-14, which is rounding
KEPT_RTOL = 1e-12  # of a variance that stays as it is, by way of its effective parameters
GENTLE = 1e-3  # a slope of the deviance far below one
DROPPED_ATOL = 1e-14  # of a covariance of order one without one of its directions
DIRECTION_ATOL = 1e-7  # of an eigenvector: rounding by the gap of its eigenvalue, 0.2

STRUCTURES = {
    "one factor": dict(levels=(8,), coefficients=(1,)),
    "crossed": dict(levels=(6, 5), coefficients=(1, 1)),
    "slopes": dict(levels=(8,), coefficients=(3,)),
    "crossed slopes": dict(levels=(7, 5), coefficients=(2, 1)),
    "diagonal": dict(levels=(7, 5), coefficients=(2, 3), diagonal=True),
    "nested": dict(levels=(9, 4), coefficients=(2, 1), coarsens=(None, 0)),
    "penalised": dict(levels=(7,), coefficients=(2,), p=4, n_penalized=2),
}
SCALAR = {name: STRUCTURES[name] for name in ("one factor", "crossed", "diagonal")}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of order 40 lose more than they gain by threads."""
    with threadpool_limits(limits=1):
        yield


by_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
by_scalar = pytest.mark.parametrize("structure", SCALAR.values(), ids=SCALAR)
by_criterion = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])


def fitted(rng, structure, *, reml=True, rank=None):
    problem = random_problem(rng, weighted=True, rank=rank, **structure)
    return problem, dense_solver(problem, reml=reml)(problem.variances), problem.freedom(reml=reml)


def assert_close(actual, expected, *, rtol=RTOL):
    assert_allclose(actual, expected, rtol=0, atol=rtol * np.max(np.abs(expected), initial=0.0))


def assert_psd(Sigma):
    assert_array_equal(Sigma, Sigma.T)
    eigenvalues = np.linalg.eigvalsh(Sigma)
    assert eigenvalues[0] >= -PSD_RTOL * max(eigenvalues[-1], 0.0)


def deviance_at(problem: Problem, variances: Variances, reml: bool) -> float:
    return Dense(problem, variances, reml).deviance


@by_criterion
@by_scalar
def test_mackay_update_is_u_over_gamma(rng, structure, reml):
    _, solution, freedom = fitted(rng, structure, reml=reml)
    updated = mackay_update(solution, freedom)
    parts = zip(solution.variances.Sigma, solution.U, solution.N, updated.Sigma, strict=True)
    for Sigma, U, N, actual in parts:
        gamma = np.diag(Sigma) * np.diag(N)
        assert_close(actual, np.diag(np.diag(U) / gamma))
    assert_close(updated.sigma2, solution.eWe / (freedom.dof - sum(solution.gamma)))


@by_criterion
@by_structure
def test_mm_update_solves_its_equation(rng, structure, reml):
    _, solution, freedom = fitted(rng, structure, reml=reml)
    updated = mm_update(solution, freedom)
    for M, N, U, diagonal in zip(
        updated.Sigma, solution.N, solution.U, are_diagonal(freedom), strict=True
    ):
        assert_psd(M)
        actual, expected = M @ N @ M, U
        if diagonal:
            actual, expected = M**2 * np.diag(N), np.diag(np.diag(U))
        assert_close(actual, expected)
    present = solution.variances.sigma2
    ratio = solution.eWe / (freedom.dof - sum(solution.gamma)) / present
    assert_close(updated.sigma2, present * np.sqrt(ratio))


@by_scalar
def test_scalar_mm_update(rng, structure):
    _, solution, freedom = fitted(rng, structure)
    updated = mm_update(solution, freedom)
    for Sigma, U, N, actual in zip(
        solution.variances.Sigma, solution.U, solution.N, updated.Sigma, strict=True
    ):
        present, gamma = np.diag(Sigma), np.diag(Sigma) * np.diag(N)
        assert_close(actual, np.diag(present * np.sqrt(np.diag(U) / (present * gamma))))


@by_structure
def test_mackay_update_doubles_the_mm_update(rng, structure):
    _, solution, freedom = fitted(rng, structure)
    doubled = mackay_update(solution, freedom)
    once = mm_update(solution, freedom)
    for Sigma, M, actual in zip(solution.variances.Sigma, once.Sigma, doubled.Sigma, strict=True):
        root, inverse_root = sqrtm(Sigma), fractional_matrix_power(Sigma, -0.5)
        relative = inverse_root @ M @ inverse_root
        assert_psd(actual)
        assert_close(actual, root @ relative @ relative @ root)
    ratio = once.sigma2 / solution.variances.sigma2
    assert_close(doubled.sigma2, solution.variances.sigma2 * ratio**2)


@by_criterion
@by_structure
def test_mm_update_never_raises_the_deviance(rng, structure, reml):
    problem, solution, freedom = fitted(rng, structure, reml=reml)
    solve = dense_solver(problem, reml=reml)
    far = problem.variances
    starts = [far, far.scaled(30.0), Variances(far.sigma2, tuple(S * 1e-3 for S in far.Sigma))]
    for start in starts:
        variances = start
        before = deviance_at(problem, variances, reml)
        first = before
        for _ in range(15):
            variances = mm_update(solve(variances), freedom)
            after = deviance_at(problem, variances, reml)
            assert after <= before + DEVIANCE_RISE
            before = after
        assert before < first


@by_structure
def test_all_updates_stand_still_at_the_optimum(rng, structure):
    problem, _, freedom = fitted(rng, structure)
    solve = dense_solver(problem)
    variances = problem.variances
    for _ in range(60):
        step = newton_step(solve(variances), freedom)
        length = 1.0
        here = deviance_at(problem, variances, True)
        while deviance_at(problem, step.at(length), True) > here + DEVIANCE_RISE:
            length /= 2
        variances = step.at(length)
    solution = solve(variances)
    assert newton_step(solution, freedom).decrement < OPTIMUM
    for update in (mackay_update, mm_update):
        updated = update(solution, freedom)
        assert_close(updated.sigma2, variances.sigma2, rtol=STILL)
        for actual, expected in zip(updated.Sigma, variances.Sigma, strict=True):
            assert_allclose(actual, expected, rtol=0, atol=STILL_MATRIX * np.max(expected) + STILL)


@pytest.mark.parametrize("update", [mackay_update, mm_update])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["slopes", "diagonal", "crossed slopes"])
def test_directions_of_no_variance_stay_so(rng, update, rank, name):
    _, solution, freedom = fitted(rng, STRUCTURES[name], rank=rank)
    updated = update(solution, freedom)
    assert updated.sigma2 > 0
    for before, after in zip(solution.variances.Sigma, updated.Sigma, strict=True):
        assert_psd(after)
        assert null_directions(after).shape == null_directions(before).shape
        assert_allclose(after @ null_directions(before), 0.0, rtol=0, atol=NULL_ATOL)


@pytest.mark.parametrize("update", [mackay_update, mm_update, quick_update])
def test_what_is_held_does_not_move(rng, update):
    _, solution, freedom = fitted(rng, STRUCTURES["crossed slopes"])
    held = replace(freedom, terms=(True, False))
    updated, everything = update(solution, held), update(solution, freedom)
    assert_array_equal(updated.Sigma[0], everything.Sigma[0])
    assert_array_equal(updated.Sigma[1], solution.variances.Sigma[1])
    assert updated.sigma2 == everything.sigma2
    updated = update(solution, replace(freedom, residual=False))
    assert updated.sigma2 == solution.variances.sigma2
    assert_array_equal(updated.Sigma[1], everything.Sigma[1])


def test_a_common_scale_is_free_only_where_everything_is():
    assert Freedom((True, True), True, (FULL, FULL), 10.0, ()).is_rescalable
    assert Freedom((), True, (), 10.0, ()).is_rescalable
    assert not Freedom((True, False), True, (FULL, FULL), 10.0, ()).is_rescalable
    assert not Freedom((True, True), False, (FULL, FULL), 10.0, ()).is_rescalable


@by_structure
def test_quick_update_is_the_covariance_of_the_effects(rng, structure):
    _, solution, freedom = fitted(rng, structure)
    updated = quick_update(solution, freedom)
    for b, actual, diagonal in zip(solution.b, updated.Sigma, are_diagonal(freedom), strict=True):
        centered = b - np.mean(b, axis=0)
        expected = centered.T @ centered / (len(b) - 1)
        assert_close(actual, np.diag(np.diag(expected)) if diagonal else expected)
    assert_close(updated.sigma2, solution.eWe / (freedom.dof - sum(solution.gamma)))


def test_quick_update_of_a_single_level_is_finite(rng):
    problem = random_problem(rng, levels=(1, 5), p=0)
    solution = dense_solver(problem)(problem.variances)
    updated = quick_update(solution, problem.freedom())
    assert np.isfinite(updated.Sigma[0]).all()


def test_quick_update_of_two_levels_is_their_sample_variance(rng):
    problem = random_problem(rng, levels=(2, 5), p=0)
    solution = dense_solver(problem)(problem.variances)
    updated = quick_update(solution, problem.freedom())
    first, second = solution.b[0][:, 0]
    assert updated.Sigma[0].shape == (1, 1)
    assert_close(updated.Sigma[0], [[(first - second) ** 2 / 2]])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@by_structure
def test_updates_follow_a_common_factor_of_all_variances(rng, structure, factor):
    # V scales as a whole: effects and residuals stay, and traces divide by the factor.
    _, solution, freedom = fitted(rng, structure)
    scaled = solution.rescaled(factor)
    for update, power in ((mackay_update, 0.0), (mm_update, 0.5), (quick_update, 0.0)):
        expected = update(solution, freedom).scaled(factor**power)
        actual = update(scaled, freedom)
        assert_close(actual.sigma2, expected.sigma2)
        for there, here in zip(actual.Sigma, expected.Sigma, strict=True):
            assert_close(there, here)


@pytest.mark.parametrize(("update", "power"), [(mackay_update, 1.0), (mm_update, 0.5)])
@pytest.mark.parametrize("informative", [0, 1])
@pytest.mark.parametrize("diagonal", [False, True])
def test_coefficients_whose_columns_are_zero(rng, diagonal, informative, update, power):
    problem = random_problem(rng, levels=(6,), coefficients=(2,), diagonal=diagonal)
    term = problem.terms[0]
    columns = term.columns * (np.arange(2) < informative)[:, None]
    problem = replace(problem, terms=(replace(term, columns=columns),))
    solution = dense_solver(problem)(problem.variances)
    Sigma, N, vv = solution.variances.Sigma[0], solution.N[0], solution.vv[0]
    # Only what the first coefficient tells of the second is left of that one's variance.
    expected = np.zeros((2, 2))
    if informative:
        known = np.outer(Sigma[0], Sigma[0]) / Sigma[0, 0]
        expected = known * (vv[0, 0] / N[0, 0]) ** power
    assert_allclose(update(solution, problem.freedom()).Sigma[0], expected, rtol=0, atol=RTOL)


# Newton


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_step_of_log_sigma2_is_cut(sign):
    base = Variances(2.0, ())
    step = NewtonStep(base, (), (), sign * 2 * LONGEST_LOG_STEP, 0.5, -1.0)
    cut = 2.0 * np.exp(sign * LONGEST_LOG_STEP)
    assert_close(step.at(1.0).sigma2, cut)
    assert_close(step.at(0.5).sigma2, cut)
    assert_close(step.at(0.25).sigma2, 2.0 * np.exp(sign * LONGEST_LOG_STEP / 2))


def slope_along(problem, step, reml):
    """Derivative of the deviance along a step at its start."""

    def value(length):
        return deviance_at(problem, step.at(length), reml)

    h = STEP
    return (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)


def freedoms(freedom: Freedom) -> list[Freedom]:
    held_first = (False, *freedom.terms[1:])
    return [
        freedom,
        replace(freedom, residual=False),
        replace(freedom, terms=held_first),
        replace(freedom, terms=held_first, residual=False),
    ]


@by_criterion
@pytest.mark.parametrize("rank", [None, 1, 0])
@by_structure
def test_newton_step_goes_downhill_with_the_slope_it_says(rng, structure, rank, reml):
    for _ in range(3):
        problem, solution, free = fitted(rng, structure, reml=reml, rank=rank)
        size = free.dof + solution.yPy + sum(solution.gamma)
        for freedom in freedoms(free):
            step = newton_step(solution, freedom)
            assert step.slope <= 0.0
            assert step.decrement == -0.5 * step.slope
            length = max(1.0, abs(step.log_sigma2), *(np.max(np.abs(m)) for m in step.moves))
            expected = slope_along(problem, step, reml)
            assert_allclose(step.slope, expected, rtol=0, atol=SLOPE_RTOL * size * length)
            start = deviance_at(problem, step.at(0.0), reml)
            if step.decrement > DOWNHILL:
                assert min(deviance_at(problem, step.at(t), reml) for t in (1, 0.1, 0.01)) < start


def changes_of_factor(Sigma, diagonal):
    """Principal factor T of a covariance, and changes M of its columns by no larger ones."""
    if diagonal:
        return np.sqrt(Sigma), list(structure_of(True).units(len(Sigma)))
    variances, W = np.linalg.eigh(Sigma)
    changes = [np.outer(W[:, i], e) for j, e in enumerate(np.eye(len(W))) for i in range(j + 1)]
    return W * np.sqrt(variances), changes


def model_in_factors(solution, freedom):
    """Gradient and Hessian of the model in the changes of all factors."""
    sigma2 = solution.variances.sigma2
    linear, bent, gradient = [], [], []
    for Sigma, G, diagonal in zip(
        solution.variances.Sigma, solution.gradient, are_diagonal(freedom), strict=True
    ):
        # sigma2 (T + M)(T + M)' is sigma2 (T M' + M T') and sigma2 M M' from its start.
        units = structure_of(diagonal).units(len(Sigma))
        entries = [tuple(np.argwhere(np.tril(E))[0]) for E in units]
        T, changes = changes_of_factor(Sigma / sigma2, diagonal)
        moves = [sigma2 * (T @ M.T + M @ T.T) for M in changes]
        linear.append([[move[entry] for move in moves] for entry in entries])
        bent.append([[sigma2 * np.sum(G * (M @ N.T + N @ M.T)) for N in changes] for M in changes])
        gradient += [np.sum(E * G) for E in units]
    J = block_diag(*linear)
    return J.T @ gradient, J.T @ solution.information @ J + block_diag(*bent)


@pytest.mark.parametrize("unit", [1.0, 1e-2])
@by_structure
def test_newton_step_solves_the_model_of_its_factors(rng, structure, unit):
    for _ in range(20):
        problem, _, freedom = fitted(rng, structure)
        terms = tuple(replace(term, columns=unit * term.columns) for term in problem.terms)
        sigma2, Sigma = problem.variances.sigma2, problem.variances.Sigma
        there = Variances(sigma2, tuple(S / unit**2 for S in Sigma))
        solution = dense_solver(replace(problem, terms=terms))(there)
        g, H = model_in_factors(solution, freedom)
        if np.linalg.eigvalsh(H)[0] > 0.0:
            break
    else:
        pytest.fail("No problem was drawn at which the model has a minimum.")
    for damping in (0.0, 0.5):
        step = newton_step(solution, replace(freedom, residual=False), damping=damping)
        expected = -np.linalg.solve(H + damping * np.diag(np.diag(H)), g)
        assert_close(step.decrement, -0.5 * g @ expected)
        start = 0
        for S, factor, move, diagonal in zip(
            there.Sigma, step.factors, step.moves, are_diagonal(freedom), strict=True
        ):
            T, changes = changes_of_factor(S / sigma2, diagonal)
            weights = expected[start : start + len(changes)]
            start += len(changes)
            # The signs of principal directions are arbitrary, those of M T' are not.
            assert_close(move @ factor.T, np.tensordot(weights, changes, 1) @ T.T)


def test_a_singular_covariance_turns_without_gaining_rank(rng):
    _, solution, freedom = fitted(rng, STRUCTURES["slopes"], rank=1)
    step = newton_step(solution, freedom)
    present, directions = np.linalg.eigh(solution.variances.Sigma[0])
    for length in (0.1, 0.5, 1.0, 30.0):
        variances, vectors = np.linalg.eigh(step.at(length).Sigma[0])
        assert np.all(variances[:-1] <= PSD_RTOL * present[-1])
        assert abs(vectors[:, -1] @ directions[:, -1]) < 0.9999


def test_newton_step_stays_within_the_directions_that_are_free(rng):
    problem = random_problem(rng, levels=(6,), coefficients=(3,))
    basis = np.linalg.qr(rng.normal(size=(3, 2)))[0]
    Sigma = basis @ np.diag([2.0, 0.5]) @ basis.T
    problem = replace(problem, variances=Variances(1.0, (Sigma,)))
    freedom = replace(problem.freedom(), directions=(basis,))
    step = newton_step(dense_solver(problem)(problem.variances), freedom)
    # The same step of the term that has two coefficients.
    term = problem.terms[0]
    small = replace(term, columns=basis.T @ term.columns, transform=np.eye(2))
    problem = replace(problem, terms=(small,), variances=Variances(1.0, (np.diag([2.0, 0.5]),)))
    expected = newton_step(dense_solver(problem)(problem.variances), problem.freedom())
    assert_close(step.decrement, expected.decrement)
    assert_close(step.at(1.0).Sigma[0], basis @ expected.at(1.0).Sigma[0] @ basis.T)


def test_the_point_before_makes_the_model_agree_with_the_change_of_the_gradient(rng):
    # With one parameter two points tell the second derivative: the step is the secant method's.
    problem = balanced(rng, 12, 4, tau2=1.0)
    solve, freedom = dense_solver(problem), replace(problem.freedom(), residual=False)
    sigma2 = problem.variances.sigma2
    here, before = (solve(Variances(sigma2, (np.array([[tau2]]),))) for tau2 in (0.5, 0.4))
    step = newton_step(here, freedom, previous=before)
    slope = sigma2 * (here.gradient[0][0, 0] - before.gradient[0][0, 0]) / (0.1 / sigma2)
    # In t = (tau2 / sigma2)^1/2 the chain rule adds the gradient's part.
    t, gradient = np.sqrt(0.5 / sigma2), sigma2 * here.gradient[0][0, 0]
    assert_close(step.moves[0], -2 * t * gradient / abs(4 * t**2 * slope + 2 * gradient))


def test_the_point_before_tells_of_log_sigma2(rng):
    problem = random_problem(rng, levels=())
    solve, freedom = dense_solver(problem), problem.freedom()
    here, before = solve(Variances(3.0, ())), solve(Variances(2.0, ()))
    # The gradient in log sigma2 is dof - y'Py.
    slope = (before.yPy - here.yPy) / np.log(3.0 / 2.0)
    step = newton_step(here, freedom, previous=before)
    assert_close(step.log_sigma2, (here.yPy - freedom.dof) / slope)


def test_a_corrected_hessian_maps_the_step_to_its_change(rng):
    root = rng.normal(size=(4, 4))
    H, step, change = root @ root.T, rng.normal(size=4), rng.normal(size=4)
    corrected = _corrected(H, step, change)
    assert_close(corrected @ step, change)
    assert_array_equal(corrected, corrected.T)
    assert np.linalg.matrix_rank(corrected - H, tol=1e-10) == 1


def test_a_hessian_stays_where_nothing_is_to_be_divided_by(rng):
    root = rng.normal(size=(4, 4))
    H, step, other = root @ root.T, rng.normal(size=4), rng.normal(size=4)
    across = other - step * (other @ step) / (step @ step)
    for change in (H @ step, H @ step + across, (1.0 - 0.9 * LEAST_CORRECTION) * H @ step):
        assert _corrected(H, step, change) is H
    assert _corrected(H, step, (1.0 + 1.1 * LEAST_CORRECTION) * H @ step) is not H


@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_newton_step_leaves_a_coefficient_whose_column_is_zero(rng, damping):
    problem = random_problem(rng, levels=(6,), coefficients=(2,), diagonal=True)
    term = problem.terms[0]
    columns = term.columns * [[1.0], [0.0]]
    problem = replace(problem, terms=(replace(term, columns=columns),))
    freedom = problem.freedom()
    step = newton_step(dense_solver(problem)(problem.variances), freedom, damping=damping)
    alone = replace(term, columns=term.columns[:1], transform=np.eye(1))
    first = Variances(problem.variances.sigma2, (problem.variances.Sigma[0][:1, :1],))
    problem = replace(problem, terms=(alone,), variances=first)
    expected = newton_step(dense_solver(problem)(first), problem.freedom(), damping=damping)
    after = step.at(1.0).Sigma[0]
    assert_close(after[0, 0], expected.at(1.0).Sigma[0][0, 0])
    present = step.base.Sigma[0][1, 1] / step.base.sigma2
    assert_close(after, np.diag([after[0, 0], present * step.at(1.0).sigma2]))
    assert_close(step.log_sigma2, expected.log_sigma2)


def test_a_flat_direction_of_the_model_is_hardly_moved_along():
    # The rounding of the gradient, divided by that of the Hessian, would be a long step.
    assert_allclose(
        _solve_downhill(np.ones((2, 2)), np.array([1.0, 1.0 + 1e-13]), 0.0), 0.5, atol=DAMPED_ATOL
    )


@by_structure
def test_damping_shortens_a_step_and_keeps_it_downhill(rng, structure):
    for rank in (None, 1):
        problem, solution, freedom = fitted(rng, structure, rank=rank)
        steps = [newton_step(solution, freedom, damping=d) for d in (0.0, 0.1, 1.0, 10.0, 1e4)]
        slopes = [step.slope for step in steps]
        assert slopes == sorted(slopes)
        assert slopes[-1] < 0
        start = deviance_at(problem, steps[0].at(0.0), True)
        assert deviance_at(problem, steps[-1].at(1.0), True) < start


@by_structure
def test_newton_step_starts_at_its_base_and_stays_positive(rng, structure):
    for rank in (None, 1, 0):
        _, solution, freedom = fitted(rng, structure, rank=rank)
        step = newton_step(solution, freedom)
        start = step.at(0.0)
        assert start.sigma2 == solution.variances.sigma2
        for actual, expected in zip(start.Sigma, solution.variances.Sigma, strict=True):
            assert_close(actual, expected)
        for length in (-100.0, -1.0, 0.3, 1.0, 7.0, 100.0):
            there = step.at(length)
            assert there.sigma2 > 0
            for Sigma, diagonal in zip(there.Sigma, are_diagonal(freedom), strict=True):
                eigenvalues = np.linalg.eigvalsh(Sigma)
                assert eigenvalues[0] >= -PSD_RTOL * eigenvalues[-1]
                assert_allclose(Sigma, Sigma.T, rtol=PSD_RTOL)
                if diagonal:
                    assert_array_equal(Sigma, np.diag(np.diag(Sigma)))


def test_newton_step_keeps_what_is_held(rng):
    _, solution, freedom = fitted(rng, STRUCTURES["crossed slopes"])
    step = newton_step(solution, replace(freedom, terms=(True, False)))
    assert_array_equal(step.at(0.7).Sigma[1], solution.variances.Sigma[1])
    assert step.log_sigma2 != 0.0
    step = newton_step(solution, replace(freedom, residual=False))
    assert step.at(0.7).sigma2 == solution.variances.sigma2
    assert np.any(step.at(0.7).Sigma[1] != solution.variances.Sigma[1])


def balanced(rng, k, m, tau2):
    """A balanced one-way layout, and its REML optimum (edge cases, section 3)."""
    codes = np.repeat(np.arange(k), m)
    y = np.sqrt(tau2) * rng.normal(size=k)[codes] + rng.normal(size=k * m)
    means = y.reshape(k, m).mean(axis=1)
    msb = m * np.var(means, ddof=1)
    msw = np.sum((y - means[codes]) ** 2) / (k * (m - 1))
    term = Term(codes, k, np.ones((1, k * m)), np.eye(1), FULL)
    optimum = Variances(float(msw), (np.array([[(msb - msw) / m]]),))
    ones = np.ones((k * m, 1))
    return Problem((term,), ones, y, np.ones(k * m), np.zeros(1), optimum)


def test_newton_step_converges_quadratically_where_the_information_is_exact(rng):
    # At an interior optimum of a balanced layout average, observed and expected information agree.
    problem = balanced(rng, 12, 4, tau2=1.0)
    solve, optimum, freedom = dense_solver(problem), problem.variances, problem.freedom()
    assert optimum.Sigma[0][0, 0] > 0.1

    def distance(variances):
        ratios = [variances.sigma2 / optimum.sigma2, variances.Sigma[0] / optimum.Sigma[0]]
        return max(float(np.max(np.abs(np.log(ratio)))) for ratio in ratios)

    for error in (1e-2, 1e-3, 1e-4):
        start = Variances(optimum.sigma2 * np.exp(error), (optimum.Sigma[0] * np.exp(-error),))
        after = newton_step(solve(start), freedom).at(1.0)
        assert distance(start) > 0.99 * error
        assert distance(after) < 3 * error**2


def test_newton_step_without_terms_is_exact_in_log_sigma2(rng):
    problem = random_problem(rng, levels=())
    solution = dense_solver(problem)(Variances(3.0, ()))
    step = newton_step(solution, problem.freedom())
    # d = dof log s + c / s has gradient dof - yPy and curvature yPy in log s.
    gradient = problem.freedom().dof - solution.yPy
    assert_close(step.log_sigma2, -gradient / solution.yPy)
    assert_close(step.decrement, 0.5 * gradient**2 / solution.yPy)


def test_matrix_root(rng):
    for s, rank in ((1, 1), (3, 3), (3, 1), (3, 0)):
        A = rng.normal(size=(s, rank))
        Sigma = A @ A.T
        root = matrix_root(Sigma)
        assert_allclose(root, root.T, rtol=0, atol=SYMMETRY_ATOL)
        assert_allclose(root @ root, Sigma, rtol=0, atol=ROOT_ATOL)
        assert np.all(np.linalg.eigvalsh(root) > -ROOT_NEGATIVE)


def test_null_directions_are_relative_to_the_largest_variance():
    assert null_directions(np.zeros((2, 2))).shape == (2, 2)
    assert null_directions(1e-20 * np.diag([2.0, 1.0])).shape == (2, 0)
    assert_allclose(np.abs(null_directions(np.diag([1.0, 1e-20]))), [[0.0], [1.0]])


def test_principal_directions_have_no_variance_of_rounding(rng):
    columns = rng.normal(size=(20, 4))
    for factor in (1e-20, 1.0, 1e20):
        for a in columns:
            Sigma = factor * np.outer(a, a)
            variances, vectors, gamma = principal_directions(FULL, Sigma, np.eye(4))
            assert np.count_nonzero(variances) == np.count_nonzero(gamma) == 1
            assert_close(vectors * variances @ vectors.T, Sigma)


# To zero and back


def at_zero(rng, s=1, *, downhill, diagonal=False, reml=True) -> Problem:
    """A problem whose deviance falls somewhere, or rises everywhere, from a variance of zero."""
    while True:
        problem = random_problem(
            rng, levels=(6,), coefficients=(s,), rank=0, diagonal=diagonal, p=1
        )
        if downhill:
            y = problem.y + 0.8 * problem.terms[0].Z() @ rng.normal(size=6 * s)
            problem = replace(problem, y=y)
        zero = problem.variances
        solution = dense_solver(problem, reml=reml)(zero)
        slope, _ = steepest_release(
            zero.Sigma[0], solution.N[0], solution.gradient[0], structure_of(diagonal)
        )
        if slope < -1 if downhill else slope > 1:
            return problem


TINY = 1e-3 * VANISHED


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_vanished_variance_drops_to_zero_where_the_deviance_rises(rng, diagonal):
    problem = at_zero(rng, downhill=False, diagonal=diagonal)
    freedom = problem.freedom()
    N = dense_solver(problem)(problem.variances).N[0][0, 0]
    for gamma, expected in ((0.5 * VANISHED, 0.0), (TINY, 0.0), (2 * VANISHED, 2 * VANISHED / N)):
        present = Variances(problem.variances.sigma2, (np.array([[gamma / N]]),))
        solution = dense_solver(problem)(present)
        dropped = drop_vanished(solution, freedom)
        assert_allclose(dropped.Sigma[0], [[expected]], rtol=KEPT_RTOL)
        assert dropped.sigma2 == present.sigma2
        assert (dropped is present) == (expected > 0)


def test_a_gentle_rise_of_the_deviance_is_enough(rng):
    problem = at_zero(rng, downhill=False)
    present = Variances(problem.variances.sigma2, (np.array([[1e-12]]),))
    solution = dense_solver(problem)(present).rescaled(1e6)
    assert 0 < solution.gradient[0][0, 0] < GENTLE
    assert_array_equal(drop_vanished(solution, problem.freedom()).Sigma[0], [[0.0]])


def test_a_small_variance_stays_where_the_deviance_falls(rng):
    problem = at_zero(rng, downhill=True)
    N = dense_solver(problem)(problem.variances).N[0][0, 0]
    present = Variances(problem.variances.sigma2, (np.array([[TINY / N]]),))
    solution = dense_solver(problem)(present)
    assert drop_vanished(solution, problem.freedom()) is present
    anyway = drop_vanished(solution, problem.freedom(), uphill_only=False)
    assert_array_equal(anyway.Sigma[0], [[0.0]])


def test_what_is_held_or_zero_does_not_vanish(rng):
    problem = at_zero(rng, downhill=False)
    solution = dense_solver(problem)(problem.variances)
    assert drop_vanished(solution, problem.freedom()) is problem.variances
    present = Variances(problem.variances.sigma2, (np.array([[1e-12]]),))
    held = replace(problem.freedom(), terms=(False,))
    for uphill_only in (True, False):
        solution = dense_solver(problem)(present)
        assert drop_vanished(solution, held, uphill_only=uphill_only) is present


def test_a_larger_variance_drops_where_asked(rng):
    problem = at_zero(rng, downhill=False)
    N = dense_solver(problem)(problem.variances).N[0][0, 0]
    present = Variances(problem.variances.sigma2, (np.array([[0.03 / N]]),))
    solution = dense_solver(problem)(present)
    assert 0.02 < solution.gamma[0] < 0.03
    assert solution.gradient[0][0, 0] > 0
    assert drop_vanished(solution, problem.freedom(), below=0.02) is present
    assert_array_equal(drop_vanished(solution, problem.freedom(), below=0.03).Sigma[0], [[0.0]])


@pytest.mark.parametrize("diagonal", [False, True])
def test_one_direction_of_a_covariance_vanishes_alone(rng, diagonal):
    slope = 0.0
    while slope < 0.1:
        problem = random_problem(rng, levels=(6,), coefficients=(3,), diagonal=diagonal, p=1)
        basis = np.eye(3) if diagonal else np.linalg.qr(rng.normal(size=(3, 3)))[0]
        present = Variances(1.0, (basis * [0.5, 1e-10, 0.2] @ basis.T,))
        gradient = dense_solver(problem)(present).gradient[0]
        slope = basis[:, 1] @ gradient @ basis[:, 1]
    dropped = drop_vanished(dense_solver(problem)(present), problem.freedom())
    expected = basis * [0.5, 0.0, 0.2] @ basis.T
    assert_allclose(dropped.Sigma[0], expected, rtol=0, atol=DROPPED_ATOL)
    null = null_directions(dropped.Sigma[0])
    assert null.shape == (3, 1)
    assert_allclose(np.abs(null[:, 0]), np.abs(basis[:, 1]), atol=DIRECTION_ATOL)
    if diagonal:
        assert dropped.Sigma[0][1, 1] == 0.0
    again = dense_solver(problem)(dropped)
    assert drop_vanished(again, problem.freedom()) is dropped


def test_deviance_of_a_balanced_layout_along_its_variance(rng):
    problem = balanced(rng, 8, 4, tau2=0.5)
    problem = replace(problem, X=np.zeros((32, 0)), penalty=np.zeros(0))
    zero = Variances(1.3, (np.zeros((1, 1)),))
    solution = dense_solver(problem)(zero)
    N, vv, L = solution.N[0][0, 0], solution.vv[0][0, 0], 8
    unit = Variances(0.0, (np.ones((1, 1)),))
    for t in (0.01, 0.3, 2.0):
        change = deviance_at(problem, moved(zero, unit, t), True) - deviance_at(problem, zero, True)
        assert_close(change, L * np.log1p(N * t / L) - t * vv / (1 + N * t / L))


@by_criterion
@pytest.mark.parametrize("s", [1, 2, 3])
@pytest.mark.parametrize("diagonal", [False, True])
def test_release_lowers_the_deviance(rng, s, diagonal, reml):
    for _ in range(5):
        problem = at_zero(rng, s, downhill=True, diagonal=diagonal, reml=reml)
        solution = dense_solver(problem, reml=reml)(problem.variances)
        slope, direction = steepest_release(
            problem.variances.Sigma[0], solution.N[0], solution.gradient[0], structure_of(diagonal)
        )
        # Close to the boundary of the condition Newton's model is right.
        small = slope * 1e-3
        moved_little = release(solution, 0, direction, small)
        N = direction @ solution.N[0] @ direction
        assert_close(moved_little.Sigma[0], -small * 6 / N**2 * np.outer(direction, direction))
        assert moved_little.sigma2 == problem.variances.sigma2
        before = deviance_at(problem, problem.variances, reml)
        assert deviance_at(problem, moved_little, reml) < before
        assert_psd(release(solution, 0, direction, slope).Sigma[0])


def test_standard_errors_of_a_balanced_layout(rng):
    # k levels of m rows: the mean squares within and between are independent chi-squares.
    k, m = 40, 6
    codes = np.repeat(np.arange(k), m)
    y = 2.0 * rng.normal(size=k)[codes] + rng.normal(size=k * m)
    term = Term(codes, k, np.ones((1, k * m)), np.eye(1), FULL)
    start = Variances(1.0, (np.eye(1),))
    problem = Problem((term,), np.ones((k * m, 1)), y, np.ones(k * m), np.zeros(1), start)
    fit = estimate_variances(
        dense_solver(problem),
        problem.crossproducts(),
        start,
        problem.freedom(),
        method="reml",
        stopping=Stopping(50, 1e-14),
    )
    sigma2, tau2 = fit.solution.variances.sigma2, float(fit.solution.variances.Sigma[0][0, 0])
    within, between = sigma2, sigma2 + m * tau2
    var_within, var_between = 2 * within**2 / (k * (m - 1)), 2 * between**2 / (k - 1)
    errors = standard_errors(fit.solution, problem.freedom())
    assert_allclose(errors.sigma2, np.sqrt(var_within), rtol=SLOPE_RTOL)
    expected = np.sqrt(var_within + var_between) / m
    assert_allclose(errors.Sigma[0][0, 0], expected, rtol=SLOPE_RTOL)


def information_with_sigma2(problem: Problem) -> np.ndarray:
    """``F'PF`` with a working vector for each unit of each term, and for sigma2."""
    dense = Dense(problem, problem.variances, True)
    Py = dense.P @ problem.y
    vectors = [Py / problem.weights]
    for k, term in reversed(list(enumerate(problem.terms))):
        units = term.structure.units(term.n_coefficients)
        vectors[:0] = [dense.Z[k] @ (dense.v(k) @ E).ravel() for E in units]
    F = np.transpose(vectors)
    return F.T @ dense.P @ F


def errors_by_unit(errors: StandardErrors, freedom: Freedom) -> np.ndarray:
    lower = [
        np.diag(S) if diagonal else S[np.tril_indices(len(S))]
        for S, diagonal in zip(errors.Sigma, are_diagonal(freedom), strict=True)
    ]
    return np.concatenate([*lower, [errors.sigma2]])


UNPENALISED = {name: s for name, s in STRUCTURES.items() if name != "penalised"}


@pytest.mark.parametrize("structure", UNPENALISED.values(), ids=UNPENALISED)
def test_standard_errors_invert_the_information(rng, structure):
    problem, solution, freedom = fitted(rng, structure)
    sizes = [len(t.structure.units(t.n_coefficients)) for t in problem.terms]
    for some in freedoms(freedom):
        free = np.array([*np.repeat(some.terms, sizes), some.residual])
        expected = np.zeros(len(free))
        information = information_with_sigma2(problem)[np.ix_(free, free)]
        if np.any(free):
            expected[free] = np.sqrt(2 * np.diag(np.linalg.inv(information)))
        errors = standard_errors(solution, some)
        assert_close(errors_by_unit(errors, some), expected, rtol=ERRORS_RTOL)
        for S in errors.Sigma:
            assert_array_equal(S, S.T)


@pytest.mark.parametrize("structure", UNPENALISED.values(), ids=UNPENALISED)
def test_standard_errors_from_the_noise_of_the_gradient(rng, structure):
    problem, solution, freedom = fitted(rng, structure)
    variances = solution.variances
    entries = [
        np.diag(S) if diagonal else S[np.tril_indices(len(S))]
        for S, diagonal in zip(variances.Sigma, are_diagonal(freedom), strict=True)
    ]
    # The yPy of the gradient in a common scale is exact, so the one in sigma2 errs as the others.
    on_all = np.vstack(
        [np.eye(sum(map(len, entries))), -np.concatenate(entries) / variances.sigma2]
    )
    root = rng.normal(size=(on_all.shape[1],) * 2)
    inverse = np.linalg.inv(information_with_sigma2(problem))
    cov = inverse @ on_all @ root @ root.T @ on_all.T @ inverse
    errors = standard_errors(solution, freedom, root @ root.T)
    assert_close(errors_by_unit(errors, freedom), np.sqrt(np.diag(cov)), rtol=ERRORS_RTOL)


@pytest.mark.parametrize("sizes", [(1,), (2, 1), (1, 3)])
@pytest.mark.parametrize("diagonal", [False, True])
def test_noise_of_the_gradient_is_that_of_a_mean(rng, sizes, diagonal):
    samples = []
    for s in sizes:
        A = rng.normal(size=(30, s, s))
        samples.append(A + A.transpose(0, 2, 1))
    freedom = Freedom((True,) * len(sizes), True, (structure_of(diagonal),) * len(sizes), 40.0, ())
    by_unit = np.array(
        [
            [
                np.sum(E * part[i])
                for part in samples
                for E in structure_of(diagonal).units(len(part[i]))
            ]
            for i in range(30)
        ]
    )
    centered = by_unit - by_unit.mean(axis=0)
    actual = gradient_noise(samples, freedom)
    assert actual.shape == (by_unit.shape[1],) * 2
    assert_close(actual, centered.T @ centered / 29 / 30)
