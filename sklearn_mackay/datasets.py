"""Example data, loaded and made in the manner of scikit-learn's own loaders and generators."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch, assert_all_finite, check_random_state, check_scalar

_MEAN_RATING = 3.5
_COEFFICIENT = 0.1  # of the first feature of a rating; the others are its multiples
_VARIANCES = {"user": 0.2, "item": 0.3, "residual": 0.75}


@dataclass(frozen=True)
class _Table:
    """A CSV file of the package.

    Attributes
    ----------
    name : str
        Name of the file, and of the text beside it, without ending.
    features : dict
        By column, in the order of ``data``, what reads its cells: ``str`` for labels.
    target : str
        Column of the response.
    """

    name: str
    features: Mapping[str, Callable[[str], Any]]
    target: str


@overload
def load_sleepstudy(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_sleepstudy(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_sleepstudy(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the sleep deprivation study: 18 subjects, ten days each.

    The reaction time of a subject grows with each day of three hours in bed, and each subject
    has a level and a slowing of its own: the usual first example of a mixed model.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``Days`` as integers and ``Subject`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (180, 2) and dtype object, or DataFrame
            Day (int) and subject (str).
        target : ndarray of shape (180,), or Series
            Average reaction time in milliseconds.
        feature_names : list of str
            ``["Days", "Subject"]``.
        target_names : list of str
            ``["Reaction"]``.
        frame : DataFrame of shape (180, 3), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep
    restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep Research,
    12, 1-12. :doi:`10.1046/j.1365-2869.2003.00337.x`

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> X.shape, y.shape
    ((180, 2), (180,))
    >>> print(*X[0])
    0 308

    lme4's REML fit has 251.405 and 10.467, and a criterion of 1743.628:

    >>> model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}).fit(X, y)
    >>> print(f"{model.intercept_:.3f} {model.coef_[0]:.3f} {-2 * model.log_likelihood_:.3f}")
    251.405 10.467 1743.628
    """
    return _load(
        _Table("sleepstudy", {"Days": int, "Subject": str}, "Reaction"), as_frame, return_X_y
    )


@overload
def load_dyestuff(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_dyestuff(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_dyestuff(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the yields of dyestuff from six batches, five preparations each.

    One factor and no feature: how much of the variation is between batches of the intermediate
    product, and how much within?

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``Batch`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (30, 1) and dtype object, or DataFrame
            Batch (str).
        target : ndarray of shape (30,), or Series
            Yield in grams of standard colour.
        feature_names : list of str
            ``["Batch"]``.
        target_names : list of str
            ``["Yield"]``.
        frame : DataFrame of shape (30, 2), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Davies, O. L., and Goldsmith, P. L., eds (1972). Statistical Methods in Research and
    Production, 4th ed., section 6.4. Oliver and Boyd.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_dyestuff
    >>> X, y = load_dyestuff(as_frame=True, return_X_y=True)

    lme4's REML fit has the variances 1764.05 and 2451.25:

    >>> model = MacKayMixedRegressor(groups="Batch").fit(X, y)
    >>> {name: round(value, 2) for name, value in model.variance_components_.items()}
    {'Batch': 1764.05, 'residual': 2451.25}
    """
    return _load(_Table("dyestuff", {"Batch": str}, "Yield"), as_frame, return_X_y)


@overload
def load_dyestuff2(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_dyestuff2(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_dyestuff2(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load constructed numbers in the layout of the dyestuff data.

    The mean square between batches is less than that within, so that the variance between batches
    is estimated as zero: the smallest example of a singular fit.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``Batch`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (30, 1) and dtype object, or DataFrame
            Batch (str).
        target : ndarray of shape (30,), or Series
            Numbers without unit.
        feature_names : list of str
            ``["Batch"]``.
        target_names : list of str
            ``["Yield"]``.
        frame : DataFrame of shape (30, 2), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Box, G. E. P., and Tiao, G. C. (1973). Bayesian Inference in Statistical Analysis, section
    5.1.2. Addison-Wesley.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_dyestuff2
    >>> X, y = load_dyestuff2(as_frame=True, return_X_y=True)

    lme4's REML fit has the variances 0 and 13.806:

    >>> model = MacKayMixedRegressor(groups="Batch").fit(X, y)
    >>> {name: round(value, 3) for name, value in model.variance_components_.items()}
    {'Batch': 0.0, 'residual': 13.806}
    >>> model.singular_
    True
    """
    return _load(_Table("dyestuff2", {"Batch": str}, "Yield"), as_frame, return_X_y)


@overload
def load_penicillin(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_penicillin(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_penicillin(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the tests of six samples of penicillin on 24 plates.

    Each sample was tested on each plate: two factors that are crossed.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``plate`` and ``sample`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (144, 2) and dtype object, or DataFrame
            Plate (str) and sample (str).
        target : ndarray of shape (144,), or Series
            Diameter of the zone without growth in millimetres.
        feature_names : list of str
            ``["plate", "sample"]``.
        target_names : list of str
            ``["diameter"]``.
        frame : DataFrame of shape (144, 3), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Davies, O. L., and Goldsmith, P. L., eds (1972). Statistical Methods in Research and
    Production, 4th ed., section 6.6. Oliver and Boyd.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_penicillin
    >>> X, y = load_penicillin(as_frame=True, return_X_y=True)

    lme4's REML fit has the variances 0.717, 3.731 and 0.302:

    >>> model = MacKayMixedRegressor(groups=["plate", "sample"]).fit(X, y)
    >>> {name: round(value, 3) for name, value in model.variance_components_.items()}
    {'plate': 0.717, 'sample': 3.731, 'residual': 0.302}
    """
    return _load(
        _Table("penicillin", {"plate": str, "sample": str}, "diameter"), as_frame, return_X_y
    )


@overload
def load_pastes(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_pastes(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_pastes(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the strengths of a paste: 30 samples from ten deliveries, two tests each.

    Samples are nested within deliveries, and their labels are unique over all deliveries.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``batch`` and ``sample`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (60, 2) and dtype object, or DataFrame
            Delivery (str) and sample (str).
        target : ndarray of shape (60,), or Series
            Strength of the paste.
        feature_names : list of str
            ``["batch", "sample"]``.
        target_names : list of str
            ``["strength"]``.
        frame : DataFrame of shape (60, 3), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Davies, O. L., and Goldsmith, P. L., eds (1972). Statistical Methods in Research and
    Production, 4th ed., section 6.5. Oliver and Boyd.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_pastes
    >>> X, y = load_pastes(as_frame=True, return_X_y=True)

    lme4's REML fit has the variances 1.657, 8.434 and 0.678:

    >>> model = MacKayMixedRegressor(groups=["batch", "sample"]).fit(X, y)
    >>> {name: round(value, 3) for name, value in model.variance_components_.items()}
    {'batch': 1.657, 'sample': 8.434, 'residual': 0.678}
    """
    return _load(_Table("pastes", {"batch": str, "sample": str}, "strength"), as_frame, return_X_y)


@overload
def load_cake(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_cake(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_cake(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the breaking angles of chocolate cakes: three recipes, 15 replicates, six temperatures.

    A split-plot design. Each recipe numbers its replicates from 1, so that a mix of batter is named
    by the pair of the two.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``temp`` as integers, ``recipe`` and ``replicate`` as strings.
        Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (270, 3) and dtype object, or DataFrame
            Recipe (str), temperature in degrees Fahrenheit (int) and replicate (str).
        target : ndarray of shape (270,), or Series
            Angle at which the cake broke, in degrees.
        feature_names : list of str
            ``["recipe", "temp", "replicate"]``.
        target_names : list of str
            ``["angle"]``.
        frame : DataFrame of shape (270, 4), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Cook, F. E. (1938). Chocolate cake: I. Optimum baking temperature. Master's thesis, Iowa State
    College.

    Cochran, W. G., and Cox, G. M. (1957). Experimental Designs, 2nd ed., page 300. Wiley.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_cake
    >>> X, y = load_cake(as_frame=True, return_X_y=True)

    lme4's REML fit of ``angle ~ temp + (1 | recipe:replicate)`` has the variances 40.253 and
    20.707, and the coefficient 0.158:

    >>> model = MacKayMixedRegressor(groups=[("recipe", "replicate")]).fit(X, y)
    >>> {name: round(value, 3) for name, value in model.variance_components_.items()}
    {'recipe:replicate': 40.253, 'residual': 20.707}
    >>> dict(zip(X, model.coef_.round(3).tolist()))
    {'recipe': nan, 'temp': 0.158, 'replicate': nan}
    """
    return _load(
        _Table("cake", {"recipe": str, "temp": int, "replicate": str}, "angle"),
        as_frame,
        return_X_y,
    )


def make_ratings(  # noqa: PLR0913
    n_ratings: int = 10_000,
    n_users: int = 500,
    n_items: int = 200,
    *,
    user_exponent: float = 0.7,
    item_exponent: float = 1.0,
    user_shift: float = 20.0,
    item_shift: float = 20.0,
    variances: Mapping[str, float] | None = None,
    n_features: int = 2,
    return_effects: bool = False,
    random_state: int | np.random.RandomState | None = None,
    as_frame: bool = False,
) -> tuple[Any, ...]:
    """Make ratings of items by users: crossed factors, few levels seen often and many rarely.

    User and item of each rating are drawn independently, number `r` with a probability
    proportional to ``(r + shift) ** -exponent``. A rating is ``3.5 + x @ (0.1, -0.2, 0.3, ...)``
    and the sum of the user's effect, the item's and a residual. Features, effects and residuals
    are normal, the features with variance 1.

    Parameters
    ----------
    n_ratings : int, default=10_000
        Number of rows.
    n_users, n_items : int, default=500 and 200
        How many there are to draw from. Some may get no rating.
    user_exponent, item_exponent : float, default=0.7 and 1.0
        How fast the shares fall; 0 for equal shares.
    user_shift, item_shift : float, default=20.0
        After about how many levels the shares begin to fall.
    variances : dict, default=None
        Variances by name: ``{"user": 0.2, "item": 0.3, "residual": 0.75}`` if None.
    n_features : int, default=2
        Number of covariates.
    return_effects : bool, default=False
        Return the effects as well.
    random_state : int, RandomState instance or None, default=None
        Seed of a ``numpy.random.Generator``, which is faster than RandomState; a RandomState draws
        the seed. An int makes the data repeatable.
    as_frame : bool, default=False
        Return pandas objects, which take less memory: the numbers of users and items are 4 bytes
        each. Needs pandas.

    Returns
    -------
    X : ndarray of shape (n_ratings, 2 + n_features) and dtype float64, or DataFrame
        Number of the user, from 0, number of the item, and the features. In a frame the columns
        ``user`` and ``item`` are int32, and ``x1``, ``x2`` and so on float64.
    y : ndarray of shape (n_ratings,), or Series
        Ratings, which are not rounded.
    effects : dict of ndarray
        With ``return_effects=True``: the effects of all users and of all items, by "user" and
        "item", in the order of their numbers.

    Raises
    ------
    ValueError
        For a number out of its range or not finite, and for `variances` with other names.
    TypeError
        For a parameter of the wrong type.
    ImportError
        For ``as_frame=True`` without pandas.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import make_ratings
    >>> X, y = make_ratings(random_state=0, as_frame=True)
    >>> X.head(3).round(2)
       user  item    x1    x2
    0   225    63  0.85 -0.22
    1   129    48  0.78  1.70
    2     8    87  0.63 -0.78
    >>> model = MacKayMixedRegressor(groups=["user", "item"]).fit(X, y)
    >>> {name: round(value, 2) for name, value in model.variance_components_.items()}
    {'user': 0.22, 'item': 0.27, 'residual': 0.76}
    """
    check_scalar(n_ratings, "n_ratings", Integral, min_val=1)
    check_scalar(n_features, "n_features", Integral, min_val=0)
    _check_law("user", n_users, user_exponent, user_shift)
    _check_law("item", n_items, item_exponent, item_shift)
    variances = _checked_variances(variances)
    rng = _generator(random_state)

    columns: dict[str, NDArray[Any]] = {
        "user": _draw_levels(rng, n_users, user_exponent, user_shift, n_ratings),
        "item": _draw_levels(rng, n_items, item_exponent, item_shift, n_ratings),
    }
    y = np.full(n_ratings, _MEAN_RATING)
    for j in range(1, n_features + 1):
        columns[f"x{j}"] = rng.standard_normal(n_ratings)
        y += (-1) ** (j + 1) * _COEFFICIENT * j * columns[f"x{j}"]
    effects = {}
    for name, n_levels in {"user": n_users, "item": n_items}.items():
        effects[name] = np.sqrt(variances[name]) * rng.standard_normal(n_levels)
        y += effects[name][columns[name]]
    y += np.sqrt(variances["residual"]) * rng.standard_normal(n_ratings)

    if as_frame:
        pd = _pandas("make_ratings")
        data = (pd.DataFrame(columns, copy=False), pd.Series(y, name="rating", copy=False))
    else:
        data = (np.stack(list(columns.values()), axis=1, dtype=np.float64), y)
    return (*data, effects) if return_effects else data


def _load(table: _Table, as_frame: bool, return_X_y: bool) -> Bunch | tuple[Any, Any]:
    data, target = _read(table)
    feature_names = list(table.features)
    frame = None
    if as_frame:
        pd = _pandas(f"load_{table.name}")
        columns = {name: list(column) for name, column in zip(feature_names, data.T, strict=True)}
        frame = pd.DataFrame({**columns, table.target: target})
        data, target = frame[feature_names], frame[table.target]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=feature_names,
        target_names=[table.target],
        DESCR=_read_text(f"{table.name}.md"),
    )


def _read(table: _Table) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    rows = list(csv.DictReader(_read_text(f"{table.name}.csv").splitlines()))
    data = [[read(row[name]) for name, read in table.features.items()] for row in rows]
    return np.array(data, dtype=object), np.array([float(row[table.target]) for row in rows])


def _read_text(name: str) -> str:
    return (files("sklearn_mackay") / "data" / name).read_text(encoding="utf-8")


def _pandas(function: str) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            f"{function}(as_frame=True) needs pandas, which is not installed; install it with "
            "`pip install pandas`, or leave as_frame=False for NumPy arrays."
        ) from error
    return pd


def _check_law(name: str, n_levels: int, exponent: float, shift: float) -> None:
    largest = np.iinfo(np.int32).max
    check_scalar(n_levels, f"n_{name}s", Integral, min_val=1, max_val=largest)
    check_scalar(exponent, f"{name}_exponent", Real, min_val=0.0)
    assert_all_finite(exponent, input_name=f"{name}_exponent")
    check_scalar(shift, f"{name}_shift", Real, min_val=0.0, include_boundaries="neither")
    assert_all_finite(shift, input_name=f"{name}_shift")


def _checked_variances(variances: Mapping[str, float] | None) -> Mapping[str, float]:
    if variances is None:
        return _VARIANCES
    if set(variances) != set(_VARIANCES):
        raise ValueError(
            f"variances needs the names 'user', 'item' and 'residual' and no other, but has "
            f"{list(variances)}."
        )
    for name, variance in variances.items():
        check_scalar(variance, f"variances[{name!r}]", Real, min_val=0.0)
        assert_all_finite(variance, input_name=f"variances[{name!r}]")
    return variances


def _generator(random_state: int | np.random.RandomState | None) -> np.random.Generator:
    """Return a Generator, which is faster than a RandomState, seeded in scikit-learn's manner."""
    if isinstance(random_state, Integral):
        return np.random.default_rng(int(random_state))
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1, size=4))


def _draw_levels(
    rng: np.random.Generator, n_levels: int, exponent: float, shift: float, size: int
) -> NDArray[np.int32]:
    # Dividing by the shift keeps the first share at 1, so that large exponents do not underflow.
    shares = (np.arange(n_levels) / shift + 1.0) ** -exponent
    # Counts in random order are independent draws. A search for each draw would take several times
    # as long.
    counts = rng.multinomial(size, shares / shares.sum())
    levels = np.repeat(np.arange(n_levels, dtype=np.int32), counts)
    rng.shuffle(levels)
    return levels
