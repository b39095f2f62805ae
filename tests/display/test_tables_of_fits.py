"""Results as tables of each library: names, types, nulls, and the numbers that they come from."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import sys
from itertools import pairwise
from operator import attrgetter
from typing import Any

import narwhals as nw
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference_data import load_reference
from scipy import stats
from sklearn.base import clone

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy
from sklearn_mackay.frames.grouping import in_utc
from sklearn_mackay.frames.making import PartlyKnown, make_frame

pd = pytest.importorskip("pandas")

LIBRARIES = ["pandas", "polars", "pyarrow"]
EFFECT_ATOL = 1e-4  # in standard deviations of the effects: lme4's variances are good to 1e-6
VARIANCE_RTOL = 1e-4  # the criterion is flat: 1e-10 of it is 1e-5 of a variance
QUANTILE_RTOL = 1e-12  # normal quantiles of two libraries
UNIT_RTOL = 1e-9  # internal and user's units
JOINED_RTOL = 1e-12  # an effect and what is predicted of it: the same number
PRINTED_ATOL = 6e-4  # lme4 prints three digits after the point, of an optimum of its own
SEARCH_RTOL = 1e-6  # optima of two searches
SEARCH_ATOL = 1e-9  # the same, of effects next to zero


@pytest.fixture(params=LIBRARIES)
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def read(frame: Any) -> dict[str, list[Any]]:
    """Columns of a native frame as lists, its nulls as None."""
    columns = nw.from_native(frame, eager_only=True).to_dict(as_series=True)
    found = {}
    for name, series in columns.items():
        is_null = series.is_null().to_list()
        found[name] = [
            None if null and not series.dtype.is_float() else value
            for null, value in zip(is_null, series.to_list(), strict=True)
        ]
    return found


def dtype_of(frame: Any, name: str) -> nw.dtypes.DType:
    return nw.from_native(frame, eager_only=True)[name].dtype


@pytest.fixture(scope="module")
def sleep():
    X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    model = MacKayMixedRegressor("Subject", random_slopes={"Subject": ["Days"]})
    return model.fit(X, y), X, y


@pytest.fixture(scope="module")
def nested() -> tuple[MacKayMixedRegressor, Any, Any]:
    rng = np.random.default_rng(1)
    school, room = np.repeat(np.arange(6), 12), np.tile(np.repeat(np.arange(3), 4), 6)
    X = pd.DataFrame(
        {"x": rng.normal(size=72), "school": school, "class": np.array(list("abc"))[room]}
    )
    y = X["x"] + rng.normal(size=6)[school] + rng.normal(size=18)[3 * school + room]
    y += rng.normal(size=72)
    model = MacKayMixedRegressor(
        ["school", ("school", "class")], random_slopes={"school": ["x"]}, covariance="diagonal"
    )
    return model.fit(X, y), X, y


# Making a frame.


def test_a_frame_is_one_of_the_library(backend):
    frame = make_frame({"a": np.array([1, 2]), "b": ["x", "y"]}, backend)
    assert type(frame).__module__.split(".")[0] == backend
    assert read(frame) == {"a": [1, 2], "b": ["x", "y"]}


NUMPY_LABELS = {
    "int64": np.array([2**60 + 1, 3]),
    "int32": np.array([1, 2], dtype=np.int32),
    "uint64": np.array([2**63 + 1, 3], dtype=np.uint64),
    "float64": np.array([0.5, 2.0]),
    "bool": np.array([True, False]),
    "str": np.array(["a", "bcd"]),
    "objects": np.array(["a", "bcd"], dtype=object),
}


@pytest.mark.parametrize("kind", NUMPY_LABELS)
def test_labels_keep_their_type_beside_nulls(backend, kind):
    values = NUMPY_LABELS[kind]
    whole, partly = (
        make_frame({"g": PartlyKnown(values, np.array(known))}, backend)
        for known in ([True, True], [True, False])
    )
    assert read(whole)["g"] == values.tolist()
    found = read(partly)["g"]
    assert found[0] == values[0]
    assert found[1] is None or np.isnan(found[1])
    assert nw.from_native(partly, eager_only=True)["g"].null_count() == 1
    assert dtype_of(partly, "g") == dtype_of(whole, "g")
    if kind not in ("str", "objects"):
        assert str(dtype_of(whole, "g")).lower().startswith(kind)


@pytest.mark.parametrize("unit", ["D", "h", "m", "s", "ms", "us", "ns"])
def test_times_keep_their_value_in_every_unit(backend, unit):
    times = np.array(["2020-02-03", "1969-07-20"], dtype="M8[D]").astype(f"M8[{unit}]")
    spans = np.array([36, 72]).astype("m8[h]").astype(f"m8[{unit}]")
    known = np.array([True, False])
    columns = {"t": times, "d": spans, "some": PartlyKnown(times, known)}
    frame = make_frame(columns, backend)
    found = read(frame)
    days = [dt.datetime(2020, 2, 3), dt.datetime(1969, 7, 20)]
    as_times = [
        [v if v is None else pd.Timestamp(v) for v in found[name]] for name in ("t", "some")
    ]
    assert as_times == [days, [days[0], None]]
    assert [pd.Timedelta(v) for v in found["d"]] == [pd.Timedelta(v) for v in spans]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_with_a_zone_keep_it_beside_nulls(backend, unit):
    times = in_utc(np.array(["2020-02-03", "1969-07-20"], dtype=f"M8[{unit}]"))
    columns = {"z": times, "some": PartlyKnown(times, np.array([True, False]))}
    frame = make_frame(columns, backend)
    zoned = [dt.datetime(*day, tzinfo=dt.timezone.utc) for day in ((2020, 2, 3), (1969, 7, 20))]
    assert read(frame) == {"z": zoned, "some": [zoned[0], None]}
    assert dtype_of(frame, "z").time_zone == dtype_of(frame, "some").time_zone == "UTC"


SEVERAL_TYPES = {
    "int, str": [1, "a"],
    "float, int": [2**53, 2**53 + 1, 0.5],  # as floats the first two would be one
    "bytes, str": [b"a", "a"],
    "int": [1, 2**130],
}


@pytest.mark.parametrize(("types", "labels"), SEVERAL_TYPES.items(), ids=SEVERAL_TYPES)
def test_labels_that_no_column_has_are_for_pandas(types, labels):
    values = np.array(labels, dtype=object)
    known = np.append(np.ones(len(labels), dtype=bool), False)
    for column in (values, PartlyKnown(np.append(values, values[:1]), known)):
        found = make_frame({"g": column}, "pandas")["g"].tolist()
        assert found[: len(labels)] == labels
        for backend in ("polars", "pyarrow"):
            pytest.importorskip(backend)
            with pytest.raises(TypeError, match=f"'g' has values of type {types}, which {backend}"):
                make_frame({"g": column}, backend)


@pytest.mark.parametrize("name", ["dask", "Pandas", None, 3])
def test_another_library_is_refused(sleep, name):
    model, *_ = sleep
    with pytest.raises(ValueError, match="`backend` must be 'pandas', 'polars' or 'pyarrow', got"):
        model.variance_frame(backend=name)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(sleep, name, monkeypatch):
    model, *_ = sleep
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"needs {name}, which is not .*`pip install {name}`"):
        model.variance_frame(backend=name)


# Records.


@pytest.mark.slow
def test_records_have_their_fields_as_columns(sleep, backend):
    model, X, y = sleep
    tests = model.fixed_effects()
    assert read(tests.to_frame(backend)) == {
        "name": list(tests.names),
        "estimate": tests.estimate.tolist(),
        "std_error": tests.std_error.tolist(),
        "df": tests.df.tolist(),
        "t_value": tests.t_value.tolist(),
        "p_value": tests.p_value.tolist(),
    }
    profile = model.profile("sd(residual)", 3)
    assert read(profile.to_frame(backend)) == {
        "parameter": ["sd(residual)"] * 4,
        "value": profile.values.tolist(),
        "zeta": profile.zeta.tolist(),
    }
    ratio = model.compare(MacKayMixedRegressor("Subject").fit(X, y))
    assert read(ratio.to_frame(backend)) == {
        "statistic": [ratio.statistic],
        "df": [2],
        "p_value": [ratio.p_value],
    }
    shares = model.explained_variance()
    assert read(shares.to_frame(backend)) == {
        "name": ["r2_marginal", "r2_conditional", "icc"],
        "factor": [None, None, "Subject"],
        "share": [shares.r2_marginal, shares.r2_conditional, shares.icc["Subject"]],
    }
    held_out = model.loo_predict(X, y)
    assert read(held_out.to_frame(backend)) == {
        "mean": held_out.mean.tolist(),
        "std": held_out.std.tolist(),
        "log_density": held_out.log_density.tolist(),
    }


def test_shares_without_factors_have_no_icc(backend):
    X = pd.DataFrame({"x": np.arange(6.0)})
    model = MacKayMixedRegressor().fit(X, [1.0, 2.0, 2.5, 4.5, 4.8, 6.0])
    found = read(model.explained_variance().to_frame(backend))
    assert [found["name"], found["factor"]] == [["r2_marginal", "r2_conditional"], [None, None]]


def test_intervals_are_a_dict_with_a_table(sleep, backend):
    model, *_ = sleep
    intervals = model.confint(["sd(residual)", "Days"])
    assert isinstance(intervals, dict)
    assert json.loads(json.dumps(intervals)).keys() == {"sd(residual)", "Days"}
    copy = pickle.loads(pickle.dumps(intervals))
    assert copy == intervals
    assert read(copy.to_frame(backend)) == read(intervals.to_frame(backend))
    found = read(intervals.to_frame(backend))
    assert list(found) == ["name", "estimate", "lower", "upper", "method"]
    assert found["name"] == list(intervals)
    assert [*zip(found["lower"], found["upper"], strict=True)] == [*intervals.values()]
    assert found["method"] == ["profile", "t"]
    sd = model.variance_components_["residual"] ** 0.5
    assert_allclose(found["estimate"], [sd, model.coef_[0]], rtol=QUANTILE_RTOL)


@pytest.mark.parametrize(("method", "of_coefficients"), [("wald", "t"), ("bootstrap",) * 2])
def test_the_table_of_intervals_says_their_method_and_estimates(sleep, method, of_coefficients):
    model, *_ = sleep
    found = model.confint(method=method, n_resamples=20).to_frame()
    assert [*found["method"]] == [method] * 4 + [of_coefficients] * 2
    Sigma = model.variance_components_["Subject"]
    sds = np.sqrt(np.diag(Sigma))
    expected = [*sds, Sigma[0, 1] / np.prod(sds), model.variance_components_["residual"] ** 0.5]
    expected += [model.intercept_, model.coef_[0]]
    assert_allclose(found["estimate"], expected, rtol=UNIT_RTOL)
    again = model.confint(list(found["name"]), method=method, n_resamples=20)
    assert_array_equal(found[["lower", "upper"]], [*again.values()])


def test_no_intervals_make_a_table_of_no_rows(sleep, backend):
    intervals = sleep[0].confint([])
    assert intervals == {}
    assert nw.from_native(intervals.to_frame(backend), eager_only=True).shape == (0, 5)


# Random effects.


def test_random_effects_are_those_of_the_attributes(sleep, backend):
    model, *_ = sleep
    found = read(model.random_effects_frame(level=0.8, backend=backend))
    labels = ["factor", "Subject", "coefficient", "estimate", "std", "lower", "upper"]
    assert list(found) == labels
    assert found["factor"] == ["Subject"] * 36
    assert found["Subject"] == np.repeat(model.group_levels_["Subject"], 2).tolist()
    assert found["coefficient"] == ["intercept", "Days"] * 18
    estimate = model.random_effects_["Subject"].ravel()
    std = model.random_effects_std_["Subject"].ravel()
    z = stats.norm.ppf(0.9)
    assert_array_equal(found["estimate"], estimate)
    assert_array_equal(found["std"], std)
    assert_allclose(found["lower"], estimate - z * std, rtol=QUANTILE_RTOL)
    assert_allclose(found["upper"], estimate + z * std, rtol=QUANTILE_RTOL)


def test_factors_share_the_columns_that_they_use(nested, backend):
    model, X, _ = nested
    frame = model.random_effects_frame(backend=backend)
    found = read(frame)
    assert list(found)[:4] == ["factor", "school", "class", "coefficient"]
    of_school = list(range(6))
    assert found["factor"] == ["school"] * 12 + ["school:class"] * 18
    assert found["school"] == np.repeat(of_school, 2).tolist() + np.repeat(of_school, 3).tolist()
    assert found["class"] == [None] * 12 + ["a", "b", "c"] * 6
    pairs = [*zip(found["school"][12:], found["class"][12:], strict=True)]
    assert pairs == model.group_levels_["school:class"].tolist()
    assert found["coefficient"] == ["intercept", "x"] * 6 + ["intercept"] * 18
    assert dtype_of(frame, "school") == nw.Int64
    expected = [model.random_effects_[name].ravel() for name in model.groups_]
    assert_array_equal(found["estimate"], np.concatenate(expected))


def test_one_factor_has_its_own_columns_alone(nested):
    model, *_ = nested
    alone = model.random_effects_frame("school")
    assert list(alone.columns[:3]) == ["factor", "school", "coefficient"]
    assert alone["school"].dtype == np.int64
    both = model.random_effects_frame("school:class")
    assert list(both.columns[:4]) == ["factor", "school", "class", "coefficient"]
    with pytest.raises(ValueError, match="'class' is no grouping factor: 'school'"):
        model.random_effects_frame("class")
    with pytest.raises(ValueError, match="`level` must be"):
        model.random_effects_frame(level=95)


def test_integers_with_nulls_are_nullable_in_pandas(nested):
    _, X, y = nested
    frame = MacKayMixedRegressor(["school", "class"]).fit(X, y).random_effects_frame()
    assert str(frame["school"].dtype) == "Int64"
    assert frame["school"].isna().tolist() == [False] * 6 + [True] * 3


@pytest.mark.filterwarnings("ignore:Grouping factor 'late' has only 2 levels")
def test_the_table_joins_back_to_the_rows(nested, backend):
    """Labels have the type of the rows' own, so that effects find them."""
    model, X, _ = nested
    labels = {
        "int": np.array([2**55 + 1, 2**55 + 2, 2**55 + 3, 5, 6, 7])[X["school"]],
        "small": X["school"].to_numpy(np.int16),
        "float": X["school"].to_numpy() + 0.5,
        "text": np.array(list("uvwxyz"))[X["school"]],
        "late": (X["school"] % 2 == 0).to_numpy(),
        "day": np.datetime64("2020-01-01", "us") + X["school"].to_numpy().astype("m8[D]"),
    }
    for name, column in labels.items():
        rows = nw.from_dict({name: column, "class": X["class"].to_numpy()}, backend=backend)
        y = np.arange(72.0) % 7
        fit = MacKayMixedRegressor([name, "class"]).fit(rows.to_native(), y)
        for factor in (None, name):
            effects = nw.from_native(fit.random_effects_frame(factor, backend=backend))
            assert effects[name].dtype == rows[name].dtype, name
            own = effects.filter(nw.col("factor") == name)
            joined = rows.join(own.select(name, "estimate"), on=name, how="inner")
            assert len(joined) == 72
            expected = fit.predict_components(joined.select(name, "class").to_native())[name]
            assert_allclose(joined["estimate"].to_numpy(), expected, rtol=JOINED_RTOL)


def test_times_with_a_zone_come_in_utc(backend):
    days = pd.date_range("2020-01-01", periods=6, tz="Europe/Berlin").repeat(3)
    y = np.arange(18.0) % 5
    model = MacKayMixedRegressor("day").fit(pd.DataFrame({"day": days}), y)
    frame = model.random_effects_frame(backend=backend)
    assert dtype_of(frame, "day").time_zone == "UTC"
    assert [pd.Timestamp(t) for t in read(frame)["day"]] == [*days.unique()]


def test_columns_without_names_and_groups_given_to_fit(nested):
    _, X, y = nested
    array = np.column_stack([X["x"], X["school"], X["class"] == "b"])
    by_position = MacKayMixedRegressor([1, (1, 2)]).fit(array, y).random_effects_frame()
    assert list(by_position.columns[:4]) == ["factor", "x1", "x2", "coefficient"]
    assert set(by_position["factor"]) == {"x1", "x1:x2"}
    given = MacKayMixedRegressor().fit(X[["x"]], y, groups=X[["school", "class"]])
    frame = given.random_effects_frame()
    assert list(frame.columns[:4]) == ["factor", "school", "class", "coefficient"]
    unnamed = MacKayMixedRegressor().fit(X[["x"]], y, groups=X["school"].to_numpy())
    assert list(unnamed.random_effects_frame().columns[:2]) == ["factor", "group0"]


@pytest.mark.parametrize("name", ["factor", "coefficient", "estimate", "std", "lower", "upper"])
def test_a_grouping_column_with_a_name_of_the_table_is_refused(nested, name):
    _, X, y = nested
    model = MacKayMixedRegressor([name, "class"]).fit(X.rename(columns={"school": name}), y)
    with pytest.raises(ValueError, match=f"a column '{name}' of its own"):
        model.random_effects_frame()
    assert "class" in model.random_effects_frame("class").columns


def test_a_column_called_output_is_refused_beside_several_outputs(nested):
    _, X, y = nested
    X = X.rename(columns={"school": "output"})
    model = MacKayMixedRegressor("output", fixed_features=["x"])
    assert "output" in model.fit(X, y).random_effects_frame().columns
    with pytest.raises(ValueError, match="a column 'output' of its own"):
        model.fit(X, np.column_stack([y, -y])).random_effects_frame()


def test_without_covariance_errors_are_not_known(nested, backend):
    model, X, y = nested
    model = MacKayMixedRegressor("school", fixed_features=["x"], store_covariance=False).fit(X, y)
    copy = MacKayMixedRegressor.from_json(model.to_json())
    for fit in (model, copy):
        found = read(fit.random_effects_frame(backend=backend))
        assert_array_equal(found["estimate"], fit.random_effects_["school"].ravel())
        assert np.all(np.isnan([found["std"], found["lower"], found["upper"]]))


def test_a_fit_without_factors_has_a_table_of_no_rows(backend):
    model = MacKayMixedRegressor().fit(np.arange(6.0)[:, None], np.arange(6.0) % 4)
    frame = nw.from_native(model.random_effects_frame(backend=backend), eager_only=True)
    assert frame.shape == (0, 6)


# Variances and iterations.


def test_variances_are_arranged_as_lme4_does(sleep, backend):
    model, *_ = sleep
    found = read(model.variance_frame(backend=backend))
    assert [
        *zip(found["component"], found["coefficient"], found["other_coefficient"], strict=True)
    ] == [
        ("Subject", "intercept", None),
        ("Subject", "Days", None),
        ("Subject", "intercept", "Days"),
        ("residual", None, None),
    ]
    Sigma = model.variance_components_["Subject"]
    residual = model.variance_components_["residual"]
    assert found["covariance"] == [Sigma[0, 0], Sigma[1, 1], Sigma[0, 1], residual]
    # lme4 prints these for the sleep study.
    assert_allclose(found["sd_or_correlation"], [24.741, 5.922, 0.066, 25.592], atol=PRINTED_ATOL)
    assert found["mc_error"] == [0.0] * 4


def test_covariances_that_are_zero_by_assumption_have_no_row(nested):
    model, *_ = nested
    frame = model.variance_frame()
    assert frame["component"].tolist() == ["school", "school", "school:class", "residual"]
    assert frame["other_coefficient"].isna().all()
    assert not any(name.startswith("cov") for name in model.history_.to_frame())


def test_blocks_have_a_variance_without_coefficients(backend):
    rng = np.random.default_rng(0)
    B = rng.normal(size=(60, 4))
    y = B.sum(axis=1) + rng.normal(size=60)
    model = MacKayMixedRegressor(feature_blocks={"B": [0, 1], "C": [2, 3]}).fit(B, y)
    found = read(model.variance_frame(backend=backend))
    assert found["component"] == ["B", "C", "residual"]
    assert found["coefficient"] == found["other_coefficient"] == [None] * 3
    assert found["covariance"] == [model.variance_components_[n] for n in ("B", "C", "residual")]
    assert_array_equal(found["sd_or_correlation"], np.sqrt(found["covariance"]))
    assert list(read(model.history_.to_frame(backend=backend)))[4:] == [
        "var(B)",
        "var(C)",
        "var(residual)",
    ]


def test_a_correlation_beside_no_variance_is_not_known():
    X = pd.DataFrame({"x": np.arange(24.0) % 4, "g": np.repeat(np.arange(6), 4)})
    held = {"g": [[0.0, 0.0], [0.0, 1.0]]}
    model = MacKayMixedRegressor("g", random_slopes={"g": ["x"]}, fixed_variances=held)
    frame = model.fit(X, np.arange(24.0) % 5).variance_frame()
    assert frame["sd_or_correlation"][:2].tolist() == [0.0, 1.0]
    assert np.isnan(frame["sd_or_correlation"][2])


@pytest.mark.slow
def test_probes_have_an_error_in_the_table(nested):
    _, X, y = nested
    model = MacKayMixedRegressor(["school", "class"], solver="iterative", random_state=0).fit(X, y)
    frame = model.variance_frame().set_index("component")
    assert frame["mc_error"]["school"] == model.variance_mc_error_["school"]


def test_history_has_a_row_for_each_iteration(sleep, backend):
    model, *_ = sleep
    found = read(model.history_.to_frame(backend=backend))
    assert found["iteration"] == list(range(model.n_iter_ + 1))
    for name in ("step", "deviance", "change"):
        assert found[name] == [iteration[name] for iteration in model.history_]
    Sigma = [iteration["variances"]["Subject"] for iteration in model.history_]
    assert found["var(Subject: intercept)"] == [S[0, 0] for S in Sigma]
    assert found["var(Subject: Days)"] == [S[1, 1] for S in Sigma]
    assert found["cov(Subject: intercept, Days)"] == [S[0, 1] for S in Sigma]
    residual = [iteration["variances"]["residual"] for iteration in model.history_]
    assert found["var(residual)"] == residual


def test_several_outputs_are_counted_in_the_first_column(nested, backend):
    _, X, y = nested
    Y = np.column_stack([y, 10 + 3 * y[::-1], y**2])
    parameters = {"groups": ["school", "class"], "random_slopes": {"school": ["x"]}}
    model = MacKayMixedRegressor(**parameters).fit(X, Y)
    singles = [MacKayMixedRegressor(**parameters).fit(X, one) for one in Y.T]
    tables = ("random_effects_frame", "variance_frame", "history_.to_frame")
    for table in map(attrgetter, tables):
        found = read(table(model)(backend=backend))
        assert next(iter(found)) == "output"
        assert sorted(set(found["output"])) == [0, 1, 2]
        assert all(a <= b for a, b in pairwise(found["output"]))
        for k, single in enumerate(singles):
            expected = read(table(single)(backend=backend))
            rows = [i for i, output in enumerate(found["output"]) if output == k]
            assert list(found)[1:] == list(expected)
            for name, column in expected.items():
                ours = [found[name][i] for i in rows]
                if name in ("std", "lower", "upper", "estimate", "covariance", "sd_or_correlation"):
                    assert_allclose(ours, column, rtol=SEARCH_RTOL, atol=SEARCH_ATOL)
                elif isinstance(column[0], float):
                    assert len(ours) == len(column)
                else:
                    assert ours == column


# lme4's answers.


@pytest.mark.parametrize("name", ["sleepstudy", "pastes"])
def test_tables_hold_what_lme4_prints(name):
    reference = load_reference(name)
    groups = reference.spec["groups"]
    slopes = {"Subject": ["Days"]} if name == "sleepstudy" else None
    model = MacKayMixedRegressor(
        groups, random_slopes=slopes, fixed_features=reference.spec["fixed"], tol=1e-10
    )
    model.fit(reference.frame, reference.y)
    for factor, theirs in reference.reml["ranef"].items():
        effects = model.random_effects_frame(factor)
        ours = effects.pivot(index=factor, columns="coefficient", values="estimate")
        ours = ours.loc[theirs["levels"], effects["coefficient"].unique()]
        assert_allclose(ours, theirs["values"], atol=EFFECT_ATOL * np.std(theirs["values"]))
    table = model.variance_frame().set_index("component")
    for factor, Sigma in reference.reml["varcomp"].items():
        at = np.triu_indices(len(Sigma), 1)
        expected = [*np.diag(Sigma), *np.array(Sigma)[at]]
        covariance = np.atleast_1d(table["covariance"][factor])
        assert_allclose(covariance, expected, rtol=VARIANCE_RTOL)
    assert_allclose(table["covariance"]["residual"], reference.reml["sigma2"], rtol=VARIANCE_RTOL)


def test_tables_are_of_the_fit_whatever_the_parameters_are_now(sleep):
    model = clone(sleep[0]).fit(*sleep[1:])
    expected = model.variance_frame(), model.history_.to_frame()
    model.set_params(covariance={"another": "diagonal"})
    pd.testing.assert_frame_equal(model.variance_frame(), expected[0])
    pd.testing.assert_frame_equal(model.history_.to_frame(), expected[1])
