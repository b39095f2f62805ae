"""The factorised covariance of all effects against dense algebra from its definition."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import STRUCTURES, Dense, Problem, random_problem
from scipy import sparse
from solvers import posterior_of

from sklearn_mackay.evidence.solution import Variances

RTOL = 1e-10  # of the largest entry; both sides lose a few digits of 16
DRAWS = 40_000
DRAWS_RTOL = 6 / np.sqrt(DRAWS)  # of a product of standard deviations: six standard errors
PICKLED_RTOL = 1e-14  # the same numbers and the same sums

by_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


def dense_covariance(problem: Problem) -> np.ndarray:
    """Covariance of estimate less truth, random effects term by term and then beta."""
    return Dense(problem, problem.variances, reml=True).covariance


def random_rows(rng: np.random.Generator, problem: Problem, n: int):
    """Rows that combine levels which never met, as sparse parts and as a dense matrix."""
    shapes = [(n, t.n_levels * t.n_coefficients) for t in problem.terms]
    random = [
        sparse.csr_array(rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.3))
        for shape in shapes
    ]
    X = rng.normal(size=(n, problem.X.shape[1]))
    return random, X, np.hstack([*(part.toarray() for part in random), X])


def assert_covariance_of_rows(problem: Problem, rng: np.random.Generator, n: int) -> None:
    """Covariance and variances of random rows are those of dense algebra."""
    random, X, dense_rows = random_rows(rng, problem, n)
    expected = dense_rows @ dense_covariance(problem) @ dense_rows.T
    posterior = posterior_of(problem.crossproducts(), problem.variances)
    rows = posterior.rows(random, X)
    size = np.max(np.abs(expected))
    assert_allclose(posterior.covariance(rows), expected, rtol=0, atol=RTOL * size)
    assert_allclose(posterior.variance(rows), np.diag(expected), rtol=0, atol=RTOL * size)


@by_structure
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_covariance_is_that_of_dense_algebra(structure, weighted):
    rng = np.random.default_rng(0)
    problem = random_problem(rng, n=60, weighted=weighted, **structure)
    assert_covariance_of_rows(problem, rng, 12)


@pytest.mark.parametrize("p", [0, 1, 5])
@pytest.mark.parametrize("n_penalized", [0, 1])
def test_ridge_penalties_and_numbers_of_fixed_columns(p, n_penalized):
    rng = np.random.default_rng(1)
    problem = random_problem(rng, levels=(6, 5), p=p, n_penalized=min(n_penalized, p))
    assert_covariance_of_rows(problem, rng, 8)


def test_singular_covariances_leave_their_null_directions_certain():
    rng = np.random.default_rng(2)
    problem = random_problem(rng, levels=(6, 5), coefficients=(2, 2), rank=1)
    assert_covariance_of_rows(problem, rng, 8)
    random, X, _ = random_rows(rng, problem, 8)
    zero = Variances(problem.variances.sigma2, tuple(0 * S for S in problem.variances.Sigma))
    posterior = posterior_of(problem.crossproducts(), zero)
    only_random = posterior.rows(random, np.zeros_like(X))
    assert np.all(posterior.variance(only_random) == 0.0)


def test_variance_does_not_depend_on_how_many_rows_are_taken_at_once(monkeypatch):
    rng = np.random.default_rng(3)
    problem = random_problem(rng, levels=(9, 4, 5))
    random, X, _ = random_rows(rng, problem, 50)
    at_once = posterior_of(problem.crossproducts(), problem.variances)
    rows = at_once.rows(random, X)
    expected = at_once.variance(rows)
    monkeypatch.setattr(
        "sklearn_mackay.model.posterior.row_blocks",
        lambda n, _: [slice(i, i + 7) for i in range(0, n, 7)],
    )
    monkeypatch.setattr("sklearn_mackay.model.posterior.KEPT_ENTRIES", 0)
    piecewise = posterior_of(problem.crossproducts(), problem.variances)
    assert_allclose(piecewise.variance(rows), expected, rtol=RTOL)
    assert piecewise.variance(rows[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["2 crossed, 2 coefficients", "chain of 3", "nested and crossed"])
def test_samples_have_the_covariance(name):
    rng = np.random.default_rng(4)
    problem = random_problem(rng, n=60, **STRUCTURES[name])
    random, X, _ = random_rows(rng, problem, 10)
    posterior = posterior_of(problem.crossproducts(), problem.variances)
    rows = posterior.rows(random, X)
    draws = rows @ posterior.sample(DRAWS, np.random.RandomState(0))
    std = np.sqrt(posterior.variance(rows))
    assert_allclose(
        draws @ draws.T / DRAWS / np.outer(std, std),
        posterior.covariance(rows) / np.outer(std, std),
        rtol=0,
        atol=DRAWS_RTOL,
    )


def test_survives_pickling():
    rng = np.random.default_rng(5)
    problem = random_problem(rng, levels=(9, 4))
    random, X, _ = random_rows(rng, problem, 5)
    posterior = posterior_of(problem.crossproducts(), problem.variances)
    rows = posterior.rows(random, X)
    again = pickle.loads(pickle.dumps(posterior))
    assert_allclose(again.variance(rows), posterior.variance(rows), rtol=PICKLED_RTOL)
