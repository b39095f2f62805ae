"""Labels to levels and codes: learned once in `fit`, looked up again in `predict`.

Labels compare by value and the kind is remembered: 1, 1.0 and True are one label, "1" is
another. Times compare by the instant where they have a time zone, by what the clock shows where
they have none, and the two are different kinds. The code of a label never depends on the other rows
of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import islice, repeat
from numbers import Number
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .._arrays import first_of_each
from .._messages import Message

Labels = NDArray[Any]
Codes = NDArray[np.integer[Any]]

_WIDEST = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64}
_NUMBERS = (Number, np.bool_)
_TIMES = (date, timedelta, np.datetime64, np.timedelta64)
_UTC = "utc"  # the one field of an array of times that have a time zone
PADDED_TEXT = 2**28  # characters of an array of strings, each as wide as the longest: 1 GiB
_TRIED = 1000  # new labels whose spelling is looked at: a column that is spelled otherwise shows it

NUMBERS, STRINGS, DURATIONS = "numbers", "strings", "durations"
CLOCKS, INSTANTS = "times without a time zone", "times with a time zone"
_KIND_OF_DTYPE = {**dict.fromkeys("biufc", NUMBERS), "U": STRINGS, "M": CLOCKS, "m": DURATIONS}


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
        """Label of each level; of an interaction an object array of tuples; zoned times in UTC."""
        if self.combinations is None:
            return without_zone(self.column_levels[0])
        columns = map(_to_list, self.column_labels)
        return _object_array(list(zip(*columns, strict=True)))

    @property
    def column_labels(self) -> list[Labels]:
        """Labels of each column, one entry for each level; zoned times are marked by `in_utc`."""
        if self.combinations is None:
            return [self.column_levels[0]]
        codes = np.unravel_index(self.combinations, _shape(self.column_levels))
        return [levels[code] for levels, code in zip(self.column_levels, codes, strict=True)]


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
    columns = [_normalise(labels) for labels in columns]
    column_levels = tuple(_learn_levels(name, labels) for labels in columns)
    column_codes = _column_codes(column_levels, columns)
    missing = np.min(column_codes, axis=0) < 0
    if missing.any():
        refuse_missing(name, int(np.count_nonzero(missing)), missing.size)
    if len(columns) == 1:
        return Grouping(name, column_levels, None), column_codes[0]
    ids = np.ravel_multi_index(column_codes, _shape(column_levels))
    combinations, codes = np.unique(ids, return_inverse=True)
    return Grouping(name, column_levels, combinations), codes


def refuse_missing(name: str, n_missing: int, n_rows: int) -> NoReturn:
    """Say in how many rows a factor has no label."""
    raise ValueError(
        f"Grouping factor {name!r} has missing labels (None or NaN) in {n_missing} of {n_rows} "
        "rows: drop or label these rows."
    )


class Union(NamedTuple):
    """Levels of two groupings together.

    Attributes
    ----------
    grouping : Grouping
        The levels of both.
    of_one, of_other : ndarray
        Increasing: the codes in it of the levels of the one and of the other.
    """

    grouping: Grouping
    of_one: Codes
    of_other: Codes


def unite(one: Grouping, other: Grouping) -> Union:
    """The levels that all rows have, from those of two parts of the rows.

    Parameters
    ----------
    one, other : Grouping
        Of one factor.

    Returns
    -------
    Union

    Raises
    ------
    ValueError
        For labels of another kind.
    """
    pairs = list(zip(one.column_levels, other.column_levels, strict=True))
    for a, b in pairs:
        of_a, of_b = _examples(a), _examples(b)
        if not (of_a.keys() <= of_b.keys() or of_b.keys() <= of_a.keys()):
            raise ValueError(
                f"Grouping factor {one.name!r} has {_phrase(of_a)} in one part of the rows and "
                f"{_phrase(of_b)} in another: give its labels one type."
            )
    column_levels = tuple(_both(one.name, a, b) for a, b in pairs)
    ids = [_ids_among(column_levels, grouping) for grouping in (one, other)]
    if one.combinations is None:
        return Union(Grouping(one.name, column_levels, None), *ids)
    combinations = _sorted_union(*ids)
    return Union(
        Grouping(one.name, column_levels, combinations),
        *(np.searchsorted(combinations, of) for of in ids),
    )


def _ids_among(column_levels: Sequence[Labels], grouping: Grouping) -> Codes:
    """Codes of a grouping's levels, or ids of its combinations, where columns have more levels."""
    pairs = zip(column_levels, grouping.column_levels, strict=True)
    places = [_find(levels, of) for levels, of in pairs]
    if grouping.combinations is None:
        return places[0]
    codes = np.unravel_index(grouping.combinations, _shape(grouping.column_levels))
    moved = [place[code] for place, code in zip(places, codes, strict=True)]
    return np.ravel_multi_index(moved, _shape(column_levels))


def _both(name: str, a: Labels, b: Labels) -> Labels:
    """Sorted distinct labels of two columns of levels."""
    if np.array_equal(a, b):
        return a
    if is_utc(a) and is_utc(b):
        return in_utc(_both(name, a[_UTC], b[_UTC]))
    kind = a.dtype.kind
    width = max(a.dtype.itemsize, b.dtype.itemsize) // np.dtype("U1").itemsize
    is_padded = kind == "U" and (a.size + b.size) * width <= PADDED_TEXT
    if kind == b.dtype.kind and (kind in "biuf" or is_padded):
        return _sorted_union(a, b)
    if kind == b.dtype.kind and kind in "mM":
        same_unit = _in_one_unit([a, b])
        if same_unit is None:
            raise ValueError(
                f"Grouping factor {name!r} has times of type {a.dtype} in one part of the rows and "
                f"of {b.dtype} in another, and no unit holds both: round them to microseconds."
            )
        return _sorted_union(*same_unit)
    return _learn_levels(name, _object_array([*_to_list(a), *_to_list(b)]))


def _sorted_union(a: Labels, b: Labels) -> Labels:
    """`np.union1d` of what is sorted already, and so only has to be merged."""
    both = np.concatenate([a, b])
    both.sort(kind="stable")
    return np.asarray(both[first_of_each(both)])


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


def unseen_labels(codes: Codes, columns: Sequence[Labels]) -> list[object]:
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
    known: dict[object, int] = {}
    rows = np.flatnonzero(codes < 0)
    labels = zip(*(_to_list(column[rows]) for column in columns), strict=True)
    for row, label in zip(rows, labels, strict=True):
        key = row if any(map(_is_missing, label)) else label
        numbered[row] = known.setdefault(key, -1 - len(known))
    return numbered


def in_utc(labels: Labels) -> Labels:
    """Mark times as instants in UTC, so that they are no equals of times without a time zone."""
    return labels.view([(_UTC, labels.dtype)])


def unlike(grouping: Grouping, codes: Codes, columns: Sequence[Labels]) -> tuple[str, str] | None:
    """Tell labels which `fit` may have seen as another kind, or spelled in another way.

    Parameters
    ----------
    grouping : Grouping
        The levels learned in `fit`.
    codes : ndarray of shape (n,)
        From `encode`.
    columns : sequence of ndarray of shape (n,)
        The labels.

    Returns
    -------
    given, seen : str
        A phrase for each of the two; None where all that was not seen is new.
    """
    rows = np.flatnonzero(codes < 0)
    for levels, column in zip(grouping.column_levels, columns, strict=True):
        labels = _normalise(column[rows])
        seen, given = _examples(levels), _examples(labels)
        strange = {kind: label for kind, label in given.items() if kind not in seen}
        if strange:
            return _phrase(dict([next(iter(strange.items()))])), _phrase(seen)
        if grouping.combinations is not None:
            labels = labels[_find(levels, labels) < 0]
        respelled = _respelled(levels, labels)
        if respelled:
            return respelled
    return None


def rounding(name: str, columns: Sequence[Labels]) -> Message | None:
    """What to say of floating point labels so large that neighbouring whole numbers are one.

    Parameters
    ----------
    name : str
        Name of the factor.
    columns : sequence of ndarray
        Labels.

    Returns
    -------
    Message or None
        None where there are no such labels.
    """
    for labels in columns:
        for kind, floats in _floats(labels):
            limit = 2 ** (np.finfo(kind).nmant + 1)
            if np.any(np.isfinite(floats) & (np.abs(floats) >= limit)):
                return Message(
                    f"Grouping factor {name!r} has floating point labels ({kind.__name__}) of "
                    f"{limit} or more, where neighbouring whole numbers are one number: different "
                    "ids may be one level. Read ids as integers (dtype 'Int64' in pandas, if some "
                    "are missing) or as strings."
                )
    return None


def _learn_levels(name: str, labels: Labels) -> Labels:
    """Sorted distinct labels without the missing ones; numbers come before strings."""
    if is_utc(labels):
        return in_utc(_learn_levels(name, labels[_UTC]))
    if labels.dtype.kind in "iuf" and labels.size:
        whole = _whole_numbers(labels)
        if whole is not None:
            return _distinct_in_table(whole).astype(labels.dtype)
    if labels.dtype.kind in "biufmM":
        levels: Labels = np.unique(labels)
        return levels[~np.isnan(levels)]
    try:
        distinct = {label for label in set(labels.tolist()) if not _is_missing(label)}
        return _compact(sorted({_key(label): label for label in distinct}.values(), key=_sort_key))
    except TypeError as error:
        types = ", ".join(sorted({type(label).__name__ for label in labels.tolist()}))
        raise TypeError(
            f"Grouping factor {name!r}: each label argument must be a string, a number or a "
            f"date, but the labels are of type {types}."
        ) from error


def _is_missing(label: object) -> bool:
    """Tell None, NaN, NaT and pandas' NA, whose comparisons are neither True nor False."""
    if label is None:
        return True
    equals_itself = label == label
    return not (isinstance(equals_itself, (bool, np.bool_)) and equals_itself)


def _kind(label: object) -> str:
    """The kind of a label in the plural; labels of two kinds are never equal."""
    if isinstance(label, (timedelta, np.timedelta64)):  # NumPy's is a number too
        return DURATIONS
    if isinstance(label, _NUMBERS):
        return NUMBERS
    if isinstance(label, str):
        return STRINGS
    if isinstance(label, datetime) and label.utcoffset() is not None:
        return INSTANTS
    if isinstance(label, (date, np.datetime64)):
        return CLOCKS
    return f"labels of type {type(label).__name__}"


def _sort_key(label: object) -> tuple[str, Any]:
    """Sort key which never compares a number with a string."""
    kind = _kind(label)
    return "" if kind == NUMBERS else kind, _key(label)


def _key(label: object) -> object:
    """A label as what equal labels share: times of several types and units hash differently."""
    if not isinstance(label, _TIMES) or _is_missing(label):
        return label
    return _time_key(_kind(label), _numpy_time(label))


def _in_one_unit(times: Sequence[Labels]) -> list[Labels] | None:
    """Times in the finest unit that holds all of them as they are, None where there is none.

    NumPy takes the finest unit of all, in which what is beyond its years wraps.
    """
    finest = np.result_type(*times)
    for unit in (finest, *(f"{finest.kind}8[{coarser}]" for coarser in ("us", "ms", "s"))):
        changed, exact = zip(*(_in_unit(of, unit) for of in times), strict=True)
        if np.all(np.concatenate(exact)):
            return list(changed)
    return None


def _in_unit(times: Labels, unit: Any) -> tuple[Labels, NDArray[np.bool_]]:
    """Times in another unit, and which of them it holds as they are."""
    changed = times.astype(unit)
    exact: NDArray[np.bool_] = (changed.astype(times.dtype) == times) | np.isnat(times)
    return changed, exact


def _time_key(kind: str, time: np.datetime64 | np.timedelta64) -> tuple[str, int, int]:
    """Kind, seconds, and the picoseconds beyond them."""
    seconds = time.astype(f"{time.dtype.kind}8[s]")
    rest = (time - seconds).astype("m8[ps]")
    return kind, int(seconds.astype(np.int64)), int(rest.astype(np.int64))


def _numpy_time(label: Any) -> np.datetime64 | np.timedelta64:
    """A date, time or duration of Python, pandas or NumPy in NumPy; in UTC if it has a zone."""
    for of_pandas in ("to_datetime64", "to_timedelta64"):
        if hasattr(label, of_pandas):
            in_numpy: np.datetime64 | np.timedelta64 = getattr(label, of_pandas)()
            return in_numpy
    if isinstance(label, (timedelta, np.timedelta64)):
        return np.timedelta64(label)
    if isinstance(label, datetime) and label.utcoffset() is not None:
        label = label.astimezone(timezone.utc).replace(tzinfo=None)
    return np.datetime64(label)


def _has_times(labels: Labels) -> bool:
    return any(issubclass(kind, _TIMES) for kind in set(map(type, labels.tolist())))


def _normalise(labels: Labels) -> Labels:
    """Objects that are all times, or all durations, as an array of these; others as given."""
    if labels.dtype != object:
        return labels
    kinds = set(map(type, labels.tolist()))
    integers = {k for k in kinds if issubclass(k, (np.integer, np.bool_))} - {np.timedelta64}
    if integers:  # a Decimal raises where it is compared with one of NumPy
        labels = _object_array([x.item() if type(x) in integers else x for x in labels])
    if not _has_times(labels):
        return labels
    missing = np.fromiter(map(_is_missing, labels), dtype=bool, count=labels.size)
    said = set(map(_kind, labels[~missing]))
    if len(said) != 1 or not said <= {CLOCKS, INSTANTS, DURATIONS}:
        return labels
    times = [_numpy_time(label) for label in labels[~missing]]
    units = list(dict.fromkeys(time.dtype for time in times))
    of_unit = np.array([units.index(time.dtype) for time in times])
    same_unit = _in_one_unit([np.array([t for t in times if t.dtype == unit]) for unit in units])
    if same_unit is None:
        return labels
    array = np.full(labels.shape, "NaT", dtype=same_unit[0].dtype)
    for i, changed in enumerate(same_unit):
        array[np.flatnonzero(~missing)[of_unit == i]] = changed
    return in_utc(array) if said == {INSTANTS} else array


def is_utc(labels: Labels) -> bool:
    """Whether labels are marked as instants by `in_utc`."""
    return labels.dtype.names == (_UTC,)


def without_zone(labels: Labels) -> Labels:
    """Labels without the mark of `in_utc`."""
    return labels[_UTC] if is_utc(labels) else labels


def _examples(labels: Labels) -> dict[str, object]:
    """A label of each kind, missing ones aside."""
    kind = INSTANTS if is_utc(labels) else _KIND_OF_DTYPE.get(labels.dtype.kind)
    if kind:
        known = (label for label in without_zone(labels) if not _is_missing(label))
        first = next(known, None)
        if first is None:
            return {}
        return {kind: first if isinstance(first, _TIMES) else first.item()}
    examples: dict[str, object] = {}
    for label in labels.tolist():
        if not _is_missing(label):
            examples.setdefault(_kind(label), label)
    return examples


def _phrase(examples: dict[str, object]) -> str:
    return " and ".join(
        f"{kind} such as {label if isinstance(label, _TIMES) else repr(label)}"
        for kind, label in examples.items()
    )


def _respelled(levels: Labels, labels: Labels) -> tuple[str, str] | None:
    """A label and the level that is the same but for zeros, a decimal point or blanks."""
    kinds: tuple[type, ...]
    if levels.dtype.kind == "U":
        width, kinds = levels.dtype.itemsize // np.dtype("U1").itemsize, (str,)
    elif levels.dtype == object:
        texts = (len(level) for level in levels if isinstance(level, str))
        width, kinds = max(texts, default=0), (str, *_NUMBERS)
    else:
        return None
    pairs = [
        (label, other)
        for label in islice(dict.fromkeys(_to_list(labels)), _TRIED)
        if isinstance(label, kinds)
        for other in _spellings(label, width)
        if isinstance(other, kinds)
    ]
    for (label, other), code in zip(pairs, _find_some(levels, [o for _, o in pairs]), strict=True):
        if code >= 0:
            return repr(label), repr(other)
    return None


def _find_some(levels: Labels, labels: list[object]) -> Codes:
    """`_find` which takes no time in proportion to the number of levels that are strings."""
    if levels.dtype.kind != "U" or not labels:
        return _find(levels, _object_array(labels))
    texts = np.array(labels)
    position = np.minimum(np.searchsorted(levels, texts), levels.size - 1)
    return np.where(levels[position] == texts, position, -1)


def _spellings(label: object, width: int) -> Iterator[object]:
    """Ways to write the same number, and blanks cut off or filled up to a width."""
    text = str(label).strip()
    yield from (text, text.ljust(width))
    try:
        number = float(text)
        whole = int(text) if text.isdigit() else int(number) if number.is_integer() else number
    except ValueError:
        return
    yield from (whole, str(whole), str(whole).zfill(width), str(float(whole)))


def _floats(labels: Labels) -> list[tuple[type, Labels]]:
    """Floating point labels by their type."""
    if labels.dtype.kind == "f":
        return [(labels.dtype.type, labels)]
    if labels.dtype != object:
        return []
    kinds = [k for k in set(map(type, labels.tolist())) if issubclass(k, (float, np.floating))]
    return [(k, np.array([x for x in labels if type(x) is k])) for k in kinds]


def _compact(labels: list[Any]) -> Labels:
    """Array of numbers or of strings where that keeps every label as it is, else of objects."""
    strings = all(isinstance(label, str) for label in labels)
    if strings and len(labels) * max(map(len, labels), default=0) > PADDED_TEXT:
        return _object_array(labels)
    if strings or all(isinstance(label, _NUMBERS) for label in labels):
        array = np.array(labels)
        if array.tolist() == labels:
            return array
    return _object_array(labels)


def _object_array(labels: list[object]) -> Labels:
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
    first, last = labels.min().item(), labels.max().item()
    if not last - first <= 2 * labels.size or max(abs(first), abs(last)) > 2**53:
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
    levels, labels = _widen(levels), _widen(_normalise(labels))
    if is_utc(levels) and is_utc(labels):
        levels, labels = levels[_UTC], labels[_UTC]
    kind = levels.dtype.kind
    # Unequal kinds need Python's exact comparison: as float64, 2**53 + 1 would be 2**53.
    if kind != labels.dtype.kind or kind not in "iufmM":
        code_of = dict(zip(_keys(levels), range(levels.size), strict=True))
        codes = map(code_of.get, _keys(labels), repeat(-1))
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
    exact: NDArray[np.bool_] | bool = True
    if kind in "mM":
        labels, exact = _in_unit(labels, levels.dtype)
    position = np.searchsorted(levels, labels)
    position[position == levels.size] = 0
    return np.where((levels[position] == labels) & exact, position, -1)


def _find_in_table(levels: Labels, labels: Labels) -> Codes:
    """`_find` for integers without wide gaps: one table entry for each integer in the range."""
    first, last = levels[0], levels[-1]
    # NumPy 1 makes a uint64 and Python's 1 a float.
    table: Codes = np.full(int(last) - int(first) + 1, -1, dtype=np.int32)
    table[levels - first] = np.arange(levels.size)
    inside = (first <= labels) & (labels <= last)
    if inside.all():
        return np.asarray(table[labels - first])
    return np.where(inside, table[np.where(inside, labels, first) - first], -1)


def _widen(labels: Labels) -> Labels:
    """One dtype for all integers, one for all floats, so that equal labels compare equal."""
    return labels.astype(_WIDEST.get(labels.dtype.kind, labels.dtype), copy=False)


def _keys(labels: Labels) -> list[object]:
    if is_utc(labels):
        return [_time_key(INSTANTS, time) for time in labels[_UTC]]
    if labels.dtype.kind in "mM" or (labels.dtype == object and _has_times(labels)):
        return [_key(label) for label in labels]
    return list(labels.tolist())


def _to_list(labels: Labels) -> list[object]:
    labels = without_zone(labels)
    # `tolist` would turn nanosecond dates into integers.
    return list(labels) if labels.dtype.kind in "mM" else labels.tolist()
