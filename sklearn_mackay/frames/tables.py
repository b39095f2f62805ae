"""The user's table, labels, target and weights to arrays: the only place that meets user types."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import narwhals as nw
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight, _get_feature_names, validate_data

from .grouping import Labels, in_utc

LARGEST_NORM = 1e153  # of y: its square is a floating point number

# `float` accepts some strings, but "1.5" is a label all the same.
_LABEL_TYPES = (str, bytes, date, timedelta, np.datetime64, np.timedelta64)

# What makes a table in memory, by the library that a type comes from or by the type itself.
_COLLECT = {
    "RecordBatch": "`pyarrow.Table.from_batches([{0}])`",
    "RecordBatchReader": "`{0}.read_all()`",
    "Scanner": "`{0}.to_table()`, or to `fit` `{0}.to_reader()`",
    "DuckDBPyConnection": "the relation `{0}.sql(...)` to `fit`, or a table `{0}.sql(...).df()`",
    "polars": "`{0}.collect()`",
    "narwhals": "`{0}.collect()`",
    "duckdb": "`{0}.df()` or `{0}.pl()`",
    "dask": "`{0}.compute()`",
    "ibis": "`{0}.to_pandas()` or `{0}.to_polars()`",
    "pyspark": "`{0}.toPandas()`",
    "sqlframe": "`{0}.toPandas()`",
}


@dataclass(frozen=True)
class Header:
    """What is known of a user's X before its rows.

    Parameters
    ----------
    names : tuple of str or None
        Column names, if X is a data frame whose names are strings.
    n_columns : int
        Number of columns, grouping columns included.
    """

    names: tuple[str, ...] | None
    n_columns: int

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each named column."""
        return {name: position for position, name in enumerate(self.names or ())}

    def name(self, position: int) -> str:
        """Name of a column, in scikit-learn's style (`x0`) where X has none."""
        return f"x{position}" if self.names is None else self.names[position]


@dataclass(frozen=True)
class Table:
    """A user's X, column by column.

    Parameters
    ----------
    header : Header
        Names of the columns.
    data : narwhals.DataFrame, ndarray or CSR matrix or array
        X itself; a frame may lack columns that nobody asks for. Arrays of numbers and sparse
        matrices are known to be finite.
    """

    header: Header
    data: Any

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.data.shape[0])

    def labels(self, position: int) -> Labels:
        """Labels in one column, of shape (n_rows,), as given: None and NaN are kept."""
        if isinstance(self.data, nw.DataFrame):
            return _series_labels(self._series(position))
        if isinstance(self.data, np.ndarray):
            return self.data[:, position]
        column: Labels = self.data[:, [position]].toarray()
        return column.ravel()

    def numeric(self, positions: Sequence[int], *, copy: bool = True) -> Any:
        """Finite numbers in some columns.

        Parameters
        ----------
        positions : sequence of int
            Positions of the columns.
        copy : bool
            False to hand out the user's own array where all its columns are asked for.

        Returns
        -------
        block : ndarray or CSR matrix or array of shape (n_rows, len(positions))
            Numbers as float64; sparse where X is sparse.

        Raises
        ------
        ValueError
            If a column is not numeric or not finite.
        """
        positions = list(positions)
        if not isinstance(self.data, (nw.DataFrame, np.ndarray)):
            return self.data[:, positions].astype(np.float64, copy=False)
        others = [position for position in positions if not self._is_numeric(position)]
        if others:
            names = quoted(self.header.name(position) for position in others)
            raise ValueError(
                f"Columns of X that are not numeric: {names}. Encode them "
                "(OneHotEncoder), name them in `groups` where their values are labels of groups, "
                "or list the columns to keep in `fixed_features`."
            )
        if isinstance(self.data, nw.DataFrame):
            columns = [_series_numbers(self._series(position)) for position in positions]
            block = np.column_stack([np.empty((self.n_rows, 0)), *columns])
        elif not copy and positions == list(range(self.header.n_columns)):
            block = self.data
        else:
            block = self.data[:, positions]
        try:
            return check_array(block, dtype=np.float64, ensure_min_features=0, input_name="X")
        except ValueError as error:
            # scikit-learn says that there is a number that is not finite, but not where.
            if np.iscomplexobj(block):
                raise
            wrong = ~np.isfinite(block.astype(np.float64, copy=False))
            counts = {
                self.header.name(position): int(count)
                for position, count in zip(positions, np.sum(wrong, axis=0), strict=True)
                if count
            }
            if not counts:
                raise
            where = ", ".join(f"{name!r} ({count} rows)" for name, count in counts.items())
            raise ValueError(
                f"{error} It stands in {where}: impute it, or drop the rows."
            ) from None

    def _is_numeric(self, position: int) -> bool:
        if isinstance(self.data, nw.DataFrame):
            dtype = self._series(position).dtype
            if not isinstance(dtype, (nw.Object, nw.Unknown)):
                return dtype.is_numeric() or isinstance(dtype, nw.Boolean)
        labels = self.labels(position)
        if labels.dtype != object:
            return labels.dtype.kind in "biufc"
        return not any(issubclass(kind, _LABEL_TYPES) for kind in set(map(type, labels)))

    def _series(self, position: int) -> nw.Series[Any]:
        series: nw.Series[Any] = self.data.get_column(self._columns[position])
        return series

    @cached_property
    def _columns(self) -> list[str]:
        columns: list[str] = list(self.header.names or self.data.columns)
        return columns


@dataclass(frozen=True)
class _Names:
    """Names and shape of a frame, in the interchange protocol.

    By it scikit-learn before 1.8 learns the names of frames other than pandas', of which some
    have dropped it; without names, columns in another order would be taken for the right ones.
    """

    names: tuple[str, ...]
    shape: tuple[int, int]

    def __dataframe__(self) -> _Names:
        return self

    def column_names(self) -> tuple[str, ...]:
        return self.names


def read_table(estimator: Any, X: object, *, reset: bool) -> Table:
    """Read X, and set or check `n_features_in_` and `feature_names_in_`.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted or predicts.
    X : data frame, array-like or sparse matrix of shape (n_rows, n_columns)
        All columns, grouping columns included.
    reset : bool
        True in `fit`, False in `predict`.

    Returns
    -------
    table : Table
        The columns.

    Raises
    ------
    TypeError
        For a table that is not in memory, or names of columns in several parts.
    """
    frame = _read_native(X, "X")
    if isinstance(frame, nw.DataFrame):
        table = frame_table(frame)
        check_names(estimator, X, table.header, reset=reset)
        if 0 in frame.shape:
            check_array(np.empty(frame.shape), estimator=estimator)  # raises scikit-learn's error
        return table
    if isinstance(X, (list, tuple)):
        X = _to_array(X)
    # Columns of objects and strings are checked once it is known what they are for.
    numeric = sp.issparse(X) or np.asarray(X).dtype.kind in "biufc"
    data = validate_data(
        estimator,
        X,
        reset=reset,
        accept_sparse="csr",
        dtype="numeric" if numeric else None,
        ensure_all_finite=numeric,
    )
    return Table(Header(None, data.shape[1]), data)


def check_names(estimator: Any, X: Any, header: Header, *, reset: bool) -> None:
    """Set or check `n_features_in_` and `feature_names_in_`.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted or predicts.
    X : data frame
        Columns, with or without rows.
    header : Header
        Their names.
    reset : bool
        True to set, False to check.

    Raises
    ------
    ValueError
        For other names than those of before.
    """
    if header.names is not None and _get_feature_names(X) is None:
        X = _Names(header.names, X.shape)
    validate_data(estimator, X, reset=reset, skip_check_array=True)


class Rows(NamedTuple):
    """Rows of X, y and weights.

    Attributes
    ----------
    table : Table
        X.
    y : ndarray of shape (n,) or (n, t)
        Responses.
    weights : ndarray of shape (n,)
        Row weights.
    span : tuple of int, optional
        First and last of them among all rows, where there are others.
    """

    table: Table
    y: NDArray[np.float64]
    weights: NDArray[np.float64]
    span: tuple[int, int] | None = None


def raise_of_rows(error: ValueError, span: tuple[int, int] | None) -> NoReturn:
    """Raise the error of some rows, saying which they are where there are others."""
    if span is None:
        raise error
    raise ValueError(
        f"{error} This is said of rows {span[0]} to {span[1]} of X, as they were read."
    ) from error


def read_rows(estimator: Any, X: object, y: object, sample_weight: object, *, reset: bool) -> Rows:
    """Read rows in memory.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted.
    X, y, sample_weight
        As the user gave them.
    reset : bool
        True to set the names of the columns, False to check them.

    Returns
    -------
    Rows
    """
    table = read_table(estimator, X, reset=reset)
    return Rows(
        table, read_target(estimator, y, table.n_rows), read_weights(sample_weight, table.n_rows)
    )


def read_groups(groups: object, n_rows: int) -> tuple[tuple[str, ...], tuple[Labels, ...]]:
    """Read the labels given to `fit(X, y, groups=...)`.

    Parameters
    ----------
    groups : series, data frame or array-like of shape (n_rows,) or (n_rows, n_factors)
        Labels, row by row; an index is ignored.
    n_rows : int
        Number of rows of X.

    Returns
    -------
    names : tuple of str
        Names of the series or columns, else "group0", "group1", ...
    labels : tuple of ndarray of shape (n_rows,)
        Labels of each factor, as given: None and NaN are kept.
    """
    if isinstance(groups, Mapping):
        raise ValueError(
            "`groups` must not be a dict, since cross-validation does not split dicts by row: "
            "pass a data frame with one column for each factor."
        )
    native = _read_native(groups, "groups")
    if isinstance(native, nw.Series):
        native = native.to_frame()
    if isinstance(native, nw.DataFrame):
        table = frame_table(native)
    else:
        array = _to_array(groups)
        if array.ndim == 1:
            array = array[:, np.newaxis]
        if array.ndim != 2:
            raise ValueError(
                "`groups` must be a 1-D array, or a 2-D array or data frame with one column for "
                f"each factor, but it has {array.ndim} dimensions."
            )
        table = Table(Header(None, array.shape[1]), array)
    if not table.header.n_columns:
        raise ValueError("`groups` has no columns: pass one column of labels for each factor.")
    if table.n_rows != n_rows:
        raise ValueError(f"`groups` has {table.n_rows} rows, but X has {n_rows}.")
    header = table.header
    names = header.names or ("",) * header.n_columns
    return (
        tuple(name or f"group{position}" for position, name in enumerate(names)),
        tuple(table.labels(position) for position in range(header.n_columns)),
    )


def read_target(estimator: Any, y: object, n_rows: int) -> NDArray[np.float64]:
    """Read y as finite float64 numbers of shape (n_rows,) or (n_rows, n_outputs)."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, "
            "but the target y is None."
        )
    _refuse_name(y, "y")
    check_in_memory(y, "y")
    target: NDArray[Any] = check_array(
        y, ensure_2d=False, ensure_all_finite=False, input_name="y", estimator=estimator
    )
    try:
        assert_all_finite(target, input_name="y")
    except ValueError as error:
        n_wrong = np.sum(~np.isfinite(target.reshape(len(target), -1)).all(axis=1))
        raise ValueError(
            f"{error} It stands in {n_wrong} of {len(target)} rows: drop them, and predict them "
            "after the fit."
        ) from None
    if target.ndim != 2:
        target = column_or_1d(target)
    check_consistent_length(range(n_rows), target)
    target = target.astype(np.float64, copy=False)
    lowest, highest = np.min(target, axis=0), np.max(target, axis=0)
    with np.errstate(over="ignore"):
        spread = highest - lowest
    size = np.maximum(np.abs(lowest), np.abs(highest))
    too_small = (spread > 0) & (spread < 1.0 / LARGEST_NORM)
    if np.any(too_small | (size > LARGEST_NORM / np.sqrt(n_rows))):
        raise ValueError(
            f"y has values of size {np.max(size):.1e}, whose squares leave the range of floating "
            "point numbers: give y in another unit."
        )
    return target


def read_weights(sample_weight: object, n_rows: int) -> NDArray[np.float64]:
    """Read weights of shape (n_rows,): finite, none negative, not all zero; None gives ones."""
    _refuse_name(sample_weight, "sample_weight")
    check_in_memory(sample_weight, "sample_weight")
    weights: NDArray[np.float64] = _check_sample_weight(
        sample_weight, np.empty(n_rows), dtype=np.float64
    )
    if (weights < 0).any():
        raise ValueError("`sample_weight` has negative values: weights must be zero or positive.")
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights


def _refuse_name(values: object, parameter: str) -> None:
    if isinstance(values, str):
        raise TypeError(
            f"`{parameter}` is {values!r}: a name of a column is for rows that are not in memory. "
            f"Pass the column, {parameter}=X[{values!r}], and leave it out of X."
        )


def categorical_columns(X: object) -> list[int]:
    """Positions of the columns of a data frame with a categorical or enum type."""
    frame = _eager(X)
    if not isinstance(frame, nw.DataFrame):
        raise ValueError("`groups='from_dtype'` needs a data frame: use positions instead.")
    dtypes = frame.schema.dtypes()
    return [i for i, dtype in enumerate(dtypes) if isinstance(dtype, (nw.Categorical, nw.Enum))]


def is_in_memory(values: object) -> bool:
    """Whether values are an array, a data frame or a series, or nothing."""
    if values is None or isinstance(values, np.ndarray):
        return True
    return isinstance(_eager(values), (nw.DataFrame, nw.Series))


def check_in_memory(values: object, name: str) -> None:
    """Refuse tables whose rows are yet to be computed, and others that no array can be made of.

    Parameters
    ----------
    values : object
        What the user gave.
    name : str
        What for: "X", "y", "groups", "sample_weight".

    Raises
    ------
    TypeError
        For a lazy frame, a relation of a database or a batch; it says how to make a table of it.
    """
    if is_in_memory(values):
        return
    kind = type(values)
    protocols = ("__dataframe__", "__arrow_c_stream__")
    if (
        any(hasattr(kind, protocol) for protocol in protocols)
        or isinstance(nw.from_native(values, pass_through=True), nw.LazyFrame)
        or kind.__name__ in _COLLECT
    ):
        library = library_of(values)
        cure = _COLLECT.get(kind.__name__) or _COLLECT.get(library)
        raise TypeError(
            f"`{name}` is a {kind.__name__} of {library}, which is no table in memory: give "
            f"{(cure or 'a pandas, polars or pyarrow table made of it').format(name)}."
        )


def library_of(values: object) -> str:
    """Library that the type of values comes from."""
    return type(values).__module__.split(".")[0].strip("_")


def _eager(values: object) -> Any:
    return nw.from_native(values, eager_only=True, allow_series=True, pass_through=True)


def _read_native(values: object, name: str) -> Any:
    """A data frame or series in narwhals, anything else as it is."""
    native = _eager(values)
    if not isinstance(native, (nw.DataFrame, nw.Series)):
        check_in_memory(values, name)
    if getattr(getattr(values, "columns", None), "nlevels", 1) > 1:
        raise TypeError(
            f"The columns of `{name}` have names in several parts (a MultiIndex), which no "
            f'parameter can name: flatten them by `{name}.columns = ["_".join(map(str, parts)) '
            f"for parts in {name}.columns]`."
        )
    return native


def frame_table(frame: nw.DataFrame[Any]) -> Table:
    """A data frame as a table."""
    named = all(isinstance(name, str) for name in frame.columns)
    names = tuple(frame.columns) if named else None
    return Table(Header(names, frame.shape[1]), frame)


def _to_array(values: object) -> NDArray[Any]:
    array = np.asarray(values)
    if isinstance(values, (list, tuple)) and array.dtype.kind in "SU":
        # Otherwise numbers that stand beside strings become strings.
        return np.asarray(values, dtype=object)
    return array


def _series_labels(series: nw.Series[Any]) -> Labels:
    if series.dtype.is_integer() and series.null_count():
        # NaN would make floats of the integers, which rounds ids beyond 2**53.
        return np.array(series.to_list(), dtype=object)
    labels = series.to_numpy()
    if (
        isinstance(series.dtype, nw.Datetime)
        and series.dtype.time_zone
        and labels.dtype.kind == "M"
    ):
        return in_utc(labels)  # which is what narwhals makes of any time zone
    return labels


def _series_numbers(series: nw.Series[Any]) -> NDArray[Any]:
    if isinstance(series.dtype, (nw.Object, nw.Unknown)):
        return series.to_numpy()
    return series.cast(nw.Float64).to_numpy()


def quoted(names: Iterable[Any]) -> str:
    """Names in a message, as many as fit."""
    return textwrap.shorten(", ".join(map(repr, names)), width=200, placeholder=" ...")
