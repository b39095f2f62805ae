import subprocess
import sys

import numpy as np
import pytest
from reference_data import load_reference

from sklearn_mackay.datasets import load_sleepstudy


def test_arrays():
    bunch = load_sleepstudy()
    assert bunch.data.shape == (180, 2)
    assert bunch.data.dtype == object
    assert bunch.target.shape == (180,)
    assert bunch.target.dtype == np.float64
    assert bunch.feature_names == ["Days", "Subject"]
    assert bunch.target_names == ["Reaction"]
    assert bunch.frame is None


def test_values_are_those_of_the_reference_data():
    reference = load_reference("sleepstudy")
    X, y = load_sleepstudy(return_X_y=True)
    np.testing.assert_array_equal(X[:, 0].astype(int), reference.frame["Days"])
    assert X[:, 1].tolist() == reference.frame["Subject"].tolist()
    np.testing.assert_array_equal(y, reference.y)


def test_frame_holds_the_same_values():
    arrays, bunch = load_sleepstudy(), load_sleepstudy(as_frame=True)
    assert bunch.data.columns.tolist() == bunch.feature_names
    assert bunch.data["Days"].dtype == np.int64
    assert bunch.data.to_numpy(dtype=object).tolist() == arrays.data.tolist()
    assert bunch.target.name == "Reaction"
    np.testing.assert_array_equal(bunch.target, arrays.target)
    assert bunch.frame.columns.tolist() == ["Days", "Subject", "Reaction"]


def test_return_X_y_of_a_frame():
    X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    assert X.columns.tolist() == ["Days", "Subject"]
    assert y.name == "Reaction"


def test_days_and_subjects():
    data = load_sleepstudy().data
    assert sorted(set(data[:, 0])) == list(range(10))
    assert len(set(data[:, 1])) == 18
    assert all(isinstance(label, str) for label in data[:, 1])


def test_description_cites_the_study():
    description = load_sleepstudy().DESCR
    assert "Belenky" in description
    assert "10.1046/j.1365-2869.2003.00337.x" in description


def test_each_call_returns_fresh_objects():
    first = load_sleepstudy()
    first.data[0, 0] = -1
    first.feature_names.append("other")
    second = load_sleepstudy()
    assert second.data[0, 0] == 0
    assert second.feature_names == ["Days", "Subject"]


def test_missing_pandas_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas"):
        load_sleepstudy(as_frame=True)


@pytest.mark.slow
def test_arrays_do_not_need_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from sklearn_mackay.datasets import load_sleepstudy\n"
        "assert load_sleepstudy().data.shape == (180, 2)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
