"""Variance components in the user's units and in the internal ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .blocks import Block, make_block
from .terms import Term, make_term, to_dense

Array = NDArray[np.float64]

RESIDUAL = "residual"
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


def read_covariance(covariance: Any, factors: Sequence[str]) -> dict[str, bool]:
    """Whether each factor's covariance is diagonal.

    Parameters
    ----------
    covariance : {"full", "diagonal"} or dict of factor to these
        The estimator's parameter.
    factors : sequence of str
        Names of the factors; those that a dict leaves out are "full".

    Returns
    -------
    dict of str to bool
    """
    given = covariance if isinstance(covariance, Mapping) else dict.fromkeys(factors, covariance)
    _check_names(given, factors, "covariance")
    kinds = [covariance] if not isinstance(covariance, Mapping) else list(given.values())
    for kind in kinds:
        if kind not in ("full", "diagonal"):
            raise ValueError(f"`covariance` must be 'full' or 'diagonal', got {kind!r}.")
    return {factor: given.get(factor, "full") == "diagonal" for factor in factors}


def read_variances(
    given: Any,
    coefficients: Mapping[str, tuple[str, ...]],
    diagonal: Mapping[str, bool],
    parameter: str,
) -> dict[str, Array]:
    """Covariance matrices of named components, the residual variance as a (1, 1) matrix.

    Parameters
    ----------
    given : dict or None
        ``{factor: variance or covariance matrix, "residual": variance}``; a sequence of variances
        stands for a diagonal matrix.
    coefficients : mapping of str to tuple of str
        Coefficients of each factor.
    diagonal : mapping of str to bool
        Whether a factor's covariance is restricted to its diagonal.
    parameter : str
        Which parameter is read, for messages.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        For an unknown name, a wrong shape, or a matrix that is no covariance.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"`{parameter}` must be a dict of component to variance, got {given!r}.")
    _check_names(given, [*coefficients, RESIDUAL], parameter)
    matrices = {}
    for name, value in given.items():
        s = 1 if name == RESIDUAL else len(coefficients[name])
        try:
            matrix = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{parameter}[{name!r}]` must be a variance or a matrix, got {value!r}."
            ) from error
        if matrix.ndim < 2 and matrix.size == s:
            matrix = np.diag(np.atleast_1d(matrix))
        if matrix.shape != (s, s):
            raise ValueError(
                f"`{parameter}[{name!r}]` has shape {matrix.shape}, but the component has "
                f"{s} coefficient{'s' * (s > 1)}."
            )
        _check_covariance(matrix, f"`{parameter}[{name!r}]`")
        if diagonal.get(name, False) and np.any(matrix != np.diag(np.diag(matrix))):
            raise ValueError(
                f"`{parameter}[{name!r}]` has covariances, but covariance='diagonal' asks for none."
            )
        if name == RESIDUAL and matrix[0, 0] <= 0:
            raise ValueError(f"`{parameter}['residual']` must be positive, got {value!r}.")
        matrices[name] = matrix
    return matrices


def _check_names(given: Mapping[str, Any], known: Sequence[str], parameter: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"`{parameter}` names {unknown[0]!r}, which is no component of the model: "
            f"{', '.join(map(repr, known))}."
        )


def _check_covariance(matrix: Array, where: str) -> None:
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{where} must be finite.")
    size = np.max(np.abs(matrix))
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-12 * size):
        raise ValueError(f"{where} must be symmetric.")
    if np.linalg.eigvalsh(matrix)[0] < -1e-12 * size:
        raise ValueError(f"{where} must be positive semi-definite, a variance cannot be negative.")
