"""Structures of a covariance matrix: which entries are free, and how to move within them.

A structure of order ``s`` is linear here, ``Sigma = sum_i phi_i E_i`` with symmetric units ``E_i``,
which are its derivatives. Code outside of this module asks a structure; it does not ask which one
it is.

Of another one these are the methods to write. It also has to survive the units of the columns,
``A Sigma A'``, in which `design/terms.py` scales slopes apart; and angles of correlations in
`inference/coordinates.py` are for a covariance that is either diagonal or has all of them free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy import linalg

from .._arrays import Array
from .matrices import RANK_TOLERANCE, matrix_power


class Structure(Protocol):
    """What every structure answers about matrices of any order."""

    @property
    def correlates(self) -> bool:
        """Whether coefficients may correlate, so that their basis is a matter of choice."""
        ...

    def n_parameters(self, s: int) -> int:
        """Count the free entries of a covariance of order ``s``."""
        ...

    def units(self, s: int) -> Array:
        """Units ``E_i`` of shape (m, s, s), the lower triangle row by row."""
        ...

    def projected(self, matrix: Array) -> Array:
        """The symmetric matrix of the structure that is closest to one."""
        ...

    def principal(self, Sigma: Array) -> tuple[Array, Array]:
        """Variances along the directions that may have one alone, and these by column.

        Variances that are rounding are zero.
        """
        ...

    def factor_entries(self, r: int) -> list[tuple[int, int]]:
        """Entries (i, j) of a factor ``T`` in principal directions that keep ``TT'`` inside."""
        ...

    def geodesic(self, Sigma: Array, N: Array, vv: Array, power: int) -> Array:
        """``T M^power T'`` with ``Sigma = TT'`` and ``M (T'NT) M = T' vv T``."""
        ...

    def basis_without(self, basis: Array, taken: Array, metric: Array) -> Array:
        """Directions of a basis (s, r) without those taken (s, t), at right angles in a metric."""
        ...

    def random_directions(self, r: int, generator: np.random.RandomState) -> Array:
        """Draw directions (r, r) that may have a variance alone."""
        ...


@dataclass(frozen=True)
class Full:
    """Every entry is free."""

    correlates: ClassVar[bool] = True

    def n_parameters(self, s: int) -> int:
        """``s (s + 1) / 2``."""
        return s * (s + 1) // 2

    def units(self, s: int) -> Array:
        """``E_ab`` with ones at (a, b) and (b, a)."""
        return _units(s, [(a, b) for a in range(s) for b in range(a + 1)])

    def projected(self, matrix: Array) -> Array:
        """The matrix."""
        return matrix

    def principal(self, Sigma: Array) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors."""
        variances, vectors = np.linalg.eigh(Sigma)
        return _without_rounding(variances), vectors

    def factor_entries(self, r: int) -> list[tuple[int, int]]:
        """The lower triangle, column by column."""
        return [(i, j) for j in range(r) for i in range(j, r)]

    def geodesic(self, Sigma: Array, N: Array, vv: Array, power: int) -> Array:
        """On the range of ``Sigma``."""
        eigenvalues, vectors = np.linalg.eigh(Sigma)
        active = eigenvalues > 0
        T = vectors[:, active] * np.sqrt(eigenvalues[active])
        root = matrix_power(T.T @ N @ T, 0.5)
        inverse_root = matrix_power(T.T @ N @ T, -0.5)
        M = inverse_root @ matrix_power(root @ (T.T @ vv @ T) @ root, 0.5) @ inverse_root
        moved = T @ np.linalg.matrix_power(M, power) @ T.T
        return np.asarray(0.5 * (moved + moved.T))

    def basis_without(self, basis: Array, taken: Array, metric: Array) -> Array:
        """Those at right angles to the ones taken."""
        return np.asarray(basis @ linalg.null_space((metric @ taken).T @ (metric @ basis)))

    def random_directions(self, r: int, generator: np.random.RandomState) -> Array:
        """An orthonormal basis."""
        return np.asarray(np.linalg.qr(generator.normal(size=(r, r)))[0])


@dataclass(frozen=True)
class Diagonal:
    """Variances are free, coefficients do not correlate."""

    correlates: ClassVar[bool] = False

    def n_parameters(self, s: int) -> int:
        """``s``."""
        return s

    def units(self, s: int) -> Array:
        """``E_aa``."""
        return _units(s, [(a, a) for a in range(s)])

    def projected(self, matrix: Array) -> Array:
        """Its diagonal."""
        return np.diag(np.diag(matrix))

    def principal(self, Sigma: Array) -> tuple[Array, Array]:
        """The diagonal and the coordinates, in their own order."""
        return _without_rounding(np.diag(Sigma)), np.eye(len(Sigma))

    def factor_entries(self, r: int) -> list[tuple[int, int]]:
        """The diagonal."""
        return [(i, i) for i in range(r)]

    def geodesic(self, Sigma: Array, N: Array, vv: Array, power: int) -> Array:
        """Entry by entry."""
        ratio = np.divide(np.diag(vv), np.diag(N), out=np.zeros(len(N)), where=np.diag(N) > 0)
        return np.asarray(np.diag(np.diag(Sigma) * ratio ** (power / 2)))

    def basis_without(self, basis: Array, taken: Array, metric: Array) -> Array:
        """The coordinates that no direction taken has a part in."""
        return np.asarray(basis[:, ~np.any(basis.T @ taken != 0.0, axis=1)])

    def random_directions(self, r: int, generator: np.random.RandomState) -> Array:
        """The coordinates: nothing is random."""
        return np.eye(r)


FULL, DIAGONAL = Full(), Diagonal()


def principal_directions(
    structure: Structure, Sigma: Array, N: Array
) -> tuple[Array, Array, Array]:
    """Variances of a covariance along its principal directions, and their effective parameters.

    Parameters
    ----------
    structure : Structure
        Of the covariance.
    Sigma, N : ndarray of shape (s, s)
        A covariance, and the trace part of the deviance's gradient there.

    Returns
    -------
    variances : ndarray of shape (s,)
        Rounding set to zero.
    vectors : ndarray of shape (s, s)
        Directions by column.
    gamma : ndarray of shape (s,)
        ``variance * w'N w`` of each direction w.
    """
    variances, vectors = structure.principal(Sigma)
    return variances, vectors, variances * np.einsum("ai,ab,bi->i", vectors, N, vectors)


def _units(s: int, entries: list[tuple[int, int]]) -> Array:
    units = np.zeros((len(entries), s, s))
    for unit, (a, b) in zip(units, entries, strict=True):
        unit[a, b] = unit[b, a] = 1.0
    return units


def _without_rounding(variances: Array) -> Array:
    floor = RANK_TOLERANCE * max(float(np.max(variances, initial=0.0)), 0.0)
    return np.where(variances > floor, variances, 0.0)
