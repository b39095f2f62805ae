import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference_data import PACKAGE_DATA, load_reference

from sklearn_mackay import MacKayMixedRegressor, datasets
from sklearn_mackay.datasets import load_sleepstudy, make_ratings

CRITERION_ATOL = 1e-5  # lme4's optimiser ran to 1e-10
VARIANCE_RTOL = 1e-4  # the criterion is flat: 1e-10 of it is 1e-5 of a variance
SUM_RTOL = 1e-12  # of a column whose sum is known: rounding of some thousand terms
PARTS_RTOL = 1e-14  # a handful of roundings
Z = 5  # Monte Carlo error: one test in a million is beyond it by chance

# By name: rows, features with what their cells are, response, and levels of the label columns.
TABLES = {
    "cake": (270, {"recipe": str, "temp": int, "replicate": str}, "angle", [3, 15]),
    "dyestuff": (30, {"Batch": str}, "Yield", [6]),
    "dyestuff2": (30, {"Batch": str}, "Yield", [6]),
    "pastes": (60, {"batch": str, "sample": str}, "strength", [10, 30]),
    "penicillin": (144, {"plate": str, "sample": str}, "diameter", [24, 6]),
    "sleepstudy": (180, {"Days": int, "Subject": str}, "Reaction", [18]),
}
CITED = {
    "cake": ["Cook", "Cochran", "1938"],
    "dyestuff": ["Davies", "1972", "6.4"],
    "dyestuff2": ["Box", "Tiao", "1973"],
    "pastes": ["Davies", "1972", "6.5"],
    "penicillin": ["Davies", "1972", "6.6"],
    "sleepstudy": ["Belenky", "10.1046/j.1365-2869.2003.00337.x"],
}
# Sums of the response. The data are balanced, so that they are the rows times lme4's fixed part at
# the mean of the feature.
SUMS = {
    "cake": 8673.0,
    "dyestuff": 45825.0,
    "dyestuff2": 169.968,
    "pastes": 3603.2,
    "penicillin": 3308.0,
    "sleepstudy": 53731.4205,
}


def loader(name):
    return getattr(datasets, f"load_{name}")


@pytest.mark.parametrize("name", TABLES)
def test_arrays(name):
    n, features, target, _ = TABLES[name]
    bunch = loader(name)()
    assert bunch.data.shape == (n, len(features))
    assert bunch.data.dtype == object
    assert bunch.target.shape == (n,)
    assert bunch.target.dtype == np.float64
    assert bunch.feature_names == list(features)
    assert bunch.target_names == [target]
    assert bunch.frame is None


@pytest.mark.parametrize("name", TABLES)
def test_cells_are_labels_or_numbers(name):
    _, features, _, n_levels = TABLES[name]
    columns = dict(zip(features, loader(name)().data.T, strict=True))
    assert {column: {*map(type, cells)} for column, cells in columns.items()} == {
        column: {kind} for column, kind in features.items()
    }
    labels = [set(columns[column]) for column, kind in features.items() if kind is str]
    assert [*map(len, labels)] == n_levels


@pytest.mark.parametrize("name", TABLES)
def test_sum_of_the_response(name):
    assert_allclose(loader(name)().target.sum(), SUMS[name], rtol=SUM_RTOL)


@pytest.mark.parametrize("name", TABLES)
def test_frame_holds_the_same_values(name):
    _, features, target, _ = TABLES[name]
    arrays, bunch = loader(name)(), loader(name)(as_frame=True)
    assert bunch.data.columns.tolist() == bunch.feature_names
    assert bunch.data.to_numpy(dtype=object).tolist() == arrays.data.tolist()
    numbers = [column for column, kind in features.items() if kind is int]
    assert all(bunch.data[column].dtype == np.int64 for column in numbers)
    assert bunch.target.name == target
    assert_array_equal(bunch.target, arrays.target)
    assert bunch.frame.columns.tolist() == [*features, target]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("as_frame", [False, True])
def test_return_X_y_is_data_and_target(name, as_frame):
    bunch = loader(name)(as_frame=as_frame)
    X, y = loader(name)(as_frame=as_frame, return_X_y=True)
    assert type(X) is type(bunch.data)
    assert_array_equal(X, bunch.data)
    assert_array_equal(y, bunch.target)


@pytest.mark.parametrize("name", TABLES)
def test_description_is_of_these_data_and_cites_their_source(name):
    description = loader(name)().DESCR
    assert [words for words in [*CITED[name], f"{name}.csv"] if words not in description] == []


def test_every_file_has_a_loader_and_a_description():
    stems = [{path.stem for path in PACKAGE_DATA.glob(f"*.{end}")} for end in ("csv", "md")]
    assert stems == [set(TABLES), set(TABLES)]


@pytest.mark.parametrize("name", sorted({*TABLES} - {"cake"}))
def test_fit_of_the_arrays_is_that_of_lme4(name):
    reference = load_reference("sleepstudy__intercept" if name == "sleepstudy" else name)
    X, y = loader(name)(return_X_y=True)
    groups = [loader(name)().feature_names.index(factor) for factor in reference.spec["groups"]]
    model = MacKayMixedRegressor(groups=groups).fit(X, y)
    assert_allclose(
        -2.0 * model.log_likelihood_, reference.reml["criterion"], rtol=0, atol=CRITERION_ATOL
    )
    assert_allclose(
        model.variance_components_["residual"], reference.reml["sigma2"], rtol=VARIANCE_RTOL
    )
    assert model.singular_ == reference.reml["singular"]


def test_each_call_returns_fresh_objects():
    first = load_sleepstudy()
    first.data[0, 0] = -1
    first.feature_names.append("other")
    second = load_sleepstudy()
    assert second.data[0, 0] == 0
    assert second.feature_names == ["Days", "Subject"]


@pytest.mark.parametrize("name", [*(f"load_{name}" for name in TABLES), "make_ratings"])
def test_missing_pandas_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=rf"^{name}\(as_frame=True\) needs pandas"):
        getattr(datasets, name)(as_frame=True)


@pytest.mark.slow
def test_arrays_do_not_need_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from sklearn_mackay.datasets import load_sleepstudy, make_ratings\n"
        "assert load_sleepstudy().data.shape == (180, 2)\n"
        "assert make_ratings(10)[0].shape == (10, 4)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ratings_as_arrays_and_as_a_frame_are_the_same():
    X, y = make_ratings(300, 40, 20, n_features=3, random_state=0)
    frame, series = make_ratings(300, 40, 20, n_features=3, random_state=0, as_frame=True)
    assert X.shape == (300, 5)
    assert X.dtype == y.dtype == np.float64
    assert frame.columns.tolist() == ["user", "item", "x1", "x2", "x3"]
    assert [*map(str, frame.dtypes)] == ["int32"] * 2 + ["float64"] * 3
    assert series.name == "rating"
    assert_array_equal(frame, X)
    assert_array_equal(series, y)


def test_ratings_without_features():
    X, y = make_ratings(50, n_features=0, random_state=0)
    assert X.shape == (50, 2)
    assert X.dtype == np.float64
    frame, _ = make_ratings(50, n_features=0, random_state=0, as_frame=True)
    assert frame.columns.tolist() == ["user", "item"]
    assert_array_equal(frame, X)


def test_random_state_decides():
    first, again, other = (make_ratings(50, random_state=seed)[1] for seed in (3, 3, 4))
    assert_array_equal(first, again)
    assert not np.any(first == other)


def test_a_random_state_instance_moves_on():
    instance, same = np.random.RandomState(3), np.random.RandomState(3)
    first, second = (make_ratings(50, random_state=instance)[1] for _ in range(2))
    assert_array_equal(make_ratings(50, random_state=same)[1], first)
    assert not np.any(first == second)


def test_random_state_none_follows_the_global_seed():
    drawn = []
    for _ in range(2):
        np.random.seed(5)
        drawn.append(make_ratings(50)[1])
    assert_array_equal(*drawn)


def test_a_rating_is_the_sum_of_its_parts():
    X, y, effects = make_ratings(
        200,
        30,
        20,
        variances={"user": 2.0, "item": 0.5, "residual": 0.0},
        n_features=3,
        return_effects=True,
        random_state=0,
    )
    user, item = X[:, :2].astype(int).T
    expected = 3.5 + X[:, 2:] @ [0.1, -0.2, 0.3] + effects["user"][user] + effects["item"][item]
    assert_allclose(y, expected, rtol=PARTS_RTOL)


def test_variances_are_those_asked_for():
    n, variances = 20_000, {"user": 0.7, "item": 1.5, "residual": 0.2}
    X, y, effects = make_ratings(
        n, n, n, variances=variances, n_features=2, return_effects=True, random_state=0
    )
    user, item = X[:, :2].astype(int).T
    rest = y - 3.5 - X[:, 2:] @ [0.1, -0.2] - effects["user"][user] - effects["item"][item]
    drawn = {**effects, "residual": rest}
    for name, variance in variances.items():
        error = variance * np.sqrt(2 / n)
        assert_allclose(drawn[name].var(), variance, rtol=0, atol=Z * error, err_msg=name)
        assert_allclose(drawn[name].mean(), 0, atol=Z * np.sqrt(variance / n), err_msg=name)
    assert_allclose(X[:, 2:].var(axis=0), 1, rtol=0, atol=Z * np.sqrt(2 / n))


@pytest.mark.parametrize("factor", ["user", "item"])
@pytest.mark.parametrize(("exponent", "shift"), [(0.0, 20.0), (0.7, 20.0), (1.25, 1.0), (3.0, 0.5)])
def test_shares_follow_the_law(factor, exponent, shift):
    n, n_levels = 50_000, 12
    X, _ = make_ratings(
        n,
        n_features=0,
        random_state=1,
        **{f"n_{factor}s": n_levels, f"{factor}_exponent": exponent, f"{factor}_shift": shift},
    )
    counts = np.bincount(X[:, ["user", "item"].index(factor)].astype(int), minlength=n_levels)
    assert len(counts) == n_levels
    shares = (np.arange(n_levels) + shift) ** -exponent
    shares /= shares.sum()
    assert np.all(np.abs(counts - n * shares) <= Z * np.sqrt(n * shares * (1 - shares)))


def test_users_and_items_are_drawn_independently():
    n, n_levels = 20_000, 4
    X, _ = make_ratings(n, n_levels, n_levels, n_features=0, random_state=0)
    user, item = X.astype(int).T
    pairs = np.bincount(n_levels * user + item, minlength=n_levels**2).reshape(n_levels, -1)
    expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / n
    assert np.all(np.abs(pairs - expected) <= Z * np.sqrt(expected))


@pytest.mark.parametrize("exponent", [0.0, 1e4])
def test_levels_are_within_range_at_extreme_exponents(exponent):
    X, _ = make_ratings(1000, 7, 1, user_exponent=exponent, random_state=0)
    assert set(X[:, 0]) == (set(range(7)) if exponent == 0 else {0})
    assert set(X[:, 1]) == {0}


def test_variances_are_estimated():
    X, y = make_ratings(20_000, 1000, 400, random_state=0)
    model = MacKayMixedRegressor(groups=[0, 1]).fit(X, y)
    levels = {0: 1000, 1: 400, "residual": 20_000}
    truth = {0: 0.2, 1: 0.3, "residual": 0.75}
    for (name, found), (key, true) in zip(
        model.variance_components_.items(), truth.items(), strict=True
    ):
        # The items and users seen rarely tell less: twice the error of effects that are observed.
        error = 2 * true * np.sqrt(2 / levels[key])
        assert_allclose(found, true, rtol=0, atol=Z * error, err_msg=name)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_ratings": 0}, ValueError, "n_ratings == 0, must be >= 1"),
        ({"n_users": 0}, ValueError, "n_users == 0, must be >= 1"),
        ({"n_items": 2.5}, TypeError, "n_items must be an instance of int"),
        ({"n_items": 2**31}, ValueError, "n_items == 2147483648, must be <= 2147483647"),
        ({"n_features": -1}, ValueError, "n_features == -1, must be >= 0"),
        ({"user_exponent": -0.1}, ValueError, "user_exponent == -0.1, must be >= 0"),
        ({"item_exponent": np.nan}, ValueError, "item_exponent contains NaN"),
        ({"user_shift": 0.0}, ValueError, "user_shift == 0.0, must be > 0"),
        ({"item_shift": np.inf}, ValueError, "item_shift contains infinity"),
        ({"item_shift": "20"}, TypeError, "item_shift must be an instance of float"),
        ({"variances": {"user": 1.0}}, ValueError, r"needs the names .* but has \['user'\]"),
        (
            {"variances": {"user": 1.0, "item": -1.0, "residual": 1.0}},
            ValueError,
            r"variances\['item'\] == -1.0, must be >= 0",
        ),
        (
            {"variances": {"user": 1.0, "item": 1.0, "residual": np.nan}},
            ValueError,
            r"variances\['residual'\] contains NaN",
        ),
        ({"random_state": "seed"}, ValueError, "cannot be used to seed"),
    ],
)
def test_invalid_parameters_are_named(parameters, error, message):
    with pytest.raises(error, match=message):
        make_ratings(**parameters)
