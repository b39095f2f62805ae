"""Degrees of freedom, intervals and comparisons of fits, against lme4 and closed forms."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from coefficients import fixed_estimates
from crossed_data import Data
from numpy.random import RandomState
from numpy.testing import assert_allclose, assert_array_equal
from reference_data import DATA, load_reference, read_table
from scipy import optimize, sparse, stats
from solvers import exact_solver

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.evidence.criterion import deviance
from sklearn_mackay.inference.bootstrap import bootstrap, bootstrap_interval, resample
from sklearn_mackay.inference.coefficients import untested, with_intercept_std
from sklearn_mackay.inference.coordinates import Coordinates
from sklearn_mackay.inference.curvature import curvature
from sklearn_mackay.inference.intervals import t_interval
from sklearn_mackay.inference.parameters import Parameter, variance_parameters
from sklearn_mackay.inference.profiles import Zeta, profiled
from sklearn_mackay.model.messages import few_values

LME4: dict[str, Any] = json.loads((DATA / "inference.json").read_text())

CONDITIONAL_RTOL = 1e-5  # of a standard deviation, lme4's variances being good to 1e-6
DF_RTOL = 1e-5  # lmerTest differences the deviance numerically; 4e-6 was seen
PROFILE_RTOL = 1e-6  # two root searches; 1e-7 was seen
SE_RTOL = 1e-5  # a standard error moves by half the relative error of a variance
R2_RTOL = 1e-6  # lme4's variances are good to about 1e-6
STEP = 1e-5  # of a central difference of the deviance, relative to the coordinate
GRADIENT_RTOL = 1e-7  # it has an error of STEP^2, and rounding of 1e-13 of the deviance over STEP
CLOSED_FORM_RTOL = 1e-6  # of a bound: roots are searched to 1e-8, optima to 1e-10 of the deviance
P_RTOL = 1e-4  # a t value is good to 1e-5, far in the tail
RATIO_RTOL = 1e-7  # of a difference of two deviances, which are flat at their optima
RATIO_P_RTOL = 1e-6  # of its probability, far in the tail
INSTEVAL_DF_RTOL = 1e-3  # the optimum itself is known to 1e-5 of the variances; dept has 14 levels
INSTEVAL_STD_RTOL = 1e-4  # the same optimum
EXACT_DF_RTOL = 1e-6  # of degrees of freedom that are whole numbers; 4e-8 was seen
ONE_RTOL = 1e-12  # of a correlation of one: the cosine of zero
RISE_RTOL = 1e-6  # of the criterion's rise at a bound, whose root is searched to 1e-8
GRID_RISE_RTOL = 1e-5  # of a rise above the minimum of a grid
SEARCHED_RISE_RTOL = 1e-4  # of a rise above a minimum that Nelder and Mead's search finds
BACK_RTOL = 1e-7  # of variances to coordinates and back; 1e-15 was seen
COSINE_RTOL = 1e-6  # of a correlation that is kept as an angle; 1e-15 was seen
SCALED_RTOL = 1e-5  # of bounds of y in another unit, each by a search of its own
RESAMPLED = 0.1  # of the width: quantiles of 1,000 draws are good to some hundredths of it
MOVED_RTOL = 1e-4  # of a bound, or degrees of freedom, where a slope's zero lies up to 1e6 away
DENSE_RTOL = 1e-6  # of a bound by a dense criterion, the best of six searches


def fit_reference(name: str, **parameters) -> tuple[MacKayMixedRegressor, pd.DataFrame, np.ndarray]:
    spec = LME4[name]
    columns = sorted({column for group in spec["groups"] for column in group.split(":")})
    frame = read_table(spec["csv"], columns)
    slopes = {g: np.atleast_1d(s).tolist() for g, s in (spec["random_slopes"] or {}).items()}
    groups = [tuple(g.split(":")) if ":" in g else g for g in spec["groups"]]
    X, y = frame[[*spec["fixed"], *columns]], frame[spec["y"]].to_numpy(dtype=float)
    model = MacKayMixedRegressor(groups=groups, random_slopes=slopes, **parameters)
    return model.fit(X, y), X, y


def lme4_name(name: str) -> str:
    return {"intercept": "(Intercept)"}.get(name, name)


@pytest.fixture(scope="module", params=["sleepstudy", "dyestuff", "penicillin", "pastes", "cake"])
def reference(request):
    model, *_ = fit_reference(request.param)
    return model, LME4[request.param]["reml"]


def test_degrees_of_freedom_are_those_of_lmertest(reference):
    model, theirs = reference
    ours = model.fixed_effects()
    for i, name in enumerate(ours.names):
        expected = theirs["fixed"][lme4_name(name)]
        assert_allclose(ours.df[i], expected["df"], rtol=DF_RTOL)
        assert_allclose(ours.estimate[i], expected["estimate"], rtol=SE_RTOL)
        assert_allclose(ours.std_error[i], expected["std_error"], rtol=SE_RTOL)
        assert_allclose(ours.t_value[i], expected["t"], rtol=SE_RTOL)
        assert_allclose(ours.p_value[i], expected["p"], rtol=P_RTOL)


def test_conditional_variances_are_those_of_lme4(reference):
    model, theirs = reference
    for factor, expected in theirs["cond_std"].items():
        covariance = model.random_effects_covariance(factor, given_fixed=True)
        std = np.sqrt(np.einsum("jaa->ja", covariance))
        if factor in theirs.get("levels", {}):
            labels = [
                ":".join(map(str, label)) if isinstance(label, tuple) else str(label)
                for label in model.group_levels_[factor]
            ]
            order = [labels.index(level) for level in theirs["levels"][factor]]
            std = std[order]
        assert_allclose(std, np.reshape(expected, std.shape), rtol=CONDITIONAL_RTOL)
        assert np.all(model.random_effects_std_[factor] >= std)


def our_names(theirs: dict[str, Any], factor: str) -> dict[str, Any]:
    """Parameters under our names for lme4's."""
    names = {
        f"sd_(Intercept)|{factor}": f"sd({factor}: intercept)",
        f"sd_Days|{factor}": f"sd({factor}: Days)",
        f"cor_Days.(Intercept)|{factor}": f"cor({factor}: intercept, Days)",
        "sigma": "sd(residual)",
        "(Intercept)": "intercept",
    }
    return {names.get(name, name): value for name, value in theirs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("level", ["0.95", "0.9"])
@pytest.mark.parametrize("name", ["sleepstudy", "dyestuff"])
def test_profile_intervals_are_those_of_lme4(name, level):
    model, *_ = fit_reference(name, method="ml")
    expected = our_names(LME4[name]["profile_ml"][level], LME4[name]["groups"][0])
    intervals = model.confint(method="profile", level=float(level))
    assert intervals.keys() == expected.keys()
    for parameter, interval in intervals.items():
        assert_allclose(interval, expected[parameter], rtol=PROFILE_RTOL)


def test_likelihood_ratio_is_that_of_lme4():
    large, X, y = fit_reference("sleepstudy", method="ml")
    small = MacKayMixedRegressor(groups="Subject", method="ml").fit(X, y)
    expected = LME4["sleepstudy"]["anova"]
    for ratio in (large.compare(small), small.compare(large)):
        assert_allclose(ratio.statistic, expected["chisq"], rtol=RATIO_RTOL)
        assert ratio.df == expected["df"]
        assert_allclose(ratio.p_value, expected["p"], rtol=RATIO_P_RTOL)


@pytest.mark.parametrize("name", ["sleepstudy", "pastes", "cake"])
def test_likelihood_ratio_of_reml_fits_is_that_of_lme4(name):
    large, X, y = fit_reference(name)
    expected = LME4[name]["anova_reml"]
    small = MacKayMixedRegressor(
        groups=expected["null_groups"], fixed_features=LME4[name]["fixed"]
    ).fit(X, y)
    for ratio in (large.compare(small), small.compare(large)):
        assert_allclose(ratio.statistic, expected["chisq"], rtol=RATIO_RTOL)
        assert ratio.df == expected["df"]
        assert_allclose(ratio.p_value, expected["p"], rtol=RATIO_P_RTOL)


@pytest.mark.parametrize("name", ["sleepstudy", "penicillin"])
def test_r2_is_that_of_its_definition(name):
    model, *_ = fit_reference(name)
    expected, shares = LME4[name]["nakagawa"], model.explained_variance()
    assert_allclose(shares.r2_marginal, expected["marginal"], rtol=R2_RTOL, atol=R2_RTOL)
    assert_allclose(shares.r2_conditional, expected["conditional"], rtol=R2_RTOL)
    random = expected["variance_random"]
    total = sum(shares.icc.values())
    assert_allclose(total, random / (random + expected["variance_residual"]), rtol=R2_RTOL)


@pytest.mark.parametrize("weight_type", ["frequency", "precision"])
def test_variances_of_r2_are_weighted_means_over_the_rows(rng, weight_type):
    codes = rng.integers(8, size=60)
    x = rng.normal(size=60)
    y = x + rng.normal(size=8)[codes] + x * rng.normal(size=8)[codes] + rng.normal(size=60)
    weights = rng.integers(1, 4, size=60).astype(float)
    model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}, weight_type=weight_type)
    X = np.column_stack([x, codes])
    model.fit(X, y, sample_weight=weights)
    mean = model.predict(X, effects="population")
    fixed = np.average((mean - np.average(mean, weights=weights)) ** 2, weights=weights)
    Z, Sigma = np.column_stack([np.ones(60), x]), model.variance_components_[model.groups_[0]]
    random = np.average(np.sum(Z @ Sigma * Z, axis=1), weights=weights)
    total = fixed + random + model.variance_components_["residual"]
    shares = model.explained_variance()
    assert_allclose(shares.r2_marginal, fixed / total, rtol=R2_RTOL)
    assert_allclose(shares.r2_conditional, (fixed + random) / total, rtol=R2_RTOL)


@pytest.mark.slow
def test_degrees_of_freedom_of_insteval_are_those_of_lmertest():
    model, *_ = fit_reference("insteval")
    theirs, ours = LME4["insteval"]["reml"], model.fixed_effects()
    for i, name in enumerate(ours.names):
        assert_allclose(ours.df[i], theirs["fixed"][lme4_name(name)]["df"], rtol=INSTEVAL_DF_RTOL)
    for factor, expected in theirs["cond_std"].items():
        labels = model.group_levels_[factor].astype(str).tolist()
        covariance = model.random_effects_covariance(factor, given_fixed=True)
        std = np.sqrt(covariance[[labels.index(level) for level in theirs["levels"][factor]], 0, 0])
        assert_allclose(std, np.ravel(expected), rtol=INSTEVAL_STD_RTOL)


# Closed forms.


def balanced(k: int, m: int, tau: float, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(k), m)
    return pd.DataFrame({"g": group}), tau * rng.normal(size=k)[group] + rng.normal(size=k * m)


def test_least_squares_has_the_usual_degrees_of_freedom():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 3))
    tests = MacKayMixedRegressor().fit(X, X @ [1, 0, 2] + rng.normal(size=40)).fixed_effects()
    assert_allclose(tests.df, 36, rtol=EXACT_DF_RTOL)
    theirs = stats.t.interval(0.9, 36, tests.estimate, tests.std_error)
    assert_allclose(tests.interval(0.9), np.column_stack(theirs), rtol=EXACT_DF_RTOL)


def test_balanced_one_way_mean_has_the_degrees_of_freedom_of_its_groups():
    X, y = balanced(8, 5, 2.0)
    assert_allclose(
        MacKayMixedRegressor(groups="g").fit(X, y).fixed_effects().df, 7, rtol=EXACT_DF_RTOL
    )


def test_zero_variance_leaves_the_degrees_of_freedom_of_the_residual():
    X, y = balanced(8, 5, 0.0)
    y -= pd.Series(y).groupby(X["g"]).transform("mean")
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    assert model.variance_components_["g"] == 0.0
    assert_allclose(model.fixed_effects().df, 39, rtol=EXACT_DF_RTOL)


@pytest.mark.parametrize("tau", [2.0, 0.2])
def test_profile_of_the_balanced_one_way_layout_is_its_closed_form(tau):
    """REML deviance ``k(m-1) log s + (k-1) log(s + m t) + SSW / s + SSB / (s + m t)``."""
    k, m = 8, 5
    X, y = balanced(k, m, tau, seed=3)
    means = pd.Series(y).groupby(X["g"]).transform("mean").to_numpy()
    within, between = np.sum((y - means) ** 2), np.sum((means - y.mean()) ** 2)

    def profiled(t: float) -> float:
        """Minimum over s, by a fine search of its logarithm."""
        s = np.exp(np.linspace(-3, 3, 400_001)) * within / (k * (m - 1))
        d = k * (m - 1) * np.log(s) + (k - 1) * np.log(s + m * t) + within / s
        return float(np.min(d + between / (s + m * t)))

    model = MacKayMixedRegressor(groups="g").fit(X, y)
    interval = model.confint("g")["sd(g: intercept)"]
    estimate = float(np.sqrt(model.variance_components_["g"]))
    least = profiled(estimate**2)
    cut = stats.chi2.ppf(0.95, 1)
    assert interval[0] <= estimate <= interval[1]
    for bound in interval:
        rise = profiled(bound**2) - least
        if bound == 0.0:
            assert rise < cut
        else:
            assert_allclose(rise, cut, rtol=GRID_RISE_RTOL)


@pytest.mark.slow
def test_a_variance_of_zero_has_a_one_sided_interval():
    X, y = balanced(8, 5, 0.0)
    y -= pd.Series(y).groupby(X["g"]).transform("mean")
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    lower, upper = model.confint("sd(g: intercept)")["sd(g: intercept)"]
    assert lower == 0.0
    assert 0.0 < upper < np.inf
    with pytest.warns(UserWarning, match=r"no interval of 'sd\(g: intercept\)': at the"):
        wald = model.confint(method="wald")
    assert np.all(np.isnan(wald["sd(g: intercept)"]))
    assert np.all(np.isfinite([wald["sd(residual)"], wald["intercept"]]))
    profile = model.profile("sd(g: intercept)")
    assert profile.estimate == profile.values[0] == 0.0
    assert np.all(np.diff(profile.zeta) > 0)


def test_a_correlation_of_one_has_an_interval_up_to_one():
    rng = np.random.default_rng(2)
    group, x = np.repeat(np.arange(10), 6), np.tile(np.arange(6.0), 10)
    b = rng.normal(size=10)
    y = b[group] * (1 + 0.5 * x) + 0.8 * rng.normal(size=60)
    X = pd.DataFrame({"x": x, "g": group})
    model = MacKayMixedRegressor(groups="g", random_slopes={"g": ["x"]}).fit(X, y)
    assert model.singular_
    lower, upper = model.confint("cor(g: intercept, x)")["cor(g: intercept, x)"]
    assert -1 < lower < 1
    assert_allclose(upper, 1.0, rtol=ONE_RTOL)


def test_coefficient_of_least_squares_profiles_as_its_f_statistic():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(30, 2))
    y = X @ [1.0, 0.3] + rng.normal(size=30)
    model = MacKayMixedRegressor(method="ml").fit(X, y)
    design = np.column_stack([np.ones(30), X])
    inverse, rss = np.linalg.inv(design.T @ design), np.sum((y - model.predict(X)) ** 2)
    intervals = model.confint(["intercept", "x0", "x1"], method="profile")
    for i, (name, interval) in enumerate(intervals.items()):
        estimate = fixed_estimates(model)[i]
        # n log(1 + (value - estimate)^2 / (rss C_ii)) is the chi-square quantile at the bounds.
        width = np.sqrt(rss * inverse[i, i] * np.expm1(stats.chi2.ppf(0.95, 1) / 30))
        assert_allclose(interval, (estimate - width, estimate + width), rtol=CLOSED_FORM_RTOL), name


# Identities.


@pytest.fixture
def data() -> Data:
    return Data(np.random.default_rng(0))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_gradient_in_coordinates_is_that_of_differences(data, covariance, method):
    parameters = {"groups": ["a", "b"], "random_slopes": {"a": ["x", "z"]}}
    model = MacKayMixedRegressor(**parameters, covariance=covariance, method=method, max_iter=2)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(data.frame, data.y)
    (kept,) = model._models
    solve = exact_solver(kept.crossproducts, reml=method == "reml")
    for parameter in [None, *(p for p in variance_parameters(kept) if len(p.coefficients) == 2)]:
        coordinates = Coordinates(kept, parameter)
        phi = coordinates.at(kept.variances) * 1.1

        def value(phi, coordinates=coordinates):
            return deviance(
                solve(coordinates.variances(phi)),
                dof=kept.freedom.dof,
                sum_log_weights=0.0,
                penalty=kept.crossproducts.penalty,
            )

        slope = coordinates.gradient(phi, solve(coordinates.variances(phi)))
        steps = np.diag(STEP * phi)
        expected = [(value(phi + h) - value(phi - h)) / (2 * h.sum()) for h in steps]
        assert_allclose(
            slope, expected, rtol=GRADIENT_RTOL, atol=GRADIENT_RTOL * np.max(np.abs(slope))
        )


def test_coordinates_lead_back_to_the_variances(data):
    parameters = {"groups": ["a", "b"], "random_slopes": {"a": ["x", "z"]}}
    model = MacKayMixedRegressor(**parameters).fit(data.frame, data.y)
    (kept,) = model._models
    for parameter in [None, *(p for p in variance_parameters(kept) if len(p.coefficients) == 2)]:
        coordinates = Coordinates(kept, parameter)
        phi = coordinates.at(kept.variances)
        for ours, expected in zip(
            coordinates.variances(phi).Sigma, kept.variances.Sigma, strict=True
        ):
            assert_allclose(ours, expected, rtol=0, atol=BACK_RTOL * np.max(expected))
        if parameter is not None:
            a, b = parameter.coefficients
            Sigma = model.variance_components_["a"]
            correlation = Sigma[a, b] / np.sqrt(Sigma[a, a] * Sigma[b, b])
            assert_allclose(
                np.cos(phi[coordinates.index(parameter)]), correlation, rtol=COSINE_RTOL
            )


@pytest.mark.slow
def test_intervals_scale_with_y(data):
    model = MacKayMixedRegressor(groups=["a", "b"], random_slopes={"a": ["x"]})
    small, large = (model.fit(data.frame, c * data.y).confint() for c in (1.0, 1e3))
    for name, interval in small.items():
        unit = 1.0 if name.startswith("cor") else 1e3
        assert_allclose(large[name], unit * np.array(interval), rtol=SCALED_RTOL)


def test_bounds_are_where_the_held_fit_rises_by_the_quantile(data):
    """Every bound of a scalar variance, by fits that hold it."""
    model = MacKayMixedRegressor(groups=["a", "b"]).fit(data.frame, data.y)
    for component in ("a", "b", "residual"):
        name = "sd(residual)" if component == "residual" else f"sd({component}: intercept)"
        for bound in model.confint(name)[name]:
            held = MacKayMixedRegressor(groups=["a", "b"], fixed_variances={component: bound**2})
            rise = 2 * (model.log_likelihood_ - held.fit(data.frame, data.y).log_likelihood_)
            assert_allclose(rise, stats.chi2.ppf(0.95, 1), rtol=RISE_RTOL)


def test_blocks_have_intervals():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(80, 12))
    y = X @ rng.normal(size=12) + rng.normal(size=80)
    model = MacKayMixedRegressor(alpha="auto").fit(X, y)
    lower, upper = model.confint("features")["sd(features)"]
    held = [
        MacKayMixedRegressor(alpha="auto", fixed_variances={"features": bound**2}).fit(X, y)
        for bound in (lower, upper)
    ]
    rises = [2 * (model.log_likelihood_ - fit.log_likelihood_) for fit in held]
    assert_allclose(rises, stats.chi2.ppf(0.95, 1), rtol=RISE_RTOL)


@pytest.mark.slow
def test_bootstrap_agrees_with_the_sampling_distribution_of_the_mean_square():
    """The residual variance of a balanced layout is a chi-square, and the mean has a t value."""
    X, y = balanced(10, 4, 3.0)
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    chosen = ["sd(residual)", "intercept"]
    intervals = model.confint(chosen, method="bootstrap", n_resamples=1_000, level=0.9)
    sd = np.sqrt(model.variance_components_["residual"])
    expected = sd * np.sqrt(30 / stats.chi2.ppf([0.95, 0.05], 30))
    assert_allclose(
        intervals["sd(residual)"], expected, rtol=0, atol=RESAMPLED * np.diff(expected)[0]
    )
    expected = stats.t.interval(0.9, 9, model.intercept_, model.intercept_std_)
    assert_allclose(intervals["intercept"], expected, rtol=0, atol=RESAMPLED * np.diff(expected)[0])


@pytest.mark.slow
def test_bootstrap_does_not_depend_on_the_number_of_processes(data):
    model = MacKayMixedRegressor(groups=["b"]).fit(data.frame[["x", "b"]], data.y)
    one, two = (model.confint("b", method="bootstrap", n_resamples=20, n_jobs=n) for n in (None, 2))
    assert one == two
    assert one != model.confint("b", method="bootstrap", n_resamples=20, random_state=1)


def test_bootstrap_shows_a_bar_when_asked(data, capsys):
    model = MacKayMixedRegressor(groups=["b"]).fit(data.frame[["x", "b"]], data.y)
    model.confint("b", method="bootstrap", n_resamples=5)
    assert capsys.readouterr().err == ""
    model.confint("b", method="bootstrap", n_resamples=5, verbose=1)
    assert "5" in capsys.readouterr().err


def test_wald_intervals_of_coefficients_have_t_quantiles(data):
    model = MacKayMixedRegressor(groups=["a", "b"], fit_intercept=True).fit(data.frame, data.y)
    tests = model.fixed_effects()
    intervals = model.confint(["x", "z"], method="wald", level=0.8)
    assert_array_equal(list(intervals.values()), tests.interval(0.8)[1:])


def test_by_default_variances_are_profiled_and_coefficients_have_t_intervals(data):
    model = MacKayMixedRegressor("a", random_slopes={"a": ["x"]}).fit(data.frame, data.y)
    intervals = model.confint(level=0.9)
    profiles = model.confint(method="profile", level=0.9)
    wald = model.confint(["intercept", "x", "z", "b"], method="wald", level=0.9)
    assert dict(intervals) == {**profiles, **wald}
    assert list(intervals) == [*profiles, *wald]
    assert intervals.methods == {**profiles.methods, **wald.methods}
    assert model.confint("z", level=0.9) == {"z": wald["z"]}
    assert model.confint("a", level=0.9) == {n: b for n, b in profiles.items() if "a:" in n}


def test_the_curvature_is_computed_once_and_for_coefficients_only(data, monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return curvature(*arguments)

    monkeypatch.setattr("sklearn_mackay.inference.at_optimum.curvature", counted)
    model = MacKayMixedRegressor("a").fit(data.frame[["x", "z", "a"]], data.y)
    model.confint("sd(residual)")
    assert len(calls) == 0
    model.confint(["x", "z", "sd(residual)"])
    assert len(calls) == 1


def test_coefficients_without_a_curvature_do_not_end_the_profiles(data, monkeypatch):
    def fails(*arguments):
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    model = MacKayMixedRegressor("a").fit(data.frame[["x", "a"]], data.y)
    expected = model.confint("sd(residual)")
    monkeypatch.setattr("sklearn_mackay.inference.at_optimum.curvature", fails)
    with pytest.warns(UserWarning, match="no interval of 'intercept', 'x': the equations are sing"):
        found = model.confint()
    assert np.all(np.isnan([found["x"], found["intercept"]]))
    assert found["sd(residual)"] == expected["sd(residual)"]


def test_degrees_of_freedom_that_are_not_known_are_the_reason(data):
    tests = MacKayMixedRegressor("a").fit(data.frame[["x", "a"]], data.y).fixed_effects()
    bounds, reason = t_interval(with_intercept_std(tests, 1.0), 0, 0.95)
    assert np.all(np.isnan(bounds))
    assert reason == "its degrees of freedom are not known"
    assert t_interval(tests, 1, 0.95).reason is None


def test_a_singular_fit_has_default_intervals():
    X, y = balanced(8, 5, 0.0)
    y -= pd.Series(y).groupby(X["g"]).transform("mean")
    model = MacKayMixedRegressor(groups="g").fit(X, y)
    assert model.singular_
    found = model.confint()
    assert found["intercept"] == model.confint("intercept", method="wald")["intercept"]
    assert found["sd(g: intercept)"][0] == 0.0
    assert np.all(np.isfinite([*found.values()]))


@pytest.mark.parametrize("name", ["sleepstudy", "dyestuff"])
def test_default_intervals_of_coefficients_are_those_of_lmertest(name):
    model, *_ = fit_reference(name)
    for ours in model.fixed_effects().names:
        theirs = LME4[name]["reml"]["fixed"][lme4_name(ours)]
        width = stats.t.ppf(0.975, theirs["df"]) * theirs["std_error"]
        expected = (theirs["estimate"] - width, theirs["estimate"] + width)
        assert_allclose(model.confint(ours)[ours], expected, rtol=SE_RTOL)


def test_without_intercept_there_is_none(data):
    model = MacKayMixedRegressor(groups=["a"], fit_intercept=False)
    model.fit(data.frame[["x", "z", "a"]], data.y)
    assert model.fixed_effects().names == ("x", "z")
    assert "intercept" not in model.confint(method="wald")
    assert np.isnan(model.explained_variance().r2_marginal)


def test_without_intercept_beside_a_block_there_is_none(data):
    model = MacKayMixedRegressor(
        groups="a", feature_blocks={"block": ["z"]}, fixed_features=["x"], fit_intercept=False
    )
    tests = model.fit(data.frame[["x", "z", "a"]], data.y).fixed_effects()
    assert tests.names == ("x",)
    assert_allclose(tests.std_error**2, model.vcov_[1, 1], rtol=SE_RTOL)
    assert np.all(np.isfinite(model.confint("x", method="wald")["x"]))


def test_held_variances_have_no_intervals(data):
    model = MacKayMixedRegressor(groups=["a", "b"], fixed_variances={"a": 2.0})
    intervals = model.fit(data.frame, data.y).confint()
    assert [name for name in intervals if "sd" in name] == ["sd(b: intercept)", "sd(residual)"]


@pytest.mark.slow
@pytest.mark.parametrize("offset", [2e3, 1e5, 1e6])
def test_degrees_of_freedom_do_not_depend_on_a_slopes_offset(offset):
    model, X, y = fit_reference("sleepstudy")
    moved = model.__class__(**model.get_params()).fit(X.assign(Days=X["Days"] + offset), y)
    assert_allclose(moved.fixed_effects().df[1], 17, rtol=MOVED_RTOL)
    expected = model.confint("sd(Subject: Days)")["sd(Subject: Days)"]
    assert_allclose(
        moved.confint("sd(Subject: Days)")["sd(Subject: Days)"], expected, rtol=MOVED_RTOL
    )
    expected = model.confint("sd(Subject: Days)", method="wald")["sd(Subject: Days)"]
    ours = moved.confint("sd(Subject: Days)", method="wald")["sd(Subject: Days)"]
    assert_allclose(ours, expected, rtol=MOVED_RTOL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_bounds_of_a_correlation_are_not_mirrored(seed):
    """The deviance with the correlation held is least over the rest, by a search on a grid."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(12), 8), rng.normal(size=96)
    u = rng.multivariate_normal([0, 0], [[1, 0.4], [0.4, 0.6]], size=12)
    y = 1 + x + u[g, 0] + u[g, 1] * x + rng.normal(size=96)
    X = pd.DataFrame({"x": x, "g": g})
    parameters = {"groups": "g", "random_slopes": {"g": ["x"]}, "method": "ml"}
    model = MacKayMixedRegressor(**parameters).fit(X, y)
    (kept,) = model._models
    solve = exact_solver(kept.crossproducts, reml=False)
    name = "cor(g: intercept, x)"
    parameter = next(p for p in variance_parameters(kept) if p.name == name)
    coordinates = Coordinates(kept, parameter)
    estimate = coordinates.at(kept.variances)

    def value(phi):
        return deviance(
            solve(coordinates.variances(phi)),
            dof=kept.freedom.dof,
            sum_log_weights=0.0,
            penalty=kept.crossproducts.penalty,
        )

    for bound in model.confint(name)[name]:

        def held(psi, bound=bound):
            first, second, residual = np.exp(psi)
            return value(np.array([first, second, np.arccos(bound), residual]))

        starts = [np.log(np.maximum(estimate[[0, 1, 3]], 0.05)), np.log([1.0, 0.5, 1.0])]
        options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4_000}
        least = min(
            optimize.minimize(held, s, method="Nelder-Mead", options=options).fun for s in starts
        )
        rise = least - value(estimate)
        if abs(bound) < 1:
            assert_allclose(rise, stats.chi2.ppf(0.95, 1), rtol=SEARCHED_RISE_RTOL)
        else:
            assert rise <= stats.chi2.ppf(0.95, 1)


def test_a_dropped_column_has_no_interval(data):
    frame = data.frame[["x", "a"]].assign(w=2 * data.frame["x"])
    model = MacKayMixedRegressor(groups="a", method="ml")
    with pytest.warns(UserWarning, match="combinations of the others"):
        model.fit(frame, data.y)
    tests = model.fixed_effects()
    assert np.isnan(tests.df[np.isnan(tests.std_error)]).all()
    dropped = tests.names[int(np.flatnonzero(np.isnan(tests.std_error))[0])]
    assert dropped not in model.confint()
    with pytest.raises(ValueError, match="was dropped"):
        model.confint(dropped)


@pytest.mark.slow
def test_the_intercept_beside_a_block_is_that_at_zero():
    rng = np.random.default_rng(8)
    B, g = rng.normal(5, 1, size=(60, 4)), np.repeat(np.arange(10), 6)
    y = B @ [1, 0.5, -0.5, 1] + rng.normal(size=10)[g] + rng.normal(size=60)
    model = MacKayMixedRegressor(feature_blocks={"B": [0, 1, 2]}, method="ml").fit(B, y, groups=g)
    tests = model.fixed_effects()
    assert tests.std_error[0] == model.intercept_std_
    assert np.isnan(tests.df[0])
    assert "intercept" not in model.confint()
    with pytest.raises(ValueError, match="see `intercept_std_`"):
        model.confint("intercept")


BOOTSTRAP_RTOL = 0.01  # the interval is exact to the order of 1 / df, and quantiles of 1e6 draws


@pytest.mark.parametrize("df", [20, 60])
def test_bootstrap_of_a_chi_square_is_nearly_exact(df):
    draws = np.sqrt(np.random.default_rng(1).chisquare(df, 1_000_000) / df)
    parameter = Parameter("sd(residual)", None, (0,))
    interval = bootstrap_interval(parameter, draws, 1.0, np.nan, 0.95)
    expected = np.sqrt(df / stats.chi2.ppf([0.975, 0.025], df))
    assert_allclose(interval, expected, rtol=BOOTSTRAP_RTOL)
    percentiles = np.quantile(draws, [0.025, 0.975])
    assert np.all(np.abs(percentiles / expected - 1) > BOOTSTRAP_RTOL)


def test_bootstrap_of_an_estimate_at_its_boundary_is_that_of_percentiles():
    """Half of the refits and more are where the estimate is: it is their median."""
    rng = np.random.default_rng(2)
    correlation = Parameter("cor(g: intercept, x)", "g", (0, 1))
    draws = np.minimum(rng.normal(1.2, 0.5, size=2_000), 1.0)
    expected = np.quantile(draws, [0.05, 0.95])
    assert_allclose(bootstrap_interval(correlation, draws, 1.0, np.nan, 0.9), expected)
    # Of no estimate as well.
    assert_allclose(bootstrap_interval(correlation, draws, np.nan, np.nan, 0.9), expected)
    sd = Parameter("sd(g: intercept)", "g", (0,))
    lower, upper = bootstrap_interval(sd, 1.0 - draws, 0.0, np.nan, 0.9)
    assert lower == 0.0
    assert np.quantile(1.0 - draws, 0.95) < upper <= np.max(1.0 - draws)


def test_bootstrap_without_values_has_no_interval():
    parameter = Parameter("cor(g: intercept, x)", "g", (0, 1))
    values = np.array([np.nan, 0.3, np.nan])
    assert np.isnan(bootstrap_interval(parameter, values, 0.5, np.nan, 0.9)).all()
    same = bootstrap_interval(Parameter("sd(g)", "g", (0,)), np.zeros(5), 0.0, np.nan, 0.9)
    assert same == (0.0, 0.0)


def sloped(tau: float, seed: int, L: int = 6) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(L), 5), np.tile(np.arange(-2.0, 3.0), L)
    b = rng.normal(size=(L, 2)) * [1.0, tau]
    y = b[g, 0] + b[g, 1] * x + rng.normal(size=5 * L)
    return pd.DataFrame({"x": x, "g": g}), y


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 7])
def test_a_correlation_keeps_its_bootstrap_where_some_resamples_have_none(seed):
    X, y = sloped(0.3, seed)
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x"]}).fit(X, y)
    (kept,), tests = model._models, untested(model._fixed_effects_untested())
    prepare = partial(exact_solver, reml=True)
    refits = bootstrap(
        kept, prepare, n_resamples=60, tol=1e-7, n_jobs=None, random_state=RandomState(0)
    )
    parameters = variance_parameters(kept)
    names = [parameter.name for parameter in parameters]
    values = resample(kept, refits, parameters, tests).values
    correlation = values[:, names.index("cor(g: intercept, x)")]
    lost = np.isnan(correlation)
    sds = values[:, [names.index("sd(g: intercept)"), names.index("sd(g: x)")]]
    assert_array_equal(lost, np.any(sds == 0.0, axis=1))
    assert 0 < lost.sum() < 30
    assert np.all(np.abs(correlation[~lost]) <= 1.0)
    intervals = model.confint(method="bootstrap", n_resamples=60, random_state=RandomState(0))
    assert np.all(np.isfinite(list(intervals.values())))
    lower, upper = intervals["cor(g: intercept, x)"]
    assert -1.0 <= lower < upper <= 1.0


def test_a_correlation_without_an_estimate_leaves_the_other_intervals():
    X, y = sloped(0.0, 3)
    # No effects at all: each level's are taken out.
    slope = pd.Series(X["x"] * y).groupby(X["g"]).transform("sum").to_numpy() / 10.0
    y = y - slope * X["x"].to_numpy()
    y = y - pd.Series(y).groupby(X["g"]).transform("mean").to_numpy()
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x"]}).fit(X, y)
    assert_array_equal(model.variance_components_["g"], np.zeros((2, 2)))
    intervals = model.confint(method="bootstrap", n_resamples=30)
    assert intervals["sd(g: x)"][0] == intervals["sd(g: intercept)"][0] == 0.0
    assert np.all(np.isfinite(list(intervals.values())))
    lower, upper = intervals["cor(g: intercept, x)"]
    assert -1.0 <= lower < upper <= 1.0
    with pytest.warns(UserWarning, match="There is no interval of 'sd"):
        wald = model.confint(method="wald")
    assert np.isnan(wald["cor(g: intercept, x)"]).all()
    assert np.all(np.isfinite([wald["sd(residual)"], wald["intercept"], wald["x"]]))


def test_a_correlation_that_few_resamples_have_is_told():
    names, values = ["sd(g: x)", "cor(g: intercept, x)"], np.full((10, 2), 0.5)
    values[:5, 1] = np.nan
    assert few_values(names, values) == []
    values[5, 1] = np.nan
    (message,) = few_values(names, values)
    assert re.match("Fewer than half .* value of 'cor.g: intercept, x.', ", message.text)
    assert message.category is UserWarning


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.0, 0.25])
def test_bootstrap_of_six_groups_covers_what_the_documentation_says(ratio):
    """Balanced layout of 6 groups by 5 rows, whose REML estimates are a closed form."""
    rng, k, m, n = np.random.default_rng(3), 6, 5, 1_000
    parameter = Parameter("sd(g: intercept)", "g", (0,))

    def draw(t, s, size):
        between = (s + m * t) * rng.chisquare(k - 1, size)
        within = s * rng.chisquare(k * (m - 1), size)
        t = np.maximum(between / (k - 1) - within / (k * (m - 1)), 0.0) / m
        return t, np.where(t > 0, within / (k * (m - 1)), (between + within) / (k * m - 1))

    held = 0
    for _ in range(n):
        t, s = draw(ratio, 1.0, None)
        values = np.sqrt(draw(t, s, 1_000)[0])
        lower, upper = bootstrap_interval(parameter, values, float(np.sqrt(t)), np.nan, 0.95)
        held += lower <= np.sqrt(ratio) <= upper
    # With a standard error of 0.8 % here; percentiles hold 86 % and 97 %.
    assert abs(held / n - {1.0: 0.925, 0.25: 0.97}[ratio]) < 0.025


UNIT_RTOL = 1e-7  # two fits of the same numbers up to rounding


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-140, 1e-100, 1e-80, 1e80, 1e140])
@pytest.mark.parametrize("slopes", [[], ["x"]], ids=["intercepts", "slopes"])
def test_what_is_derived_does_not_depend_on_the_unit_of_y(data, slopes, unit):
    frame = data.frame[["x", "z", "a"]]
    parameters = {"groups": "a", "random_slopes": {"a": slopes}}

    def derived(c: float) -> dict[str, np.ndarray]:
        model = MacKayMixedRegressor(**parameters).fit(frame, c * data.y)
        tests, shares = model.fixed_effects(), model.explained_variance()
        held = model.loo_predict(frame, c * data.y)
        found = {
            "tests": np.array([tests.df, tests.t_value, tests.p_value, tests.std_error / c]),
            "shares": np.array([shares.r2_marginal, shares.r2_conditional, shares.icc["a"]]),
            "std": model.predict(frame, return_std=True)[1] / c,
            "held out": np.array([held.mean / c, held.std / c, held.log_density + np.log(c)]),
        }
        for method, options in (("wald", {}), ("bootstrap", {"n_resamples": 5})):
            for name, interval in model.confint(method=method, **options).items():
                found[f"{method} {name}"] = np.array(interval) / (1 if "cor" in name else c)
        return found

    ours, expected = derived(unit), derived(1.0)
    for name, value in expected.items():
        assert_allclose(ours[name], value, rtol=UNIT_RTOL, atol=UNIT_RTOL, err_msg=name)


@pytest.mark.parametrize("unit", [1e-100, 1e100])
def test_degrees_of_freedom_do_not_depend_on_a_features_unit(data, unit):
    frame = data.frame[["x", "z", "a"]]
    model, moved = (
        MacKayMixedRegressor(groups="a").fit(X, data.y)
        for X in (frame, frame.assign(x=unit * frame["x"]))
    )
    assert_allclose(moved.fixed_effects().df, model.fixed_effects().df, rtol=UNIT_RTOL)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12])
@pytest.mark.parametrize("to_matrix", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_shares_of_variance_are_not_negative(to_matrix, offset):
    rng = np.random.default_rng(9)
    g, X = np.repeat(np.arange(8), 5), to_matrix(rng.normal(size=(40, 1)))
    y = offset + rng.normal(size=8)[g] + rng.normal(size=40)
    shares = MacKayMixedRegressor(fixed_features=[]).fit(X, y, groups=g).explained_variance()
    assert shares.r2_marginal == 0.0
    assert 0.0 <= shares.r2_conditional <= 1.0
    assert all(0.0 <= share <= 1.0 for share in shares.icc.values())


# Refusals.


def test_reml_fits_with_different_fixed_parts_are_not_compared(data):
    model = MacKayMixedRegressor(groups="a")
    large = model.fit(data.frame[["x", "z", "a"]], data.y)
    small = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="REML fits with different fixed parts"):
        large.compare(small)
    large, small = (
        MacKayMixedRegressor(groups="a", method="ml").fit(data.frame[columns], data.y)
        for columns in (["x", "z", "a"], ["x", "a"])
    )
    assert large.compare(small).df == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "ml"}, "their likelihoods are not the same"),
        ({"method": "quick"}, "their likelihoods are not the same"),
        ({}, "Both fits have"),
        ({"alpha": 1.0}, "different `alpha`"),
        ({"weight_type": "precision"}, "`weight_type` cannot be compared"),
    ],
)
@pytest.mark.filterwarnings("ignore:method='quick' lost")
def test_what_cannot_be_compared(data, change, message):
    frame = data.frame[["x", "a"]]
    one = MacKayMixedRegressor(groups="a").fit(frame, data.y)
    other = MacKayMixedRegressor(groups="a", **change).fit(frame, data.y)
    with pytest.raises(ValueError, match=message):
        one.compare(other)


def test_fits_to_different_data_are_not_compared(data):
    frame = data.frame[["x", "a"]]
    one = MacKayMixedRegressor(groups="a").fit(frame, data.y)
    other = MacKayMixedRegressor(groups="a", random_slopes={"a": ["x"]}).fit(frame, data.y + 1)
    with pytest.raises(ValueError, match="saw different data"):
        one.compare(other)


@pytest.mark.parametrize("name", ["fixed_effects", "confint"])
@pytest.mark.filterwarnings("ignore:method='quick' lost")
def test_the_quick_method_is_no_optimum(data, name):
    model = MacKayMixedRegressor(groups="a", method="quick").fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="no optimum of a likelihood"):
        getattr(model, name)()
    assert "quick" in str(model.summary())


@pytest.mark.parametrize("name", ["fixed_effects", "confint", "explained_variance", "summary"])
def test_several_outputs_are_refused(data, name):
    Y = np.column_stack([data.y, -data.y])
    model = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "a"]], Y)
    with pytest.raises(ValueError, match="output"):
        getattr(model, name)()


def test_bad_arguments_are_named(data):
    model = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="'nobody' is no parameter: 'sd"):
        model.confint("nobody")
    with pytest.raises(ValueError, match="`parameter` must be a name or a list of names, got 3"):
        model.confint(3)
    with pytest.raises(ValueError, match="`n_points` must be an integer above 1, got 1"):
        model.profile("sd(residual)", 1)
    with pytest.raises(ValueError, match="`level` must be a probability"):
        model.fixed_effects().interval(1.5)
    with pytest.raises(ValueError, match="`method` must be"):
        model.confint(method="magic")
    with pytest.raises(ValueError, match="`level` must be"):
        model.confint(level=95)
    with pytest.raises(ValueError, match="fixed parts are compared by method='ml'"):
        model.confint("x", method="profile")
    assert list(model.confint(method="profile")) == ["sd(a: intercept)", "sd(residual)"]


@pytest.mark.filterwarnings("ignore:The model fits y exactly")
def test_an_exact_fit_has_no_errors_to_speak_of(data):
    model = MacKayMixedRegressor(groups="b").fit(data.frame[["x", "b"]], 2 * data.frame["x"])
    with pytest.raises(ValueError, match="residual variance is zero"):
        model.fixed_effects()
    assert "x" in str(model.summary())


def test_too_many_effects_for_the_bootstrap(data, monkeypatch):
    monkeypatch.setattr("sklearn_mackay.inference.bootstrap.LARGEST_GRAM", 5)
    model = MacKayMixedRegressor(groups="a").fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="takes up to"):
        model.confint("a", method="bootstrap")


def test_a_penalty_has_no_model_to_draw_from(data):
    model = MacKayMixedRegressor(groups="a", alpha=1.0).fit(data.frame[["x", "a"]], data.y)
    with pytest.raises(ValueError, match="a penalty has no model"):
        model.confint("a", method="bootstrap")


# Slopes far from zero.

OFFSET_RTOL = 1e-5  # of a bound: two searches, in coordinates that differ by the offset
FALL_RTOL = 0.1  # of what falls with the square of the offset far from the data


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8, 1.7e9])
def test_profiles_do_not_depend_on_where_slopes_have_their_zero(offset):
    reference = load_reference("sleepstudy")
    fit = {"groups": "Subject", "random_slopes": {"Subject": ["Days"]}}
    model = MacKayMixedRegressor(**fit).fit(reference.frame, reference.y)
    far = MacKayMixedRegressor(**fit)
    far.fit(reference.frame.assign(Days=reference.frame["Days"] + offset), reference.y)
    names = ["sd(Subject: Days)", "sd(residual)"]
    expected = model.confint(names)
    if offset > 1e4:
        with pytest.warns(UserWarning, match=r"of 'cor\(Subject: intercept, Days\)': in every row"):
            found = far.confint()
        assert np.all(np.isnan(found["cor(Subject: intercept, Days)"]))
        with pytest.raises(ValueError, match=r"'cor\(Subject: intercept, Days\)' has no profile"):
            far.profile("cor(Subject: intercept, Days)")
    else:
        found = far.confint()
        # 1 + cor falls with the square of the offset.
        at_hundred = MacKayMixedRegressor(**fit)
        at_hundred.fit(reference.frame.assign(Days=reference.frame["Days"] + 100), reference.y)
        name = "cor(Subject: intercept, Days)"
        ratio = (1 + np.array(found[name])) / (1 + np.array(at_hundred.confint(name)[name]))
        assert_allclose(ratio, (104.5 / (offset + 4.5)) ** 2, rtol=FALL_RTOL)
    for name in names:
        assert_allclose(found[name], expected[name], rtol=OFFSET_RTOL)
    # Far from the data a subject's level at zero is its slope times the distance.
    of_slope = np.array(expected["sd(Subject: Days)"])
    bounds = np.array(found["sd(Subject: intercept)"])
    assert_allclose(bounds / (offset + 4.5), of_slope, rtol=max(10 / offset, OFFSET_RTOL))


def test_a_profile_that_cannot_be_followed_does_not_end_the_others():
    def singular():
        raise np.linalg.LinAlgError("Singular matrix")

    for fails in (singular, lambda: 1 / 0):
        bounds, reason = profiled(fails, 0.95)
        assert np.all(np.isnan(bounds))
        assert reason.startswith("the equations are singular on the way")
    flat = Zeta(lambda value: -1.0 if value < 1.5 else np.nan, 1.0, 0.0, 2.0, 0.1)
    assert profiled(lambda: flat, 0.95).bounds[0] == 0.0


@pytest.mark.slow
def test_a_residual_variance_near_zero_ends_no_profile(rng):
    # One row a level: without a residual variance V is as regular as with one.
    X, precision = pd.DataFrame({"g": np.arange(13)}), rng.uniform(1, 30, size=13)
    y = rng.normal(size=13) * np.sqrt(0.3 + 1 / precision)
    model = MacKayMixedRegressor("g", weight_type="precision").fit(X, y, sample_weight=precision)
    intervals = model.confint()
    assert set(intervals) == {"sd(g: intercept)", "sd(residual)", "intercept"}
    assert intervals["sd(residual)"][0] == 0.0
    assert np.all(np.isfinite(list(intervals.values())))


def test_a_residual_variance_of_zero_with_a_finite_likelihood_has_intervals(rng):
    # Two coefficients for two rows a level: V is regular without a residual variance.
    g, x = np.repeat(np.arange(20), 2), rng.normal(size=40)
    y = rng.normal(size=20)[g] + rng.normal(size=20)[g] * x
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x"]})
    model.fit(pd.DataFrame({"x": x, "g": g}), y)
    assert model.variance_components_["residual"] == 0.0
    assert np.isfinite(model.log_likelihood_)
    lower, upper = model.confint("sd(residual)")["sd(residual)"]
    assert lower == 0.0
    assert 0.0 < upper < np.std(y)
    with pytest.warns(UserWarning, match=r"There is no interval of 'sd\(residual\)'"):
        wald = model.confint(["sd(residual)", "sd(g: x)"], method="wald")
    assert np.all(np.isnan(wald["sd(residual)"]))
    assert np.all(np.isfinite(wald["sd(g: x)"]))


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-150, 1e147])
def test_a_profile_does_not_depend_on_the_unit_of_y(unit):
    reference = load_reference("sleepstudy")
    fit = {"groups": "Subject", "random_slopes": {"Subject": ["Days"]}}
    model = MacKayMixedRegressor(**fit).fit(reference.frame, reference.y)
    scaled = MacKayMixedRegressor(**fit).fit(reference.frame, unit * reference.y)
    name = "sd(Subject: Days)"
    found, expected = scaled.confint(name)[name], model.confint(name)[name]
    assert_allclose(np.array(found) / unit, expected, rtol=OFFSET_RTOL)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-5, 1e-7, 1e-10])  # which decides what rounding leaves of zero
def test_a_profile_beside_a_singular_covariance_finds_the_lowest_valley(tol):
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(16), 5)
    x, b = rng.normal(size=(2, 80))
    effects = [rng.normal(size=16)[g] for _ in range(3)]
    y = effects[0] * (1 + g % 3) + 0.3 * effects[1] * x + 0.5 * effects[2] * b
    y = y + 1.5 * rng.normal(size=80)
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x", "b"]}, tol=tol)
    model.fit(pd.DataFrame({"x": x, "b": b, "g": g}), y)
    assert model.singular_
    lower, upper = model.confint("sd(g: b)")["sd(g: b)"]
    assert lower == 0.0
    assert_allclose(upper, 1.08318581, rtol=DENSE_RTOL)


@pytest.mark.parametrize("method", ["wald", "bootstrap"])
def test_what_the_rows_tell_in_part_has_no_interval_but_a_profile(rng, method):
    g = np.repeat(np.arange(12), 4)
    X = pd.DataFrame({"c": 1.0 * (g % 2), "g": g})
    y = rng.normal(size=12)[g] * (1 + X["c"]) + rng.normal(size=48)
    model = MacKayMixedRegressor("g", random_slopes={"g": ["c"]}, fixed_features=[])
    with pytest.warns(UserWarning, match="The rows tell 2 of the 3"):
        model.fit(X, y)
    with pytest.warns(
        UserWarning, match=r"no interval of 'sd\(g: intercept\)', 'sd\(g: c\)', 'cor"
    ):
        found = model.confint(method=method, n_resamples=20)
    known = {name for name, bounds in found.items() if np.all(np.isfinite(bounds))}
    assert known == {"sd(residual)", "intercept"}
