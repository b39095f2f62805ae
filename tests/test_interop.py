"""Fits written and read by skops, and by mlflow, whose default format is skops'."""

from __future__ import annotations

import datetime as dt
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mackay import MacKayMixedRegressor

PACKAGE = "sklearn_mackay."


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, np.ndarray]:
    """Three features, and labels of many kinds."""
    rng = np.random.default_rng(0)
    n = 120
    X = pd.DataFrame(rng.normal(size=(n, 3)), columns=["x", "z", "w"])
    name, code = rng.integers(0, 8, n), rng.integers(0, 5, n)
    X = X.assign(name=[f"s{i}" for i in name], code=code)
    X["day"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(code, unit="D")
    X["date"] = [dt.date(2020, 1, 1 + i) for i in code]
    y = X["x"] + rng.normal(size=8)[name] + rng.normal(size=5)[code] + rng.normal(size=n)
    return X, y.to_numpy()


FEATURES = ["x", "z", "w"]
MODELS = {
    "none": ({}, FEATURES),
    "one": ({"groups": "name"}, [*FEATURES, "name"]),
    "two": ({"groups": ["name", "code"]}, [*FEATURES, "name", "code"]),
    "slopes": (
        {"groups": ["name", "code"], "random_slopes": {"name": ["x"]}},
        [*FEATURES, "name", "code"],
    ),
    "blocks": (
        {"groups": ["name", "code"], "feature_blocks": {"a": ["x"], "b": ["z", "w"]}},
        [*FEATURES, "name", "code"],
    ),
    "penalised": ({"groups": "name", "alpha": "auto"}, [*FEATURES, "name"]),
    "nested": ({"groups": ["name", ("name", "code")]}, [*FEATURES, "name", "code"]),
    "slopes of an interaction": (
        {"groups": [("name", "code")], "random_slopes": {"name:code": ["x"]}},
        [*FEATURES, "name", "code"],
    ),
    "dates": ({"groups": ["day", "name"]}, [*FEATURES, "day", "name"]),
    "dates in pairs": ({"groups": [("day", "code")]}, [*FEATURES, "day", "code"]),
    "no covariance": (
        {"groups": ["name", "code"], "store_covariance": False},
        [*FEATURES, "name", "code"],
    ),
}


def fitted(data: Any, name: str, outputs: int = 1) -> tuple[Any, pd.DataFrame]:
    """Return a pipeline that scales a feature, and its rows."""
    parameters, columns = MODELS[name]
    X, y = data[0][columns], data[1]
    scaler = make_column_transformer(
        (StandardScaler(), ["x"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    target = y if outputs == 1 else np.column_stack([y, y**2])
    return make_pipeline(scaler, MacKayMixedRegressor(**parameters)).fit(X, target), X


def untrusted(skops: ModuleType, text: bytes) -> list[str]:
    """Types that must be trusted, of which all but the package's own are a fault."""
    types = skops.get_untrusted_types(data=text)
    assert [name for name in types if not name.startswith(PACKAGE)] == []
    return types


def assert_same(model: Any, copy: Any, X: pd.DataFrame) -> None:
    """Equal to the last bit, in all that a fit tells."""
    a, b = model[-1], copy[-1]
    assert_array_equal(copy.predict(X), model.predict(X))
    assert a.group_levels_.keys() == b.group_levels_.keys()
    for name in a.groups_:
        assert a.group_levels_[name].tolist() == b.group_levels_[name].tolist()
        assert_array_equal(a.random_effects_[name], b.random_effects_[name])
    assert_array_equal(a.coef_std_, b.coef_std_)
    if a.store_covariance:
        for one, other in zip(
            model.predict(X, return_std=True), copy.predict(X, return_std=True), strict=True
        ):
            assert_array_equal(one, other)
        rows = model[:-1].transform(X) if len(model) > 1 else X
        assert_array_equal(a.sample_y(rows, 2), b.sample_y(rows, 2))
    if np.ndim(a.intercept_) == 0:
        assert str(a.summary()) == str(b.summary())


def test_cross_tables_have_keys_that_every_format_can_write(data):
    model, _ = fitted(data, "blocks")
    (kept,) = model[-1]._models
    cross = kept.crossproducts.cross
    assert [list(row) for row in cross.values()] == [[1, 2, 3], [2, 3], [3], []]
    assert {type(key) for row in (cross, *cross.values()) for key in row} == {int}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_skops(data, name, outputs):
    skops = pytest.importorskip("skops.io")
    model, X = fitted(data, name, outputs)
    for _ in range(2):  # the second time with what predicting may have kept
        text = skops.dumps(model)
        assert_same(model, skops.loads(text, trusted=untrusted(skops, text)), X)


def test_skops_of_dates_that_are_objects(data):
    skops = pytest.importorskip("skops.io")
    X, y = data[0][["x", "date", "name"]], data[1]
    model = make_pipeline(MacKayMixedRegressor(groups=["date", ("date", "name")])).fit(X, y)
    text = skops.dumps(model)
    types = skops.get_untrusted_types(data=text)
    assert all(name.startswith(PACKAGE) for name in types)
    assert_same(model, skops.loads(text, trusted=types), X)


def test_skops_of_columns_chosen_by_type(data):
    skops = pytest.importorskip("skops.io")
    X = data[0][["x", "name", "code"]].astype({"name": "category", "code": "category"})
    for groups in ("from_dtype", make_column_selector(dtype_include="category")):
        model = make_pipeline(MacKayMixedRegressor(groups=groups)).fit(X, data[1])
        text = skops.dumps(model)
        types = skops.get_untrusted_types(data=text)
        assert_same(model, skops.loads(text, trusted=types), X)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_skops_of_a_block_wider_than_the_rows(data, rng, container):
    skops = pytest.importorskip("skops.io")
    X, y = data
    wide = rng.normal(size=(len(y), 200)) * (rng.random((len(y), 200)) < 0.2)
    wide = container(np.column_stack([X["code"], wide]))
    model = MacKayMixedRegressor(groups=[0], feature_blocks={"wide": list(range(1, 201))}).fit(
        wide, y
    )
    text = skops.dumps(model)
    copy = skops.loads(text, trusted=skops.get_untrusted_types(data=text))
    for one, other in zip(
        model.predict(wide, return_std=True), copy.predict(wide, return_std=True), strict=True
    ):
        assert_array_equal(one, other)


def test_a_fit_without_covariance_has_four_types(data):
    skops = pytest.importorskip("skops.io")
    model, _ = fitted(data, "no covariance")
    assert [name.split(".")[-1] for name in untrusted(skops, skops.dumps(model))] == [
        "MacKayMixedRegressor",
        "Grouping",
        "ColumnRoles",
        "FactorColumns",
    ]


@pytest.mark.filterwarnings("ignore")  # those of mlflow and what it imports are not ours
@pytest.mark.parametrize("name", ["two", "blocks"])
def test_mlflow(data, name, tmp_path):
    skops, mlflow = pytest.importorskip("skops.io"), pytest.importorskip("mlflow.sklearn")
    model, X = fitted(data, name)
    path = str(tmp_path / "model")
    types = untrusted(skops, skops.dumps(model))
    mlflow.save_model(model, path, skops_trusted_types=types, pip_requirements=["sklearn_mackay"])
    assert_same(model, mlflow.load_model(path), X)
