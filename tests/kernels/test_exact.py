"""The exact engine against its dense twin, finite differences and Henderson's equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from reference import STRUCTURES, Dense, Problem, moved, random_problem, unit_directions
from scipy import stats
from scipy.linalg import block_diag
from solvers import prepare_exact
from threadpoolctl import threadpool_limits

from sklearn_mackay.covariances.structures import DIAGONAL
from sklearn_mackay.evidence.criterion import deviance
from sklearn_mackay.evidence.solution import PenalizedSolution, Variances
from sklearn_mackay.gram.layout import Layout, choose_layout
from sklearn_mackay.kernels import exact, one_factor
from sklearn_mackay.kernels import tensors as blocks
from sklearn_mackay.kernels.dense import prepare as prepare_dense
from sklearn_mackay.kernels.linalg import factor_corner, inverse_and_log_det

RTOL = 1e-10  # of an array's largest entry; both sides lose a few digits of 16, 1e-12 was seen
NULL_RTOL = 1e-7  # at a variance of 1e-12 of the others the twin's inverse keeps eight digits
FIRST_DIFFERENCE = 1e-4  # step of four points, as errors h^4 and 1e-16/h are both below 1e-11
DIFFERENCE_RTOL = 1e-8  # of the gradient's terms, ten times what was seen
GRADIENT_RTOL = 1e-6  # of differences of two points at a hundredth of that step; 1e-7 was seen
REJECTED = 1e-3  # probability of a false alarm of a calibration test; the seeds are fixed

DIFFERENTIATED = {
    "crossed": STRUCTURES["2 crossed, 2 coefficients"],
    "diagonal": STRUCTURES["diagonal"],
    "nested": STRUCTURES["chain of 3"],
    "mixed": STRUCTURES["nested and crossed"],
    "penalised": dict(**STRUCTURES["2 crossed, 2 coefficients"], n_penalized=2, p=4),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of order 40 lose more than they gain by threads."""
    with threadpool_limits(limits=1):
        yield


ENGINES = {"eliminated": prepare_exact, "dense": prepare_dense}

by_engine = pytest.mark.parametrize("prepare", ENGINES.values(), ids=ENGINES)
by_criterion = pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
SLOW_TO_TRACE = {
    "2 crossed, 3 coefficients",
    "3 crossed, 2 coefficients",
    "3 crossed, 3 coefficients",
    "4 coefficients",
    "chain of 2 and 2 crossed",
    "chain of 2, slopes",
    "chain of 3",
    "diagonal",
}
by_differentiated = pytest.mark.parametrize(
    "structure", DIFFERENTIATED.values(), ids=DIFFERENTIATED
)


def kernel(problem: Problem, *, reml: bool = True):
    return prepare_exact(problem.crossproducts(), reml=reml)


def system_of(problem: Problem) -> blocks.System:
    crossproducts = problem.crossproducts()
    return blocks.to_tensors(crossproducts, choose_layout(crossproducts), reml=True)


def kernel_deviance(problem: Problem, solution: PenalizedSolution, *, reml: bool) -> float:
    return deviance(
        solution,
        dof=problem.freedom(reml=reml).dof,
        sum_log_weights=float(np.sum(np.log(problem.weights))),
        penalty=problem.penalty,
    )


def assert_close(actual, expected, *, rtol=RTOL, scale=None, err_msg=""):
    """Equal to a part of the largest entry."""
    scale = np.max(np.abs(expected if scale is None else scale), initial=0.0)
    assert_allclose(actual, expected, rtol=0, atol=rtol * scale, err_msg=err_msg)


def assert_solves(solution: PenalizedSolution, dense: Dense, *, rtol=RTOL) -> None:
    """Every field and property of the kernel's solution equals the twin's."""
    expected = dense.solution()
    assert solution.finite
    assert solution.n_levels == expected.n_levels
    assert_close(solution.log_det, expected.log_det, rtol=rtol, scale=len(dense.problem.y))
    for name in ("beta", "beta_cov", "information", "yPy", "eWe"):
        assert_close(getattr(solution, name), getattr(expected, name), rtol=rtol, err_msg=name)
    for name in ("b", "N", "vv", "gamma", "U"):
        pairs = zip(getattr(solution, name), getattr(expected, name), strict=True)
        for actual, desired in pairs:
            assert_close(actual, desired, rtol=rtol, err_msg=name)
    pairs = zip(solution.T, expected.T, dense.variances.Sigma, strict=True)
    for actual, desired, Sigma in pairs:
        assert_close(actual, desired, rtol=rtol, scale=len(dense.problem.y) * Sigma, err_msg="T")
    for actual, desired, N in zip(solution.gradient, expected.gradient, expected.N, strict=True):
        assert_close(actual, desired, rtol=rtol, scale=[N, desired], err_msg="gradient")


def variants(problem: Problem, rng: np.random.Generator) -> dict[str, Variances]:
    """Regular, rank-deficient and zero covariances."""

    def directions(S):
        return (
            np.eye(len(S))
            if (problem.terms[0].structure is DIAGONAL)
            else np.linalg.qr(rng.normal(size=S.shape))[0]
        )

    regular = problem.variances
    deficient = []
    for S in regular.Sigma:
        basis = directions(S)
        deficient.append(basis * np.append(np.linspace(1.5, 0.5, len(S) - 1), 0.0) @ basis.T)
    zero = [np.zeros_like(S) for S in regular.Sigma]
    return {
        "regular": regular,
        "rank-deficient": Variances(regular.sigma2, tuple(deficient)),
        "zero": Variances(regular.sigma2, tuple(zero)),
        "first zero": Variances(regular.sigma2, (*zero[:1], *regular.Sigma[1:])),
    }


@by_engine
@by_criterion
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("p", [0, 10, *(pytest.param(p, marks=pytest.mark.slow) for p in (1, 2))])
@pytest.mark.parametrize(
    "structure",
    [
        pytest.param(structure, id=name, marks=pytest.mark.slow if name in SLOW_TO_TRACE else ())
        for name, structure in STRUCTURES.items()
    ],
)
def test_kernel_equals_dense_algebra(rng, structure, p, weighted, reml, prepare):
    problem = random_problem(rng, p=p, weighted=weighted, **structure)
    solve = prepare(problem.crossproducts(), reml=reml)
    for variances in variants(problem, rng).values():
        solution, dense = solve(variances), Dense(problem, variances, reml)
        assert_solves(solution, dense)
        assert_close(kernel_deviance(problem, solution, reml=reml), dense.deviance)


@by_engine
@by_criterion
@pytest.mark.parametrize(("n_penalized", "p"), [(1, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("name", ["1 crossed, 2 coefficients", "nested and crossed"])
def test_ridge_penalised_columns(rng, name, n_penalized, p, reml, prepare):
    problem = random_problem(rng, p=p, n_penalized=n_penalized, weighted=True, **STRUCTURES[name])
    solve = prepare(problem.crossproducts(), reml=reml)
    for variances in variants(problem, rng).values():
        solution, dense = solve(variances), Dense(problem, variances, reml)
        assert_solves(solution, dense)
        assert_close(kernel_deviance(problem, solution, reml=reml), dense.deviance)


@by_engine
@pytest.mark.parametrize("rows", [1e-8, 1e8])
def test_slopes_at_zero_do_not_depend_on_how_many_rows_one_stands_for(rng, rows, prepare):
    # A variance of zero is replaced by one that no number of rows may notice.
    problem = random_problem(rng, **STRUCTURES["1 crossed, 2 coefficients"])
    problem = replace(problem, weights=rows * problem.weights)
    solve = prepare(problem.crossproducts(), reml=True)
    for variances in variants(problem, rng).values():
        variances = replace(variances, Sigma=tuple(S / rows for S in variances.Sigma))
        assert_solves(solve(variances), Dense(problem, variances, True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3 crossed, 2 coefficients", "chain of 3", "nested and crossed"])
def test_order_of_terms_does_not_matter(rng, name):
    problem = random_problem(rng, **STRUCTURES[name])
    backwards = replace(
        problem,
        terms=problem.terms[::-1],
        variances=Variances(problem.variances.sigma2, problem.variances.Sigma[::-1]),
    )
    assert_solves(
        kernel(backwards)(backwards.variances), Dense(backwards, backwards.variances, True)
    )


@by_criterion
def test_without_terms_it_is_least_squares(rng, reml):
    problem = random_problem(rng, levels=(), p=3, weighted=True)
    solution = kernel(problem, reml=reml)(problem.variances)
    assert_solves(solution, Dense(problem, problem.variances, reml))
    root = np.sqrt(problem.weights)
    expected = np.linalg.lstsq(root[:, None] * problem.X, root * problem.y, rcond=None)[0]
    assert_close(solution.beta, expected)


@by_criterion
@pytest.mark.parametrize("name", ["2 crossed, 2 coefficients", "chain of 3"])
def test_henderson_equations(rng, name, reml):
    problem = random_problem(rng, weighted=True, **STRUCTURES[name])
    variances = problem.variances
    Z = np.hstack([term.Z().toarray() for term in problem.terms])
    ZX = np.hstack([Z, problem.X])
    WZX = problem.weights[:, None] * ZX / variances.sigma2
    precisions = [
        np.kron(np.eye(term.n_levels), np.linalg.inv(S))
        for term, S in zip(problem.terms, variances.Sigma, strict=True)
    ]
    K = ZX.T @ WZX + block_diag(*precisions, np.zeros((problem.X.shape[1],) * 2))
    effects = np.linalg.solve(K, WZX.T @ problem.y)
    q = Z.shape[1]
    C = np.linalg.inv(K) if reml else np.linalg.inv(K[:q, :q])

    solution = kernel(problem, reml=reml)(variances)
    assert_close(solution.beta, effects[q:])
    assert_close(solution.beta_cov, np.linalg.inv(K)[q:, q:])
    start = 0
    for k, term in enumerate(problem.terms):
        s, L = term.n_coefficients, term.n_levels
        assert_close(solution.b[k], effects[start : start + L * s].reshape(L, s))
        T = np.zeros((s, s))
        for j in range(L):
            at = slice(start + j * s, start + (j + 1) * s)
            T += C[at, at]
        assert_close(solution.T[k], T)
        assert_close(solution.gamma[k], L * s - np.sum(np.linalg.inv(variances.Sigma[k]) * T))
        start += L * s
    residual = problem.y - ZX @ effects
    assert_close(solution.eWe, problem.weights @ residual**2)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0, 1, 2, 10])
def test_trace_of_the_hat_matrix(rng, p):
    problem = random_problem(rng, p=p, weighted=True, **STRUCTURES["nested and crossed"])
    solution = kernel(problem)(problem.variances)
    assert_close(p + sum(solution.gamma), Dense(problem, problem.variances, True).hat_trace)


def first_difference(function, variances: Variances, direction: Variances):
    """Derivative along a direction from four points."""
    h = FIRST_DIFFERENCE
    near = function(moved(variances, direction, h)) - function(moved(variances, direction, -h))
    far = function(moved(variances, direction, 2 * h)) - function(
        moved(variances, direction, -2 * h)
    )
    return (8 * near - far) / (12 * h)


def slopes(solution: PenalizedSolution, problem: Problem, dof: float) -> list[float]:
    """Derivatives of the deviance along `unit_directions`."""
    by_unit = [
        float(np.sum(E * G))
        for term, G in zip(problem.terms, solution.gradient, strict=True)
        for E in term.structure.units(term.n_coefficients)
    ]
    sigma2 = solution.variances.sigma2
    by_sigma2 = (dof - sum(solution.gamma)) / sigma2 - solution.eWe / sigma2**2
    return [*by_unit, by_sigma2]


@by_criterion
@by_differentiated
def test_gradient_is_the_derivative_of_both_deviances(rng, structure, reml):
    problem = random_problem(rng, weighted=True, **structure)
    solve = kernel(problem, reml=reml)
    solution = solve(problem.variances)
    actual = slopes(solution, problem, problem.freedom(reml=reml).dof)
    directions = unit_directions(problem)
    scale = max(float(np.max(np.abs(N))) for N in solution.N)
    twins = [
        first_difference(lambda v: Dense(problem, v, reml).deviance, problem.variances, direction)
        for direction in directions
    ]
    assert_close(actual, twins, rtol=DIFFERENCE_RTOL, scale=scale)
    own = [
        first_difference(
            lambda v: kernel_deviance(problem, solve(v), reml=reml), problem.variances, direction
        )
        for direction in directions
    ]
    assert_close(actual, own, rtol=DIFFERENCE_RTOL, scale=scale)
    assert_close(actual[-1], Dense(problem, problem.variances, reml).sigma2_gradient, scale=scale)


@by_criterion
@pytest.mark.parametrize("kind", ["rank-deficient", "zero", "first zero"])
@by_differentiated
def test_gradient_where_a_covariance_is_singular(rng, structure, kind, reml):
    problem = random_problem(rng, **structure)
    variances = variants(problem, rng)[kind]
    solution = kernel(problem, reml=reml)(variances)
    # The twin's V stays positive definite a little beyond the boundary.
    differences = [
        first_difference(lambda v: Dense(problem, v, reml).deviance, variances, direction)
        for direction in unit_directions(problem)
    ]
    scale = max(float(np.max(np.abs(N))) for N in solution.N)
    actual = slopes(solution, problem, problem.freedom(reml=reml).dof)
    assert_close(actual, differences, rtol=DIFFERENCE_RTOL, scale=scale)


@by_differentiated
def test_information_is_half_the_second_derivative_of_yPy(rng, structure):
    problem = random_problem(rng, weighted=True, **structure)
    solve = kernel(problem)
    directions = unit_directions(problem)[:-1]

    def slopes_of_yPy(solution):
        pairs = zip(problem.terms, solution.vv, strict=True)
        return [
            -np.sum(E * vv) for term, vv in pairs for E in term.structure.units(term.n_coefficients)
        ]

    def yPy_and_slopes(variances):
        solution = solve(variances)
        return np.array([solution.yPy, *slopes_of_yPy(solution)])

    derivatives = np.array(
        [first_difference(yPy_and_slopes, problem.variances, direction) for direction in directions]
    )
    solution = solve(problem.variances)
    assert_close(slopes_of_yPy(solution), derivatives[:, 0], rtol=DIFFERENCE_RTOL)
    assert_close(2 * solution.information, derivatives[:, 1:], rtol=DIFFERENCE_RTOL)


@by_criterion
@pytest.mark.parametrize("factor", [0.7, 1e4])
@pytest.mark.parametrize("name", ["crossed", "penalised"])
def test_rescaled_equals_solving_at_scaled_variances(rng, name, factor, reml):
    problem = random_problem(rng, weighted=True, **DIFFERENTIATED[name])
    solve = kernel(problem, reml=reml)
    scaled = problem.variances.scaled(factor)
    rescaled = solve(problem.variances).rescaled(factor)
    assert rescaled.variances.sigma2 == scaled.sigma2
    assert_solves(rescaled, Dense(problem, scaled, reml))


@by_engine
def test_a_solution_has_the_variances_asked_for_to_the_last_bit(rng, prepare):
    problem = random_problem(rng, **STRUCTURES["2 crossed, 2 coefficients"])
    variances = Variances(0.3, tuple(S + 0.1 for S in problem.variances.Sigma))
    pairs = [(S, S / variances.sigma2 * variances.sigma2) for S in variances.Sigma]
    assert any(np.any(there_and_back != S) for S, there_and_back in pairs), "or nothing is tested"
    solution = prepare(problem.crossproducts(), reml=True)(variances)
    assert solution.variances is variances
    assert_solves(solution, Dense(problem, variances, True))


@pytest.mark.parametrize("ratio", [1e-20, 1e-12, 1e-6, 1e6])
def test_variances_orders_of_magnitude_apart(rng, ratio):
    problem = random_problem(rng, weighted=True, **STRUCTURES["2 crossed, 2 coefficients"])
    first, second = problem.variances.Sigma
    for Sigma in ((first * ratio, second), (first, np.diag([1.0, ratio]))):
        variances = Variances(problem.variances.sigma2, Sigma)
        assert_solves(kernel(problem)(variances), Dense(problem, variances, True), rtol=NULL_RTOL)


def test_one_trace_serves_all_sizes_and_criteria(rng):
    structure = STRUCTURES["nested and crossed"]
    problem = random_problem(rng, **structure)
    kernel(problem)(problem.variances)
    traces = exact._solve_spherical.experimental_get_tracing_count()
    for n, levels, p, reml in (
        (50, (11, 3, 6), 0, True),
        (60, (8, 5, 3), 3, False),
        (45, (20, 2, 4), 7, True),
    ):
        other = random_problem(rng, n=n, p=p, **{**structure, "levels": levels})
        assert_solves(
            kernel(other, reml=reml)(other.variances), Dense(other, other.variances, reml)
        )
    assert exact._solve_spherical.experimental_get_tracing_count() == traces


def test_one_trace_serves_one_factor_of_any_size(rng):
    problem = random_problem(rng, levels=(6,), coefficients=(2,))
    kernel(problem)(problem.variances)
    traces = one_factor.solve_one_factor.experimental_get_tracing_count()
    for n, L, p, reml in ((50, 11, 0, True), (60, 8, 3, False), (45, 20, 7, True)):
        other = random_problem(rng, n=n, levels=(L,), coefficients=(2,), p=p)
        assert_solves(
            kernel(other, reml=reml)(other.variances), Dense(other, other.variances, reml)
        )
    assert one_factor.solve_one_factor.experimental_get_tracing_count() == traces


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_nested_factors_never_fill_in(rng, order):
    problem = random_problem(rng, n=300, levels=(90, 30, 6), coarsens=(None, 0, 1), p=2)
    problem = replace(problem, terms=tuple(problem.terms[i] for i in order))
    crossproducts = problem.crossproducts()
    assert choose_layout(crossproducts) == Layout(tuple(np.argsort(order)), ())
    system = system_of(problem)
    assert system.corner.shape == (3, 3)
    assert [block.own.shape for block in system.chain] == [(1, 1, 90), (1, 1, 30), (1, 1, 6)]
    assert [len(block.links) for block in system.chain] == [2, 1, 0]


def test_only_the_crossed_factor_stays_in_the_corner(rng):
    problem = random_problem(rng, n=300, levels=(7, 90, 30), coarsens=(None, None, 1), p=2)
    assert choose_layout(problem.crossproducts()) == Layout((1, 2), (0,))
    system = system_of(problem)
    assert system.corner.shape == (7 + 3, 7 + 3)
    # Where the nested pair is eliminated, the parent meets every column its levels meet.
    inner, outer = system.chain
    assert_array_equal(tf.gather(outer.columns, inner.positions[0]), inner.columns)
    assert_array_equal(
        tf.gather(outer.levels, inner.positions[0]), tf.gather(inner.parents[0], inner.levels)
    )


def broken(crossproducts, where):
    first, *others = crossproducts.terms
    *between, last = crossproducts.terms
    return {
        "fixed part": replace(crossproducts, FWF=-crossproducts.FWF),
        "first term": replace(crossproducts, terms=(replace(first, own=-99 * first.own), *others)),
        "last term": replace(crossproducts, terms=(*between, replace(last, own=-99 * last.own))),
        "NaN response": replace(crossproducts, FWF=crossproducts.FWF * np.nan),
        "NaN term": replace(crossproducts, terms=(replace(first, own=first.own * np.nan), *others)),
    }[where]


@by_engine
@pytest.mark.parametrize(
    "where", ["fixed part", "first term", "last term", "NaN response", "NaN term"]
)
@pytest.mark.parametrize("coefficients", [(2,), (2, 2), (4, 1)])
def test_indefinite_blocks_are_reported_not_raised(rng, coefficients, where, prepare):
    problem = random_problem(rng, levels=(7, 5)[: len(coefficients)], coefficients=coefficients)
    solve = prepare(broken(problem.crossproducts(), where), reml=True)
    assert not solve(problem.variances).finite


@by_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_variances_that_are_not_finite_are_reported_not_raised(rng, bad, prepare):
    problem = random_problem(rng, **STRUCTURES["2 crossed, 2 coefficients"])
    sigma2, (first, second) = problem.variances.sigma2, problem.variances.Sigma
    solve = prepare(problem.crossproducts(), reml=True)
    assert not solve(Variances(np.nan, (first, second))).finite
    assert not solve(Variances(sigma2, (np.full((2, 2), bad), second))).finite
    assert not solve(Variances(sigma2, (first, np.diag([1.0, bad])))).finite


@pytest.mark.slow
@by_criterion
@pytest.mark.parametrize("name", ["3 crossed, 2 coefficients", "chain of 2 and 2 crossed"])
def test_several_chunks_equal_one(rng, monkeypatch, name, reml):
    problem = random_problem(rng, weighted=True, **STRUCTURES[name])
    whole = kernel(problem, reml=reml)(problem.variances)
    assert len(system_of(problem).chain[0].pattern.chunk_rows) == 2
    monkeypatch.setattr(blocks, "CHUNK_ENTRIES", 60)
    assert len(system_of(problem).chain[0].pattern.chunk_rows) > 4
    in_chunks = kernel(problem, reml=reml)(problem.variances)
    assert_solves(in_chunks, Dense(problem, problem.variances, reml))
    for one, other in zip(whole.N, in_chunks.N, strict=True):
        assert_close(one, other)


def corner_of(rng, C):
    A = rng.normal(size=(C + 1, 2 * C + 2))
    return A @ A.T


@pytest.mark.parametrize(("C", "n_determinant"), [(0, 0), (1, 0), (1, 1), (6, 0), (6, 4), (6, 6)])
def test_tensorflow_factorises_the_corner_as_lapack_does(rng, C, n_determinant):
    corner = corner_of(rng, C)
    arguments = tf.constant(corner), tf.constant(n_determinant)
    with_lapack = factor_corner(*arguments, lapack_on_cpu=True)
    with_tensorflow = factor_corner(*arguments, lapack_on_cpu=False)
    inverse = np.zeros((C, C))
    leading = corner[:n_determinant, :n_determinant]
    inverse[:n_determinant, :n_determinant] = np.linalg.inv(leading)
    solution = np.linalg.solve(corner[:C, :C], corner[:C, C])
    for factor in (with_lapack, with_tensorflow):
        assert_close(np.triu(factor.cholesky), np.linalg.cholesky(corner[:C, :C]).T)
        assert_close(factor.inverse[:C, :C], inverse)
        assert_close(factor.solution, solution)
        assert_close(factor.remainder, corner[C, C] - corner[:C, C] @ solution, scale=corner[C, C])
        assert_close(factor.log_det, np.linalg.slogdet(leading)[1], scale=C)


@pytest.mark.parametrize("lapack_on_cpu", [True, False])
@pytest.mark.parametrize("factor", [-1.0, np.nan])
@pytest.mark.parametrize("n_determinant", [2, 4])
def test_a_corner_that_is_not_positive_definite_gives_nan(
    rng, n_determinant, factor, lapack_on_cpu
):
    corner = factor * corner_of(rng, 4)
    result = factor_corner(
        tf.constant(corner), tf.constant(n_determinant), lapack_on_cpu=lapack_on_cpu
    )
    assert np.isnan(result.remainder)
    assert np.isnan(result.log_det)
    assert np.all(np.isnan(result.solution))


@pytest.mark.slow
@by_criterion
@pytest.mark.parametrize("name", ["crossed", "mixed", "penalised"])
def test_tensorflow_branch_solves_as_lapack_does(rng, monkeypatch, name, reml):
    problem = random_problem(rng, weighted=True, **DIFFERENTIATED[name])
    monkeypatch.setattr(exact.tf.config, "list_logical_devices", lambda kind: [kind])
    solution = kernel(problem, reml=reml)(problem.variances)
    assert_solves(solution, Dense(problem, problem.variances, reml))


@pytest.mark.parametrize("s", [1, 2, 3, 4, 5])
def test_inverse_and_log_det_of_small_blocks(rng, s):
    L = 6
    A = rng.normal(size=(L, s, s + 2))
    blocks = A @ A.transpose(0, 2, 1)
    weights = rng.normal(size=(L, s, s))
    inverse_weights = weights + weights.transpose(0, 2, 1)
    log_det_weights = rng.normal(size=L)
    D = tf.constant(np.moveaxis(blocks, 0, -1))
    with tf.GradientTape() as tape:
        tape.watch(D)
        inverse, log_det = inverse_and_log_det(D)
        total = tf.reduce_sum(inverse * np.moveaxis(inverse_weights, 0, -1))
        total += tf.reduce_sum(log_det * log_det_weights)
    expected = np.linalg.inv(blocks)
    assert_close(np.moveaxis(inverse.numpy(), -1, 0), expected)
    assert_close(log_det, np.linalg.slogdet(blocks)[1])

    def value(shift):
        moved = np.linalg.inv(blocks + shift)
        log_dets = np.linalg.slogdet(blocks + shift)[1]
        return float(np.sum(moved * inverse_weights) + log_det_weights @ log_dets)

    gradient = np.moveaxis(tape.gradient(total, D).numpy(), -1, 0)
    differences, h = np.zeros_like(blocks), FIRST_DIFFERENCE * 0.01
    for j in range(L):
        for a in range(s):
            for b in range(s):
                shift = np.zeros_like(blocks)
                shift[j, a, b] = h
                differences[j, a, b] = (value(shift) - value(-shift)) / (2 * h)
    assert_close(gradient, differences, rtol=GRADIENT_RTOL)


def test_inverse_and_log_det_of_indefinite_blocks_is_nan(rng):
    for s in (1, 2, 3, 4):
        D = tf.constant(np.moveaxis(np.array([np.eye(s), -np.eye(s)]), 0, -1))
        log_det = inverse_and_log_det(D)[1].numpy()
        assert log_det[0] == 0.0
        assert np.isnan(log_det[1])


def test_pivots_at_the_true_variances():
    rng = np.random.default_rng(5)
    structure = STRUCTURES["1 crossed, 2 coefficients"]
    problem = random_problem(rng, n=60, p=3, weighted=True, **structure)
    beta = rng.normal(size=3)
    roots = [np.linalg.cholesky(S) for S in problem.variances.Sigma]
    noise_sd = np.sqrt(problem.variances.sigma2 / problem.weights)
    yPy, standardized, scores, information = [], [], [], []
    for _ in range(300):
        b = [
            rng.normal(size=(t.n_levels, 2)) @ R.T
            for t, R in zip(problem.terms, roots, strict=True)
        ]
        y = problem.X @ beta + rng.normal(size=60) * noise_sd
        for term, effects in zip(problem.terms, b, strict=True):
            y += term.Z() @ effects.ravel()
        solution = kernel(replace(problem, y=y))(problem.variances)
        yPy.append(solution.yPy)
        standardized.append((solution.beta - beta) / np.sqrt(np.diag(solution.beta_cov)))
        scores.append(slopes(solution, problem, 57)[:-1])
        information.append(solution.information)
    assert stats.kstest(yPy, stats.chi2(57).cdf).pvalue > REJECTED
    for column in np.transpose(standardized):
        assert stats.kstest(column, stats.norm.cdf).pvalue > REJECTED
    # The gradient g of the deviance has mean 0 and covariance 4 E[AI] = 2 E[F'PF].
    expected = 2 * np.mean(information, axis=0)
    root = np.linalg.cholesky(expected)
    white = np.linalg.solve(root, np.transpose(scores))
    assert stats.chi2(len(white)).sf(300 * np.sum(np.mean(white, axis=1) ** 2)) > REJECTED
