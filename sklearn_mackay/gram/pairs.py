"""Pairs of levels that meet in a row, as sorted numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array, first_of_each
from .crossproducts import CrossGram

Pairs = NDArray[np.int64]

PART = 2**19  # pairs that are merged at a time, of tables that may be as long as the rows


def pair_keys(
    row_levels: NDArray[np.integer[Any]], column_levels: NDArray[np.integer[Any]], n_columns: int
) -> Pairs:
    """One number for each pair of levels, in the order of the pairs."""
    keys = row_levels.astype(np.int64)
    keys *= n_columns
    keys += column_levels
    return keys


def count_pairs(
    k_codes: NDArray[np.integer[Any]], l_codes: NDArray[np.integer[Any]], n_columns: int
) -> CrossGram:
    """How many rows each pair of levels has."""
    keys = pair_keys(k_codes, l_codes, n_columns)
    keys.sort()
    first = first_of_each(keys)
    counts = np.diff(first, append=len(keys)).astype(np.float64)
    return table_of(keys[first], n_columns, counts[None, None])


@dataclass(frozen=True)
class Levels:
    """Where the levels of a part are among those of the whole.

    Attributes
    ----------
    positions : ndarray of shape (L,)
        Increasing.
    n_levels : int
        Of the whole.
    """

    positions: NDArray[np.integer[Any]]
    n_levels: int

    @property
    def is_all(self) -> bool:
        """Whether the part has every level."""
        return len(self.positions) == self.n_levels


@dataclass(frozen=True)
class _Placed:
    """A table of a part's levels, read with the codes of the whole; these keep the order."""

    table: CrossGram
    rows: Levels
    columns: Levels

    def n_up_to(self, row: int) -> int:
        """How many pairs are in rows up to one."""
        n_levels = np.searchsorted(self.rows.positions, row, side="right")
        # A key of another type would have the whole array converted.
        return int(np.searchsorted(self.table.row_levels, np.int32(n_levels)))

    def rows_at(self, pairs: slice) -> NDArray[np.integer[Any]]:
        """Rows of some pairs."""
        return self.rows.positions[self.table.row_levels[pairs]]

    def keys(self, pairs: slice) -> Pairs:
        """Numbers of some pairs."""
        columns = self.columns.positions[self.table.column_levels[pairs]]
        return pair_keys(self.rows_at(pairs), columns, self.columns.n_levels)


def merged(
    tables: tuple[CrossGram, CrossGram],
    rows: tuple[Levels, Levels],
    columns: tuple[Levels, Levels],
) -> CrossGram:
    """Sum of two tables, some pairs at a time.

    Parameters
    ----------
    tables : (CrossGram, CrossGram)
        Of two parts of the rows.
    rows, columns : (Levels, Levels)
        Where their levels go.

    Returns
    -------
    CrossGram
        Of the levels of the whole.
    """
    parts = [_Placed(*of) for of in zip(tables, rows, columns, strict=True)]
    n_all = sum(len(table.row_levels) for table in tables)
    row_levels, column_levels = np.empty((2, n_all), dtype=np.int32)
    blocks = np.empty((*tables[0].blocks.shape[:2], n_all))
    begin, starts = 0, [0, 0]
    # Both are sorted by row, so that each is cut at the same rows.
    for row in _cuts(parts):
        stops = [part.n_up_to(row) for part in parts]
        cut = [slice(*ends) for ends in zip(starts, stops, strict=True)]
        of_cut = _merged(parts, cut)
        end = begin + len(of_cut.row_levels)
        row_levels[begin:end], column_levels[begin:end] = of_cut.row_levels, of_cut.column_levels
        blocks[:, :, begin:end] = of_cut.blocks
        begin, starts = end, stops
    # What was never written takes no memory.
    return CrossGram(
        row_levels[:begin], column_levels[:begin], np.ascontiguousarray(blocks[:, :, :begin])
    )


def _cuts(parts: Sequence[_Placed]) -> list[int]:
    """Rows after which tables are cut into parts of about `PART` pairs."""
    longest = max(parts, key=lambda part: len(part.table.row_levels))
    within = np.unique(longest.rows_at(slice(PART, None, PART)))
    return [*within.tolist(), longest.rows.n_levels]


def _merged(parts: Sequence[_Placed], cut: Sequence[slice]) -> CrossGram:
    both = np.concatenate([part.keys(pairs) for part, pairs in zip(parts, cut, strict=True)])
    found = [part.table.blocks[:, :, pairs] for part, pairs in zip(parts, cut, strict=True)]
    return sum_pairs(both, parts[0].columns.n_levels, np.concatenate(found, axis=2))


def sum_pairs(pairs: Pairs, n_columns: int, blocks: Array) -> CrossGram:
    """Table of pairs in any order, of which some may be there several times."""
    order = np.argsort(pairs, kind="stable")  # merges what is sorted already
    pairs = pairs[order]
    first = first_of_each(pairs)
    summed = np.add.reduceat(blocks[:, :, order], first, axis=2)
    return table_of(pairs[first], n_columns, summed)


def table_of(pairs: Pairs, n_columns: int, blocks: Array) -> CrossGram:
    """Table of sorted pairs and their blocks (s_k, s_l, m)."""
    rows = (pairs // n_columns).astype(np.int32)
    columns = (pairs - rows.astype(np.int64) * n_columns).astype(np.int32)
    return CrossGram(rows, columns, blocks)
