"""Fits of rows that come in parts: lazy sources, `partial_fit`, `merge`."""

from __future__ import annotations

import copy
import pickle
import warnings
from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference_data import load_reference
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sources import ENGINES, REREADABLE, SOURCES, source_of

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import make_ratings
from sklearn_mackay.frames import streams
from sklearn_mackay.gram.sums import about
from sklearn_mackay.model.messages import about_digits

pl = pytest.importorskip("polars")

EXACT = 1e-10  # of the largest of its kind: sums in another order, at tol=1e-12
STATISTICS = 1e-12  # of the largest: the same sums, of parts added in another order
UPDATED = 1e-8  # what is left of another start at tol=1e-12, relative
ONE_VALLEY = 1e-6  # of the log-likelihood, at tol=1e-8; others are 4e-3 and more away
HARD = 1e-8  # where columns agree in eight digits: rounding of the residual of a row, 1e8 eps
HARD_AND_LONG = 1e-9  # the same of variances, by the root of a hundred times the rows
PREDICTED = 1e-7  # of a standard deviation of y, where they do: a coefficient is 1e8 less sure
TIGHT = {"tol": 1e-12}


def table(rng, n=600, n_groups=20, n_items=8):
    """Two crossed factors, a slope, integer weights."""
    g = np.append(np.arange(n_groups), rng.integers(n_groups, size=n - n_groups))
    h = np.append(np.arange(n_items), rng.integers(n_items, size=n - n_items))
    x, z = rng.normal(size=(2, n))
    slope = 0.7 * rng.normal(size=n_groups)[g]
    y = 2.0 + (1.0 + slope) * x - 0.5 * z + rng.normal(size=n_groups)[g] + rng.normal(size=n)
    y += 0.8 * rng.normal(size=n_items)[h]
    columns = {"g": g, "x": x, "h": h, "z": z, "y": y, "w": rng.integers(1, 4, n) / 1.0}
    return pl.DataFrame(columns)[rng.permutation(n)]


def fit(model, frame, *, weighted=False):
    """Fit rows in memory."""
    weight = frame["w"].to_numpy() if weighted else None
    return clone(model).fit(frame.drop("y", "w", strict=False), frame["y"].to_numpy(), weight)


def assert_close(actual, expected, rtol):
    expected = np.asarray(expected)
    size = np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0)
    assert_allclose(actual, expected, rtol=0, atol=rtol * size)


def assert_same_fit(actual, expected, rtol=EXACT):
    assert_array_equal(actual.converged_, expected.converged_)
    assert_allclose(actual.log_likelihood_, expected.log_likelihood_, rtol=rtol)
    assert actual.variance_components_.keys() == expected.variance_components_.keys()
    for name, value in expected.variance_components_.items():
        assert_close(actual.variance_components_[name], value, rtol)
    for name, value in expected.random_effects_.items():
        assert_array_equal(actual.group_levels_[name], expected.group_levels_[name])
        assert actual.group_levels_[name].dtype == expected.group_levels_[name].dtype
        assert_close(actual.random_effects_[name], value, rtol)
    assert_close(
        [*np.ravel(actual.intercept_), *np.ravel(actual.coef_)],
        [*np.ravel(expected.intercept_), *np.ravel(expected.coef_)],
        rtol,
    )
    assert actual.n_features_in_ == expected.n_features_in_
    assert_array_equal(actual.feature_names_in_, expected.feature_names_in_)
    assert_array_equal(actual.fixed_features_, expected.fixed_features_)


def frame_of(reference):
    """Columns and response of a reference fit; Polars reads strings of pandas by pyarrow only."""
    columns = {name: column.to_list() for name, column in reference.frame.items()}
    return pl.DataFrame({**columns, "y": reference.y})


CROSSED = dict(groups=["g", "h"])
SLOPES = dict(groups=["g", "h"], random_slopes={"g": ["x"]})
MODELS = {
    "crossed": CROSSED,
    "slopes": SLOPES,
    "diagonal": dict(SLOPES, covariance="diagonal"),
    "no random intercept": dict(
        groups="g", random_slopes={"g": {"slopes": ["x"], "intercept": False}}
    ),
    "no intercept": dict(SLOPES, fit_intercept=False),
    "interaction": dict(groups=["g", ("g", "h")]),
    "no factor": dict(groups=None),
    "ridge": dict(CROSSED, alpha=3.0),
    "ml": dict(SLOPES, method="ml"),
    "mackay": dict(CROSSED, method="mackay"),
    "some features": dict(CROSSED, fixed_features=["z"]),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("name", MODELS)
def test_every_source_gives_the_fit_of_its_rows(rng, tmp_path, kind, name):
    frame = table(rng).drop("w")
    model = MacKayMixedRegressor(**MODELS[name], **TIGHT)
    source = source_of(kind, frame, tmp_path)
    assert_same_fit(clone(model).fit(source, y="y"), fit(model, frame))


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("weight_type", ["frequency", "precision"])
def test_weights_of_a_source(rng, tmp_path, kind, weight_type):
    frame = table(rng).with_columns(w=pl.when(pl.col("g") == 3).then(0.0).otherwise("w"))
    model = MacKayMixedRegressor(**SLOPES, **TIGHT, weight_type=weight_type)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y", sample_weight="w")
    assert_same_fit(actual, fit(model, frame, weighted=True))


@pytest.mark.parametrize("kind", REREADABLE)
@pytest.mark.parametrize(
    "name", ["sleepstudy", "sleepstudy__diagonal", "pastes", "penicillin", "dyestuff"]
)
def test_sources_of_the_reference_data(tmp_path, kind, name):
    reference = load_reference(name)
    spec = reference.spec
    model = MacKayMixedRegressor(
        groups=list(spec["groups"]),
        random_slopes=spec.get("random_slopes") or None,
        covariance=spec.get("covariance", "full"),
        fixed_features=spec["fixed"],
        **TIGHT,
    )
    frame = frame_of(reference)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y")
    assert_same_fit(actual, fit(model, frame))


@pytest.mark.parametrize("kind", ["polars", "parquet", "reader", *ENGINES])
def test_several_outputs_of_a_source(rng, tmp_path, kind):
    frame = table(rng).drop("w").with_columns(v=pl.col("y") ** 2)
    model = MacKayMixedRegressor(**CROSSED, **TIGHT)
    X = frame.drop("y", "v")
    expected = clone(model).fit(X, frame[["y", "v"]].to_numpy())
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y=["y", "v"])
    assert actual.coef_.shape == expected.coef_.shape == (2, 4)
    assert_same_fit(actual, expected)
    one = clone(model).fit(source_of(kind, frame.drop("v"), tmp_path), y=["y"])
    assert one.coef_.shape == (1, 4)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("kind", ["polars", "reader"])
def test_the_length_of_batches_does_not_matter(rng, tmp_path, monkeypatch, piece, kind):
    monkeypatch.setattr(streams, "PIECE", piece)
    monkeypatch.setattr(streams, "MANY", 3)
    frame = table(rng, n=200, n_groups=10)
    last = frame[:2].with_columns(pl.lit(99).alias("g").cast(pl.Int64), h=pl.lit(-5, pl.Int64))
    frame = pl.concat([frame, last])  # levels that only the last rows have
    model = MacKayMixedRegressor(**SLOPES, **TIGHT)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y", sample_weight="w")
    expected = fit(model, frame, weighted=True)
    assert_same_fit(actual, expected)
    assert 99 in actual.group_levels_["g"]
    shuffled = frame[rng.permutation(len(frame))]
    assert_same_fit(clone(model).fit(shuffled.lazy(), y="y", sample_weight="w"), expected)


@pytest.mark.parametrize("piece", [50, 10_000])
def test_batches_of_one_row(rng, monkeypatch, piece):
    arrow = pytest.importorskip("pyarrow")
    monkeypatch.setattr(streams, "PIECE", piece)
    monkeypatch.setattr(streams, "MANY", 7)
    frame = table(rng, n=200, n_groups=10).drop("w")
    rows = frame.to_arrow()
    empty = rows[:0].to_batches() or [arrow.RecordBatch.from_pylist([], schema=rows.schema)]
    batches = [*empty, *rows.to_batches(max_chunksize=1), *empty]
    assert len(batches) >= 200
    reader = arrow.RecordBatchReader.from_batches(rows.schema, batches)
    model = MacKayMixedRegressor(**SLOPES, **TIGHT)
    assert_same_fit(clone(model).fit(reader, y="y"), fit(model, frame))


def labels_of(kind, n=60):
    codes = np.arange(n) % 6
    return {
        "string": pl.Series([f"level {c}" for c in codes]),
        "categorical": pl.Series([f"level {c}" for c in codes], dtype=pl.Categorical),
        "int8": pl.Series(codes - 3, dtype=pl.Int8),
        "uint64": pl.Series([2**63 + int(c) for c in codes], dtype=pl.UInt64),
        "boolean": pl.Series(codes % 2 == 0),
        "float": pl.Series(codes / 7.0),
        "infinite": pl.Series(np.where(codes == 0, np.inf, codes)),
        "date": pl.Series(codes.astype(int), dtype=pl.Int32).cast(pl.Date),
        "zoned": pl.Series(codes.astype(int) * 10**9).cast(pl.Datetime("us", "Europe/Berlin")),
        "duration": pl.Series(codes.astype(int) * 10**9).cast(pl.Duration("us")),
        "decimal": pl.Series([Decimal(int(c)) / 4 for c in codes], dtype=pl.Decimal(10, 2)),
        "beyond 2**53": pl.Series([2**53 + int(c) for c in codes]),
        "null": pl.Series([None if c == 2 else int(c) for c in codes]),
        "null string": pl.Series([None if c == 2 else str(c) for c in codes]),
        "NaN": pl.Series(np.where(codes == 2, np.nan, codes)),
    }[kind]


@pytest.mark.parametrize("source", ["polars", "reader"])
@pytest.mark.parametrize(
    "kind",
    ["string", "categorical", "int8", "uint64", "boolean", "float", "infinite", "date"]
    + ["zoned", "duration", "decimal", "beyond 2**53"],
)
def test_labels_of_every_kind(rng, tmp_path, monkeypatch, source, kind):
    if source == "reader":
        # Older ones make no array of a dictionary with the unsigned codes of Polars.
        pytest.importorskip("pyarrow", minversion="21" if kind == "categorical" else None)
    monkeypatch.setattr(streams, "PIECE", 7)
    frame = pl.DataFrame({"g": labels_of(kind), "x": rng.normal(size=60), "y": rng.normal(size=60)})
    model = MacKayMixedRegressor(groups="g", fixed_variances={"g": 1.0, "residual": 1.0})
    rows = frame.to_arrow() if source == "reader" else frame
    eager = rows.drop(["y"]) if source == "reader" else rows.drop("y")
    expected = clone(model).fit(eager, frame["y"].to_numpy())
    actual = clone(model).fit(source_of(source, frame, tmp_path), y="y")
    assert_same_fit(actual, expected)
    assert_close(actual.predict(eager), expected.predict(eager), EXACT)


@pytest.mark.parametrize("source", ["polars", "reader"])
@pytest.mark.parametrize("kind", ["null", "null string", "NaN"])
def test_missing_labels_are_refused(rng, tmp_path, source, kind):
    frame = pl.DataFrame({"g": labels_of(kind), "y": rng.normal(size=60)})
    with pytest.raises(ValueError, match="'g' has missing labels .* in 10 of 60 rows"):
        MacKayMixedRegressor(groups="g").fit(source_of(source, frame, tmp_path), y="y")


@pytest.mark.parametrize("column", ["x", "y", "w"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_with_their_rows(rng, monkeypatch, column, value):
    monkeypatch.setattr(streams, "PIECE", 100)
    frame = table(rng)
    frame[250, column] = value
    model = MacKayMixedRegressor(**CROSSED)
    with pytest.raises(ValueError, match="NaN|infinity") as eager:
        fit(model, frame, weighted=True)
    with pytest.raises(ValueError, match="(?s)(NaN|infinity).* of rows 200 to 299 of X,") as lazy:
        model.fit(frame.lazy(), y="y", sample_weight="w")
    assert str(eager.value).split(".")[0] in str(lazy.value)
    assert not hasattr(model, "coef_")


def change(frame, **columns):
    return frame.with_columns(**columns).drop("w")


HARD_COLUMNS = {
    "y + 1e12": (dict(y=pl.col("y") + 1e12), STATISTICS),
    "x + 1e9": (dict(x=pl.col("x") + 1e9), STATISTICS),
    "x - 1e9 at first": (
        dict(x=pl.when(pl.int_range(pl.len()) < 100).then(pl.col("x") - 1e9).otherwise("x")),
        EXACT,
    ),
    "nearly collinear": (dict(z=pl.col("x") + 1e-8 * pl.col("z")), HARD),
    "nearly explained": (dict(y=1e8 * pl.col("x") + pl.col("y")), HARD),
    "collinear": (dict(z=3.0 * pl.col("x") - 1.0), EXACT),
}


OTHER_MODELS = ["crossed", "no intercept", "ridge"]


@pytest.mark.parametrize("kind", ["polars", "parquet", *ENGINES])
@pytest.mark.parametrize("name", HARD_COLUMNS)
@pytest.mark.parametrize(
    "model",
    ["slopes", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_MODELS)],
)
def test_a_source_is_read_again_where_sums_lose_digits(
    rng, tmp_path, monkeypatch, kind, name, model
):
    columns, rtol = HARD_COLUMNS[name]
    if name == "y + 1e12" and model == "no intercept":
        rtol = EXACT  # the effects of one factor hold the offset
    monkeypatch.setattr(streams, "PIECE", 100)
    frame = change(table(rng), **columns)
    model = MacKayMixedRegressor(**MODELS[model], **TIGHT)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        expected = fit(model, frame)
    texts = {str(warning.message) for warning in said}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y")
    assert {str(warning.message) for warning in said} == texts
    for part, value in expected.variance_components_.items():
        assert_close(actual.variance_components_[part], value, rtol)
    X, sd = frame.drop("y"), frame["y"].std()
    # A prediction is a sum of terms that offsets make large.
    largest = np.abs(frame["y"]).max() + np.nansum(np.abs(expected.coef_)) * np.abs(X["x"]).max()
    atol = PREDICTED * sd + STATISTICS * largest
    assert_allclose(actual.predict(X), expected.predict(X), rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nearly collinear", "nearly explained"])
@pytest.mark.parametrize("model", ["crossed", "slopes"])
def test_of_many_rows_more_digits_are_left(rng, name, model):
    frame = change(table(rng, n=60_000), **HARD_COLUMNS[name][0])
    model = MacKayMixedRegressor(**MODELS[model], **TIGHT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, actual = fit(model, frame), clone(model).fit(frame.lazy(), y="y")
    for part, value in expected.variance_components_.items():
        assert_close(actual.variance_components_[part], value, HARD_AND_LONG)


@pytest.mark.parametrize("name", ["nearly collinear", "nearly explained", "collinear"])
def test_rows_that_are_gone_are_warned_of(rng, tmp_path, name):
    frame = change(table(rng), **HARD_COLUMNS[name][0])
    what = "y" if name == "nearly explained" else "'z'"
    model = MacKayMixedRegressor(groups="g")
    for call in (
        lambda: model.fit(source_of("reader", frame, tmp_path), y="y"),
        lambda: clone(model).partial_fit(frame.drop("y"), frame["y"]),
        lambda: clone(model).partial_fit(frame.lazy(), y="y"),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call()
        (told,) = [w for w in said if f"Sums over rows tell {what} with no" in str(w.message)]
        assert told.filename == __file__


def test_the_error_of_sums_is_told(rng, tmp_path):
    frame = change(table(rng), z=pl.col("x") + 1e-3 * pl.col("z"))
    model = MacKayMixedRegressor(groups="g", **TIGHT)
    expected = fit(model, frame)
    message = "tell 'z' with a relative error of 2e-10: .* leave 1e-06 of its sum of squares"
    with pytest.warns(UserWarning, match=message):
        model.fit(source_of("reader", frame, tmp_path), y="y")
    assert_close(model.coef_[1:], expected.coef_[1:], PREDICTED)


def test_the_weakest_slope_is_named(rng):
    model = MacKayMixedRegressor(**SLOPES).fit(*rows(table(rng)))
    described = model._statistics.of
    shares = np.array([1.0, 0.1, 1.0, 1e-6])  # of x, z, y, and x of g
    (message,) = about_digits(shares, described)
    assert "Sums over rows tell 'x' of 'g' with a relative error of 2e-10" in message.text
    assert about_digits(shares**0.5, described) == []


def parts_of(frame, k, rng):
    """Cut rows anywhere."""
    cuts = np.sort(rng.choice(np.arange(60, len(frame) - 60), k - 1, replace=False))
    return [frame[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]


def in_parts(model, parts, *, weighted=False):
    model = clone(model)
    for part in parts:
        weight = part["w"] if weighted else None
        model.partial_fit(part.drop("y", "w", strict=False), part["y"], weight)
    return model


def assert_same_sums(actual, expected):
    one, other = actual._statistics.sums, expected._statistics.sums
    one = about(one, other.coordinates)
    assert one.n_rows == other.n_rows
    assert_array_equal(one.largest, other.largest)
    assert_close(one.products.FWF, other.products.FWF, STATISTICS)
    for a, b in zip(one.products.terms, other.products.terms, strict=True):
        assert_close(a.own, b.own, STATISTICS)
        assert_close(a.ZWF, b.ZWF, STATISTICS)
    for pair, table in other.products.tables.items():
        assert_array_equal(one.products.tables[pair].row_levels, table.row_levels)
        assert_close(one.products.tables[pair].blocks, table.blocks, STATISTICS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("k", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_parts_one_after_the_other_are_the_fit_of_all_rows(rng, name, k):
    frame = table(rng)
    model = MacKayMixedRegressor(**MODELS[name], **TIGHT)
    for weighted in (False, True):
        actual = in_parts(model, parts_of(frame, k, rng), weighted=weighted)
        expected = fit(model, frame.drop("w"), weighted=False)
        if weighted:
            expected = clone(model).fit(frame.drop("y", "w"), frame["y"], frame["w"])
        assert_same_sums(actual, expected)
        assert_same_fit(actual, expected, UPDATED)


def test_an_update_is_within_tol_and_begins_where_the_rows_so_far_ended(rng):
    frame = table(rng, n=3000)
    for method in ("reml", "mackay"):
        model = MacKayMixedRegressor(**SLOPES, method=method)
        expected = fit(model, frame.drop("w"))
        model.fit(*rows(frame[:2990])).partial_fit(*rows(frame[2990:]))
        assert abs(model.log_likelihood_ - expected.log_likelihood_) < model.tol
        assert model.n_iter_ <= expected.n_iter_
    assert model.n_iter_ < expected.n_iter_
    assert model.history_[0]["step"] == "start"


def test_a_variance_at_zero_may_grow_with_new_rows(rng):
    frame = table(rng)
    flat = frame.with_columns(y=pl.Series(rng.normal(size=len(frame))))
    first, second = flat[:60], frame
    model = MacKayMixedRegressor(groups="h", **TIGHT)
    model.partial_fit(first.drop("y", "w"), first["y"])
    assert model.variance_components_["h"] == 0.0
    model.partial_fit(second.drop("y", "w"), second["y"])
    expected = fit(model, pl.concat([first, second]).drop("w"))
    assert expected.variance_components_["h"] > 0.0
    assert_same_fit(model, expected, UPDATED)


def rows_unlike(first, seed, n=30):
    """The slopes of later rows have the other sign: the criterion has several valleys."""
    rng = np.random.default_rng(seed)
    g = np.arange(n) % 5
    x, z = rng.normal(size=(2, n))
    sign = 1 - 2 * (np.arange(n) < first)
    y = x * rng.normal(size=5)[g] * sign + rng.standard_t(2, size=n)
    return np.column_stack([g, x, z]), y


# Of the first 1,200 seeds these had parts end higher than all rows did.
@pytest.mark.parametrize(
    "seed", [1133, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12))]
)
@pytest.mark.filterwarnings("ignore:Grouping factor")
def test_parts_and_all_rows_end_in_one_valley(seed):
    X, y = rows_unlike(15, seed)
    model = MacKayMixedRegressor([0], random_slopes={0: [1, 2]}, tol=1e-8)
    parts = clone(model).partial_fit(X[:15], y[:15]).partial_fit(X[15:], y[15:])
    expected = clone(model).fit(X, y)
    assert abs(parts.log_likelihood_ - expected.log_likelihood_) < ONE_VALLEY
    if seed == 1133:  # the first descent ends 0.234 below
        assert round(expected.log_likelihood_, 4) == -57.1421


@pytest.mark.parametrize("weights", [(1e-8, 1e8), (1e8, 1e-8), (1e-12, 1.0)])
def test_parts_of_very_different_precision(rng, weights):
    frame = table(rng)
    X, y = rows(frame)
    w = np.repeat(weights, len(y) // 2)
    model = MacKayMixedRegressor(groups="g", weight_type="precision", **TIGHT)
    actual = clone(model).partial_fit(X[:300], y[:300], w[:300])
    actual.partial_fit(X[300:], y[300:], w[300:])
    assert_same_fit(actual, clone(model).fit(X, y, w), UPDATED)


SO_FAR = "ignore:(Grouping factor .* has (a single|only 2) level|The variances of .* cannot all be)"


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
@pytest.mark.filterwarnings(SO_FAR, "ignore:method='quick' lost a direction")
def test_a_part_may_have_one_level_of_a_factor(rng, method):
    frame = table(rng).drop("w")
    hospital = np.arange(len(frame)) * 4 // len(frame)
    effects = pl.Series(rng.normal(size=4)[hospital])
    frame = frame.with_columns(pl.col("y") + effects, hospital=pl.Series(hospital))
    model = MacKayMixedRegressor(groups=["hospital", "g"], method=method, **TIGHT)
    parts = [frame.filter(pl.col("hospital") == i) for i in range(4)]
    expected = fit(model, frame)
    assert_same_fit(in_parts(model, parts), expected, UPDATED)
    fits = [clone(model).partial_fit(*rows(part)) for part in parts]
    assert [one.variance_components_["hospital"] for one in fits] == [0.0] * 4
    assert_same_fit(fits[0].merge(fits[1]).merge(fits[2].merge(fits[3])), expected)


def test_a_single_level_is_told(rng):
    frame = table(rng).with_columns(day=pl.lit(1))
    message = (
        "'day' has a single level so far, whose 1\\*intercept the fixed part takes up: its var"
    )
    with pytest.warns(UserWarning, match=message):
        MacKayMixedRegressor(groups=["day", "g"]).partial_fit(*rows(frame))
    with pytest.raises(ValueError, match="'day' has a single level .* Remove it from `groups`"):
        MacKayMixedRegressor(groups=["day", "g"]).fit(frame.lazy(), y="y")


@pytest.mark.filterwarnings(SO_FAR)
def test_factors_may_have_the_same_levels_at_first(rng):
    frame = table(rng).drop("w").with_columns(h=pl.col("g") + 100)
    later = table(rng).drop("w")
    model = MacKayMixedRegressor(groups=["g", "h"], **TIGHT)
    actual = in_parts(model, [frame, later])
    assert_same_fit(actual, fit(model, pl.concat([frame, later])), UPDATED)


@pytest.mark.filterwarnings("ignore:method='quick' lost a direction")
def test_what_depends_on_its_start_begins_anew(rng):
    frame = table(rng)
    for names in ("slopes", "crossed"):
        model = MacKayMixedRegressor(**MODELS[names], method="quick", **TIGHT)
        assert_same_fit(in_parts(model, parts_of(frame, 3, rng)), fit(model, frame.drop("w")))


def test_with_variances_held_effects_alone_are_updated(rng):
    frame = table(rng)
    held = {"g": [[1.0, 0.1], [0.1, 0.5]], "h": 0.6, "residual": 1.1}
    model = MacKayMixedRegressor(**SLOPES, fixed_variances=held)
    known, new = frame.filter(pl.col("g") < 15), frame.filter(pl.col("g") >= 15)
    actual = in_parts(model, [known, new])
    expected = fit(model, pl.concat([known, new]).drop("w"))
    assert len(actual.group_levels_["g"]) == 20
    assert_same_fit(actual, expected)
    assert actual.variance_components_["h"] == held["h"]


def test_several_outputs_are_updated(rng):
    frame = table(rng)
    Y = np.column_stack([frame["y"], frame["y"] ** 2, rng.normal(size=len(frame))])
    X = frame.drop("y", "w")
    model = MacKayMixedRegressor(**CROSSED, **TIGHT)
    actual = clone(model).partial_fit(X[:300], Y[:300]).partial_fit(X[300:], Y[300:])
    assert_same_fit(actual, clone(model).fit(X, Y), UPDATED)


@pytest.mark.parametrize("kind", ["polars", "reader", *ENGINES])
def test_a_source_and_rows_in_memory_follow_each_other(rng, tmp_path, kind):
    frame = table(rng).drop("w")
    model = MacKayMixedRegressor(**SLOPES, **TIGHT)
    actual = clone(model).fit(source_of(kind, frame[:200], tmp_path), y="y")
    actual.partial_fit(frame[200:400].drop("y"), frame[200:400]["y"])
    actual.partial_fit(source_of(kind, frame[400:], tmp_path), y="y")
    assert_same_fit(actual, fit(model, frame), UPDATED)


UNLIKE = ["diagonal", "no random intercept", "interaction"]


@pytest.mark.parametrize(
    "name",
    ["slopes", *(pytest.param(name, marks=pytest.mark.slow) for name in UNLIKE)],
)
def test_parts_merge_in_any_order(rng, name):
    frame = table(rng, n=1000)
    model = MacKayMixedRegressor(**MODELS[name], **TIGHT)
    parts = [fit(model, part.drop("w")) for part in parts_of(frame, 7, rng)]
    before = [pickle.dumps(part) for part in parts]
    expected = fit(model, frame.drop("w"))
    for _ in range(2):
        order = rng.permutation(7)
        total = parts[order[0]]
        for i in order[1:]:
            total = total.merge(parts[i])
        assert_same_fit(total, expected)
        assert_same_sums(total, expected)
    tree = [a.merge(b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
    total = tree[0].merge(tree[1]).merge(tree[2].merge(parts[6]))
    assert_same_fit(total, expected)
    assert total.get_params() == model.get_params()
    assert [pickle.dumps(part) for part in parts] == before


def test_merged_parts_tell_how_sure_they_are(rng):
    frame = table(rng).drop("w")
    model = MacKayMixedRegressor(**SLOPES, **TIGHT)
    merged = fit(model, frame[:300]).merge(fit(model, frame[300:]))
    expected = fit(model, frame)
    X = frame.drop("y")
    for actual, value in zip(
        merged.predict(X, return_std=True), expected.predict(X, return_std=True), strict=True
    ):
        assert_allclose(actual, value, rtol=UPDATED)
    larger = fit(clone(model).set_params(random_slopes={"g": ["x", "z"]}), frame)
    assert_allclose(
        larger.compare(merged).statistic, larger.compare(expected).statistic, rtol=UPDATED
    )


def attributes(model):
    return {name: pickle.dumps(value) for name, value in vars(model).items()}


def rows(frame):
    return frame.drop("y", "w", strict=False), frame["y"]


REFUSED = {
    "column": (
        lambda f: rows(f.with_columns(new=pl.col("x"))),
        "Feature names unseen at fit time:\n- new",
    ),
    "order": (lambda f: rows(f[["x", "g", "h", "z", "y"]]), "must be in the same order"),
    "no column": (lambda f: (f[["y"]].lazy(), "y"), "X has no column beside those of `y`"),
    "kind of label": (
        lambda f: rows(f.with_columns(pl.col("h").cast(str))),
        "Grouping factor 'h' has numbers such as 0 in one part of the rows and strings such as '0'",
    ),
    "label": (lambda f: rows(f.with_columns(g=None)), "'g' has missing labels"),
    "number": (lambda f: rows(f.with_columns(x=pl.lit("a"))), "not numeric: 'x'"),
    "nothing": (lambda f: rows(f[:0]), "0 sample"),
    "outputs": (
        lambda f: (rows(f)[0], f[["y", "x"]].to_numpy()),
        "have the outputs 'one', those of the other '2 in two dimensions'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_add_leaves_the_fit_as_it_was(rng, case):
    make, message = REFUSED[case]
    frame = table(rng)
    model = MacKayMixedRegressor(**SLOPES).fit(*rows(frame[:300]))
    before = attributes(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(*make(frame[300:]))
    assert attributes(model) == before


PARAMETERS = {
    "weight_type": ("precision", "the weights 'frequencies', those of the other 'precisions'"),
    "fixed_features": (["z"], "the fixed features 'x', 'z', those of the other 'z'"),
    "groups": (["g"], "the grouping factors 'g with intercept, x', 'h with intercept', those"),
    "random_slopes": (None, "'g with intercept, x', 'h with intercept', those of the other 'g wi"),
}


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_other_parameters_do_not_add(rng, parameter):
    value, message = PARAMETERS[parameter]
    frame = table(rng)
    model = MacKayMixedRegressor(**SLOPES).fit(*rows(frame[:300]))
    other = clone(model).set_params(**{parameter: value}).fit(*rows(frame[300:]))
    with pytest.raises(ValueError, match=f"have other parameters: {parameter}="):
        model.merge(other)
    model.set_params(**{parameter: value})
    before = attributes(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(*rows(frame[300:]))
    assert attributes(model) == before


def slopes(X):
    return ["x"]


SAME = {
    "number": ({"alpha": 1, "tol": 1e-7}, {"alpha": 1.0, "tol": np.float64(1e-7)}),
    "list and tuple": ({"effects": ["g"]}, {"effects": ("g",)}),
    "list and array": (
        {"fixed_features": [False, True, False, True]},
        {"fixed_features": np.array([False, True, False, True])},
    ),
    "matrix": (
        {"random_slopes": {"g": ["x"]}, "fixed_variances": {"g": [[1, 0], [0, 1]]}},
        {"random_slopes": {"g": ["x"]}, "fixed_variances": {"g": np.eye(2)}},
    ),
    "one list twice": (
        {"groups": ["g", "h"], "random_slopes": dict.fromkeys(["g", "h"], ["x"])},
        {"groups": ["g", "h"], "random_slopes": {"g": ["x"], "h": ["x"]}},
    ),
    "function": ({"random_slopes": {"g": slopes}}, {"random_slopes": {"g": lambda X: ["x"]}}),
    "random state": ({"random_state": np.random.RandomState(0)}, {"random_state": 1}),
    "what is printed": ({"verbose": 0, "copy_X": True}, {"verbose": 1, "copy_X": False}),
}


@pytest.mark.parametrize("case", SAME)
def test_equal_parameters_merge_however_they_are_written(rng, case, capsys):
    one, other = SAME[case]
    frame = table(rng).drop("w")
    first, second = (
        MacKayMixedRegressor(groups=["g"], **TIGHT).set_params(**parameters)
        for parameters in (one, other)
    )
    expected = fit(first, frame)
    first.fit(*rows(frame[:300]))
    second.fit(*rows(frame[300:]))
    assert_same_fit(first.merge(second), expected)
    assert_same_fit(second.merge(first), expected)


def test_functions_of_other_answers_do_not_merge(rng):
    frame = table(rng)
    one, other = (
        MacKayMixedRegressor(groups="g", fixed_features=lambda X, name=name: [name])
        for name in ("x", "z")
    )
    with pytest.raises(ValueError, match="have the fixed features 'x', those of the other 'z'"):
        one.fit(*rows(frame[:300])).merge(other.fit(*rows(frame[300:])))


def test_parameters_of_the_estimate_may_change(rng):
    frame = table(rng).drop("w")
    model = MacKayMixedRegressor(**SLOPES, **TIGHT).fit(*rows(frame[:300]))
    model.set_params(method="ml", alpha=2.0).partial_fit(*rows(frame[300:]))
    assert_same_fit(model, fit(clone(model), frame), UPDATED)


def test_fits_that_do_not_merge(rng):
    frame = table(rng)
    model = MacKayMixedRegressor(**CROSSED).fit(*rows(frame))
    with pytest.raises(TypeError, match="`other` must be a MacKayMixedRegressor, got int"):
        model.merge(3)
    with pytest.raises(NotFittedError):
        model.merge(clone(model))
    with pytest.raises(NotFittedError):
        clone(model).merge(model)
    strings = clone(model).fit(*rows(frame.with_columns(pl.col("g").cast(str))))
    with pytest.raises(ValueError, match="'g' has numbers such as 0 .* and strings such as '0'"):
        model.merge(strings)
    renamed = clone(model).fit(*rows(frame.rename({"z": "t"})))
    message = "have the columns 'g', 'x', 'h', 'z', those of the other 'g', 'x', 'h', 't'"
    with pytest.raises(ValueError, match=message):
        model.merge(renamed)


@pytest.mark.slow
def test_sums_are_kept_beside_the_covariance_or_after_partial_fit(rng):
    frame = table(rng)
    more = rows(frame[300:])
    dropped = MacKayMixedRegressor(**CROSSED, store_covariance=False).fit(*rows(frame[:300]))
    with pytest.raises(ValueError, match="sums .* It was fitted with store_covariance=False"):
        dropped.partial_fit(*more)
    read = MacKayMixedRegressor.from_json(fit(MacKayMixedRegressor(**CROSSED), frame).to_json())
    with pytest.raises(ValueError, match="sums .* was read from JSON text"):
        read.merge(read)
    iterative = MacKayMixedRegressor(**CROSSED, solver="iterative", random_state=0)
    with pytest.raises(ValueError, match="sums .* After the iterative engine"):
        clone(iterative).fit(*rows(frame[:300])).partial_fit(*more)
    for model in (clone(dropped), iterative):
        model.partial_fit(*rows(frame[:300])).partial_fit(*more)
        assert model._statistics.sums.n_rows == len(frame)
        assert model._models is None
    dropped.fit(*rows(frame))  # once more by the rule
    assert dropped._statistics is None


def test_rows_that_no_sums_hold(rng):
    frame = table(rng)
    X, y = rows(frame)
    blocks = MacKayMixedRegressor(groups="g", feature_blocks={"all": ["x", "z"]})
    for model in (blocks, MacKayMixedRegressor(groups="g", alpha="auto")):
        assert not hasattr(model, "partial_fit")
        with pytest.raises(ValueError, match="Feature blocks .* need all rows in memory"):
            clone(model).fit(frame.lazy(), y="y")
        fitted = clone(model).fit(X, y)
        with pytest.raises(ValueError, match="a sparse X, of feature blocks, or fewer than"):
            fitted.merge(fitted)
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match="sparse X"):
        MacKayMixedRegressor(groups=[0]).partial_fit(sparse.csr_array(X.to_numpy()), y)
    few = MacKayMixedRegressor(groups="g")
    with pytest.raises(ValueError, match="3 rows are too few to be summed for 3 fixed features"):
        few.partial_fit(X[:3], y[:3])
    assert not hasattr(few, "coef_")
    for call in (few.fit, few.partial_fit):
        with pytest.raises(ValueError, match=r"X has no rows\.$"):
            call(frame[:0].lazy(), y="y")


@pytest.mark.parametrize(("size", "error"), [(1e140, "X has values of size"), (1e-140, "A column")])
def test_values_whose_squares_are_no_numbers(rng, size, error):
    frame = table(rng).with_columns(pl.col("x") * size)
    with pytest.raises(ValueError, match=f"{error}.* give it in another unit"):
        MacKayMixedRegressor(groups="g").fit(frame.lazy(), y="y", sample_weight="w")


def test_rows_without_weight_are_left_out_wherever_they_stand(rng, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 50)
    frame = table(rng)
    weights = np.where(np.arange(len(frame)) < 120, 0.0, frame["w"])
    frame = frame.with_columns(w=weights)
    model = MacKayMixedRegressor(**CROSSED, **TIGHT)
    actual = clone(model).fit(frame.lazy(), y="y", sample_weight="w")
    assert_same_fit(actual, fit(model, frame, weighted=True))
    frame = frame.with_columns(w=0.0)
    with pytest.raises(ValueError, match="no rows of positive weight"):
        model.fit(frame.lazy(), y="y", sample_weight="w")


def test_what_names_no_column_is_told(rng, tmp_path):
    frame = table(rng)
    model = MacKayMixedRegressor(**CROSSED)
    lazy, y = frame.lazy(), frame["y"].to_numpy()
    with pytest.raises(TypeError, match="X is a LazyFrame, whose rows have no order: give `y`"):
        model.fit(lazy, y)
    with pytest.raises(TypeError, match="order: give `sample_weight` as the name of its column"):
        model.fit(lazy, "y", sample_weight=y)
    with pytest.raises(TypeError, match="`groups` are labels in the order of rows"):
        model.fit(lazy, "y", groups=y)
    with pytest.raises(ValueError, match="`y` names 'rating', which X does not have"):
        model.fit(lazy, "rating")
    with pytest.raises(ValueError, match="`sample_weight` names 'n', which X does not have"):
        model.fit(lazy, "y", sample_weight="n")
    with pytest.raises(TypeError, match=r"`y` is 'y': .* Pass the column, y=X\['y'\]"):
        model.fit(frame, "y")
    with pytest.raises(TypeError, match="`sample_weight` is 'w': a name of a column is for rows"):
        model.partial_fit(frame.drop("y", "w"), y, sample_weight="w")
    with pytest.raises(TypeError, match="`X` is a LazyFrame of polars, which is no table"):
        MacKayMixedRegressor(groups=lambda X: ["g"]).fit(lazy, "y")
    with pytest.raises(ValueError, match="`groups='from_dtype'` needs a data frame"):
        MacKayMixedRegressor(groups="from_dtype").fit(lazy, "y")
    with pytest.raises(ValueError, match="`groups`: column 'y' not found"):
        MacKayMixedRegressor(groups="y").fit(lazy, "y")
    assert not hasattr(model, "coef_")


def test_a_reader_is_read_once_and_names_are_distinct(rng):
    arrow = pytest.importorskip("pyarrow")
    rows = table(rng).to_arrow()
    reader, model = rows.to_reader(), MacKayMixedRegressor(groups="g")
    model.fit(reader, y="y", sample_weight="w")
    with pytest.raises(ValueError, match="X has no rows: an Arrow reader has none once it was re"):
        model.fit(reader, y="y", sample_weight="w")
    repeated = arrow.table([rows["g"], rows["x"], rows["z"], rows["y"]], names=["g", "x", "x", "y"])
    with pytest.raises(ValueError, match="X has several columns called 'x': rename them"):
        model.fit(repeated.to_reader(), y="y")


def test_names_that_a_database_does_not_tell_apart(rng):
    duckdb = pytest.importorskip("duckdb")
    relation = duckdb.sql(
        'SELECT range % 6 AS g, range AS x, random() AS "X", 1 AS y FROM range(60)'
    )
    with pytest.raises(ValueError, match="'x', 'X', in which its library sees no difference: ren"):
        MacKayMixedRegressor(groups="g").fit(relation, y="y")


@pytest.mark.parametrize("kind", SOURCES)
def test_names_that_look_like_patterns(rng, tmp_path, kind):
    frame = table(rng).drop("w").rename({"x": "^g|h$", "z": "*", "h": 'a "b"', "y": "^.*$"})
    model = MacKayMixedRegressor(groups=["g", 'a "b"'], random_slopes={"g": ["*"]}, **TIGHT)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="^.*$")
    assert_same_fit(actual, clone(model).fit(frame[:, :4], frame["^.*$"]))


def test_what_is_no_relation_and_no_reader_is_told(rng):
    duckdb = pytest.importorskip("duckdb")
    dataset = pytest.importorskip("pyarrow.dataset")
    connection = duckdb.connect().execute("SELECT 1 AS y")
    with pytest.raises(TypeError, match=r"is a DuckDBPyConnection .*: give the relation `X.sql\("):
        MacKayMixedRegressor().fit(connection, y="y")
    scanner = dataset.dataset(table(rng).to_arrow()).scanner()
    with pytest.raises(TypeError, match=r"`X` is a Scanner of pyarrow.* `X.to_reader\(\)`"):
        MacKayMixedRegressor().fit(scanner, y="y")


def test_an_error_in_a_source_leaves_the_fit_as_it_was(rng):
    arrow = pytest.importorskip("pyarrow")
    rows = table(rng).drop("w").to_arrow()

    def broken():
        yield from rows.to_batches()
        raise OSError("the connection is gone")

    model = MacKayMixedRegressor(groups="g").fit(rows.to_reader(), y="y")
    before = attributes(model)
    for call in (model.fit, model.partial_fit):
        reader = arrow.RecordBatchReader.from_batches(rows.schema, broken())
        with pytest.raises(Exception, match="the connection is gone"):
            call(reader, y="y")
        assert attributes(model) == before


def test_a_source_with_other_rows_when_it_is_read_again_is_refused(rng):
    frame = change(table(rng), z=pl.col("x") + 1e-8 * pl.col("z"))
    n_reads = 0

    def fewer(batch):
        nonlocal n_reads
        n_reads += 1
        return batch if n_reads == 1 else batch[:-1]

    lazy = frame.lazy().map_batches(fewer, schema=frame.schema)
    with pytest.raises(ValueError, match="X had 600 rows when it was read first and 599 when"):
        MacKayMixedRegressor(groups="g").fit(lazy, y="y")


def test_only_columns_that_a_fit_needs_are_read(rng):
    frame = table(rng).with_columns(broken=pl.lit("text"))
    model = MacKayMixedRegressor(groups=["g", "h"], fixed_features=["x"], **TIGHT)
    failing = frame.lazy().with_columns(broken=pl.col("broken").cast(pl.Int64))
    actual = model.fit(failing, y="y", sample_weight="w")
    assert list(actual.feature_names_in_) == ["g", "x", "h", "z", "broken"]
    assert_array_equal(np.isnan(actual.coef_), [True, False, True, True, True])


def arrays_of(value, seen=None):
    """Every array that an object holds."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays_of(item, seen)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from arrays_of(item, seen)
    elif hasattr(value, "__dict__"):
        yield from arrays_of(vars(value), seen)


def test_what_is_sent_between_processes_holds_no_rows(rng):
    frame = table(rng, n=20_000).drop("w")
    model = MacKayMixedRegressor(**SLOPES, **TIGHT)
    parts = [frame[:10_007], frame[10_007:]]
    sent = [pickle.dumps(clone(model).partial_fit(*rows(part))) for part in parts]
    received = [pickle.loads(text) for text in sent]
    longest = max(max(array.shape, default=0) for array in arrays_of(received[0]))
    assert longest <= 20 * 8  # pairs of levels
    assert_same_fit(received[0].merge(received[1]), fit(model, frame))
    twin = copy.deepcopy(received[0])
    received[0].partial_fit(*rows(parts[1]))
    assert twin._statistics.sums.n_rows == 10_007


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["polars", "parquet", "duckdb", "reader", *ENGINES])
def test_insteval_of_every_source(tmp_path, kind):
    reference = load_reference("insteval")
    frame = frame_of(reference)
    model = MacKayMixedRegressor(
        groups=reference.spec["groups"], fixed_features=reference.spec["fixed"], **TIGHT
    )
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y")
    assert_same_fit(actual, fit(model, frame))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["polars", "parquet", "duckdb", "reader", *ENGINES])
def test_many_groups_with_slopes_of_every_source(rng, tmp_path, kind):
    g = np.repeat(np.arange(125_000), 4)
    x = rng.normal(size=len(g))
    y = 1.0 + x + rng.normal(size=125_000)[g] + rng.normal(size=125_000)[g] * x
    frame = pl.DataFrame({"g": g, "x": x, "y": y + rng.normal(size=len(g))})
    model = MacKayMixedRegressor(groups="g", random_slopes={"g": ["x"]}, **TIGHT)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y")
    assert_same_fit(actual, fit(model, frame))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["polars", "parquet", "duckdb", "reader", *ENGINES])
def test_a_million_crossed_rows_of_every_source(tmp_path, kind):
    X, y = make_ratings(1_000_000, 50_000, 10_000, random_state=1, as_frame=True)
    frame = pl.from_pandas(X).with_columns(y=y.to_numpy())
    model = MacKayMixedRegressor(groups=["user", "item"], random_state=0, **TIGHT)
    actual = clone(model).fit(source_of(kind, frame, tmp_path), y="y")
    assert actual.solver_ == "iterative"
    assert_same_fit(actual, fit(model, frame))
