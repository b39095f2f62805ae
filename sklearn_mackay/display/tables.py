"""Tables as text and as HTML.

No library lays them out, since they are to print without a data frame's: a column has the digits
that suit its smallest number and its largest, as R prints them, text counts the width of its
characters in a terminal, and names that users chose are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal
from unicodedata import combining, east_asian_width

DIGITS = 4  # significant digits of the smallest number in a column
FIXED_WIDTH = 12  # characters of a number beyond which a column is in scientific notation
P_EPSILON = 2.0**-52  # p values below it are rounding; R's limit
LINE_WIDTH = 80


@dataclass(frozen=True)
class TextColumn:
    """Title and cells; numbers stand right, their title at the side named by `kind`."""

    title: str
    cells: Sequence[str]
    kind: Literal["name", "left", "right"]


def number_texts(values: Sequence[float], most_decimals: int = FIXED_WIDTH) -> list[str]:
    """Numbers of one column, with digits that suit all."""
    spec = format_spec(values, values, most_decimals)
    return [number_text(value, spec) for value in values]


def format_spec(
    scales: Iterable[float], values: Iterable[float], most_decimals: int = FIXED_WIDTH
) -> str:
    """Format that the numbers of a column share, so that their decimal points are aligned.

    As in R as many decimals as give the smallest number its significant digits; the scientific
    notation where that is much wider, or wider and no number reaches one.

    Parameters
    ----------
    scales : iterable of float
        Numbers whose precision counts; zeros and what is not finite do not.
    values : iterable of float
        Numbers to be shown.
    most_decimals : int, default=12
        Largest number of decimals.

    Returns
    -------
    str
        Format specification.
    """
    sizes = _exponents(scales)
    if not sizes:
        return ".0f"
    decimals = min(max(0, DIGITS - 1 - min(sizes)), most_decimals)
    largest = max(_exponents(values))
    fixed_width = 1 + max(largest, 0) + decimals + (decimals > 0)
    scientific = f".{DIGITS - 1}e"
    limit = FIXED_WIDTH if largest >= 0 else len(format(1.0, scientific))
    return f".{decimals}f" if fixed_width <= limit else scientific


def _exponents(values: Iterable[float]) -> list[int]:
    """Powers of ten of numbers rounded to the digits shown; none of zero and what is not finite."""
    return [
        int(f"{value:.{DIGITS - 1}e}".partition("e")[2])
        for value in values
        if value and math.isfinite(value)
    ]


def number_text(value: float, spec: str) -> str:
    """A number as R prints it, an empty cell for NaN."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    text = format(value, spec)
    return text if float(text) else text.removeprefix("-")


def p_value_text(p: float) -> str:
    """A p value as R prints it."""
    if p < P_EPSILON:
        return "<2e-16"
    return number_text(p, ".2e" if p < 1e-4 else ".4f")


def count_text(n_rows: float) -> str:
    """A number of rows, whole where it is."""
    return f"{n_rows:.12g}"


def sd_of(variance: float) -> float:
    """Standard deviation of a variance; NaN where there is none."""
    return math.sqrt(variance) if variance >= 0 else math.nan


def printable(name: str) -> str:
    """A name on one line: what moves the cursor is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _width(text: str) -> int:
    """Columns that a terminal gives a text."""
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


def _padded(text: str, width: int, side: str) -> str:
    space = " " * (width - _width(text))
    return space + text if side == "right" else text + space


def grid(columns: Sequence[TextColumn], indent: str = "") -> list[str]:
    """Lines of a table, the titles first."""
    padded = []
    for column in columns:
        cells = list(column.cells)
        if column.kind == "left":
            widest = max(map(_width, cells))
            cells = [_padded(cell, widest, "right") for cell in cells]
        width = max(map(_width, [column.title, *cells]))
        padded.append([_padded(cell, width, column.kind) for cell in [column.title, *cells]])
    return [(indent + " ".join(row)).rstrip() for row in zip(*padded, strict=True)]


def wrapped(start: str, items: Sequence[str]) -> list[str]:
    """Lines of a list after its start, broken between items; none without items."""
    lines = [start + item for item in items[:1]]
    for item in items[1:]:
        if _width(f"{lines[-1]}; {item};") <= LINE_WIDTH:
            lines[-1] += f"; {item}"
        else:
            lines[-1] += ";"
            lines.append(f"  {item}")
    return lines


def html_facts(caption: str, facts: Mapping[str, Sequence[str]]) -> str:
    """A table with a label and its facts in each row."""
    rows = [
        _html_row(f'<th scope="row">{escape(label)}</th>', f"<td>{escape('; '.join(items))}</td>")
        for label, items in facts.items()
        if any(items)
    ]
    return _html_element(
        "table", f"<caption>{escape(caption)}</caption>", _html_element("tbody", *rows)
    )


def html_table(caption: str, columns: Sequence[TextColumn]) -> str:
    """A table with a caption and a title over each column."""
    rows = [
        _html_row(*(_html_cell(cell, column) for cell, column in zip(row, columns, strict=True)))
        for row in zip(*(column.cells for column in columns), strict=True)
    ]
    return _html_element(
        "table",
        f"<caption>{escape(caption)}</caption>",
        _html_element("thead", _html_row(*_html_titles(columns))),
        _html_element("tbody", *rows),
    )


def _html_titles(columns: Sequence[TextColumn]) -> list[str]:
    """Heads of the columns; one reaches over numbers without a title that follow."""
    heads = []
    for i, column in enumerate(columns):
        if column.kind == "name":
            heads.append(f'<th scope="col">{escape(column.title or "Coefficient")}</th>')
        elif column.title:
            rest = [other.title for other in columns[i + 1 :]]
            span = 1 + next((j for j, title in enumerate(rest) if title), len(rest))
            wide = f' colspan="{span}"' if span > 1 else ""
            heads.append(f'<th class="number" scope="col"{wide}>{escape(column.title)}</th>')
    return heads


def _html_cell(cell: str, column: TextColumn) -> str:
    if column.kind != "name":
        return f'<td class="number">{escape(cell)}</td>'
    return f'<th scope="row">{escape(cell)}</th>' if cell else "<td></td>"


def _html_row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _html_element(tag: str, *lines: str) -> str:
    return "\n".join([f"<{tag}>", *lines, f"</{tag}>"])
