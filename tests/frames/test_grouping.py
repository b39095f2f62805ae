"""Labels to levels and codes."""

from __future__ import annotations

import datetime as dt
import pickle
import time
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_mackay.frames.grouping import (
    encode,
    in_utc,
    learn_grouping,
    rounding,
    unite,
    unlike,
    unseen_labels,
)

N_ROWS = 73_421  # rows of InstEval
LOOKUP_SECONDS = 0.2  # target 0.03; a loaded machine must not fail the test


def objects(*labels):
    return np.fromiter(labels, dtype=object, count=len(labels))


COLUMNS = {
    "int": np.array([3, 1, 2, 1]),
    "sparse int": np.array([3, 10**12, -5, 3]),
    "extreme int": np.array([-(2**63), 2**63 - 1, 0, 0]),
    "beyond 2**53": np.array([2**53 + 1, 2**53, 2**53 + 2, 2**53]),
    "uint8": np.array([3, 1, 255, 1], dtype=np.uint8),
    "uint64": np.array([2**64 - 1, 0, 2**63, 0], dtype=np.uint64),
    "float": np.array([0.5, -np.inf, np.inf, 0.5]),
    "whole float": np.array([3.0, -1.0, 2.0, -1.0]),
    "huge whole float": np.array([2.0**60, 2.0**60 + 256, 3.0, 2.0**60]),
    "float32": np.array([0.1, 0.2, 0.3, 0.1], dtype=np.float32),
    "bool": np.array([True, False, True, False]),
    "str": np.array(["b", "a", "ab", "a"]),
    "bytes": np.array([b"b", b"a", b"c", b"a"]),
    "object str": objects("b", "a", "ab", "a"),
    "object int": objects(3, 1, 2**70, 1),
    "object mixed": objects("1", 1, "b", 1),
    "date": np.array(["2021", "2020", "2022", "2020"], dtype="M8[D]"),
    "nanoseconds": np.array([3, 1, 2, 1], dtype="M8[ns]"),
    "timedelta": np.array([3, 1, 2, 1], dtype="m8[s]"),
    "object date": objects(*[dt.datetime(year, 1, 1) for year in (2021, 2020, 2022, 2020)]),
    "decimal": objects(*map(Decimal, ("0.3", "0.1", "0.2", "0.1"))),
    "tuple": objects(("b", 1), ("a", 2), ("c", 3), ("a", 2)),
}


@pytest.mark.parametrize("labels", COLUMNS.values(), ids=COLUMNS)
def test_codes_index_sorted_distinct_levels(labels):
    grouping, codes = learn_grouping("g", [labels])
    levels = grouping.labels.tolist()
    assert grouping.n_levels == len(levels) == len(set(levels)) == len(set(labels.tolist()))
    if "1" not in levels:
        assert levels == sorted(levels)
    assert codes.dtype.kind == "i"
    assert [levels[code] for code in codes] == labels.tolist()
    assert_array_equal(encode(grouping, [labels]), codes)


@pytest.mark.parametrize("labels", COLUMNS.values(), ids=COLUMNS)
def test_code_does_not_depend_on_the_batch(labels):
    grouping, codes = learn_grouping("g", [labels])
    one_by_one = [encode(grouping, [labels[i : i + 1]])[0] for i in range(len(labels))]
    assert_array_equal(one_by_one, codes)
    assert encode(grouping, [labels[:0]]).shape == (0,)


@pytest.mark.parametrize("labels", COLUMNS.values(), ids=COLUMNS)
def test_levels_do_not_depend_on_row_order(labels):
    grouping, codes = learn_grouping("g", [labels])
    reverse, reverse_codes = learn_grouping("g", [labels[::-1]])
    assert reverse.labels.tolist() == grouping.labels.tolist()
    assert_array_equal(reverse_codes[::-1], codes)


def test_read_only_labels_are_left_alone():
    labels = np.array([3, 1, 2])
    labels.flags.writeable = False
    grouping, _ = learn_grouping("g", [labels])
    encode(grouping, [labels])
    assert_array_equal(labels, [3, 1, 2])


ONES = {
    "int64": np.array([1]),
    "int8": np.array([1], dtype=np.int8),
    "uint64": np.array([1], dtype=np.uint64),
    "big-endian": np.array([1], dtype=">i4"),
    "float64": np.array([1.0]),
    "float32": np.array([1], dtype=np.float32),
    "bool": np.array([True]),
    "object int": objects(1),
    "object float": objects(1.0),
    "object bool": objects(True),
    "object np.int64": objects(np.int64(1)),
    "object np.bool_": objects(np.True_),
}


@pytest.mark.parametrize("seen", ONES.values(), ids=ONES)
@pytest.mark.parametrize("looked_up", ONES.values(), ids=ONES)
def test_equal_numbers_are_one_label_and_strings_another(seen, looked_up):
    grouping, _ = learn_grouping("g", [seen])
    assert_array_equal(encode(grouping, [looked_up]), [0])
    assert_array_equal(encode(grouping, [np.array(["1", "True"])]), [-1, -1])


def test_numbers_are_unknown_among_strings():
    grouping, _ = learn_grouping("g", [np.array(["1", "1.0", "True"])])
    for labels in (np.array([1]), np.array([1.0]), np.array([True]), objects(1, 1.0, True)):
        assert (encode(grouping, [labels]) == -1).all()


def test_mixed_column_keeps_kinds_apart_numbers_first():
    grouping, codes = learn_grouping("g", [objects("b", 2, "1", 1, np.str_("b"), 1.0)])
    assert grouping.labels.tolist() == [1, 2, "1", "b"]
    assert grouping.labels.dtype == object
    assert_array_equal(codes, [3, 1, 2, 0, 3, 0])
    assert_array_equal(encode(grouping, [np.array([1.0, 3.0])]), [0, -1])
    assert_array_equal(encode(grouping, [np.array(["1", "a"])]), [2, -1])


def test_levels_need_no_pandas_and_pickle_small():
    assert learn_grouping("g", [objects("b", "a")])[0].labels.dtype == "<U1"
    assert learn_grouping("g", [objects(2, 1)])[0].labels.dtype == np.int64
    assert learn_grouping("g", [objects(2, 1.5)])[0].labels.dtype == np.float64
    few, _ = learn_grouping("g:h", [np.arange(10) % 5] * 2)
    many, _ = learn_grouping("g:h", [np.arange(10_000) % 5] * 2)
    assert len(pickle.dumps(many)) == len(pickle.dumps(few)) < 1000


def test_conversion_never_merges_labels():
    numbers, _ = learn_grouping("g", [objects(2**53, 2**53 + 1, 0.5)])
    assert numbers.labels.tolist() == [0.5, 2**53, 2**53 + 1]
    strings, _ = learn_grouping("g", [objects("a", "a\0")])  # NumPy strips trailing NUL
    assert strings.labels.tolist() == ["a", "a\0"]


def test_integers_of_other_types_are_compared_exactly():
    grouping, _ = learn_grouping("g", [np.array([2**53 + 1, -1, 2**63 - 1])])
    assert_array_equal(encode(grouping, [np.array([2.0**53, -1.0, 2.0**63])]), [-1, 0, -1])
    unsigned = np.array([2**64 - 1, 2**63, 2**53 + 1], dtype=np.uint64)
    assert_array_equal(encode(grouping, [unsigned]), [-1, -1, 1])
    floats, _ = learn_grouping("g", [np.array([2.0**53])])
    assert_array_equal(encode(floats, [np.array([2**53, 2**53 + 1])]), [0, -1])


def test_dense_integers_outside_the_range_are_unknown():
    grouping, _ = learn_grouping("g", [np.array([5, 7, 6, 9])])
    labels = np.array([-(2**63), -1, 4, 5, 8, 9, 10, 2**63 - 1])
    assert_array_equal(encode(grouping, [labels]), [-1, -1, -1, 0, -1, 3, -1, -1])


def test_dates_of_other_units_are_equal():
    grouping, _ = learn_grouping("g", [np.array(["2020", "2021"], dtype="M8[ns]")])
    assert_array_equal(encode(grouping, [np.array(["2021", "NaT"], dtype="M8[D]")]), [1, -1])
    nanoseconds = grouping.labels.astype(np.int64)
    assert_array_equal(encode(grouping, [nanoseconds]), [-1, -1])


MISSING = {
    "NaN": np.array([1.0, np.nan, np.nan]),
    "NaT": np.array(["2020", "NaT", "NaT"], dtype="M8[s]"),
    "None": objects("a", None, None),
    "object NaN": objects("a", float("nan"), float("nan")),
    "NaN among numbers": objects(1, np.float64("nan"), None),
    "object NaT": objects(dt.datetime(2020, 1, 1), np.datetime64("NaT"), None),
}


@pytest.mark.parametrize("labels", MISSING.values(), ids=MISSING)
def test_missing_labels(labels):
    message = r"'subject' has missing labels \(None or NaN\) in 2 of 3 rows: drop or label these"
    with pytest.raises(ValueError, match=message):
        learn_grouping("subject", [labels])
    with pytest.raises(ValueError, match="in 2 of 2 rows"):
        learn_grouping("subject", [labels[1:]])
    grouping, _ = learn_grouping("subject", [labels[:1]])
    assert_array_equal(encode(grouping, [labels]), [0, -1, -1])


def test_missing_labels_of_pandas():
    pd = pytest.importorskip("pandas")
    labels = objects("a", pd.NA, pd.NaT)
    with pytest.raises(ValueError, match="in 2 of 3 rows"):
        learn_grouping("g", [labels])
    grouping, _ = learn_grouping("g", [labels[:1]])
    assert_array_equal(encode(grouping, [labels]), [0, -1, -1])


def test_all_labels_may_be_unknown():
    grouping, _ = learn_grouping("g", [np.array(["a", "b"])])
    assert_array_equal(encode(grouping, [objects(None, 1, 2.5, "c")]), [-1] * 4)
    numeric, _ = learn_grouping("g", [np.array([1, 2])])
    assert_array_equal(encode(numeric, [np.array([np.nan, np.nan])]), [-1, -1])


@pytest.mark.parametrize("label", [{"foo": "bar"}, [1], 1j])
def test_labels_without_order_or_hash(label):
    # The words that scikit-learn's check_dtype_object looks for.
    message = "'g': each label argument must be a string, a number or a date, but .*"
    with pytest.raises(TypeError, match=message + type(label).__name__):
        learn_grouping("g", [objects(label, 2j)])


def test_unseen_labels_are_distinct_and_not_missing():
    grouping, _ = learn_grouping("g", [np.array(["a", "b"])])
    columns = [objects("d", "a", None, "c", "d", 1)]
    assert unseen_labels(encode(grouping, columns), columns) == ["d", "c", 1]
    assert unseen_labels(np.array([0]), [objects("a")]) == []
    pairs, _ = learn_grouping("g:h", [np.array(["a"]), np.array([1])])
    columns = [objects("a", "b", "a"), np.array([2.0, 1.0, np.nan])]
    assert unseen_labels(encode(pairs, columns), columns) == [("a", 2.0), ("b", 1.0)]


DAYS = [dt.datetime(2020, 1, day) for day in (1, 2, 3)]
ZONED = [day.replace(tzinfo=dt.timezone.utc) for day in DAYS]
LAPSES = [dt.timedelta(hours=hours) for hours in (1, 2, 3)]

FAR = np.array(["9999-12-31", "1500-01-01"], dtype="M8[D]")  # beyond the years of nanoseconds
NEAR = np.array(["2020-01-01T06", "1816-03-29T05:56:08.066277376"], dtype="M8[ns]")


def test_times_beyond_a_unit_are_no_others():
    learned, _ = learn_grouping("g", [NEAR])
    assert_array_equal(encode(learned, [FAR]), [-1, -1])
    learned, codes = learn_grouping("g", [objects(*FAR, NEAR[0], FAR[0].item())])
    assert_array_equal(learned.labels, np.array([FAR[1], NEAR[0], FAR[0]], dtype="M8[us]"))
    assert_array_equal(codes, [2, 0, 1, 2])
    learned, codes = learn_grouping("g", [objects(*FAR, *NEAR)])
    assert learned.n_levels == 4
    assert_array_equal(codes, [3, 0, 2, 1])
    assert_array_equal(encode(learned, [NEAR]), [2, 1])
    assert_array_equal(encode(learned, [FAR.astype("M8[us]")]), [3, 0])


@pytest.mark.parametrize("zoned", [False, True])
def test_times_of_parts_in_other_units(zoned):
    far, near = (in_utc(times) if zoned else times for times in (FAR, NEAR[:1]))
    for parts in ([near, far], [far, near]):
        union = unite(*(learn_grouping("g", [part])[0] for part in parts))
        expected = np.array([FAR[1], NEAR[0], FAR[0]], dtype="M8[us]")
        assert_array_equal(union.grouping.labels, expected)
        assert_array_equal(encode(union.grouping, [far]), [2, 0])
        assert_array_equal(encode(union.grouping, [near]), [1])
    parts = [learn_grouping("g", [part])[0] for part in (far, in_utc(NEAR) if zoned else NEAR)]
    with pytest.raises(ValueError, match="'g' has times of type .* round them to microseconds"):
        unite(*parts)


# Each entry lists columns whose labels are equal, row by row.
EQUAL = {
    "times without a time zone": {
        "days": np.array(DAYS, dtype="M8[D]"),
        "seconds": np.array(DAYS, dtype="M8[s]"),
        "nanoseconds": np.array(DAYS, dtype="M8[ns]"),
        "object datetime": objects(*DAYS),
        "object date": objects(*[day.date() for day in DAYS]),
        "object datetime64": objects(*[np.datetime64(day, "s") for day in DAYS]),
        "object mixed": objects(DAYS[0], DAYS[1].date(), np.datetime64(DAYS[2])),
    },
    "times with a time zone": {
        "seconds": in_utc(np.array(DAYS, dtype="M8[s]")),
        "nanoseconds": in_utc(np.array(DAYS, dtype="M8[ns]")),
        "object UTC": objects(*ZONED),
        "object Berlin": objects(*[day.astimezone(ZoneInfo("Europe/Berlin")) for day in ZONED]),
        "object mixed": objects(
            ZONED[0], *[d.astimezone(ZoneInfo("Asia/Tokyo")) for d in ZONED[1:]]
        ),
    },
    "durations": {
        "hours": np.array([1, 2, 3], dtype="m8[h]"),
        "nanoseconds": np.array(LAPSES, dtype="m8[ns]"),
        "object": objects(*LAPSES),
    },
    "numbers": {
        "int": np.array([1, 2, 3]),
        "float32": np.array([1, 2, 3], dtype=np.float32),
        "Decimal": objects(*map(Decimal, (1, 2, 3))),
        "Fraction": objects(*map(Fraction, (1, 2, 3))),
        "scalars": objects(np.int8(1), np.float16(2), np.uint64(3)),
    },
    "strings": {
        "array": np.array(["1", "2", "3"]),
        "object": objects("1", "2", "3"),
        "np.str_": objects(*map(np.str_, "123")),
    },
    "labels of type bytes": {
        "array": np.array([b"1", b"2", b"3"]),
        "object": objects(b"1", b"2", b"3"),
    },
}
COLUMN_PAIRS = {
    f"{kind}: {one}, {other}": (EQUAL[kind][one], EQUAL[kind][other])
    for kind in EQUAL
    for one in EQUAL[kind]
    for other in EQUAL[kind]
}


@pytest.mark.parametrize(("seen", "given"), COLUMN_PAIRS.values(), ids=COLUMN_PAIRS)
def test_labels_of_one_kind_are_equal_whatever_their_type(seen, given):
    grouping, codes = learn_grouping("g", [seen])
    assert_array_equal(codes, [0, 1, 2])
    assert_array_equal(encode(grouping, [given]), codes)
    assert unlike(grouping, codes, [given]) is None
    # Beside a label of another kind the column is of objects, and a missing one is no label.
    beside = objects(*given if given.dtype.names is None else ZONED, "another", None)
    expected = [0, 1, 2, -1, -1]
    assert_array_equal(encode(grouping, [beside]), expected)
    mixed, _ = learn_grouping("g", [beside[:-1]])
    assert_array_equal(encode(mixed, [given]) >= 0, [True] * 3)


KIND_PAIRS = [(seen, given) for seen in EQUAL for given in EQUAL if seen != given]


@pytest.mark.parametrize(("seen", "given"), KIND_PAIRS)
def test_labels_of_another_kind_are_told_even_beside_known_ones(seen, given):
    for labels in EQUAL[seen].values():
        grouping, codes = learn_grouping("g", [labels])
        for other in EQUAL[given].values():
            assert_array_equal(encode(grouping, [other]), [-1] * 3)
            said_given, said_seen = unlike(grouping, np.array([-1] * 3), [other])
            assert said_given.startswith(f"{given} such as ")
            assert said_seen.startswith(f"{seen} such as ")
            if labels.dtype == other.dtype == object:
                both = np.concatenate([labels, other[:1]])
                said = unlike(grouping, np.array([*codes, -1]), [both])
                assert said == (said_given, said_seen)


def test_new_and_missing_labels_of_the_same_kind_are_nothing_to_tell():
    for seen, given in (
        (np.array([1, 2]), objects(3, 4.5, True, None, np.nan)),
        (np.array(["a", "b"]), objects("c", "A", None)),
        (np.array(["1", "2"]), objects("3", "0.5", "nan", "inf", "x1")),
        (np.array(DAYS), objects(dt.datetime(2021, 1, 1), np.datetime64("NaT"))),
        (in_utc(np.array(DAYS, dtype="M8[us]")), objects(ZONED[0] - LAPSES[0])),
        (objects(1, "a"), objects(2, "b")),
    ):
        grouping, _ = learn_grouping("g", [seen])
        assert unlike(grouping, encode(grouping, [given]), [given]) is None


@pytest.mark.parametrize(
    ("seen", "given", "level"),
    [
        (["7", "8"], "007", "7"),
        (["007", "010"], "7", "007"),
        (["7", "8"], "7.0", "7"),
        (["7.0", "8.0"], "7", "7.0"),
        (["7", "8"], " 7", "7"),
        (["a", "b"], "a ", "a"),
        (["a   ", "long"], "a", "a   "),
        (["12345678901234567890", "1"], "012345678901234567890", "12345678901234567890"),
        ([7, "a"], "7", 7),
        (["7", 1], 7, "7"),
    ],
)
def test_the_same_label_spelled_otherwise_is_told(seen, given, level):
    grouping, _ = learn_grouping("g", [objects(*seen)])
    columns = [objects(seen[-1], given)]
    codes = encode(grouping, columns)
    assert (codes >= 0).tolist() == [True, False]
    assert unlike(grouping, codes, columns) == (repr(given), repr(level))


def test_unlike_labels_of_one_column_of_an_interaction():
    grouping, _ = learn_grouping("g:h", [np.array(["a", "b"]), np.array([1, 2])])
    columns = [np.array(["a", "b"]), np.array(["1", "2"])]
    codes = encode(grouping, columns)
    expected = ("strings such as '1'", "numbers such as 1")
    assert unlike(grouping, codes, columns) == expected
    unseen_pair = [np.array(["a"]), np.array([2])]
    assert unlike(grouping, encode(grouping, unseen_pair), unseen_pair) is None


def test_times_with_a_zone_are_levels_in_utc():
    berlin = objects(*[day.astimezone(ZoneInfo("Europe/Berlin")) for day in ZONED])
    grouping, _ = learn_grouping("g", [berlin])
    assert_array_equal(grouping.labels, np.array(DAYS, dtype="M8[us]"))
    # The last hour of summer time is shown twice, and is two instants.
    twice = [dt.datetime(2020, 10, 25, 2, fold=f, tzinfo=ZoneInfo("Europe/Berlin")) for f in (0, 1)]
    grouping, codes = learn_grouping("g", [objects(*twice)])
    assert_array_equal(codes, [0, 1])


@pytest.mark.parametrize(
    ("labels", "kind", "limit"),
    [
        (np.array([1.0, 2.0**53]), "float64", 2**53),
        (np.array([1.0, -(2.0**60)]), "float64", 2**53),
        (np.array([1.0, 2.0**24], dtype=np.float32), "float32", 2**24),
        (np.array([1.0, 2.0**11], dtype=np.float16), "float16", 2**11),
        (objects("a", 2.0**53), "float", 2**53),
        (objects(2**60, np.float64(2**53)), "float64", 2**53),
        (objects(1, np.float32(2**24)), "float32", 2**24),
    ],
)
def test_ids_that_floats_round_are_told(labels, kind, limit):
    expected = f"'g' has floating point labels ({kind}) of {limit} or more, where neighbouring"
    assert expected in rounding("g", [labels]).text
    assert expected in rounding("g", [np.array([1, 2]), labels]).text


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2**53 + 1, 2**60]),
        np.array([0.5, 2.0**53 - 1, np.inf, -np.inf, np.nan]),
        np.array([2.0**24 - 1], dtype=np.float32),
        np.array([2.0**24]),
        np.array(["9007199254740993"]),
        objects(2**53 + 1, "a", None, 1e15, float("nan"), Decimal(2**53 + 1)),
        np.array([], dtype=float),
        np.array(DAYS),
    ],
)
def test_ids_that_nothing_rounds_are_nothing_to_tell(labels):
    assert rounding("g", [labels]) is None


def test_interaction():
    batch = np.array(["b", "a", "a", "b"])
    sample = np.array([1, 1, 2, 1])
    grouping, codes = learn_grouping("batch:sample", [batch, sample])
    assert grouping.name == "batch:sample"
    assert grouping.n_levels == 3
    assert grouping.labels.dtype == object
    assert grouping.labels.tolist() == [("a", 1), ("a", 2), ("b", 1)]
    assert_array_equal(codes, [2, 0, 1, 2])
    assert_array_equal(encode(grouping, [batch, sample]), codes)
    unknown = [objects("b", "c", None, "a"), objects(2, 1, 1, None)]  # ("b", 2) was not seen
    assert_array_equal(encode(grouping, unknown), [-1] * 4)
    assert encode(grouping, [batch[:0], sample[:0]]).shape == (0,)


def test_interaction_with_missing_labels_counts_rows():
    columns = [objects("a", None, None), objects(1.0, np.nan, 2.0)]
    with pytest.raises(ValueError, match="'a:b' has missing labels .* in 2 of 3 rows"):
        learn_grouping("a:b", columns)
    with pytest.raises(ValueError, match="in 2 of 2 rows"):
        learn_grouping("a:b", [column[1:] for column in columns])


def test_interaction_of_three_and_of_dates():
    days = np.array(["2020", "2021"], dtype="M8[ns]")
    grouping, _ = learn_grouping("a:b:c", [np.array([1, 0]), np.array(["x", "y"]), days])
    assert grouping.labels.tolist() == [(0, "y", days[1]), (1, "x", days[0])]


def test_too_many_combinations_do_not_wrap():
    ids = np.arange(100_000)
    with pytest.raises(ValueError, match="invalid dims"):
        learn_grouping("a:b:c:d", [ids] * 4)


@pytest.mark.parametrize("kind", ["int", "sparse int", "float", "str", "object"])
def test_large_columns_are_fast(kind):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2972, N_ROWS)
    labels = {
        "int": ids,
        "sparse int": ids * 10**12,
        "float": ids + 0.5,
        "str": ids.astype(str),
        "object": ids.astype(str).astype(object),
    }[kind]
    grouping, codes = learn_grouping("g", [labels])
    start = time.perf_counter()
    looked_up = encode(grouping, [labels])
    assert time.perf_counter() - start < LOOKUP_SECONDS
    assert_array_equal(looked_up, codes)


def assert_united(columns, first):
    """Two parts of the rows have together what all rows have."""
    parts = [[labels[rows] for labels in columns] for rows in (first, ~first)]
    groupings, codes = zip(*(learn_grouping("g", part) for part in parts), strict=True)
    whole, expected = learn_grouping("g", columns)
    union = unite(*groupings)
    for actual, levels in zip(union.grouping.column_levels, whole.column_levels, strict=True):
        assert actual.dtype == levels.dtype
        assert_array_equal(actual, levels)
    assert (union.grouping.combinations is None) == (whole.combinations is None)
    assert_array_equal(union.grouping.labels, whole.labels)
    for places, of, rows in zip(union[1:], codes, (first, ~first), strict=True):
        assert np.all(np.diff(places) > 0)
        assert_array_equal(places[of], expected[rows])


@pytest.mark.parametrize("labels", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("first", [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]])
def test_levels_of_two_parts_unite(labels, first):
    first = np.array(first, dtype=bool)
    other = np.array(["x", "y", "x", "x"])
    assert_united([labels], first)
    assert_united([labels, other], first)
    assert_united([other, labels, other[::-1]], first)


def test_levels_unite_where_parts_have_times_with_a_zone():
    assert_united([objects(*ZONED)], np.array([True, False, False]))


def test_levels_unite_where_the_types_of_numbers_differ():
    parts = (np.array([3, 2**53 + 1]), np.array([0.5, 2.0**53]), objects(3, 2**70))
    groupings = [learn_grouping("g", [labels])[0] for labels in parts]
    union = unite(unite(*groupings[:2]).grouping, groupings[2]).grouping
    assert union.labels.tolist() == [0.5, 3, 2**53, 2**53 + 1, 2**70]
    wide = unite(*(learn_grouping("g", [np.array(x)])[0] for x in (["a"], ["longer"])))
    assert wide.grouping.labels.tolist() == ["a", "longer"]


def test_long_labels_of_two_parts_are_not_padded(monkeypatch):
    monkeypatch.setattr("sklearn_mackay.frames.grouping.PADDED_TEXT", 100)
    groupings = [learn_grouping("g", [np.array(x)])[0] for x in (["a", "b"], ["z" * 40])]
    assert unite(*groupings).grouping.labels.dtype == object


def test_kinds_of_labels_that_share_nothing_do_not_unite():
    numbers, strings = (learn_grouping("g", [np.array(x)])[0] for x in ([1, 2], ["1", "2"]))
    with pytest.raises(ValueError, match=r"'g' has numbers such as 1 in one part .*strings such"):
        unite(numbers, strings)
    both, _ = learn_grouping("g", [objects("1", 7)])
    assert unite(both, strings).grouping.labels.tolist() == [7, "1", "2"]
    assert unite(numbers, both).grouping.labels.tolist() == [1, 2, 7, "1"]
