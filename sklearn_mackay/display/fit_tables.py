"""Columns of the tables of a fit: random effects with their labels, variances, iterations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array
from ..frames.grouping import Grouping, Labels
from ..frames.making import Backend, Column, PartlyKnown, make_frame

OUTPUT = "output"
BESIDE_LABELS = ("factor", "coefficient", "estimate", "std", "lower", "upper")


class FactorEffects(NamedTuple):
    """What a fit found of one grouping factor.

    Attributes
    ----------
    grouping : Grouping
        Levels.
    columns : tuple of str
        Names of the grouping columns, several of an interaction.
    coefficients : tuple of str
        "intercept" and slopes.
    estimate : ndarray of shape (n_levels, s) or (n_outputs, n_levels, s)
        Random effects.
    std : ndarray of the same shape, or None
        Standard deviations of their errors; None where they are not known.
    """

    grouping: Grouping
    columns: tuple[str, ...]
    coefficients: tuple[str, ...]
    estimate: Array
    std: Array | None


def random_effects_columns(
    factors: Sequence[FactorEffects], quantile: float, *, has_outputs: bool
) -> dict[str, Column]:
    """One row for each output, factor, level and coefficient.

    Parameters
    ----------
    factors : sequence of FactorEffects
        Grouping factors.
    quantile : float
        Half width of the intervals in standard deviations.
    has_outputs : bool
        Whether the effects have an axis of outputs.

    Returns
    -------
    dict of str to column

    Raises
    ------
    ValueError
        For a grouping column with the name of another column of the table.
    """
    n_rows = [factor.grouping.n_levels * len(factor.coefficients) for factor in factors]
    names = np.array([factor.grouping.name for factor in factors], dtype=np.str_)
    coefficients = [np.tile(f.coefficients, f.grouping.n_levels) for f in factors]
    estimate = _stack([factor.estimate for factor in factors])
    std = _stack([np.full_like(f.estimate, np.nan) if f.std is None else f.std for f in factors])
    columns: dict[str, Column] = {
        "factor": np.repeat(names, n_rows),
        **_label_columns(factors, n_rows),
        "coefficient": np.concatenate([np.empty(0, dtype=np.str_), *coefficients]),
    }
    reserved = {*BESIDE_LABELS, OUTPUT} if has_outputs else set(BESIDE_LABELS)
    for name in (column for factor in factors for column in factor.columns):
        if name in reserved:
            raise ValueError(
                f"The table has a column {name!r} of its own, so that the grouping column of that "
                "name cannot be in it: rename that column and fit again."
            )
    columns = _by_output(columns, len(estimate), has_outputs)
    return {
        **columns,
        "estimate": estimate.ravel(),
        "std": std.ravel(),
        "lower": (estimate - quantile * std).ravel(),
        "upper": (estimate + quantile * std).ravel(),
    }


def _stack(effects: Sequence[Array]) -> Array:
    """Effects of all factors, of shape (n_outputs, n_rows)."""
    flat = [e.reshape(len(e) if e.ndim == 3 else 1, -1) for e in effects]
    return np.concatenate(flat, axis=1) if flat else np.empty((1, 0))


def _label_columns(
    factors: Sequence[FactorEffects], n_rows: Sequence[int]
) -> dict[str, PartlyKnown]:
    """Labels of each grouping column; null in the rows of factors that do not use it."""
    found: dict[str, PartlyKnown] = {}
    for name in dict.fromkeys(name for factor in factors for name in factor.columns):
        own = [_own_labels(factor, name) for factor in factors]
        some = next(labels for labels in own if labels is not None)
        values = [
            np.repeat(some[:1], n) if labels is None else labels
            for labels, n in zip(own, n_rows, strict=True)
        ]
        known = np.repeat([labels is not None for labels in own], n_rows)
        found[name] = PartlyKnown(np.concatenate(values), known)
    return found


def _own_labels(factor: FactorEffects, column: str) -> Labels | None:
    """A column's label in each of the factor's rows."""
    if column not in factor.columns:
        return None
    labels = factor.grouping.column_labels[factor.columns.index(column)]
    return np.repeat(labels, len(factor.coefficients))


def _by_output(
    columns: Mapping[str, Column], n_outputs: int, has_outputs: bool
) -> dict[str, Column]:
    """Rows of one output, repeated for each, behind a column that counts the outputs."""
    if not has_outputs:
        return dict(columns)

    def repeated(column: Column) -> Column:
        if isinstance(column, PartlyKnown):
            return PartlyKnown(np.tile(column.values, n_outputs), np.tile(column.known, n_outputs))
        return np.tile(np.asarray(column), n_outputs)

    n_rows = len(np.asarray(next(iter(columns.values()))))
    return {
        OUTPUT: np.repeat(np.arange(n_outputs), n_rows),
        **{name: repeated(column) for name, column in columns.items()},
    }


class Entry(NamedTuple):
    """A variance or a covariance.

    Attributes
    ----------
    component : str
        Factor, feature block or "residual".
    size : int
        Number of the component's coefficients.
    at : tuple of int
        Row and column in its matrix.
    coefficients : tuple of str
        The coefficient of a variance, or the two of a covariance; empty where the component has
        no names of coefficients.
    """

    component: str
    size: int
    at: tuple[int, int]
    coefficients: tuple[str, ...]

    @property
    def name(self) -> str:
        """For instance "var(Subject: Days)" or "cov(Subject: intercept, Days)"."""
        kind = "var" if self.at[0] == self.at[1] else "cov"
        of = f": {', '.join(self.coefficients)}" if self.coefficients else ""
        return f"{kind}({self.component}{of})"

    def of(self, matrices: Mapping[str, Any]) -> Array:
        """Its value in covariances by component, of shape (n_outputs,)."""
        shape = (-1, self.size, self.size)
        values: Array = np.reshape(matrices[self.component], shape)[:, self.at[0], self.at[1]]
        return values


def variance_entries(
    coefficients: Mapping[str, tuple[str, ...]], diagonal: Mapping[str, bool]
) -> list[Entry]:
    """Variances and then covariances of each component, in lme4's order.

    Parameters
    ----------
    coefficients : mapping of str to tuple of str
        Coefficients of each component; none of a feature block and of the residual.
    diagonal : mapping of str to bool
        Whether a component's covariances are zero by assumption: they are left out.

    Returns
    -------
    list of Entry
    """
    return [
        Entry(component, max(len(names), 1), at, tuple(names[a] for a in sorted({*at}) if names))
        for component, names in coefficients.items()
        for at in _places(max(len(names), 1), diagonal.get(component, False))
    ]


def _places(size: int, is_diagonal: bool) -> Iterator[tuple[int, int]]:
    yield from ((a, a) for a in range(size))
    if not is_diagonal:
        yield from combinations(range(size), 2)


def variance_columns(
    entries: Sequence[Entry],
    variances: Mapping[str, Any],
    mc_errors: Mapping[str, Any],
    *,
    has_outputs: bool,
) -> dict[str, Column]:
    """One row for each variance and covariance, as ``as.data.frame(VarCorr(fit))`` of lme4 has it.

    Parameters
    ----------
    entries : sequence of Entry
        Which ones.
    variances, mc_errors : mapping of str to float or ndarray
        `variance_components_` and `variance_mc_error_`.
    has_outputs : bool
        Whether these have an axis of outputs.

    Returns
    -------
    dict of str to column
    """
    covariance = np.column_stack([entry.of(variances) for entry in entries])
    in_table = [_sd_or_correlation(entry, variances) for entry in entries]
    columns: dict[str, Column] = {
        "component": np.array([entry.component for entry in entries]),
        "coefficient": _coefficient_column(entries, 0),
        "other_coefficient": _coefficient_column(entries, 1),
    }
    return {
        **_by_output(columns, len(covariance), has_outputs),
        "covariance": covariance.ravel(),
        "sd_or_correlation": np.column_stack(in_table).ravel(),
        "mc_error": np.column_stack([entry.of(mc_errors) for entry in entries]).ravel(),
    }


def _coefficient_column(entries: Sequence[Entry], i: int) -> PartlyKnown:
    names = [entry.coefficients[i] if i < len(entry.coefficients) else None for entry in entries]
    known = np.array([name is not None for name in names])
    return PartlyKnown(np.array([name or "" for name in names]), known)


def _sd_or_correlation(entry: Entry, variances: Mapping[str, Any]) -> Array:
    """NaN for a correlation beside a variance of zero."""
    one, other = (entry._replace(at=(a, a)).of(variances) for a in entry.at)
    size = np.sqrt(one) * np.sqrt(other)
    if entry.at[0] == entry.at[1]:
        return np.asarray(np.sqrt(one))
    ratio = np.divide(entry.of(variances), size, out=np.full(len(size), np.nan), where=size > 0)
    return np.asarray(np.clip(ratio, -1.0, 1.0))


class History(list[Any]):
    """What each iteration of a fit saw, a dict for each; a list of these for each output.

    Parameters
    ----------
    iterations : list of dict, or list of list of dict
        Step, deviance, change and variances.
    entries : sequence of Entry
        Variances and covariances that are columns of the table.
    has_outputs : bool
        Whether there is one list for each output.
    """

    def __init__(
        self, iterations: list[Any], entries: Sequence[Entry], *, has_outputs: bool
    ) -> None:
        super().__init__(iterations)
        self._entries = entries
        self._has_outputs = has_outputs

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table with one row for each iteration.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `iteration`, `step`, `deviance` and `change`, and one for each variance and
            covariance, such as "var(Subject: Days)", "cov(Subject: intercept, Days)" and
            "var(residual)". With several outputs the column `output` counts them.

        Raises
        ------
        ValueError
            For another library.
        ImportError
            Where it is not installed.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> model.history_.to_frame().columns[-2:].tolist()
        ['var(Subject: intercept)', 'var(residual)']
        """
        histories = list(self) if self._has_outputs else [list(self)]
        lengths = [len(history) for history in histories]
        rows = [iteration for history in histories for iteration in history]
        output = {OUTPUT: np.repeat(np.arange(len(lengths)), lengths)} if self._has_outputs else {}
        columns: dict[str, Column] = {
            **output,
            "iteration": np.concatenate([np.arange(n) for n in lengths]),
            **{key: np.array([row[key] for row in rows]) for key in ("step", "deviance", "change")},
            **{
                entry.name: np.concatenate([entry.of(row["variances"]) for row in rows])
                for entry in self._entries
            },
        }
        return make_frame(columns, backend)
