"""What the displays draw: the right numbers, and text that can be read."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mackay import (
    ConvergenceDisplay,
    MacKayMixedRegressor,
    RandomEffectsDisplay,
    VarianceProfileDisplay,
)
from sklearn_mackay.datasets import load_sleepstudy
from sklearn_mackay.display.unpooled import least_squares_by_level

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

ROUNDING = 1e-9  # the same least squares by other sums, or the same sums in another order
DRAWN = 1e-12  # numbers go to matplotlib and come back
PROFILED = 1e-6  # zeta of two searches that are the same
INSIDE = 1e-5  # the same fit of a column in another unit, through a loop that ends at 1e-7
Z95 = 1.959963984540054  # qnorm(0.975) of R
INTERPOLATED = 1e-2  # of zeta on a straight line between points one unit apart, or of its square
OVERSHOT = 1e-3  # of a criterion that is lower at the last step but one: its axis reaches so far

LONG_LABELS = [f"Regional Hospital of the Holy Ghost, district {i:04d}" for i in range(40)]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleepstudy():
    return load_sleepstudy(as_frame=True, return_X_y=True)


@pytest.fixture(scope="module")
def model(sleepstudy):
    slopes = {"Subject": ["Days"]}
    return MacKayMixedRegressor(groups="Subject", random_slopes=slopes).fit(*sleepstudy)


@pytest.fixture(scope="module")
def crossed():
    """Two factors, levels of one row, 3,000 of one with a slope."""
    rng = np.random.default_rng(0)
    n = 9000
    X = pd.DataFrame({"x": rng.normal(size=n), "a": rng.integers(3000, size=n)})
    X["b"] = rng.integers(7, size=n)
    y = rng.normal(size=n) + rng.normal(size=3000)[X["a"]] + rng.normal(size=7)[X["b"]]
    y += (1.0 + rng.normal(size=3000)[X["a"]]) * X["x"]
    fitted = MacKayMixedRegressor(groups=["a", "b"], random_slopes={"a": ["x"]}).fit(X, y)
    return fitted, X, y


@pytest.fixture(scope="module")
def singular():
    """Levels whose means are nearly equal."""
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(10), 5)
    y = rng.normal(size=50)
    y += 0.01 * rng.normal(size=50) - np.bincount(codes, y)[codes] / 5
    return MacKayMixedRegressor(groups=[0]).fit(codes[:, np.newaxis], y)


def interactions(n):
    labels = np.empty(n, dtype=object)
    labels[:] = [(f"batch {i // 3}", f"sample {i % 3}") for i in range(n)]
    return labels


def display_of(labels, *, name="hospital", seed=0):
    rng = np.random.default_rng(seed)
    n = len(labels)
    return RandomEffectsDisplay(
        effects=rng.normal(size=n), std=rng.uniform(0.2, 0.6, size=n), labels=labels, name=name
    )


def tick_texts(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def drawn_boxes(axis):
    """Boxes of the texts of an axis, in pixels, after the figure was laid out."""
    axis.figure.canvas.draw()
    texts = [text for text in axis.get_ticklabels() if text.get_text()]
    low, high = sorted(axis.get_view_interval())
    places = axis.get_ticklocs()
    inside = [low <= place <= high for place in places]
    return [text.get_window_extent() for text, shown in zip(texts, inside, strict=False) if shown]


def assert_readable(ax):
    """No text of the y axis lies on another, or beyond the figure."""
    boxes = sorted(drawn_boxes(ax.yaxis), key=lambda box: box.y0)
    assert boxes
    for below, above in pairwise(boxes):
        assert below.y1 <= above.y0 + 1.0
    name = ax.yaxis.label.get_window_extent()
    for box in boxes:
        assert box.x0 >= name.x1 - 1.0
    assert name.x0 >= ax.figure.bbox.x0 - 1.0
    for text in (ax.xaxis.label, ax.yaxis.label):
        box, figure = text.get_window_extent(), ax.figure.bbox
        assert box.x0 >= figure.x0 - 1.0
        assert box.x1 <= figure.x1 + 1.0


def segments_of(errorbar):
    return np.array(errorbar.lines[2][0].get_segments())


@pytest.mark.parametrize("coefficient", ["intercept", "Days"])
def test_caterpillar_of_the_sleep_study(model, coefficient):
    display = RandomEffectsDisplay.from_estimator(model, coefficient=coefficient)
    column = ["intercept", "Days"].index(coefficient)
    effects = model.random_effects_["Subject"][:, column]
    std = model.random_effects_std_["Subject"][:, column]
    order = np.argsort(effects)
    points = display.points_.lines[0]
    assert_allclose(points.get_xdata(), effects[order], rtol=DRAWN)
    assert_array_equal(points.get_ydata(), np.arange(1, 19))
    ends = segments_of(display.points_)[:, :, 0]
    assert_allclose(ends[:, 0], (effects - Z95 * std)[order], rtol=DRAWN)
    assert_allclose(ends[:, 1], (effects + Z95 * std)[order], rtol=DRAWN)
    assert tick_texts(display.ax_) == list(model.group_levels_["Subject"][order])
    assert_array_equal(display.zero_line_.get_xdata(), [0.0, 0.0])
    assert display.ax_.get_xlabel() == f"Subject: {coefficient}, 95% interval"
    assert display.ax_.get_ylabel() == "Subject"
    assert display.figure_ is display.ax_.figure


def test_the_first_coefficient_is_the_default(model):
    display = RandomEffectsDisplay.from_estimator(model)
    assert display.ax_.get_xlabel().startswith("Subject: intercept")


def test_plot_returns_the_display_and_draws_on_the_given_axes():
    _, ax = plt.subplots()
    display = display_of(["a", "b"])
    assert display.plot(ax) is display
    assert display.ax_ is ax
    assert len(plt.get_fignums()) == 1


def test_intervals_of_another_level(model):
    display = RandomEffectsDisplay.from_estimator(model, level=0.5)
    lengths = np.diff(segments_of(display.points_)[:, :, 0])[:, 0]
    std = model.random_effects_std_["Subject"][:, 0]
    order = np.argsort(model.random_effects_["Subject"][:, 0])
    assert_allclose(lengths, 2 * 0.6744897501960817 * std[order], rtol=ROUNDING)
    assert "50% interval" in display.ax_.get_xlabel()


def test_without_a_covariance_there_are_effects_and_no_intervals(sleepstudy):
    bare = MacKayMixedRegressor(groups="Subject", store_covariance=False).fit(*sleepstudy)
    with pytest.raises(AttributeError, match="store_covariance"):
        RandomEffectsDisplay.from_estimator(bare)
    display = RandomEffectsDisplay.from_estimator(bare, level=None)
    assert display.points_.lines[2] == ()
    assert display.ax_.get_xlabel() == "Subject: intercept"


def test_more_levels_than_labels_are_ranks():
    display = display_of(LONG_LABELS).plot(max_labels=39)
    assert display.ax_.get_ylabel() == "hospital, rank"
    display.figure_.canvas.draw()
    places = display.ax_.get_yticks()
    assert_array_equal(places, np.round(places))
    assert display_of(LONG_LABELS).plot(max_labels=40).ax_.get_ylabel() == "hospital"


def test_labels_of_an_interaction_name_its_parts():
    display = display_of(interactions(6), name="batch:sample").plot()
    assert sorted(tick_texts(display.ax_))[0] == "batch 0:sample 0"
    as_list = display_of(list(interactions(6)), name="batch:sample").plot()
    assert tick_texts(as_list.ax_) == tick_texts(display.ax_)


def test_dates_have_no_empty_hours():
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")
    assert sorted(tick_texts(display_of(days).plot().ax_)) == ["2020-01-01", "2020-01-02"]


def test_labels_are_text_and_no_mathematics():
    labels = ["US$ 5 to US$ 9", "a_b^{", "two\nlines", ""]
    display = display_of(labels, name="price in $_x$").plot()
    display.figure_.canvas.draw()
    assert sorted(tick_texts(display.ax_)) == sorted(["US$ 5 to US$ 9", "a_b^{", "two lines", ""])
    height = plt.rcParams["font.size"] / 72 * display.figure_.dpi
    for box in drawn_boxes(display.ax_.yaxis):
        assert box.height < 2 * height


@pytest.mark.parametrize(
    "labels",
    [[308], list(range(18)), list(range(3000)), LONG_LABELS, LONG_LABELS[:18], interactions(18)],
    ids=["1", "18", "3000", "40 long", "18 long", "tuples"],
)
@pytest.mark.parametrize("size", [None, (3.0, 2.2)], ids=["figure", "small figure"])
def test_caterpillars_can_be_read(labels, size):
    with plt.rc_context({} if size is None else {"figure.figsize": size}):
        assert_readable(display_of(labels).plot().ax_)


@pytest.mark.parametrize("labels", [list(range(18)), LONG_LABELS[:18], interactions(18)])
@pytest.mark.parametrize("layout", [None, "constrained"])
def test_labels_stay_off_the_neighbours(labels, layout):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout=layout)
    display_of(labels).plot(right)
    assert_readable(right)
    figure.canvas.draw()
    edge = left.get_window_extent().x1
    for box in [*drawn_boxes(right.yaxis), right.yaxis.label.get_window_extent()]:
        assert box.x0 >= edge - 1.0


def test_labels_that_would_look_alike_are_ranks():
    _, (left, right) = plt.subplots(1, 2, gridspec_kw={"left": 0.25, "wspace": 1.0})
    display_of([f"{i}, a name that is long and never ends, {i}" for i in "ab"]).plot(left)
    assert left.get_ylabel() == "hospital"
    display_of([f"Long beginning, {i}, and as long an end" for i in "ab"]).plot(right)
    assert right.get_ylabel() == "hospital, rank"


@pytest.mark.parametrize("effect", [0.0, 5.0])
def test_effects_that_are_all_the_same(effect):
    display = RandomEffectsDisplay(effects=np.full(4, effect), std=np.zeros(4), labels=list("abcd"))
    assert_readable(display.plot().ax_)


def test_style_goes_to_matplotlib():
    display = display_of(["a", "b"]).plot(c="red", marker="s")
    points = display.points_.lines[0]
    assert points.get_color() == "red"
    assert points.get_marker() == "s"
    unpooled = [2.0, 1.0]
    shrunken = RandomEffectsDisplay(effects=[1.0, 0.5], unpooled=unpooled)
    assert len(shrunken.plot(kind="shrinkage", c=[0.0, 1.0]).points_.get_offsets()) == 2


def test_shrinkage_of_the_sleep_study(model, sleepstudy):
    X, y = sleepstudy
    display = RandomEffectsDisplay.from_estimator(model, kind="shrinkage", X=X, y=y)
    rest = y - model.predict(X, effects="population")
    segments = np.array(display.segments_.get_segments())
    for level, (start, end) in zip(model.group_levels_["Subject"], segments, strict=True):
        rows = X["Subject"] == level
        line = np.polynomial.Polynomial.fit(X["Days"][rows], rest[rows], 1).convert().coef
        assert_allclose(start, line, rtol=ROUNDING)
        assert_allclose(end, model.random_effects_["Subject"][X["Subject"].unique() == level][0])
    assert_allclose(display.points_.get_offsets(), model.random_effects_["Subject"], rtol=DRAWN)
    assert display.ax_.get_xlabel() == "Subject: intercept"
    assert display.ax_.get_ylabel() == "Subject: Days"
    display.figure_.canvas.draw()


def test_shrinkage_in_a_plane_turned_around(model, sleepstudy):
    X, y = sleepstudy
    display = RandomEffectsDisplay.from_estimator(
        model, kind="shrinkage", X=X, y=y, coefficient=("Days", "intercept")
    )
    effects = model.random_effects_["Subject"]
    assert_allclose(display.points_.get_offsets(), effects[:, ::-1], rtol=DRAWN)


@pytest.mark.slow
def test_shrinkage_of_one_coefficient_is_a_mean(crossed):
    model, X, y = crossed
    display = RandomEffectsDisplay.from_estimator(model, "b", kind="shrinkage", X=X, y=y)
    rest = pd.Series(y - model.predict(X, effects=["a"]))
    unpooled = rest.groupby(X["b"]).mean().to_numpy()
    expected = np.column_stack([unpooled, model.random_effects_["b"]])
    assert_allclose(display.points_.get_offsets(), expected, rtol=ROUNDING)
    starts = np.array(display.segments_.get_segments())[:, 0]
    assert_allclose(starts, np.column_stack([unpooled, unpooled]), rtol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [None, "x"])
def test_levels_with_too_few_rows_have_no_unpooled_estimate(crossed, coefficient):
    model, X, y = crossed
    display = RandomEffectsDisplay.from_estimator(
        model, "a", kind="shrinkage", X=X, y=y, coefficient=coefficient
    )
    sizes = X.groupby("a").size()
    assert len(display.segments_.get_segments()) == np.sum(sizes > 1)
    assert len(display.points_.get_offsets()) == len(sizes)
    display.figure_.canvas.draw()


@pytest.mark.slow
def test_outliers_leave_the_rest_visible(crossed):
    model, X, y = crossed
    display = RandomEffectsDisplay.from_estimator(model, "a", kind="shrinkage", X=X, y=y)
    effects = model.random_effects_["a"]
    for (low, high), column in zip(
        (display.ax_.get_xlim(), display.ax_.get_ylim()), effects.T, strict=True
    ):
        assert low <= column.min()
        assert column.max() <= high
        assert high - low < 10 * np.ptp(column)
    assert np.ptp(display.unpooled[:, 0][np.isfinite(display.unpooled[:, 0])]) > 100


def test_shrinkage_of_a_model_fitted_with_groups(sleepstudy):
    X, y = sleepstudy
    fitted = MacKayMixedRegressor().fit(X[["Days"]], y, groups=X["Subject"])
    rows = {"X": X[["Days"]], "y": y, "kind": "shrinkage"}
    named = MacKayMixedRegressor(groups="Subject").fit(X, y)
    expected = RandomEffectsDisplay.from_estimator(named, X=X, y=y, kind="shrinkage")
    display = RandomEffectsDisplay.from_estimator(fitted, groups=X["Subject"], **rows)
    assert_allclose(display.unpooled, expected.unpooled, rtol=ROUNDING)
    with pytest.raises(ValueError, match="give `groups` too"):
        RandomEffectsDisplay.from_estimator(fitted, **rows)


def test_least_squares_by_level(rng):
    codes = np.array([0, 0, 0, 1, 1, 2, 3, 3, -1])
    x = np.array([0.0, 1.0, 3.0, 2.0, 5.0, 1.0, 4.0, 4.0, 9.0]) * 1e6
    y = rng.normal(size=9)
    found = least_squares_by_level(codes, np.vstack([np.ones(9), x]), y, 5)
    for level in (0, 1):
        rows = codes == level
        line = np.polynomial.Polynomial.fit(x[rows], y[rows], 1).convert().coef
        assert_allclose(found[level], line, rtol=ROUNDING)
    assert np.isnan(found[2:]).all()


def test_no_level_with_an_unpooled_estimate():
    display = RandomEffectsDisplay(effects=np.ones((3, 2)), unpooled=np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="rows enough"):
        display.plot(kind="shrinkage")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "histogram"}, "`kind` must be one of 'caterpillar', 'shrinkage'"),
        ({"factor": "Days"}, "`factor` must be one of 'Subject'"),
        ({"coefficient": "Subject"}, "none of the coefficients"),
        ({"coefficient": ("intercept", "Days")}, "must be one name"),
        ({"level": 95}, "`level` must be a probability"),
        ({"kind": "shrinkage"}, "give X and y"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomEffectsDisplay.from_estimator(model, **arguments)
    assert plt.get_fignums() == []


def test_a_shrinkage_plot_needs_one_output(model, sleepstudy):
    X, y = sleepstudy
    with pytest.raises(ValueError, match="one output"):
        RandomEffectsDisplay.from_estimator(model, kind="shrinkage", X=X, y=np.column_stack([y, y]))


@pytest.fixture(scope="module")
def four():
    """Four factors, one of which has a slope."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"x": rng.normal(size=400)})
    for name, n in {"a": 12, "b": 7, "c": 60, "d": 5}.items():
        X[name] = [f"{name}{i:02d}" for i in rng.integers(n, size=400)]
    y = rng.normal(size=400) + X["x"]
    for name in "abcd":
        y += X[name].map({level: rng.normal() for level in sorted(X[name].unique())})
    model = MacKayMixedRegressor(groups=list("abcd"), random_slopes={"a": ["x"]})
    return model.fit(X, y), X, y.to_numpy()


def test_all_factors_are_drawn_one_axes_each(four):
    model, X, y = four
    display = RandomEffectsDisplay.from_estimator(model)
    assert [ax.get_xlabel() for ax in display.axes_] == [
        f"{name}: intercept, 95% interval" for name in "abcd"
    ]
    assert display.axes_.shape == (4,)
    assert display.ax_ is display.axes_[0]
    assert list(display.figure_.axes) == list(display.axes_)
    for name, ax in zip("abcd", display.axes_, strict=True):
        alone = RandomEffectsDisplay.from_estimator(model, name)
        points = display.points_[name].lines[0]
        assert_array_equal(points.get_xdata(), alone.points_.lines[0].get_xdata())
        assert_array_equal(
            segments_of(display.points_[name])[:, :, 0], segments_of(alone.points_)[:, :, 0]
        )
        assert points.axes is ax
        assert display.zero_line_[name].axes is ax
        if name != "c":
            assert tick_texts(ax) == tick_texts(alone.ax_)
        assert_readable(ax)
    assert display.axes_[2].get_ylabel() == "c, rank"


def test_shrinkage_of_all_factors(four):
    model, X, y = four
    display = RandomEffectsDisplay.from_estimator(model, kind="shrinkage", X=X, y=y)
    alone = RandomEffectsDisplay.from_estimator(model, "b", kind="shrinkage", X=X, y=y)
    found = display.points_["b"].get_offsets()
    assert_array_equal(found, alone.points_.get_offsets())
    assert [ax.get_ylabel() for ax in display.axes_[:2]] == ["a: x", "b: intercept, shrunken"]
    again = display.plot(kind="shrinkage", coefficient="intercept")
    assert again.axes_[0].get_ylabel() == "a: intercept, shrunken"


def test_all_factors_on_given_axes(four):
    figure, axes = plt.subplots(2, 2)
    display = RandomEffectsDisplay.from_estimator(four[0], ax=axes)
    assert list(display.axes_) == list(axes.ravel())
    assert display.figure_ is figure
    before = plt.get_fignums()
    with pytest.raises(ValueError, match="Expected ax to have 4 axes, got 1"):
        RandomEffectsDisplay.from_estimator(four[0], ax=axes[0, 0])
    with pytest.raises(ValueError, match="'x' is none of the coefficients of 'b'"):
        RandomEffectsDisplay.from_estimator(four[0], coefficient="x")
    assert plt.get_fignums() == before


def test_every_display_names_its_axes_alike(model):
    for display in (of_effects(model), of_profile(model), of_convergence(model)):
        assert display.ax_ is display.axes_[0]
        assert display.figure_ is display.ax_.figure
        assert list(display.figure_.axes) == list(display.axes_)


def test_no_factor(sleepstudy):
    X, y = sleepstudy
    with pytest.raises(ValueError, match="no grouping factor"):
        RandomEffectsDisplay.from_estimator(MacKayMixedRegressor().fit(X[["Days"]], y))


def of_effects(estimator):
    return RandomEffectsDisplay.from_estimator(estimator)


def of_profile(estimator):
    return VarianceProfileDisplay.from_estimator(estimator, "sd(residual)")


def of_convergence(estimator):
    return ConvergenceDisplay.from_estimator(estimator)


@pytest.mark.parametrize("show", [of_effects, of_profile, of_convergence])
def test_what_cannot_be_displayed(sleepstudy, show):
    X, y = sleepstudy
    with pytest.raises(NotFittedError):
        show(MacKayMixedRegressor(groups="Subject"))
    ridge = make_pipeline(FunctionTransformer(), Ridge())
    with pytest.raises(NotFittedError):
        show(ridge)
    with pytest.raises(TypeError, match="fitted MacKayMixedRegressor, or .*, got Ridge"):
        show(Ridge().fit(X[["Days"]], y))
    with pytest.raises(TypeError, match="got Pipeline of Ridge"):
        show(ridge.fit(X[["Days"]], y))
    search = GridSearchCV(ridge, {"ridge__alpha": [1.0]}).fit(X[["Days"]], y)
    with pytest.raises(TypeError, match="got GridSearchCV of Pipeline of Ridge"):
        show(search)
    model = MacKayMixedRegressor(groups="Subject")
    search = GridSearchCV(model, {"method": ["ml"]}, refit=False).fit(X, y)
    with pytest.raises(TypeError, match="got GridSearchCV"):
        show(search)
    with pytest.raises(TypeError, match="not an estimator instance"):
        show("model")
    several = MacKayMixedRegressor(groups="Subject").fit(X, np.column_stack([y, -y]))
    with pytest.raises(ValueError, match="several outputs"):
        show(several)


def wrapped():
    """The model of the sleep study in what scikit-learn puts around a regressor."""
    model = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]})
    scaler = make_column_transformer(
        (StandardScaler(), ["Days"]), remainder="passthrough", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scaler, model)
    grid = {"mackaymixedregressor__method": ["reml"]}
    logarithm = {"func": np.log, "inverse_func": np.exp}
    one = {"method": ["reml"]}
    return {
        "pipeline": pipeline,
        "alone": make_pipeline(model),
        "nested": make_pipeline("passthrough", pipeline),
        "search": GridSearchCV(model, one),
        "random search": RandomizedSearchCV(model, one, n_iter=1),
        "search of a pipeline": GridSearchCV(pipeline, grid),
        "search in a pipeline": make_pipeline(scaler, GridSearchCV(model, one)),
        "target": TransformedTargetRegressor(model, **logarithm),
        "target of a pipeline": TransformedTargetRegressor(pipeline, **logarithm),
        "search of a target": GridSearchCV(
            TransformedTargetRegressor(model, **logarithm), {"regressor__method": ["reml"]}
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", wrapped())
def test_a_model_inside_another_estimator(sleepstudy, name):
    X, y = sleepstudy
    estimator = wrapped()[name].fit(X, y)
    is_scaled = "pipeline" in name or name == "nested"
    days = (X["Days"] - 4.5) / X["Days"].std(ddof=0)
    rows = X.assign(Days=days) if is_scaled else X
    target = np.log(y) if "target" in name else y
    slopes = {"Subject": ["Days"]}
    model = MacKayMixedRegressor(groups="Subject", random_slopes=slopes).fit(rows, target)
    found = RandomEffectsDisplay.from_estimator(estimator, coefficient="Days")
    size = np.max(np.abs(model.random_effects_["Subject"]))
    assert_allclose(found.effects, model.random_effects_["Subject"], atol=INSIDE * size)
    assert found.ax_.get_xlabel() == "Subject: Days, 95% interval"
    shrunken = RandomEffectsDisplay.from_estimator(estimator, kind="shrinkage", X=X, y=y)
    expected = RandomEffectsDisplay.from_estimator(model, kind="shrinkage", X=rows, y=target)
    assert_allclose(shrunken.unpooled, expected.unpooled, atol=INSIDE * size)
    assert_allclose(of_profile(estimator).estimate, of_profile(model).estimate, rtol=INSIDE)
    assert of_convergence(estimator).variances.keys() == of_convergence(model).variances.keys()


def test_slopes_have_the_names_that_the_model_saw(sleepstudy):
    X, y = sleepstudy
    scaler = make_column_transformer((StandardScaler(), ["Days"]), remainder="passthrough")
    slopes = {"remainder__Subject": ["standardscaler__Days"]}
    model = MacKayMixedRegressor(groups="remainder__Subject", random_slopes=slopes)
    pipeline = make_pipeline(scaler.set_output(transform="pandas"), model).fit(X, y)
    display = RandomEffectsDisplay.from_estimator(pipeline, coefficient="standardscaler__Days")
    assert display.coefficient_names == ("intercept", "standardscaler__Days")
    assert display.name == "remainder__Subject"


@pytest.mark.parametrize("show", [of_effects, of_profile, of_convergence])
def test_without_matplotlib(model, show, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="requires matplotlib"):
        show(model)


@pytest.mark.slow
def test_import_leaves_matplotlib_out():
    code = "import sys, sklearn_mackay.display.effects; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def profile_of(kind="zeta", ax=None, **changes):
    values = np.linspace(10.0, 50.0, 41)
    arguments = {
        "values": values,
        "zeta": 4.2 * np.log(values / 25.0),
        "parameter": "sd(Subject: intercept)",
        "estimate": 25.0,
        "interval": (25.0 * np.exp(-Z95 / 4.2), 25.0 * np.exp(Z95 / 4.2)),
    }
    return VarianceProfileDisplay(**(arguments | changes)).plot(ax, kind=kind)


@pytest.mark.parametrize("kind", ["zeta", "deviance"])
def test_profile(kind):
    display = profile_of(kind)
    power = 1 if kind == "zeta" else 2
    assert_allclose(display.line_.get_ydata(), display.zeta**power, rtol=DRAWN)
    assert_array_equal(display.estimate_line_.get_xdata(), [25.0, 25.0])
    ends = np.array(display.interval_points_.get_xydata())
    assert_allclose(ends[:, 0], display.interval, rtol=DRAWN)
    assert_allclose(np.abs(ends[:, 1]), Z95**power, rtol=INTERPOLATED)
    assert display.ax_.get_xlabel() == "sd(Subject: intercept)"
    display.figure_.canvas.draw()


def test_profile_points_may_come_in_any_order():
    shuffled = np.random.default_rng(0).permutation(41)
    values = np.linspace(10.0, 50.0, 41)[shuffled]
    display = profile_of(values=values, zeta=4.2 * np.log(values / 25.0))
    assert np.all(np.diff(display.line_.get_xdata()) > 0)


@pytest.mark.parametrize("kind", ["zeta", "deviance"])
def test_profile_that_ends_at_zero(kind):
    values = np.linspace(0.0, 30.0, 31)
    display = profile_of(
        kind, values=values, zeta=(values - 8) / 7, estimate=8.0, interval=(0.0, 8 + 7 * Z95)
    )
    low, high = display.ax_.get_xlim()
    assert -1.0 < low < 0.0
    assert high > 30.0
    (x, height), _ = display.interval_points_.get_xydata()
    assert (x, height) == (0.0, pytest.approx(-8 / 7 if kind == "zeta" else (8 / 7) ** 2))
    assert min(display.ax_.get_ylim()) < min(height, 0.0)


def test_profile_of_an_estimate_at_zero():
    values = np.linspace(0.0, 10.0, 21)
    display = profile_of(values=values, zeta=values / 3, estimate=0.0, interval=(0.0, 3 * Z95))
    assert -1.0 < display.ax_.get_xlim()[0] < 0.0
    assert -0.5 < display.ax_.get_ylim()[0] < 0.0


def test_profile_of_a_correlation_stays_within_one():
    values = np.linspace(-1.0, 1.0, 41)
    zeta = 1.2 * (values - 0.7)
    display = profile_of(
        parameter="cor(Subject: intercept, Days)",
        values=values,
        zeta=np.where(values < 0.2, np.nan, zeta),
        estimate=0.7,
        interval=(np.nan, 1.0),
    )
    assert 1.0 < display.ax_.get_xlim()[1] < 1.1
    assert len(display.interval_points_.get_xdata()) == 1
    display.figure_.canvas.draw()


def test_profile_shows_what_is_near_the_estimate():
    values = np.linspace(0.0, 100.0, 1001)[1:]
    display = profile_of(values=values, zeta=10 * np.log(values / 25.0), interval=(20.5, 30.5))
    low, high = display.ax_.get_xlim()
    assert 15.0 < low < 25.0 * np.exp(-0.4) + 0.1
    assert 25.0 * np.exp(0.4) - 0.1 < high < 40.0


def test_profile_without_a_point():
    nan = np.nan
    display = profile_of(zeta=np.full(41, nan), estimate=nan, interval=(nan, nan))
    display.figure_.canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zeta", "deviance"])
def test_profiles_in_small_axes(kind):
    figure, axes = plt.subplots(1, 3, figsize=(7, 2), layout="constrained")
    for ax in axes:
        profile_of(kind, ax, parameter=f"cor({'a' * 50}: {'b' * 50}, c)")
        figure.canvas.draw()
    for ax in axes:
        box, name = ax.get_tightbbox(), ax.xaxis.label.get_window_extent()
        assert name.x0 >= box.x0 - 1.0
        assert name.x1 <= box.x1 + 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameter", ["sd(Subject: intercept)", "cor(Subject: intercept, Days)", "sd(residual)"]
)
@pytest.mark.parametrize("kind", ["zeta", "deviance"])
def test_profile_of_the_sleep_study(model, parameter, kind):
    display = VarianceProfileDisplay.from_estimator(model, parameter, kind=kind, n_points=9)
    profile = model.profile(parameter, n_points=9)
    power = 1 if kind == "zeta" else 2
    assert_allclose(display.line_.get_xdata(), profile.values, rtol=ROUNDING)
    assert_allclose(display.line_.get_ydata(), profile.zeta**power, atol=PROFILED)
    assert_allclose(display.interval_points_.get_xdata(), profile.interval, rtol=ROUNDING)
    assert display.estimate_line_.get_xdata()[0] == profile.estimate
    assert_readable(display.ax_)


@pytest.mark.slow
def test_profile_of_a_singular_fit(singular):
    display = VarianceProfileDisplay.from_estimator(singular, "sd(x0: intercept)", n_points=5)
    assert display.estimate == 0.0
    assert_array_equal(display.interval_points_.get_xydata()[0], [0.0, 0.0])
    assert -0.1 < display.ax_.get_xlim()[0] < 0.0
    assert_readable(display.ax_)


def test_a_fixed_feature_has_no_bounds():
    values = np.linspace(0.0, 1.5, 16)
    ends = {"values": values, "zeta": values - 1.0, "estimate": 1.0, "interval": (0.0, 1.5)}
    assert profile_of(parameter="sd", **ends).ax_.get_xlim()[0] == pytest.approx(-0.075)


def test_unknown_kind_of_profile(model):
    with pytest.raises(ValueError, match="'zeta', 'deviance'"):
        VarianceProfileDisplay.from_estimator(model, "sd(residual)", kind="density")


def test_convergence(model):
    display = ConvergenceDisplay.from_estimator(model)
    deviance = np.array([iteration["deviance"] for iteration in model.history_])
    above = deviance - deviance[-1]
    assert_allclose(display.criterion_line_.get_ydata(), above, atol=DRAWN)
    intercept, slope, residual = display.variance_lines_
    assert [line.get_label() for line in display.variance_lines_] == [
        "Subject: intercept",
        "Subject: Days",
        "residual",
    ]
    final = model.variance_components_
    history = [iteration["variances"] for iteration in model.history_]
    expected = np.array([v["Subject"][1, 1] for v in history]) / final["Subject"][1, 1]
    assert_allclose(slope.get_ydata(), expected, rtol=ROUNDING)
    assert_allclose(residual.get_ydata()[0], history[0]["residual"] / final["residual"])
    steps = [iteration["step"] for iteration in model.history_]
    assert list(display.step_points_) == list(dict.fromkeys(steps))
    newton = display.step_points_["newton"].get_xdata()
    assert_array_equal(newton, np.flatnonzero(np.array(steps) == "newton"))
    assert display.axes_[0].get_yscale() == "symlog"
    assert_readable(display.axes_[0])


def test_convergence_on_given_axes(model):
    figure, axes = plt.subplots(1, 2)
    display = ConvergenceDisplay.from_estimator(model, ax=axes)
    assert list(display.axes_) == list(axes)
    assert display.figure_ is figure
    assert [ax.get_xlabel() for ax in axes] == ["Iteration", "Iteration"]


def test_convergence_needs_two_axes(model):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="Expected ax to have 2 axes, got 1"):
        ConvergenceDisplay.from_estimator(model, ax=ax)


def test_convergence_to_a_variance_of_zero(singular):
    display = ConvergenceDisplay.from_estimator(singular)
    path = display.variance_lines_[0].get_ydata()
    assert path[0] == 1.0
    assert path[-1] == 0.0
    assert display.variance_lines_[0].get_label() == "x0 (0 at last)"
    display.figure_.canvas.draw()


def test_convergence_of_nothing(sleepstudy):
    X, y = sleepstudy
    display = ConvergenceDisplay.from_estimator(MacKayMixedRegressor().fit(X[["Days"]], y))
    display.figure_.canvas.draw()
    assert_array_equal(display.criterion_line_.get_ydata()[-1:], [0.0])
    for ax in display.axes_:
        places = ax.get_xticks()
        assert_array_equal(places, np.round(places))


def test_convergence_by_way_of_an_infinite_criterion():
    display = ConvergenceDisplay(
        deviance=[np.inf, 30.0, 20.0 - OVERSHOT, 20.0],
        variances={"a": [1.0, 400.0, 2.0, 1.0], "residual": [1.0] * 4},
        steps=["start", "mackay", "zero", "release"],
    ).plot()
    display.figure_.canvas.draw()
    assert np.isnan(display.criterion_line_.get_ydata()[0])
    low, high = display.axes_[0].get_ylim()
    assert low < -OVERSHOT
    assert high > 10.0
    assert display.axes_[1].get_yscale() == "symlog"


@pytest.mark.parametrize("n", [1, 30])
def test_legends_of_odd_and_many_names(n):
    names = [f"_a long name with $ signs $, as they may be, number {i}" for i in range(n)]
    display = ConvergenceDisplay(
        deviance=[2.0, 1.0], variances={name: [2.0, 1.0] for name in names}, steps=["start", "mm"]
    ).plot()
    display.figure_.canvas.draw()
    ax = display.axes_[1]
    legend = ax.get_legend()
    assert len(legend.get_texts()) == n
    box, inside = legend.get_window_extent(), ax.get_window_extent()
    assert box.y0 >= inside.y0
    assert box.width <= inside.width
