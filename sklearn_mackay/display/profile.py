"""A plot of the profile of one parameter."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from scipy.special import ndtri
from sklearn.utils._optional_dependencies import check_matplotlib_support

from .._arrays import Array
from .axes import GREY, check_choice, make_axes, name_axis
from .reading import model_inside

ProfileKind: TypeAlias = Literal["zeta", "deviance"]
BOUNDS = {"sd(": (0.0, np.inf), "cor(": (-1.0, 1.0)}  # by how a parameter's name begins

FAR = 4.0  # beyond this zeta a profile has nothing more to tell; its probability is 6e-5


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
        estimator: object,
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
        model, _, _ = model_inside(estimator)
        check_choice("kind", kind, get_args(ProfileKind))
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
        check_choice("kind", kind, get_args(ProfileKind))
        order = np.argsort(self.values)
        values = np.asarray(self.values, dtype=float)[order]
        zeta = np.asarray(self.zeta, dtype=float)[order]
        exists = np.isfinite(values) & np.isfinite(zeta)
        height = zeta if kind == "zeta" else zeta**2
        quantile = float(ndtri(0.5 + 0.5 * self.level))
        self.axes_ = make_axes(ax)
        self.ax_ = ax = self.axes_[0]
        self.figure_ = ax.figure

        if kind == "zeta":
            thresholds = [-quantile, quantile]
            ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
            name_axis(ax.yaxis, "zeta")
        else:
            thresholds = [quantile**2]
            name_axis(ax.yaxis, "Deviance above its minimum")
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
        name_axis(ax.xaxis, self.parameter)
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
