"""A fit as text, laid out as lme4 and lmerTest do, and as HTML for notebooks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import numpy as np

from .._messages import Message
from .tables import (
    LINE_WIDTH,
    TextColumn,
    count_text,
    format_spec,
    grid,
    html_facts,
    html_table,
    number_text,
    number_texts,
    p_value_text,
    printable,
    sd_of,
    wrapped,
)

PERFECT = 1.0 - 1e-6  # correlation from which on it is one, up to rounding

KERNELS = {"lapack": "LAPACK", "tensorflow": "TensorFlow"}
TITLES = {
    "reml": "Linear mixed model fit by REML",
    "ml": "Linear mixed model fit by maximum likelihood",
    "mackay": "Linear mixed model fit by MacKay's evidence updates (REML)",
    "quick": "Linear mixed model fit by Hinton's quick and dirty update",
}

# Colours are the page's own, and half-transparent grey, so that light and dark themes read well.
STYLE = """
.sklearn-mackay-summary { color: inherit; font-size: 0.95em; line-height: 1.4; }
.sklearn-mackay-summary p { margin: 0.4em 0; }
.sklearn-mackay-summary table { border-collapse: collapse; margin: 0.8em 0; }
.sklearn-mackay-summary table caption {
  caption-side: top; color: inherit; font-weight: bold; padding: 0.2em 0; text-align: left;
}
.sklearn-mackay-summary table th, .sklearn-mackay-summary table td {
  border: 0; border-bottom: 1px solid rgba(128, 128, 128, 0.3); color: inherit;
  font-variant-numeric: tabular-nums; max-width: 40em; overflow-wrap: anywhere;
  padding: 0.15em 0.7em; text-align: left; vertical-align: baseline;
}
.sklearn-mackay-summary table th { font-weight: normal; }
.sklearn-mackay-summary table thead th {
  border-bottom: 2px solid rgba(128, 128, 128, 0.6); font-weight: bold;
}
.sklearn-mackay-summary table th.number, .sklearn-mackay-summary table td.number {
  text-align: right; white-space: nowrap;
}
"""


@dataclass(frozen=True)
class RandomRow:
    """One random coefficient.

    Attributes
    ----------
    factor : str
        Grouping factor; the rows of a factor follow each other.
    coefficient : str
        "intercept" or the name of a slope.
    variance : float
        Between levels, in squared units of the coefficient; exactly zero where a note should name
        it as such.
    correlations : tuple of float
        With the factor's earlier coefficients; NaN beside a variance of zero.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> model.summary().random
    (RandomRow(factor='Subject', coefficient='intercept', variance=1378.17..., correlations=()),)
    """

    factor: str
    coefficient: str
    variance: float
    correlations: tuple[float, ...] = ()


@dataclass(frozen=True)
class BlockRow:
    """One feature block.

    Attributes
    ----------
    block : str
        Its name.
    n_columns : int
        How many coefficients share the variance.
    variance : float
        Of the coefficients.
    alpha : float
        Ridge penalty that the variance stands for; infinite where it is zero.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(alpha="auto").fit(X[["Days"]], y)
    >>> model.summary().blocks
    (BlockRow(block='features', n_columns=1, variance=108.03..., alpha=21.07...),)
    """

    block: str
    n_columns: int
    variance: float
    alpha: float


@dataclass(frozen=True)
class FixedRow:
    """One fixed coefficient; NaN is an empty cell.

    Attributes
    ----------
    name : str
        "intercept" or the name of a feature.
    estimate, std_error : float
        Estimate and its standard error.
    df, t, p : float
        Degrees of freedom, t statistic and two-sided p value.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> row = model.summary().fixed[1]
    >>> row.name, round(row.estimate, 2), round(row.std_error, 2)
    ('Days', 10.47, 0.8)
    """

    name: str
    estimate: float
    std_error: float
    df: float = math.nan
    t: float = math.nan
    p: float = math.nan


@dataclass(frozen=True, repr=False)
class Summary:
    """What a fit found; prints as text, and shows as HTML in a notebook.

    Attributes
    ----------
    method : {"reml", "ml", "mackay", "quick"}
        How the variances were estimated.
    criterion : str
        Name of the deviance: "REML criterion" or "-2 log-likelihood".
    deviance, aic, bic : float
        Deviance and information criteria.
    n_rows : float
        Number of rows, or the sum of their frequencies.
    levels : dict of str to int
        Number of levels of each grouping factor.
    random : tuple of RandomRow
        Random coefficients, factor by factor.
    residual_variance : float
        Residual variance, in squared units of y.
    blocks : tuple of BlockRow
        Feature blocks.
    fixed : tuple of FixedRow
        Fixed coefficients. A column of `df`, `t` or `p` that is NaN throughout is not shown.
    effective_dof : dict of str to float
        Effective number of parameters of each factor and feature block.
    r2_marginal, r2_conditional : float
        Share of the variance explained by the fixed part, and by fixed and random part; NaN is
        not shown.
    icc : dict of str to float
        Intraclass correlation of each grouping factor.
    solver, kernel : str
        The engine that fitted, and what it computed with.
    n_iter : int
        Iterations it took.
    converged, singular : bool
        `converged_` and `singular_` of the estimator; a note says so where it matters.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> summary = model.summary()
    >>> summary.criterion, round(summary.deviance, 1), summary.levels
    ('REML criterion', 1786.5, {'Subject': 18})
    """

    method: str
    criterion: str
    deviance: float
    aic: float
    bic: float
    n_rows: float
    levels: Mapping[str, int]
    random: tuple[RandomRow, ...]
    residual_variance: float
    blocks: tuple[BlockRow, ...]
    fixed: tuple[FixedRow, ...]
    effective_dof: Mapping[str, float]
    r2_marginal: float
    r2_conditional: float
    icc: Mapping[str, float]
    solver: str
    kernel: str
    n_iter: int
    converged: bool
    singular: bool

    def __str__(self) -> str:
        """Lay out as text with at most 40 fixed coefficients."""
        return self.to_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_text(self, max_rows: int | None = 40) -> str:
        """Lay out for a fixed-width font, as `print` does.

        Parameters
        ----------
        max_rows : int or None, default=40
            Largest number of fixed coefficients shown, half of them the first and half the last;
            None for all.

        Returns
        -------
        str
            Lines without a newline at the end.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> for line in model.summary().to_text().splitlines()[4:8]:
        ...     print(line)
        Random effects:
         Groups   Name      Variance Std.Dev.
         Subject  intercept 1378.2   37.12
         Residual            960.5   30.99
        """
        n_obs = f"Number of obs: {count_text(self.n_rows)}"
        parts = [
            [
                TITLES[self.method],
                f"Solver: {_effort(self)}",
                "   ".join(f"{label}: {value}" for label, value in _criteria(self).items()),
            ],
            [
                "Random effects:",
                *grid(_random_columns(self), indent=" "),
                *(wrapped(f"{n_obs}, groups: ", _groups(self)) or [n_obs]),
                *wrapped("Effective degrees of freedom: ", _effective_dof(self)),
            ],
            ["Feature blocks:", *grid(_block_columns(self.blocks), indent=" ")]
            if self.blocks
            else [],
            ["Fixed effects:", *_fixed_lines(self.fixed, max_rows)] if self.fixed else [],
            [*wrapped("R2: ", _r2(self)), *wrapped("ICC: ", _icc(self))],
            [line for note in _notes(self) for line in textwrap.wrap(note.text, LINE_WIDTH)],
        ]
        return "\n\n".join("\n".join(part) for part in parts if part)

    def to_html(self) -> str:
        """Lay out as an HTML fragment; all fixed coefficients are shown.

        Returns
        -------
        str
            A ``<div>`` with its style, in the colours of the page around it.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> model.summary().to_html().splitlines()[0]
        '<div class="sklearn-mackay-summary">'
        """
        facts = {
            "Solver": [_effort(self)],
            **{label: [value] for label, value in _criteria(self).items()},
            "Number of obs": [count_text(self.n_rows)],
            "Groups": _groups(self),
            "Effective degrees of freedom": _effective_dof(self),
            "R2": _r2(self),
            "ICC": _icc(self),
        }
        parts = [
            f"<style>{STYLE}</style>",
            *(f"<p><strong>Note:</strong> {escape(note.text)}</p>" for note in _notes(self)),
            html_facts(TITLES[self.method], facts),
            html_table("Random effects", _random_columns(self)),
            html_table("Feature blocks", _block_columns(self.blocks)) if self.blocks else "",
            html_table("Fixed effects", _fixed_columns(self.fixed)) if self.fixed else "",
        ]
        content = "\n".join(part for part in parts if part)
        return f'<div class="sklearn-mackay-summary">\n{content}\n</div>'


def summarise(
    fit: Any,
    *,
    coefficient_names: Mapping[str, Sequence[str]],
    block_sizes: Mapping[str, int],
    n_rows: float,
    fixed: Any,
    shares: Any,
) -> Summary:
    """Collect what a fit of one output found.

    Parameters
    ----------
    fit : MacKayMixedRegressor
        The fit, for its public attributes.
    coefficient_names : mapping of str to sequence of str
        Coefficients of each grouping factor.
    block_sizes : mapping of str to int
        Number of columns of each feature block.
    n_rows : float
        Rows that the criterion counts.
    fixed : FixedEffects
        Fixed coefficients and their tests.
    shares : VarianceShares or None
        Shares of variance, where they are known.

    Returns
    -------
    Summary
    """
    variances = fit.variance_components_
    random = []
    for factor, names in coefficient_names.items():
        Sigma = np.atleast_2d(variances[factor])
        sds = np.sqrt(np.diag(Sigma))
        size = np.outer(sds, sds)
        R = np.divide(Sigma, size, out=np.full_like(Sigma, np.nan), where=size > 0)
        random += [
            RandomRow(factor, name, float(Sigma[a, a]), tuple(R[a, :a].tolist()))
            for a, name in enumerate(names)
        ]
    columns = (fixed.estimate, fixed.std_error, fixed.df, fixed.t_value, fixed.p_value)
    return Summary(
        method=fit.method,
        criterion="-2 log-likelihood" if fit.method == "ml" else "REML criterion",
        deviance=-2.0 * fit.log_likelihood_,
        aic=fit.aic_,
        bic=fit.bic_,
        n_rows=n_rows,
        levels={name: len(levels) for name, levels in fit.group_levels_.items()},
        random=tuple(random),
        residual_variance=variances["residual"],
        blocks=tuple(
            BlockRow(name, size, variances[name], fit.alpha_[name])
            for name, size in block_sizes.items()
        ),
        fixed=tuple(map(FixedRow, fixed.names, *(column.tolist() for column in columns))),
        effective_dof=fit.effective_dof_,
        r2_marginal=math.nan if shares is None else shares.r2_marginal,
        r2_conditional=math.nan if shares is None else shares.r2_conditional,
        icc={} if shares is None else shares.icc,
        solver=fit.solver_,
        kernel=fit.kernel_,
        n_iter=fit.n_iter_,
        converged=fit.converged_,
        singular=fit.singular_,
    )


def _criteria(summary: Summary) -> dict[str, str]:
    values = {summary.criterion: summary.deviance, "AIC": summary.aic, "BIC": summary.bic}
    return {
        label: number_text(value, ".1f") for label, value in values.items() if not math.isnan(value)
    }


def _effort(summary: Summary) -> str:
    kernel = KERNELS[summary.kernel]
    return f"{summary.solver} ({kernel}), {summary.n_iter} iteration{'s' * (summary.n_iter != 1)}"


def _groups(summary: Summary) -> list[str]:
    return _listed(summary.levels, ".0f", ", ")


def _effective_dof(summary: Summary) -> list[str]:
    return _listed(summary.effective_dof, ".2f")


def _r2(summary: Summary) -> list[str]:
    return _listed({"marginal": summary.r2_marginal, "conditional": summary.r2_conditional}, ".3f")


def _icc(summary: Summary) -> list[str]:
    return _listed(summary.icc, ".3f")


def _listed(values: Mapping[str, float], spec: str, between: str = " ") -> list[str]:
    return [
        f"{printable(name)}{between}{number_text(value, spec)}"
        for name, value in values.items()
        if not math.isnan(value)
    ]


def _notes(summary: Summary) -> list[Message]:
    notes = []
    if not summary.converged:
        message = Message(
            f"Not converged after {summary.n_iter} iterations: the estimates may be far from the "
            "optimum."
        )
        notes.append(message)
    if summary.singular:
        notes.append(Message(f"Singular fit: {_degenerate(summary)}."))
    return notes


def _degenerate(summary: Summary) -> str:
    """Name the components of a singular fit that are zero."""
    zero, perfect = [], []
    for factor, group in groupby(summary.random, key=lambda row: row.factor):
        rows = list(group)
        vanished = [f"{factor} {row.coefficient}" for row in rows if row.variance == 0]
        zero += vanished
        if not vanished and any(abs(c) >= PERFECT for row in rows for c in row.correlations):
            perfect.append(factor)
    zero += [row.block for row in summary.blocks if row.variance == 0]
    zero += ["the residual"] * (summary.residual_variance == 0)
    said = []
    if zero:
        said.append(f"the variance of {', '.join(map(printable, zero))} is zero")
    if perfect:
        said.append(f"a correlation of {', '.join(map(printable, perfect))} is 1 or -1")
    return "; ".join(said) or "a combination of a factor's coefficients has variance zero"


def _random_columns(summary: Summary) -> list[TextColumn]:
    rows = summary.random
    shown = [i == 0 or row.factor != rows[i - 1].factor for i, row in enumerate(rows)]
    factors = [
        printable(row.factor) if first else "" for row, first in zip(rows, shown, strict=True)
    ]
    variances = [*(row.variance for row in rows), summary.residual_variance]
    columns = [
        TextColumn("Groups", [*factors, "Residual"], "name"),
        TextColumn("Name", [*(printable(row.coefficient) for row in rows), ""], "name"),
        TextColumn("Variance", number_texts(variances), "left"),
        TextColumn("Std.Dev.", number_texts([sd_of(variance) for variance in variances]), "left"),
    ]
    for i in range(max((len(row.correlations) for row in rows), default=0)):
        known = [row.correlations[i] if i < len(row.correlations) else math.nan for row in rows]
        cells = [number_text(correlation, ".2f") for correlation in [*known, math.nan]]
        columns.append(TextColumn("" if i else "Corr", cells, "left"))
    return columns


def _block_columns(rows: Sequence[BlockRow]) -> list[TextColumn]:
    return [
        TextColumn("Block", [printable(row.block) for row in rows], "name"),
        TextColumn("Columns", [str(row.n_columns) for row in rows], "left"),
        TextColumn("Variance", number_texts([row.variance for row in rows]), "left"),
        TextColumn("Std.Dev.", number_texts([sd_of(row.variance) for row in rows]), "left"),
        TextColumn("Alpha", number_texts([row.alpha for row in rows]), "left"),
    ]


def _fixed_columns(rows: Sequence[FixedRow]) -> list[TextColumn]:
    estimates = [row.estimate for row in rows]
    errors = [row.std_error for row in rows]
    # An estimate is of interest to the precision of its error.
    known = [s if s > 0 else b for b, s in zip(estimates, errors, strict=True)]
    spec = format_spec(known, [*estimates, *errors])
    columns = [
        TextColumn("", [printable(row.name) for row in rows], "name"),
        TextColumn("Estimate", [number_text(value, spec) for value in estimates], "right"),
        TextColumn("Std. Error", [number_text(value, spec) for value in errors], "right"),
        TextColumn("df", [number_text(row.df, ".1f") for row in rows], "right"),
        TextColumn("t value", number_texts([row.t for row in rows], most_decimals=3), "right"),
        TextColumn("Pr(>|t|)", [p_value_text(row.p) for row in rows], "right"),
    ]
    return columns[:3] + [column for column in columns[3:] if any(column.cells)]


def _fixed_lines(rows: Sequence[FixedRow], max_rows: int | None) -> list[str]:
    n_left_out = 0 if max_rows is None else len(rows) - max(max_rows, 0)
    if n_left_out <= 0:
        return grid(_fixed_columns(rows))
    first = (len(rows) - n_left_out + 1) // 2
    lines = grid(_fixed_columns([*rows[:first], *rows[first + n_left_out :]]))
    coefficients = "coefficient" if n_left_out == 1 else "coefficients"
    lines.insert(1 + first, f"... {n_left_out} {coefficients} left out ...")
    return lines
