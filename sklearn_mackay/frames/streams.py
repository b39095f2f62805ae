"""Sources of rows that no memory has to hold, read as tables of some rows each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import narwhals as nw
import numpy as np

from .._arrays import Array
from .queries import (
    EXTRAS,
    Query,
    in_sql,
    lazy_rows,
    name_key,
    refuse_repeated,
    require_pyarrow,
    safely_named,
)
from .tables import (
    Header,
    Rows,
    Table,
    check_names,
    is_in_memory,
    library_of,
    quoted,
    raise_of_rows,
    read_rows,
    read_target,
    read_weights,
)

PIECE = 2**18  # rows of a table: many beside their levels, few beside a memory
MANY = 500  # batches that wait to be a table of so many rows

# Their rows stay where they are. An Arrow stream of these is made of all rows at once, or none.
ENGINES = ("dask", "ibis", "pyspark")
_COLLECTED = ("sqlframe",)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Parameters
    ----------
    header : Header
        Names of the features.
    is_rereadable : bool
        Whether `tables` may be asked again.
    tables : callable
        ``tables(columns)`` iterates over :class:`Rows` with these features, by position.
    """

    header: Header
    is_rereadable: bool
    tables: Callable[[Sequence[int]], Iterator[Rows]]


class _Names(NamedTuple):
    """Names of columns; those with one `key` are one name to their library."""

    names: tuple[str, ...]
    key: Callable[[str], str]
    library: Literal["polars", "pyarrow"]


class _Named(NamedTuple):
    """Columns that the user named."""

    responses: tuple[str, ...]
    weight: tuple[str, ...]
    has_outputs: bool


@dataclass(frozen=True)
class _Stream:
    """A source of data frames, with the columns of X, y and weights."""

    columns: _Names
    is_rereadable: bool
    frames: Callable[[list[str]], Iterator[nw.DataFrame[Any]]]


def is_lazy(X: object) -> bool:
    """Whether X is a source whose rows are read piece by piece.

    Parameters
    ----------
    X : object
        What the user gave.

    Returns
    -------
    bool
        True for a lazy frame of Polars, Dask, Spark or Ibis, a relation of DuckDB, a dataset of
        pyarrow, and whatever else has an Arrow stream but is no table in memory.
    """
    native = nw.to_native(X, pass_through=True)
    library = library_of(native)
    if library in ENGINES:
        return lazy_rows(native) is not None
    if is_in_memory(native) or library in _COLLECTED:
        return False
    is_frame = library == "polars" and type(native).__name__ == "LazyFrame"
    is_stream = hasattr(native, "__arrow_c_stream__") and not hasattr(native, "__arrow_c_array__")
    return is_frame or is_stream or _is_dataset(native)


def refuse_groups(groups: object) -> None:
    """Refuse labels given beside a lazy source.

    Parameters
    ----------
    groups : object
        As the user gave them to `fit`.

    Raises
    ------
    TypeError
        Where there are any.
    """
    if groups is not None:
        raise TypeError(
            "`groups` are labels in the order of rows, which X has none of: name columns of X in "
            "the constructor's `groups`."
        )


def open_source(
    estimator: Any, X: object, y: object, sample_weight: object, *, reset: bool
) -> Source | Query:
    """Find the columns of a source, and set or check the estimator's names of them.

    Parameters
    ----------
    estimator : estimator
        The estimator that is fitted.
    X : object
        A lazy source, see `is_lazy`, or rows in memory.
    y : str, list of str or array-like
        Name of the response's column in a lazy source, several for several outputs.
    sample_weight : str, array-like or None
        Name of the column of weights.
    reset : bool
        True where the columns are learned, False where they are to be those of before.

    Returns
    -------
    Source or Query
        Of rows in memory a source of one table; a query where the engine is to sum its rows.

    Raises
    ------
    TypeError
        For an array beside a lazy source: its rows have no order.
    ValueError
        For a name that is no column, or that of several.
    ImportError
        Where a library is missing.
    """
    if not is_lazy(X):
        rows = read_rows(estimator, X, y, sample_weight, reset=reset)
        return Source(rows.table.header, False, lambda _: iter([rows]))
    named = _name_columns(X, y, sample_weight)
    native = nw.to_native(X, pass_through=True)
    frame = lazy_rows(native) if library_of(native) in ENGINES else None
    if frame is not None:
        require_pyarrow(native)
        names = tuple(frame.collect_schema().names())
        header = _read_header(
            estimator, _Names(names, name_key(library_of(native)), "pyarrow"), named, reset=reset
        )
        weight = named.weight[0] if named.weight else None
        frame, called = safely_named(frame)
        return Query(header, frame, called, named.responses, weight, named.has_outputs)
    stream = _open(native)
    header = _read_header(estimator, stream.columns, named, reset=reset)

    def tables(columns: Sequence[int]) -> Iterator[Rows]:
        wanted = [header.name(column) for column in columns]
        needed = list(dict.fromkeys([*wanted, *named.responses, *named.weight]))
        first = 0
        for frame in _pieces(stream.frames(needed)):
            span = first, first + len(frame) - 1
            first += len(frame)
            try:
                y, weights = _numbers(estimator, frame, named)
            except ValueError as error:
                raise_of_rows(error, span)
            yield Rows(Table(header, frame), y, weights, span)
        if not first:
            read = "" if stream.is_rereadable else ": an Arrow reader has none once it was read"
            raise ValueError(f"X has no rows{read}.")

    return Source(header, stream.is_rereadable, tables)


def _name_columns(X: object, y: object, sample_weight: object) -> _Named:
    """Refuse what is no name."""
    what = f"a {type(X).__name__}, whose rows have no order"
    several = isinstance(y, (list, tuple)) and all(isinstance(name, str) for name in y)
    if not isinstance(y, str) and not (several and y):
        raise TypeError(f"X is {what}: give `y` as the name of its column.")
    if sample_weight is not None and not isinstance(sample_weight, str):
        raise TypeError(f"X is {what}: give `sample_weight` as the name of its column.")
    responses: tuple[str, ...] = (y,) if isinstance(y, str) else tuple(y)  # type: ignore[arg-type]
    weight = (sample_weight,) if isinstance(sample_weight, str) else ()
    return _Named(responses, weight, several)


def _read_header(estimator: Any, columns: _Names, named: _Named, *, reset: bool) -> Header:
    """Names of the features, which the estimator learns or is to know."""
    refuse_repeated(columns.names, columns.key)
    names = columns.names
    for parameter, of in (("y", named.responses), ("sample_weight", named.weight)):
        missing = [name for name in of if name not in names]
        if missing:
            raise ValueError(
                f"`{parameter}` names {quoted(missing)}, which X does not have: its columns are "
                f"{quoted(names)}."
            )
    features = tuple(name for name in names if name not in (*named.responses, *named.weight))
    if not features:
        raise ValueError("X has no column beside those of `y` and `sample_weight`: 0 feature(s).")
    header = Header(features, len(features))
    without_rows = nw.from_dict(dict.fromkeys(features, []), backend=columns.library)
    check_names(estimator, without_rows.to_native(), header, reset=reset)
    return header


def _numbers(estimator: Any, frame: nw.DataFrame[Any], named: _Named) -> tuple[Array, Array]:
    """Responses and weights of some rows, checked as those in memory are."""
    of_y = [frame.get_column(name).to_numpy() for name in named.responses]
    y = np.column_stack(of_y) if named.has_outputs else of_y[0]
    y = read_target(estimator, y, len(frame))
    if not named.weight:
        return y, np.ones(len(frame))
    given = frame.get_column(named.weight[0]).to_numpy()
    # Rows without weight are an error only where there are no others.
    weights = read_weights(given, len(frame)) if np.any(given != 0) else np.zeros(len(frame))
    return y, weights


def _pieces(frames: Iterable[nw.DataFrame[Any]]) -> Iterator[nw.DataFrame[Any]]:
    """The same rows as tables of `PIECE` rows."""
    waiting: list[nw.DataFrame[Any]] = []
    n_waiting = 0
    for frame in frames:
        start = 0
        while start < len(frame):
            part = frame[start : start + PIECE - n_waiting]
            start += len(part)
            n_waiting += len(part)
            waiting.append(part)
            if n_waiting == PIECE:
                yield nw.concat(waiting)
                waiting, n_waiting = [], 0
            elif len(waiting) == MANY:
                waiting = [_in_one_chunk(nw.concat(waiting))]
    if waiting:
        yield nw.concat(waiting)


def _in_one_chunk(frame: nw.DataFrame[Any]) -> nw.DataFrame[Any]:
    """Copy what was read in many short batches, each of which takes memory beside its rows."""
    native = frame.to_native()
    whole = native.rechunk() if hasattr(native, "rechunk") else native.combine_chunks()
    return nw.from_native(whole, eager_only=True)


def _open(native: Any) -> _Stream:
    """Find out how to read a source."""
    library = library_of(native)
    if library == "polars":
        return _open_polars(native)
    require_pyarrow(native)
    import pyarrow

    def frames(batches: Iterable[Any], names: list[str]) -> Iterator[nw.DataFrame[Any]]:
        for batch in batches:
            table = pyarrow.Table.from_batches([batch]).select(names)
            yield nw.from_native(table, eager_only=True)

    def reader(native: Any) -> Any:
        return pyarrow.RecordBatchReader.from_stream(native)

    if library == "duckdb":
        return _Stream(
            _Names(tuple(native.columns), name_key(library), "pyarrow"),
            True,
            lambda names: frames(reader(native.project(", ".join(map(in_sql, names)))), names),
        )
    if _is_dataset(native):
        once = type(native).__name__ == "InMemoryDataset"  # which may be made of a reader
        return _Stream(
            _Names(tuple(native.schema.names), str, "pyarrow"),
            not once,
            lambda names: frames(native.to_batches(columns=names), names),
        )
    batches = reader(native)
    columns = _Names(tuple(batches.schema.names), str, "pyarrow")
    return _Stream(columns, False, lambda names: frames(batches, names))


def _open_polars(native: Any) -> _Stream:
    from polars import selectors

    if not hasattr(native, "collect_batches"):
        raise TypeError(
            "This version of polars does not collect a LazyFrame in batches: "
            f"{EXTRAS.format('polars')}, or give `X.collect()`."
        )

    def frames(names: list[str]) -> Iterator[nw.DataFrame[Any]]:
        columns = native.select(selectors.by_name(*names))  # a name may look like a pattern
        batches = columns.collect_batches(maintain_order=False)
        return (nw.from_native(batch, eager_only=True) for batch in batches)

    columns = _Names(tuple(native.collect_schema().names()), str, "polars")
    return _Stream(columns, True, frames)


def _is_dataset(native: Any) -> bool:
    """Whether this is a dataset of pyarrow."""
    dataset = sys.modules.get("pyarrow.dataset")
    return dataset is not None and isinstance(native, dataset.Dataset)
