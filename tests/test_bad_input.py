"""Input that cannot be fitted gets one clear sentence; input on the edge a warning and a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from coefficients import existing_coef, fixed_errors, fixed_estimates
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mackay import MacKayMixedRegressor

N = 60
ROUNDING = 1e-12  # least squares on 60 rows
INVARIANT = 1e-8  # two fits by a loop that ends at 1e-7 of the deviance with one more Newton step
EXACT_FIT_RTOL = 1e-5  # a residual below 1e-12 of the squares counts as none, 1e-6 of y
EXACT_ATOL = 1e-11  # of y of order ten, which least squares fits
LIMIT_ATOL = 1e-3  # effects have a mean of zero only in the limit of no residual variance
LIMIT_RTOL = 0.01  # of their variance in the same limit
SLOPES_ATOL = 1e-4  # of y, where a residual below EXACT_FIT_RTOL is spread over slopes too
UNIT_RTOL = 1e-6  # two fits whose residual variance has another unit
COLLINEAR_ATOL = 1e-4  # a condition of 1e10 leaves six digits of a prediction

EXACT_FIT = "fits y exactly: the residual variance is zero, and variances cannot be estimated"


class Data:
    """Eight subjects, five items and two features."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.subject = np.arange(N) % 8
        self.frame = pd.DataFrame(
            {
                "x": rng.normal(size=N),
                "z": rng.normal(size=N),
                "subject": [f"s{code}" for code in self.subject],
                "item": rng.integers(0, 5, N),
            }
        )
        self.effects = rng.normal(size=8)
        noise = 0.5 * rng.normal(size=N)
        self.y = 1.0 + self.frame["x"].to_numpy() + self.effects[self.subject] + noise

    @property
    def array(self) -> np.ndarray:
        return self.frame[["x", "z"]].to_numpy()


@pytest.fixture
def data(rng) -> Data:
    return Data(rng)


def by_subject(**parameters) -> MacKayMixedRegressor:
    return MacKayMixedRegressor(
        **{"groups": ["subject"], "fixed_features": ["x", "z"], **parameters}
    )


def fitted_attributes(model: MacKayMixedRegressor) -> list[str]:
    return [name for name in vars(model) if name.endswith("_") or name.startswith("_")]


def assert_refused(model, message: str, X, y, **arguments) -> None:
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, **arguments)
    assert fitted_attributes(model) == []


def fit_warned(model, message: str, X, y, **arguments) -> MacKayMixedRegressor:
    """Fit with exactly one warning, which points at this file."""
    with pytest.warns(UserWarning, match=message) as record:
        model.fit(X, y, **arguments)
    (warning,) = record
    assert warning.filename == __file__
    return model


# Tables, labels, targets.

X_ERRORS = {
    "unknown column": (
        {"groups": "person"},
        lambda X: X,
        "`groups`: column 'person' not found; the columns of X are: 'x', 'z', 'subject', 'item'",
    ),
    "renamed column": (
        {},
        lambda X: X.rename(columns={"subject": "remainder__subject"}),
        "'subject' not found; found 'remainder__subject': use `verbose_feature_names_out=False` "
        "in the ColumnTransformer, or write 'remainder__subject' in `groups`",
    ),
    "missing label": (
        {},
        lambda X: X.assign(subject=[None, np.nan, *X["subject"][2:]]),
        "'subject' has missing labels .None or NaN. in 2 of 60 rows: drop or label these rows",
    ),
    "missing number as label": (
        {"groups": "item"},
        lambda X: X.assign(item=[np.nan, *X["item"][1:]]),
        "'item' has missing labels .None or NaN. in 1 of 60 rows",
    ),
    "text in the fixed part": (
        {"groups": "item", "fixed_features": None},
        lambda X: X,
        "Columns of X that are not numeric: 'subject'. Encode them .OneHotEncoder., name them in "
        "`groups` where their values are labels of groups, or list the columns to keep in "
        "`fixed_features`",
    ),
    "text as slope": (
        {"groups": "item", "random_slopes": {"item": ["subject"]}},
        lambda X: X,
        "not numeric: 'subject'",
    ),
    "NaN": ({}, lambda X: X.assign(x=np.nan), "Input X contains NaN"),
    "inf": ({}, lambda X: X.assign(x=np.inf), "Input X contains infinity"),
    "NaN in a slope": (
        {"fixed_features": "x", "random_slopes": {"subject": ["z"]}},
        lambda X: X.assign(z=np.nan),
        "Input X contains NaN",
    ),
    "one level": (
        {},
        lambda X: X.assign(subject="s"),
        "'subject' has a single level .n_samples=60.: its effect is confounded with the "
        "intercept. Remove it from `groups`",
    ),
    "same factor under two names": (
        {"groups": ["subject", "other"]},
        lambda X: X.assign(other=X["subject"].str.upper()),
        "'subject' and 'other' have the same levels under other names: their variances cannot be "
        "told apart. Remove one",
    ),
    "factor twice": (
        {"groups": ["subject", "subject"]},
        lambda X: X,
        "`groups` lists 'subject' more than once",
    ),
    "factor by name and position": (
        {"groups": ["subject", 2]},
        lambda X: X,
        "`groups` lists 'subject' more than once",
    ),
    "interaction twice": (
        {"groups": [("subject", "item"), ("item", "subject")]},
        lambda X: X,
        "`groups` lists 'item:subject' more than once",
    ),
    "factor called residual": (
        {"groups": "residual"},
        lambda X: X.rename(columns={"subject": "residual"}),
        "cannot be called 'residual': rename its column",
    ),
    "complex": ({}, lambda X: X.assign(x=X["x"] + 1j), "Complex data not supported"),
    "no rows": ({}, lambda X: X[:0], r"Found array with 0 sample\(s\)"),
    "dict as groups": (
        {"groups": {"subject": 1}},
        lambda X: X,
        "`groups` takes names or positions of columns, a boolean mask or a callable, not a dict",
    ),
}


@pytest.mark.parametrize(("parameters", "change", "message"), X_ERRORS.values(), ids=X_ERRORS)
def test_tables(data, parameters, change, message):
    assert_refused(by_subject(**parameters), message, change(data.frame), data.y)


ARRAY_ERRORS = {
    "NaN": (lambda X: np.where(X > 1, np.nan, X), "Input X contains NaN"),
    "inf": (lambda X: np.where(X > 1, np.inf, X), "Input X contains infinity"),
    "complex": (lambda X: X + 1j, "Complex data not supported"),
    "1-D": (lambda X: X[:, 0], "Expected 2D array, got 1D array instead"),
    "no rows": (lambda X: X[:0], r"Found array with 0 sample\(s\)"),
    "no columns": (lambda X: X[:, :0], r"Found array with 0 feature\(s\)"),
}


@pytest.mark.parametrize(("change", "message"), ARRAY_ERRORS.values(), ids=ARRAY_ERRORS)
def test_arrays(data, change, message):
    assert_refused(MacKayMixedRegressor(), message, change(data.array), data.y)


def test_one_row(data):
    message = r"'subject' has a single level \(n_samples=1\)"
    assert_refused(by_subject(), message, data.frame[:1], data.y[:1])


Y_ERRORS = {
    "NaN": (
        lambda y: np.where(np.arange(N) < 7, np.nan, y),
        "Input y contains NaN. It stands in 7 of 60 rows: drop them",
    ),
    "NaN in one of two outputs": (
        lambda y: np.column_stack([y, np.where(np.arange(N) < 7, np.nan, y)]),
        "Input y contains NaN. It stands in 7 of 60 rows: drop them",
    ),
    "inf": (lambda y: np.where(y > 0, np.inf, y), "Input y contains infinity"),
    "short": (lambda y: y[:-1], r"inconsistent numbers of samples: \[60, 59\]"),
    "3-D": (
        lambda y: y[:, None, None],
        # The second is scikit-learn 1.6's.
        r"Found array with dim 3(, while dim <= 2 is required|\. \w+ expected <= 2)",
    ),
    "None": (lambda y: None, "requires y to be passed, but the target y is None"),
    "complex": (lambda y: y + 1j, "Complex data not supported"),
    "text": (lambda y: ["a"] * N, "Convert your data to numeric values"),
}


@pytest.mark.parametrize(("change", "message"), Y_ERRORS.values(), ids=Y_ERRORS)
def test_targets(data, change, message):
    assert_refused(by_subject(), message, data.frame, change(data.y))


WEIGHT_ERRORS = {
    "negative": (-np.ones(N), "`sample_weight` has negative values: weights must be zero or pos"),
    "all zero": (np.zeros(N), "Sample weights must contain at least one non-zero number"),
    "NaN": (np.full(N, np.nan), "sample_weight contains NaN"),
    "inf": (np.full(N, np.inf), "sample_weight contains infinity"),
    "short": (np.ones(N - 1), r"sample_weight.shape == \(59,\), expected \(60,\)"),
    "2-D": (np.ones((N, 2)), "Sample weights must be 1D array or scalar"),
    "sum below p": (
        np.full(N, 0.04),
        r"The rows count as 2.4 \(n_samples, or the sum of frequency weights\), too few to "
        "estimate variances beside 3 fixed coefficients.*weight_type='precision'",
    ),
    "one level left": (np.arange(N) % 8 == 0, "'subject' has a single level"),
}


@pytest.mark.parametrize(("weights", "message"), WEIGHT_ERRORS.values(), ids=WEIGHT_ERRORS)
def test_weights(data, weights, message):
    assert_refused(by_subject(), message, data.frame, data.y, sample_weight=weights)


def test_precision_weights_may_have_any_sum(data):
    weights = np.full(N, 0.04)
    model = by_subject(weight_type="precision").fit(data.frame, data.y, sample_weight=weights)
    expected = by_subject().fit(data.frame, data.y)
    assert_allclose(model.coef_, expected.coef_, rtol=UNIT_RTOL)


GROUPS_ERRORS = {
    "dict": (
        lambda data: {"a": data.subject},
        "`groups` must not be a dict, since cross-validation does not split dicts by row: pass a "
        "data frame with one column for each factor",
    ),
    "short": (lambda data: data.subject[:-1], "`groups` has 59 rows, but X has 60"),
    "3-D": (lambda data: np.zeros((N, 2, 2)), "it has 3 dimensions"),
    "residual": (
        lambda data: pd.Series(data.subject, name="residual"),
        "cannot be called 'residual'",
    ),
    "missing": (
        lambda data: np.where(data.subject == 1, np.nan, data.subject),
        "'group0' has missing labels .None or NaN. in 8 of 60 rows",
    ),
}


@pytest.mark.parametrize(("make", "message"), GROUPS_ERRORS.values(), ids=GROUPS_ERRORS)
def test_groups_given_to_fit(data, make, message):
    assert_refused(MacKayMixedRegressor(), message, data.array, data.y, groups=make(data))


def test_groups_in_both_ways(data):
    message = "given both to the constructor and to `fit`: use one of the two"
    assert_refused(by_subject(), message, data.frame, data.y, groups=data.frame["item"])


# Parameters.

PARAMETER_ERRORS = {
    "method": ({"method": "em"}, "`method` must be one of 'reml', 'ml', 'mackay', 'quick', got"),
    "method None": ({"method": None}, "`method` must be one of .* got None"),
    "method list": ({"method": ["reml"]}, "`method` must be one of"),
    "solver": ({"solver": "newton"}, "`solver` must be one of .*'exact'.* got 'newton'"),
    "unknown_groups": ({"unknown_groups": "ignore"}, "one of 'population', 'error', got 'ignore'"),
    "weight_type": ({"weight_type": "rows"}, "one of 'frequency', 'precision', got 'rows'"),
    "alpha negative": (
        {"alpha": -1.0},
        "`alpha` must be 'auto' or a number of at least 0, got -1.0",
    ),
    "alpha text": ({"alpha": "1"}, "`alpha` must be .* got '1'"),
    "alpha NaN": ({"alpha": np.nan}, "`alpha` must be .* got nan"),
    "alpha inf": ({"alpha": np.inf}, "`alpha` must be .* got inf"),
    "alpha bool": ({"alpha": True}, "`alpha` must be .* got True"),
    "tol negative": ({"tol": -1e-3}, "`tol` must be a number of at least 0, got -0.001"),
    "tol NaN": ({"tol": np.nan}, "`tol` must be .* got nan"),
    "tol None": ({"tol": None}, "`tol` must be .* got None"),
    "max_iter zero": ({"max_iter": 0}, "`max_iter` must be .* at least 1, got 0"),
    "max_iter fraction": ({"max_iter": 2.5}, "`max_iter` must be an integer .* got 2.5"),
    "max_iter None": ({"max_iter": None}, "`max_iter` must be .* got None"),
    "covariance": ({"covariance": "ar1"}, "`covariance` must be 'full' or 'diagonal', got 'ar1'"),
    "covariance list": ({"covariance": ["full"]}, "`covariance` must be 'full' or 'diagonal'"),
    "covariance of a factor": (
        {"covariance": {"subject": "ar1"}},
        "`covariance` must be 'full' or 'diagonal', got 'ar1'",
    ),
    "covariance of another": (
        {"covariance": {"item": "full"}},
        "`covariance` names 'item', which is no component of the model: 'subject'",
    ),
    "effects name": (
        {"effects": ["item"]},
        "`effects` names 'item', which is no grouping factor: 'subject'",
    ),
    "effects text": (
        {"effects": "subject"},
        "`effects` must be 'conditional', 'population' or a list of grouping factors, got 'sub",
    ),
    "effects None": ({"effects": None}, "`effects` must be 'conditional', .* got None"),
    "slopes of another": (
        {"random_slopes": {"item": ["x"]}},
        "`random_slopes` has the key 'item', which is not a grouping factor; .*: 'subject'",
    ),
    "slopes column": (
        {"random_slopes": {"subject": ["days"]}},
        "`random_slopes`: column 'days' not found",
    ),
    "slopes list": (
        {"random_slopes": ["x"]},
        "`random_slopes` must be a dict such as .*'days'.*, not a list",
    ),
    "slopes of a grouping column": (
        {"random_slopes": {"subject": ["subject"]}},
        "`random_slopes` lists 'subject', also a grouping column",
    ),
    "slopes empty": (
        {"random_slopes": {"subject": {"slopes": [], "intercept": False}}},
        "leaves factor 'subject' without intercept and slopes",
    ),
    "fixed_features": ({"fixed_features": ["days"]}, "`fixed_features`: column 'days' not found"),
    "fixed_features grouping": (
        {"fixed_features": ["x", "subject"]},
        "`fixed_features` lists 'subject', also a grouping column",
    ),
}


@pytest.mark.parametrize(("parameters", "message"), PARAMETER_ERRORS.values(), ids=PARAMETER_ERRORS)
def test_parameters(data, parameters, message):
    assert_refused(by_subject(**parameters), message, data.frame, data.y)


WITH_SLOPE = {"random_slopes": {"subject": ["x"]}}
VARIANCE_ERRORS = {
    "unknown name": (
        {},
        {"item": 1.0},
        "` names 'item', which is no component of the model: 'subject', 'residual'",
    ),
    "no dict": ({}, [1.0], "` must be a dict of component to variance, got .1.0."),
    "number": ({}, 1.0, "` must be a dict of component to variance, got 1.0"),
    "matrix for a number": (
        {},
        {"subject": np.eye(2)},
        r"\['subject'\]` has shape \(2, 2\), but the component has 1 coefficient\.",
    ),
    "number for a matrix": (
        WITH_SLOPE,
        {"subject": 2.0},
        r"\['subject'\]` has shape \(\), but the component has 2 coefficients",
    ),
    "too long": (
        WITH_SLOPE,
        {"subject": [1.0, 2.0, 3.0]},
        r"\['subject'\]` has shape \(3,\), but the component has 2 coefficients",
    ),
    "not PSD": (
        WITH_SLOPE,
        {"subject": [[1.0, 2.0], [2.0, 1.0]]},
        r"\['subject'\]` must be positive semi-definite",
    ),
    "not symmetric": (
        WITH_SLOPE,
        {"subject": [[1.0, 0.2], [0.1, 1.0]]},
        r"\['subject'\]` must be symmetric",
    ),
    "covariance where diagonal": (
        {"covariance": "diagonal", **WITH_SLOPE},
        {"subject": [[1.0, 0.2], [0.2, 1.0]]},
        r"\['subject'\]` has covariances, but covariance='diagonal' asks for none",
    ),
    "negative": ({}, {"subject": -1.0}, r"\['subject'\]` must be .* a variance cannot be negative"),
    "NaN": ({}, {"subject": np.nan}, r"\['subject'\]` must be finite"),
    "text": ({}, {"subject": "big"}, r"\['subject'\]` must be .*'big'"),
    "residual of zero": ({}, {"residual": 0}, r"\['residual'\]` must be positive, got 0"),
    "residual matrix": ({}, {"residual": np.eye(2)}, r"\['residual'\]` has shape \(2, 2\)"),
}


@pytest.mark.parametrize("parameter", ["fixed_variances", "initial_variances"])
@pytest.mark.parametrize(
    ("parameters", "given", "message"), VARIANCE_ERRORS.values(), ids=VARIANCE_ERRORS
)
def test_given_variances(data, parameter, parameters, given, message):
    model = by_subject(**parameters, **{parameter: given})
    assert_refused(model, f"`{parameter}{message}", data.frame, data.y)


# Fits on the edge: one warning each, and finite numbers.


def assert_least_squares(model, A: np.ndarray, y: np.ndarray) -> None:
    """The fit of ordinary least squares with an intercept, and a variance of zero."""
    A = np.column_stack([np.ones(len(y)), A])
    beta, (rss,), *_ = np.linalg.lstsq(A, y, rcond=None)
    assert_allclose(fixed_estimates(model), beta, rtol=ROUNDING)
    sigma2 = rss / (len(y) - A.shape[1])
    assert_allclose(model.variance_components_["residual"], sigma2, rtol=ROUNDING)


def test_as_many_levels_as_rows(data):
    X = data.frame.assign(subject=np.arange(N))
    message = (
        "'subject' has as many levels as rows: its variance cannot be told from the residual "
        "variance and is set to 0. Remove it from `groups`"
    )
    model = fit_warned(by_subject(), message, X, data.y)
    assert model.variance_components_["subject"] == 0.0
    assert model.singular_
    assert model.converged_
    assert_array_equal(model.random_effects_["subject"], np.zeros((N, 1)))
    assert_least_squares(model, data.array, data.y)


def test_as_many_levels_as_rows_beside_another_factor(data):
    X = data.frame.assign(item=np.arange(N))
    model = by_subject(groups=["subject", "item"])
    fit_warned(model, "'item' has as many levels as rows", X, data.y)
    expected = by_subject().fit(data.frame, data.y)
    assert model.variance_components_["item"] == 0.0
    found = model.variance_components_["subject"]
    assert_allclose(found, expected.variance_components_["subject"], rtol=INVARIANT)
    assert_allclose(model.coef_, expected.coef_, rtol=INVARIANT)


def test_two_levels(data):
    X = data.frame.assign(subject=data.subject % 2)
    message = (
        "'subject' has only 2 levels: its variance is poorly determined. Consider a fixed effect"
    )
    model = fit_warned(by_subject(), message, X, data.y)
    assert model.random_effects_["subject"].shape == (2, 1)
    assert np.isfinite(model.variance_components_["subject"])


def test_one_level_without_intercept(data):
    X = data.frame.assign(subject="s")
    message = "'subject' has only 1 level: its variance is poorly determined"
    model = fit_warned(by_subject(fit_intercept=False), message, X, data.y)
    effect = model.random_effects_["subject"][0, 0]
    assert model.intercept_ == 0.0
    prediction = effect + data.array @ existing_coef(model)
    assert_allclose(model.predict(X), prediction, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    ("value", "method"),
    [(value, "reml") for value in (3.25, 0.1, 0.0, -1e9, 1e-300)]
    + [(3.25, "ml"), (3.25, "mackay"), (3.25, "quick")],
)
def test_constant_y(data, value, method):
    model = fit_warned(by_subject(method=method), EXACT_FIT, data.frame, np.full(N, value))
    assert model.variance_components_ == {"subject": 0.0, "residual": 0.0}
    assert model.singular_
    assert_allclose(model.predict(data.frame), value, rtol=ROUNDING)
    assert_allclose(existing_coef(model), 0.0, atol=ROUNDING * abs(value))
    assert np.all(model.random_effects_["subject"] == 0.0)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_y_is_a_function_of_the_features(data, method):
    y = 1.0 + data.array @ [2.0, -3.0]
    model = fit_warned(by_subject(method=method), EXACT_FIT, data.frame, y)
    assert model.variance_components_ == {"subject": 0.0, "residual": 0.0}
    assert_allclose(fixed_estimates(model), [1.0, 2.0, -3.0], rtol=ROUNDING)
    assert_allclose(model.predict(data.frame), y, rtol=0, atol=EXACT_ATOL)


def test_y_is_a_function_of_the_features_without_groups(data):
    y = 1.0 + data.array @ [2.0, -3.0]
    model = MacKayMixedRegressor().fit(data.array, y)  # as for Ridge, nothing to warn of
    assert_allclose(fixed_estimates(model), [1.0, 2.0, -3.0], rtol=ROUNDING)
    assert model.variance_components_ == {"residual": 0.0}


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_y_is_a_function_of_features_and_groups(data, method):
    y = 1.0 + data.array @ [2.0, -3.0] + data.effects[data.subject]
    model = fit_warned(by_subject(method=method), EXACT_FIT, data.frame, y)
    assert model.variance_components_["residual"] == 0.0
    assert_allclose(existing_coef(model), [2.0, -3.0], rtol=EXACT_FIT_RTOL)
    assert_allclose(model.predict(data.frame), y, rtol=0, atol=EXACT_FIT_RTOL)
    centred = data.effects - data.effects.mean()
    found = model.random_effects_["subject"][:, 0]
    # Their mean belongs to the intercept only in the limit of a residual variance of zero.
    assert_allclose(found - found.mean(), centred, rtol=0, atol=EXACT_FIT_RTOL)
    assert_allclose(found, centred, rtol=0, atol=LIMIT_ATOL)


@pytest.mark.parametrize("method", ["reml", "ml", "mackay", "quick"])
def test_variance_between_groups_of_an_exact_fit(data, method):
    # Without noise the effects are known, and so is their variance: the limit of every method.
    y = 1.0 + data.array @ [2.0, -3.0] + data.effects[data.subject]
    model = by_subject(method=method)
    fit_warned(model, "fits y exactly", data.frame, y)
    expected = np.var(data.effects, ddof=int(method != "ml"))
    assert_allclose(model.variance_components_["subject"], expected, rtol=LIMIT_RTOL)


def test_y_is_a_function_of_slopes_by_group(data):
    y = 1.0 + data.array @ [2.0, -3.0] + data.effects[data.subject] * (1 + data.array[:, 0])
    model = by_subject(random_slopes={"subject": ["x"]})
    fit_warned(model, EXACT_FIT, data.frame, y)
    assert model.variance_components_["residual"] == 0.0
    assert_allclose(model.predict(data.frame), y, rtol=0, atol=SLOPES_ATOL)


COLLINEAR = {
    "combination": lambda X: X["x"] - 2.0 * X["z"] + 1.0,
    "duplicate": lambda X: X["x"],
    "constant": lambda X: 7.3,
    "zero": lambda X: 0.0,
}


@pytest.mark.parametrize("make", COLLINEAR.values(), ids=COLLINEAR)
def test_collinear_columns(data, make):
    X = data.frame.assign(w=make(data.frame))
    model = by_subject(fixed_features=["x", "z", "w"])
    with pytest.warns(UserWarning, match="are combinations of the others") as record:
        model.fit(X, data.y)
    (dropped,) = np.flatnonzero(model.coef_ == 0.0)
    assert np.isnan(model.coef_std_[dropped])
    assert np.count_nonzero(np.isnan(fixed_errors(model))) == 1
    reduced = by_subject().fit(data.frame, data.y)
    assert_allclose(model.predict(X), reduced.predict(data.frame), rtol=0, atol=INVARIANT)
    assert_allclose(
        model.variance_components_["subject"],
        reduced.variance_components_["subject"],
        rtol=INVARIANT,
    )
    (warning,) = record
    (name,) = X.columns[dropped]
    assert str(warning.message) == (
        f"Fixed features '{name}' are combinations of the others (or of the intercept) and get "
        "coefficient 0. Remove them, or give a positive `alpha`."
    )


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_collinear_columns_by_position(data, container):
    X = np.column_stack([data.array, data.array @ [1.0, -2.0]])
    model = MacKayMixedRegressor()
    with pytest.warns(UserWarning, match="^Fixed features [012] are combinations of the others"):
        model.fit(container(X), data.y, groups=data.subject)
    reduced = MacKayMixedRegressor().fit(data.array, data.y, groups=data.subject)
    prediction = reduced.predict(data.array, data.subject)
    assert_allclose(model.predict(X, data.subject), prediction, rtol=0, atol=INVARIANT)


def test_a_penalty_needs_no_independent_columns(data):
    X = data.frame.assign(w=data.frame["x"])
    model = by_subject(fixed_features=["x", "z", "w"], alpha=1.0).fit(X, data.y)
    coef = dict(zip(X.columns, model.coef_, strict=True))
    assert_allclose(coef["x"], coef["w"], rtol=INVARIANT)


def test_nearly_collinear_columns(data, rng):
    X = data.frame.assign(w=data.frame["x"] + 1e-10 * rng.normal(size=N))
    model = by_subject(fixed_features=["x", "z", "w"])
    fit_warned(
        model,
        r"nearly collinear \(condition number \d\.\de\+(09|10) after scaling\): their coefficients "
        "are poorly determined. Remove some, or give a positive `alpha`",
        X,
        data.y,
    )
    assert np.all(np.isfinite([*existing_coef(model), *fixed_errors(model)]))
    assert np.isfinite(model.log_likelihood_)
    # The difference of the two columns is a column of its own.
    noise = (X["w"] - X["x"]) / np.std(X["w"] - X["x"])
    equivalent = by_subject(fixed_features=["x", "z", "w"]).fit(X.assign(w=noise), data.y)
    assert_allclose(
        model.predict(X), equivalent.predict(X.assign(w=noise)), rtol=0, atol=COLLINEAR_ATOL
    )


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_slope_that_does_not_vary(data, value):
    model = by_subject(random_slopes={"subject": ["w"]})
    message = (
        r"No row tells .*\*w of the levels of 'subject' from zero: its variance is set to 0. "
        "Remove one of these random slopes"
    )
    fit_warned(model, message, data.frame.assign(w=value), data.y)
    Sigma = model.variance_components_["subject"]
    expected = by_subject().fit(data.frame, data.y)
    assert_allclose(Sigma[0, 0], expected.variance_components_["subject"], rtol=INVARIANT)
    assert Sigma[0, 1] == Sigma[1, 0] == Sigma[1, 1] == 0.0
    assert np.all(model.random_effects_["subject"][:, 1] == 0.0)
    assert model.singular_


def test_labels_of_numbers_and_text_are_kept_apart(data):
    # One rule: labels compare by value, and 1 is not "1".
    labels = data.frame["item"].astype(object)
    labels[:20] = labels[:20].astype(str)
    model = by_subject(groups="item").fit(data.frame.assign(item=labels), data.y)
    assert model.group_levels_["item"].tolist() == [0, 1, 2, 3, 4, "0", "1", "2", "3", "4"]
    words = data.frame.assign(item=labels.map(repr))
    expected = by_subject(groups="item").fit(words, data.y)
    assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=INVARIANT)


# Prediction.


def test_groups_given_to_predict_in_column_mode(data):
    model = by_subject().fit(data.frame, data.y)
    message = "takes its groups from columns of X; `groups` cannot be given to predict or score"
    with pytest.raises(ValueError, match=message):
        model.predict(data.frame, groups=data.frame["subject"])
    with pytest.raises(ValueError, match=message):
        model.score(data.frame, data.y, groups=data.frame["subject"])


def test_groups_given_to_predict_of_a_model_without_groups(data):
    model = MacKayMixedRegressor().fit(data.array, data.y)
    with pytest.raises(ValueError, match="without groups"):
        model.predict(data.array, groups=data.subject)


def test_wrong_number_of_factors_or_rows(data):
    groups = data.frame[["subject", "item"]]
    model = MacKayMixedRegressor().fit(data.array, data.y, groups=groups)
    message = "`groups` has 1 factors, but the model was fitted with 2: 'subject', 'item'"
    with pytest.raises(ValueError, match=message):
        model.predict(data.array, groups["subject"])
    with pytest.raises(ValueError, match="`groups` has 3 rows, but X has 60"):
        model.predict(data.array, groups[:3])


def test_factors_in_another_order_are_not_confused(data):
    # Both factors have the labels 0 to 4, so that nothing but the names can tell them apart.
    groups = pd.DataFrame({"a": data.subject % 5, "b": data.frame["item"]})
    model = MacKayMixedRegressor().fit(data.array, data.y, groups=groups)
    expected = model.predict(data.array, groups)
    try:
        found = model.predict(data.array, groups[["b", "a"]])
    except ValueError:
        return
    assert_allclose(found, expected, rtol=ROUNDING)


def test_other_columns_than_in_fit(data):
    model = by_subject().fit(data.frame, data.y)
    with pytest.raises(ValueError, match="yet now missing:\n- item"):
        model.predict(data.frame.drop(columns="item"))
    with pytest.raises(ValueError, match="unseen at fit time:\n- new"):
        model.predict(data.frame.assign(new=1.0))
    model = MacKayMixedRegressor().fit(data.array, data.y)
    with pytest.raises(ValueError, match="X has 1 features, but MacKayMixedRegressor is expecting"):
        model.predict(data.array[:, :1])


def test_bad_numbers_at_predict(data):
    model = by_subject().fit(data.frame, data.y)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(data.frame.assign(x=np.nan))
    with pytest.raises(ValueError, match="not numeric: 'x'"):
        model.predict(data.frame.assign(x="a"))


def test_a_table_that_is_not_in_memory_is_refused_in_every_method(data):
    model = by_subject(store_covariance=True).fit(data.frame, data.y)
    lazy, y = pl.LazyFrame(data.frame.to_dict("list")), pl.LazyFrame({"y": data.y})
    for call in (
        lambda: model.predict(lazy),
        lambda: model.predict_interval(lazy),
        lambda: model.predict_components(lazy),
        lambda: model.sample_y(lazy),
        lambda: model.score(lazy, data.y),
        lambda: model.loo_predict(lazy, data.y),
        lambda: model.logo_predict(lazy, data.y, "subject"),
        lambda: model.cv_predict(lazy, data.y),
    ):
        with pytest.raises(TypeError, match="`X` is a LazyFrame of polars, .* `X.collect"):
            call()
    for call in (
        lambda: by_subject().fit(data.frame, y),
        lambda: model.score(data.frame, y),
        lambda: model.loo_predict(data.frame, y),
        lambda: model.cv_predict(data.frame, y),
    ):
        with pytest.raises(TypeError, match="`y` is a LazyFrame of polars, .* `y.collect"):
            call()
    for call in (by_subject().fit, model.score):
        with pytest.raises(TypeError, match="`sample_weight` is a LazyFrame of polars"):
            call(data.frame, data.y, sample_weight=y)


def test_unknown_effects_at_predict(data):
    model = by_subject().fit(data.frame, data.y)
    with pytest.raises(ValueError, match="`effects` names 'item', which is no grouping factor"):
        model.predict(data.frame, effects=["item"])
    with pytest.raises(ValueError, match="or a list of grouping factors, got 'subject'"):
        model.predict(data.frame, effects="subject")


@pytest.mark.parametrize("fitted", ["numbers", "text"])
def test_numbers_against_text(data, fitted):
    text = data.frame.assign(subject=data.subject.astype(str))
    numbers = data.frame.assign(subject=data.subject)
    seen, other = (numbers, text) if fitted == "numbers" else (text, numbers)
    model = by_subject().fit(seen, data.y)
    phrases = {"numbers": "numbers such as 0", "text": "strings such as '0'"}
    seen_phrase = phrases.pop(fitted)
    (given_phrase,) = phrases.values()
    message = (
        f"Grouping factor 'subject' was given {given_phrase}, which `fit` never saw; it saw "
        f"{seen_phrase}. These rows are predicted as unknown levels: give labels as `fit` saw them"
    )
    with pytest.warns(UserWarning, match=message) as record:
        found = model.predict(other)
    (warning,) = record
    assert warning.filename == __file__
    assert_array_equal(found, model.predict(seen, effects="population"))
    # All new, but of the same kind: nothing to warn of.
    new = seen.assign(subject=[100 if fitted == "numbers" else "new"] * N)
    assert_array_equal(model.predict(new), found)
    model.set_params(unknown_groups="error")
    with pytest.raises(ValueError, match="'subject' has labels not seen in fit: "):
        model.predict(other)


CALLS = {
    "predict": lambda model, X, y: model.predict(X),
    "predict with std": lambda model, X, y: model.predict(X, return_std=True),
    "score": lambda model, X, y: model.score(X, y),
    "predict_interval": lambda model, X, y: model.predict_interval(X),
    "predict_components": lambda model, X, y: model.predict_components(X),
    "sample_y": lambda model, X, y: model.sample_y(X),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_labels_of_another_kind_are_warned_of_once_a_factor_where_the_user_stands(data, call):
    X = data.frame.assign(item=data.frame["item"].to_numpy(), subject=data.subject)
    model = by_subject(groups=["subject", "item"], store_covariance=True).fit(X, data.y)
    # Half of the rows keep their labels, so that the loss is in part.
    partly = [str(code) if i % 2 else code for i, code in enumerate(data.subject)]
    with pytest.warns(UserWarning, match="never saw; it saw numbers such as 0") as record:
        call(model, X.assign(subject=pd.Series(partly, dtype=object), item="1"), data.y)
    assert [warning.filename for warning in record] == [__file__] * 2
    assert ["'subject'" in str(w.message) for w in record] == [True, False]


@pytest.mark.parametrize("method", ["fit", "loo_predict", "logo_predict", "cv_predict"])
def test_rounded_ids_are_warned_of_where_the_user_stands(data, method):
    X = data.frame.assign(subject=2.0**53 + 2.0 * data.subject)
    message = r"'subject' has floating point labels .float64. of 9007199254740992 or more"
    model = fit_warned(by_subject(), message, X, data.y)
    arguments = (X, data.y, "subject") if method == "logo_predict" else (X, data.y)
    with pytest.warns(UserWarning, match=message) as record:
        getattr(model, method)(*arguments)
    assert [warning.filename for warning in record] == [__file__]
    model.predict(X)  # has been said in fit


def test_rounded_ids_given_to_fit_and_in_an_interaction(data):
    ids = 2.0**53 + 2.0 * data.subject
    message = "has floating point labels"
    fit_warned(MacKayMixedRegressor(), "'group0' " + message, data.array, data.y, groups=ids)
    X = data.frame.assign(subject=ids)
    fit_warned(by_subject(groups=[("item", "subject")]), message, X, data.y)
    X = data.frame.assign(subject=(2**24 + 2 * data.subject).astype(np.float32))
    fit_warned(by_subject(), r"labels .float32. of 16777216 or more", X, data.y)


def test_ids_that_only_predict_has_as_floats(data):
    X = data.frame.assign(subject=2**53 + 2 * data.subject)
    model = by_subject().fit(X, data.y)
    # As pandas does where one id is missing.
    new = X.assign(subject=X["subject"].where(data.subject > 0))
    assert new["subject"].dtype == np.float64
    with pytest.warns(UserWarning, match="Read ids as integers .dtype 'Int64'") as record:
        model.predict(new)
    assert [warning.filename for warning in record] == [__file__]
    model.predict(X.assign(subject=X["subject"].astype("Int64").where(data.subject > 0)))


ZONES = ["Europe/Berlin", "UTC"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("zoned", ["fit", "predict"])
def test_a_time_zone_in_one_of_fit_and_predict(data, library, zone, zoned):
    hours = np.datetime64("2020-06-01T00", "ms") + data.subject * np.timedelta64(1, "h")
    if library == "pandas":
        naive = data.frame.assign(subject=hours)
        aware = naive.assign(subject=naive["subject"].dt.tz_localize(zone))
        other = aware.assign(subject=aware["subject"].dt.tz_convert("Asia/Tokyo"))
    else:
        naive = pl.DataFrame(data.frame.to_dict("list")).with_columns(subject=pl.Series(hours))
        aware = naive.with_columns(pl.col("subject").dt.replace_time_zone(zone))
        other = aware.with_columns(pl.col("subject").dt.convert_time_zone("Asia/Tokyo"))
    seen, given = (aware, naive) if zoned == "fit" else (naive, aware)
    model = by_subject().fit(seen, data.y)
    with pytest.warns(UserWarning, match="'subject' was given times with") as record:
        lost = model.predict(given)
    assert [warning.filename for warning in record] == [__file__]
    assert_array_equal(lost, model.predict(seen, effects="population"))
    if zoned == "fit":
        assert_array_equal(model.predict(other), model.predict(aware))
    model.set_params(unknown_groups="error")
    message = "'subject' has labels not seen in fit: .* which are times with.* where it saw times"
    with pytest.raises(ValueError, match=message):
        model.predict(given)
