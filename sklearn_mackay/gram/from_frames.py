"""Gram blocks by group-bys of the engine that rows live in: no row comes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._arrays import Array
from ..covariances.structures import FULL
from ..design.summed import Coordinates, slope_pivot
from ..design.terms import is_centered
from ..frames.grouping import Grouping, encode, learn_grouping
from ..frames.options import Options
from ..frames.queries import (
    Counted,
    LazyRows,
    Query,
    combined,
    count_rows,
    label,
    number,
    response,
    select_rows,
    sum_products,
)
from ..frames.roles import ColumnRoles
from .crossproducts import CrossGram, CrossProducts, TermGram
from .pairs import pair_keys, sum_pairs
from .sums import Sums

ANOTHER_ORDER = 1e-9  # relative difference of sums of the same weights


@dataclass(frozen=True)
class _Leveled:
    """A factor in the engine: its label columns, and those that multiply its coefficients.

    A column is a tuple of names whose product it is; () for ones.
    """

    name: str
    keys: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]


def sum_groups(
    query: Query, roles: ColumnRoles, options: Options, coordinates: Coordinates | None = None
) -> tuple[Sums, tuple[Grouping, ...]]:
    """Sum products of columns and responses where the rows are.

    One query checks the rows and one tells their means; then one is sent for the fixed part, one
    for each factor, and one for each pair of factors.

    Parameters
    ----------
    query : Query
        Rows.
    roles : ColumnRoles
        What the columns of X are for; no feature blocks.
    options : Options
        Parameters, read.
    coordinates : Coordinates, optional
        Which columns the sums are of; about the mean if None.

    Returns
    -------
    sums : Sums
    groupings : tuple of Grouping
        Levels of each factor.

    Raises
    ------
    ValueError
        As `select_rows` and `count_rows`; for a query that gives other rows each time.
    """
    frame, counted = count_rows(select_rows(query, roles), query, roles)
    fixed = [*map(number, roles.fixed), *map(response, range(len(query.responses)))]
    slopes = [[number(c) for c in factor.slopes] for factor in roles.factors]
    if coordinates is None:
        coordinates = _about_means(counted, fixed, slopes, roles, options)
    shift, turn, of_slopes = coordinates
    turn = np.eye(len(fixed)) if turn is None else turn
    F = [(f"f{j}", fixed, shift, turn[:, j]) for j in range(len(fixed))]
    Z = [
        (f"z{k}_{a}", [slope], center[[a]], np.ones(1))
        for k, (names, center) in enumerate(zip(slopes, of_slopes, strict=True))
        for a, slope in enumerate(names)
    ]
    frame = combined(frame, [*F, *Z])
    columns: list[tuple[str, ...]] = [(), *((name,) for name, *_ in F)]
    leveled = [
        _Leveled(
            factor.name,
            tuple(map(label, factor.columns)),
            ((), *((f"z{k}_{a}",) for a in range(len(names)))),
        )
        for k, (factor, names) in enumerate(zip(roles.factors, slopes, strict=True))
    ]
    upper = np.triu_indices(len(columns))
    products = [(*columns[i], *columns[j]) for i, j in zip(*upper, strict=True)]
    FWF = np.zeros((len(columns), len(columns)))
    FWF[upper] = sum_products(frame, products).sums[:, 0]
    FWF += np.triu(FWF, 1).T
    terms, groupings = [], []
    for factor in leveled:
        term, grouping = _term(frame, factor, columns)
        terms.append(term)
        groupings.append(grouping)
    cross = {
        k: {
            l: _cross(frame, (leveled[k], leveled[l]), (groupings[k], groupings[l]))
            for l in range(k + 1, len(leveled))
        }
        for k in range(len(leveled))
    }
    weights = [FWF[0, 0], *(np.sum(term.own[0, 0]) for term in terms)]
    weights += [np.sum(table.blocks[0, 0]) for row in cross.values() for table in row.values()]
    _require_one_table(counted.sum_weights, weights)
    sums = Sums(
        products=CrossProducts(
            terms=tuple(terms),
            cross=cross,
            FWF=FWF,
            penalty=np.zeros(1 + len(roles.fixed)),
            n=float(FWF[0, 0]),
            sum_log_weights=counted.sum_log_weights,
        ),
        coordinates=coordinates,
        largest=_largest(counted, fixed),
        largest_slopes=tuple(_largest(counted, names) for names in slopes),
        n_rows=counted.n_rows,
        n_outputs=len(query.responses),
    )
    return sums, tuple(groupings)


def _require_one_table(first: float, others: Sequence[float]) -> None:
    """Refuse rows that were others in another query."""
    for other in others:
        if abs(other - first) > ANOTHER_ORDER * first:
            raise ValueError(
                f"X had rows of total weight {first:g} in one query and {other:g} in another: "
                "write them to a table or a file."
            )


def _largest(counted: Counted, names: Sequence[str]) -> Array:
    ends = [(abs(counted.lowest[c]), abs(counted.highest[c])) for c in names]
    return np.array([max(pair) for pair in ends])


def _about_means(
    counted: Counted,
    fixed: Sequence[str],
    slopes: Sequence[Sequence[str]],
    roles: ColumnRoles,
    options: Options,
) -> Coordinates:
    """The mean as a pivot, of a constant column its value."""

    def center(names: Sequence[str]) -> Array:
        is_constant = {c: counted.lowest[c] == counted.highest[c] for c in names}
        return np.array([counted.lowest[c] if is_constant[c] else counted.mean[c] for c in names])

    return Coordinates(
        center(fixed),
        None,
        tuple(
            slope_pivot(
                center(names),
                np.array([counted.sd[c] for c in names]),
                is_centered=is_centered(factor.intercept, options.structures[factor.name]),
            )
            for names, factor in zip(slopes, roles.factors, strict=True)
        ),
    )


def _term(
    frame: LazyRows, factor: _Leveled, columns: Sequence[tuple[str, ...]]
) -> tuple[TermGram, Grouping]:
    """One term, and its levels."""
    s, P = len(factor.columns), len(columns)
    on_F = [(*z, *f) for z in factor.columns for f in columns]
    pairs = [(a, b) for a in range(1, s) for b in range(a, s)]
    on_itself = [(*factor.columns[a], *factor.columns[b]) for a, b in pairs]
    found = sum_products(frame, [*on_F, *on_itself], factor.keys)
    grouping, codes = learn_grouping(factor.name, found.labels)
    # Labels that an engine keeps apart may be one level.
    sums = np.array([np.bincount(codes, of, grouping.n_levels) for of in found.sums])
    ZWF = sums[: s * P].reshape(s, P, -1)
    own = np.empty((s, s, grouping.n_levels))
    own[0], own[:, 0] = ZWF[:, 0], ZWF[:, 0]
    for (a, b), of_pair in zip(pairs, sums[s * P :], strict=True):
        own[a, b] = own[b, a] = of_pair
    return TermGram(own, np.ascontiguousarray(ZWF), FULL), grouping


def _cross(
    frame: LazyRows, factors: tuple[_Leveled, _Leveled], groupings: tuple[Grouping, Grouping]
) -> CrossGram:
    """Cross-table of two factors."""
    k, l = factors
    keys = list(dict.fromkeys([*k.keys, *l.keys]))
    found = sum_products(frame, [(*a, *b) for a in k.columns for b in l.columns], keys)
    labels = dict(zip(keys, found.labels, strict=True))
    rows, columns = (
        encode(grouping, [labels[key] for key in factor.keys])
        for factor, grouping in zip(factors, groupings, strict=True)
    )
    n_columns = groupings[1].n_levels
    blocks = found.sums.reshape(len(k.columns), len(l.columns), -1)
    return sum_pairs(pair_keys(rows, columns, n_columns), n_columns, blocks)
