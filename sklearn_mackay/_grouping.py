"""Labels to levels and codes: learned once in `fit`, looked up again in `predict`.

Labels compare by value and the kind is remembered: 1, 1.0 and True are one label, "1" is
another. The code of a label never depends on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[Any]
Codes = NDArray[np.integer[Any]]

_WIDEST = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64}
_NUMBERS = (Number, np.bool_)


@dataclass(frozen=True)
class Grouping:
    """Levels of one grouping factor, in the order of their codes.

    Parameters
    ----------
    name : str
        Name of the factor; "batch:sample" for the interaction of two columns.
    column_levels : tuple of ndarray
        Sorted distinct labels of each column.
    combinations : ndarray or None
        For an interaction the sorted ids of the combinations seen, where an id is
        `np.ravel_multi_index` of the columns' codes.
    """

    name: str
    column_levels: tuple[Labels, ...]
    combinations: Codes | None

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        levels = self.column_levels[0] if self.combinations is None else self.combinations
        return int(levels.size)

    @property
    def labels(self) -> Labels:
        """Label of each level; of an interaction an object array of tuples."""
        if self.combinations is None:
            return self.column_levels[0]
        codes = np.unravel_index(self.combinations, _shape(self.column_levels))
        columns = (
            _to_list(levels[code]) for levels, code in zip(self.column_levels, codes, strict=True)
        )
        return _object_array(list(zip(*columns, strict=True)))


def learn_grouping(name: str, columns: Sequence[Labels]) -> tuple[Grouping, Codes]:
    """Learn the levels of a factor from the labels of the training rows.

    Parameters
    ----------
    name : str
        Name of the factor.
    columns : sequence of ndarray of shape (n,)
        Labels: one column, or several whose combinations are the levels.

    Returns
    -------
    grouping : Grouping
        The levels.
    codes : ndarray of shape (n,)
        Level of each row, 0 to `grouping.n_levels - 1`.

    Raises
    ------
    ValueError
        If labels are missing.
    TypeError
        If labels cannot be compared with each other.
    """
    column_levels = tuple(_learn_levels(name, labels) for labels in columns)
    column_codes = _column_codes(column_levels, columns)
    missing = np.min(column_codes, axis=0) < 0
    if missing.any():
        raise ValueError(
            f"Grouping factor {name!r} has missing labels (None or NaN) in "
            f"{np.count_nonzero(missing)} of {missing.size} rows: drop or label these rows."
        )
    if len(columns) == 1:
        return Grouping(name, column_levels, None), column_codes[0]
    ids = np.ravel_multi_index(column_codes, _shape(column_levels))
    combinations, codes = np.unique(ids, return_inverse=True)
    return Grouping(name, column_levels, combinations), codes


def encode(grouping: Grouping, columns: Sequence[Labels]) -> Codes:
    """Look up the level of each row.

    Parameters
    ----------
    grouping : Grouping
        The levels learned in `fit`.
    columns : sequence of ndarray of shape (n,)
        Labels, column by column as in `learn_grouping`.

    Returns
    -------
    codes : ndarray of shape (n,)
        Level of each row; -1 for a label, or a combination of labels, which is missing
        or was not seen in `fit`.
    """
    column_codes = _column_codes(grouping.column_levels, columns)
    if grouping.combinations is None:
        return column_codes[0]
    ids = np.ravel_multi_index(column_codes, _shape(grouping.column_levels), mode="clip")
    known = np.min(column_codes, axis=0) >= 0
    return np.where(known, _find(grouping.combinations, ids), -1)


def unseen_labels(codes: Codes, columns: Sequence[Labels]) -> list[Any]:
    """Distinct labels, in order of appearance, which `encode` did not find and are not missing."""
    rows = np.flatnonzero(codes < 0)
    labels = zip(*(_to_list(column[rows]) for column in columns), strict=True)
    unseen = [row for row in labels if not any(map(_is_missing, row))]
    return list(dict.fromkeys(row[0] if len(row) == 1 else row for row in unseen))


def number_unseen(codes: Codes, columns: Sequence[Labels]) -> Codes:
    """Codes in which each distinct label that was not seen, and each missing one, has its own.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        From `encode`.
    columns : sequence of ndarray of shape (n,)
        The labels.

    Returns
    -------
    ndarray of shape (n,)
        The same where a label is known, else -1, -2, ...
    """
    numbered = codes.copy()
    known: dict[Any, int] = {}
    rows = np.flatnonzero(codes < 0)
    labels = zip(*(_to_list(column[rows]) for column in columns), strict=True)
    for row, label in zip(rows, labels, strict=True):
        key = row if any(map(_is_missing, label)) else label
        numbered[row] = known.setdefault(key, -1 - len(known))
    return numbered


def same_kind(grouping: Grouping, columns: Sequence[Labels]) -> bool:
    """Whether any label of each column is of a kind, number or string, that `fit` saw there."""
    return all(
        not kinds or bool(kinds & {_kind_and_value(level)[0] for level in _to_list(levels)})
        for levels, kinds in zip(
            grouping.column_levels,
            (
                {_kind_and_value(x)[0] for x in _to_list(column) if not _is_missing(x)}
                for column in columns
            ),
            strict=True,
        )
    )


def _learn_levels(name: str, labels: Labels) -> Labels:
    """Sorted distinct labels without the missing ones; numbers come before strings."""
    if labels.dtype.kind in "iuf" and labels.size:
        whole = _whole_numbers(labels)
        if whole is not None:
            return _distinct_in_table(whole).astype(labels.dtype)
    if labels.dtype.kind in "biufmM":
        levels: Labels = np.unique(labels)
        return levels[~np.isnan(levels)]
    try:
        distinct = {label for label in set(labels.tolist()) if not _is_missing(label)}
        return _compact(sorted(distinct, key=_kind_and_value))
    except TypeError as error:
        types = ", ".join(sorted({type(label).__name__ for label in labels.tolist()}))
        raise TypeError(
            f"Grouping factor {name!r}: each label argument must be a string, a number or a "
            f"date, but the labels are of type {types}."
        ) from error


def _is_missing(label: Any) -> bool:
    """Tell None, NaN, NaT and pandas' NA, whose comparisons are neither True nor False."""
    if label is None:
        return True
    equals_itself = label == label
    return not (isinstance(equals_itself, (bool, np.bool_)) and equals_itself)


def _kind_and_value(label: Any) -> tuple[str, Any]:
    """Sort key which never compares a number with a string."""
    if isinstance(label, _NUMBERS):
        return "", label
    return "str" if isinstance(label, str) else type(label).__name__, label


def _compact(labels: list[Any]) -> Labels:
    """Array of numbers or of strings where that keeps every label as it is, else of objects."""
    if all(isinstance(label, _NUMBERS) for label in labels) or all(
        isinstance(label, str) for label in labels
    ):
        array = np.array(labels)
        if array.tolist() == labels:
            return array
    return _object_array(labels)


def _object_array(labels: list[Any]) -> Labels:
    """1-D object array, also of tuples, which `np.array` would take for rows."""
    return np.fromiter(labels, dtype=object, count=len(labels))


def _shape(column_levels: Sequence[Labels]) -> tuple[int, ...]:
    return tuple(levels.size for levels in column_levels)


def _column_codes(column_levels: Sequence[Labels], columns: Sequence[Labels]) -> tuple[Codes, ...]:
    return tuple(
        _find(levels, labels) for levels, labels in zip(column_levels, columns, strict=True)
    )


def _whole_numbers(labels: Labels) -> Labels | None:
    """Labels as integers where they are whole numbers in a range not much longer than they are."""
    first, last = labels.min(), labels.max()
    if not float(last) - float(first) <= 2 * labels.size or max(abs(first), abs(last)) > 2**53:
        return None  # also with NaN
    whole: Labels = labels.astype(np.int64)
    return whole if np.array_equal(whole, labels) else None


def _distinct_in_table(whole: Labels) -> Labels:
    """Sorted distinct integers, by one mark for each integer in their range."""
    first = whole.min()
    seen = np.zeros(whole.max() - first + 1, dtype=bool)
    seen[whole - first] = True
    return np.asarray(np.flatnonzero(seen) + first)


def _find(levels: Labels, labels: Labels) -> Codes:
    """Position of each label in the sorted levels, -1 where it is none of them."""
    if levels.size == 0:
        return np.full(labels.shape, -1)
    levels, labels = _widen(levels), _widen(labels)
    kind = levels.dtype.kind
    # Unequal kinds need Python's exact comparison: as float64, 2**53 + 1 would be 2**53.
    if kind != labels.dtype.kind or kind not in "iufmM":
        code_of = dict(zip(_to_list(levels), range(levels.size), strict=True))
        codes = map(code_of.get, _to_list(labels), repeat(-1))
        return np.fromiter(codes, dtype=np.intp, count=labels.size)
    few = labels.size < levels.size // 16  # a table of all levels would cost more than it saves
    if (
        kind in "iu"
        and not few
        and int(levels[-1]) - int(levels[0]) <= 2 * (levels.size + labels.size)
    ):
        return _find_in_table(levels, labels)
    if kind == "f" and labels.size and not few:
        whole_levels, whole_labels = _whole_numbers(levels), _whole_numbers(labels)
        if whole_levels is not None and whole_labels is not None:
            return _find_in_table(whole_levels, whole_labels)
    position = np.searchsorted(levels, labels)
    position[position == levels.size] = 0
    return np.where(levels[position] == labels, position, -1)


def _find_in_table(levels: Labels, labels: Labels) -> Codes:
    """`_find` for integers without wide gaps: one table entry for each integer in the range."""
    first, last = levels[0], levels[-1]
    table: Codes = np.full(last - first + 1, -1, dtype=np.int32)
    table[levels - first] = np.arange(levels.size)
    inside = (first <= labels) & (labels <= last)
    if inside.all():
        return np.asarray(table[labels - first])
    return np.where(inside, table[np.where(inside, labels, first) - first], -1)


def _widen(labels: Labels) -> Labels:
    """One dtype for all integers, one for all floats, so that equal labels compare equal."""
    return labels.astype(_WIDEST.get(labels.dtype.kind, labels.dtype), copy=False)


def _to_list(labels: Labels) -> list[Any]:
    # `tolist` would turn nanosecond dates into integers.
    return list(labels) if labels.dtype.kind in "mM" else labels.tolist()
