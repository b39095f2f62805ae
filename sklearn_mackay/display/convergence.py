"""A plot of the iterations of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support

from .._arrays import Array
from .axes import (
    GREY,
    LINE_SPACING,
    LONGEST_LABEL,
    font_size,
    given_axes,
    in_points,
    legend_text,
    name_axis,
    whole_numbers,
)
from .reading import FittedEstimator, model_inside, names_of_coefficients

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

LEGEND_ROWS = 8  # more entries stand in columns
FEW_ITERATIONS = 30  # that can be told apart on a line

ROUNDING = 1e-13  # relative rounding of a criterion
WIDE = 10.0  # ratio of variances beyond which their axis turns logarithmic above 1


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
    def from_estimator(cls, estimator: object, *, ax: Any = None) -> ConvergenceDisplay:
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
        model, _, _ = model_inside(estimator)
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
            whole_numbers(axes.xaxis)
        for axes in self.axes_ if ax is not None else self.axes_[1:]:
            name_axis(axes.xaxis, "Iteration")
        return self

    def _plot_criterion(self, ax: Axes) -> None:
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
        name_axis(ax.yaxis, "Criterion \N{MINUS SIGN} final")
        ax.legend(loc="upper right", fontsize="small", frameon=False, markerscale=4.0 / size)

    def _plot_variances(self, ax: Axes) -> None:
        paths = {name: np.asarray(path, dtype=float) for name, path in self.variances.items()}
        n_columns = max(-(-len(paths) // LEGEND_ROWS), 1)
        self.variance_lines_ = [
            ax.plot(
                _relative(path),
                color=f"C{i % 10}",
                linestyle=LINE_STYLES[i // 10 % len(LINE_STYLES)],
                marker="." if len(path) <= FEW_ITERATIONS else None,
                label=legend_text(
                    f"{name} (0 at last)" if path[-1] == 0 else name, LONGEST_LABEL // n_columns
                ),
            )[0]
            for i, (name, path) in enumerate(paths.items())
        ]
        if any(np.nanmax(_relative(path)) > WIDE for path in paths.values()):
            ax.set_yscale("symlog", linthresh=1.0)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        name_axis(ax.yaxis, "Variance / final")
        ax.legend(fontsize="small", ncols=n_columns)


def _variance_paths(
    estimator: FittedEstimator, history: Sequence[Mapping[str, Any]]
) -> dict[str, NDArray[np.float64]]:
    """Each variance by iteration; those of a factor with slopes by coefficient."""
    paths = {}
    for name in history[-1]["variances"]:
        diagonals = np.array([np.diag(np.atleast_2d(it["variances"][name])) for it in history])
        if diagonals.shape[1] == 1:
            paths[name] = diagonals[:, 0]
        else:
            for coefficient, path in zip(
                names_of_coefficients(estimator, name), diagonals.T, strict=True
            ):
                paths[f"{name}: {coefficient}"] = path
    return paths


def _relative(path: Array) -> Array:
    """Values relative to the last; to the largest where the last is zero."""
    unit = path[-1] if path[-1] > 0 else np.nanmax(path)
    return path / unit if unit > 0 else path


def _two_axes(ax: Axes) -> NDArray[Any]:
    if ax is None:
        import matplotlib.pyplot as plt

        width, height = plt.rcParams["figure.figsize"]
        size = (width, 1.25 * height)
        ax = plt.subplots(2, 1, sharex=True, figsize=size, layout="constrained")[1]
    return given_axes(ax, 2)


def _logarithmic_to_zero(ax: Axes, values: Array, least: float) -> None:
    """Scale the y axis by decades down to the least value that counts, then linearly to zero."""
    from matplotlib.ticker import NullLocator

    first, last = (int(np.floor(np.log10(value))) for value in (least, max(values.max(), least)))
    height = in_points(ax, ax.get_window_extent().height)
    most = max(int(height / (2.0 * LINE_SPACING * font_size())), 2)
    stride = -(-(last - first + 2) // most)
    decades = np.arange(first, last + 1, stride)
    ax.set_yscale("symlog", linthresh=10.0**first, linscale=stride)
    ax.set_yticks([0.0, *10.0**decades])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(min(2.0 * values.min(), -0.4 * 10.0**first), 3.0 * max(values.max(), 10.0**first))
