"""Axes, labels and legends of plots, so that texts fit.

matplotlib's constrained layout makes room for texts as they are, up to leaving the axes none. That
labels of levels are shortened to their room, or left out where they could not be read, and that the
title of an axis wraps at its length, is done here: ``Text(wrap=True)`` wraps at the figure's edge.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis, XAxis, YAxis

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
FEW_POINTS = 200  # points that a legend can look for a free place among


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def span_without_outliers(unpooled: Array, shrunken: Array) -> tuple[float, float]:
    """Range with a margin of shrunken effects, zero, and estimates within Tukey's outer fences."""
    low, high = np.quantile(unpooled, [0.25, 0.75])
    fence = 3.0 * (high - low)
    inside = unpooled[(unpooled >= low - fence) & (unpooled <= high + fence)]
    shown = np.concatenate([inside, shrunken[np.isfinite(shrunken)], [0.0]])
    first, last = float(shown.min()), float(shown.max())
    margin = 0.05 * (last - first) or 0.05
    return first - margin, last + margin


def as_columns(values: Any) -> Array:
    """Shape (n_levels, s) of one coefficient or several."""
    array = np.asarray(values, dtype=float)
    return array[:, np.newaxis] if array.ndim == 1 else array


def make_axes(ax: Axes, n: int = 1, *, rows_of_text: int = 0) -> NDArray[Any]:
    """Return the user's axes, or new ones with room for rows of labels."""
    if ax is not None:
        return given_axes(ax, n)
    import matplotlib.pyplot as plt

    n_columns = min(n, MOST_COLUMNS)
    n_rows = -(-n // n_columns)
    width, height = plt.rcParams["figure.figsize"]
    needed = rows_of_text * LINE_SPACING * font_size() / POINTS_PER_INCH + ROOM_FOR_X_AXIS
    size = (n_columns * width, n_rows * max(height, needed))
    grid = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)[1]
    for unused in grid.ravel()[n:]:
        unused.remove()
    return np.asarray(grid.ravel()[:n])


def given_axes(ax: Axes, n: int) -> NDArray[Any]:
    """The axes that a user gave, as many as there is something to draw."""
    axes: NDArray[Any] = np.asarray(ax, dtype=object).ravel()
    if len(axes) != n:
        raise ValueError(f"Expected ax to have {n} axes, got {len(axes)}.")
    return axes


def font_size() -> float:
    """Size of tick labels in points."""
    import matplotlib as mpl
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=mpl.rcParams["ytick.labelsize"]).get_size_in_points())


def in_points(ax: Axes, pixels: float) -> float:
    """A length in pixels of a figure in points."""
    return float(pixels * POINTS_PER_INCH / ax.figure.dpi)


def _room_for_labels(ax: Axes) -> float:
    """Points for tick labels left of axes: to what stands there, unless a layout makes room."""
    box = ax.get_window_extent()
    if ax.figure.get_layout_engine() is not None:
        return in_points(ax, 0.5 * box.width)
    edges = [ax.figure.bbox.x0]
    for other in ax.figure.axes:
        beside = other.get_window_extent()
        if beside.x1 <= box.x0 and beside.y0 < box.y1 and beside.y1 > box.y0:
            edges.append(beside.x1)
    return in_points(ax, box.x0 - max(edges)) - BESIDE_LABELS


def label_rows(ax: Axes, positions: NDArray[Any], labels: Sequence[str]) -> bool:
    """Label positions on the y axis; whether the labels can be read."""
    height = in_points(ax, ax.get_window_extent().height) / (len(labels) + 1)
    room = _room_for_labels(ax)
    longest = min(max(map(len, labels)), LONGEST_LABEL)
    fitting = room / (CHARACTER_WIDTH * max(longest, 1))
    size = min(font_size(), height / LINE_SPACING, max(fitting, SMALLEST_FONT))
    n_characters = int(room / (CHARACTER_WIDTH * size))
    if size < SMALLEST_FONT or n_characters < min(longest, SHORTEST_LABEL):
        return False
    texts = [shortened(label, min(longest, n_characters)) for label in labels]
    if len(set(texts)) < len(set(labels)):
        return False
    ax.set_yticks(positions, texts, fontsize=size, parse_math=False)
    return True


def name_axis(axis: XAxis | YAxis, text: str) -> None:
    """Label an axis, no longer than it is; in two lines where a layout makes room for them."""
    is_laid_out = axis.axes.figure.get_layout_engine() is not None
    n_lines = 2 if is_laid_out else 1
    box, share = axis.axes.get_window_extent(), SHARE_LAID_OUT if is_laid_out else 1.0
    length = in_points(axis.axes, share * box.width if axis.axis_name == "x" else box.height)
    n_characters = max(
        int(length / (CHARACTER_WIDTH * float(axis.label.get_fontsize()))), SHORTEST_LABEL
    )
    text = shortened(text, n_lines * n_characters)
    lines = textwrap.wrap(text, n_characters)
    if len(lines) > n_lines:
        lines = [text[:n_characters], text[n_characters:]]
    axis.set_label_text("\n".join(lines), parse_math=False)


def whole_numbers(axis: Axis) -> None:
    """Let an axis have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def lighter(color: Any) -> tuple[float, ...]:
    """A color halfway to white."""
    from matplotlib.colors import to_rgb

    return tuple(1.0 - 0.45 * (1.0 - part) for part in to_rgb(color))


def as_texts(labels: Any) -> list[str]:
    """One line for each label; of a tuple its parts, joined as in the name of an interaction."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "M":
        labels = np.datetime_as_string(labels, unit="auto")
    texts = (":".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in labels)
    return [" ".join(text.split()) for text in texts]


def shortened(text: str, length: int) -> str:
    """Leave out the middle of a text that is too long: names often differ at their ends."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}{ELLIPSIS}{text[len(text) - (length - head - 1) :]}"


def legend_text(name: str, length: int) -> str:
    """Text that a legend shows as it is: no mathematics, and not hidden for an underscore."""
    text = shortened(name, length).replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
