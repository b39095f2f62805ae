"""The iterative engine against the exact one: solutions, traces, determinant, work."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import random_problem
from sklearn.exceptions import ConvergenceWarning
from solvers import prepare_exact

from sklearn_mackay import MacKayMixedRegressor, _machine
from sklearn_mackay.evidence.solution import Variances
from sklearn_mackay.gram.layout import choose_layout
from sklearn_mackay.kernels import engine, exact, iterative, krylov

SOLVED = 1e-8  # relative, for conjugate gradients with a residual of 1e-11
MANY_ERRORS = 5.0  # standard errors; a sound estimate is further off once in two million times
ESTIMATED = 1e-3  # of what four probes tell of a term; 5e-8 was seen
APART = 0.01  # of a standard deviation: what the last solve of a fit may leave
GIVEN = 1e-6  # where variances are given the one solve has a residual of 1e-9
PROBED = 5e-3  # relative, of a variance by probes; 3e-3 was seen
KRYLOV_RTOL = 1e-9  # after as many products as unknowns only rounding is left
QUADRATURE_RTOL = 1e-8  # the same, of a sum over eigenvalues

STRUCTURES = {
    "2 crossed": {"levels": (40, 25)},
    "2 crossed, slopes on the larger": {"levels": (40, 25), "coefficients": (2, 1)},
    "2 crossed, slopes on the smaller": {"levels": (40, 25), "coefficients": (1, 2), "p": 3},
    "2 crossed, slopes on both": {"levels": (40, 25), "coefficients": (2, 2), "weighted": True},
    "2 crossed, diagonal": {"levels": (40, 25), "coefficients": (2, 2), "diagonal": True},
    "3 crossed": {"levels": (60, 40, 30)},
    "3 crossed, slopes": {"levels": (60, 40, 30), "coefficients": (1, 2, 2)},
    "nested within crossed": {"levels": (50, 10, 20), "coarsens": (None, 0, None)},
    "nested, slopes": {
        "levels": (60, 12, 20),
        "coefficients": (2, 1, 2),
        "coarsens": (None, 0, None),
    },
    "3 nested, slopes": {
        "levels": (60, 20, 7, 25),
        "coefficients": (2, 1, 2, 1),
        "coarsens": (None, 0, 1, None),
    },
    "ridge": {"levels": (40, 25), "p": 4, "n_penalized": 2},
    "no fixed part": {"levels": (40, 25), "p": 0},
}


@pytest.fixture
def tight(monkeypatch):
    """Solve as exactly as rounding lets."""
    monkeypatch.setattr(iterative, "LOOSEST", 1e-11)
    monkeypatch.setattr(iterative, "TIGHTEST", 1e-11)
    monkeypatch.setattr(iterative, "INFORMATION_TOLERANCE", 1e-8)


def iterative_engine(crossproducts, *, n_probes=32, reml=True, seed=0):
    return iterative.IterativeEngine(
        crossproducts,
        choose_layout(crossproducts),
        {},
        reml=reml,
        n_probes=n_probes,
        random_state=np.random.RandomState(seed),
    )


def deficient(variances: Variances) -> Variances:
    """The same with the least variance of each covariance at zero."""
    Sigma = []
    for S in variances.Sigma:
        values, vectors = np.linalg.eigh(S)
        Sigma.append((vectors * np.append(0.0, values[1:])) @ vectors.T)
    return Variances(variances.sigma2, tuple(Sigma))


def assert_close(actual, expected, *, rtol=SOLVED, err_msg=""):
    scale = np.max(np.abs(expected), initial=0.0)
    assert_allclose(actual, expected, rtol=0, atol=rtol * scale, err_msg=err_msg)


@pytest.mark.slow
@pytest.mark.parametrize("small", [0, 64], ids=["all iterated", "small terms exact"])
@pytest.mark.parametrize("singular", [False, True], ids=["regular", "singular"])
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_equals_the_exact_engine(rng, tight, monkeypatch, structure, reml, singular, small):
    monkeypatch.setattr(iterative, "SMALL", small)
    problem = random_problem(rng, n=900, **STRUCTURES[structure])
    crossproducts = problem.crossproducts()
    variances = deficient(problem.variances) if singular else problem.variances
    expected = prepare_exact(crossproducts, reml=reml)(variances)
    solve = iterative_engine(crossproducts, reml=reml)
    solution = solve(variances)
    assert solution.finite
    assert solution.solved
    assert solution.variances is variances
    assert solution.log_det is None
    assert solution.n_levels == expected.n_levels
    for name in ("beta", "beta_cov", "information", "yPy"):
        assert_close(getattr(solution, name), getattr(expected, name), err_msg=name)
    for name in ("b", "vv"):
        for actual, desired in zip(getattr(solution, name), getattr(expected, name), strict=True):
            assert_close(actual, desired, err_msg=name)
    samples = solve.trace_samples(variances)
    for actual, desired, sample in zip(solution.N, expected.N, samples, strict=True):
        error = np.std(sample, axis=0, ddof=1) / np.sqrt(len(sample))
        assert np.all(
            np.abs(actual - desired) <= MANY_ERRORS * error + SOLVED * np.max(np.abs(desired))
        )
    log_det, error = solve.log_det(variances)
    assert abs(log_det - expected.log_det) <= MANY_ERRORS * error + SOLVED * len(problem.y)


@pytest.mark.slow
def test_traces_are_the_mean_of_their_samples(rng, tight):
    problem = random_problem(rng, n=900, levels=(40, 25), coefficients=(2, 2))
    few, many = (iterative_engine(problem.crossproducts(), n_probes=c) for c in (4, 400))
    errors = []
    for solve in (few, many):
        samples = solve.trace_samples(problem.variances)
        errors.append([np.std(part, axis=0, ddof=1) / np.sqrt(len(part)) for part in samples])
    for coarse, fine in zip(*errors, strict=True):
        assert np.all(np.trace(fine) < 0.3 * np.trace(coarse))


@pytest.mark.slow
def test_more_probes_are_added_to_those_there(rng, tight):
    problem = random_problem(rng, n=900, levels=(40, 25))
    together, in_turn = (iterative_engine(problem.crossproducts(), n_probes=c) for c in (12, 4))
    in_turn(problem.variances)
    in_turn.add_probes(8)
    samples = [solve.trace_samples(problem.variances) for solve in (together, in_turn)]
    assert [len(part) for part in samples[1]] == [12, 12]
    assert_close(in_turn(problem.variances).beta, together(problem.variances).beta)


@pytest.mark.slow
def test_a_small_term_leaves_the_others_loosely_coupled(rng):
    # A factor of 8 levels ties all levels of the others together.
    problem = random_problem(rng, n=4000, levels=(300, 200, 8))
    solve = iterative_engine(problem.crossproducts(), n_probes=4)
    solution = solve(problem.variances)
    expected = prepare_exact(problem.crossproducts(), reml=True)(problem.variances)
    assert solve.n_products < 20
    assert_close(solution.N[2], expected.N[2], rtol=ESTIMATED)


def crossed(rng, n, *, n_levels=(300, 200)):
    """Rows of two crossed factors with uneven counts, and two features."""
    codes = [np.minimum((L * rng.random(n) ** 1.5).astype(int), L - 1) for L in n_levels]
    x = rng.normal(size=(n, 2))
    y = 3.5 + x @ [0.1, -0.2] + rng.normal(size=n) * np.sqrt(0.75)
    for code, L, variance in zip(codes, n_levels, (0.2, 0.3), strict=True):
        y += rng.normal(size=L)[code] * np.sqrt(variance)
    return np.column_stack([*codes, x]), y


def fitted(X, y, **parameters):
    return MacKayMixedRegressor(groups=[0, 1], **parameters).fit(X, y)


def test_estimates_agree_with_the_exact_engine(rng):
    X, y = crossed(rng, 20_000)
    expected = fitted(X, y, solver="exact")
    model = fitted(X, y, solver="iterative", random_state=0)
    assert (expected.solver_, model.solver_) == ("exact", "iterative")
    assert model.converged_
    apart = APART * np.nanmin(expected.coef_std_)
    assert_allclose(model.coef_, expected.coef_, rtol=0, atol=apart)
    for name, L in (("x0", 300), ("x1", 200)):
        variance, error = model.variance_components_[name], model.variance_mc_error_[name]
        std = variance * np.sqrt(2 / L)
        assert 0 < error <= 0.05 * std
        assert abs(variance - expected.variance_components_[name]) <= MANY_ERRORS * error
        assert_allclose(
            model.random_effects_[name],
            expected.random_effects_[name],
            rtol=0,
            atol=APART * np.sqrt(variance),
        )
    error = model.log_likelihood_mc_error_
    assert 0 < error < 2
    assert abs(model.log_likelihood_ - expected.log_likelihood_) <= MANY_ERRORS * error
    last, same = (fit.history_[-1]["deviance"] for fit in (model, expected))
    assert abs(last - same) <= 2 * MANY_ERRORS * error
    assert expected.variance_mc_error_ == {"x0": 0.0, "x1": 0.0, "residual": 0.0}
    assert expected.log_likelihood_mc_error_ == 0.0


def test_given_variances_are_solved_to_the_end(rng):
    X, y = crossed(rng, 5_000, n_levels=(80, 50))
    held = {"x0": 0.2, "x1": 0.3, "residual": 0.75}
    expected, model = (
        fitted(X, y, solver=solver, fixed_variances=held, random_state=0)
        for solver in ("exact", "iterative")
    )
    assert_allclose(model.coef_, expected.coef_, rtol=GIVEN)
    assert_allclose(model.coef_std_, expected.coef_std_, rtol=GIVEN)
    assert_allclose(model.random_effects_["x1"], expected.random_effects_["x1"], atol=GIVEN)
    assert model.variance_mc_error_ == {"x0": 0.0, "x1": 0.0, "residual": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ml", "mackay", "quick"])
def test_every_method_runs_on_either_engine(rng, method):
    X, y = crossed(rng, 5_000, n_levels=(80, 50))
    expected, model = (
        fitted(X, y, solver=solver, method=method, random_state=0)
        for solver in ("exact", "iterative")
    )
    for name in ("x0", "x1", "residual"):
        assert_allclose(
            model.variance_components_[name], expected.variance_components_[name], rtol=PROBED
        )


@pytest.mark.slow
def test_random_state_makes_fits_repeatable(rng):
    X, y = crossed(rng, 5_000)
    one, same, other = (
        fitted(X, y, solver="iterative", random_state=seed).variance_components_
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


@pytest.mark.slow
def test_probes_are_added_until_their_error_is_small(rng):
    # Two rows a level: the factors' levels depend on each other strongly.
    n = 600
    X = np.column_stack([rng.permutation(np.arange(n) % 300), rng.permutation(np.arange(n) % 290)])
    y = rng.normal(size=300)[X[:, 0]] + rng.normal(size=290)[X[:, 1]] + 0.5 * rng.normal(size=n)
    model = fitted(X, y, solver="iterative", n_probes=2, random_state=0)
    expected = fitted(X, y, solver="exact")
    for name in ("x0", "x1"):
        std = expected.variance_components_[name] * np.sqrt(2 / 300)
        assert model.variance_mc_error_[name] <= 0.05 * 2 * std
        difference = model.variance_components_[name] - expected.variance_components_[name]
        assert abs(difference) <= 0.25 * std


@pytest.mark.slow
def test_products_do_not_grow_with_the_rows(rng):
    counts = []
    for n in (10_000, 40_000, 160_000):
        X, y = crossed(rng, n, n_levels=(n // 20, n // 50))
        model = fitted(X, y, solver="iterative", random_state=0)
        assert model.converged_
        counts.append(model.n_products_)
    assert max(counts) <= min(counts) + 8
    assert max(counts) <= 60


@pytest.mark.slow
def test_a_chain_of_levels_converges(rng):
    # Each level of one factor meets two neighbours of the other: the worst of graphs.
    n = 2_000
    X = np.column_stack([np.arange(n) // 2, (np.arange(n) + 1) // 2])
    X = np.repeat(X, 4, axis=0)
    y = rng.normal(size=n)[X[:, 0]] + rng.normal(size=n)[X[:, 1]] + 0.3 * rng.normal(size=4 * n)
    expected = fitted(X, y, solver="exact")
    model = fitted(X, y, solver="iterative", random_state=0)
    assert model.converged_
    for name in ("x0", "x1"):
        std = expected.variance_components_[name] * np.sqrt(2 / 1000)
        difference = model.variance_components_[name] - expected.variance_components_[name]
        assert abs(difference) <= 0.3 * std


@pytest.mark.slow
def test_disconnected_levels_converge(rng):
    # Four worlds that share no level.
    n = 8_000
    world = np.arange(n) % 4
    X = np.column_stack(
        [rng.integers(100, size=n) * 4 + world, rng.integers(40, size=n) * 4 + world]
    )
    y = rng.normal(size=400)[X[:, 0]] + rng.normal(size=160)[X[:, 1]] + rng.normal(size=n)
    expected = fitted(X, y, solver="exact")
    model = fitted(X, y, solver="iterative", random_state=0)
    assert model.converged_
    for name, L in (("x0", 400), ("x1", 160)):
        std = expected.variance_components_[name] * np.sqrt(2 / L)
        difference = model.variance_components_[name] - expected.variance_components_[name]
        assert abs(difference) <= 0.1 * std


def hard_layouts(rng) -> dict[str, np.ndarray]:
    """Codes (n, 2) of layouts in which the levels of two factors depend on each other."""
    n = 3_000
    zipf = np.minimum(rng.zipf(1.6, size=n), 400) - 1
    return {
        "Zipf counts": np.column_stack([rng.integers(500, size=n), zipf]),
        "two rows a level": np.column_stack(
            [rng.permutation(np.arange(n) // 2), rng.permutation(np.arange(n) // 2)]
        ),
        "one level of most rows": np.column_stack(
            [np.arange(n) % 700, np.where(rng.random(n) < 0.9, 0, rng.integers(60, size=n))]
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", ["Zipf counts", "two rows a level", "one level of most rows"])
def test_hard_layouts_agree_with_the_exact_engine(layout, seed):
    rng = np.random.default_rng(seed)
    X = hard_layouts(rng)[layout]
    y = rng.normal(size=len(X))
    for column in X.T:
        y += 0.7 * rng.normal(size=column.max() + 1)[column]
    expected = fitted(X, y, solver="exact")
    model = fitted(X, y, solver="iterative", random_state=seed)
    assert model.converged_
    assert abs(model.intercept_ - expected.intercept_) <= 0.01 * expected.intercept_std_
    for name, column in zip(("x0", "x1"), X.T, strict=True):
        std = expected.variance_components_[name] * np.sqrt(2 / len(np.unique(column)))
        difference = model.variance_components_[name] - expected.variance_components_[name]
        assert abs(difference) <= 0.1 * std


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "n_fits"), [("exact", 300), ("iterative", 40)])
def test_repeated_fits_of_changing_shapes_keep_the_memory(rng, solver, n_fits):
    def fit(i):
        X, y = crossed(rng, 300 + 7 * (i % 50), n_levels=(60 + i % 11, 40 + i % 7))
        fitted(X, y, solver=solver, random_state=i)

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for i in range(20):
        fit(i)
    before = resident()
    traces = exact._solve_spherical.experimental_get_tracing_count()
    for i in range(n_fits):
        fit(i)
    assert resident() - before < 25 * 2**20
    assert exact._solve_spherical.experimental_get_tracing_count() == traces


def test_gradients_that_do_not_converge_are_reported(rng, monkeypatch):
    monkeypatch.setattr(krylov, "MAX_PRODUCTS", 1)
    X, y = crossed(rng, 2_000, n_levels=(80, 50))
    with pytest.warns(ConvergenceWarning, match="Conjugate gradients did not converge"):
        model = fitted(X, y, solver="iterative", random_state=0, max_iter=3)
    assert not model.converged_


def test_quadrature_is_exact_after_as_many_products_as_unknowns(rng):
    A = rng.normal(size=(6, 6))
    A = A @ A.T + np.eye(6)
    r = rng.choice([-1.0, 1.0], size=(6, 3))

    def apply(x):
        return krylov.Continued(x, [], x, A @ x)

    zero = krylov.Continued(np.zeros_like(r), [], np.zeros_like(r), np.zeros_like(r))
    found = krylov.conjugate_gradients(apply, lambda x: x, r, zero, 1e-14)
    assert_allclose(found.solution.rest, np.linalg.solve(A, r), rtol=KRYLOV_RTOL)
    values, vectors = np.linalg.eigh(A)
    log_A = (vectors * np.log(values)) @ vectors.T
    expected = np.einsum("ic,ij,jc->c", r, log_A, r)
    assert_allclose(
        krylov.log_quadrature(found.lengths, found.ratios, 6), expected, rtol=QUADRATURE_RTOL
    )


@pytest.mark.slow
def test_large_blocks_side_by_side_agree_with_the_exact_engine(rng, monkeypatch):
    X = rng.normal(size=(300, 60))
    y = X[:, :40] @ rng.normal(size=40) + 0.3 * X[:, 40:] @ rng.normal(size=20)
    y += rng.normal(size=300)
    blocks = {"a": range(40), "b": range(40, 60)}
    expected = MacKayMixedRegressor(feature_blocks=blocks).fit(X, y)
    assert expected.solver_ == "exact"
    monkeypatch.setattr("sklearn_mackay.design.blocks.LARGEST_GRAM", 10)
    monkeypatch.setattr(iterative, "SMALL", 0)  # as a large block never is
    model = MacKayMixedRegressor(feature_blocks=blocks, random_state=0).fit(X, y)
    assert model.solver_ == "iterative"
    assert model.converged_
    for name, variance in expected.variance_components_.items():
        error = model.variance_mc_error_[name]
        assert error > 0
        assert abs(model.variance_components_[name] - variance) <= MANY_ERRORS * error


def test_auto_takes_the_exact_engine_where_it_is_fast(rng, monkeypatch):
    X, y = crossed(rng, 2_000, n_levels=(80, 50))
    assert fitted(X, y).solver_ == "exact"
    monkeypatch.setattr(engine, "EXACT_FLOPS", 1e4)
    assert fitted(X, y, random_state=0).solver_ == "iterative"


def test_nothing_is_iterated_where_factors_are_nested(rng):
    codes = np.arange(600) % 60
    X = np.column_stack([codes, codes // 6])
    y = rng.normal(size=60)[codes] + rng.normal(size=10)[codes // 6] + rng.normal(size=600)
    assert fitted(X, y, solver="iterative").solver_ == "exact"


def test_an_exact_problem_beyond_the_memory_is_refused(rng, monkeypatch):
    X, y = crossed(rng, 2_000, n_levels=(80, 50))
    monkeypatch.setattr(_machine, "physical_memory", lambda: 1e4)
    with pytest.raises(MemoryError, match="dense matrix of order 54, .*solver='iterative'"):
        fitted(X, y, solver="exact")


@pytest.mark.slow
def test_monte_carlo_errors_are_those_of_repeated_fits(rng):
    # The error that one fit states is the spread of fits with other probes.
    X, y = crossed(rng, 3_000, n_levels=(150, 120))
    models = [fitted(X, y, solver="iterative", random_state=seed) for seed in range(12)]
    for name in ("x0", "x1"):
        spread = np.std([m.variance_components_[name] for m in models], ddof=1)
        stated = np.sqrt(np.mean([m.variance_mc_error_[name] ** 2 for m in models]))
        assert 0.4 < spread / stated < 2.5
