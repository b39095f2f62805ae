"""Plots of a fitted model, in the manner of scikit-learn's displays.

They show what a fit left behind; only a shrinkage plot meets rows again. matplotlib is imported
where something is drawn, so that the package does without it.

Every display has `axes_`, the array of all axes that it drew on, `ax_`, the first of them, and
`figure_`; most draw on one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from scipy.special import ndtri
from sklearn.utils._optional_dependencies import check_matplotlib_support

from ..frames.tables import quoted
from .axes import (
    FEW_POINTS,
    GREY,
    LONGEST_LABEL,
    as_columns,
    as_texts,
    check_choice,
    in_points,
    label_rows,
    lighter,
    make_axes,
    name_axis,
    shortened,
    span_without_outliers,
    whole_numbers,
)
from .reading import FittedEstimator, model_inside, names_of_coefficients
from .unpooled import check_unpooled, unpooled_effects

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EffectKind: TypeAlias = Literal["caterpillar", "shrinkage"]


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
        effects: object,
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
    def from_estimator(  # noqa: PLR0913
        cls,
        estimator: object,
        factor: str | None = None,
        *,
        coefficient: str | Sequence[str] | None = None,
        kind: EffectKind = "caterpillar",
        level: float | None = 0.95,
        max_labels: int = 40,
        X: object = None,
        y: object = None,
        groups: object = None,
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
        model, X, y = model_inside(estimator, X, y)
        check_choice("kind", kind, get_args(EffectKind))
        factors = _chosen_factors(model, factor)
        of_factors: dict[str, Any] = {
            "effects": model.random_effects_,
            "labels": model.group_levels_,
            "coefficient_names": {name: names_of_coefficients(model, name) for name in factors},
        }
        if kind == "shrinkage":
            of_factors["unpooled"] = {
                name: unpooled_effects(model, name, X, y, groups) for name in factors
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
        check_choice("kind", kind, get_args(EffectKind))
        if level is not None and not 0 < level < 1:
            raise ValueError(f"`level` must be a probability between 0 and 1, got {level!r}.")
        if kind == "shrinkage" and self.unpooled is None:
            raise ValueError("A shrinkage plot needs `unpooled` estimates.")
        parts = self._of_one_factor()
        chosen = [part._chosen_coefficients(coefficient, kind) for part in parts]
        if kind == "shrinkage":
            for part, columns in zip(parts, chosen, strict=True):
                check_unpooled(as_columns(part.unpooled)[:, columns])
        rows = [part._n_labels(max_labels) for part in parts if kind == "caterpillar"]
        self.axes_ = make_axes(ax, len(parts), rows_of_text=max(rows, default=0))
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
        n = len(as_columns(self.effects))
        return 0 if self.labels is None or n > max_labels else n

    def _names(self, s: int) -> tuple[str, ...]:
        if self.coefficient_names is not None:
            return tuple(self.coefficient_names)
        return ("intercept", *(f"slope {i}" for i in range(1, s)))

    def _chosen_coefficients(
        self, coefficient: str | Sequence[str] | None, kind: EffectKind
    ) -> list[int]:
        """Positions of the coefficients to draw: one, or two for a plane."""
        s = as_columns(self.effects).shape[1]
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
        own = self._names(as_columns(self.effects).shape[1])[coefficient]
        return shortened(own if self.name is None else f"{self.name}: {own}", LONGEST_LABEL)

    def _plot_caterpillar(
        self,
        ax: Axes,
        coefficient: int,
        level: float | None,
        max_labels: int,
        kwargs: dict[str, Any],
    ) -> None:
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        effects = as_columns(self.effects)[:, coefficient]
        order = np.argsort(effects, kind="stable")
        n = len(order)
        positions = np.arange(1, n + 1)
        labels = as_texts(self.labels) if self._n_labels(max_labels) else None
        height = in_points(ax, ax.get_window_extent().height) / (n + 1)
        style: dict[str, Any] = {
            "marker": "o",
            "linestyle": "none",
            "color": "C0",
            "markersize": np.clip(0.5 * height, 1.0, 5.0),
            "elinewidth": np.clip(0.25 * height, 0.3, 1.5),
            "capsize": 0.0,
            **normalize_kwargs(kwargs, Line2D),
        }
        style.setdefault("ecolor", lighter(style["color"]))
        halves, note = None, ""
        if self.std is not None and level is not None:
            halves = ndtri(0.5 + 0.5 * level) * as_columns(self.std)[order, coefficient]
            note = f", {100 * level:.4g}% interval"
        self.zero_line_ = ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
        self.points_ = ax.errorbar(effects[order], positions, xerr=halves, **style)
        self.segments_ = None
        ax.set_ylim(0.4, n + 0.6)
        name_axis(ax.xaxis, f"{self._title(coefficient)}{note}")
        is_labelled = labels is not None and label_rows(ax, positions, [labels[i] for i in order])
        if not is_labelled:
            whole_numbers(ax.yaxis)
        name = shortened("level" if self.name is None else self.name, LONGEST_LABEL)
        name_axis(ax.yaxis, name if is_labelled else f"{name}, rank")

    def _plot_shrinkage(self, ax: Axes, chosen: Sequence[int], kwargs: dict[str, Any]) -> None:
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.collections import LineCollection, PathCollection

        effects = as_columns(self.effects)[:, chosen]
        unpooled = as_columns(self.unpooled)[:, chosen]
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
            x, y = start[known].T
            ax.scatter(x, y, s=style["s"], facecolors="none", edgecolors=GREY, label="unpooled")
            name_axis(ax.yaxis, self._title(chosen[1]))
            name_axis(ax.xaxis, self._title(chosen[0]))
        else:
            ax.axline((0.0, 0.0), slope=1.0, color=GREY, linestyle="--", label="not shrunken")
            name_axis(ax.yaxis, f"{self._title(chosen[0])}, shrunken")
            name_axis(ax.xaxis, f"{self._title(chosen[0])}, unpooled")
        self.points_ = ax.scatter(*end.T, **style)
        ax.set_xlim(*span_without_outliers(unpooled[known, 0], effects[:, 0]))
        ax.set_ylim(*span_without_outliers(unpooled[known, -1], effects[:, -1]))
        ax.legend(
            loc="best" if n <= FEW_POINTS else "upper left",
            fontsize="small",
            markerscale=5.0 / np.sqrt(style["s"]),
        )


def _chosen_factors(estimator: FittedEstimator, factor: str | None) -> list[str]:
    """The factor that is asked for, all of them if none is."""
    known: list[str] = estimator.groups_
    if not known:
        raise ValueError("This model has no grouping factor, so no random effects to display.")
    if factor is None:
        return known
    if factor not in known:
        raise ValueError(f"`factor` must be one of {quoted(known)}, got {factor!r}.")
    return [factor]
