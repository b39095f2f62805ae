"""Sums over rows that add: Gram blocks about a pivot, of the columns as the user gave them.

Sums of two parts of the rows add once their levels are the same and their pivots are. What a fit
wants of them are other columns, the map `in_columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._arrays import Array
from ..design.summed import Coordinates, FixedSums, Moments, moments
from .columns import in_columns
from .crossproducts import CrossProducts
from .pairs import Levels, merged


@dataclass(frozen=True)
class Sums:
    """Weighted sums of products of the columns of some rows.

    Attributes
    ----------
    products : CrossProducts
        Of ``F = [1, ([X y] - shift) turn]`` and, for each factor, ``[1, slopes - shift]`` by level.
    coordinates : Coordinates
        Shifts and turn.
    largest : ndarray of shape (p + t,)
        ``max |x|`` of fixed columns and responses.
    largest_slopes : tuple of ndarray of shape (s_k - 1,)
        The same of the slopes of each factor.
    n_rows : int
        Number of rows.
    n_outputs : int
        ``t``.
    """

    products: CrossProducts
    coordinates: Coordinates
    largest: Array
    largest_slopes: tuple[Array, ...]
    n_rows: int
    n_outputs: int

    @property
    def moments(self) -> Moments:
        """Of fixed columns and responses, where they were not turned."""
        return moments(self.products.FWF, self.coordinates.shift, self.largest)

    def of_fixed(self, known: Moments | None = None) -> FixedSums:
        """The sums of fixed columns and responses, with moments known from elsewhere if turned."""
        return FixedSums(self.products.FWF, self.coordinates, known or self.moments, self.n_outputs)


def about(sums: Sums, coordinates: Coordinates) -> Sums:
    """The same sums, of columns that are not turned, about another pivot."""
    shift = sums.coordinates.shift - coordinates.shift
    M = np.eye(1 + len(shift))
    M[0, 1:] = shift
    A = {}
    pairs = zip(sums.coordinates.of_slopes, coordinates.of_slopes, strict=True)
    for k, (old, new) in enumerate(pairs):
        if np.any(old != new):
            A[k] = np.eye(1 + len(old))
            A[k][0, 1:] = old - new
    if not (A or np.any(shift)):
        return sums
    moved = in_columns(sums.products, M, penalty=sums.products.penalty, A=A)
    return replace(sums, products=moved, coordinates=coordinates)


def add(one: Sums, other: Sums, levels: Sequence[tuple[Levels, Levels]]) -> Sums:
    """Sums of the rows of both.

    Parameters
    ----------
    one, other : Sums
        Of disjoint rows, of the same columns.
    levels : sequence of (Levels, Levels)
        For each factor, where the levels of the one and of the other go.

    Returns
    -------
    Sums
        About the pivot of the first.
    """
    other = other if other.coordinates is one.coordinates else about(other, one.coordinates)
    a, b = one.products, other.products
    terms = tuple(
        replace(
            of_a,
            own=_added(of_a.own, of_b.own, *where),
            ZWF=_added(of_a.ZWF, of_b.ZWF, *where),
        )
        for of_a, of_b, where in zip(a.terms, b.terms, levels, strict=True)
    )
    cross = {
        k: {l: merged((table, b.cross[k][l]), levels[k], levels[l]) for l, table in row.items()}
        for k, row in a.cross.items()
    }
    pairs = zip(one.largest_slopes, other.largest_slopes, strict=True)
    return Sums(
        products=CrossProducts(
            terms=terms,
            cross=cross,
            FWF=a.FWF + b.FWF,
            penalty=a.penalty,
            n=a.n + b.n,
            sum_log_weights=a.sum_log_weights + b.sum_log_weights,
        ),
        coordinates=one.coordinates,
        largest=np.maximum(one.largest, other.largest),
        largest_slopes=tuple(np.maximum(*pair) for pair in pairs),
        n_rows=one.n_rows + other.n_rows,
        n_outputs=one.n_outputs,
    )


def _added(a: Array, b: Array, in_a: Levels, in_b: Levels) -> Array:
    """Sums by level, (..., L), of the union of levels."""
    if in_a.is_all and in_b.is_all:
        return a + b
    total = np.zeros((*a.shape[:-1], in_a.n_levels))
    total[..., in_a.positions] = a
    total[..., in_b.positions] += b
    return total
