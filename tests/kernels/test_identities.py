"""Identities of the kernels: input that stays, flags, orders of terms, conjugate gradients."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import STRUCTURES, Dense, random_problem
from solvers import prepare_exact
from threadpoolctl import threadpool_limits

from sklearn_mackay.evidence.solution import Variances
from sklearn_mackay.kernels import krylov
from sklearn_mackay.kernels.dense import prepare as prepare_dense

RTOL = 1e-10  # of an array's largest entry; both sides lose a few digits of 16
CG_TOLERANCE = 1e-13  # of a residual; order 10, condition about 1e2
QUADRATURE_RTOL = 1e-8  # the last products see rounding of the first

ENGINES = {"eliminated": prepare_exact, "dense": prepare_dense}
LAYOUTS = ["1 crossed, 2 coefficients", "2 crossed, 2 coefficients", "nested and crossed"]

by_engine = pytest.mark.parametrize("prepare", ENGINES.values(), ids=ENGINES)
by_layout = pytest.mark.parametrize("name", LAYOUTS)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices of order 40 lose more than they gain by threads."""
    with threadpool_limits(limits=1):
        yield


def arrays(crossproducts):
    by_term = [array for term in crossproducts.terms for array in (term.own, term.ZWF)]
    by_pair = [table.blocks for table in crossproducts.tables.values()]
    return [crossproducts.FWF, crossproducts.penalty, *by_term, *by_pair]


@by_engine
@by_layout
def test_cross_products_stay_as_they_are(rng, name, prepare):
    problem = random_problem(rng, p=4, n_penalized=2, **STRUCTURES[name])
    crossproducts = problem.crossproducts()
    before = [array.copy() for array in arrays(crossproducts)]
    first = prepare(crossproducts, reml=True)(problem.variances)
    for array, expected in zip(arrays(crossproducts), before, strict=True):
        assert_array_equal(array, expected)
    again = prepare(crossproducts, reml=True)(problem.variances)
    assert_array_equal(again.beta, first.beta)


@by_engine
@by_layout
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_response_that_is_not_finite_is_reported(rng, name, bad, prepare):
    problem = random_problem(rng, **STRUCTURES[name])
    crossproducts = problem.crossproducts()
    fixed = crossproducts.FWF.copy()
    fixed[-1, -1] = bad
    # The determinant knows nothing of y.
    solution = prepare(replace(crossproducts, FWF=fixed), reml=True)(problem.variances)
    assert np.isfinite(solution.log_det)
    assert not solution.finite


def assert_close(actual, expected):
    assert_allclose(actual, expected, rtol=0, atol=RTOL * np.max(np.abs(expected), initial=0.0))


@by_engine
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
@pytest.mark.parametrize("name", ["chain of 3", "nested and crossed"])
def test_every_order_of_three_terms(rng, name, order, prepare):
    problem = random_problem(rng, **STRUCTURES[name])
    Sigma = tuple(problem.variances.Sigma[k] for k in order)
    variances = Variances(problem.variances.sigma2, Sigma)
    problem = replace(problem, terms=tuple(problem.terms[k] for k in order), variances=variances)
    solution = prepare(problem.crossproducts(), reml=True)(variances)
    expected = Dense(problem, variances, True).solution()
    assert_close(solution.information, expected.information)
    for name in ("b", "N", "vv"):
        for mine, desired in zip(getattr(solution, name), getattr(expected, name), strict=True):
            assert_close(mine, desired)


@pytest.mark.parametrize("p", [0, 3])
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
def test_one_dense_matrix_without_terms_is_least_squares(rng, reml, p):
    problem = random_problem(rng, levels=(), p=p, weighted=True)
    solution = prepare_dense(problem.crossproducts(), reml=reml)(problem.variances)
    expected = Dense(problem, problem.variances, reml)
    assert solution.finite
    assert solution.information.shape == (0, 0)
    for name in ("beta", "beta_cov", "yPy"):
        assert_close(getattr(solution, name), getattr(expected, name))


# Conjugate gradients


class Linear:
    """A positive definite ``S``, and two more linear maps that go with every product."""

    def __init__(self, rng, order):
        A = rng.normal(size=(order, order))
        self.S = A @ A.T + np.eye(order)
        self.gram = rng.normal(size=(order, order))
        self.chain = rng.normal(size=(2, 3, order))
        scale = rng.uniform(0.5, 2.0, size=order)
        self.M_inverse = np.diag(scale)

    def __call__(self, rest):
        chain = [np.tensordot(self.chain, rest, 1)]
        return krylov.Continued(rest, chain, self.gram @ rest, self.S @ rest)

    def solve(self, rhs, start, tolerance):
        precondition = self.M_inverse.__matmul__
        return krylov.conjugate_gradients(self, precondition, rhs, self(start), tolerance)

    def norms(self, vectors):
        """Squared norms of the columns, as the preconditioner measures them."""
        return np.sum(vectors * (self.M_inverse @ vectors), axis=0)


@pytest.mark.parametrize("from_zero", [False, True], ids=["", "from zero"])
def test_conjugate_gradients_carry_all_that_is_linear_along(rng, from_zero):
    S = Linear(rng, 7)
    rhs = rng.normal(size=(7, 3))
    start = rng.normal(size=(7, 3)) * (not from_zero)
    result = S.solve(rhs, start, CG_TOLERANCE)
    assert result.converged
    expected = S(np.linalg.solve(S.S, rhs))
    solution = result.solution
    pairs = zip(solution[:1] + solution[2:], expected[:1] + expected[2:], strict=True)
    for actual, desired in pairs:
        assert_close(actual, desired)
    assert_close(solution.chain[0], expected.chain[0])
    assert_allclose(result.residual, rhs - S.S @ np.asarray(solution.rest), rtol=0, atol=RTOL)
    assert result.lengths.shape == result.ratios.shape == (result.n_products, 3)


@pytest.mark.parametrize("tolerance", [0.5, 0.1, 1e-3])
def test_conjugate_gradients_end_where_the_tolerance_is_met(rng, monkeypatch, tolerance):
    S = Linear(rng, 12)
    rhs = rng.normal(size=(12, 2)) * [1.0, 1e3]
    start = np.zeros((12, 2))
    result = S.solve(rhs, start, tolerance)
    enough = tolerance**2 * S.norms(rhs)
    assert result.converged
    assert np.all(S.norms(result.residual) <= enough)
    monkeypatch.setattr(krylov, "MAX_PRODUCTS", result.n_products - 1)
    shorter = S.solve(rhs, start, tolerance)
    assert shorter.n_products == result.n_products - 1
    assert not shorter.converged
    assert np.any(S.norms(shorter.residual) > enough)


def test_conjugate_gradients_minimise_the_error_in_the_norm_of_the_matrix(rng, monkeypatch):
    S = Linear(rng, 10)
    rhs = rng.normal(size=(10, 2))
    exact_solution = np.linalg.solve(S.S, rhs)
    for n_products in (1, 2, 4):
        monkeypatch.setattr(krylov, "MAX_PRODUCTS", n_products)
        result = S.solve(rhs, np.zeros((10, 2)), CG_TOLERANCE)
        for x, desired, b in zip(result.solution.rest.T, exact_solution.T, rhs.T, strict=True):
            powers = [S.M_inverse @ b]
            for _ in range(n_products - 1):
                powers.append(S.M_inverse @ S.S @ powers[-1])
            K = np.linalg.qr(np.transpose(powers))[0]
            assert_close(x, K @ np.linalg.solve(K.T @ S.S @ K, K.T @ S.S @ desired))


def test_a_column_that_is_solved_stays_so(rng):
    S = Linear(rng, 6)
    rhs = np.column_stack([rng.normal(size=6), np.zeros(6)])
    result = S.solve(rhs, np.zeros((6, 2)), CG_TOLERANCE)
    assert result.converged
    assert_array_equal(np.asarray(result.solution.rest)[:, 1], 0.0)
    assert_array_equal(result.lengths[:, 1], 0.0)
    assert_array_equal(result.ratios[:, 1], 0.0)
    at_once = S.solve(np.zeros((6, 2)), np.zeros((6, 2)), CG_TOLERANCE)
    assert (at_once.n_products, at_once.converged) == (0, True)
    assert at_once.lengths.shape == (0, 2)


def test_quadrature_of_the_preconditioned_operator(rng):
    # The matrix of Lanczos is complete after as many products as there are unknowns.
    S = Linear(rng, 6)
    L = np.sqrt(np.linalg.inv(S.M_inverse))
    signs = rng.choice([-1.0, 1.0], size=(6, 4))
    result = S.solve(L @ signs, np.zeros((6, 4)), CG_TOLERANCE)
    operator = np.linalg.inv(L) @ S.S @ np.linalg.inv(L)
    values, vectors = np.linalg.eigh(operator)
    log = vectors * np.log(values) @ vectors.T
    expected = np.einsum("ai,ab,bi->i", signs, log, signs)
    actual = krylov.log_quadrature(result.lengths, result.ratios, 6)
    assert_allclose(actual, expected, rtol=QUADRATURE_RTOL)
    # A column that ends before the others has zeros at its end.
    padded = [np.vstack([part, np.zeros((3, 4))]) for part in (result.lengths, result.ratios)]
    assert_allclose(krylov.log_quadrature(*padded, 6), actual, rtol=RTOL)


def test_some_columns_of_continued_vectors(rng):
    S = Linear(rng, 5)
    rest = rng.normal(size=(5, 4))
    some = S(rest).columns(slice(1, 3))
    expected = S(rest[:, 1:3])
    for actual, desired in zip(some[:1] + some[2:], expected[:1] + expected[2:], strict=True):
        assert_close(actual, desired)
    assert_close(some.chain[0], expected.chain[0])
