"""Input on which mixed-model programs break, the defects that others reported, NIST's data sets.

Most hard input is tested beside the module that has to stand it. Here stands the rest: cases that
need several modules or a process of their own, and one regression test for each defect that a
thread about another program describes. A comment names the thread as project#number.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
from coefficients import deviance, existing_coef, fixed_errors, fixed_estimates
from crossed_data import SLOPES, Data
from numpy.testing import assert_allclose, assert_array_equal
from one_way import (
    ATM_WT_AG,
    SI_RSTV,
    SMALL_LEVELS,
    exact_mean_squares,
    one_way,
    one_way_reml,
    small_levels,
)
from reference import random_problem
from reference_data import load_reference
from scipy.stats import chi2
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mackay import MacKayMixedRegressor

INVARIANT = 1e-8  # a loop that ends at 1e-7 of the deviance with one more Newton step
ROUNDING = 1e-10  # the same sums in another order
LEAST_SQUARES = 1e-12  # without variances only a QR factorisation is left
OFFSET_RTOL = 1e-8  # of a variance of whole numbers, which an offset of up to 1e12 does not round
THETA_RTOL = 1e-5  # of the ratio of standard deviations, ten times what `tol` leaves of it at .028
CRITERION_ATOL = 1e-6  # of a deviance at an optimum that is reached twice; `tol` is 1e-7
FLAT_ATOL = 1e-9  # of a deviance of 55 at a ratio of 1e4, whose determinants lose four digits
PUBLISHED_ATOL = 1e-6  # a deviance published to eight decimals or six
PROFILE_RTOL = 1e-6  # the rise of a criterion at the bound of a profile interval
SAME = 1e-10  # scores of the same fits
ENGINE_RTOL = 1e-8  # of one engine's numbers on another device
TIGHT = 1e-12  # a `tol` where the last digits of an answer are compared
TOL = 1e-7  # the estimator's default
SMALL_UNIT = 1e-7  # of y: a variance of order one becomes 1e-14
SMALL_VARIANCE = 1e-13  # ten times the square of that unit
DRAWN_RTOL = 0.05  # of a variance of 50,000 drawn rows: eight standard errors
DRAWN_LEVELS_RTOL = 0.1  # of a variance of 5,000 drawn levels: five standard errors
NIST_DIGITS = 8  # SmLs01 to SmLs06, and SiRstv: from digits of the data that float64 holds
NIST_HARD_DIGITS = 6  # AtmWtAg has seven constant leading digits, SmLs07 to SmLs09 thirteen
SERVING_SECONDS = 0.3  # what the thread asks for behind a web service; it takes a hundredth of this
CROSSED_BYTES = 150 * 2**20  # a dense Z of these rows and levels would take 8 GB; it takes 26 MiB
# MacKay's steps converge linearly, the others quadratically.
ZIPF_ITERATIONS = {"reml": 10, "ml": 10, "mackay": 50}
SLOW_START_SECONDS = 300  # a process that loads TensorFlow on a busy machine

EXACT_FIT = "The model fits y exactly: the residual variance is zero"


@pytest.fixture
def data(rng) -> Data:
    return Data(rng)


def balanced(k: int, m: int) -> np.ndarray:
    """Codes of k levels with m rows each, as the one column of X."""
    return np.repeat(np.arange(float(k)), m)[:, None]


def theta(model: MacKayMixedRegressor, factor: str = "x0") -> float:
    """Standard deviation of a factor's effects relative to the residual's."""
    variances = model.variance_components_
    return float(np.sqrt(variances[factor] / variances["residual"]))


def numbers(model: MacKayMixedRegressor, factors: tuple[str, ...]) -> np.ndarray:
    variances = [np.ravel(model.variance_components_[name]) for name in (*factors, "residual")]
    fixed = [*fixed_estimates(model), *fixed_errors(model)]
    return np.concatenate([[model.log_likelihood_, *fixed], *variances])


def least_squares(A: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Coefficients, residual variance and REML deviance of a regression without groups."""
    n, p = A.shape
    beta, (rss,), *_ = np.linalg.lstsq(A, y, rcond=None)
    log_det = np.linalg.slogdet(A.T @ A)[1]
    sigma2 = rss / (n - p)
    return beta, sigma2, (n - p) * (1 + np.log(2 * np.pi * sigma2)) + log_det


def run_python(
    code: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which sees the modules that this one sees."""
    setup = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOW_START_SECONDS,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


# Optima near zero.


@pytest.mark.parametrize("start", [None, 0.0, 1e-8, 100.0])
@pytest.mark.parametrize("method", ["reml", "mackay"])
def test_small_ratio_of_twenty_levels_is_found_from_any_start(rng, method, start):
    # lme4's boundary.R: .21067645 with 20 levels of 20 rows, where an optimiser stuck at zero.
    # In a balanced layout the criterion depends on the mean squares only: they are chosen for it.
    expected = 0.21067645
    y = one_way(rng, 1 + 20 * expected**2, k=20, m=20)
    initial = None if start is None else {"x0": start}
    model = MacKayMixedRegressor(groups=[0], method=method, initial_variances=initial)
    model.fit(balanced(20, 20), y.ravel())
    assert_allclose(theta(model), expected, rtol=THETA_RTOL)
    assert not model.singular_


def test_smallest_ratio_is_found_by_mackay(rng):
    # A probe at .05 missed an optimum at .028.
    y = one_way(rng, 1 + 20 * 0.028**2, k=20, m=20)
    model = MacKayMixedRegressor(groups=[0], method="mackay", max_iter=2000)
    model.fit(balanced(20, 20), y.ravel())
    assert_allclose(theta(model), 0.028, rtol=THETA_RTOL)


def test_small_interaction_of_a_gauge_study_is_the_analysis_of_variance(rng):
    # lme4's boundary.R fits operators, parts and their interaction, all of them above zero.
    r, c, m = 3, 10, 3
    operator, part, cell = rng.normal(size=(r, 1)), rng.normal(size=(1, c)), rng.normal(size=(r, c))
    error = rng.normal(size=(r, c, m))
    operator -= operator.mean()
    part -= part.mean()
    cell += cell.mean() - cell.mean(axis=0) - cell.mean(axis=1, keepdims=True)
    error -= error.mean(axis=2, keepdims=True)
    squares = {"operator": 40.0, "part": 60.0, "cell": 1.05, "error": 1.0}
    operator *= np.sqrt(squares["operator"] * (r - 1) / (c * m * np.sum(operator**2)))
    part *= np.sqrt(squares["part"] * (c - 1) / (r * m * np.sum(part**2)))
    cell *= np.sqrt(squares["cell"] * (r - 1) * (c - 1) / (m * np.sum(cell**2)))
    error *= np.sqrt(squares["error"] * r * c * (m - 1) / np.sum(error**2))
    y = (operator + part + cell)[:, :, None] + error
    codes = np.column_stack([codes.ravel() for codes in np.indices(y.shape)[:2]])
    model = MacKayMixedRegressor(groups=[0, 1, (0, 1)], tol=TIGHT).fit(codes, y.ravel())
    expected = {
        "x0": (squares["operator"] - squares["cell"]) / (c * m),
        "x1": (squares["part"] - squares["cell"]) / (r * m),
        "x0:x1": (squares["cell"] - squares["error"]) / m,
        "residual": squares["error"],
    }
    assert list(model.variance_components_) == list(expected)
    assert_allclose(list(model.variance_components_.values()), list(expected.values()), INVARIANT)
    assert not model.singular_


def test_ml_variance_is_zero_only_where_its_closed_form_is():
    # lme4's falsezero_dorie.R: 10 levels of 5 rows by maximum likelihood.
    zeros = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = 0.6 * rng.normal(size=(10, 1)) + 2.0 * rng.normal(size=(10, 5))
        means = y.mean(axis=1, keepdims=True)
        ratio = 5 * np.sum((means - y.mean()) ** 2) / np.sum((y - means) ** 2)
        expected = np.sqrt(max(4 * ratio / 5 - 1 / 5, 0.0))
        model = MacKayMixedRegressor(groups=[0], method="ml").fit(balanced(10, 5), y.ravel())
        assert_allclose(theta(model), expected, rtol=THETA_RTOL, atol=0)
        zeros.append(expected == 0.0)
    assert 5 <= sum(zeros) <= 35


@pytest.mark.parametrize("seed", range(6))
def test_mackay_at_a_true_zero_stays_finite_and_ends_there(seed):
    # bayesianbandits#275, #288: gamma below zero, a precision of 2e201 or infinite. The plain
    # update cancels to 0 / 0 with 300 rows and 12 levels of no variance.
    rng = np.random.default_rng(seed)
    codes, x = rng.integers(0, 12, 300), rng.normal(size=300)
    y = 1.0 + x + rng.normal(size=300)
    y -= pd.Series(y).groupby(codes).transform("mean").to_numpy() * (seed % 2)
    X = np.column_stack([x, codes])
    model = MacKayMixedRegressor(groups=[1], method="mackay", max_iter=1000).fit(X, y)
    history = [entry["variances"] for entry in model.history_]
    steps = np.array([[float(np.squeeze(v[name])) for name in ("x1", "residual")] for v in history])
    assert np.all(np.isfinite(steps))
    assert np.all(steps >= 0.0)
    assert 0.0 <= model.effective_dof_["x1"] <= 12.0
    reml = MacKayMixedRegressor(groups=[1]).fit(X, y)
    assert (model.variance_components_["x1"] == 0.0) == reml.singular_ == model.singular_
    if seed % 2:
        assert model.variance_components_["x1"] == model.effective_dof_["x1"] == 0.0
    assert_allclose(deviance(model), deviance(reml), rtol=0, atol=CRITERION_ATOL)
    assert model.converged_


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_a_start_of_zero_is_left(method):
    # mixedlm-rs: at theta = 0 the gradient in theta vanishes whatever the data.
    reference = load_reference("dyestuff")
    model = MacKayMixedRegressor(
        groups="Batch", method=method, tol=TIGHT, initial_variances={"Batch": 0.0}
    ).fit(reference.frame, reference.y)
    expected = 1388.0 + 1.0 / 3.0 if method == "ml" else 1764.05
    assert_allclose(model.variance_components_["Batch"], expected, rtol=INVARIANT)
    assert_allclose(model.variance_components_["residual"], 2451.25, rtol=INVARIANT)


# What cannot be told apart, and what is too little.


def test_criterion_is_flat_with_one_row_a_level(rng):
    # The variances of levels and residual add up; how they share the sum changes nothing.
    n = 20
    x = rng.normal(size=n)
    X, y = np.column_stack([x, np.arange(n)]), x + rng.normal(size=n)
    beta, total, expected = least_squares(np.column_stack([np.ones(n), x]), y)
    for ratio in (0.0, 1.0, 10.0, 100.0):
        given = {"x1": total * ratio**2 / (1 + ratio**2), "residual": total / (1 + ratio**2)}
        model = MacKayMixedRegressor(groups=[1], fixed_variances=given).fit(X, y)
        assert_allclose(deviance(model), expected, rtol=0, atol=FLAT_ATOL)
        # Of the largest: the intercept is a hundredth of the slope.
        atol = ROUNDING * np.max(np.abs(beta))
        assert_allclose(fixed_estimates(model), beta, rtol=0, atol=atol)


def test_nested_labels_need_no_tuple():
    # "A:a" is a sample of batch "A": labelled so, samples are found to lie within batches.
    reference = load_reference("pastes")
    within = reference.frame.assign(cask=reference.frame["sample"].str[-1])
    as_crossed = MacKayMixedRegressor(groups=["sample", "batch"], solver="iterative")
    as_crossed.fit(reference.frame, reference.y)
    as_nested = MacKayMixedRegressor(groups=[("batch", "cask"), "batch"], fixed_features=[])
    as_nested.fit(within[["batch", "cask"]], reference.y)
    assert as_crossed.solver_ == "exact"  # nothing is left to iterate
    found = numbers(as_crossed, ("sample", "batch"))
    assert_allclose(found, numbers(as_nested, ("batch:cask", "batch")), rtol=ROUNDING)


def test_more_columns_than_rows_give_the_least_norm_beside_groups(rng):
    X, y = np.column_stack([rng.normal(size=(15, 30)), np.arange(15) % 4]), rng.normal(size=15)
    model = MacKayMixedRegressor(groups=[30])
    with pytest.warns(UserWarning, match=EXACT_FIT):
        model.fit(X, y)
    expected = np.linalg.pinv(X[:, :30] - X[:, :30].mean(axis=0)) @ (y - y.mean())
    assert_allclose(existing_coef(model), expected, rtol=0, atol=LEAST_SQUARES)
    assert_allclose(model.predict(X), y, rtol=0, atol=LEAST_SQUARES)
    assert model.variance_components_ == {"x30": 0.0, "residual": 0.0}


@pytest.mark.filterwarnings("ignore:Grouping factor 'x0' has only 2 levels:UserWarning")
def test_two_rows_of_two_levels_say_that_nothing_can_be_told():
    with pytest.warns(UserWarning, match="'x0' has as many levels as rows"):
        model = MacKayMixedRegressor(groups=[0]).fit([[0.0], [1.0]], [1.0, 3.0])
    assert model.variance_components_ == {"x0": 0.0, "residual": 2.0}
    assert model.intercept_ == 2.0


@pytest.mark.parametrize("n", [1, 2])
def test_rows_of_a_single_level_are_refused(n):
    message = rf"'x1' has a single level \(n_samples={n}\): its effect is confounded with the inter"
    with pytest.raises(ValueError, match=message):
        MacKayMixedRegressor(groups=[1]).fit([[0.5, 7.0]] * n, [1.0] * n)


def test_a_row_that_cannot_be_left_out_is_warned_of(rng):
    X = pd.DataFrame({"x": np.append(1.0, np.zeros(29)), "g": np.repeat(np.arange(6), 5)})
    y = rng.normal(size=30) + rng.normal(size=6)[X["g"]]
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    with pytest.warns(UserWarning, match="1 of the rows cannot be predicted without their fold"):
        held = model.loo_predict(X, y)
    assert np.isnan(held.mean[0])


# Sizes, orders, offsets.


@pytest.mark.parametrize("offset", [0.0, 1e8, -1e10, 1e12])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_offset_of_whole_numbers_changes_no_variance(method, offset):
    # mixedlm-rs: y'Py by subtraction is 1024 at 1e8 and negative at 1e10 where it should be 327.
    reference = load_reference("dyestuff")
    model = MacKayMixedRegressor(groups="Batch", method=method)
    model.fit(reference.frame, reference.y + offset)
    table = reference.y.reshape(6, 5)
    tau2, sigma2, criterion = one_way_reml(table)
    if method == "ml":
        # The mean square between levels is divided by their number.
        tau2 = (5 / 6 * (5 * tau2 + sigma2) - sigma2) / 5
        criterion = 327.32705988
    found = model.variance_components_
    assert_allclose([found["Batch"], found["residual"]], [tau2, sigma2], rtol=OFFSET_RTOL)
    assert_allclose(deviance(model), criterion, rtol=0, atol=PUBLISHED_ATOL)
    assert_allclose(model.intercept_ - offset, 1527.5, rtol=0, atol=np.spacing(abs(offset)))


@pytest.mark.parametrize("change", ["rows", "labels", "factors"])
def test_order_changes_no_digit_that_counts(data, rng, change):
    expected = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    rows, X, groups = np.arange(len(data.y)), data.frame, ["a", "b"]
    if change == "rows":
        rows = rng.permutation(rows)
    elif change == "labels":
        X = X.assign(a=rng.permutation(12)[data.a], b=rng.permutation(7)[data.b])
    else:
        groups = ["b", "a"]
    model = MacKayMixedRegressor(**{**SLOPES, "groups": groups}).fit(X.iloc[rows], data.y[rows])
    assert_allclose(numbers(model, ("a", "b")), numbers(expected, ("a", "b")), rtol=ROUNDING)
    assert_allclose(model.predict(X), expected.predict(data.frame), rtol=ROUNDING)


def test_pairs_of_levels_beyond_32_bits_do_not_wrap(rng):
    # 60,000 times 50,000 possible pairs are more than 2^31.
    levels = (60_000, 50_000)
    problem = random_problem(rng, n=120_000, levels=levels, p=1)
    table = problem.crossproducts().tables[0, 1]
    a, b = (term.codes for term in problem.terms)
    counts = sp.coo_array((np.ones(len(a)), (a, b)), shape=levels).tocsr()
    found = sp.coo_array(
        (table.blocks[0, 0], (table.row_levels, table.column_levels)), shape=levels
    ).tocsr()
    assert table.blocks.size == counts.nnz
    assert abs(found - counts).max() == 0.0


def test_sparse_tables_with_64_bit_indices(rng):
    # What SciPy makes of tables with more entries than 2^31.
    X = np.column_stack([rng.normal(size=(80, 2)), rng.integers(0, 6, 80)])
    y = X @ [1.0, -1.0, 0.3] + rng.normal(size=80)
    wide = sp.csr_array(X)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    expected = MacKayMixedRegressor(groups=[2]).fit(sp.csr_array(X), y)
    model = MacKayMixedRegressor(groups=[2]).fit(wide, y)
    assert_array_equal(numbers(model, ("x2",)), numbers(expected, ("x2",)))


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_zipf_counts_take_few_iterations(rng, method):
    codes = rng.zipf(1.5, size=(2_000, 2)) % 300
    y = rng.normal(size=300)[codes[:, 0]] + 0.5 * rng.normal(size=300)[codes[:, 1]]
    y += rng.normal(size=2_000)
    parameters = {"groups": [0, 1], "solver": "exact"}
    model = MacKayMixedRegressor(method=method, **parameters).fit(codes, y)
    assert model.converged_
    assert model.n_iter_ <= ZIPF_ITERATIONS[method]
    if method == "mackay":
        reml = MacKayMixedRegressor(**parameters).fit(codes, y)
        assert_allclose(deviance(model), deviance(reml), rtol=0, atol=CRITERION_ATOL)


# Devices. Processes, threads and many fits stand in tests/test_processes.py.

CROSSED_FIT = """
import sys
import numpy as np
from sklearn_mackay import MacKayMixedRegressor

def fit(n_levels, n=1_200, **parameters):
    rng = np.random.default_rng(0)
    codes = rng.integers(n_levels, size=(n, 2))
    y = rng.normal(size=(2, n_levels))[[0, 1], codes].sum(axis=1) + rng.normal(size=n)
    model = MacKayMixedRegressor(groups=[0, 1], **parameters).fit(codes, y)
    variances = list(model.variance_components_.values())
    return [float(number) for number in (model.log_likelihood_, model.intercept_, *variances)]
"""
DEVICES = """
import json
found = [fit(60), fit(60, solver="iterative", random_state=0)]
import tensorflow
print(json.dumps([found, len(tensorflow.config.list_physical_devices("GPU"))]))
"""


@pytest.mark.slow
@pytest.mark.gpu
def test_a_gpu_gives_the_numbers_of_the_cpu():
    with_gpu, n_gpus = json.loads(run_python(CROSSED_FIT + DEVICES).stdout)
    if not n_gpus:
        pytest.skip("TensorFlow sees no GPU")
    without, _ = json.loads(run_python(CROSSED_FIT + DEVICES, CUDA_VISIBLE_DEVICES="-1").stdout)
    assert_allclose(with_gpu, without, rtol=ENGINE_RTOL)


# Defects of other programs: wrong answers at a variance of zero.


def between_and_within(
    rng: np.random.Generator, *, centred: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X with a covariate of the 12 groups, one of the rows and the group; y; the design."""
    codes = np.repeat(np.arange(12), 6)
    between, within = (np.arange(12) % 2.0)[codes], rng.normal(size=72)
    noise = rng.normal(size=72)
    if centred:
        noise -= pd.Series(noise).groupby(codes).transform("mean").to_numpy()
    y = 5.0 + 3.0 * between - 2.0 * within + noise
    return (
        np.column_stack([between, within, codes]),
        y,
        np.column_stack([np.ones(72), between, within]),
    )


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_between_group_coefficients_at_zero_are_those_of_least_squares(rng, method):
    # statsmodels#10239, #10242: below 1e-10 the intercept and the coefficients of covariates that
    # are constant within groups came back as exactly 0.0, with converged=True.
    X, y, A = between_and_within(rng, centred=True)
    model = MacKayMixedRegressor(groups=[2], method=method).fit(X, y)
    assert model.variance_components_["x2"] == 0.0
    expected, *_ = least_squares(A, y)
    assert_allclose(fixed_estimates(model), expected, rtol=LEAST_SQUARES)
    assert expected[0] > 4.0
    assert expected[1] > 2.0


@pytest.mark.parametrize("variance", [1e-6, 1e-9, 1e-11, 1e-14, 1e-30])
def test_between_group_coefficients_move_to_least_squares_without_a_jump(rng, variance):
    # statsmodels#10239: the variance next to zero, held there.
    X, y, A = between_and_within(rng, centred=False)
    given = {"x2": variance, "residual": 1.0}
    model = MacKayMixedRegressor(groups=[2], fixed_variances=given).fit(X, y)
    expected, *_ = least_squares(A, y)
    found = fixed_estimates(model)
    assert_allclose(found, expected, rtol=0, atol=LEAST_SQUARES + 10 * variance)


def test_small_units_of_y_are_no_zero_variance(rng):
    # statsmodels#10239: a variance of 1e-14 that is a share of y like any other.
    X, y, _ = between_and_within(rng, centred=False)
    y = y + rng.normal(size=12)[X[:, 2].astype(int)]
    expected = MacKayMixedRegressor(groups=[2]).fit(X, y)
    model = MacKayMixedRegressor(groups=[2]).fit(X, SMALL_UNIT * y)
    assert 0.0 < model.variance_components_["x2"] < SMALL_VARIANCE
    found = fixed_estimates(model) / SMALL_UNIT
    assert_allclose(found, fixed_estimates(expected), rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [False, True], ids=["intercept", "slope"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_groups_without_meaning_are_no_singular_matrix(method, slope):
    # statsmodels#7051, #6154, #9138, #6157: LinAlgError on y ~ x with three classes of noise.
    A, classes = np.ones((100, 2)), np.arange(100) % 3
    for seed in range(25):
        rng = np.random.default_rng(seed)
        A[:, 1], y = rng.normal(size=100), rng.normal(size=100)
        model = MacKayMixedRegressor(
            groups=[1], method=method, random_slopes={1: [0]} if slope else None
        ).fit(np.column_stack([A[:, 1], classes]), y)
        assert model.converged_
        _, sigma2, without = least_squares(A, y)
        if method == "ml":
            without = 100 * (1 + np.log(2 * np.pi * sigma2 * 98 / 100))
        assert deviance(model) <= without + CRITERION_ATOL
        values = [*fixed_errors(model), *model.random_effects_["x1"].ravel()]
        assert np.all(np.isfinite(values))


def test_effects_of_a_singular_covariance_lie_in_its_range(rng):
    # statsmodels: `random_effects` inverts the covariance, and may raise where it is singular.
    codes, x = np.repeat(np.arange(10), 8), rng.normal(size=80)
    y = 1 + x + rng.normal(size=10)[codes] * (1.0 + 0.7 * x) + rng.normal(size=80)
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]})
    model.fit(np.column_stack([x, codes]), y)
    assert model.singular_
    null = np.linalg.eigh(model.variance_components_["x1"])[1][:, 0]
    effects = model.random_effects_["x1"]
    assert np.max(np.abs(effects)) > 0.1
    assert_allclose(effects @ null, 0.0, rtol=0, atol=INVARIANT)
    uncertainty = model.random_effects_covariance("x1")
    assert_allclose(uncertainty @ null, 0.0, rtol=0, atol=INVARIANT)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_y_with_slopes(rng, value):
    # MixedModels.jl#292: a constant response crashed.
    X = pd.DataFrame({"x": rng.normal(size=100), "sub": np.arange(100) % 5})
    model = MacKayMixedRegressor(groups="sub", random_slopes={"sub": ["x"]})
    with pytest.warns(UserWarning, match=EXACT_FIT):
        model.fit(X, np.full(100, value))
    assert_array_equal(model.variance_components_["sub"], np.zeros((2, 2)))
    assert model.variance_components_["residual"] == 0.0
    assert_allclose(model.predict(X), value, rtol=LEAST_SQUARES)


def test_constant_y_with_a_feature_block(rng):
    # scikit-learn#10128: ARDRegression crashed on a constant response.
    X = rng.normal(size=(30, 4))
    model = MacKayMixedRegressor(alpha="auto")
    with pytest.warns(UserWarning, match=EXACT_FIT):
        model.fit(X, np.full(30, 2.5))
    assert_array_equal(model.coef_, np.zeros(4))
    assert_allclose(model.predict(X), 2.5, rtol=LEAST_SQUARES)
    assert model.alpha_ == {"features": np.inf}


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
def test_no_hidden_prior_knows_the_unit_of_y(rng, scale):
    # scikit-learn#17624: hyperpriors of 1e-6 that BayesianRidge does not mention.
    X = rng.normal(size=(40, 6))
    y = X @ rng.normal(size=6) + rng.normal(size=40)
    expected = MacKayMixedRegressor(alpha="auto").fit(X, y)
    model = MacKayMixedRegressor(alpha="auto").fit(X, y * scale)
    assert_allclose(model.alpha_["features"], expected.alpha_["features"], rtol=ROUNDING)
    assert_allclose(model.coef_ / scale, expected.coef_, rtol=ROUNDING)


def test_a_dropped_column_leaves_the_names_with_their_coefficients(rng):
    # MixedModels.jl#242: behind a column of zeros the coefficients stood beside other names.
    X = pd.DataFrame({"a": 0.0, "b": rng.random(40), "c": rng.random(40), "g": np.arange(40) % 8})
    y = 1.0 + 10.0 * X["b"] - 20.0 * X["c"] + rng.normal(size=8)[X["g"]] + rng.normal(size=40)
    model = MacKayMixedRegressor(groups="g")
    with pytest.warns(UserWarning, match="Fixed features 'a' are combinations of the others"):
        model.fit(X, y)
    reduced = MacKayMixedRegressor(groups="g").fit(X.drop(columns="a"), y)
    assert model.fixed_features_.tolist() == ["a", "b", "c", "g"]
    assert_allclose(model.coef_, [0.0, *reduced.coef_], rtol=ROUNDING)
    assert_allclose(model.coef_std_, [np.nan, *reduced.coef_std_], rtol=ROUNDING)
    tests = model.fixed_effects()
    assert tests.names == ("intercept", "a", "b", "c")
    expected = reduced.fixed_effects().estimate
    assert_allclose(tests.estimate, np.insert(expected, 1, 0.0), rtol=ROUNDING)


def test_a_slope_without_variance_beside_one_with(rng):
    # MixedModels.jl#611: PosDefException. Columns of millions, as in #313, and one of zeros.
    codes = np.arange(120) % 10
    X = pd.DataFrame({"x": 1e6 * rng.normal(size=120), "zero": 0.0, "g": codes})
    y = 1e-6 * X["x"] * (1.0 + rng.normal(size=10)[codes]) + rng.normal(size=120)
    model = MacKayMixedRegressor(
        groups="g", random_slopes={"g": ["x", "zero"]}, fixed_features=["x"]
    )
    with pytest.warns(UserWarning, match=r"No row tells 1\*zero of the levels of 'g'"):
        model.fit(X, y)
    without = MacKayMixedRegressor(groups="g", random_slopes={"g": ["x"]}, fixed_features=["x"])
    without.fit(X, y)
    Sigma = model.variance_components_["g"]
    assert_array_equal(Sigma[2], np.zeros(3))
    expected = without.variance_components_["g"]
    assert_allclose(Sigma[:2, :2], expected, rtol=INVARIANT, atol=INVARIANT * expected[1, 1])
    assert_allclose(deviance(model), deviance(without), rtol=INVARIANT)
    assert_allclose(model.predict(X), without.predict(X), rtol=0, atol=INVARIANT)


# A factor whose levels are fixed features too.


@pytest.fixture
def levels_among_features(rng):
    """Rows with slopes by two factors, and one-hot columns of the first one's levels."""
    g, h, x = np.arange(120) % 6, rng.integers(5, size=120), rng.normal(size=120) + 2.0
    y = x * (1.0 + rng.normal(size=6)[g]) + rng.normal(size=5)[h] + rng.normal(size=120)
    one_hot = {f"g{level}": 1.0 * (g == level) for level in range(1, 6)}
    return pd.DataFrame({"x": x, **one_hot, "g": g, "h": h}), y


TAKEN_UP = r"The fixed features take up 1\*intercept of every level of 'g'"


@pytest.mark.parametrize("method", ["reml", "mackay"])
def test_random_intercepts_beside_fixed_ones_have_no_variance(levels_among_features, method):
    # The sum over crossed factors was refused as singular: variances without bound moved freely.
    X, y = levels_among_features
    slopes = {"g": ["x"], "h": ["x"]}
    model = MacKayMixedRegressor(groups=["g", "h"], random_slopes=slopes, method=method)
    with pytest.warns(UserWarning, match=TAKEN_UP):
        model.fit(X, y)
    assert model.converged_
    assert model.singular_
    Sigma = model.variance_components_["g"]
    assert_array_equal(Sigma[0], [0.0, 0.0])
    assert_array_equal(model.random_effects_["g"][:, 0], np.zeros(6))
    # With no intercept to vary the model is the same, to its last parameter.
    slopes = {"g": {"slopes": ["x"], "intercept": False}, "h": ["x"]}
    without = MacKayMixedRegressor(groups=["g", "h"], random_slopes=slopes, method=method)
    without.fit(X, y)
    assert_allclose(deviance(model), deviance(without), rtol=0, atol=CRITERION_ATOL)
    assert_allclose(Sigma[1, 1], without.variance_components_["g"], rtol=THETA_RTOL)
    assert_allclose(model.aic_, without.aic_, rtol=0, atol=CRITERION_ATOL)


def test_a_factor_whose_levels_are_features_has_no_variance(levels_among_features):
    X, y = levels_among_features
    with pytest.warns(UserWarning, match=TAKEN_UP):
        model = MacKayMixedRegressor(groups=["g", "h"], fixed_features=list(X)[:6]).fit(X, y)
    without = MacKayMixedRegressor(groups=["h"], fixed_features=list(X)[:6]).fit(X, y)
    assert model.variance_components_["g"] == 0.0
    assert_allclose(deviance(model), deviance(without), rtol=0, atol=CRITERION_ATOL)
    assert_allclose(model.coef_, without.coef_, rtol=INVARIANT)


@pytest.mark.filterwarnings("ignore:method='quick' lost a direction")
def test_the_quick_method_leaves_what_fixed_levels_take_up(levels_among_features):
    X, y = levels_among_features
    model = MacKayMixedRegressor(["g", "h"], fixed_features=list(X)[:6], method="quick")
    with pytest.warns(UserWarning, match=TAKEN_UP):
        model.fit(X, y)
    assert model.variance_components_["g"] == 0.0
    without = clone(model).set_params(groups=["h"]).fit(X, y)
    assert_allclose(
        model.variance_components_["h"], without.variance_components_["h"], rtol=THETA_RTOL
    )


def test_maximum_likelihood_finds_no_variance_beside_fixed_levels(levels_among_features):
    # Its criterion does depend on the variance, and falls towards zero.
    X, y = levels_among_features
    model = MacKayMixedRegressor(groups=["g"], fixed_features=list(X)[:6], method="ml").fit(X, y)
    assert model.converged_
    assert model.variance_components_["g"] == 0.0


def test_a_given_variance_beside_fixed_levels_is_kept(levels_among_features):
    X, y = levels_among_features
    model = MacKayMixedRegressor(
        groups=["g", "h"], fixed_features=list(X)[:6], fixed_variances={"g": 2.0}
    ).fit(X, y)
    assert model.variance_components_["g"] == 2.0


# Defects of other programs: criteria, intervals, alarms.


def test_information_criteria_of_a_reml_fit_are_finite():
    # statsmodels#6153: AIC and BIC were NaN under REML. Mean and two variances are estimated.
    reference = load_reference("dyestuff")
    model = MacKayMixedRegressor(groups="Batch").fit(reference.frame, reference.y)
    *_, criterion = one_way_reml(reference.y.reshape(6, 5))
    assert_allclose(model.aic_, criterion + 2 * 3, rtol=ROUNDING)
    assert_allclose(model.bic_, criterion + np.log(30) * 3, rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_profile_intervals_follow_the_criterion_of_the_fit(method):
    # lme4#838: profile intervals of a REML fit were those of ML.
    reference = load_reference("dyestuff")
    fit = {"groups": "Batch", "method": method}
    model = MacKayMixedRegressor(**fit).fit(reference.frame, reference.y)
    for component, name in (("Batch", "sd(Batch: intercept)"), ("residual", "sd(residual)")):
        lower, upper = model.confint(name)[name]
        for bound in filter(None, (lower, upper)):
            held = MacKayMixedRegressor(**fit, fixed_variances={component: bound**2})
            rise = deviance(held.fit(reference.frame, reference.y)) - deviance(model)
            assert_allclose(rise, chi2.ppf(0.95, 1), rtol=PROFILE_RTOL)
    other = clone(model).set_params(method="ml" if method == "reml" else "reml")
    other.fit(reference.frame, reference.y)
    name = "sd(Batch: intercept)"
    assert abs(other.confint(name)[name][1] / model.confint(name)[name][1] - 1) > 0.1
    title = {"reml": "Linear mixed model fit by REML", "ml": "fit by maximum likelihood"}[method]
    assert title in model.summary().to_text()


def test_a_good_fit_of_many_rows_raises_no_alarm(rng):
    # lme4#783, #489, #720: "failed to converge" from differences of a deviance of a large fit.
    n = 50_000
    X = np.column_stack([rng.normal(size=n), 1e6 * rng.normal(size=n), rng.integers(0, 500, n)])
    y = X[:, 0] + 1e-6 * X[:, 1] + 0.1 * rng.normal(size=500)[X[:, 2].astype(int)]
    y += rng.normal(size=n)
    for offset in (0.0, 1e6):
        model = MacKayMixedRegressor(groups=[2]).fit(X, y + offset)
        assert model.converged_
        assert model.history_[-1]["change"] <= TOL
        assert model.n_iter_ <= 10
    assert_allclose(model.variance_components_["residual"], 1.0, rtol=DRAWN_RTOL)


# Defects of other programs: prediction.


def test_prediction_of_training_rows_has_the_effects_shrunken_by_their_closed_form():
    # statsmodels#7065, #8357, #9560; multilevelmod#83: `predict` left the random effects out.
    reference = load_reference("dyestuff")
    model = MacKayMixedRegressor(groups="Batch", tol=TIGHT).fit(reference.frame, reference.y)
    table = reference.y.reshape(6, 5)
    tau2, sigma2, _ = one_way_reml(table)
    shrunken = (table.mean(axis=1) - 1527.5) * 5 * tau2 / (5 * tau2 + sigma2)
    expected = 1527.5 + np.repeat(shrunken, 5)
    assert_allclose(model.predict(reference.frame), expected, rtol=INVARIANT)
    population = model.predict(reference.frame, effects="population")
    assert_allclose(population, 1527.5, rtol=ROUNDING)


def test_one_name_is_a_list_of_one_and_two_are_crossed():
    # statsmodels#6875: groups=['a', 'b'] failed obscurely, and ['a'] was not 'a'.
    reference = load_reference("penicillin")
    one = MacKayMixedRegressor(groups="plate", fixed_features=[])
    listed = MacKayMixedRegressor(groups=["plate"], fixed_features=[])
    one.fit(reference.frame, reference.y)
    listed.fit(reference.frame, reference.y)
    assert_array_equal(numbers(one, ("plate",)), numbers(listed, ("plate",)))
    assert_array_equal(one.predict(reference.frame), listed.predict(reference.frame))
    both = MacKayMixedRegressor(groups=["plate", "sample"], method="ml")
    both.fit(reference.frame, reference.y)
    assert_allclose(deviance(both), 332.18834867, rtol=0, atol=PUBLISHED_ATOL)


def test_rows_of_some_groups_have_the_std_they_have_among_all(data):
    # lme4#815: standard errors failed where not every group was in the new data.
    model = MacKayMixedRegressor(**SLOPES).fit(data.frame, data.y)
    mean, std = model.predict(data.frame, return_std=True)
    for rows in (data.a == 3, data.b == 0, np.arange(len(data.y)) == 17):
        found = model.predict(data.frame[rows], return_std=True)
        assert_allclose(found, [mean[rows], std[rows]], rtol=ROUNDING)
    interval = model.predict_interval(data.frame[data.a == 3])
    assert_allclose(interval, model.predict_interval(data.frame)[data.a == 3], rtol=ROUNDING)


def test_one_row_among_very_many_levels_is_a_lookup(rng):
    # lme4#636, glmmTMB#159: ten seconds for a row with 8,598 levels.
    n_levels = 100_000
    codes = np.tile(np.arange(n_levels), 2)
    X = pd.DataFrame({"x": rng.normal(size=2 * n_levels), "id": codes})
    y = X["x"] + rng.normal(size=n_levels)[codes] + rng.normal(size=2 * n_levels)
    model = MacKayMixedRegressor(groups="id", fixed_variances={"id": 1.0, "residual": 1.0})
    model.fit(X, y)
    batch = model.predict(X)
    seconds = []
    for row in (0, 77_777, 199_999):
        begin = time.perf_counter()
        alone = model.predict(X.iloc[[row]])
        seconds.append(time.perf_counter() - begin)
        assert_array_equal(alone, batch[[row]])
    assert min(seconds) < SERVING_SECONDS


def test_one_new_level_leaves_the_rest_of_the_batch_alone():
    # pymer4's skmer: one new level turned the whole batch into predictions of the fixed part.
    reference = load_reference("sleepstudy")
    model = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]})
    model.fit(reference.frame, reference.y)
    expected, expected_std = model.predict(reference.frame, return_std=True)
    mixed = reference.frame.copy()
    mixed.loc[4, "Subject"] = "new"
    found, std = model.predict(mixed, return_std=True)
    others = np.arange(180) != 4
    assert_array_equal(found[others], expected[others])
    assert_array_equal(std[others], expected_std[others])
    assert_allclose(found[4], model.intercept_ + model.coef_[0] * 4.0, rtol=ROUNDING)
    assert std[4] > expected_std[4]


def test_slopes_are_read_from_the_rows_to_predict():
    # GPBoost#72, #87: slope data had to be passed again, and arrays of roles were confused.
    reference = load_reference("sleepstudy")
    model = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]})
    model.fit(reference.frame, reference.y)
    later = reference.frame.assign(Days=reference.frame["Days"] + 1.0)
    subject = np.searchsorted(model.group_levels_["Subject"], reference.frame["Subject"])
    expected = model.coef_[0] + model.random_effects_["Subject"][subject, 1]
    moved = model.predict(later) - model.predict(reference.frame)
    assert_allclose(moved, expected, rtol=ROUNDING, atol=ROUNDING)
    with pytest.raises(ValueError, match="in the same order as they were in fit"):
        model.predict(reference.frame[["Subject", "Days"]])


# Defects of other programs: memory, and what a saved model holds.

CROSSED_MEMORY = """
import json, resource

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

fit(100, n=2_000, solver="iterative", random_state=0)  # loads TensorFlow
before = peak()
found = fit(5_000, n=100_000, solver="iterative", random_state=0)
print(json.dumps([found, peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux")
def test_crossed_factors_take_little_memory():
    # statsmodels#7214: a dense indicator matrix of 100,000 rows and 10,000 levels takes 8 GB.
    done = run_python(CROSSED_FIT + CROSSED_MEMORY)
    found, memory = json.loads(done.stdout)
    assert_allclose(found[2:], 1.0, rtol=DRAWN_LEVELS_RTOL)  # the variances that were drawn from
    assert memory < CROSSED_BYTES


@pytest.mark.parametrize("store_covariance", [False, True])
def test_a_saved_model_holds_no_row(rng, store_covariance):
    # GPBoost#5, #15; statsmodels#3563: the training data went into the file.
    X = np.column_stack([rng.normal(size=(20_000, 4)), rng.integers(0, 20, 20_000)])
    y = X[:, 0] + rng.normal(size=20)[X[:, 4].astype(int)] + rng.normal(size=20_000)
    model = MacKayMixedRegressor(groups=[4], store_covariance=store_covariance).fit(X, y)
    written = pickle.dumps(model)
    assert len(written) < 0.02 * X.nbytes
    assert len(model.to_json()) < 0.02 * X.nbytes
    for values in (y, *X[:, :4].T):
        for value in values[:20]:
            assert value.tobytes() not in written
            assert repr(float(value)) not in model.to_json()


# Defects of other programs: groups lost at scoring.


def test_a_named_scorer_loses_array_groups_with_a_warning(data):
    # scikit-learn#27977: scoring="r2" passes nothing on, and the score is the population's.
    X, groups = data.frame[["x", "z"]], data.frame["a"].to_numpy()
    cv = KFold(3, shuffle=True, random_state=0)
    model = MacKayMixedRegressor()
    expected = []
    for train, test in cv.split(X):
        model.fit(X.iloc[train], data.y[train], groups=groups[train])
        prediction = model.predict(X.iloc[test], effects="population")
        expected.append(r2_score(data.y[test], prediction))
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(groups=True)
        with pytest.warns(UserWarning, match="predicts without groups: the prediction leaves out"):
            found = cross_val_score(
                model, X, data.y, cv=cv, scoring="r2", params={"groups": groups}
            )
    assert_allclose(found, expected, rtol=SAME)


def test_grid_search_of_a_pipeline_keeps_the_groups_of_columns(data):
    # scikit-learn#30937: groups routed through a pipeline were lost at scoring.
    columns = ColumnTransformer(
        [("scale", StandardScaler(), ["x", "z"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, MacKayMixedRegressor(groups=["a", "b"]))
    cv = KFold(3, shuffle=True, random_state=0)
    slopes = [None, {"a": ["x"]}]
    grid = {"mackaymixedregressor__random_slopes": slopes}
    search = GridSearchCV(pipeline, grid, cv=cv, scoring="r2").fit(data.frame, data.y)
    for i, choice in enumerate(slopes):
        scores = []
        for train, test in cv.split(data.frame):
            model = MacKayMixedRegressor(groups=["a", "b"], random_slopes=choice)
            model.fit(data.frame.iloc[train], data.y[train])
            scores.append(r2_score(data.y[test], model.predict(data.frame.iloc[test])))
            population = model.predict(data.frame.iloc[test], effects="population")
            assert scores[-1] > r2_score(data.y[test], population) + 0.5
        found = [search.cv_results_[f"split{k}_test_score"][i] for k in range(3)]
        assert_allclose(found, scores, rtol=INVARIANT)


# NIST StRD, analysis of variance: https://www.itl.nist.gov/div898/strd/anova/anova.html

NIST_FILES = Path(scipy.stats.__file__).parent / "tests" / "data" / "nist_anova"
# set: certified tau2 and sigma2, digits to reach
NIST = {
    "SiRstv": (3.909474800000000e-4, 1.083182800000000e-2, NIST_DIGITS),
    "AtmWtAg": (1.420910809178744e-10, 2.281559329710145e-10, NIST_HARD_DIGITS),
} | {name: (*values[2:4], values[4]) for name, values in SMALL_LEVELS.items()}


def nist_table(name: str) -> np.ndarray:
    """Levels (rows) of a set, from its definition."""
    if name == "SiRstv":
        return np.array([line.split() for line in SI_RSTV.split("\n") if line], dtype=np.float64)
    if name == "AtmWtAg":
        digits = ATM_WT_AG.split()
        return np.array([float(f"107.868{d}") for d in digits]).reshape(2, 24)
    return small_levels(*SMALL_LEVELS[name][:2])


def read_nist(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Level and value of each row: from NIST's file where SciPy was installed with its tests."""
    path = NIST_FILES / f"{name}.dat"
    if path.exists():
        codes, y = np.loadtxt(path, skiprows=60, unpack=True)
        return codes[:, None], y
    table = nist_table(name)
    return balanced(*table.shape) + 1.0, table.ravel()


@pytest.mark.skipif(not NIST_FILES.exists(), reason="SciPy was installed without its tests")
@pytest.mark.parametrize("name", NIST)
def test_nist_set_is_its_definition(name):
    codes, y = read_nist(name)
    table = nist_table(name)
    assert_array_equal(codes, balanced(*table.shape) + 1.0)
    assert_array_equal(y, table.ravel())


@pytest.mark.filterwarnings("ignore:Grouping factor 'x0' has only 2 levels:UserWarning")
@pytest.mark.parametrize("method", ["reml", "mackay"])
@pytest.mark.parametrize("name", NIST)
def test_nist_digits(name, method):
    tau2, sigma2, digits = NIST[name]
    codes, y = read_nist(name)
    # SiRstv is close to a variance of zero (F = 1.18), where the default leaves six digits.
    tol = TIGHT if name == "SiRstv" else TOL
    model = MacKayMixedRegressor(groups=[0], method=method, tol=tol).fit(codes, y)
    found = np.array([model.variance_components_["x0"], model.variance_components_["residual"]])
    log_relative_error = -np.log10(np.maximum(np.abs(found / [tau2, sigma2] - 1), 1e-16))
    assert np.all(log_relative_error >= digits), log_relative_error
    assert model.converged_


@pytest.mark.parametrize("method", ["reml", "mackay"])
@pytest.mark.parametrize("name", ["SmLs07", "SmLs08"])
def test_nist_sets_of_1e12_have_the_variances_of_the_numbers_as_stored(name, method):
    codes, y = read_nist(name)
    model = MacKayMixedRegressor(groups=[0], method=method, tol=TIGHT).fit(codes, y)
    found = [model.variance_components_["x0"], model.variance_components_["residual"]]
    assert_allclose(found, exact_mean_squares(y.reshape(9, -1)), rtol=INVARIANT)
