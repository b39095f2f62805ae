"""All columns of a model, and the response: the owner of everything that is as long as the rows.

`gather` takes the columns that a user's table has for the roles of the model; `lay_out` brings them
and the response to internal coordinates. What leaves this room for good holds no rows: components,
`FixedPart` and `Output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array, Matrix, is_sparse, largest_entry, to_dense
from .._messages import Message
from ..frames.grouping import Grouping, Labels, learn_grouping
from ..frames.options import Options
from ..frames.roles import ColumnRoles, FactorColumns
from ..frames.tables import Table
from .blocks import Block, make_block
from .components import Component, ConstantBlock, Factor, FeatureBlock, note_constant
from .fixed import FixedPart, build_fixed_part, center_columns, least_norm_fixed_part
from .response import Response, is_saturated, make_response, regress
from .summed import in_range
from .terms import FactorRows, Term, make_term
from .weighted import WeightedRows


@dataclass(frozen=True)
class Columns:
    """The columns of a model as the user gave them, on the rows that count.

    Attributes
    ----------
    rows : WeightedRows
        Weights of these rows.
    counted : slice or ndarray of bool of shape (n_all,)
        Which rows they are: those of positive weight.
    X : ndarray or sparse array of shape (n, p)
        Fixed columns.
    is_users_X : bool
        Whether X is the user's own array, which is not to be changed.
    factors : tuple of FactorRows
        Levels and slopes of the grouping factors.
    components : tuple of Component
        Feature blocks, those without principal axes first.
    blocks : tuple of Block
        Columns of the feature blocks that vary.
    notes : tuple of Message
        What the user should know about feature blocks.
    """

    rows: WeightedRows
    counted: slice | NDArray[np.bool_]
    X: Matrix
    is_users_X: bool
    factors: tuple[FactorRows, ...]
    components: tuple[Component, ...]
    blocks: tuple[Block, ...]
    notes: tuple[Message, ...]

    def can_be_summed(self, y: Array) -> bool:
        """Whether sums over rows are all that a fit needs, and products of the columns numbers."""
        if is_sparse(self.X) or self.components or self.X.shape[1] + 1 >= self.rows.n:
            return False
        largest = (self.largest, largest_entry(y), *self.largest_slopes)
        return all(np.all(in_range(one)) for one in largest)

    @cached_property
    def largest(self) -> Array:
        """``max |x|`` of each fixed column, which are dense."""
        return largest_entry(self.X)

    @cached_property
    def largest_slopes(self) -> tuple[Array, ...]:
        """``max |x|`` of the slopes of each factor."""
        return tuple(largest_entry(factor.slopes) for factor in self.factors)


@dataclass(frozen=True)
class Design:
    """All columns of a model in internal coordinates.

    Attributes
    ----------
    rows : WeightedRows
        Row weights, in units of `weight_unit`.
    X : ndarray or sparse array of shape (n, r)
        Fixed columns; the intercept, if any, last.
    fixed : FixedPart
        The way from their coefficients to the user's.
    factors : tuple of Term
        Columns of the grouping factors.
    blocks : tuple of Block
        Columns of the feature blocks that vary, those without principal axes first.
    components : tuple of Component
        All components, factors first.
    weight_unit : float
        Unit of precision weights, which the residual variance takes on; in it they average 1.
    n : float
        Number of rows that the criterion counts: with frequency weights their sum.
    sum_log_weights : float
        ``sum log w`` of precision weights.
    """

    rows: WeightedRows
    X: Matrix
    fixed: FixedPart
    factors: tuple[Term, ...]
    blocks: tuple[Block, ...]
    components: tuple[Component, ...]
    weight_unit: float
    n: float
    sum_log_weights: float

    @property
    def terms(self) -> tuple[Term | Block, ...]:
        """Columns of the components that have a term, in their order."""
        return (*self.factors, *self.blocks)


def gather(
    table: Table,
    roles: ColumnRoles,
    labels: Sequence[Labels],
    weights: Array,
    options: Options,
    *,
    copy: bool,
) -> tuple[Columns, tuple[Grouping, ...]]:
    """Take the columns of a model from a table, and learn the levels of its factors.

    Parameters
    ----------
    table : Table
        The user's X.
    roles : ColumnRoles
        What its columns are for.
    labels : sequence of ndarray of shape (n_all,)
        Labels of the factors where `fit` was given them; empty where columns have them.
    weights : ndarray of shape (n_all,)
        Row weights; rows of weight zero are left out.
    options : Options
        Parameters, read.
    copy : bool
        False where the user's own array may be overwritten later.

    Returns
    -------
    columns : Columns
    groupings : tuple of Grouping
        Levels of each factor.

    Raises
    ------
    ValueError
        For a column that is not numeric or not finite, or missing labels.
    """
    positive = weights > 0
    # A slice copies nothing.
    counted = slice(None) if positive.all() else positive
    rows = WeightedRows(weights[counted])
    groupings, factors = [], []
    for i, factor in enumerate(roles.factors):
        of_factor = [labels[i]] if labels else [table.labels(c) for c in factor.columns]
        grouping, codes = learn_grouping(factor.name, [column[counted] for column in of_factor])
        groupings.append(grouping)
        factors.append(
            FactorRows(
                name=factor.name,
                coefficients=factor.coefficient_names,
                codes=codes,
                n_levels=grouping.n_levels,
                slopes=slope_columns(table, factor)[counted],
                intercept=factor.intercept,
                structure=options.structures[factor.name],
            )
        )
    blocks, components, notes = _gather_blocks(table, roles, counted, rows, options)
    X = table.numeric(roles.fixed, copy=False)
    X = X if isinstance(counted, slice) else X[counted]
    columns = Columns(
        rows=rows,
        counted=counted,
        X=X,
        is_users_X=copy
        and isinstance(table.data, np.ndarray)
        and np.may_share_memory(X, table.data),
        factors=tuple(factors),
        components=tuple(components),
        blocks=blocks,
        notes=tuple(notes),
    )
    return columns, tuple(groupings)


def _gather_blocks(
    table: Table,
    roles: ColumnRoles,
    counted: slice | NDArray[np.bool_],
    rows: WeightedRows,
    options: Options,
) -> tuple[tuple[Block, ...], list[Component], list[Message]]:
    """Columns of the feature blocks, their components, and what to say about them."""
    found: list[tuple[Block | None, Component]] = []
    notes = []
    for name, positions in roles.blocks.items():
        columns = table.numeric(positions, copy=False)[counted]
        block = make_block(columns, rows, centered=options.fit_intercept)
        if block is None:
            constant = ConstantBlock(name, to_dense(columns[:1])[0])
            if name not in options.held:
                notes.append(note_constant(constant))
            found.append((None, constant))
        else:
            found.append((block, FeatureBlock(name, block.center, block.scale)))
    found.sort(key=lambda pair: pair[0] is None or not pair[0].is_large)
    blocks = tuple(block for block, _ in found if block is not None)
    return blocks, [component for _, component in found], notes


def slope_columns(table: Table, factor: FactorColumns) -> Array:
    """Columns (n, s - intercept) of random slopes."""
    if not factor.slopes:
        return np.empty((table.n_rows, 0))
    return to_dense(table.numeric(factor.slopes))


def lay_out(columns: Columns, y: Array, options: Options) -> tuple[Design, Response]:
    """Bring columns and responses to internal coordinates.

    Where the fixed columns explain every row, or are as many as the rows, coefficients of combined
    columns are those of least norm, the limit of ``Ridge``; which basis that asks for depends on
    the response.

    Parameters
    ----------
    columns : Columns
        The user's columns; a dense X is overwritten, unless it is the user's own.
    y : ndarray of shape (n, t)
        Responses on the same rows.
    options : Options
        Parameters, read.

    Returns
    -------
    Design
    Response
    """
    # Precision weights have a unit.
    unit = 1.0 if options.frequency else float(np.mean(columns.rows.weights))
    rows = columns.rows if unit == 1.0 else WeightedRows(columns.rows.weights / unit)
    X = columns.X.copy() if columns.is_users_X else columns.X
    user_columns, center = center_columns(X, rows, fit_intercept=options.fit_intercept)
    X, fixed = build_fixed_part(
        user_columns,
        center,
        rows,
        alpha=options.alpha / unit,
        fit_intercept=options.fit_intercept,
    )
    residual, offset = regress(X, y, rows, fixed)
    n_columns = user_columns.shape[1] + options.fit_intercept
    if len(fixed.dropped) and is_saturated(y, residual, rows, n_columns):
        X, fixed = least_norm_fixed_part(user_columns, center, rows, X, fixed)
        residual, offset = regress(X, y, rows, fixed)
    terms = [make_term(factor, rows) for factor in columns.factors]
    factors = [
        Factor(of.name, of.coefficients, of.n_levels, of.structure, term.transform)
        for of, term in zip(columns.factors, terms, strict=True)
    ]
    design = Design(
        rows=rows,
        X=X,
        fixed=fixed,
        factors=tuple(terms),
        blocks=columns.blocks,
        components=(*factors, *columns.components),
        weight_unit=unit,
        n=rows.total if options.frequency else float(rows.n),
        sum_log_weights=0.0 if options.frequency else rows.sum_log,
    )
    return design, make_response(y, residual, offset, rows)
