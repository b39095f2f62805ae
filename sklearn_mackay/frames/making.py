"""Columns to a data frame of the library that the user asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from .grouping import Labels, is_utc, without_zone

Backend: TypeAlias = Literal["pandas", "polars", "pyarrow"]

# Units of times that Polars or Arrow lack, and the next finer ones that both have.
FINER = {
    **{f"M8[{unit}]": "M8[D]" for unit in ("Y", "M", "W")},
    **{f"M8[{unit}]": "M8[ms]" for unit in ("h", "m", "s")},
    **{f"m8[{unit}]": "m8[ms]" for unit in ("W", "D", "h", "m", "s")},
}


class PartlyKnown(NamedTuple):
    """A column with nulls.

    Attributes
    ----------
    values : ndarray of shape (n,)
        Of the type of the column throughout.
    known : ndarray of bool of shape (n,)
        False for a null, whatever the value is.
    """

    values: Labels
    known: NDArray[np.bool_]


Column: TypeAlias = Sequence[Any] | NDArray[Any] | PartlyKnown


def make_frame(columns: Mapping[str, Column], backend: Backend) -> Any:
    """Make a data frame.

    Parameters
    ----------
    columns : mapping of str to column
        Columns of equal length, in this order; those of labels as `Grouping` has them.
    backend : {"pandas", "polars", "pyarrow"}
        Library of the frame.

    Returns
    -------
    pandas.DataFrame, polars.DataFrame or pyarrow.Table
        Integers and booleans with nulls have the nullable types of pandas.

    Raises
    ------
    ValueError
        For another library.
    ImportError
        Where the library is not installed.
    TypeError
        For labels of several types, which a column of Polars or Arrow cannot hold.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"`backend` must be 'pandas', 'polars' or 'pyarrow', got {backend!r}.")
    try:
        import_module(backend)
    except ImportError as error:
        raise ImportError(
            f"backend={backend!r} needs {backend}, which is not installed: install it with "
            f"`pip install {backend}`, or ask for the table of another library."
        ) from error
    series = [_series(name, column, backend) for name, column in columns.items()]
    return _frame(series, backend).to_native()


def _frame(series: Sequence[nw.Series[Any]], backend: Backend) -> nw.DataFrame[Any]:
    return nw.from_dict({one.name: one.to_native() for one in series}, backend=backend)


def _series(name: str, column: Column, backend: Backend) -> nw.Series[Any]:
    if not isinstance(column, PartlyKnown):
        return _whole_series(name, column, backend)
    series = _whole_series(name, column.values, backend)
    if np.all(column.known):
        return series
    if backend == "pandas" and (series.dtype.is_integer() or series.dtype == nw.Boolean):
        # NaN would make floats of integers, which rounds ids beyond 2**53.
        nullable = str(series.dtype).replace("Boolean", "boolean")
        series = nw.from_native(series.to_native().astype(nullable), series_only=True)
    known = _whole_series("known", column.known, backend)
    pair = _frame([series.alias("values"), known], backend)
    kept = pair.select(nw.when(nw.col("known")).then(nw.col("values")).alias(name))
    return kept.get_column(name)


def _whole_series(name: str, values: object, backend: Backend) -> nw.Series[Any]:
    """A column without nulls."""
    if not isinstance(values, np.ndarray):
        return _read(name, values, backend)
    plain = without_zone(values)
    if plain.dtype == object:
        return _object_series(name, plain, backend)
    if backend != "pandas":
        plain = plain.astype(FINER.get(plain.dtype.str[1:], plain.dtype), copy=False)
    series = _read(name, plain, backend)
    return series.dt.replace_time_zone("UTC") if is_utc(values) else series


def _object_series(name: str, values: Labels, backend: Backend) -> nw.Series[Any]:
    """Labels in an array of objects: of the type that the library has for them, if all have one."""
    types = {type(value) for value in values}
    message = (
        f"Column {name!r} has values of type {', '.join(sorted(t.__name__ for t in types))}, which "
        f"{backend} cannot hold in one column: ask for backend='pandas', or give `fit` labels of "
        "another type."
    )
    if len(types) == 1:
        try:
            series = _read(name, values.tolist(), backend)
        except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
            raise TypeError(message) from error
        if backend == "pandas" or series.dtype != nw.Object:
            return series
    # A library left to itself would make floats of integers and floats, which rounds ids.
    if backend == "pandas":
        return _read(name, values, backend)
    raise TypeError(message)


def _read(name: str, values: object, backend: Backend) -> nw.Series[Any]:
    return nw.from_dict({name: values}, backend=backend).get_column(name)
