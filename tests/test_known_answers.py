"""Numbers that others published or computed: R lme4, MixedModels.jl, NIST, the quick method's."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from coefficients import deviance, fixed_errors, fixed_estimates
from numpy.testing import assert_allclose
from one_way import ATM_WT_AG, SI_RSTV, SMALL_LEVELS, exact_mean_squares, one_way_reml, small_levels
from reference_data import Reference, load_reference
from sklearn.exceptions import ConvergenceWarning

from sklearn_mackay import MacKayMixedRegressor

CRITERION_ABOVE = 1e-6  # a minimum is not worse than lme4's, whose optimiser ran to 1e-10
CRITERION_ATOL = 1e-5  # nor much better: then it would be another criterion
COEFFICIENT_RTOL = 1e-6  # lme4's variances are good to about 1e-6
STD_RTOL = 1e-5  # a standard error moves by half the relative error of a variance
VARIANCE_RTOL = 1e-4  # the criterion is flat: 1e-10 of it is 1e-5 of a variance
VARIANCE_FLOOR = 1e-6  # of the total variance: below it only the difference counts
EFFECT_ATOL = 1e-4  # in standard deviations of the effect
FITTED_ATOL = 1e-5  # in residual standard deviations
THETA_RTOL = 1e-5  # published values differ by this between BLAS libraries
SIGMA_RTOL = 1e-6  # published to seven digits or more
CLOSED_FORM_RTOL = 1e-8  # the loop ends with a full Newton step, which squares 1e-4
DENSE_RTOL = 1e-9  # a hundred iterations of the same arithmetic in another order
COEFFICIENT_ATOL = 1e-8  # published to eight digits after the point
INTERCEPT_STD_ATOL = 5e-8  # published to seven digits after the point
CORRELATION_ATOL = 5e-4  # published to three digits after the point
DOF_ATOL = 5e-6  # published to five digits after the point
INSTEVAL_RTOL = 1e-3  # lme4 stopped early there: its last digits are up to 4e-4 off
QUICK_RTOL = 1e-7  # published to ten digits, by a loop that ends at 1e-10
PRINTED_DIRECTION = 1e-3  # a direction is printed to three digits, which its variance is zero to
CLOSED_FORM_CRITERION = 1e-14  # of a criterion, which is flat at the optimum
NIST_RTOL = 1e-6  # leading digits in common, or a variance next to zero, leave six digits

MODELS = {
    name: {"random_slopes": {"Subject": ["Days"]}}
    if name in ("sleepstudy", "sleepstudy__diagonal")
    else {}
    for name in (
        "dyestuff",
        "dyestuff2",
        "pastes",
        "penicillin",
        "sleepstudy",
        "sleepstudy__diagonal",
        "sleepstudy__intercept",
        "insteval",
    )
}
SLEEPSTUDY = {"groups": "Subject", "random_slopes": {"Subject": ["Days"]}}


def fit_reference(reference: Reference, **parameters) -> MacKayMixedRegressor:
    model = MacKayMixedRegressor(
        groups=reference.spec["groups"],
        fixed_features=reference.spec["fixed"],
        **{
            "covariance": reference.spec["covariance"],
            **MODELS[reference.name],
            **parameters,
        },
    )
    return model.fit(reference.frame, reference.y)


def covariance(answer: dict, factor: str) -> np.ndarray:
    """lme4 reports uncorrelated effects of one factor as several, ``Subject`` and ``Subject.1``."""
    parts = [
        np.asarray(matrix)
        for name, matrix in answer["varcomp"].items()
        if name.partition(".")[0] == factor
    ]
    size = sum(map(len, parts))
    joined, start = np.zeros((size, size)), 0
    for part in parts:
        end = start + len(part)
        joined[start:end, start:end] = part
        start = end
    return joined


@dataclass(frozen=True)
class Case:
    """A fit of ours beside lme4's."""

    reference: Reference
    answer: dict
    model: MacKayMixedRegressor


@functools.cache
def fit_case(name: str, method: str) -> Case:
    """Fitted once for all tests, which only read it."""
    reference = load_reference(name)
    answer = reference.ml if method == "ml" else reference.reml
    return Case(reference, answer, fit_reference(reference, method=method))


@pytest.fixture(
    params=[
        pytest.param((name, method), marks=pytest.mark.slow if name == "insteval" else ())
        for name in MODELS
        for method in ("reml", "ml", "mackay")
        if (name, method) != ("insteval", "ml")  # lme4's has a test of its own, below
    ],
    ids="-".join,
)
def case(request) -> Case:
    return fit_case(*request.param)


def test_criterion_is_the_one_of_lme4(case):
    excess = deviance(case.model) - case.answer["criterion"]
    assert -CRITERION_ATOL <= excess <= CRITERION_ABOVE


def test_converged(case):
    assert case.model.converged_
    assert case.model.singular_ == case.answer["singular"]
    assert case.model.n_iter_ == len(case.model.history_) - 1


def test_fixed_effects(case):
    expected = list(case.answer["fixef"].values())
    assert_allclose(fixed_estimates(case.model), expected, rtol=COEFFICIENT_RTOL, atol=0)
    names = case.model.fixed_features_[~np.isnan(case.model.coef_)]
    assert ["(Intercept)", *names] == list(case.answer["fixef"])


def test_standard_errors_of_fixed_effects(case):
    found = fixed_errors(case.model)
    assert_allclose(found, np.atleast_1d(case.answer["fixef_se"]), rtol=STD_RTOL, atol=0)


def test_variance_components(case):
    found = case.model.variance_components_
    assert list(found) == [*case.reference.spec["groups"], "residual"]
    expected = {factor: covariance(case.answer, factor) for factor in case.model.groups_}
    total = case.answer["sigma2"] + sum(map(np.trace, expected.values()))
    atol = VARIANCE_FLOOR * total
    assert_allclose(found["residual"], case.answer["sigma2"], rtol=VARIANCE_RTOL, atol=atol)
    for factor, Sigma in expected.items():
        assert_allclose(np.atleast_2d(found[factor]), Sigma, rtol=VARIANCE_RTOL, atol=atol)


def test_random_effects(case):
    for factor, expected in case.answer["ranef"].items():
        levels = case.model.group_levels_[factor].tolist()
        found = case.model.random_effects_[factor]
        assert len(levels) == len(found) == case.reference.frame[factor].nunique()
        rows = [levels.index(level) for level in expected["levels"]]
        std = np.sqrt(np.diag(np.atleast_2d(case.model.variance_components_[factor])))
        error = np.abs(found[rows] - expected["values"])
        assert np.all(error <= EFFECT_ATOL * std)


def test_information_criteria(case):
    found = [case.model.aic_, case.model.bic_]
    assert_allclose(found, [case.answer["AIC"], case.answer["BIC"]], rtol=0, atol=CRITERION_ATOL)


def test_fitted_values(case):
    expected = case.answer["fitted_head"]
    found = case.model.predict(case.reference.frame.iloc[: len(expected)])
    assert_allclose(found, expected, rtol=0, atol=FITTED_ATOL * np.sqrt(case.answer["sigma2"]))


@pytest.mark.parametrize(
    "name",
    [pytest.param(m, marks=pytest.mark.slow) if m == "insteval" else m for m in MODELS],
)
def test_mackay_reaches_the_optimum_of_reml(name):
    reml, mackay = (deviance(fit_case(name, method).model) for method in ("reml", "mackay"))
    assert abs(reml - mackay) <= CRITERION_ABOVE


# A true zero, and values published beside lme4's own: MixedModels.jl's tests, lme4's papers.


@pytest.mark.parametrize("method", ["reml", "ml", "mackay"])
def test_dyestuff2_has_no_variance_between_batches(method):
    model = fit_reference(load_reference("dyestuff2"), method=method)
    assert model.variance_components_["Batch"] == 0.0
    assert np.all(model.random_effects_["Batch"] == 0.0)
    assert model.effective_dof_["Batch"] == 0.0
    assert model.singular_
    assert model.converged_


PUBLISHED_ML = {
    # name: -2 log-likelihood, theta, sigma
    "dyestuff": (327.32705988, {"Batch": [[0.7525806541]]}, 49.5101004),
    "dyestuff2": (162.87303665, {"Batch": [[0.0]]}, 3.6532313514),
    "penicillin": (
        332.18834867,
        {"plate": [[1.53759390]], "sample": [[3.21979219]]},
        0.5499319,
    ),
    "pastes": (247.99446586, {"sample": [[3.52690293]], "batch": [[1.32991374]]}, None),
    "sleepstudy": (
        1751.93934446,
        {"Subject": [[0.92922972, 0.0], [0.01816466, 0.22264601]]},
        None,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED_ML)
def test_published_ml(name):
    criterion, theta, sigma = PUBLISHED_ML[name]
    model = fit_reference(load_reference(name), method="ml")
    assert abs(deviance(model) - criterion) <= CRITERION_ABOVE
    sigma2 = model.variance_components_["residual"]
    if sigma is not None:
        assert_allclose(np.sqrt(sigma2), sigma, rtol=SIGMA_RTOL)
    for factor, expected in theta.items():
        relative = np.atleast_2d(model.variance_components_[factor]) / sigma2
        found = np.linalg.cholesky(relative) if np.any(relative) else relative
        assert_allclose(found, expected, rtol=THETA_RTOL, atol=THETA_RTOL)


def test_published_standard_errors():
    model = fit_reference(load_reference("sleepstudy"), method="ml")
    assert_allclose(fixed_estimates(model), [251.40510485, 10.46728596], atol=COEFFICIENT_ATOL)
    std = fixed_errors(model)
    assert_allclose(std, [6.63229531, 1.50223879], rtol=STD_RTOL)
    model = fit_reference(load_reference("dyestuff2"), method="ml")
    assert_allclose(model.intercept_std_, 0.6669857, atol=INTERCEPT_STD_ATOL)


PUBLISHED_REML = {
    # name: -2 log-likelihood with its last printed unit, standard deviations with theirs, sigma
    "dyestuff": (319.654277, 1e-6, {"Batch": [42.0006]}, 49.5101, 1e-4),
    "dyestuff2": (161.828278, 1e-6, {"Batch": [0.0]}, 3.715684, 1e-6),
    "sleepstudy": (1743.6282722, 1e-6, {"Subject": [24.741, 5.922]}, 25.592, 1e-3),
    "sleepstudy__intercept": (1786.465085, 1e-6, {"Subject": [37.123827]}, 30.991234, 1e-6),
}


@pytest.mark.parametrize("name", PUBLISHED_REML)
def test_published_reml(name):
    criterion, criterion_unit, taus, sigma, unit = PUBLISHED_REML[name]
    model = fit_reference(load_reference(name))
    components = model.variance_components_
    assert abs(deviance(model) - criterion) <= criterion_unit
    assert abs(np.sqrt(components["residual"]) - sigma) <= unit
    for factor, expected in taus.items():
        found = np.sqrt(np.diag(np.atleast_2d(components[factor])))
        assert_allclose(found, expected, rtol=0, atol=unit)
    if name == "sleepstudy":
        Sigma = components["Subject"]
        assert abs(Sigma[0, 1] / np.sqrt(Sigma[0, 0] * Sigma[1, 1]) - 0.066) <= CORRELATION_ATOL


def insteval_service_by_dept() -> tuple[pd.DataFrame, dict]:
    frame = load_reference("insteval").frame
    dummies = pd.get_dummies(frame["dept"], drop_first=True, dtype=np.float64)
    products = dummies.mul(frame["service"], axis=0).add_suffix(":service")
    table = pd.concat([frame[["s", "d", "service"]], dummies, products], axis=1)
    return table, {"groups": ["s", "d"]}


def insteval_slope_of_service() -> tuple[pd.DataFrame, dict]:
    return load_reference("insteval").frame, {
        "groups": ["s", "d", "dept"],
        "random_slopes": {"dept": ["service"]},
        "covariance": "diagonal",
    }


def insteval_intercepts() -> tuple[pd.DataFrame, dict]:
    return load_reference("insteval").frame, {"groups": ["s", "d", "dept"]}


INSTEVAL_SLOPE = {
    "s": [0.105295],
    "d": [0.262425],
    "dept": [0.002579, 0.023405],
    "residual": [1.385009],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "criterion", "unit", "variances"),
    [
        (insteval_intercepts, 237721.76877, 1e-5, {}),
        (insteval_service_by_dept, 237585.55342, 1e-5, {}),
        (insteval_slope_of_service, 237648.6, 0.05, INSTEVAL_SLOPE),
    ],
)
def test_published_ml_of_insteval(make, criterion, unit, variances):
    X, parameters = make()
    y = load_reference("insteval").y
    model = MacKayMixedRegressor(method="ml", **parameters).fit(X, y)
    assert abs(deviance(model) - criterion) <= unit
    for name, expected in variances.items():
        found = np.diag(np.atleast_2d(model.variance_components_[name]))
        assert_allclose(found, expected, rtol=INSTEVAL_RTOL)


# The published quick method.

PUBLISHED_QUICK_V = {"values": [302.9045408, 31.08902388], "units": [1e-7, 1e-8]}


def published_loop(
    days: np.ndarray, codes: np.ndarray, y: np.ndarray, V: np.ndarray, sigma2: float
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """The article's loop, dense: 100 times both variances from one and the same solution."""
    n, n_levels = len(y), codes.max() + 1
    Z = np.zeros((n, 2 * n_levels))
    Z[np.arange(n), 2 * codes], Z[np.arange(n), 2 * codes + 1] = 1.0, days
    A = np.column_stack([np.ones(n), days, Z])
    for iteration in range(101):
        penalty = np.diag(np.concatenate([[0.0, 0.0], np.tile(sigma2 / V, n_levels)]))
        to_coefficients = np.linalg.solve(A.T @ A + penalty, A.T)
        coefficients = to_coefficients @ y
        b = coefficients[2:].reshape(n_levels, 2)
        if iteration < 100:
            sigma2 = np.sum((y - A @ coefficients) ** 2) / (n - np.sum(A.T * to_coefficients))
            V = np.diag(np.cov(b, rowvar=False, ddof=1))
    return V, sigma2, coefficients[:2], b


@pytest.fixture(scope="module")
def quick() -> MacKayMixedRegressor:
    reference = load_reference("sleepstudy")
    model = MacKayMixedRegressor(
        method="quick",
        covariance="diagonal",
        initial_variances={"Subject": [410, 22], "residual": reference.y.var(ddof=1) / 4},
        tol=0,
        max_iter=100,
        **SLEEPSTUDY,
    )
    with pytest.warns(ConvergenceWarning, match="did not converge in 100 iterations.*`tol` is 0.0"):
        return model.fit(reference.frame, reference.y)


def test_quick_reproduces_the_published_digits(quick):
    components = quick.variance_components_
    error = np.abs(np.diag(components["Subject"]) - PUBLISHED_QUICK_V["values"])
    assert np.all(error <= PUBLISHED_QUICK_V["units"])
    assert f"{components['residual']:.4f}" == "670.8547"
    assert [f"{x:.6f}" for x in fixed_estimates(quick)] == ["251.405105", "10.467286"]
    first, second = quick.random_effects_["Subject"][:2]
    assert [f"{x:.6f}" for x in first] == ["2.013963", "9.147986"]
    assert [f"{x:.6f}" for x in second] == ["-32.683526", "-9.633964"]
    assert not quick.converged_
    assert quick.n_iter_ == 100


def test_quick_is_the_published_loop(quick):
    reference = load_reference("sleepstudy")
    days = reference.frame["Days"].to_numpy(np.float64)
    codes = np.unique(reference.frame["Subject"], return_inverse=True)[1]
    start = np.array([410.0, 22.0]), reference.y.var(ddof=1) / 4
    V, sigma2, beta, b = published_loop(days, codes, reference.y, *start)
    Sigma = quick.variance_components_["Subject"]
    assert_allclose(Sigma, np.diag(V), rtol=DENSE_RTOL)
    assert_allclose(quick.variance_components_["residual"], sigma2, rtol=DENSE_RTOL)
    assert_allclose(fixed_estimates(quick), beta, rtol=DENSE_RTOL)
    assert_allclose(quick.random_effects_["Subject"], b, rtol=DENSE_RTOL, atol=DENSE_RTOL)


def test_quick_converges_to_the_same_point_by_itself():
    reference = load_reference("sleepstudy")
    model = fit_reference(reference, method="quick", covariance="diagonal", tol=1e-10)
    Sigma = model.variance_components_["Subject"]
    assert_allclose(np.diag(Sigma), PUBLISHED_QUICK_V["values"], rtol=QUICK_RTOL)
    assert model.converged_


def test_variances_of_lme4_give_the_published_effects():
    reference = load_reference("sleepstudy")
    covariance = 24.7404 * 5.9221 * 0.066
    given = {
        "Subject": [[24.7404**2, covariance], [covariance, 5.9221**2]],
        "residual": 25.5918**2,
    }
    model = fit_reference(reference, fixed_variances=given)
    first, second = model.random_effects_["Subject"][:2]
    assert [f"{x:.6f}" for x in first] == ["2.262934", "9.198305"]
    assert [f"{x:.6f}" for x in second] == ["-40.399556", "-8.619793"]


def test_quick_with_a_full_covariance_says_which_direction_it_lost():
    reference = load_reference("sleepstudy")
    with pytest.warns(ConvergenceWarning) as record:
        model = fit_reference(reference, method="quick")
    (warning,) = record
    message = str(warning.message)
    assert "lost a direction of the covariance of 'Subject'" in message
    assert "-0.308*intercept +1*Days" in message
    assert "method='reml' or 'mackay'" in message
    Sigma = model.variance_components_["Subject"]
    direction = np.array([-0.308, 1.0])
    assert direction @ Sigma @ direction <= PRINTED_DIRECTION * np.trace(Sigma)
    assert np.all(np.isfinite(Sigma))
    assert np.all(np.isfinite(model.random_effects_["Subject"]))
    assert np.all(np.isfinite([*fixed_estimates(model), model.log_likelihood_]))
    assert model.singular_


# Closed forms and NIST's certified values of the balanced one-way layout.


@pytest.mark.parametrize("method", ["reml", "mackay"])
@pytest.mark.parametrize("name", ["dyestuff", "dyestuff2"])
def test_closed_form_of_the_one_way_layout(name, method):
    reference = load_reference(name)
    model = fit_reference(reference, method=method)
    y = np.array([reference.y[reference.frame["Batch"] == b] for b in "ABCDEF"])
    tau2, sigma2, criterion = one_way_reml(y)
    assert_allclose(model.variance_components_["Batch"], tau2, rtol=10 * CLOSED_FORM_RTOL)
    assert_allclose(model.variance_components_["residual"], sigma2, rtol=CLOSED_FORM_RTOL)
    assert_allclose(deviance(model), criterion, rtol=CLOSED_FORM_CRITERION)


def test_trace_of_the_hat_matrix():
    model = fit_reference(load_reference("dyestuff"))
    assert abs(1 + model.effective_dof_["Batch"] - 4.91263) <= DOF_ATOL


def fit_one_way(y: np.ndarray) -> tuple[float, float]:
    k, m = y.shape
    X = np.repeat(np.arange(float(k)), m)[:, None]
    components = MacKayMixedRegressor(groups=[0]).fit(X, y.ravel()).variance_components_
    return components["x0"], components["residual"]


@pytest.mark.parametrize("name", SMALL_LEVELS)
def test_nist_small_levels(name):
    m, offset, tau2, sigma2, digits = SMALL_LEVELS[name]
    y = small_levels(m, offset)
    # Where the offset takes digits of the data, the certified values lose as many: the rational
    # answers for 04-06 are 5e-11 off them, still within eight digits.
    found = fit_one_way(y)
    assert_allclose(found, [tau2, sigma2], rtol=10.0**-digits)
    if m <= 201:  # rational arithmetic on 18009 numbers takes seconds
        assert_allclose(found, exact_mean_squares(y), rtol=CLOSED_FORM_RTOL)


def test_nist_silicon_resistivity():
    y = np.array([line.split() for line in SI_RSTV.split("\n") if line], dtype=np.float64)
    certified = [3.909474800000000e-4, 1.083182800000000e-2]
    assert_allclose(fit_one_way(y), certified, rtol=NIST_RTOL)
    assert_allclose(fit_one_way(y), exact_mean_squares(y), rtol=10 * CLOSED_FORM_RTOL)


def test_nist_atomic_weight_of_silver():
    y = np.array([float(f"107.868{digits}") for digits in ATM_WT_AG.split()]).reshape(2, 24)
    with pytest.warns(UserWarning, match="'x0' has only 2 levels: its variance is poorly determi"):
        found = fit_one_way(y)
    assert_allclose(found, [1.420910809178744e-10, 2.281559329710145e-10], rtol=NIST_RTOL)
