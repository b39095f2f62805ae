"""What the columns of X are for."""

from __future__ import annotations

from collections import UserDict

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector
from tables import COLUMNS, FRAMES, pd, pl

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.frames.roles import FactorColumns, resolve_columns, resolve_roles
from sklearn_mackay.frames.tables import read_table


def table_of(X):
    return read_table(BaseEstimator(), X, reset=True)


def roles_of(X, groups=None, random_slopes=None, fixed_features=None, array_factors=()):
    parameters = MacKayMixedRegressor(
        groups, random_slopes=random_slopes, fixed_features=fixed_features
    ).get_params(deep=False)
    return resolve_roles(table_of(X).header, X, parameters, array_factors)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    ("groups", "factors", "fixed"),
    [
        (None, {}, (0, 1, 2, 3, 4)),
        ([], {}, (0, 1, 2, 3, 4)),
        ("subject", {"subject": (0,)}, (1, 2, 3, 4)),
        (["subject"], {"subject": (0,)}, (1, 2, 3, 4)),
        (0, {"subject": (0,)}, (1, 2, 3, 4)),
        (np.int64(-5), {"subject": (0,)}, (1, 2, 3, 4)),
        (["item", 0], {"item": (1,), "subject": (0,)}, (2, 3, 4)),
        (np.array([1, 0]), {"item": (1,), "subject": (0,)}, (2, 3, 4)),
        (pd.Index(["item"]), {"item": (1,)}, (0, 2, 3, 4)),
        (("subject", "item"), {"subject:item": (0, 1)}, (2, 3, 4)),
        (
            ["item", ("item", "subject")],
            {"item": (1,), "item:subject": (1, 0)},
            (2, 3, 4),
        ),
        ([True, True, False, False, False], {"subject": (0,), "item": (1,)}, (2, 3, 4)),
        (np.array([1, 0, 0, 0, 0], dtype=bool), {"subject": (0,)}, (1, 2, 3, 4)),
        (lambda X: ["item", "late"], {"item": (1,), "late": (3,)}, (0, 2, 4)),
        (lambda X: X.shape[1] - 1, {"date": (4,)}, (0, 1, 2, 3)),
    ],
)
def test_groups(frame, groups, factors, fixed):
    roles = roles_of(frame(COLUMNS), groups)
    assert {factor.name: factor.columns for factor in roles.factors} == factors
    assert list(factors) == [factor.name for factor in roles.factors]
    assert roles.fixed == fixed
    for factor in roles.factors:
        assert factor.slopes == ()
        assert factor.intercept
        assert factor.coefficient_names == ("intercept",)


@pytest.mark.parametrize("X", [np.ones((2, 3)), [[1, 2, 3]], sp.csr_matrix(np.ones((2, 3)))])
def test_groups_by_position(X):
    roles = roles_of(X, [-1, (0, 1)], {-1: []})
    assert [factor.name for factor in roles.factors] == ["x2", "x0:x1"]
    assert roles.fixed == ()
    assert roles_of(X, [True, False, False]).factors[0].name == "x0"


def test_groups_from_dtype():
    frame = pd.DataFrame(COLUMNS).astype({"subject": "category", "item": "category"})
    for X in (
        frame,
        pl.DataFrame(COLUMNS).with_columns(
            subject=pl.col("subject").cast(pl.Enum(["a", "b"])),
            item=pl.col("subject").cast(pl.Categorical),
        ),
    ):
        roles = roles_of(X, "from_dtype", {"item": "days"})
        assert [factor.name for factor in roles.factors] == ["subject", "item"]
        assert roles.factors[1].slopes == (2,)
    assert roles_of(pd.DataFrame(COLUMNS), "from_dtype").factors == ()
    with pytest.raises(ValueError, match="'from_dtype'` needs a data frame"):
        roles_of(np.ones((2, 2)), "from_dtype")


def test_groups_by_column_selector():
    X = pd.DataFrame(COLUMNS)
    roles = roles_of(X, make_column_selector("^s|^i"), fixed_features=make_column_selector("y"))
    assert [factor.name for factor in roles.factors] == ["subject", "item"]
    assert roles.fixed == (2,)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("school", "`groups`: column 'school' not found; the columns of X are: 'subject', 'item'"),
        ("subject/item", r"an interaction of columns is a tuple: \('subject', 'item'\)\."),
        ("subject:school", "column 'subject:school' not found; the columns of X are"),
        (5, "`groups` asks for column 5, but X has 5 columns"),
        (-6, "`groups` asks for column -6"),
        (1.5, "`groups` takes names or positions of columns, .* not a float"),
        ([1.5], "`groups`: 1.5 is neither a name nor a position"),
        ([None], "`groups`: None is neither a name nor a position"),
        (True, "`groups`: True is neither a name nor a position"),
        ([["subject", "item"]], r"`groups`: \['subject', 'item'\] is neither a name nor a"),
        ((), "`groups` has an empty tuple"),
        ([True, False], "`groups` is a mask of length 2, but X has 5 columns"),
        ({"subject": ["a"]}, "`groups` takes names or positions of columns, .* not a dict"),
        (["subject", "subject"], "`groups` lists 'subject' more than once"),
        (["subject", 0], "`groups` lists 'subject' more than once"),
        (("item", 1), "`groups` lists 'item' more than once"),
        ([("item", "subject"), ("subject", "item")], "`groups` lists 'item:subject' more than"),
    ],
)
def test_malformed_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        roles_of(pd.DataFrame(COLUMNS), groups)


def test_names_need_a_data_frame():
    for X in (np.ones((2, 2)), sp.csr_matrix(np.ones((2, 2))), pd.DataFrame(np.ones((2, 2)))):
        message = "`groups` asks for column 'g', but X has no column names: use positions or pass"
        with pytest.raises(ValueError, match=message):
            roles_of(X, "g")


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"groups": "subj"}, "groups"),
        ({"fixed_features": ["subj"]}, "fixed_features"),
        ({"groups": 1, "random_slopes": {1: "subj"}}, "random_slopes"),
    ],
)
def test_renamed_columns_are_found_and_both_cures_named(parameters, parameter):
    X = pd.DataFrame({"remainder__subj": [1], "scale__x": [1.0]})
    with pytest.raises(ValueError, match="column 'subj' not found; found 'remainder__subj'") as e:
        roles_of(X, **parameters)
    assert "use `verbose_feature_names_out=False`" in str(e.value)
    assert f"write 'remainder__subj' in `{parameter}`" in str(e.value)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    ("slopes", "expected"),
    [
        ({"subject": ["days"]}, ((2,), True, ("intercept", "days"))),
        ({"subject": "days"}, ((2,), True, ("intercept", "days"))),
        ({0: 2}, ((2,), True, ("intercept", "days"))),
        ({"subject": ("late", "days")}, ((3, 2), True, ("intercept", "late", "days"))),
        ({"subject": []}, ((), True, ("intercept",))),
        ({"subject": [False, False, True, True, False]}, ((2, 3), True, None)),
        ({"subject": lambda X: ["days"]}, ((2,), True, None)),
        ({"subject": {"slopes": "days"}}, ((2,), True, ("intercept", "days"))),
        ({"subject": {"slopes": ["days"], "intercept": False}}, ((2,), False, ("days",))),
        (UserDict(subject=UserDict(slopes=["days"])), ((2,), True, ("intercept", "days"))),
        ({}, ((), True, ("intercept",))),
    ],
)
def test_random_slopes(frame, slopes, expected):
    roles = roles_of(frame(COLUMNS), [0, "item"], slopes)
    subject, item = roles.factors
    assert (subject.slopes, subject.intercept) == expected[:2]
    if expected[2]:
        assert subject.coefficient_names == expected[2]
    assert item == FactorColumns("item", (1,), (), True, ("intercept",))
    assert roles.fixed == (2, 3, 4)


@pytest.mark.parametrize("key", [("subject", -4), "subject:item"])
def test_random_slopes_of_an_interaction(key):
    roles = roles_of(pd.DataFrame(COLUMNS), ("subject", -4), {key: "days"})
    assert roles.factors[0].slopes == (2,)


def test_random_slopes_by_position_have_default_names():
    (factor,) = roles_of(np.ones((2, 3)), 0, {"x0": [2, 1]}).factors
    assert factor.coefficient_names == ("intercept", "x2", "x1")


@pytest.mark.parametrize(
    ("slopes", "message"),
    [
        (["days"], r"`random_slopes` must be a dict such as \{'subject': \['days'\]\}, not a list"),
        ({"school": "days"}, "key 'school', .* not a grouping factor; .* are: 'subject', 'item'"),
        ({"days": "days"}, "key 'days', .* not a grouping factor"),
        ({0: "days"}, "key 0, .* not a grouping factor"),
        ({"item": "days", 1: "late"}, "`random_slopes` lists the factor 'item' more than once"),
        ({"subject": "day"}, "`random_slopes`: column 'day' not found; .* 'days'"),
        ({"subject": ["days", 2]}, "`random_slopes` lists 'days' more than once"),
        ({"subject": "item"}, "`random_slopes` lists 'item', also a grouping column"),
        ({"subject": None}, "`random_slopes` takes names or positions .* not a NoneType"),
        ({"subject": {"intercept": False}}, "factor 'subject' without intercept and slopes"),
        ({"subject": {"slope": "days"}}, "keys 'slopes' and 'intercept', but has 'slope'"),
    ],
)
def test_malformed_random_slopes(slopes, message):
    with pytest.raises(ValueError, match=message):
        roles_of(pd.DataFrame(COLUMNS), ["subject", 1], slopes)


def test_random_slopes_without_factors():
    with pytest.raises(ValueError, match="the factors are: none"):
        roles_of(pd.DataFrame(COLUMNS), None, {"subject": "days"})


@pytest.mark.parametrize(
    ("fixed_features", "fixed"),
    [
        ("days", (2,)),
        (2, (2,)),
        (["late", "days"], (3, 2)),
        ([-2], (3,)),
        ([], ()),
        ([False, False, True, True, False], (2, 3)),
        (lambda X: ["days"], (2,)),
    ],
)
def test_fixed_features(fixed_features, fixed):
    X = pd.DataFrame(COLUMNS)
    assert roles_of(X, "subject", {"subject": "days"}, fixed_features).fixed == fixed
    assert resolve_columns(table_of(X).header, X, fixed_features, "feature_blocks") == fixed


@pytest.mark.parametrize(
    ("fixed_features", "message"),
    [
        (["days", "subject"], "`fixed_features` lists 'subject', also a grouping column: take it"),
        (["item"], "`fixed_features` lists 'item', also a grouping column"),
        (["days", 2], "`fixed_features` lists 'days' more than once"),
        (["day"], "`fixed_features`: column 'day' not found"),
        ({"days": 1}, "`fixed_features` takes names or positions .* not a dict"),
    ],
)
def test_malformed_fixed_features(fixed_features, message):
    with pytest.raises(ValueError, match=message):
        roles_of(pd.DataFrame(COLUMNS), ["subject", ("subject", "item")], None, fixed_features)


def test_array_mode():
    X = np.ones((2, 2))
    roles = roles_of(X, None, {"group1": [1]}, array_factors=("group0", "group1"))
    assert roles.factors == (
        FactorColumns("group0", (), (), True, ("intercept",)),
        FactorColumns("group1", (), (1,), True, ("intercept", "x1")),
    )
    assert roles.fixed == (0, 1)
    with pytest.raises(ValueError, match="the factors are: 'group0'"):
        roles_of(X, None, {0: [1]}, array_factors=("group0",))
    with pytest.raises(ValueError, match="both to the constructor and to `fit`"):
        roles_of(X, [0], array_factors=("group0",))
