"""Plots of a fitted model, in the manner of scikit-learn's displays.

They show what a fit left behind; only a shrinkage plot meets rows again. matplotlib is imported
where something is drawn, so that the package does without it.

Every display has `axes_`, the array of all axes that it drew on, `ax_`, the first of them, and
`figure_`; most draw on one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from ..frames.tables import quoted, read_target

Array = NDArray[np.float64]

EffectKind: TypeAlias = Literal["caterpillar", "shrinkage"]
ProfileKind: TypeAlias = Literal["zeta", "deviance"]
BOUNDS = {"sd(": (0.0, np.inf), "cor(": (-1.0, 1.0)}  # by how a parameter's name begins
MARKERS = {
    "start": "o",
    "mackay": "s",
    "quick": "P",
    "mm": "^",
    "newton": "D",
    "zero": "v",
    "release": "*",
}

LINE_STYLES = ("-", "--", ":", "-.")  # one after another for each ten colours
GREY = "0.6"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

POINTS_PER_INCH = 72.0
LINE_SPACING = 1.25  # height of a line of text, in font sizes
CHARACTER_WIDTH = 0.62  # mean width of a character, in font sizes
MOST_COLUMNS = 3  # axes beside each other in a figure of several factors
SMALLEST_FONT = 6.0  # points; smaller labels cannot be read
LONGEST_LABEL = 36  # characters of a label that a figure of our own makes room for
SHORTEST_LABEL = 8  # characters below which a shortened label tells nothing
BESIDE_LABELS = 28.0  # points between a tick label and the outer edge of the axis label
ROOM_FOR_X_AXIS = 1.0  # inches
SHARE_LAID_OUT = 0.75  # of axes that a layout leaves them beside the longest labels
LEGEND_ROWS = 8  # more entries stand in columns
FEW_POINTS = 200  # points that a legend can look for a free place among
FEW_ITERATIONS = 30  # that can be told apart on a line

FAR = 4.0  # beyond this zeta a profile has nothing more to tell; its probability is 6e-5
SAME_DIRECTION = 1e-10  # ratio of eigenvalues below which a level's columns are dependent
ROUNDING = 1e-13  # relative rounding of a criterion
WIDE = 10.0  # ratio of variances beyond which their axis turns logarithmic above 1


class RandomEffectsDisplay:
    """Random effects of grouping factors, with their intervals or with what they shrank from.

    Make one with :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    effects : ndarray of shape (n_levels,) or (n_levels, s), or dict of str to these
        Predicted effects: one coefficient, or several, in their units. A dict by factor draws
        several factors; the other parameters but `name` are then None or such dicts too.
    std : ndarray of the same shape, default=None
        Standard deviations of their errors; None draws no intervals.
    labels : array-like of shape (n_levels,), default=None
        Labels of the levels, tuples for an interaction; None shows ranks.
    name : str, default=None
        Name of the factor.
    coefficient_names : sequence of str, or dict of str to these, default=None
        Names of the s coefficients; "intercept" and "slope 1", "slope 2", ... by default.
    unpooled : ndarray of the same shape, default=None
        Estimates from each level's rows alone, NaN where they do not suffice.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot; the first of several.
    axes_ : ndarray of matplotlib Axes of shape (n_factors,)
        All axes.
    figure_ : matplotlib Figure
        Figure that contains them.
    points_ : matplotlib Artist
        ``ErrorbarContainer`` of a caterpillar, ``PathCollection`` of shrunken effects. Here and
        below, several factors make a dict of factor to artist.
    segments_ : matplotlib LineCollection or None
        From the unpooled to the shrunken effects.
    zero_line_ : matplotlib Line2D
        Line at an effect of zero.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor, RandomEffectsDisplay
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]})
    >>> display = RandomEffectsDisplay.from_estimator(model.fit(X, y), coefficient="Days")
    >>> display.ax_.get_xlabel()
    'Subject: Days, 95% interval'
    """

    def __init__(
        self,
        *,
        effects: Any,
        std: Any = None,
        labels: Any = None,
        name: str | None = None,
        coefficient_names: Any = None,
        unpooled: Any = None,
    ) -> None:
        self.effects = effects
        self.std = std
        self.labels = labels
        self.name = name
        self.coefficient_names = coefficient_names
        self.unpooled = unpooled
        self.points_: Any
        self.segments_: Any
        self.zero_line_: Any

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        factor: str | None = None,
        *,
        coefficient: str | Sequence[str] | None = None,
        kind: EffectKind = "caterpillar",
        level: float | None = 0.95,
        max_labels: int = 40,
        X: Any = None,
        y: Any = None,
        groups: Any = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> RandomEffectsDisplay:
        """Draw the random effects of a fitted model.

        Parameters
        ----------
        estimator : MacKayMixedRegressor, Pipeline, search or TransformedTargetRegressor
            Fitted on one output: a mixed model, or what has one as its last step, best estimator
            or regressor.
        factor : str, default=None
            Grouping factor, as in `groups_`; None for all of them, one axes each.
        coefficient : str or pair of str, default=None
            "intercept" or the name of a slope, as the model saw it: behind a transformer, the name
            that comes out. None is the first coefficient; for a shrinkage plot
            the first two, where there are two. A pair is for a shrinkage plot.
        kind : {"caterpillar", "shrinkage"}, default="caterpillar"
            Sorted effects with intervals, or the way of each effect from its unpooled estimate:
            in the plane of two coefficients, or of one against itself. The way of an outlier
            leads out of the picture.
        level : float or None, default=0.95
            Probability of the intervals; None draws none, and needs no standard deviations.
        max_labels : int, default=40
            Most levels that a caterpillar labels; more are shown by rank.
        X, y : data frame or array-like of shape (n_samples, n_features), (n_samples,), default=None
            Rows that a shrinkage plot computes unpooled estimates from: by least squares in each
            level, from y less the fixed part and the other factors' effects. Rows as `estimator`
            takes them: what a pipeline or a transformed target does to them is done here too.
        groups : array-like of shape (n_samples,) or (n_samples, n_factors), default=None
            Labels, if `fit` was given `groups`.
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw, one for each factor; None makes a figure.
        **kwargs : dict
            Given to matplotlib's `errorbar` (caterpillar) or `scatter` (shrinkage).

        Returns
        -------
        RandomEffectsDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            As in `plot`; for an unknown factor, a model of several outputs, or a shrinkage plot
            without X and y.
        TypeError
            For an estimator without a mixed model.
        AttributeError
            Where intervals are asked for and the fit kept no covariance.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor, RandomEffectsDisplay
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> RandomEffectsDisplay.from_estimator(model, kind="shrinkage", X=X, y=y)
        <...>
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model, X, y = _model_inside(estimator, X, y)
        _check_choice("kind", kind, get_args(EffectKind))
        factors = _chosen_factors(model, factor)
        of_factors: dict[str, Any] = {
            "effects": model.random_effects_,
            "labels": model.group_levels_,
            "coefficient_names": {name: _coefficient_names(model, name) for name in factors},
        }
        if kind == "shrinkage":
            of_factors["unpooled"] = {
                name: _unpooled_effects(model, name, X, y, groups) for name in factors
            }
        elif level is not None:
            of_factors["std"] = model.random_effects_std_
        if len(factors) == 1:
            (name,) = factors
            display = cls(name=name, **{key: value[name] for key, value in of_factors.items()})
        else:
            display = cls(**of_factors)
        return display.plot(
            ax, coefficient=coefficient, kind=kind, level=level, max_labels=max_labels, **kwargs
        )

    def plot(
        self,
        ax: Any = None,
        *,
        coefficient: str | Sequence[str] | None = None,
        kind: EffectKind = "caterpillar",
        level: float | None = 0.95,
        max_labels: int = 40,
        **kwargs: Any,
    ) -> RandomEffectsDisplay:
        """Draw the effects.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw, one for each factor; None makes a figure, as high as its labels need.
        coefficient : str or pair of str, default=None
            As in :meth:`from_estimator`.
        kind : {"caterpillar", "shrinkage"}, default="caterpillar"
            What to draw; "shrinkage" needs `unpooled`.
        level : float or None, default=0.95
            Probability of the intervals; None draws none.
        max_labels : int, default=40
            Most levels that are labelled. Labels are shortened to the room they have, and left out
            where they could not be read or told apart; a figure with ``layout="constrained"``
            makes room.
        **kwargs : dict
            Given to matplotlib's `errorbar` (caterpillar) or `scatter` (shrinkage).

        Returns
        -------
        RandomEffectsDisplay
            The display itself.

        Raises
        ------
        ValueError
            For an unknown kind or coefficient, a level outside (0, 1), another number of axes, or
            a shrinkage plot without `unpooled` estimates.

        Examples
        --------
        >>> from sklearn_mackay import RandomEffectsDisplay
        >>> display = RandomEffectsDisplay(effects=[-1.2, 0.3, 0.9], std=[0.4, 0.5, 0.4])
        >>> display.plot(color="C1").points_
        <ErrorbarContainer object of 3 artists>
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        _check_choice("kind", kind, get_args(EffectKind))
        if level is not None and not 0 < level < 1:
            raise ValueError(f"`level` must be a probability between 0 and 1, got {level!r}.")
        if kind == "shrinkage" and self.unpooled is None:
            raise ValueError("A shrinkage plot needs `unpooled` estimates.")
        parts = self._of_one_factor()
        chosen = [part._chosen_coefficients(coefficient, kind) for part in parts]
        if kind == "shrinkage":
            for part, columns in zip(parts, chosen, strict=True):
                _check_unpooled(_as_columns(part.unpooled)[:, columns])
        rows = [part._n_labels(max_labels) for part in parts if kind == "caterpillar"]
        self.axes_ = _axes(ax, len(parts), rows_of_text=max(rows, default=0))
        for part, axes, columns in zip(parts, self.axes_, chosen, strict=True):
            if kind == "caterpillar":
                part._plot_caterpillar(axes, columns[0], level, max_labels, kwargs)
            else:
                part._plot_shrinkage(axes, columns, kwargs)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        if isinstance(self.effects, Mapping):
            self.points_ = {part.name: part.points_ for part in parts}
            self.segments_ = {part.name: part.segments_ for part in parts}
            self.zero_line_ = {part.name: part.zero_line_ for part in parts}
        return self

    def _of_one_factor(self) -> list[RandomEffectsDisplay]:
        """A display for each factor: this one, where it has one."""
        if not isinstance(self.effects, Mapping):
            return [self]
        others = {
            name: getattr(self, name) for name in ("std", "labels", "coefficient_names", "unpooled")
        }
        return [
            RandomEffectsDisplay(
                effects=effects,
                name=factor,
                **{name: values and values[factor] for name, values in others.items()},
            )
            for factor, effects in self.effects.items()
        ]

    def _n_labels(self, max_labels: int) -> int:
        """Number of levels that a caterpillar labels: all or none."""
        n = len(_as_columns(self.effects))
        return 0 if self.labels is None or n > max_labels else n

    def _names(self, s: int) -> tuple[str, ...]:
        if self.coefficient_names is not None:
            return tuple(self.coefficient_names)
        return ("intercept", *(f"slope {i}" for i in range(1, s)))

    def _chosen_coefficients(
        self, coefficient: str | Sequence[str] | None, kind: EffectKind
    ) -> list[int]:
        """Positions of the coefficients to draw: one, or two for a plane."""
        s = _as_columns(self.effects).shape[1]
        most = 2 if kind == "shrinkage" else 1
        if coefficient is None:
            return list(range(min(s, most)))
        names = self._names(s)
        wanted = [coefficient] if isinstance(coefficient, str) else list(coefficient)
        if not 1 <= len(wanted) <= most or len(set(wanted)) < len(wanted):
            raise ValueError(
                "`coefficient` must be one name, or for a shrinkage plot two different ones, got "
                f"{coefficient!r}."
            )
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"`coefficient` {name!r} is none of the coefficients of {self.name!r}: "
                    f"{quoted(names)}."
                )
        return [names.index(name) for name in wanted]

    def _title(self, coefficient: int) -> str:
        """Name of a coefficient with its factor's."""
        own = self._names(_as_columns(self.effects).shape[1])[coefficient]
        return _shortened(own if self.name is None else f"{self.name}: {own}", LONGEST_LABEL)

    def _plot_caterpillar(
        self,
        ax: Any,
        coefficient: int,
        level: float | None,
        max_labels: int,
        kwargs: dict[str, Any],
    ) -> None:
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        effects = _as_columns(self.effects)[:, coefficient]
        order = np.argsort(effects, kind="stable")
        n = len(order)
        positions = np.arange(1, n + 1)
        labels = _texts(self.labels) if self._n_labels(max_labels) else None
        height = _points(ax, ax.get_window_extent().height) / (n + 1)
        style: dict[str, Any] = {
            "marker": "o",
            "linestyle": "none",
            "color": "C0",
            "markersize": np.clip(0.5 * height, 1.0, 5.0),
            "elinewidth": np.clip(0.25 * height, 0.3, 1.5),
            "capsize": 0.0,
            **normalize_kwargs(kwargs, Line2D),
        }
        style.setdefault("ecolor", _lighter(style["color"]))
        halves, note = None, ""
        if self.std is not None and level is not None:
            halves = ndtri(0.5 + 0.5 * level) * _as_columns(self.std)[order, coefficient]
            note = f", {100 * level:.4g}% interval"
        self.zero_line_ = ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
        self.points_ = ax.errorbar(effects[order], positions, xerr=halves, **style)
        self.segments_ = None
        ax.set_ylim(0.4, n + 0.6)
        _name_axis(ax.xaxis, f"{self._title(coefficient)}{note}")
        is_labelled = labels is not None and _label_rows(ax, positions, [labels[i] for i in order])
        if not is_labelled:
            _whole_numbers(ax.yaxis)
        name = _shortened("level" if self.name is None else self.name, LONGEST_LABEL)
        _name_axis(ax.yaxis, name if is_labelled else f"{name}, rank")

    def _plot_shrinkage(self, ax: Any, chosen: Sequence[int], kwargs: dict[str, Any]) -> None:
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.collections import LineCollection, PathCollection

        effects = _as_columns(self.effects)[:, chosen]
        unpooled = _as_columns(self.unpooled)[:, chosen]
        known = np.isfinite(unpooled).all(axis=1)
        n = len(effects)
        is_plane = len(chosen) == 2
        start = unpooled if is_plane else np.repeat(unpooled, 2, axis=1)
        end = effects if is_plane else np.column_stack([unpooled, effects])
        style: dict[str, Any] = {
            **({} if "c" in kwargs else {"color": "C0"}),
            "s": np.clip(4000.0 / n, 3.0, 25.0),
            "zorder": 2.5,
            "label": "shrunken",
            **normalize_kwargs(kwargs, PathCollection),
        }
        self.zero_line_ = ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
        segments = np.stack([start, end], axis=1)[known]
        self.segments_ = ax.add_collection(
            LineCollection(
                list(segments), colors=GREY, linewidths=0.8, alpha=np.clip(100.0 / n, 0.1, 1.0)
            )
        )
        if is_plane:
            ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
            ax.scatter(
                *start[known].T, s=style["s"], facecolors="none", edgecolors=GREY, label="unpooled"
            )
            _name_axis(ax.yaxis, self._title(chosen[1]))
            _name_axis(ax.xaxis, self._title(chosen[0]))
        else:
            ax.axline((0.0, 0.0), slope=1.0, color=GREY, linestyle="--", label="not shrunken")
            _name_axis(ax.yaxis, f"{self._title(chosen[0])}, shrunken")
            _name_axis(ax.xaxis, f"{self._title(chosen[0])}, unpooled")
        self.points_ = ax.scatter(*end.T, **style)
        ax.set_xlim(*_span_without_outliers(unpooled[known, 0], effects[:, 0]))
        ax.set_ylim(*_span_without_outliers(unpooled[known, -1], effects[:, -1]))
        ax.legend(
            loc="best" if n <= FEW_POINTS else "upper left",
            fontsize="small",
            markerscale=5.0 / np.sqrt(style["s"]),
        )


class VarianceProfileDisplay:
    """Profile of the likelihood over one parameter: a standard deviation, a correlation.

    Make one with :meth:`from_estimator`. All parameters are stored as attributes. Where the profile
    is a straight line in "zeta" the estimate is as good as normal, and its standard error tells
    everything; a bend is what the interval takes into account. A black line is a bound of the
    parameter, at which a profile ends.

    Parameters
    ----------
    values : ndarray of shape (n_points,)
        Values of the parameter.
    zeta : ndarray of shape (n_points,)
        Signed root of the deviance's difference from its minimum; NaN where it does not exist.
    parameter : str
        Name such as "sd(Subject: intercept)", "cor(Subject: intercept, Days)" or "sd(residual)".
    estimate : float
        Where the deviance is least.
    interval : tuple of float
        Lower and upper end, NaN for one that does not exist.
    level : float, default=0.95
        Probability of the interval.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    axes_ : ndarray of matplotlib Axes of shape (1,)
        The same in an array, as other displays have it.
    figure_ : matplotlib Figure
        Figure that contains it.
    line_ : matplotlib Line2D
        The profile.
    estimate_line_ : matplotlib Line2D
        Line at the estimate.
    interval_points_ : matplotlib Line2D
        The ends of the interval, on the profile.

    References
    ----------
    Bates, Maechler, Bolker, Walker (2015), "Fitting linear mixed-effects models using lme4",
    section 5.1.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor, VarianceProfileDisplay
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> display = VarianceProfileDisplay.from_estimator(model, "sd(residual)")
    >>> round(display.estimate, 1)
    31.0
    """

    def __init__(
        self,
        *,
        values: Any,
        zeta: Any,
        parameter: str,
        estimate: float,
        interval: tuple[float, float],
        level: float = 0.95,
    ) -> None:
        self.values = values
        self.zeta = zeta
        self.parameter = parameter
        self.estimate = estimate
        self.interval = interval
        self.level = level

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        parameter: str,
        *,
        kind: ProfileKind = "zeta",
        n_points: int = 31,
        ax: Any = None,
    ) -> VarianceProfileDisplay:
        """Compute and draw a profile of a fitted model.

        Parameters
        ----------
        estimator : MacKayMixedRegressor, Pipeline, search or TransformedTargetRegressor
            Fitted on one output: a mixed model, or what has one as its last step, best estimator
            or regressor.
        parameter : str
            As in the estimator's `profile`.
        kind : {"zeta", "deviance"}, default="zeta"
            Signed root of the deviance's difference, or the difference itself.
        n_points : int, default=31
            Points between the bounds of the 99 % interval.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        VarianceProfileDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            As in the estimator's `profile`; for an unknown kind.
        TypeError
            For an estimator without a mixed model.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor, VarianceProfileDisplay
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> VarianceProfileDisplay.from_estimator(model, "sd(residual)", kind="deviance")
        <...>
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model, _, _ = _model_inside(estimator)
        _check_choice("kind", kind, get_args(ProfileKind))
        profile = model.profile(parameter, n_points=n_points)
        display = cls(
            values=profile.values,
            zeta=profile.zeta,
            parameter=profile.parameter,
            estimate=profile.estimate,
            interval=profile.interval,
        )
        return display.plot(ax, kind=kind)

    def plot(self, ax: Any = None, *, kind: ProfileKind = "zeta") -> VarianceProfileDisplay:
        """Draw the profile.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        kind : {"zeta", "deviance"}, default="zeta"
            Signed root of the deviance's difference, or the difference itself.

        Returns
        -------
        VarianceProfileDisplay
            The display itself.

        Raises
        ------
        ValueError
            For an unknown kind.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_mackay import VarianceProfileDisplay
        >>> values = np.linspace(2, 6, 9)
        >>> curve = {"values": values, "zeta": values - 4, "interval": (2.04, 5.96)}
        >>> display = VarianceProfileDisplay(parameter="sd(residual)", estimate=4.0, **curve)
        >>> display.plot().ax_.get_xlabel()
        'sd(residual)'
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        _check_choice("kind", kind, get_args(ProfileKind))
        order = np.argsort(self.values)
        values = np.asarray(self.values, dtype=float)[order]
        zeta = np.asarray(self.zeta, dtype=float)[order]
        exists = np.isfinite(values) & np.isfinite(zeta)
        height = zeta if kind == "zeta" else zeta**2
        quantile = float(ndtri(0.5 + 0.5 * self.level))
        self.axes_ = _axes(ax)
        self.ax_ = ax = self.axes_[0]
        self.figure_ = ax.figure

        if kind == "zeta":
            thresholds = [-quantile, quantile]
            ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
            _name_axis(ax.yaxis, "zeta")
        else:
            thresholds = [quantile**2]
            _name_axis(ax.yaxis, "Deviance above its minimum")
        for threshold in thresholds:
            ax.axhline(threshold, color=GREY, linewidth=0.8, linestyle=":", zorder=0.5)
        self.line_ = ax.plot(values, np.where(exists, height, np.nan), color="C0")[0]
        self.estimate_line_ = ax.axvline(
            self.estimate, color="C1", linestyle="--", linewidth=1.0, label="estimate"
        )
        ends = np.array([end for end in self.interval if np.isfinite(end)])
        at_ends = np.interp(ends, values[exists], zeta[exists]) if exists.any() else ends * np.nan
        for end in ends:
            ax.axvline(end, color="C0", linewidth=0.8, linestyle=":", zorder=0.5)
        (self.interval_points_,) = ax.plot(
            ends,
            at_ends if kind == "zeta" else at_ends**2,
            linestyle="none",
            marker="o",
            color="C0",
            zorder=3,
            label=f"{100 * self.level:.4g}% interval",
        )
        self._frame(values[exists], zeta[exists], ends, kind)
        _name_axis(ax.xaxis, self.parameter)
        ax.legend(fontsize="small")
        return self

    def _frame(self, values: Array, zeta: Array, ends: Array, kind: str) -> None:
        """Show what is near the estimate; outside the parameter's bounds there is nothing."""
        near = np.abs(zeta) <= FAR
        shown = np.concatenate([values[near], ends, [self.estimate]])
        shown = shown[np.isfinite(shown)]
        if not len(shown):
            return
        low, high = shown.min(), shown.max()
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
        what, opened, _ = self.parameter.partition("(")
        first, last = BOUNDS.get(what + opened, (-np.inf, np.inf))
        for bound, is_near in ((first, low - margin < first), (last, high + margin > last)):
            if is_near:
                self.ax_.axvline(bound, color="black", linewidth=0.8, zorder=0.6)
        edge = 0.03 * (high - low) or margin
        self.ax_.set_xlim(max(low - margin, first - edge), min(high + margin, last + edge))
        largest = np.max(np.abs(zeta[near]), initial=0.0)
        top = 1.1 * max(largest, float(ndtri(0.5 + 0.5 * self.level)))
        bottom = -top if np.min(zeta[near], initial=0.0) < 0 else -0.1 * top
        self.ax_.set_ylim((bottom, top) if kind == "zeta" else (-0.03 * top**2, top**2))


class ConvergenceDisplay:
    """How criterion and variances came to their final values.

    Make one with :meth:`from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    deviance : ndarray of shape (n_iterations,)
        Criterion of each iteration.
    variances : mapping of str to ndarray of shape (n_iterations,)
        Variances of each iteration, by name.
    steps : sequence of str
        What led to each iteration: "start", "mackay", "mm", "newton", "quick", "zero", "release".

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (2,)
        Axes with criterion and variances.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
        Figure that contains them.
    criterion_line_ : matplotlib Line2D
        The criterion.
    step_points_ : dict of str to matplotlib Line2D
        Its points, by step.
    variance_lines_ : list of matplotlib Line2D
        The variances.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor, ConvergenceDisplay
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> display = ConvergenceDisplay.from_estimator(model)
    >>> sorted(display.variances)
    ['Subject', 'residual']
    """

    def __init__(
        self, *, deviance: Any, variances: Mapping[str, Any], steps: Sequence[str]
    ) -> None:
        self.deviance = deviance
        self.variances = variances
        self.steps = steps

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> ConvergenceDisplay:
        """Draw the iterations of a fit.

        Parameters
        ----------
        estimator : MacKayMixedRegressor, Pipeline, search or TransformedTargetRegressor
            Fitted on one output: a mixed model, or what has one as its last step, best estimator
            or regressor.
        ax : sequence of two matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ConvergenceDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            As in `plot`; for a model of several outputs.
        TypeError
            For an estimator without a mixed model.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor, ConvergenceDisplay
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject", method="mackay").fit(X, y)
        >>> ConvergenceDisplay.from_estimator(model)
        <...>
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        model, _, _ = _model_inside(estimator)
        history = model.history_
        display = cls(
            deviance=np.array([iteration["deviance"] for iteration in history]),
            variances=_variance_paths(model, history),
            steps=[iteration["step"] for iteration in history],
        )
        return display.plot(ax)

    def plot(self, ax: Any = None) -> ConvergenceDisplay:
        """Draw the iterations.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, default=None
            Where to draw criterion and variances; None makes a figure.

        Returns
        -------
        ConvergenceDisplay
            The display itself.

        Raises
        ------
        ValueError
            If `ax` is not a sequence of two.

        Examples
        --------
        >>> from sklearn_mackay import ConvergenceDisplay
        >>> history = {"deviance": [9.0, 4.0, 3.9], "variances": {"a": [1.0, 1.9, 2.0]}}
        >>> display = ConvergenceDisplay(steps=["start", "mackay", "newton"], **history)
        >>> list(display.plot().step_points_)
        ['start', 'mackay', 'newton']
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self.axes_ = _two_axes(ax)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        self._plot_criterion(self.axes_[0])
        self._plot_variances(self.axes_[1])
        for axes in self.axes_:
            _whole_numbers(axes.xaxis)
        for axes in self.axes_ if ax is not None else self.axes_[1:]:
            _name_axis(axes.xaxis, "Iteration")
        return self

    def _plot_criterion(self, ax: Any) -> None:
        deviance = np.asarray(self.deviance, dtype=float)
        above = np.where(np.isfinite(deviance), deviance - deviance[-1], np.nan)
        iterations = np.arange(len(above))
        size = np.clip(300.0 / len(above), 2.0, 5.0)
        (self.criterion_line_,) = ax.plot(iterations, above, color=GREY, linewidth=1.0)
        self.step_points_ = {}
        for step in dict.fromkeys(self.steps):
            at = np.array([other == step for other in self.steps])
            (self.step_points_[step],) = ax.plot(
                iterations[at],
                above[at],
                linestyle="",
                marker=MARKERS.get(step, "o"),
                markersize=size,
                color="C0",
                label=step,
            )
        positive = above[above > 0]
        if len(positive):
            known = np.isfinite(above)
            rounding = ROUNDING * np.max(np.abs(deviance[known]))
            _logarithmic_to_zero(ax, above[known], max(positive.min(), rounding))
        _name_axis(ax.yaxis, "Criterion \N{MINUS SIGN} final")
        ax.legend(loc="upper right", fontsize="small", frameon=False, markerscale=4.0 / size)

    def _plot_variances(self, ax: Any) -> None:
        paths = {name: np.asarray(path, dtype=float) for name, path in self.variances.items()}
        n_columns = max(-(-len(paths) // LEGEND_ROWS), 1)
        self.variance_lines_ = [
            ax.plot(
                _relative(path),
                color=f"C{i % 10}",
                linestyle=LINE_STYLES[i // 10 % len(LINE_STYLES)],
                marker="." if len(path) <= FEW_ITERATIONS else None,
                label=_legend_text(
                    f"{name} (0 at last)" if path[-1] == 0 else name, LONGEST_LABEL // n_columns
                ),
            )[0]
            for i, (name, path) in enumerate(paths.items())
        ]
        if any(np.nanmax(_relative(path)) > WIDE for path in paths.values()):
            ax.set_yscale("symlog", linthresh=1.0)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        _name_axis(ax.yaxis, "Variance / final")
        ax.legend(fontsize="small", ncols=n_columns)


def _model_inside(estimator: Any, X: Any = None, y: Any = None) -> tuple[Any, Any, Any]:
    """Find the fitted mixed model in an estimator, and rows as they reach it."""
    model, passed = estimator, []
    while not hasattr(model, "random_effects_"):
        check_is_fitted(model)
        passed.append(type(model).__name__)
        if isinstance(model, Pipeline):
            before, model = model[:-1], model[-1]
            X = before.transform(X) if len(before) and X is not None else X
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, TransformedTargetRegressor):
            y = y if y is None else _transformed_target(model.transformer_, y)
            model = model.regressor_
        else:
            raise TypeError(
                "Expected `estimator` to be a fitted MacKayMixedRegressor, or a pipeline, a search "
                f"or a TransformedTargetRegressor of one, got {' of '.join(passed)}."
            )
    if np.ndim(model.intercept_):
        raise ValueError(
            "This model was fitted on several outputs: to display it fit one, with y of shape "
            "(n_samples,)."
        )
    return model, X, y


def _transformed_target(transformer: Any, y: Any) -> Any:
    """A response as TransformedTargetRegressor hands it on: a column to transform, and back."""
    y = np.asarray(y)
    return transformer.transform(y[:, np.newaxis]).ravel() if y.ndim == 1 else y


def _check_unpooled(unpooled: Array) -> None:
    if not np.isfinite(unpooled).all(axis=1).any():
        raise ValueError("No level has rows enough for an unpooled estimate.")


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def _chosen_factors(estimator: Any, factor: str | None) -> list[str]:
    """The factor that is asked for, all of them if none is."""
    known: list[str] = estimator.groups_
    if not known:
        raise ValueError("This model has no grouping factor, so no random effects to display.")
    if factor is None:
        return known
    if factor not in known:
        raise ValueError(f"`factor` must be one of {quoted(known)}, got {factor!r}.")
    return [factor]


def _coefficient_names(estimator: Any, factor: str) -> tuple[str, ...]:
    """Names of a factor's coefficients, "intercept" first if it varies by level."""
    names: dict[str, tuple[str, ...]] = {
        columns.name: columns.coefficient_names for columns in estimator._roles.factors
    }
    return names[factor]


def _level_rows(
    estimator: Any, factor: str, X: Any, groups: Any
) -> tuple[NDArray[np.integer[Any]], Array]:
    """Level of each row, -1 for one not known, and the columns (s, n) of its coefficients."""
    estimator._require_labels(groups)
    codes, columns = estimator._read_rows(X, groups, [factor]).factors[factor]
    return codes, columns


def _unpooled_effects(estimator: Any, factor: str, X: Any, y: Any, groups: Any) -> Array:
    """What each level's rows alone say of its effects, all else as fitted."""
    if X is None or y is None:
        raise ValueError("A shrinkage plot needs the rows: give X and y.")
    codes, columns = _level_rows(estimator, factor, X, groups)
    others = [name for name in estimator.groups_ if name != factor]
    target = read_target(estimator, y, len(codes))
    if target.ndim != 1:
        raise ValueError("A shrinkage plot needs one output: give y of shape (n_samples,).")
    rest = target - estimator.predict(X, groups, effects=others)
    return least_squares_by_level(codes, columns, rest, len(estimator.random_effects_[factor]))


def least_squares_by_level(
    codes: NDArray[np.integer[Any]], columns: Array, y: Array, n_levels: int
) -> Array:
    """Coefficients of y on the columns, level by level.

    Parameters
    ----------
    codes : ndarray of shape (n,)
        Level of each row, -1 for none.
    columns : ndarray of shape (s, n)
        Columns.
    y : ndarray of shape (n,)
        Response.
    n_levels : int
        Number of levels.

    Returns
    -------
    ndarray of shape (n_levels, s)
        NaN for a level whose rows do not tell its coefficients apart.
    """
    known = codes >= 0
    codes, columns, y = codes[known], columns[:, known], y[known]
    s = len(columns)
    size = np.sqrt(np.sum(columns**2, axis=1))
    columns = columns / np.where(size > 0, size, 1.0)[:, np.newaxis]

    def sums(values: Array) -> Array:
        return np.asarray(np.bincount(codes, weights=values, minlength=n_levels), dtype=float)

    gram = np.stack([sums(a * b) for a in columns for b in columns], axis=-1).reshape(-1, s, s)
    right = np.stack([sums(a * y) for a in columns], axis=-1)
    eigenvalues = np.linalg.eigvalsh(gram)
    told_apart = eigenvalues[:, 0] > SAME_DIRECTION * eigenvalues[:, -1]
    coefficients = np.full((n_levels, s), np.nan)
    solved = np.linalg.solve(gram[told_apart], right[told_apart][..., np.newaxis])
    coefficients[told_apart] = solved[..., 0] / size
    return coefficients


def _variance_paths(
    estimator: Any, history: Sequence[Mapping[str, Any]]
) -> dict[str, NDArray[np.float64]]:
    """Each variance by iteration; those of a factor with slopes by coefficient."""
    paths = {}
    for name in history[-1]["variances"]:
        diagonals = np.array([np.diag(np.atleast_2d(it["variances"][name])) for it in history])
        if diagonals.shape[1] == 1:
            paths[name] = diagonals[:, 0]
        else:
            for coefficient, path in zip(
                _coefficient_names(estimator, name), diagonals.T, strict=True
            ):
                paths[f"{name}: {coefficient}"] = path
    return paths


def _relative(path: Array) -> Array:
    """Values relative to the last; to the largest where the last is zero."""
    unit = path[-1] if path[-1] > 0 else np.nanmax(path)
    return path / unit if unit > 0 else path


def _span_without_outliers(unpooled: Array, shrunken: Array) -> tuple[float, float]:
    """Range with a margin of shrunken effects, zero, and estimates within Tukey's outer fences."""
    low, high = np.quantile(unpooled, [0.25, 0.75])
    fence = 3.0 * (high - low)
    inside = unpooled[(unpooled >= low - fence) & (unpooled <= high + fence)]
    shown = np.concatenate([inside, shrunken[np.isfinite(shrunken)], [0.0]])
    first, last = float(shown.min()), float(shown.max())
    margin = 0.05 * (last - first) or 0.05
    return first - margin, last + margin


def _as_columns(values: Any) -> Array:
    """Shape (n_levels, s) of one coefficient or several."""
    array = np.asarray(values, dtype=float)
    return array[:, np.newaxis] if array.ndim == 1 else array


def _axes(ax: Any, n: int = 1, *, rows_of_text: int = 0) -> NDArray[Any]:
    """Return the user's axes, or new ones with room for rows of labels."""
    if ax is not None:
        return _given_axes(ax, n)
    import matplotlib.pyplot as plt

    n_columns = min(n, MOST_COLUMNS)
    n_rows = -(-n // n_columns)
    width, height = plt.rcParams["figure.figsize"]
    needed = rows_of_text * LINE_SPACING * _font_size() / POINTS_PER_INCH + ROOM_FOR_X_AXIS
    size = (n_columns * width, n_rows * max(height, needed))
    grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)[1]
    for unused in grid.ravel()[n:]:
        unused.remove()
    return np.asarray(grid.ravel()[:n])


def _given_axes(ax: Any, n: int) -> NDArray[Any]:
    axes: NDArray[Any] = np.asarray(ax, dtype=object).ravel()
    if len(axes) != n:
        raise ValueError(f"Expected ax to have {n} axes, got {len(axes)}.")
    return axes


def _two_axes(ax: Any) -> NDArray[Any]:
    if ax is None:
        import matplotlib.pyplot as plt

        width, height = plt.rcParams["figure.figsize"]
        size = (width, 1.25 * height)
        ax = plt.subplots(2, 1, sharex=True, figsize=size, layout="constrained")[1]
    return _given_axes(ax, 2)


def _font_size() -> float:
    """Size of tick labels in points."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=mpl.rcParams["ytick.labelsize"]).get_size_in_points())


def _points(ax: Any, pixels: float) -> float:
    return float(pixels * POINTS_PER_INCH / ax.figure.dpi)


def _room_for_labels(ax: Any) -> float:
    """Points for tick labels left of axes: to what stands there, unless a layout makes room."""
    box = ax.get_window_extent()
    if ax.figure.get_layout_engine() is not None:
        return _points(ax, 0.5 * box.width)
    edges = [ax.figure.bbox.x0]
    for other in ax.figure.axes:
        beside = other.get_window_extent()
        if beside.x1 <= box.x0 and beside.y0 < box.y1 and beside.y1 > box.y0:
            edges.append(beside.x1)
    return _points(ax, box.x0 - max(edges)) - BESIDE_LABELS


def _label_rows(ax: Any, positions: NDArray[Any], labels: Sequence[str]) -> bool:
    """Label positions on the y axis; whether the labels can be read."""
    height = _points(ax, ax.get_window_extent().height) / (len(labels) + 1)
    room = _room_for_labels(ax)
    longest = min(max(map(len, labels)), LONGEST_LABEL)
    fitting = room / (CHARACTER_WIDTH * max(longest, 1))
    size = min(_font_size(), height / LINE_SPACING, max(fitting, SMALLEST_FONT))
    n_characters = int(room / (CHARACTER_WIDTH * size))
    if size < SMALLEST_FONT or n_characters < min(longest, SHORTEST_LABEL):
        return False
    texts = [_shortened(label, min(longest, n_characters)) for label in labels]
    if len(set(texts)) < len(set(labels)):
        return False
    ax.set_yticks(positions, texts, fontsize=size, parse_math=False)
    return True


def _logarithmic_to_zero(ax: Any, values: Array, least: float) -> None:
    """Scale the y axis by decades down to the least value that counts, then linearly to zero."""
    from matplotlib.ticker import NullLocator

    first, last = (int(np.floor(np.log10(value))) for value in (least, max(values.max(), least)))
    height = _points(ax, ax.get_window_extent().height)
    most = max(int(height / (2.0 * LINE_SPACING * _font_size())), 2)
    stride = -(-(last - first + 2) // most)
    decades = np.arange(first, last + 1, stride)
    ax.set_yscale("symlog", linthresh=10.0**first, linscale=stride)
    ax.set_yticks([0.0, *10.0**decades])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(min(2.0 * values.min(), -0.4 * 10.0**first), 3.0 * max(values.max(), 10.0**first))


def _name_axis(axis: Any, text: str) -> None:
    """Label an axis, no longer than it is; in two lines where a layout makes room for them."""
    is_laid_out = axis.axes.figure.get_layout_engine() is not None
    n_lines = 2 if is_laid_out else 1
    box, share = axis.axes.get_window_extent(), SHARE_LAID_OUT if is_laid_out else 1.0
    length = _points(axis.axes, share * box.width if axis.axis_name == "x" else box.height)
    n_characters = max(int(length / (CHARACTER_WIDTH * axis.label.get_size())), SHORTEST_LABEL)
    text = _shortened(text, n_lines * n_characters)
    lines = textwrap.wrap(text, n_characters)
    if len(lines) > n_lines:
        lines = [text[:n_characters], text[n_characters:]]
    axis.set_label_text("\n".join(lines), parse_math=False)


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _lighter(color: Any) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(1.0 - 0.45 * (1.0 - part) for part in to_rgb(color))


def _texts(labels: Any) -> list[str]:
    """One line for each label; of a tuple its parts, joined as in the name of an interaction."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "M":
        labels = np.datetime_as_string(labels, unit="auto")
    texts = (":".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in labels)
    return [" ".join(text.split()) for text in texts]


def _shortened(text: str, length: int) -> str:
    """Leave out the middle of a text that is too long: names often differ at their ends."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}{ELLIPSIS}{text[len(text) - (length - head - 1) :]}"


def _legend_text(name: str, length: int) -> str:
    """Text that a legend shows as it is: no mathematics, and not hidden for an underscore."""
    text = _shortened(name, length).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
