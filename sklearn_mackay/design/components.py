"""Components of the model in the user's units: grouping factors and feature blocks, without rows.

A component knows its names, its units and the way from the term's coordinates to the user's. What
the code asks of one is the protocol `Component`; nobody asks which kind it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .._arrays import Array, Matrix
from .._messages import Message
from ..covariances.structures import FULL, Structure
from ..frames.options import OF_BLOCK
from .terms import level_columns

CANCELLED = 1e-12  # of its summands: a sum below it is rounding


class LevelRows(NamedTuple):
    """Level of each row, negative for one not known, and the columns (s, n) of its coefficients."""

    codes: NDArray[np.integer[Any]]
    columns: Array


Part: TypeAlias = (
    LevelRows | Array
)  # of new rows: levels and slopes of a factor, columns (n, p) of a block


class Component(Protocol):
    """What every kind of component answers."""

    @property
    def name(self) -> str:
        """Grouping factor or feature block."""
        ...

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Those that share a covariance, as the user knows them."""
        ...

    @property
    def structure(self) -> Structure:
        """Of its covariance."""
        ...

    @property
    def start_share(self) -> float:
        """Internal variance that makes the component contribute a variance of 1."""
        ...

    @property
    def has_term(self) -> bool:
        """Whether the rows say anything about its effects."""
        ...

    @property
    def is_feature(self) -> bool:
        """Whether its effects are coefficients of features, and not effects of levels."""
        ...

    @property
    def center(self) -> Array:
        """What is subtracted from its features (p,); empty for a factor."""
        ...

    @property
    def transform(self) -> Array:
        """``A`` (s, s) in ``b = A b_internal``."""
        ...

    def loadings(self, basis: Array) -> Array:
        """``A B`` (s, r): the user's coefficients for those of a basis."""
        ...

    def beside(self, basis: Array) -> Component:
        """The component without a trace of directions beside a basis, not even of rounding."""
        ...

    def to_internal(self, Sigma: Array, y_scale: float) -> Array:
        """Covariance (s, s) of the term for one in the user's units."""
        ...

    def to_user(self, Sigma: Array, y_scale: float) -> Array:
        """Covariance (s, s) in the user's units."""
        ...

    def error_to_user(self, error: Array, y_scale: float) -> Array:
        """Bound on the standard error of each entry of `to_user`, from those of the entries."""
        ...

    def effects(self, b: Array, y_scale: float) -> Array:
        """Effects in the user's units, of a factor's levels (L, s) or a block's columns (p,)."""
        ...

    def parameters(self, basis: Array) -> list[tuple[str, tuple[int, ...]]]:
        """Names of its standard deviations and correlations, and their coefficients."""
        ...

    def new_rows(
        self, part: Part | None, n: int, Sigma: Array, loadings: Array | None
    ) -> tuple[Matrix, Array]:
        """Rows (n, q) of the term's ``Z``, and the variance (n,) of what no data inform."""
        ...

    def draw_beyond(
        self,
        part: Part,
        root: Array,
        loadings: Array | None,
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw the sums (n, n_samples) of the effects that no data inform."""
        ...

    def variance_beyond(self, Sigma: Array, loadings: Array | None) -> Array:
        """Variance of each effect that no data inform."""
        ...

    def is_residual_twin(self) -> Message:
        """Say that its variance cannot be told from the residual variance."""
        ...


@dataclass(frozen=True)
class Factor:
    """A grouping factor.

    Attributes
    ----------
    name : str
        Factor.
    coefficients : tuple of str
        "intercept" and slopes, as the user knows them.
    n_levels : int
        Number of levels.
    structure : Structure
        Of the covariance.
    transform : ndarray of shape (s, s)
        ``A`` in ``b = A b_internal``.
    """

    name: str
    coefficients: tuple[str, ...]
    n_levels: int
    structure: Structure
    transform: Array
    start_share: ClassVar[float] = 1.0
    has_term: ClassVar[bool] = True
    is_feature: ClassVar[bool] = False
    center: ClassVar[Array] = np.zeros(0)

    def loadings(self, basis: Array) -> Array:
        """``A B`` (s, r), rounding set to zero."""
        product = self.transform @ basis
        size = np.abs(self.transform) @ np.abs(basis)
        return np.where(np.abs(product) <= CANCELLED * size, 0.0, product)

    def beside(self, basis: Array) -> Factor:
        """The factor without a trace of directions beside a basis."""
        if len(basis) == basis.shape[1]:
            return self
        return replace(self, transform=self.loadings(basis) @ basis.T)

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

    def effects(self, b: Array, y_scale: float) -> Array:
        """Random effects (L, s) in the user's units."""
        return np.asarray(b @ self.transform.T * y_scale)

    def parameters(self, basis: Array) -> list[tuple[str, tuple[int, ...]]]:
        """A standard deviation for each coefficient that varies, a correlation for each pair."""
        labels = self.coefficients
        varying = np.flatnonzero(np.any(self.loadings(basis) != 0.0, axis=1)).tolist()
        found: list[tuple[str, tuple[int, ...]]] = [
            (f"sd({self.name}: {labels[a]})", (a,)) for a in varying
        ]
        if self.structure.correlates:
            found += [
                (f"cor({self.name}: {labels[a]}, {labels[b]})", (a, b))
                for a, b in combinations(varying, 2)
            ]
        return found

    def new_rows(
        self, part: Part | None, n: int, Sigma: Array, loadings: Array | None
    ) -> tuple[Matrix, Array]:
        """Rows of ``Z``; an unknown level has its whole variance."""
        if part is None:
            return sparse.csr_array((n, self.n_levels * len(self.coefficients))), np.zeros(n)
        codes, columns = part
        columns = self._internal(columns)
        prior = np.einsum("an,ab,bn->n", columns, Sigma, columns)
        return level_columns(codes, columns, self.n_levels), prior * (codes < 0)

    def draw_beyond(
        self,
        part: Part,
        root: Array,
        loadings: Array | None,
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw effects of unknown levels, one for each negative code."""
        codes, columns = part
        _, unknown = np.unique(np.minimum(codes, 0), return_inverse=True)
        z = random_state.standard_normal((unknown.max(initial=0) + 1, len(root), n_samples))
        columns = self._internal(columns) * (codes < 0)
        return np.asarray(np.einsum("an,nas->ns", root @ columns, z[unknown]))

    def variance_beyond(self, Sigma: Array, loadings: Array | None) -> Array:
        """None: each level has been seen."""
        return np.zeros(self.n_levels * len(self.coefficients))

    def _internal(self, columns: Array) -> Array:
        """What multiplies the term's coefficients where `columns` multiply the user's."""
        return np.asarray(self.transform.T @ columns)

    def is_residual_twin(self) -> Message:
        """Say so, and what to do."""
        return Message(
            f"Grouping factor {self.name!r} has as many levels as rows: its variance cannot be "
            "told from the residual variance and is set to 0. Remove it from `groups`."
        )


@dataclass(frozen=True)
class FeatureBlock:
    """Features whose coefficients share one variance.

    Attributes
    ----------
    name : str
        Block.
    center : ndarray of shape (p,)
        What is subtracted from the columns.
    scale : float
        What they are divided by, the same for all.
    """

    name: str
    center: Array
    scale: float
    coefficients: ClassVar[tuple[str, ...]] = OF_BLOCK
    structure: ClassVar[Structure] = FULL
    has_term: ClassVar[bool] = True
    is_feature: ClassVar[bool] = True

    @property
    def n_columns(self) -> int:
        """``p``."""
        return len(self.center)

    @property
    def start_share(self) -> float:
        """Of each coefficient, so that all together contribute a variance of 1."""
        return 1.0 / self.n_columns

    @property
    def transform(self) -> Array:
        """``A`` in ``b = A b_internal`` of each coefficient, (1, 1)."""
        return np.array([[1.0 / self.scale]])

    def loadings(self, basis: Array) -> Array:
        """``A B`` (1, r): the columns' common coefficient for that of a basis."""
        return np.asarray(self.transform @ basis)

    def beside(self, basis: Array) -> FeatureBlock:
        """The block: with one coefficient there is nothing beside."""
        return self

    def to_internal(self, Sigma: Array, y_scale: float) -> Array:
        """Variance (1, 1) of the term for one in the user's units."""
        return np.asarray(Sigma * (self.scale / y_scale) ** 2)

    def to_user(self, Sigma: Array, y_scale: float) -> Array:
        """Variance (1, 1) in the user's units."""
        return np.asarray(Sigma * (y_scale / self.scale) ** 2)

    def error_to_user(self, error: Array, y_scale: float) -> Array:
        """Standard error of `to_user`, from that of the term's variance."""
        return self.to_user(error, y_scale)

    def effects(self, b: Array, y_scale: float) -> Array:
        """Coefficients (p,) of the columns in the user's units."""
        return np.asarray(b * y_scale)

    def parameters(self, basis: Array) -> list[tuple[str, tuple[int, ...]]]:
        """The standard deviation of the coefficients, where it is not held at zero."""
        return [(f"sd({self.name})", (0,))] * basis.shape[1]

    def new_rows(
        self, part: Part | None, n: int, Sigma: Array, loadings: Array | None
    ) -> tuple[Matrix, Array]:
        """Rows along the axes, which span what the training rows span; beyond is the prior."""
        assert loadings is not None
        if part is None:
            return sparse.csr_array((n, loadings.shape[1])), np.zeros(n)
        centered = np.asarray(part) - self.center
        Z = centered @ loadings
        beyond = np.sum((centered / self.scale) ** 2, axis=1) - np.sum(Z**2, axis=1)
        return sparse.csr_array(Z), Sigma[0, 0] * np.maximum(beyond, 0.0)

    def draw_beyond(
        self,
        part: Part,
        root: Array,
        loadings: Array | None,
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw coefficients at right angles to the axes."""
        assert loadings is not None
        unit = loadings * self.scale
        z = random_state.standard_normal((len(unit), n_samples)) * root
        beyond = z - unit @ (unit.T @ z)
        return np.asarray((np.asarray(part) - self.center) @ beyond / self.scale)

    def variance_beyond(self, Sigma: Array, loadings: Array | None) -> Array:
        """Variance of each coefficient at right angles to the axes."""
        assert loadings is not None
        beyond = (1.0 / self.scale) ** 2 - np.sum(loadings**2, axis=1)
        return np.asarray(Sigma[0, 0] * np.maximum(beyond, 0.0))

    def is_residual_twin(self) -> Message:
        """Say so, and what to do."""
        return Message(
            f"The columns of feature block {self.name!r} are orthogonal and as many as the "
            "rows: its variance cannot be told from the residual variance and is set to "
            "0. Remove it from `feature_blocks`."
        )


@dataclass(frozen=True)
class ConstantBlock:
    """Features none of which varies: the data say nothing about their coefficients.

    Attributes
    ----------
    name : str
        Block.
    center : ndarray of shape (p,)
        The constant values.
    """

    name: str
    center: Array
    coefficients: ClassVar[tuple[str, ...]] = OF_BLOCK
    structure: ClassVar[Structure] = FULL
    start_share: ClassVar[float] = 0.0
    has_term: ClassVar[bool] = False
    is_feature: ClassVar[bool] = True
    transform: ClassVar[Array] = np.eye(1)

    def loadings(self, basis: Array) -> Array:
        """The basis."""
        return basis

    def beside(self, basis: Array) -> ConstantBlock:
        """The block."""
        return self

    def to_internal(self, Sigma: Array, y_scale: float) -> Array:
        """Variance (1, 1) in units of y."""
        return np.asarray(Sigma / y_scale**2)

    def to_user(self, Sigma: Array, y_scale: float) -> Array:
        """Variance (1, 1) in the user's units."""
        return np.asarray(Sigma * y_scale**2)

    def error_to_user(self, error: Array, y_scale: float) -> Array:
        """Standard error of `to_user`."""
        return self.to_user(error, y_scale)

    def effects(self, b: Array, y_scale: float) -> Array:
        """Coefficients (p,) in the user's units."""
        return np.asarray(b * y_scale)

    def parameters(self, basis: Array) -> list[tuple[str, tuple[int, ...]]]:
        """None."""
        return []

    def new_rows(
        self, part: Part | None, n: int, Sigma: Array, loadings: Array | None
    ) -> tuple[Matrix, Array]:
        """No columns; what differs from the constants has the prior's variance."""
        nothing = sparse.csr_array((n, 0))
        if part is None:
            return nothing, np.zeros(n)
        return nothing, Sigma[0, 0] * np.sum((np.asarray(part) - self.center) ** 2, axis=1)

    def draw_beyond(
        self,
        part: Part,
        root: Array,
        loadings: Array | None,
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw all coefficients."""
        z = random_state.standard_normal((len(self.center), n_samples)) * root
        return np.asarray((np.asarray(part) - self.center) @ z)

    def variance_beyond(self, Sigma: Array, loadings: Array | None) -> Array:
        """All of it."""
        return np.full(len(self.center), Sigma[0, 0])

    def is_residual_twin(self) -> Message:
        """Nothing that a fit could find."""
        raise NotImplementedError


def check_levels(name: str, n_levels: int, n_rows: int, *, fit_intercept: bool) -> list[Message]:
    """Refuse a factor of one level beside an intercept, say that two are few.

    Raises
    ------
    ValueError
        For a single level, whose effect repeats the intercept.
    """
    if n_levels == 1 and fit_intercept:
        raise ValueError(
            f"Grouping factor {name!r} has a single level (n_samples={n_rows}): its effect "
            "is confounded with the intercept. Remove it from `groups`."
        )
    if n_levels > 2:
        return []
    return [
        Message(
            f"Grouping factor {name!r} has only {n_levels} level{'s' * (n_levels > 1)}: its "
            "variance is poorly determined. Consider a fixed effect instead."
        )
    ]


def refuse_twins(a: str, b: str) -> NoReturn:
    """Refuse two factors with the same levels: only the sum of their variances has a meaning."""
    raise ValueError(
        f"Grouping factors {a!r} and {b!r} have the same levels under other "
        "names: their variances cannot be told apart. Remove one."
    )


def note_constant(block: ConstantBlock) -> Message:
    """Say that a block has no variance to be estimated."""
    return Message(
        f"No column of feature block {block.name!r} varies: its variance is not identified and is "
        "set to 0. Remove it from `feature_blocks`."
    )
