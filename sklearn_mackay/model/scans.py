"""Statistics of a source of rows, which is read again where its sums lose digits."""

from __future__ import annotations

import numpy as np

from ..design.summed import Coordinates, Moments, sharper
from ..design.terms import is_centered
from ..frames.options import Options
from ..frames.queries import Query
from ..frames.roles import ColumnRoles
from ..frames.streams import Source
from ..frames.tables import quoted
from ..gram.sums import Sums
from .messages import about_digits
from .posing import Posed, lay_out_blocks, pose
from .statistics import Statistics, join, require_enough, sum_parts, sum_query

MOST_SCANS = 3


def read_statistics(
    source: Source | Query, roles: ColumnRoles, options: Options, before: Statistics | None = None
) -> Statistics:
    """Sum the rows of a source.

    Parameters
    ----------
    source : Source or Query
        Of rows.
    roles : ColumnRoles
        What their columns are for.
    options : Options
        Parameters, read.
    before : Statistics, optional
        Of other rows, which are added.

    Returns
    -------
    Statistics
        About a pivot.

    Raises
    ------
    ValueError
        For feature blocks; where the rows before have other columns.
    """
    if roles.blocks:
        raise ValueError(
            f"Feature blocks ({quoted(roles.blocks)}) need all rows in memory: rows of a lazy X "
            "are summed by level."
        )
    statistics = _sum(source, roles, options)
    return statistics if before is None else join(before, statistics)


def pose_scans(source: Source | Query, statistics: Statistics, options: Options) -> Posed:
    """Pose what a source tells, and read it again, if that can be, where its sums lost digits.

    Parameters
    ----------
    source : Source or Query
        Of the rows.
    statistics : Statistics
        Their sums.
    options : Options
        Parameters, read.

    Returns
    -------
    Posed

    Raises
    ------
    ValueError
        As `pose_sums`; for a source that has other rows when it is read again.
    """
    if not source.is_rereadable:
        return pose_sums(statistics, options)
    require_enough(statistics)
    roles, sums, known = statistics.of.roles, statistics.sums, statistics.sums.moments
    internal = lay_out_blocks(sums, roles.factors, options)
    for _ in range(MOST_SCANS - 1):
        if internal.keeps_digits:
            break
        coordinates = _sharper(sums, known, roles, options)
        sums = _sum(source, roles, options, coordinates).sums
        if sums.n_rows != statistics.sums.n_rows:
            raise ValueError(
                f"X had {statistics.sums.n_rows} rows when it was read first and {sums.n_rows} "
                "when it was read again: write them to a file."
            )
        internal = lay_out_blocks(sums, roles.factors, options, known)
    return pose(internal, options)


def pose_sums(statistics: Statistics, options: Options, *, so_far: bool = False) -> Posed:
    """Pose what sums tell whose rows are gone, with a note where they lost digits.

    Parameters
    ----------
    statistics : Statistics
        Sums.
    options : Options
        Parameters, read.
    so_far : bool
        Whether rows are to come that may bring other levels.

    Returns
    -------
    Posed

    Raises
    ------
    ValueError
        For too few rows or values whose squares are no numbers; as `pose`.
    """
    require_enough(statistics)
    internal = lay_out_blocks(statistics.sums, statistics.of.roles.factors, options)
    return pose(internal, options, about_digits(internal.shares, statistics.of), so_far=so_far)


def _sum(
    source: Source | Query,
    roles: ColumnRoles,
    options: Options,
    coordinates: Coordinates | None = None,
) -> Statistics:
    """Have rows come, or send the sums to them."""
    if isinstance(source, Query):
        return sum_query(source, roles, options, coordinates)
    return sum_parts(source.tables(_needed(roles)), roles, options, coordinates)


def _needed(roles: ColumnRoles) -> list[int]:
    """Columns that a fit reads."""
    labels = [column for factor in roles.factors for column in factor.columns]
    return sorted({*roles.fixed, *roles.slopes, *labels})


def _sharper(sums: Sums, known: Moments, roles: ColumnRoles, options: Options) -> Coordinates:
    """Coordinates of another scan, in which all columns keep their digits."""
    fixed = sharper(sums.of_fixed(known), alpha=options.alpha, fit_intercept=options.fit_intercept)
    of_slopes = []
    for factor, term, shift in zip(
        roles.factors, sums.products.terms, sums.coordinates.of_slopes, strict=True
    ):
        on_one = np.sum(term.own[0], axis=1)
        is_moved = is_centered(factor.intercept, options.structures[factor.name])
        of_slopes.append(shift + on_one[1:] / on_one[0] if is_moved else np.zeros_like(shift))
    return fixed._replace(of_slopes=tuple(of_slopes))
