"""A column of predictions beside rows that stay where they live, by joins and one expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple, TypeAlias

import narwhals as nw

from .._arrays import Array
from .grouping import Codes, Labels
from .queries import (
    LazyRows,
    as_label,
    as_lazy_rows,
    collected,
    is_numeric,
    lazy_rows,
    name_key,
    refuse_repeated,
    require_pyarrow,
    safely_named,
)
from .tables import frame_table, library_of, quoted

PREFIX = "_mackay_"  # of columns that are added for a while


# A column or a number, and the column that it multiplies, None for one.
Product: TypeAlias = tuple[str | float, str | None]


class LinearSum(NamedTuple):
    """A constant and products."""

    constant: float
    products: Sequence[Product]


class Keys(NamedTuple):
    """Distinct labels of a factor in some rows.

    Attributes
    ----------
    names : list of str
        Their columns.
    frame : narwhals.DataFrame
        As the engine returned them.
    labels : list of ndarray of shape (m,)
        Of each column.
    """

    names: list[str]
    frame: nw.DataFrame[Any]
    labels: list[Labels]


def open_rows(
    X: object, labels: Iterable[str], numbers: Iterable[str], names: Sequence[str]
) -> tuple[LazyRows, dict[str, str]]:
    """Find the columns of rows that are to be predicted where they are.

    Parameters
    ----------
    X : object
        What the user gave.
    labels, numbers : iterable of str
        Columns that a prediction reads.
    names : sequence of str
        Columns that are added.

    Returns
    -------
    frame : narwhals.LazyFrame
    called : dict of str to str
        Name in it of each column of the user.

    Raises
    ------
    TypeError
        For what is no lazy frame.
    ValueError
        For columns that are missing or not numeric, and names that are taken.
    """
    frame = lazy_rows(X)
    if frame is None:
        raise TypeError(
            "`predict_frame` takes a lazy frame of Polars, Dask, Spark or Ibis or a relation of "
            f"DuckDB, not a {type(X).__name__}: use `predict` for rows in memory."
        )
    if library_of(frame.to_native()) != "polars":
        require_pyarrow(frame.to_native())
    schema = frame.collect_schema()
    columns, numbers = schema.names(), list(dict.fromkeys(numbers))
    missing = [name for name in dict.fromkeys([*numbers, *labels]) if name not in columns]
    if missing:
        raise ValueError(f"X lacks the columns {quoted(missing)}, which the model was fitted on.")
    others = [name for name in numbers if not is_numeric(schema[name])]
    if others:
        raise ValueError(f"Columns of X that were numbers in `fit` are none: {quoted(others)}.")
    key = name_key(library_of(frame.to_native()))
    refuse_repeated(columns, key)
    taken = {key(column): column for column in columns}
    for name in names:
        if key(name) in taken:
            raise ValueError(f"X has a column {taken[key(name)]!r} already: give another `name`.")
    return safely_named(frame)


def add_labels(frame: LazyRows, columns: Sequence[str], k: int) -> tuple[LazyRows, list[str]]:
    """Add the labels of factor `k` once more, under names of their own, which are returned."""
    schema = frame.collect_schema()
    names = [f"{PREFIX}{k}_{i}" for i in range(len(columns))]
    pairs = zip(names, columns, strict=True)
    return frame.with_columns(
        *(as_label(nw.col(user), schema[user]).alias(name) for name, user in pairs)
    ), names


def distinct(frame: LazyRows, names: list[str]) -> Keys:
    """Distinct labels, or combinations of these, collected."""
    found = collected(frame.group_by(*names).agg(nw.len().alias("n")).select(*names))
    table = frame_table(found)
    return Keys(names, found, [table.labels(i) for i in range(len(names))])


def join_effects(
    frame: LazyRows, keys: Keys, codes: Codes, effects: Array
) -> tuple[LazyRows, list[list[str]]]:
    """Add a factor's effects to each row, zero where its label has none.

    Parameters
    ----------
    frame : narwhals.LazyFrame
        With label columns.
    keys : Keys
        Their distinct labels.
    codes : ndarray of shape (m,)
        Level of each, -1 for none.
    effects : ndarray of shape (t, L, s)
        Of the levels.

    Returns
    -------
    frame : narwhals.LazyFrame
    names : list of list of str
        Columns of the coefficients, by output.
    """
    known = codes >= 0
    t, _, s = effects.shape
    names = [[f"{keys.names[0]}_{j}_{a}" for a in range(s)] for j in range(t)]
    columns = {names[j][a]: effects[j, codes[known], a] for j in range(t) for a in range(s)}
    found = keys.frame.filter(known.tolist())
    of_known = found.with_columns(
        *(
            nw.new_series(name, values, nw.Float64, backend=found.implementation)
            for name, values in columns.items()
        )
    )
    joined = frame.join(_beside(frame, of_known), on=keys.names, how="left")
    return joined.with_columns(*map(_zero_where_null, columns)), names


def _zero_where_null(name: str) -> nw.Expr:
    # `fill_null` puts an expression into the columns of Dask, with older narwhals.
    column = nw.col(name)
    return nw.when(column.is_null()).then(nw.lit(0.0)).otherwise(column).alias(name)


def _beside(frame: LazyRows, table: nw.DataFrame[Any]) -> LazyRows:
    """A small table in the engine of a frame."""
    native, values = frame.to_native(), table.to_native()
    library = library_of(native)
    if library == "polars":
        beside = values.lazy()
    elif library == "duckdb":
        # It is found by its name in this function, and read by the frame's own connection.
        beside = native.query(f"{PREFIX}rows", "SELECT * FROM values")
    elif library == "ibis":
        import ibis

        beside = ibis.memtable(values)
    elif library == "dask":
        import dask.dataframe

        beside = dask.dataframe.from_pandas(values, npartitions=1)
    else:
        beside = native.sparkSession.createDataFrame(values)
    return as_lazy_rows(beside)


def as_given(X: object, frame: LazyRows) -> Any:
    """A frame as the user gave X: in narwhals, or as its own library has it."""
    return frame if isinstance(X, nw.LazyFrame) else frame.to_native()


def add_sums(frame: LazyRows, called: Mapping[str, str], sums: Mapping[str, LinearSum]) -> LazyRows:
    """Add columns ``constant + sum_i a_i x_i`` to the user's, and leave out all others.

    Parameters
    ----------
    frame : narwhals.LazyFrame
        Rows.
    called : mapping of str to str
        Name in `frame` of each column of the user.
    sums : mapping of str to LinearSum
        For each new column.

    Returns
    -------
    narwhals.LazyFrame
    """

    def product(coefficient: str | float, column: str | None) -> nw.Expr:
        of = nw.col(coefficient) if isinstance(coefficient, str) else nw.lit(coefficient)
        return of if column is None else nw.col(column).cast(nw.Float64) * of

    def total(of: LinearSum) -> nw.Expr:
        if not of.products:
            return nw.lit(of.constant)
        return reduce(add, (product(*pair) for pair in of.products)) + of.constant

    columns = (nw.col(column).alias(user) for user, column in called.items())
    added = (total(of).alias(name) for name, of in sums.items())
    return frame.select(*columns, *added)
