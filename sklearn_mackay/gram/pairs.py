"""Pairs of levels that meet in a row, as sorted numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from .crossproducts import CrossGram

Pairs = NDArray[np.int64]


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
    """Sum of two tables of one set of levels."""
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
