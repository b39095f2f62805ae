"""Rows that stay where they live: their engine groups them, what comes back is a row a group."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul, or_
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import narwhals as nw
import numpy as np

from .._arrays import Array
from .grouping import Labels, refuse_missing
from .roles import ColumnRoles
from .tables import Header, frame_table, library_of, quoted

LazyRows: TypeAlias = nw.LazyFrame[Any]

EXTRAS = "pip install 'sklearn_mackay[{}]'"
MOST_COLUMNS = 50  # of fixed features and responses: products of all pairs are columns of a query


@dataclass(frozen=True)
class Query:
    """Rows of a lazy frame, and which of its columns are not features.

    Parameters
    ----------
    header : Header
        Names of the features.
    frame : narwhals.LazyFrame
        Columns of X, y and weights.
    called : mapping of str to str
        Name in `frame` of each column of the user.
    responses : tuple of str
        Columns of y.
    weight : str or None
        Column of the weights.
    has_outputs : bool
        Whether y has an axis of outputs.
    """

    header: Header
    frame: LazyRows
    called: Mapping[str, str]
    responses: tuple[str, ...]
    weight: str | None
    has_outputs: bool
    is_rereadable: ClassVar[bool] = True


class Counted(NamedTuple):
    """What is known of all rows of positive weight.

    Attributes
    ----------
    n_rows : int
        Their number.
    sum_weights, sum_log_weights : float
        ``sum w`` and ``sum log w``.
    lowest, highest, mean, sd : dict of str to float
        Of each number column.
    """

    n_rows: int
    sum_weights: float
    sum_log_weights: float
    lowest: dict[str, float]
    highest: dict[str, float]
    mean: dict[str, float]
    sd: dict[str, float]


class Groups(NamedTuple):
    """A grouped result.

    Attributes
    ----------
    labels : list of ndarray of shape (m,)
        Of each key.
    sums : ndarray of shape (n_products, m)
        Of each product.
    """

    labels: list[Labels]
    sums: Array


def number(column: int) -> str:
    """Name of a column of X as numbers."""
    return f"x{column}"


def response(output: int) -> str:
    """Name of a response."""
    return f"y{output}"


def label(column: int) -> str:
    """Name of a column of X as labels."""
    return f"g{column}"


WEIGHT = "w"


def require_pyarrow(native: Any) -> None:
    """Say what to install where the library of an object hands over Arrow tables."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        library = library_of(native)
        extra = {"duckdb": "duckdb", "dask": "dask", "ibis": "ibis", "pyspark": "spark"}
        raise ImportError(
            f"Reading what a {type(native).__name__} holds needs pyarrow: "
            f"{EXTRAS.format(extra.get(library, 'arrow'))}."
        ) from error


def collected(frame: LazyRows) -> nw.DataFrame[Any]:
    """A result in memory, in the library that its engine joins with: Arrow where any does."""
    backends: dict[str, Literal["polars", "pandas"]] = {"polars": "polars", "dask": "pandas"}
    return frame.collect(backend=backends.get(library_of(frame.to_native()), "pyarrow"))


def lazy_rows(values: object) -> LazyRows | None:
    """Rows that are yet to be computed, or None for anything else.

    Parameters
    ----------
    values : object
        What the user gave.

    Returns
    -------
    narwhals.LazyFrame or None
    """
    frame = as_lazy_rows(nw.to_native(values, pass_through=True))
    return frame if isinstance(frame, nw.LazyFrame) else None


def as_lazy_rows(native: Any) -> LazyRows:
    """A lazy frame of some library in narwhals."""
    with warnings.catch_warnings():
        # Not for the user to mend: Dask's part of narwhals is to be another package.
        warnings.filterwarnings("ignore", "Dask support is moving", FutureWarning)
        frame: LazyRows = nw.from_native(native, pass_through=True)
    return frame


def name_key(library: str) -> Callable[[str], str]:
    """What names that a library takes for one have in common: databases do not look at case."""
    return str.casefold if library in ("duckdb", "ibis", "pyspark") else str


def refuse_repeated(names: Sequence[str], key: Callable[[str], str]) -> None:
    """Refuse names of several columns, which for a database may differ in case."""
    called = Counter(map(key, names))
    repeated = dict.fromkeys(name for name in names if called[key(name)] > 1)
    if repeated:
        alike = ", in which its library sees no difference" * (len(repeated) > 1)
        raise ValueError(f"X has several columns called {quoted(repeated)}{alike}: rename them.")


def safely_named(frame: LazyRows) -> tuple[LazyRows, dict[str, str]]:
    """Give columns names that no engine takes for anything else, and say which.

    Spark takes "a.b" for a field of "a", Polars "^x$" for a pattern, DuckDB "*" for all columns.
    """
    names = frame.collect_schema().names()
    called = {name: f"c{i}" for i, name in enumerate(names)}
    native = frame.to_native()
    library = library_of(native)
    if library == "pyspark":
        return as_lazy_rows(native.toDF(*called.values())), called
    if library == "duckdb":
        columns = ", ".join(f"{in_sql(name)} AS {new}" for name, new in called.items())
        return as_lazy_rows(native.project(columns)), called
    return frame.rename(called), called


def in_sql(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def select_rows(query: Query, roles: ColumnRoles) -> LazyRows:
    """Name the columns that a fit needs by their roles, numbers as floats.

    Names of the user are gone then, so that no new one can clash with them; engines differ in
    what they do where names differ by case only.

    Parameters
    ----------
    query : Query
        Rows.
    roles : ColumnRoles
        What the columns of X are for.

    Returns
    -------
    narwhals.LazyFrame

    Raises
    ------
    ValueError
        For columns that are not numeric, or too many of them.
    """
    types = query.frame.collect_schema()
    schema = {user: types[name] for user, name in query.called.items()}
    name = query.header.name
    numbers = {number(c): name(c) for c in sorted({*roles.fixed, *roles.slopes})}
    others = [user for user in numbers.values() if not is_numeric(schema[user])]
    if others:
        raise ValueError(
            f"Columns of X that are not numeric: {quoted(others)}. Name them in `groups` where "
            "their values are labels of groups, or list the columns to keep in `fixed_features`."
        )
    numbers |= {response(j): user for j, user in enumerate(query.responses)}
    numbers |= {WEIGHT: query.weight} if query.weight else {}
    for user in (*query.responses, *([query.weight] if query.weight else [])):
        if not is_numeric(schema[user]):
            raise ValueError(f"Column {user!r} is not numeric: it has the type {schema[user]}.")
    n_columns = len(roles.fixed) + len(query.responses)
    if n_columns > MOST_COLUMNS:
        raise ValueError(
            f"{n_columns} fixed features and responses are more than the {MOST_COLUMNS} whose "
            "products a query sums: name fewer in `fixed_features`, or write the rows to files "
            "and fit a lazy frame of Polars or a dataset of pyarrow."
        )
    labels = [
        as_label(nw.col(query.called[name(c)]), schema[name(c)]).alias(label(c))
        for c in sorted({c for factor in roles.factors for c in factor.columns})
    ]
    floats = [
        nw.col(query.called[user]).cast(nw.Float64).alias(new) for new, user in numbers.items()
    ]
    weight = [] if query.weight else [nw.lit(1.0).alias(WEIGHT)]
    return query.frame.select(*labels, *floats, *weight)


def is_numeric(dtype: Any) -> bool:
    """Whether a column can be cast to numbers: text that looks like these is labels."""
    return bool(dtype.is_numeric()) or isinstance(dtype, nw.Boolean)


def as_label(column: nw.Expr, dtype: Any) -> nw.Expr:
    """Labels that group: those of categories as text."""
    return column.cast(nw.String) if isinstance(dtype, (nw.Categorical, nw.Enum)) else column


def count_rows(frame: LazyRows, query: Query, roles: ColumnRoles) -> tuple[LazyRows, Counted]:
    """Check the values of all rows, and tell where their numbers are.

    Parameters
    ----------
    frame : narwhals.LazyFrame
        From `select_rows`.
    query : Query
        Where it comes from.
    roles : ColumnRoles
        What the columns of X are for.

    Returns
    -------
    counted : narwhals.LazyFrame
        The rows of positive weight.
    Counted
        What is known of them.

    Raises
    ------
    ValueError
        For numbers that are not finite, missing labels, negative weights, and where there are no
        rows.
    """
    columns = sorted({*roles.fixed, *roles.slopes})
    of_X = {number(c): query.header.name(c) for c in columns}
    of_y = {response(j): name for j, name in enumerate(query.responses)}
    names = {**of_X, **of_y, WEIGHT: query.weight or ""}
    values = [_how_many(~nw.col(c).is_finite(), nw.col(c).is_null()).alias(c) for c in names]
    n_weighted = _how_many(nw.col(WEIGHT) > 0).alias("weighted")
    least = nw.col(WEIGHT).min().alias("least")
    found = _one_row(frame.select(*values, least, n_weighted, _n_rows()))
    if not found["n"]:
        raise ValueError("X has no rows.")
    for what, of in (("X", of_X), ("y", of_y), ("sample_weight", {WEIGHT: query.weight})):
        where = [f"{user!r} ({int(found[c])} rows)" for c, user in of.items() if found[c]]
        if where:
            raise ValueError(
                f"Input {what} contains NaN, null or infinity. It stands in {', '.join(where)}: "
                "impute it, or drop the rows."
            )
    if found["least"] < 0:
        raise ValueError("`sample_weight` has negative values: weights must be zero or positive.")
    n_rows = int(found["weighted"])
    if not n_rows:
        raise ValueError("X has no rows of positive weight.")
    counted = frame.filter(nw.col(WEIGHT) > 0) if query.weight else frame
    numbers = [*of_X, *of_y]
    told = _one_row(
        counted.select(
            *(nw.col(c).min().alias(f"{c}min") for c in numbers),
            *(nw.col(c).max().alias(f"{c}max") for c in numbers),
            *(nw.col(c).mean().alias(f"{c}mean") for c in numbers),
            *(nw.col(c).std(ddof=0).alias(f"{c}std") for c in numbers),
            *_missing(counted, roles),
            nw.col(WEIGHT).sum().alias("weight"),
            nw.col(WEIGHT).log().sum().alias("log"),
        )
    )
    for k, factor in enumerate(roles.factors):
        if told[f"missing{k}"]:
            refuse_missing(factor.name, int(told[f"missing{k}"]), n_rows)
    lowest, highest, mean, sd = (
        {c: float(told[f"{c}{what}"]) for c in numbers} for what in ("min", "max", "mean", "std")
    )
    of_weights = float(told["weight"]), float(told["log"])
    return counted, Counted(n_rows, *of_weights, lowest, highest, mean, sd)


def _missing(frame: LazyRows, roles: ColumnRoles) -> list[nw.Expr]:
    """In how many rows each factor's label is missing."""
    schema = frame.collect_schema()

    def is_missing(name: str) -> nw.Expr:
        column = nw.col(name)
        return column.is_null() | column.is_nan() if schema[name].is_float() else column.is_null()

    return [
        _how_many(*(is_missing(label(c)) for c in factor.columns)).alias(f"missing{k}")
        for k, factor in enumerate(roles.factors)
    ]


def _how_many(*conditions: nw.Expr) -> nw.Expr:
    """In how many rows one of some conditions holds; a null does not hold."""
    return reduce(or_, (c.fill_null(False) for c in conditions)).cast(nw.Int64).sum()


def _n_rows() -> nw.Expr:
    return nw.len().alias("n")


def _one_row(frame: LazyRows) -> dict[str, Any]:
    (row,) = collected(frame).rows(named=True)
    return dict(row)


def combined(
    frame: LazyRows, columns: Sequence[tuple[str, Sequence[str], Array, Array]]
) -> LazyRows:
    """Add columns ``sum_i (c_i - shift_i) weight_i``.

    Parameters
    ----------
    frame : narwhals.LazyFrame
        Rows.
    columns : sequence of (str, sequence of str, ndarray, ndarray)
        Name of a new column; old ones, what is subtracted from each, what they are multiplied by.

    Returns
    -------
    narwhals.LazyFrame
    """

    def combination(old: Sequence[str], shift: Array, by: Array) -> nw.Expr:
        terms = [
            (nw.col(c) - float(s)) * float(b)
            for c, s, b in zip(old, shift, by, strict=True)
            if b != 0
        ]
        return reduce(add, terms) if terms else nw.col(old[0]) * 0.0

    return frame.with_columns(
        *(combination(old, shift, by).alias(new) for new, old, shift, by in columns)
    )


def sum_products(
    frame: LazyRows, products: Sequence[Sequence[str]], keys: Sequence[str] = ()
) -> Groups:
    """Sum weighted products of columns, by group where there are keys.

    Parameters
    ----------
    frame : narwhals.LazyFrame
        Rows.
    products : sequence of sequence of str
        Columns of each product, beside the weight.
    keys : sequence of str
        Columns of labels.

    Returns
    -------
    Groups
        One group without keys.
    """
    names = [f"p{i}" for i in range(len(products))]
    # Not in `agg`: not every engine takes expressions there.
    columns = frame.select(
        *keys,
        *(
            reduce(mul, map(nw.col, (WEIGHT, *factors))).alias(name)
            for name, factors in zip(names, products, strict=True)
        ),
    )
    sums = [nw.col(name).sum() for name in names]
    grouped = columns.group_by(*keys).agg(*sums) if keys else columns.select(*sums)
    table = collected(grouped)
    by_name = frame_table(table)
    return Groups(
        [by_name.labels(by_name.header.positions[key]) for key in keys],
        np.array([table.get_column(name).to_numpy() for name in names]),
    )
