"""The user's table, labels, target and weights to arrays."""

from __future__ import annotations

import datetime as dt
from typing import Any

import narwhals as nw
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, RegressorMixin
from tables import COLUMNS, FRAMES, pd, pl

from sklearn_mackay.frames.grouping import encode, learn_grouping
from sklearn_mackay.frames.tables import read_groups, read_table, read_target, read_weights

SERIES = [pd.Series, pl.Series]


class Estimator(RegressorMixin, BaseEstimator):
    """Stands for the estimator that is fitted."""


def table_of(X):
    return read_table(Estimator(), X, reset=True)


@pytest.mark.parametrize("frame", FRAMES)
def test_data_frame(frame):
    table = table_of(frame(COLUMNS))
    assert table.header.names == tuple(COLUMNS)
    assert (table.n_rows, table.header.n_columns) == (3, 5)
    assert table.header.name(1) == "item"
    for position, labels in enumerate(COLUMNS.values()):
        assert_array_equal(table.labels(position), labels)
    block = table.numeric([2, 1, 3])
    assert block.dtype == np.float64
    assert_array_equal(block, [[0, 1, 1], [1, 2, 0], [2.5, 2, 1]])
    assert table.numeric([]).shape == (3, 0)


@pytest.mark.parametrize(
    "X",
    [
        np.array([["a", 1.5, True], ["b", 2, False]], dtype=object),
        [["a", 1.5, True], ["b", 2, False]],
        (("a", 1.5, True), ("b", 2, False)),
        pd.DataFrame({0: ["a", "b"], 7: [1.5, 2], 3: [True, False]}),
    ],
    ids=["object array", "list", "tuple", "frame with integer names"],
)
def test_mixed_columns_without_names(X):
    table = table_of(X)
    assert table.header.names is None
    assert table.header.name(1) == "x1"
    assert table.labels(0).tolist() == ["a", "b"]
    assert_array_equal(table.numeric([1, 2]), [[1.5, 1], [2, 0]])
    with pytest.raises(ValueError, match="not numeric: 'x0'"):
        table.numeric([0, 1])


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_, object])
def test_numeric_array(dtype):
    X = np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype)
    table = table_of(X)
    block = table.numeric([2, 0])
    assert block.dtype == np.float64
    assert_array_equal(block, [[1, 1], [1, 0]])
    assert_array_equal(table.labels(1), X[:, 1])
    assert table.labels(1).dtype == dtype


def test_integer_labels_are_not_rounded():
    ids = [2**53, 2**53 + 1]
    for X in (
        np.array([ids, ids]),
        np.array([ids, ids], dtype=object),
        pd.DataFrame([ids, ids]),
        pl.DataFrame([ids, ids], orient="row"),
        pd.DataFrame({"id": pd.array([*ids, None], dtype="Int64")}).T,
    ):
        assert table_of(X).labels(1)[0] == 2**53 + 1


@pytest.mark.parametrize(
    "ids", [pd.Series([2**53 + 1, None], dtype="Int64"), pl.Series([2**53 + 1, None])]
)
def test_integer_labels_beside_missing_ones_are_not_rounded(ids):
    frame = (pd if isinstance(ids, pd.Series) else pl).DataFrame({"id": ids})
    assert table_of(frame).labels(0)[0] == 2**53 + 1


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.coo_array])
def test_sparse(make):
    X = np.array([[1, 0, 2], [0, 3, 0]])
    table = table_of(make(X))
    block = table.numeric([2, 1])
    assert sp.issparse(block)
    assert isinstance(block, sp.sparray) == isinstance(make(X), sp.sparray)
    assert block.format == "csr"
    assert block.dtype == np.float64
    assert_array_equal(block.toarray(), X[:, [2, 1]])
    assert table.numeric([]).shape == (2, 0)
    assert table.labels(2).shape == (2,)
    assert_array_equal(table.labels(2), [2, 0])


@pytest.mark.parametrize("make", [np.array, sp.csr_matrix, pd.DataFrame, pl.DataFrame])
def test_numeric_is_a_copy(make):
    X = np.arange(6.0).reshape(3, 2)
    data = make(X)
    block = table_of(data).numeric([0, 1])
    block *= 0
    again = table_of(data).numeric([0, 1])
    assert_array_equal(again.toarray() if sp.issparse(again) else again, X)


def test_numeric_without_copy():
    X = np.arange(6.0).reshape(3, 2)
    table = table_of(X)
    assert np.shares_memory(table.numeric([0, 1], copy=False), X)
    for positions in ([1, 0], [0]):
        assert_array_equal(table.numeric(positions, copy=False), X[:, positions])


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pd.Series(["b", None, "a"], dtype="category"), ["b", None, "a"]),
        (pd.Series([2, None, 1], dtype="category"), [2, None, 1]),
        (pd.Series(["b", None, "a"], dtype="str"), ["b", None, "a"]),
        (pd.Series(["b", None, "a"], dtype="string"), ["b", None, "a"]),
        (pd.Series(["b", None, 1], dtype=object), ["b", None, 1]),
        (pd.Series([2, None, 1], dtype="Int64"), [2, None, 1]),
        (pd.Series([True, None, False], dtype="boolean"), [True, None, False]),
        (pl.Series(["b", None, "a"]), ["b", None, "a"]),
        (pl.Series(["b", None, "a"], dtype=pl.Categorical), ["b", None, "a"]),
        (pl.Series(["b", None, "a"], dtype=pl.Enum(["b", "c", "a"])), ["b", None, "a"]),
        (pl.Series([2, None, 1]), [2, None, 1]),
        (pl.Series([True, None, False]), [True, None, False]),
    ],
)
def test_labels_keep_missing_ones_and_drop_unused_categories(column, labels):
    frame = (pd if isinstance(column, pd.Series) else pl).DataFrame({"g": column, "x": [1, 2, 3]})
    read = table_of(frame).labels(0)
    expected, _ = learn_grouping("g", [np.array([labels[0], labels[2]], dtype=object)])
    grouping, _ = learn_grouping("g", [read[[0, 2]]])
    assert grouping.labels.tolist() == expected.labels.tolist()
    assert_array_equal(encode(grouping, [read]) < 0, [False, True, False])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1, 2], dtype="Float64"),
        pd.Series([1, 2], dtype="Sparse[float]"),
        pd.Series([1, 2], dtype=object),
        pl.Series([1, 2], dtype=pl.UInt64),
        pl.Series(["1", "2"]).cast(pl.Decimal(10, 2)),
        pl.Series([1, 2.0], dtype=pl.Object),
    ],
)
def test_numeric_column_types(column):
    frame = (pd if isinstance(column, pd.Series) else pl).DataFrame({"x": column})
    block = table_of(frame).numeric([0])
    assert isinstance(block, np.ndarray)
    assert_array_equal(block, [[1.0], [2.0]])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1.5", "2"]),
        pd.Series(["1.5", 2], dtype=object),
        pd.Series([1, 2], dtype="category"),
        pd.Series(pd.to_datetime(["2020", "2021"])),
        pd.Series(pd.to_datetime(["2020", "2021"]), dtype=object),
        pd.Series(pd.to_timedelta([1, 2])),
        pl.Series(["1.5", "2"]),
        pl.Series(["1", "2"], dtype=pl.Categorical),
        pl.Series([dt.date(2020, 1, 1), None]),
    ],
)
def test_columns_that_are_not_numeric_are_named_with_the_ways_out(column):
    frame = (pd if isinstance(column, pd.Series) else pl).DataFrame({"x": [1, 2], "city": column})
    table = table_of(frame)
    assert table.numeric([0]).shape == (2, 1)
    with pytest.raises(ValueError, match="not numeric: 'city'") as error:
        table.numeric([0, 1])
    for way_out in ("`groups`", "OneHotEncoder", "`fixed_features`"):
        assert way_out in str(error.value)


@pytest.mark.parametrize("X", [np.array([["1"], ["2"]]), np.array([["2020"]], dtype="M8[D]")])
def test_arrays_of_strings_and_dates_are_labels(X):
    table = table_of(X)
    assert_array_equal(table.labels(0), X[:, 0])
    with pytest.raises(ValueError, match="not numeric: 'x0'"):
        table.numeric([0])


def test_a_long_list_of_columns_is_shortened():
    X = pd.DataFrame({f"column_{i}": ["a"] for i in range(100)})
    with pytest.raises(ValueError, match=r"'column_0', .* \.\.\.\. Encode them") as error:
        table_of(X).numeric(range(100))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, None]),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series([1, None], dtype=object),
        pl.Series([1, None]),
        pl.Series([1.0, float("nan")]),
        pl.Series([True, None]),
    ],
)
def test_missing_numbers_in_a_frame(column):
    frame = (pd if isinstance(column, pd.Series) else pl).DataFrame({"g": [1, 2], "x": column})
    table = table_of(frame)
    with pytest.raises(ValueError, match="Input X contains NaN.*stands in 'x' .1 rows.: impute it"):
        table.numeric([0, 1])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[1.0, np.nan]]), "Input X contains NaN"),
        (sp.csr_matrix([[1.0, np.nan]]), "Input X contains NaN"),
        (np.array([[1.0, np.inf]]), "Input X contains infinity"),
        (np.array([[1j]]), "Complex data not supported"),
        (np.array([1.0, 2.0]), "Expected 2D array, got 1D array"),
        (np.array(["a", "b"], dtype=object), "Expected 2D array, got 1D array"),
        (["a", "b"], "Expected 2D array, got 1D array"),
        (pd.Series([1, 2]), "Expected a 2-dimensional container"),
        (None, "Expected 2D array, got scalar array"),
        (np.ones((1, 1, 1)), "Found array with dim 3"),
        (np.empty((0, 2)), r"Found array with 0 sample\(s\) \(shape=\(0, 2\)\)"),
        (np.empty((0, 2), dtype=object), r"Found array with 0 sample\(s\) \(shape=\(0, 2\)\)"),
        (pd.DataFrame({"a": []}), r"Found array with 0 sample\(s\) \(shape=\(0, 1\)\)"),
        (pl.DataFrame({"a": []}), r"Found array with 0 sample\(s\) \(shape=\(0, 1\)\)"),
        (np.empty((2, 0)), r"Found array with 0 feature\(s\) \(shape=\(2, 0\)\)"),
        (pd.DataFrame(index=[0, 1]), r"Found array with 0 feature\(s\) \(shape=\(2, 0\)\)"),
        ([[1], [1, 2]], "inhomogeneous"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "unique column names"),
    ],
)
def test_malformed_tables(X, message):
    with pytest.raises(ValueError, match=message):
        table_of(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (pd.DataFrame({"a": [1.0, np.inf]}), "Input X contains infinity"),
        (pd.DataFrame({"a": [1j]}), "Complex data not supported"),
        (np.array([[1.0, np.nan]], dtype=object), "Input X contains NaN"),
    ],
)
def test_malformed_columns(X, message):
    with pytest.raises(ValueError, match=message):
        table_of(X).numeric([X.shape[1] - 1])


def test_dict_elements_give_the_error_of_scikit_learn():
    X = np.array([[{"foo": "bar"}, 1.0]], dtype=object)
    with pytest.raises(TypeError, match="argument must be .* string.* number"):
        table_of(X).numeric([0, 1])


def test_predict_checks_names_and_number_of_columns():
    estimator = Estimator()
    X = pd.DataFrame(COLUMNS)
    read_table(estimator, X, reset=True)
    assert estimator.n_features_in_ == 5
    assert estimator.feature_names_in_.tolist() == list(COLUMNS)
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- subject"):
        read_table(estimator, X.drop(columns="subject"), reset=False)
    with pytest.raises(ValueError, match="must be in the same order"):
        read_table(estimator, X[X.columns[::-1]], reset=False)
    with (
        pytest.warns(UserWarning, match="X does not have valid feature names"),
        pytest.raises(ValueError, match="X has 2 features, but Estimator is expecting 5"),
    ):
        read_table(estimator, np.array([["a", 1.0]], dtype=object), reset=False)
    assert estimator.n_features_in_ == 5


@pytest.mark.parametrize(
    ("groups", "names", "labels"),
    [
        (["a", 1], ("group0",), [["a", 1]]),
        (["a", None], ("group0",), [["a", None]]),
        (range(2), ("group0",), [[0, 1]]),
        (np.array([2, 1]), ("group0",), [[2, 1]]),
        (np.array(["b", "a"]), ("group0",), [["b", "a"]]),
        (np.array([[1, 2], [3, 4]]), ("group0", "group1"), [[1, 3], [2, 4]]),
        ([["a", 1], ["b", 2]], ("group0", "group1"), [["a", "b"], [1, 2]]),
        (pd.Series(["a", "b"], index=[7, 3], name="school"), ("school",), [["a", "b"]]),
        (pd.Series([1, 2]), ("group0",), [[1, 2]]),
        (pd.Series([1, 2], name=3), ("group0",), [[1, 2]]),
        (pd.Series([1, 2], dtype="category"), ("group0",), [[1, 2]]),
        (pd.Categorical(["a", "b"]), ("group0",), [["a", "b"]]),
        (pd.Index([1, 2]), ("group0",), [[1, 2]]),
        (pl.Series("school", ["a", "b"]), ("school",), [["a", "b"]]),
        (pl.Series([1, 2]), ("group0",), [[1, 2]]),
        (pd.DataFrame({"s": ["a", "b"], "i": [1, 2]}), ("s", "i"), [["a", "b"], [1, 2]]),
        (pl.DataFrame({"s": ["a", "b"], "i": [1, 2]}), ("s", "i"), [["a", "b"], [1, 2]]),
        (pd.DataFrame({0: ["a", "b"], 1: [1, 2]}), ("group0", "group1"), [["a", "b"], [1, 2]]),
    ],
)
def test_read_groups(groups, names, labels):
    read_names, read_labels = read_groups(groups, 2)
    assert read_names == names
    assert [column.tolist() for column in read_labels] == labels


def test_groups_keep_nan():
    for groups in (np.array([1.0, np.nan]), pd.Series([1.0, np.nan]), pl.Series([1, None])):
        _, (labels,) = read_groups(groups, 2)
        with pytest.raises(ValueError, match="missing labels"):
            learn_grouping("g", [labels])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"g": [1, 2]}, "`groups` must not be a dict, since cross-validation .* data frame"),
        ([1, 2, 3], "`groups` has 3 rows, but X has 2"),
        (pd.DataFrame({"g": [1]}), "`groups` has 1 rows, but X has 2"),
        (np.ones((2, 1, 1)), "`groups` must be a 1-D array, .* but it has 3 dimensions"),
        ("subject", "`groups` must be a 1-D array, .* but it has 0 dimensions"),
        (np.empty((2, 0)), "`groups` has no columns"),
        (pd.DataFrame(index=[0, 1]), "`groups` has no columns"),
    ],
)
def test_malformed_array_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        read_groups(groups, 2)


@pytest.mark.parametrize(
    "y",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([1, 2], dtype=np.float32),
        np.array([1, 2], dtype=object),
        pd.Series([1, 2], index=[5, 3]),
        pd.Series([1, 2], dtype="Int64"),
        pl.Series([1, 2]),
    ],
)
def test_read_target(y):
    target = read_target(Estimator(), y, 2)
    assert target.dtype == np.float64
    assert_array_equal(target, [1.0, 2.0])


def test_several_targets_stay_columns():
    assert_array_equal(read_target(Estimator(), [[1, 3], [2, 4]], 2), [[1.0, 3.0], [2.0, 4.0]])
    assert read_target(Estimator(), [[1], [2]], 2).shape == (2, 1)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "This Estimator estimator requires y to be passed, but the target y is None"),
        ([1, np.nan], "Input y contains NaN"),
        ([1, np.inf], "Input y contains infinity"),
        (pd.Series([1, None], dtype="Int64"), "Input y contains NaN"),
        (pl.Series([1, None]), "Input y contains NaN"),
        ([1j, 2], "Complex data not supported"),
        (["a", "b"], "arrays of bytes/strings"),
        (np.array(["a", 1], dtype=object), "could not convert string to float"),
        ([[[1], [2]]], "Found array with dim 3"),
        ([1, 2, 3], r"inconsistent numbers of samples: \[2, 3\]"),
        ([], r"0 sample\(s\)"),
        ([1e154, 1.0], r"y has values of size 1.0e\+154, whose squares leave the range"),
        ([-2e-155, 0.0], "y has values of size 2.0e-155, whose squares leave the range"),
    ],
)
def test_malformed_target(y, message):
    with pytest.raises(ValueError, match=message):
        read_target(Estimator(), y, 2)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [1, 1]),
        (2, [2, 2]),
        ([0, 3], [0, 3]),
        (np.array([1, 2], dtype=np.float32), [1, 2]),
        (pd.Series([1, 2], index=[5, 3]), [1, 2]),
        (pl.Series([1, 2]), [1, 2]),
    ],
)
def test_read_weights(weights, expected):
    read = read_weights(weights, 2)
    assert read.dtype == np.float64
    assert_array_equal(read, expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1], "`sample_weight` has negative values: weights must be zero or positive"),
        (-1, "`sample_weight` has negative values"),
        ([0, 0], "Sample weights must contain at least one non-zero number"),
        (0.0, "Sample weights must contain at least one non-zero number"),
        ([1, np.nan], "Input sample_weight contains NaN"),
        ([1], r"sample_weight.shape == \(1,\), expected \(2,\)"),
        ([[1, 2]], "Sample weights must be 1D array or scalar"),
    ],
)
def test_malformed_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        read_weights(weights, 2)


# Tables that are not in memory.


def lazy(library: str, frame: Any) -> Any:
    """A table of a library whose rows are yet to be computed; skips where it is not installed."""
    if library == "polars":
        return pl.LazyFrame(frame.to_dict("list"))
    if library == "dask":
        return pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=1)
    if library == "duckdb":
        return pytest.importorskip("duckdb").from_df(frame)
    if library == "ibis":
        return pytest.importorskip("ibis").memtable(frame)
    arrow = pytest.importorskip("pyarrow")
    batch = arrow.RecordBatch.from_pandas(frame)
    return batch if library == "batch" else arrow.Table.from_batches([batch]).to_reader()


LAZY = {
    "polars": ("LazyFrame of polars", "`{0}.collect()`"),
    "dask": ("DataFrame of dask", "`{0}.compute()`"),
    "duckdb": ("DuckDBPyRelation of duckdb", "`{0}.df()` or `{0}.pl()`"),
    "ibis": ("Table of ibis", "`{0}.to_pandas()` or `{0}.to_polars()`"),
    "batch": ("RecordBatch of pyarrow", "`pyarrow.Table.from_batches([{0}])`"),
    "reader": ("RecordBatchReader of pyarrow", "`{0}.read_all()`"),
}


class Exchanged:
    """A table of an unknown library that has the interchange protocol."""

    def __dataframe__(self):
        raise NotImplementedError


class Streamed:
    """A table of an unknown library that has Arrow's protocol."""

    def __arrow_c_stream__(self):
        raise NotImplementedError


# ibis asks for an option that pandas is about to drop.
of_ibis = pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")

READERS = {
    "X": table_of,
    "groups": lambda values: read_groups(values, 3),
    "y": lambda values: read_target(Estimator(), values, 3),
    "sample_weight": lambda values: read_weights(values, 3),
}


@of_ibis
@pytest.mark.parametrize(("name", "read"), READERS.items(), ids=READERS)
@pytest.mark.parametrize("library", LAZY)
def test_a_table_that_is_not_in_memory_is_named_with_the_cure(library, name, read):
    kind, cure = LAZY[library]
    with pytest.raises(TypeError) as error:
        read(lazy(library, pd.DataFrame({"x": [1.0, 2.0, 3.0]})))
    expected = f"`{name}` is a {kind}, which is no table in memory: give {cure.format(name)}."
    assert str(error.value) == expected


@pytest.mark.parametrize(("name", "read"), READERS.items(), ids=READERS)
@pytest.mark.parametrize("kind", [Exchanged, Streamed])
def test_a_table_of_an_unknown_library_is_not_in_memory(kind, name, read):
    message = f"`{name}` is a {kind.__name__} of {__name__}, which is no table in memory: give"
    with pytest.raises(TypeError, match=f"{message} a pandas, polars or pyarrow table made of it"):
        read(kind())


@of_ibis
@pytest.mark.parametrize(
    ("library", "cure"),
    [
        ("polars", lambda X: X.collect()),
        ("dask", lambda X: X.compute()),
        ("duckdb", lambda X: X.df()),
        ("duckdb", lambda X: X.pl()),
        ("ibis", lambda X: X.to_pandas()),
        ("ibis", lambda X: X.to_polars()),
        ("batch", lambda X: pytest.importorskip("pyarrow").Table.from_batches([X])),
        ("reader", lambda X: X.read_all()),
    ],
)
def test_the_cure_makes_a_table(library, cure):
    table = table_of(cure(lazy(library, pd.DataFrame({"x": [1.0, 2.0, 3.0]}))))
    assert table.header.names == ("x",)
    assert_array_equal(table.numeric([0]), [[1.0], [2.0], [3.0]])


@pytest.mark.parametrize("name", ["X", "groups"])
def test_names_in_several_parts_are_refused(name):
    frame = pd.DataFrame(np.eye(3, 2), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)]))
    with pytest.raises(TypeError, match=f"The columns of `{name}` have names in several parts"):
        READERS[name](frame)
    frame.columns = ["_".join(map(str, parts)) for parts in frame.columns]
    assert table_of(frame).header.names == ("a_1", "a_2")


def test_a_table_in_narwhals_is_taken():
    table = table_of(nw.from_native(pl.DataFrame({"x": [1.0, 2.0]})))
    assert table.header.names == ("x",)
    with pytest.raises(TypeError, match="`X` is a LazyFrame of narwhals, .* `X.collect"):
        table_of(nw.from_native(pl.LazyFrame({"x": [1.0, 2.0]})))
