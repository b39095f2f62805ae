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
from sklearn_mackay.model.export import SCHEMA


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
    with pytest.raises(
        ValueError, match="which this fit does not hold. It was read from JSON text"
    ):
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


RICH: dict[str, tuple[dict[str, Any], int]] = {
    "slopes": ({"groups": "name", "random_slopes": {"name": ["x"]}}, 1),
    "a block and an interaction": (
        {
            "groups": [("name", "part")],
            "feature_blocks": {"b": ["z"]},
            "fixed_variances": {"b": 1.0},
        },
        1,
    ),
    "outputs": ({"groups": ["part", "name"], "random_slopes": {"name": ["x"]}}, 2),
}


@pytest.fixture(params=RICH)
def rich_document(request, frame, y) -> dict[str, Any]:
    parameters, n_outputs = RICH[request.param]
    Y = y if n_outputs == 1 else np.column_stack([y, y[::-1]])
    model = MacKayMixedRegressor(**parameters).fit(frame[["x", "z", "name", "part"]], Y)
    return json.loads(model.to_json())


def test_what_is_no_json_is_refused():
    for text in ("", "{", "3", "[]", '{"format": "another"}', "[" * 100_000):
        with pytest.raises(ValueError, match="This text is no model to be read"):
            MacKayMixedRegressor.from_json(text)


def change(document: dict[str, Any], path: str, value: Any) -> None:
    """Set what stands at a path such as ``attributes/coef_/shape``."""
    *parents, last = path.split("/")
    for key in parents:
        document = document[int(key) if isinstance(document, list) else key]
    place = int(last) if isinstance(document, list) else last
    if value is None:
        del document[place]
    else:
        document[place] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 1, f"it has schema 1, and this version reads schema {SCHEMA}"),
        ("schema", float(SCHEMA), f"it has schema {SCHEMA}.0, and"),
        ("schema", None, "it has schema None"),
        ("attributes", None, "'attributes' is missing"),
        ("attributes/coef_", None, "'coef_' is missing"),
        ("parameters/alpha", None, "'alpha' is missing from its parameters"),
        ("parameters/more", 1, "'more' does not belong to its parameters"),
        ("parameters/method", "em", "`method` must be one of"),
        ("parameters/effects", "item", "`effects` must be"),
        ("parameters/fit_intercept", "no", "`fit_intercept` must be one of True, False"),
        ("parameters/random_state", "x", "'x' cannot be used to seed"),
        ("parameters/fixed_variances", {"dict": [["item", 1.0]]}, "names 'item', which is no comp"),
        ("attributes/coef_/array", 2 * [{"float": "nan"}], "numbers in coef_ are not finite"),
        ("attributes/coef_/array", [1.0, 1.0], "numbers in coef_ are not finite for features al"),
        ("attributes/intercept_", {"float": "inf"}, "numbers in intercept_ are not finite"),
        ("attributes/intercept_", "none", "intercept_ is not of type float"),
        ("attributes/intercept_", 3, "intercept_ is not of type float"),
        ("attributes/predict", 5, "'predict' does not belong to its attributes"),
        ("attributes/unknown_groups", "error", "'unknown_groups' does not belong to its attr"),
        ("attributes/_models", 5, "'_models' does not belong to its attributes"),
        ("attributes/__class__", 5, "'__class__' does not belong to its attributes"),
        ("attributes/coef_/shape", [1, 2], r"coef_ has shape \(1, 2\) and not \(2,\)"),
        ("attributes/coef_/shape", [3], "cannot reshape array"),
        ("attributes/coef_/dtype", "V8", "it has an array of type 'V8'"),
        ("attributes/coef_/dtype", "<U99999999", "it has an array of type"),
        ("attributes/coef_", {"call": "os.system"}, "it has an object with the keys \\['call'\\]"),
        ("attributes/n_features_in_", 1, "it uses columns beyond the 1 that it has"),
        ("attributes/coef_/dtype", "float32", "coef_ is not of type float"),
        (
            "attributes/coef_/array",
            ["1.5", "1.5"],
            "an array of type 'float64' has a value of type str",
        ),
        ("attributes/coef_/shape", [10**12], "cannot reshape array of 2 values"),
        ("attributes/coef_/shape", [-1], "cannot reshape array"),
        ("attributes/aic_", {"float": "1e3"}, "it has '1e3' for a number"),
        ("attributes/n_iter_", 0, "numbers in n_iter_ are not positive and finite"),
        ("attributes/n_iter_", 2.0, "n_iter_ is not of type int"),
        ("attributes/converged_", 1, "converged_ is not of type bool"),
        ("attributes/solver_", "another", "solver_ must be 'exact' or 'iterative'"),
        ("attributes/_diagonal", {"dict": [["name", 0]]}, "_diagonal is not true or false"),
        ("attributes/_diagonal", {"dict": []}, "'name' is missing from _diagonal"),
        ("attributes/kernel_", "another", "kernel_ must be 'lapack' or 'tensorflow'"),
        ("attributes/_history/0/dict/0/1", 1, "a name must be a string"),
        ("attributes/_history/0/dict", [["step", "x"], ["step", "x"]], "a key stands twice"),
        ("attributes/_fixed_names/tuple", ["intercept", "z"], "_fixed_names are not the names"),
        ("attributes/fixed_features_/array", ["z", "name"], "fixed_features_ are not the names"),
        ("attributes/feature_names_in_/array", ["x", "x"], "it does not have 2 names of columns"),
        ("attributes/feature_names_in_/array", ["x", "y"], "name of 'name' is not that of its c"),
        ("attributes/groups_", ["other"], "'groups_' does not belong to its attributes"),
        ("attributes/n_features_in_", True, "n_features_in_ must be a positive integer"),
        ("attributes/feature_names_in_/array", ["x"], "cannot reshape array"),
        ("fixed", [-1], "positions of columns must be integers that are not negative"),
        ("fixed", [True], "positions of columns must be integers that are not negative"),
        ("fixed", [0, 0], "positions of columns must be distinct"),
        ("fixed", [1], "a grouping column is a feature too"),
        ("blocks", {"dict": [["b", [0]]]}, "a column is in two blocks of features"),
        ("blocks", {"dict": [["b", []]]}, "a block of features has no columns"),
        ("blocks", {"dict": [["residual", [0]]]}, "a column is in two blocks of features"),
        ("blocks", {"dict": [["name", []]]}, "two of its components have one name"),
        ("factors/0/columns", [1, 0], "levels of 'name' are not those of its columns"),
        ("factors/0/intercept", 1, "the intercept of a factor must be true or false"),
        ("factors/0/name", 5, "a name must be a string"),
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


def read_or_refused(text):
    """A fit from its text, or why not."""
    try:
        return MacKayMixedRegressor.from_json(text), ""
    except ValueError as error:
        return None, str(error)


def predicted_or_refused(model, rows):
    try:
        return model.predict(rows), ""
    except ValueError as error:
        return None, str(error)


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


COVARIANCES = {
    "_vcov": [1.0, 2.0, 2.0, 1.0],
    "variance_components_": [1.0, 2.0, 2.0, 1.0],
    "asymmetric": [1.0, 0.5, 0.4, 1.0],
    "negative": [-1.0, 0.0, 0.0, 1.0],
    "correlated with nothing": [0.0, 0.5, 0.5, 1.0],
    "not a number": [{"float": "nan"}, 0.0, 0.0, 1.0],
}


@pytest.mark.parametrize("entries", COVARIANCES.values(), ids=COVARIANCES)
@pytest.mark.parametrize("path", ["_vcov", "variance_components_/dict/0/1"])
def test_what_is_no_covariance_is_refused(document, path, entries):
    change(document, f"attributes/{path}/array", entries)
    with pytest.raises(ValueError, match="not a covariance, symmetric and positive semi-definite"):
        MacKayMixedRegressor.from_json(json.dumps(document))


def test_a_covariance_with_a_dropped_column_comes_back(frame, y):
    X = frame[["x", "name"]].assign(twice=2.0 * frame["x"])
    with pytest.warns(UserWarning, match="are combinations of the others"):
        model = MacKayMixedRegressor(groups="name").fit(X, y)
    assert_array_equal(MacKayMixedRegressor.from_json(model.to_json()).vcov_, model.vcov_)


def test_text_and_fit_have_the_same_attributes(frame, y):
    """A new fitted attribute belongs into the table of `_export`."""
    model = MacKayMixedRegressor(groups="name").fit(frame[["x", "name"]], y)
    model.note = "of the user"
    read = MacKayMixedRegressor.from_json(model.to_json())
    assert vars(read).keys() == vars(model).keys() - {"note"}
    for name, value in vars(read).items():
        if name not in ("_models", "_marks", "_statistics"):
            assert type(value) is type(vars(model)[name])


def test_times_with_a_zone_come_back(frame, y):
    X = frame[["x", "day"]].assign(day=frame["day"].dt.tz_localize("Europe/Berlin"))
    model = MacKayMixedRegressor(groups="day").fit(X, y)
    read = MacKayMixedRegressor.from_json(model.to_json())
    tokyo = X.assign(day=X["day"].dt.tz_convert("Asia/Tokyo"))
    assert_array_equal(read.predict(tokyo), model.predict(X))
    with pytest.warns(UserWarning, match="it saw times with a time zone"):
        read.predict(X.assign(day=frame["day"]))


def test_a_parameter_set_after_the_fit_is_checked_before_it_is_written(frame, y):
    model = MacKayMixedRegressor(groups="name").fit(frame[["x", "name"]], y)
    with pytest.raises(ValueError, match="`method` must be one of"):
        model.set_params(method="em").to_json()


BOMBS = {
    "a number as text": "9" * 5000,
    "NaN": '{"format": NaN}',
    "Infinity": '{"format": -Infinity}',
    "a key twice": '{"format": 1, "format": 2}',
    "deep": '{"a":' * 50_000,
    "surrogate": '"\\ud800"',
    "bytes": b"\xff\xfe\x00",
    "no text": None,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_texts_made_to_break_a_reader_are_refused(text):
    with pytest.raises(ValueError, match="This text is no model to be read"):
        MacKayMixedRegressor.from_json(text)


@pytest.mark.parametrize(
    "value",
    [
        {"array": [], "shape": [10**18], "dtype": "float64"},
        {"array": [], "shape": [10**40, 0, 10**40], "dtype": "float64"},
        {"array": [10**400], "shape": [1], "dtype": "float64"},
        {"array": [10**400], "shape": [1], "dtype": "int64"},
        {"array": ["x" * 10_000, *["x"] * 100_000], "shape": [100_001], "dtype": "str"},
        {"array": [0.5], "shape": 1, "dtype": "float64"},
        {"array": [0.5], "shape": [1], "dtype": ["float64"]},
        {"array": [0.5], "shape": [1], "dtype": "float64\n"},
        {"array": {"tuple": [0.5]}, "shape": [1], "dtype": "float64"},
        {"array": [[]], "shape": [1], "dtype": "object"},
        {"dict": [[[], 1]]},
        {"dict": 5},
    ],
)
@pytest.mark.parametrize("path", ["attributes/coef_", "attributes/fixed_features_"])
def test_arrays_made_to_break_a_reader_are_refused(document, path, value):
    change(document, path, value)
    with pytest.raises(ValueError, match="This text is no model to be read"):
        MacKayMixedRegressor.from_json(json.dumps(document))


def objects_of(node: Any) -> list[dict[str, Any]]:
    """All objects of a text, from the outside in."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [node] * isinstance(node, dict) + [found for one in inner for found in objects_of(one)]


def test_every_key_is_required_and_no_other_is_taken(rich_document):
    document = rich_document
    for i, original in enumerate(objects_of(document)):
        for key in [*original, None]:
            damaged = json.loads(json.dumps(document))
            node = objects_of(damaged)[i]
            if key is None:
                node["more"] = 1
            else:
                del node[key]
            with pytest.raises(ValueError, match="This text is no model to be read"):
                MacKayMixedRegressor.from_json(json.dumps(damaged))


OTHER_TYPES = (None, True, "x", [], {}, {"float": "nan"}, {"tuple": []}, -1, 10**30, 0.5)


@pytest.mark.slow
def test_a_value_of_another_type_is_refused(rich_document):
    """Parameters and labels aside, which may have values of several types."""
    document = rich_document
    paths = [path for path in leaves(document) if path[0] != "parameters" and "labels" not in path]
    assert len(paths) > 100
    for path in paths:
        for value in OTHER_TYPES:
            damaged = json.loads(json.dumps(document))
            node = damaged
            for key in path[:-1]:
                node = node[key]
            original = node[path[-1]]
            same_type = type(original) is type(value)
            # A whole number may stand for 7.0 within an array, and NaN for what is not known.
            if same_type or (
                isinstance(original, float) and value in (-1, 10**30, {"float": "nan"})
            ):
                continue
            node[path[-1]] = value
            with pytest.raises(ValueError, match="This text is no model to be read"):
                MacKayMixedRegressor.from_json(json.dumps(damaged))


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
            read, reason = read_or_refused(json.dumps(damaged))
            if read is None:
                assert reason.startswith("This text is no model to be read: ")
                refused += 1
                continue
            # A slope of 1e308 is a number, but its product with a column may overflow.
            with np.errstate(over="ignore" if value == 1e308 else "warn"):
                predicted, reason = predicted_or_refused(read, rows)
            if predicted is None:  # a parameter of predict, or the name of a column
                assert reason
                continue
            assert not np.any(np.isnan(predicted))
            assert value == 1e308 or np.all(np.isfinite(predicted))
    assert refused > 2 * len(paths)
