"""What rows leave behind that a fit needs: sums, and the names and levels that they are of.

Sums of two parts of the rows add once their levels are the same, so that a fit of many parts is
that of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._arrays import is_sparse, largest_entry
from ..design.design import gather
from ..design.summed import RANGE, Coordinates, in_range
from ..frames.grouping import Grouping, unite
from ..frames.options import Options
from ..frames.queries import Query
from ..frames.roles import ColumnRoles
from ..frames.tables import Header, Rows, quoted, raise_of_rows
from ..gram.from_frames import sum_groups
from ..gram.from_rows import sum_columns
from ..gram.pairs import Levels
from ..gram.sums import Sums, add

NOT_OF_THE_FIT = ("copy_X", "random_state", "verbose")  # parameters that leave no trace in sums


@dataclass(frozen=True)
class Description:
    """What is known of rows beside their numbers.

    Attributes
    ----------
    header : Header
        Names of the columns of X.
    roles : ColumnRoles
        What they are for.
    groupings : tuple of Grouping
        Levels of each factor.
    frequency : bool
        Whether a weight counts rows.
    has_outputs : bool
        Whether y has an axis of outputs.
    """

    header: Header
    roles: ColumnRoles
    groupings: tuple[Grouping, ...]
    frequency: bool
    has_outputs: bool


@dataclass(frozen=True)
class Statistics:
    """Sums over rows, and what they are sums of.

    Attributes
    ----------
    of : Description
        The rows.
    sums : Sums
        About a pivot.
    """

    of: Description
    sums: Sums


def sum_rows(
    rows: Rows, roles: ColumnRoles, options: Options, coordinates: Coordinates | None = None
) -> Statistics | None:
    """Sum rows that may be a part of all.

    Parameters
    ----------
    rows : Rows
        In memory.
    roles : ColumnRoles
        What their columns are for; no feature blocks.
    options : Options
        Parameters, read.
    coordinates : Coordinates, optional
        Which columns the sums are of.

    Returns
    -------
    Statistics or None
        None where no row has a positive weight.

    Raises
    ------
    ValueError
        For a sparse X, or values whose squares are no numbers.
    """
    columns, groupings = gather(rows.table, roles, (), rows.weights, options, copy=True)
    if is_sparse(columns.X):
        raise ValueError(
            "`partial_fit` takes no sparse X: name grouping columns in place of one-hot ones, or "
            "`fit` all rows together."
        )
    if not columns.rows.n:
        return None
    y = rows.y[columns.counted].reshape(columns.rows.n, -1)
    of_X = np.concatenate([columns.largest, *columns.largest_slopes])
    for what, largest in (("X", of_X), ("y", largest_entry(y))):
        size = np.max(largest, initial=0.0)
        if size >= RANGE:
            raise ValueError(_out_of_range(what, size))
    described = Description(rows.table.header, roles, groupings, options.frequency, rows.y.ndim > 1)
    return Statistics(described, sum_columns(columns, y, coordinates))


def _out_of_range(what: str, size: float) -> str:
    return (
        f"{what} has values of size {size:.1e}, whose squares leave the range of floating point "
        "numbers: give it in another unit."
    )


def sum_parts(
    parts: Iterable[Rows],
    roles: ColumnRoles,
    options: Options,
    coordinates: Coordinates | None = None,
) -> Statistics:
    """Sum rows part by part; each sum is added to others a logarithm of their number of times.

    Parameters
    ----------
    parts : iterable of Rows
        Some rows each.
    roles, options, coordinates
        As in `sum_rows`; the pivot is the first part's where there are no coordinates.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        Where there are no rows of positive weight.
    """
    totals: list[tuple[int, Statistics]] = []
    for rows in parts:
        try:
            of_part = sum_rows(rows, roles, options, coordinates)
        except ValueError as error:
            raise_of_rows(error, rows.span)
        if of_part is None:
            continue
        coordinates = of_part.sums.coordinates
        totals.append((1, of_part))
        while len(totals) > 1 and totals[-1][0] == totals[-2][0]:
            _join_last(totals)
    if not totals:
        raise ValueError("X has no rows of positive weight.")
    while len(totals) > 1:
        _join_last(totals)
    return totals[0][1]


def sum_query(
    query: Query, roles: ColumnRoles, options: Options, coordinates: Coordinates | None = None
) -> Statistics:
    """Sum rows where they are.

    Parameters
    ----------
    query : Query
        Rows.
    roles, options, coordinates
        As in `sum_rows`.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        As `sum_groups`.
    """
    sums, groupings = sum_groups(query, roles, options, coordinates)
    of = Description(query.header, roles, groupings, options.frequency, query.has_outputs)
    return Statistics(of, sums)


def _join_last(totals: list[tuple[int, Statistics]]) -> None:
    (m, other), (n, one) = totals.pop(), totals.pop()
    totals.append((n + m, join(one, other)))


def join(one: Statistics, other: Statistics) -> Statistics:
    """Statistics of the rows of both, which are disjoint.

    Parameters
    ----------
    one, other : Statistics
        Of the same columns.

    Returns
    -------
    Statistics
        About the pivot of the first.

    Raises
    ------
    ValueError
        Where they are not sums of the same, saying of what.
    """
    of_one, of_other = _names(one), _names(other)
    for what, names in of_one.items():
        if names != of_other[what]:
            raise ValueError(
                f"The rows of one part have the {what} {quoted(names) or 'none'}, those of the "
                f"other {quoted(of_other[what]) or 'none'}: sums of these do not add."
            )
    unions = [unite(*pair) for pair in zip(one.of.groupings, other.of.groupings, strict=True)]
    levels = []
    for union in unions:
        n_levels = union.grouping.n_levels
        levels.append((Levels(union.of_one, n_levels), Levels(union.of_other, n_levels)))
    groupings = tuple(union.grouping for union in unions)
    return Statistics(replace(one.of, groupings=groupings), add(one.sums, other.sums, levels))


def _names(part: Statistics) -> dict[str, tuple[str, ...]]:
    """What two parts must have in common."""
    header, roles = part.of.header, part.of.roles
    axes = f"{part.sums.n_outputs} in two dimensions" if part.of.has_outputs else "one"
    return {
        "columns": header.names or (f"{header.n_columns} without names",),
        "grouping factors": tuple(
            f"{factor.name} with {', '.join(factor.coefficient_names)}" for factor in roles.factors
        ),
        "fixed features": tuple(header.name(column) for column in roles.fixed),
        "weights": ("frequencies" if part.of.frequency else "precisions",),
        "outputs": (axes,),
    }


def require_enough(statistics: Statistics) -> None:
    """Refuse sums that do not tell what rows do.

    Parameters
    ----------
    statistics : Statistics
        Of all rows.

    Raises
    ------
    ValueError
        For as many fixed features as rows, or values whose squares are no numbers.
    """
    sums, n_fixed = statistics.sums, len(statistics.of.roles.fixed)
    if n_fixed + 1 >= sums.n_rows:
        raise ValueError(
            f"{sums.n_rows} rows are too few to be summed for {n_fixed} fixed features: give more "
            "rows, fewer features, or `fit` all rows in memory."
        )
    largest = np.concatenate([sums.largest, *sums.largest_slopes])
    beyond = largest[~in_range(largest)]
    if len(beyond):
        size = np.min(beyond)
        raise ValueError(_out_of_range("A column of X or y", size))


def require_sums(statistics: Statistics | None, why: str | None) -> Statistics:
    """Refuse a fit that holds no sums.

    Parameters
    ----------
    statistics : Statistics or None
        What it holds.
    why : str or None
        Why it does not hold the covariance of its effects; None if it does.

    Returns
    -------
    Statistics

    Raises
    ------
    ValueError
        Where it holds none, saying what can be done.
    """
    if statistics is not None:
        return statistics
    if why is None:
        raise ValueError(
            "This needs sums over the rows of the fit. Rows of a sparse X, of feature blocks, or "
            "fewer than the fixed features have none: fit all rows together."
        )
    raise ValueError(
        "This needs sums over the rows of the fit, which are kept beside the covariance of the "
        f"effects; this fit does not hold it. {why} Or begin with `partial_fit`, which always "
        "keeps them."
    )


def require_equal(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Refuse to merge fits of other parameters.

    Parameters
    ----------
    parameters, others : mapping of str to object
        Of the two estimators.

    Raises
    ------
    ValueError
        Naming the first that differs.
    """
    for name, value in parameters.items():
        if name not in NOT_OF_THE_FIT and _plain(value) != _plain(others[name]):
            raise ValueError(
                f"The two estimators have other parameters: {name}={value!r} and "
                f"{name}={others[name]!r}."
            )


def _plain(value: Any) -> Any:
    """What is equal where values are, whatever holds them.

    Functions are as good as others here: what they chose is compared where sums are added.
    """
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__array__"):
        return np.asarray(value).tolist()
    return callable if callable(value) else value
