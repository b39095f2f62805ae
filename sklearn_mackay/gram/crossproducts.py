"""Gram blocks: everything later steps need of the rows, in one pass over them.

``[Z X y]' W [Z X y]`` block by block. A factor with itself is block-diagonal, two factors form a
sparse cross-table, and the fixed part is a small dense corner. A feature block along its principal
axes is a factor whose levels, the axes, meet every level of other terms. Nothing here depends on a
variance and, once it is built, nothing is as long as ``n``. The level axis comes last, so that the
arithmetic on the small ``s x s`` blocks runs along contiguous memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .._arrays import Array, Index, Matrix
from ..covariances.structures import Structure


@dataclass(frozen=True)
class TermGram:
    """One term with itself and with the fixed part. Data only.

    Attributes
    ----------
    own : ndarray of shape (s, s, L)
        Blocks of ``Z_k'WZ_k``.
    ZWF : ndarray of shape (s, p + t, L)
        ``Z_k'WF`` with ``F = [X y]``.
    structure : Structure
        Of the covariance of the term.
    axes : ndarray of shape (c, L) or None
        Principal axes of a feature block, in the columns that products were taken of; None for
        a factor, and for a block too large to have any.
    is_large : bool
        Whether it is a feature block too large for principal axes: its levels meet one another,
        `own` is the diagonal only, and the rest is in its `LargeColumns`.
    """

    own: Array
    ZWF: Array
    structure: Structure
    axes: Array | None = None
    is_large: bool = False

    @property
    def is_block(self) -> bool:
        """Whether the term is a feature block."""
        return self.axes is not None or self.is_large

    @property
    def n_coefficients(self) -> int:
        """``s``."""
        return int(self.own.shape[0])

    @property
    def n_levels(self) -> int:
        """``L``."""
        return int(self.own.shape[2])

    @property
    def n_effects(self) -> int:
        """``q = L s``."""
        return self.n_coefficients * self.n_levels


@dataclass(frozen=True)
class CrossGram:
    """Cross-table ``Z_k'WZ_l`` of two terms: one block per pair of levels that meet. Data only.

    Attributes
    ----------
    row_levels, column_levels : ndarray of shape (m,)
        The pairs, sorted by row.
    blocks : ndarray of shape (s_k, s_l, m)
        Their blocks.
    """

    row_levels: Index
    column_levels: Index
    blocks: Array

    @property
    def transposed(self) -> CrossGram:
        """``Z_l'WZ_k``, again sorted by row."""
        order = np.argsort(self.column_levels, kind="stable")
        return CrossGram(
            self.column_levels[order],
            self.row_levels[order],
            np.ascontiguousarray(self.blocks[:, :, order].swapaxes(0, 1)),
        )


@dataclass(frozen=True)
class CrossProducts:
    """The Gram blocks of a data set. Data only; two data sets' blocks would add.

    Attributes
    ----------
    terms : tuple of TermGram
        One per random term.
    cross : dict of int to dict of int to CrossGram
        ``cross[k][l]`` of terms ``k < l``; not of two large blocks. Formats that are safer than
        pickle write keys that are numbers, and no pairs of them.
    FWF : ndarray of shape (p + t, p + t)
        ``F'WF`` with ``F = [X y]``, penalised columns of X first.
    penalty : ndarray of shape (p,)
        Ridge penalty of each column, relative to sigma2; positive ones first, then zeros.
    n : float
        Number of rows (frequency weights: their sum).
    sum_log_weights : float
        ``sum log w`` (0 for frequency weights).
    """

    terms: tuple[TermGram, ...]
    cross: dict[int, dict[int, CrossGram]]
    FWF: Array
    penalty: Array
    n: float
    sum_log_weights: float

    @property
    def n_unpenalized(self) -> int:
        """Rank of the unpenalised fixed part, the ``p`` of ``n - p``."""
        return int(np.count_nonzero(self.penalty == 0.0))

    @property
    def dense_order(self) -> int:
        """Order of the largest dense matrix that solving may need: one term is eliminated."""
        sizes = [term.n_effects for term in self.terms]
        return sum(sizes) - max(sizes, default=0) + len(self.penalty)

    @property
    def n_entries(self) -> int:
        """Numbers stored, a measure of memory."""
        terms = sum(term.own.size + term.ZWF.size for term in self.terms)
        return terms + sum(2 * table.blocks.size for table in self.tables.values())

    @property
    def tables(self) -> dict[tuple[int, int], CrossGram]:
        """The cross-tables by pair of terms."""
        return {(k, l): table for k, row in self.cross.items() for l, table in row.items()}


# ``W^1/2 Z`` of shape (n, L), by term, of each feature block too large for principal axes. As long
# as the rows, so that it is no part of the cross-products: it goes to the engine and is not kept.
LargeColumns: TypeAlias = Mapping[int, Matrix]
