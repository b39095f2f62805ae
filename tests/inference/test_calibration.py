"""Exact pivots: at the true variances they have their textbook distributions at any size."""

from __future__ import annotations

import numpy as np
import pytest
from designs import gram_blocks
from reference import STRUCTURES, random_problem
from scipy import sparse, stats
from solvers import exact_solver, posterior_of

from sklearn_mackay.gram.columns import of_output

DRAWS = 2_000
REJECTED = 1e-3  # probability of a false alarm of each test; the seeds are fixed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2 crossed, 2 coefficients", "chain of 2, slopes"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_pivots_have_their_distributions(name, weighted):
    rng = np.random.default_rng(0)
    problem = random_problem(rng, n=50, weighted=weighted, **STRUCTURES[name])
    sigma2, n, p = problem.variances.sigma2, len(problem.y), problem.X.shape[1]
    effects = [
        rng.multivariate_normal(np.zeros(len(S)), S, size=(DRAWS, term.n_levels))
        for term, S in zip(problem.terms, problem.variances.Sigma, strict=True)
    ]
    Z = sparse.hstack([term.Z() for term in problem.terms], format="csr")
    b = np.hstack([part.reshape(DRAWS, -1) for part in effects])
    Y = Z @ b.T + np.sqrt(sigma2 / problem.weights)[:, None] * rng.normal(size=(n, DRAWS))
    crossproducts = gram_blocks(
        problem.terms,
        problem.X,
        Y,
        problem.weights,
        penalty=problem.penalty,
        n=n,
        sum_log_weights=float(np.sum(np.log(problem.weights))),
    )
    posterior = posterior_of(crossproducts, problem.variances)
    units = np.eye(Z.shape[1] + p)
    ends = np.cumsum([0, *(t.n_levels * t.n_coefficients for t in problem.terms)])
    split = [sparse.csr_array(units[:, a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    std = np.sqrt(posterior.variance(posterior.rows(split, units[:, ends[-1] :])))
    rows = posterior.rows([term.Z() for term in problem.terms], problem.X)
    leverage = problem.weights / sigma2 * posterior.variance(rows)
    std_left_out = np.sqrt(sigma2 / problem.weights / (1 - leverage))

    solutions = [
        exact_solver(of_output(crossproducts, j), reml=True)(problem.variances)
        for j in range(DRAWS)
    ]
    fitted = np.array(
        [np.concatenate([*(part.ravel() for part in s.b), s.beta]) for s in solutions]
    )
    errors = (fitted - np.hstack([b, np.zeros((DRAWS, p))])) / std
    design = np.hstack([Z.toarray(), problem.X])
    left_out = (Y.T - fitted @ design.T) / (1 - leverage) / std_left_out
    yPy = [s.yPy for s in solutions]
    assert stats.kstest(yPy, stats.chi2(n - p).cdf).pvalue > REJECTED
    for standardised in (*errors[:, [0, 3, ends[-1] - 1, -1]].T, *left_out[:, ::20].T):
        assert stats.kstest(standardised, "norm").pvalue > REJECTED
