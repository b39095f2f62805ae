"""A fit as JSON text: what it predicts after reading, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_mackay import MacKayMixedRegressor


@pytest.fixture
def frame(rng) -> pd.DataFrame:
    n = 200
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "name": [f"n{i}" for i in rng.integers(9, size=n)],
            "number": rng.integers(7, size=n) + 2**40,
            "day": np.datetime64("2026-01-01") + rng.integers(6, size=n),
            "part": rng.integers(3, size=n),
            "mixed": np.array([1, "1", 2.5, True], dtype=object)[rng.integers(4, size=n)],
        }
    )


@pytest.fixture
def y(rng, frame) -> np.ndarray:
    effects = rng.normal(size=7)[frame["number"] - 2**40]
    return frame["x"].to_numpy() + effects + rng.normal(size=len(frame))


MODELS: dict[str, dict[str, Any]] = {
    "strings": {"groups": "name"},
    "large integers": {"groups": ["number"]},
    "dates": {"groups": ["day"]},
    "labels of several kinds": {"groups": ["mixed"]},
    "an interaction": {"groups": ["name", ("number", "part")]},
    "slopes": {"groups": "name", "random_slopes": {"name": ["x"]}},
    "slopes alone": {
        "groups": ["name"],
        "random_slopes": {"name": {"slopes": ["x", "z"], "intercept": False}},
        "covariance": {"name": "diagonal"},
    },
    "a block": {"groups": "name", "feature_blocks": {"both": ["x", "z"]}},
    "held variances": {"groups": "name", "fixed_variances": {"name": np.float64(2.0)}},
    "no groups": {"alpha": 2.0},
}


@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
def test_what_is_read_predicts_the_same(frame, y, parameters):
    groups = parameters.get("groups", [])
    named = [groups] if isinstance(groups, str) else groups
    labels = [
        column for group in named for column in ([group] if isinstance(group, str) else group)
    ]
    columns = ["x", "z", *labels]
    X = frame[columns]
    model = MacKayMixedRegressor(**parameters).fit(X, y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    new = X.iloc[:3].assign(**dict.fromkeys(labels))
    for rows in (X, new):
        assert_array_equal(read.predict(rows), model.predict(rows))
    assert read.score(X, y) == model.score(X, y)
    assert read.summary().to_text().splitlines()[:6] == model.summary().to_text().splitlines()[:6]
    for name, levels in model.group_levels_.items():
        assert read.group_levels_[name].tolist() == levels.tolist()
    assert read.to_json() == model.to_json()


def test_several_outputs_and_columns_by_position(rng):
    X = np.column_stack([rng.normal(size=90), rng.integers(8, size=90)])
    Y = rng.normal(size=(90, 3)) + X[:, :1]
    model = MacKayMixedRegressor(groups=[1]).fit(X, Y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    assert_array_equal(read.predict(X), model.predict(X))
    assert not hasattr(read, "feature_names_in_")


def test_labels_given_apart(frame, y):
    model = MacKayMixedRegressor().fit(frame[["x"]], y, groups=frame["name"])
    read = MacKayMixedRegressor.from_json(model.to_json())
    expected = model.predict(frame[["x"]], groups=frame["name"])
    assert_array_equal(read.predict(frame[["x"]], groups=frame["name"]), expected)


def test_parameters_come_back_as_given(frame, y):
    parameters = {
        "groups": ["name", ("number", "part")],
        "covariance": {"name": "full"},
        "tol": 1e-6,
    }
    model = MacKayMixedRegressor(**parameters).fit(frame[["x", "name", "number", "part"]], y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    assert read.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        clone(read).predict(frame)


def test_how_sure_it_is_is_left_out(frame, y):
    X = frame[["x", "name"]]
    model = MacKayMixedRegressor(groups="name").fit(X, y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    assert_array_equal(read.coef_std_, model.coef_std_)
    with pytest.raises(ValueError, match="covariance of the effects, which the fit did not keep"):
        read.predict(X, return_std=True)


def test_an_unfitted_estimator_has_nothing_to_write():
    with pytest.raises(NotFittedError):
        MacKayMixedRegressor().to_json()


def test_what_json_cannot_hold_is_named(frame, y):
    model = MacKayMixedRegressor(groups="name", random_state=np.random.RandomState(0))
    model.fit(frame[["x", "name"]], y)
    message = "`random_state` is of type RandomState, which JSON cannot hold"
    with pytest.raises(ValueError, match=message):
        model.to_json()


def test_an_infinite_likelihood_comes_back(frame):
    y = 2.0 * frame["x"]
    with pytest.warns(UserWarning, match="fits y exactly"):
        model = MacKayMixedRegressor(groups="name").fit(frame[["x", "name"]], y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    assert read.log_likelihood_ == model.log_likelihood_ == np.inf


@pytest.mark.slow
def test_reading_and_predicting_need_no_tensorflow(frame, y, tmp_path):
    X = frame[["x", "name"]]
    (tmp_path / "model.json").write_text(MacKayMixedRegressor(groups="name").fit(X, y).to_json())
    code = """
import sys
sys.modules["tensorflow"] = None
from sklearn_mackay import MacKayMixedRegressor
import pandas as pd
model = MacKayMixedRegressor.from_json(open(sys.argv[1]).read())
print(model.predict(pd.DataFrame({"x": [0.0], "name": ["n1"]})).shape)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1,)"


@pytest.fixture
def document(frame, y) -> dict[str, Any]:
    slopes = {"groups": "name", "random_slopes": {"name": ["x"]}}
    return json.loads(MacKayMixedRegressor(**slopes).fit(frame[["x", "name"]], y).to_json())


def test_what_is_no_json_is_refused():
    for text in ("", "{", "3", "[]", '{"format": "another"}', "[" * 100_000):
        with pytest.raises(ValueError, match="This text is no model to be read"):
            MacKayMixedRegressor.from_json(text)


def change(document: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a path such as ``attributes/coef_/shape``."""
    *parents, last = path.split("/")
    for key in parents:
        document = document[int(key) if isinstance(document, list) else key]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "it has schema 2, and this version reads schema 1"),
        ("schema", None, "it has schema None"),
        ("attributes", None, "'attributes' is missing"),
        ("attributes/coef_", None, "'coef_' is missing"),
        ("parameters/alpha", None, "its parameters are not those of the estimator"),
        ("parameters/more", 1, "its parameters are not those of the estimator"),
        ("attributes/coef_/array", [{"float": "nan"}], "numbers in coef_ are not finite"),
        ("attributes/intercept_", {"float": "inf"}, "numbers in intercept_ are not finite"),
        ("attributes/intercept_", "none", "could not convert string to float"),
        ("attributes/coef_/shape", [1, 1], r"coef_ has shape \(1, 1\) and not \(1,\)"),
        ("attributes/coef_/shape", [2], "cannot reshape array"),
        ("attributes/coef_/dtype", "V8", "it has an array of type 'V8'"),
        ("attributes/coef_/dtype", "<U99999999", "it has an array of type"),
        ("attributes/coef_", {"call": "os.system"}, "it has an object with the keys \\['call'\\]"),
        ("attributes/n_features_in_", 1, "it uses columns beyond the 1 that it has"),
        ("attributes/groups_", ["other"], "names of its factors differ"),
        ("attributes/feature_names_in_/array", ["x"], "cannot reshape array"),
        ("fixed", [-1], "positions of columns must be integers that are not negative"),
        ("fixed", [True], "positions of columns must be integers that are not negative"),
        ("factors/0/slopes", [], "coefficients of 'name' are not its columns"),
        ("factors/0/labels", [], "no model to be read"),
        ("factors/0/labels/0/array", ["n0"] * 9, "levels of 'name' are not distinct and in order"),
        ("factors/0/labels/0/array", [f"n{8 - i}" for i in range(9)], "not distinct and in order"),
    ],
)
def test_what_does_not_fit_together_is_refused(document, path, value, message):
    change(document, path, value)
    with pytest.raises(ValueError, match=message):
        MacKayMixedRegressor.from_json(json.dumps(document))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all that is no list and no object."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    return [
        leaf
        for key, value in items
        for leaf in (
            leaves(value, (*path, key)) if isinstance(value, dict | list) else [(*path, key)]
        )
    ]


@pytest.mark.slow
def test_a_damaged_text_is_refused_or_predicts_numbers(document, frame):
    """Anything may happen to one value, but no other exception, and nothing that is not finite."""
    rows, refused = frame[["x", "name"]], 0
    paths = leaves(document)
    for value in (None, "x", -1, 1e300, 1e308, {}, [], True):
        for path in paths:
            damaged = json.loads(json.dumps(document))
            node = damaged
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            try:
                read = MacKayMixedRegressor.from_json(json.dumps(damaged))
            except ValueError:
                refused += 1
                continue
            try:
                # A slope of 1e308 is a number, but its product with a column may overflow.
                with np.errstate(over="ignore" if value == 1e308 else "warn"):
                    predicted = read.predict(rows)
                assert not np.any(np.isnan(predicted))
                assert value == 1e308 or np.all(np.isfinite(predicted))
            except ValueError as error:  # a parameter of predict, or the name of a column
                assert str(error)
    assert refused > 2 * len(paths)
