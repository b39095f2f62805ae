"""Problems from columns or from sums: Gram blocks in internal coordinates, and what they tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from .._arrays import Array
from .._machine import one_blas_thread
from .._messages import Message
from ..covariances.matrices import is_inside
from ..design.blocks import Block
from ..design.components import Component, Factor, check_levels, refuse_twins
from ..design.design import Columns, lay_out
from ..design.fixed import FixedPart
from ..design.response import Output
from ..design.summed import CLOSE, Moments, lay_out_slopes, lay_out_sums
from ..evidence.identification import identify
from ..frames.options import RESIDUAL, Options
from ..frames.roles import FactorColumns
from ..gram.columns import in_columns, of_output, reweighted
from ..gram.crossproducts import CrossProducts, LargeColumns
from ..gram.from_rows import build_crossproducts
from ..gram.layout import choose_layout
from ..gram.sums import Sums
from .problem import Problem


@dataclass(frozen=True)
class Posed:
    """Problems of all responses of one design, and the only rows that they still need.

    Attributes
    ----------
    problems : list of Problem
        One for each response.
    notes : list of Message
        What the user should know of factors.
    blocks : tuple of Block
        Feature blocks, whose coefficients are combinations of their rows where these are fewer.
    large : mapping of int to ndarray or sparse array of shape (n, L)
        Columns of feature blocks without principal axes, by term.
    """

    problems: list[Problem]
    notes: list[Message]
    blocks: tuple[Block, ...] = ()
    large: LargeColumns = field(default_factory=dict)


@dataclass(frozen=True)
class Internal:
    """Gram blocks in internal coordinates, and the way to the user's.

    Attributes
    ----------
    crossproducts : CrossProducts
        Of all responses.
    components : tuple of Component
        Grouping factors, then feature blocks.
    fixed : FixedPart
        Fixed columns.
    outputs : tuple of Output
        Responses.
    weight_unit : float
        Unit of precision weights.
    n_rows : int
        Number of rows.
    shares : ndarray of shape (p + t + m,)
        Share of its sum of squares that is left of each fixed column, response and slope.
    """

    crossproducts: CrossProducts
    components: tuple[Component, ...]
    fixed: FixedPart
    outputs: tuple[Output, ...]
    weight_unit: float
    n_rows: int
    shares: Array = field(default_factory=lambda: np.ones(1))

    @property
    def keeps_digits(self) -> bool:
        """Whether sums told all there is to tell."""
        return bool(np.min(self.shares) >= CLOSE)


def pose_columns(
    columns: Columns,
    y: Array,
    sums: Sums | None,
    factors: Sequence[FactorColumns],
    options: Options,
) -> Posed:
    """Pose what rows in memory tell: by their sums, unless these lose digits.

    Parameters
    ----------
    columns : Columns
        The user's columns.
    y : ndarray of shape (n, t)
        Responses; each has variances of its own.
    sums : Sums or None
        Over their rows, where that is all a fit needs.
    factors : sequence of FactorColumns
        Names of the factors and of their coefficients.
    options : Options
        What to estimate.

    Returns
    -------
    Posed
    """
    if sums is not None:
        internal = lay_out_blocks(sums, factors, options)
        if internal.keeps_digits:
            return pose(internal, options)
    return pose_rows(columns, y, options)


def pose_rows(columns: Columns, y: Array, options: Options) -> Posed:
    """Build Gram blocks from rows, whatever their columns are.

    Parameters
    ----------
    columns : Columns
        The user's columns.
    y : ndarray of shape (n, t)
        Responses; each has variances of its own.
    options : Options
        What to estimate.

    Returns
    -------
    Posed

    Raises
    ------
    ValueError
        For a factor with one level beside an intercept, or two with the same levels.
    """
    design, response = lay_out(columns, y, options)
    with one_blas_thread(n_entries=y.size + design.X.shape[0] * design.X.shape[1]):
        crossproducts, large = build_crossproducts(design, response.y)
    internal = Internal(
        crossproducts=crossproducts,
        components=design.components,
        fixed=design.fixed,
        outputs=response.outputs,
        weight_unit=design.weight_unit,
        n_rows=columns.rows.n,
    )
    posed = pose(internal, options, columns.notes)
    return replace(posed, blocks=design.blocks, large=large)


def lay_out_blocks(
    sums: Sums, factors: Sequence[FactorColumns], options: Options, known: Moments | None = None
) -> Internal:
    """Bring sums to internal coordinates.

    Parameters
    ----------
    sums : Sums
        About a pivot.
    factors : sequence of FactorColumns
        Names of the factors and of their coefficients.
    options : Options
        What to estimate.
    known : Moments, optional
        Of the user's columns and responses, where the sums are of others.

    Returns
    -------
    Internal
    """
    # Precision weights have a unit.
    unit = 1.0 if options.frequency else sums.products.n / sums.n_rows
    laid = lay_out_sums(
        sums.of_fixed(known), alpha=options.alpha / unit, fit_intercept=options.fit_intercept
    )
    A, components, shares = {}, [], [laid.shares]
    terms = []
    for k, (factor, term) in enumerate(zip(factors, sums.products.terms, strict=True)):
        structure = options.structures[factor.name]
        A_k, transform, of_slopes = lay_out_slopes(
            np.sum(term.own, axis=2),
            sums.coordinates.of_slopes[k],
            sums.largest_slopes[k],
            intercept=factor.intercept,
            structure=structure,
        )
        if factor.slopes:
            A[k] = A_k
        shares.append(of_slopes)
        terms.append(replace(term, structure=structure))
        components.append(
            Factor(factor.name, factor.coefficient_names, term.n_levels, structure, transform)
        )
    products = replace(
        sums.products,
        terms=tuple(terms),
        n=sums.products.n if options.frequency else float(sums.n_rows),
        sum_log_weights=0.0
        if options.frequency
        else sums.products.sum_log_weights - sums.n_rows * float(np.log(unit)),
    )
    return Internal(
        crossproducts=reweighted(
            in_columns(products, laid.M, penalty=laid.fixed.penalty, A=A), 1.0 / unit
        ),
        components=tuple(components),
        fixed=laid.fixed,
        outputs=laid.outputs,
        weight_unit=unit,
        n_rows=sums.n_rows,
        shares=np.concatenate(shares),
    )


def pose(
    internal: Internal, options: Options, notes: Sequence[Message] = (), *, so_far: bool = False
) -> Posed:
    """Find what Gram blocks tell, and refuse what they cannot.

    Parameters
    ----------
    internal : Internal
        In internal coordinates.
    options : Options
        What to estimate.
    notes : sequence of Message
        What the user should know beside.
    so_far : bool
        Whether rows are to come that may bring other levels.

    Returns
    -------
    Posed

    Raises
    ------
    ValueError
        For a factor with one level beside an intercept, or two with the same levels, but not of
        the rows so far.
    """
    crossproducts = internal.crossproducts
    active = [component for component in internal.components if component.has_term]
    about_factors = _check_factors(internal, options, so_far=so_far)
    with one_blas_thread(n_entries=crossproducts.n_entries):
        identification = identify(
            crossproducts,
            [component.transform for component in active],
            free=[component.name not in options.held for component in active],
            residual=RESIDUAL not in options.held,
            reml=options.method != "ml",
        )
    layout = choose_layout(crossproducts)
    problems = [
        Problem(
            crossproducts=of_output(crossproducts, j),
            layout=layout,
            components=internal.components,
            fixed=internal.fixed,
            output=output,
            weight_unit=internal.weight_unit,
            options=options,
            identification=identification,
        )
        for j, output in enumerate(internal.outputs)
    ]
    return Posed(problems, [*about_factors, *notes])


def resume(posed: Posed, variances: Mapping[str, Any], *, has_outputs: bool) -> Posed:
    """Start where fewer rows had their optimum, but for covariances at a boundary.

    What method="quick" ends at depends on where it starts, so that it starts as it always does.

    Parameters
    ----------
    posed : Posed
        Problems.
    variances : mapping of str to float or ndarray
        As users see them, outputs first if so.
    has_outputs : bool
        Whether they have an axis of outputs.

    Returns
    -------
    Posed
    """
    problems = []
    for j, problem in enumerate(posed.problems):
        of_output = {
            name: np.atleast_2d(value[j] if has_outputs else value)
            for name, value in variances.items()
        }
        before = {name: Sigma for name, Sigma in of_output.items() if is_inside(Sigma)}
        is_path = problem.options.method == "quick"
        problems.append(problem if is_path else replace(problem, before=before))
    return replace(posed, problems=problems)


def _check_factors(internal: Internal, options: Options, *, so_far: bool) -> list[Message]:
    """Say which factors have two levels; refuse one level, and factors with the same.

    Of these the rows so far do not tell all variances, which is said of each.
    """
    terms, cross = internal.crossproducts.terms, internal.crossproducts.cross
    factors = [component.name for component in internal.components if not component.is_feature]
    notes = []
    for k, name in enumerate(factors):
        n_levels = terms[k].n_levels
        if name not in options.held and not (so_far and n_levels == 1):
            notes += check_levels(
                name, n_levels, internal.n_rows, fit_intercept=options.fit_intercept
            )
    if so_far:
        return notes
    for k, l in combinations(range(len(factors)), 2):
        if len(cross[k][l].row_levels) == terms[k].n_levels == terms[l].n_levels:
            refuse_twins(factors[k], factors[l])
    return notes
