"""Variance components in the user's units and in the internal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array, to_dense
from .blocks import Block, make_block
from .terms import Term, make_term

CANCELLED = 1e-12  # of its summands: a sum below it is rounding


@dataclass(frozen=True)
class Component:
    """One grouping factor's part of the model.

    Attributes
    ----------
    name : str
        Factor.
    coefficients : tuple of str
        "intercept" and slopes, as the user knows them.
    codes : ndarray of shape (n,)
        Level of each row.
    n_levels : int
        Number of levels.
    diagonal : bool
        Whether the covariance is restricted to its diagonal.
    term : Term
        Its columns.
    warnings : tuple of str
        What the user should know about the factor.
    """

    name: str
    coefficients: tuple[str, ...]
    codes: NDArray[np.integer[Any]]
    n_levels: int
    diagonal: bool
    term: Term
    warnings: tuple[str, ...]
    start_share: ClassVar[float] = 1.0

    @property
    def transform(self) -> Array:
        """``A`` in ``b = A b_internal``."""
        return self.term.transform

    def loadings(self, basis: Array) -> Array:
        """``A B`` (s, r): the user's coefficients for those of a basis, rounding set to zero."""
        product = self.transform @ basis
        size = np.abs(self.transform) @ np.abs(basis)
        return np.where(np.abs(product) <= CANCELLED * size, 0.0, product)

    def to_internal(self, Sigma: Array, y_scale: float) -> Array:
        """Covariance (s, s) of the term for one in the user's units."""
        inverse = np.linalg.inv(self.transform) / y_scale
        return np.asarray(inverse @ Sigma @ inverse.T)

    def to_user(self, Sigma: Array, y_scale: float) -> Array:
        """Covariance (s, s) in the user's units."""
        transform = self.transform * y_scale
        full = transform @ Sigma @ transform.T
        return np.asarray(0.5 * (full + full.T))

    def error_to_user(self, error: Array, y_scale: float) -> Array:
        """Bound on the standard error of each entry of `to_user`, from those of the entries."""
        size = np.abs(self.transform) * y_scale
        return np.asarray(size @ error @ size.T)

    def effects(self, b: Array, y_scale: float, axes: Array | None) -> Array:
        """Random effects (L, s) in the user's units."""
        return np.asarray(b @ self.transform.T * y_scale)

    def without_rows(self) -> Component:
        """What is left to know once the Gram blocks are built."""
        return replace(self, codes=self.codes[:0].copy(), term=self.term.without_rows())


@dataclass(frozen=True)
class BlockComponent:
    """A feature block's part of the model: what `Component` is for a factor.

    Attributes
    ----------
    name : str
        Block.
    n_columns : int
        Number of columns.
    term : Block or None
        None where no column varies.
    center : ndarray of shape (p,)
        What is subtracted from the columns; their constant values where none varies.
    warnings : tuple of str
        What the user should know about the block.
    """

    name: str
    n_columns: int
    term: Block | None
    center: Array
    warnings: tuple[str, ...]
    coefficients: ClassVar[tuple[str, ...]] = ("column",)
    diagonal: ClassVar[bool] = False

    @property
    def start_share(self) -> float:
        """Internal variance that makes the block contribute a variance of 1."""
        return 1.0 / max(self.n_columns, 1)

    @property
    def transform(self) -> Array:
        """``A`` in ``b = A b_internal`` of the coefficients, (1, 1)."""
        assert self.term is not None
        return np.array([[1.0 / self.term.scale]])

    def loadings(self, basis: Array) -> Array:
        """``A B`` (1, r): the columns' common coefficient for that of a basis."""
        return np.asarray(self.transform @ basis)

    def to_internal(self, Sigma: Array, y_scale: float) -> Array:
        """Variance (1, 1) of the term for one in the user's units."""
        assert self.term is not None
        return np.asarray(Sigma * (self.term.scale / y_scale) ** 2)

    def to_user(self, Sigma: Array, y_scale: float) -> Array:
        """Variance in the user's units."""
        if self.term is None:
            return np.zeros((1, 1))
        return np.asarray(Sigma * (y_scale / self.term.scale) ** 2)

    def error_to_user(self, error: Array, y_scale: float) -> Array:
        """Standard error of `to_user`, from that of the term's variance."""
        return self.to_user(error, y_scale)

    def effects(self, b: Array, y_scale: float, axes: Array | None) -> Array:
        """Coefficients (p,) of the columns in the user's units."""
        if self.term is None:
            return np.zeros(self.n_columns)
        along_columns = b[:, 0] if axes is None else axes @ b[:, 0]
        return self.term.coefficients(along_columns) * y_scale

    def without_rows(self) -> BlockComponent:
        """What is left to know once the Gram blocks are built."""
        return replace(self, term=None if self.term is None else self.term.without_rows())


AnyComponent = Component | BlockComponent


def make_block_component(
    name: str, columns: Any, weights: Array, *, centered: bool, held: bool
) -> BlockComponent:
    """Build a block's term, and say so where none of its columns varies.

    Parameters
    ----------
    name : str
        Block.
    columns : ndarray or sparse array of shape (n, p)
        The user's columns.
    weights : ndarray of shape (n,)
        Row weights.
    centered : bool
        Whether the fixed part has an intercept.
    held : bool
        Whether its variance is given, so that nothing about it has to be identified.

    Returns
    -------
    BlockComponent
    """
    block = make_block(columns, weights, centered=centered)
    notes = []
    if block is None and not held:
        notes.append(
            f"No column of feature block {name!r} varies: its variance is not identified and is "
            "set to 0. Remove it from `feature_blocks`."
        )
    center = to_dense(columns[:1])[0] if block is None else block.center
    return BlockComponent(name, columns.shape[1], block, center, tuple(notes))


def make_component(
    name: str,
    coefficients: tuple[str, ...],
    codes: NDArray[np.integer[Any]],
    n_levels: int,
    slopes: Array,
    weights: Array,
    *,
    intercept: bool,
    diagonal: bool,
    held: bool,
    confounded: bool,
) -> Component:
    """Build a factor's term.

    Parameters
    ----------
    name : str
        Factor.
    coefficients : tuple of str
        "intercept" if it varies by level, then the slopes.
    codes : ndarray of shape (n,)
        Level of each row.
    n_levels : int
        Number of levels.
    slopes : ndarray of shape (n, s - intercept)
        Columns whose coefficient varies by level.
    weights : ndarray of shape (n,)
        Row weights.
    intercept : bool
        Whether the intercept varies by level.
    diagonal : bool
        Whether the covariance is restricted to its diagonal.
    held : bool
        Whether its covariance is given, so that nothing about it has to be identified.
    confounded : bool
        Whether the fixed part has an intercept, which a factor of one level repeats.

    Returns
    -------
    Component

    Raises
    ------
    ValueError
        For a factor with a single level beside an intercept.
    """
    if n_levels == 1 and confounded and not held:
        raise ValueError(
            f"Grouping factor {name!r} has a single level (n_samples={len(codes)}): its effect is "
            "confounded with the intercept. Remove it from `groups`."
        )
    notes = []
    if n_levels <= 2 and not held:
        notes.append(
            f"Grouping factor {name!r} has only {n_levels} level{'s' * (n_levels > 1)}: its "
            "variance is poorly determined. Consider a fixed effect instead."
        )
    term = make_term(codes, n_levels, slopes, weights, intercept=intercept, diagonal=diagonal)
    return Component(name, coefficients, codes, n_levels, diagonal, term, tuple(notes))


def require_distinct(components: Sequence[Component]) -> None:
    """Refuse two factors with the same levels: only the sum of their variances has a meaning."""
    for a, b in combinations(components, 2):
        if a.n_levels == b.n_levels and len(a.codes) == len(b.codes):
            pairs = np.unique(np.column_stack([a.codes, b.codes]), axis=0)
            if len(pairs) == a.n_levels:
                raise ValueError(
                    f"Grouping factors {a.name!r} and {b.name!r} have the same levels under other "
                    "names: their variances cannot be told apart. Remove one."
                )
