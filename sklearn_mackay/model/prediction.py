"""Predictions of new rows, from roles, levels and estimates: no estimator, no Gram blocks.

Gram blocks are asked only where the prediction is to say how sure it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array, Matrix, to_dense
from .._messages import Message
from ..design.components import LevelRows, Part
from ..design.design import slope_columns
from ..design.terms import random_part
from ..frames.grouping import (
    Grouping,
    Labels,
    encode,
    number_unseen,
    rounding,
    unlike,
    unseen_labels,
)
from ..frames.roles import ColumnRoles, FactorColumns
from ..frames.tables import Table, read_groups
from .fitted import FittedModel, Rows

FIXED = "fixed"  # name of the part of the fixed features


@dataclass(frozen=True)
class NewRows:
    """Rows to predict.

    Attributes
    ----------
    table : Table
        All columns.
    features : ndarray or sparse matrix of shape (n, n_features_with_a_coefficient)
        Columns that have one coefficient, in the order of `ColumnRoles.features`.
    factors : dict of str to LevelRows
        Levels and slopes of the factors whose effects are added.
    labels : dict of str to list of ndarray of shape (n,)
        Their labels.
    messages : tuple of Message
        What the user should know about the labels.
    """

    table: Table
    features: Matrix
    factors: dict[str, LevelRows]
    labels: dict[str, list[Labels]]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Predictor:
    """What a fit knows of rows that it did not see.

    Attributes
    ----------
    roles : ColumnRoles
        What the columns are for.
    groupings : tuple of Grouping
        Levels of each factor.
    intercept : float or ndarray of shape (n_outputs,)
        Fixed intercept.
    coef : ndarray of shape (n_features,) or (n_outputs, n_features)
        Coefficient of each column, NaN for one without.
    random_effects : dict of str to ndarray of shape (n_levels, s) or (n_outputs, n_levels, s)
        Effects of each factor.
    """

    roles: ColumnRoles
    groupings: tuple[Grouping, ...]
    intercept: Any
    coef: Array
    random_effects: dict[str, Array]

    def read(
        self, table: Table, groups: object, chosen: Sequence[str], *, refuse_unseen: bool
    ) -> NewRows:
        """Take what is needed of new rows from their table.

        Parameters
        ----------
        table : Table
            The columns that `fit` saw.
        groups : array-like or None
            Labels, where `fit` was given them.
        chosen : sequence of str
            Factors whose effects are to be added.
        refuse_unseen : bool
            Whether labels that `fit` never saw are an error.

        Returns
        -------
        NewRows

        Raises
        ------
        ValueError
            For columns that are not numeric or `groups` that are not those of `fit`; for labels
            that are refused.
        """
        features = table.numeric(self.roles.features)
        factors, labels = {}, {}
        found, said = self._labels(table, groups, chosen)
        for factor, grouping, columns in found:
            codes, message = encode_labels(grouping, columns, refuse_unseen=refuse_unseen)
            factors[factor.name] = LevelRows(codes, coefficient_columns(table, factor))
            labels[factor.name] = columns
            said += [message] if message else []
        return NewRows(table, features, factors, labels, tuple(said))

    def _labels(
        self, table: Table, groups: object, chosen: Sequence[str]
    ) -> tuple[list[tuple[FactorColumns, Grouping, list[Labels]]], list[Message]]:
        """Each chosen factor with its levels and the labels of the rows, and what to say."""
        names = [factor.name for factor in self.roles.factors]
        pairs = list(zip(self.roles.factors, self.groupings, strict=True))
        if isinstance(groups, Real):
            raise ValueError(
                f"`groups` must be labels of the rows, got {groups!r}: give `level` by its name."
            )
        if not self.roles.has_array_factors:
            if groups is not None:
                source = (
                    "takes its groups from columns of X" if pairs else "was fitted without groups"
                )
                raise ValueError(
                    f"This model {source}; `groups` cannot be given to predict or score."
                )
            of_columns = [
                (factor, grouping, [table.labels(column) for column in factor.columns])
                for factor, grouping in pairs
                if factor.name in chosen
            ]
            return of_columns, []
        if groups is None:
            return [], [WITHOUT_GROUPS] if chosen else []
        given, arrays = read_groups(groups, table.n_rows)
        if len(given) != len(pairs):
            raise ValueError(
                f"`groups` has {len(given)} factors, but the model was fitted with {len(pairs)}: "
                f"{', '.join(map(repr, names))}."
            )
        # Columns of a data frame are known by their names, others by their order.
        keys = given if set(given) == set(names) else names
        by_name = dict(zip(keys, arrays, strict=True))
        of_arrays = [
            (factor, grouping, [by_name[factor.name]])
            for factor, grouping in pairs
            if factor.name in chosen
        ]
        return of_arrays, []

    def mean(self, rows: NewRows) -> Array:
        """``X beta + sum_k Z_k b_k`` of shape (n,) or (n, n_outputs)."""
        return np.asarray(sum(self.parts(rows).values()))

    def parts(self, rows: NewRows) -> dict[str, Array]:
        """The fixed part, and what each feature block and chosen factor adds."""
        if not self.roles.blocks:
            coef = self._coefficients(self.roles.features)
            parts = {FIXED: np.asarray(rows.features @ coef + self.intercept)}
        else:
            used = {FIXED: self.roles.fixed, **self.roles.blocks}
            parts = {
                name: np.asarray(rows.features[:, place] @ self._coefficients(used[name]))
                for name, place in self._places.items()
            }
            parts[FIXED] = parts[FIXED] + self.intercept
        for name, (codes, columns) in rows.factors.items():
            parts[name] = random_part(codes, columns, self.random_effects[name])
        return parts

    def _coefficients(self, columns: Sequence[int]) -> Array:
        """Coefficients of some columns of X, of shape (p,) or (p, n_outputs)."""
        return np.asarray(self.coef.T[list(columns)])

    @property
    def _places(self) -> dict[str, list[int]]:
        """Where the fixed features stand in `NewRows.features`, and those of each block."""
        at = {column: i for i, column in enumerate(self.roles.features)}
        columns = {FIXED: self.roles.fixed, **self.roles.blocks}
        return {name: [at[c] for c in group] for name, group in columns.items()}

    def internal_rows(
        self, model: FittedModel, rows: NewRows, factors: dict[str, LevelRows]
    ) -> tuple[Rows, dict[str, Part]]:
        """Rows in the coordinates of a kept fit, with some factors, and what they are made of."""
        fixed, blocks = self._fixed_and_blocks(rows)
        parts: dict[str, Part] = {**factors, **blocks}
        return model.rows(fixed, parts), parts

    def _fixed_and_blocks(self, rows: NewRows) -> tuple[Array, dict[str, Array]]:
        """Dense columns of the fixed part, its intercept first, and of each feature block."""
        parts = {name: to_dense(rows.features[:, place]) for name, place in self._places.items()}
        fixed = parts.pop(FIXED)
        return np.column_stack([np.ones(len(fixed)), fixed]), parts

    def all_factors(self, rows: NewRows) -> dict[str, LevelRows]:
        """Levels of every factor; of those left out each row has an unknown one of its own."""
        unknown = -1 - np.arange(rows.table.n_rows)
        return {
            factor.name: rows.factors.get(factor.name)
            or LevelRows(unknown, coefficient_columns(rows.table, factor))
            for factor in self.roles.factors
        }

    def mean_variance(
        self, models: Sequence[FittedModel], rows: NewRows, *, everything: bool
    ) -> list[Array]:
        """Variance (n,) of the error of each output's mean.

        Parameters
        ----------
        models : sequence of FittedModel
            Kept fits, one for each output.
        rows : NewRows
            Rows to predict.
        everything : bool
            Whether factors whose effects are not added count as unknown levels, or not at all.

        Returns
        -------
        list of ndarray of shape (n,)
        """
        factors = self.all_factors(rows) if everything else rows.factors
        return [model.variance(self.internal_rows(model, rows, factors)[0]) for model in models]

    def sample(
        self,
        models: Sequence[FittedModel],
        rows: NewRows,
        n_samples: int,
        generator: np.random.RandomState,
    ) -> list[Array]:
        """Draw new responses less their mean (n, n_samples), for each output."""
        factors = self.all_factors(rows) | {
            name: LevelRows(number_unseen(codes, rows.labels[name]), columns)
            for name, (codes, columns) in rows.factors.items()
        }
        outputs = []
        for model in models:
            known, parts = self.internal_rows(model, rows, factors)
            errors = model.sample(known, parts, n_samples, generator)
            noise = generator.standard_normal(errors.shape) * np.sqrt(model.sigma2)
            outputs.append(errors + noise)
        return outputs


WITHOUT_GROUPS = Message(
    "This model was fitted with `fit(X, y, groups=...)` and predicts without "
    "groups: the prediction leaves out the random effects. Scorers given by name "
    "and GridSearchCV.predict never pass groups; name grouping columns of X in "
    "the constructor instead, or set effects='population'."
)


def encode_labels(
    grouping: Grouping, labels: Sequence[Labels], *, refuse_unseen: bool
) -> tuple[NDArray[np.integer[Any]], Message | None]:
    """Codes of labels, and what the user should know of them.

    Parameters
    ----------
    grouping : Grouping
        Levels of a factor.
    labels : sequence of ndarray of shape (n,)
        Column by column.
    refuse_unseen : bool
        Whether labels that `fit` never saw are an error.

    Returns
    -------
    codes : ndarray of shape (n,)
        -1 for a label that is missing or that `fit` never saw.
    message : Message or None

    Raises
    ------
    ValueError
        For labels that are refused.
    """
    codes = encode(grouping, labels)
    rounded = rounding(grouping.name, _not_rounded_in_fit(grouping, labels))
    differs = unlike(grouping, codes, labels)
    unseen = unseen_labels(codes, labels) if refuse_unseen else []
    if unseen:
        named = ", ".join(map(repr, unseen[:5]))
        if differs:
            named += f", which are {differs[0]}, where it saw {differs[1]}"
        raise ValueError(
            f"Grouping factor {grouping.name!r} has labels not seen in fit: {named}. Set "
            "unknown_groups='population' to predict them without an effect."
        )
    if not differs:
        return codes, rounded
    given, seen = differs
    return codes, Message(
        f"Grouping factor {grouping.name!r} was given {given}, which `fit` never saw; it "
        f"saw {seen}. These rows are predicted as unknown levels: give labels as `fit` "
        "saw them."
    )


def _not_rounded_in_fit(grouping: Grouping, columns: Sequence[Labels]) -> list[Labels]:
    """Columns of labels whose levels are no floating point numbers, of which `fit` has warned."""
    return [
        labels
        for labels, levels in zip(columns, grouping.column_levels, strict=True)
        if levels.dtype.kind != "f"
    ]


def coefficient_columns(table: Table, factor: FactorColumns) -> Array:
    """Columns (s, n) that multiply a level's coefficients."""
    intercept = np.ones((int(factor.intercept), table.n_rows))
    return np.vstack([intercept, slope_columns(table, factor).T])
