"""Pairs of levels that meet in a row, as sorted numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from .crossproducts import CrossGram

Pairs = NDArray[np.int64]
Levels = NDArray[np.int32]

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
    first = _first(keys)
    counts = np.diff(first, append=len(keys)).astype(np.float64)
    return table_of(keys[first], n_columns, counts[None, None])


def merged(a: CrossGram, b: CrossGram, n_columns: int) -> CrossGram:
    """Sum of two tables of one set of levels, some pairs at a time."""
    n_a, n_b = len(a.row_levels), len(b.row_levels)
    rows, columns = np.empty((2, n_a + n_b), dtype=np.int32)
    blocks = np.empty((*a.blocks.shape[:2], n_a + n_b))
    start = of_a = of_b = 0
    # Both are sorted by row, so that each is cut at the same rows.
    for last in _cuts(a.row_levels, b.row_levels):
        to_a = int(np.searchsorted(a.row_levels, last, side="right"))
        to_b = int(np.searchsorted(b.row_levels, last, side="right"))
        part = _merged(_part(a, of_a, to_a), _part(b, of_b, to_b), n_columns)
        stop = start + len(part.row_levels)
        rows[start:stop], columns[start:stop] = part.row_levels, part.column_levels
        blocks[:, :, start:stop] = part.blocks
        start, of_a, of_b = stop, to_a, to_b
    # What was never written takes no memory.
    return CrossGram(rows[:start], columns[:start], np.ascontiguousarray(blocks[:, :, :start]))


def _cuts(a: Levels, b: Levels) -> Levels:
    """Rows after which two sorted tables are cut into parts of about `PART` pairs."""
    longer = a if len(a) >= len(b) else b
    last = np.append(longer[PART::PART], np.max([*a[-1:], *b[-1:]], initial=0))
    return np.unique(last)


def _part(table: CrossGram, start: int, stop: int) -> CrossGram:
    return CrossGram(
        table.row_levels[start:stop],
        table.column_levels[start:stop],
        table.blocks[:, :, start:stop],
    )


def _merged(a: CrossGram, b: CrossGram, n_columns: int) -> CrossGram:
    keys = [pair_keys(table.row_levels, table.column_levels, n_columns) for table in (a, b)]
    both = np.concatenate(keys)
    order = np.argsort(both, kind="stable")  # merges what is sorted already
    both = both[order]
    first = _first(both)
    blocks = np.concatenate([a.blocks, b.blocks], axis=2)[:, :, order]
    return table_of(both[first], n_columns, np.add.reduceat(blocks, first, axis=2))


def _first(keys: Pairs) -> NDArray[np.intp]:
    """Where each of some sorted numbers is met first."""
    return np.flatnonzero(np.append(np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]))


def table_of(pairs: Pairs, n_columns: int, blocks: Array) -> CrossGram:
    """Table of sorted pairs and their blocks (s_k, s_l, m)."""
    rows = (pairs // n_columns).astype(np.int32)
    columns = (pairs - rows.astype(np.int64) * n_columns).astype(np.int32)
    return CrossGram(rows, columns, blocks)
