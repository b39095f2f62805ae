"""Predictions of new rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, to_dense
from ..frames.grouping import Labels
from ..frames.roles import FactorColumns
from ..frames.tables import Table
from .fitted import LevelRows

FIXED = "fixed"  # name of the part of the fixed features


class NewRows(NamedTuple):
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
    """

    table: Table
    features: Any
    factors: dict[str, LevelRows]
    labels: dict[str, list[Labels]]


def coefficient_columns(table: Table, factor: FactorColumns) -> Array:
    """Columns (s, n) that multiply a level's coefficients."""
    intercept = np.ones((int(factor.intercept), table.n_rows))
    return np.vstack([intercept, slope_columns(table, factor).T])


def slope_columns(table: Table, factor: FactorColumns) -> Array:
    """Columns (n, s - intercept) of random slopes."""
    if not factor.slopes:
        return np.empty((table.n_rows, 0))
    return to_dense(table.numeric(factor.slopes))
