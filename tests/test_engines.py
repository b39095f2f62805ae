"""Rows that stay in an engine: what it refuses, labels of every kind, predictions, merged parts."""

from __future__ import annotations

import pickle
import warnings
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sources import ENGINES, source_of

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.frames.queries import MOST_COLUMNS

pl = pytest.importorskip("polars")

SUMS = 1e-10  # of the largest of its kind: an engine adds in its own order, at tol=1e-12
PREDICTED = 1e-9  # of the largest: terms of a prediction in another order
SCORED = ["polars", "duckdb", *ENGINES]

pytestmark = [
    # What engines say of themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def table(rng, n=600):
    g = np.append(np.arange(20), rng.integers(20, size=n - 20))
    h = np.append(np.arange(8), rng.integers(8, size=n - 8))
    x, z = rng.normal(size=(2, n))
    y = 2.0 + x * (1.0 + rng.normal(size=20)[g]) - z + rng.normal(size=8)[h] + rng.normal(size=n)
    return pl.DataFrame({"g": g, "x": x, "h": [f"item {i}" for i in h], "z": z, "y": y})


def in_polars(frame):
    """A lazy frame of any engine as a Polars data frame."""
    for collected in ("collect", "pl", "to_polars"):
        if type(frame).__module__.startswith(("polars", "ibis", "duckdb", "_duckdb")) and hasattr(
            frame, collected
        ):
            return getattr(frame, collected)()
    pandas = frame.compute() if hasattr(frame, "compute") else frame.toPandas()
    return pl.from_pandas(pandas)


def model_of(**parameters):
    return MacKayMixedRegressor(
        **{"groups": ["g", "h"], "random_slopes": {"g": ["x"]}, "tol": 1e-12, **parameters}
    )


def assert_close(actual, expected, rtol=SUMS):
    assert_allclose(actual, expected, rtol=0, atol=rtol * np.max(np.abs(expected), initial=0.0))


def assert_same_fit(actual, expected):
    assert_allclose(actual.log_likelihood_, expected.log_likelihood_, rtol=SUMS)
    for name, value in expected.variance_components_.items():
        assert_close(actual.variance_components_[name], value)
    for name, value in expected.random_effects_.items():
        assert_array_equal(actual.group_levels_[name], expected.group_levels_[name])
        assert_close(actual.random_effects_[name], value)


LABELS = {
    "text": lambda c: pl.Series([f"level {i}" for i in c]),
    "text with case": lambda c: pl.Series(["aAbBcC"[i] for i in c]),
    "empty text": lambda c: pl.Series(["" if i == 0 else " " * i for i in c]),
    "category": lambda c: pl.Series([f"level {i}" for i in c], dtype=pl.Categorical),
    "small integer": lambda c: pl.Series(c - 3, dtype=pl.Int8),
    "integer beyond 2**53": lambda c: pl.Series([2**53 + int(i) for i in c]),
    "truth": lambda c: pl.Series(c % 2 == 0),
    "float": lambda c: pl.Series(c / 7.0),
    "zeros": lambda c: pl.Series(np.where(c == 0, -0.0, np.where(c == 1, 0.0, c))),
    "infinite": lambda c: pl.Series(np.where(c == 0, np.inf, c)),
    "date": lambda c: pl.Series([date(2024, 1, 1 + int(i)) for i in c]),
    "time": lambda c: pl.Series([datetime(2024, 1, 1, int(i)) for i in c]),
    "decimal": lambda c: pl.Series([Decimal(int(i)) / 4 for i in c], dtype=pl.Decimal(10, 2)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(rng, tmp_path, engine, kind):
    codes = np.arange(60) % 6
    frame = pl.DataFrame(
        {"g": LABELS[kind](codes), "x": rng.normal(size=60), "y": rng.normal(size=60)}
    )
    source = source_of(engine, frame, tmp_path)
    # In memory as the engine has them: in Spark times have a zone, in Dask decimals are text.
    collect = {"spark": "toArrow", "ibis": "to_pyarrow", "dask": "compute"}[engine]
    native = getattr(source, collect)()
    X = native.drop(columns=["y"]) if engine == "dask" else native.drop_columns(["y"])
    model = MacKayMixedRegressor(groups="g", fixed_variances={"g": 1.0, "residual": 1.0})
    expected = clone(model).fit(X, frame["y"].to_numpy())
    actual = clone(model).fit(source, y="y")
    assert_same_fit(actual, expected)
    scored = in_polars(actual.predict_frame(source)).sort("x")["prediction"].to_numpy()
    in_memory = expected.predict(X)[np.argsort(frame["x"].to_numpy())]
    assert_close(scored, in_memory, PREDICTED)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("kind", ["integer", "float", "text", "pair"])
def test_missing_labels_are_refused(rng, tmp_path, engine, kind, value):
    frame = table(rng)
    g = frame["g"].cast(
        {"integer": pl.Int64, "pair": pl.Int64, "float": pl.Float64, "text": str}[kind]
    )
    if kind != "float" and value is not None:
        pytest.skip("NaN is a float")
    missing = pl.Series(np.arange(len(frame)) % 60 == 5)
    frame = frame.with_columns(g=pl.when(missing).then(pl.lit(value, g.dtype)).otherwise(g))
    groups = [("h", "g")] if kind == "pair" else ["g"]
    model = model_of(groups=groups, random_slopes=None, fixed_features=["x"])
    with pytest.raises(ValueError, match="'(h:)?g' has missing labels .* in 10 of 600 rows"):
        model.fit(source_of(engine, frame, tmp_path), y="y")
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("column", ["x", "y", "w"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(rng, tmp_path, engine, column, value):
    frame = table(rng).with_columns(w=pl.lit(1.0))
    frame[250, column] = value
    what = "sample_weight" if column == "w" else column.upper() if column == "x" else column
    model = model_of()
    with pytest.raises(ValueError, match=f"Input {what} contains NaN.* in '{column}' .1 rows"):
        model.fit(source_of(engine, frame, tmp_path), y="y", sample_weight="w")
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("engine", ENGINES)
def test_integers_do_not_wrap(rng, tmp_path, engine):
    frame = table(rng)
    wide = 100_000 + frame["x"] * 1000
    frame = frame.with_columns(
        x=wide.cast(pl.Int32),
        z=(frame["z"] * 50).clip(-127, 127).cast(pl.Int8),
        y=(frame["y"] * 1000 + 60_000).cast(pl.Int32),
        w=pl.Series(rng.integers(100, 127, len(frame)), dtype=pl.Int8),
        b=frame["z"] > 0,
    )
    model = model_of()
    expected = clone(model).fit(frame.drop("y", "w"), frame["y"].to_numpy(), frame["w"].to_numpy())
    actual = clone(model).fit(source_of(engine, frame, tmp_path), y="y", sample_weight="w")
    assert_same_fit(actual, expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_query_sums_is_told(rng, tmp_path, engine):
    frame = table(rng)
    source = source_of(engine, frame, tmp_path)
    y = frame["y"].to_numpy()
    model = model_of()
    with pytest.raises(TypeError, match="whose rows have no order: give `y` as the name"):
        model.fit(source, y)
    with pytest.raises(TypeError, match="order: give `sample_weight` as the name of its column"):
        model.fit(source, "y", sample_weight=y)
    with pytest.raises(TypeError, match="`groups` are labels in the order of rows"):
        model.fit(source, "y", groups=y)
    with pytest.raises(ValueError, match="`y` names 'rating', which X does not have"):
        model.fit(source, "rating")
    with pytest.raises(ValueError, match="Feature blocks .* need all rows in memory"):
        model_of(feature_blocks={"all": ["z"]}).fit(source, "y")
    with pytest.raises(ValueError, match="Feature blocks .* need all rows in memory"):
        model_of(alpha="auto").fit(source, "y")
    with pytest.raises(
        TypeError, match="`X` is a .*, which is no table in memory: give `X.to|.*X.co"
    ):
        model_of(groups=lambda X: ["g"]).fit(source, "y")
    with pytest.raises(ValueError, match="not numeric: 'h'"):
        model_of(groups=["g"]).fit(source, "y")
    with pytest.raises(ValueError, match="Column 'h' is not numeric"):
        model_of(groups=["g"], fixed_features=["x"]).fit(source, "h")
    with pytest.raises(ValueError, match="X has no rows"):
        model.fit(source_of(engine, frame[:0].cast({"h": str}), tmp_path), "y")
    weights = {"negative values": -1.0, "no rows of positive weight": 0.0}
    for message, w in weights.items():
        weighted = frame.with_columns(w=pl.lit(w))
        with pytest.raises(ValueError, match=message):
            model.fit(source_of(engine, weighted, tmp_path), "y", sample_weight="w")
    many = frame.with_columns(**{f"x{i}": pl.col("x") + i for i in range(MOST_COLUMNS)})
    with pytest.raises(ValueError, match="52 fixed features and .* name fewer|53 fixed features"):
        model.fit(source_of(engine, many, tmp_path), "y")
    with pytest.raises(TypeError, match="`X` is a .* which is no table in memory"):
        model_of().fit(frame.drop("y"), y).predict(source)
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("engine", ["ibis", "spark"])
def test_names_that_differ_by_case_are_refused(rng, tmp_path, engine):
    frame = table(rng)
    if engine == "spark":
        from sources import spark_session

        source = (
            spark_session().createDataFrame(frame.drop("z").to_arrow()).toDF("g", "x", "h", "X")
        )
        target = "g"
    else:
        source = source_of(engine, frame.rename({"z": "X"}), tmp_path)
        target = "y"
    with pytest.raises(ValueError, match="'x', 'X', in which its library sees no difference"):
        model_of(groups=["h"], random_slopes=None).fit(source, target)


def test_names_that_differ_by_case_are_two_in_dask(rng, tmp_path):
    frame = table(rng).rename({"z": "X"})
    model = model_of()
    expected = clone(model).fit(frame.drop("y"), frame["y"].to_numpy())
    source = source_of("dask", frame, tmp_path)
    actual = clone(model).fit(source, "y")
    assert_same_fit(actual, expected)
    scored = in_polars(actual.predict_frame(source, name="Y")).sort("x")
    assert_close(scored["Y"].to_numpy(), expected.predict(frame.sort("x").drop("y")), PREDICTED)


@pytest.mark.parametrize("engine", SCORED)
@pytest.mark.parametrize(
    "names",
    [
        {"g": "a.b", "x": "p0", "h": "w", "z": "z0_0", "y": "select"},
        {"g": "c3", "x": "^c.*$", "h": "_mackay_0_0", "z": "*", "y": 'a "b"'},
    ],
)
def test_names_that_engines_read_as_something_else(rng, tmp_path, engine, names):
    frame = table(rng).rename(names)
    g, x, h, _, y = names.values()
    model = MacKayMixedRegressor([g, h], random_slopes={g: [x]}, tol=1e-12)
    expected = clone(model).fit(frame[:, :4], frame[:, 4].to_numpy())
    source = source_of(engine, frame, tmp_path)
    actual = clone(model).fit(source, y)
    assert_same_fit(actual, expected)
    scored = in_polars(actual.predict_frame(source))
    assert scored.columns == [*frame.columns, "prediction"]
    assert_close(
        scored["prediction"].to_numpy()[np.argsort(scored[x].to_numpy())],
        expected.predict(frame[:, :4])[np.argsort(frame[x].to_numpy())],
        PREDICTED,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_adds_to_other_parts(rng, tmp_path, engine):
    frame = table(rng)
    model = model_of()
    expected = clone(model).fit(frame.drop("y"), frame["y"].to_numpy())
    actual = clone(model).partial_fit(source_of(engine, frame[:250], tmp_path), y="y")
    actual.partial_fit(frame[250:400].lazy(), y="y")
    other = clone(model).fit(source_of(engine, frame[400:], tmp_path), y="y")
    merged = actual.merge(other)
    assert abs(merged.log_likelihood_ - expected.log_likelihood_) < SUMS * len(frame)
    assert merged._statistics.sums.n_rows == len(frame)


def test_random_rows_are_refused(rng, tmp_path):
    from sources import spark_session

    source = spark_session().range(5000).selectExpr("id % 9 AS g", "id * 1.0 AS x", "id AS y")
    # A filter that draws anew in each query.
    sometimes = pytest.importorskip("pyspark.sql.functions").udf(
        lambda value: __import__("random").random() < 0.5, "boolean"
    )
    drawn = source.filter(sometimes.asNondeterministic()("x"))
    with pytest.raises(ValueError, match="X had rows of total weight .* in another: write them"):
        MacKayMixedRegressor(groups="g").fit(drawn, y="y")


# Predictions.


def rows_to_score(rng, n=200):
    """Rows with unseen and missing labels, under a key."""
    frame = table(rng, n)
    g = frame["g"].to_list()
    g[3], g[7], g[11] = None, 99, -5
    h = frame["h"].to_list()
    h[2], h[7], h[20] = "new", None, "item 0 "
    return frame.with_columns(
        pl.Series("g", g), pl.Series("h", h), key=pl.int_range(len(frame)), other=pl.lit("text")
    )


PREDICTED_MODELS = {
    "slopes": {},
    "slope of the second": {"random_slopes": {"h": ["z"], "g": ["x", "z"]}},
    "no random intercept": {"random_slopes": {"g": {"slopes": ["x"], "intercept": False}}},
    "interaction": {"groups": ["g", ("h", "g")], "random_slopes": {("h", "g"): ["z"]}},
    "no factor": {"groups": None, "random_slopes": None, "fixed_features": ["x", "z"]},
    "no feature": {"fixed_features": []},
    "no intercept": {"fit_intercept": False},
    "blocks": {"feature_blocks": {"b": ["z"]}},
    "population": {"effects": "population"},
    "one factor": {"effects": ["h"]},
}


@pytest.mark.parametrize("engine", SCORED)
@pytest.mark.parametrize("name", PREDICTED_MODELS)
@pytest.mark.filterwarnings("ignore:Grouping factor .* was given:UserWarning")
def test_predictions_in_an_engine_are_those_in_memory(rng, tmp_path, engine, name):
    frame = table(rng)
    model = model_of(**PREDICTED_MODELS[name])
    model.fit(frame.drop("y"), frame["y"].to_numpy())
    rows = rows_to_score(rng)
    expected = model.predict(rows[["g", "x", "h", "z"]])
    scored = model.predict_frame(source_of(engine, rows, tmp_path), name="fit")
    assert type(scored) is type(source_of(engine, rows, tmp_path)) or engine == "ibis"
    scored = in_polars(scored).sort("key")
    assert scored.columns == [*rows.columns, "fit"]
    assert_close(scored["fit"].to_numpy(), expected, PREDICTED)
    assert_array_equal(scored["x"].to_numpy(), rows["x"].to_numpy())


@pytest.mark.parametrize("engine", SCORED)
def test_several_outputs_are_predicted(rng, tmp_path, engine):
    frame = table(rng)
    Y = np.column_stack([frame["y"], frame["y"] ** 2])
    model = model_of().fit(frame.drop("y"), Y)
    source = source_of(engine, frame.with_columns(key=pl.int_range(len(frame))), tmp_path)
    scored = in_polars(model.predict_frame(source)).sort("key")
    expected = model.predict(frame.drop("y"))
    for j in range(2):
        assert_close(scored[f"prediction{j}"].to_numpy(), expected[:, j], PREDICTED)


@pytest.mark.parametrize("engine", SCORED)
def test_what_cannot_be_predicted_is_told(rng, tmp_path, engine):
    frame = table(rng)
    model = model_of().fit(frame.drop("y"), frame["y"].to_numpy())
    with pytest.raises(ValueError, match="X lacks the columns 'x', 'z', which the model was fit"):
        model.predict_frame(source_of(engine, frame[["g", "h"]], tmp_path))
    text = source_of(engine, frame.with_columns(pl.col("x", "z").cast(str)), tmp_path)
    with pytest.raises(ValueError, match="that were numbers in `fit` are none: 'x', 'z'"):
        model.predict_frame(text)
    with pytest.raises(ValueError, match="X has a column 'y' already: give another `name`"):
        model.predict_frame(
            source_of(engine, frame, tmp_path), name="y" if engine in ("polars", "dask") else "Y"
        )
    with pytest.raises(ValueError, match="`effects` names 'k', which is no grouping factor"):
        model.predict_frame(source_of(engine, frame, tmp_path), effects=["k"])
    strict = clone(model).set_params(unknown_groups="error").fit(frame.drop("y"), frame["y"])
    unseen = frame.with_columns(g=pl.lit(77, pl.Int64))
    with pytest.raises(ValueError, match="'g' has labels not seen in fit: 77"):
        strict.predict_frame(source_of(engine, unseen, tmp_path))
    text = frame.with_columns(pl.col("g").cast(str))
    with pytest.warns(UserWarning, match="'g' was given strings such as .* it saw numbers") as said:
        model.predict_frame(source_of(engine, text, tmp_path))
    assert {w.filename for w in said if w.category is UserWarning} == {__file__}


def test_a_frame_of_narwhals_stays_one(rng):
    narwhals = pytest.importorskip("narwhals")
    frame = table(rng)
    model = model_of().fit(narwhals.from_native(frame.lazy()), y="y")
    scored = model.predict_frame(narwhals.from_native(frame.lazy()))
    assert isinstance(scored, narwhals.LazyFrame)
    expected = model.predict(frame.drop("y").sort("x"))
    assert_close(scored.collect().sort("x")["prediction"].to_numpy(), expected, PREDICTED)


def test_models_without_names_are_refused(rng):
    frame = table(rng)
    lazy = frame.lazy()
    with pytest.raises(
        TypeError, match="`predict_frame` takes a lazy frame of Polars.*: use `predic"
    ):
        model_of().fit(frame.drop("y"), frame["y"]).predict_frame(frame.drop("y"))
    numbers = frame.drop("h", "y").to_numpy()
    with pytest.raises(
        ValueError, match="finds columns by name, but this model was fitted on an ar"
    ):
        MacKayMixedRegressor([0]).fit(numbers, frame["y"]).predict_frame(lazy)
    given = MacKayMixedRegressor().fit(frame[["x", "z"]], frame["y"], groups=frame["g"])
    with pytest.raises(
        ValueError, match="takes labels from columns of X, but this model was fitte"
    ):
        given.predict_frame(lazy)
    scored = given.predict_frame(lazy, effects="population").collect()["prediction"]
    assert_close(
        scored.to_numpy(), given.predict(frame[["x", "z"]], effects="population"), PREDICTED
    )


def test_a_duckdb_table_is_scored_in_its_own_connection(rng, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    frame = rows_to_score(rng).with_columns(h=pl.lit("item 1"))
    model = model_of().fit(
        frame.drop("y", "key", "other")
        .with_columns(g=pl.Series(np.arange(200) % 9))
        .with_columns(h=pl.Series([f"i{i % 7}" for i in range(200)])),
        frame["y"],
    )
    connection = duckdb.connect(str(tmp_path / "a.db"))
    arrow = frame.to_arrow()  # noqa: F841 (DuckDB reads it by its name)
    connection.execute("CREATE TABLE rows_to_score AS SELECT * FROM arrow")
    scored = model.predict_frame(connection.table("rows_to_score"))
    scored.create("scored")
    n_rows, n_scored = connection.execute(
        "SELECT count(*), count(prediction) FROM scored"
    ).fetchone()
    assert n_rows == n_scored == 200
    r2 = connection.execute(
        "SELECT 1 - sum((y - prediction) ** 2) / sum((y - (SELECT avg(y) FROM scored)) ** 2) "
        "FROM scored"
    ).fetchone()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model.score(frame.drop("y", "key", "other"), frame["y"])
    assert_allclose(r2, expected, rtol=PREDICTED)


# Parts that are fitted in other processes.


def fit_part(path, parameters):
    """What a worker runs on a file of rows."""
    part = pl.read_parquet(path)
    model = MacKayMixedRegressor(**parameters)
    return model.partial_fit(part.drop("y"), part["y"].to_numpy())


@pytest.fixture
def files(rng, tmp_path):
    frame = table(rng, 2000)
    paths = [tmp_path / f"part{i}.parquet" for i in range(4)]
    for i, path in enumerate(paths):
        frame[i::4].write_parquet(path)
    return frame, [str(path) for path in paths]


PARAMETERS = {"groups": ["g", "h"], "random_slopes": {"g": ["x"]}, "tol": 1e-12}


def test_merge_is_the_reduction_of_a_dask_cluster(files):
    distributed = pytest.importorskip("distributed")
    frame, paths = files
    expected = MacKayMixedRegressor(**PARAMETERS).fit(frame.drop("y"), frame["y"].to_numpy())
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        fits = client.map(fit_part, paths, parameters=PARAMETERS)
        while len(fits) > 1:
            pairs = zip(fits[::2], fits[1::2], strict=True)
            fits = [client.submit(MacKayMixedRegressor.merge, *pair) for pair in pairs]
        merged = fits[0].result()
    assert_same_fit(merged, expected)


def test_merge_is_the_reduction_of_spark(files):
    from sources import spark_session

    frame, paths = files
    expected = MacKayMixedRegressor(**PARAMETERS).fit(frame.drop("y"), frame["y"].to_numpy())
    parameters = PARAMETERS

    def fit_pickled(path):
        import pickle

        import polars as pl

        from sklearn_mackay import MacKayMixedRegressor

        part = pl.read_parquet(path)
        model = MacKayMixedRegressor(**parameters).partial_fit(part.drop("y"), part["y"].to_numpy())
        return pickle.dumps(model)

    def merge_pickled(one, other):
        import pickle

        return pickle.dumps(pickle.loads(one).merge(pickle.loads(other)))

    rows = spark_session().sparkContext.parallelize(paths, 2)
    merged = pickle.loads(rows.map(fit_pickled).reduce(merge_pickled))
    assert_same_fit(merged, expected)
