"""Internal coordinates of columns and responses that are known by sums of products about a pivot.

Rows end in sums of products of ``G = [1, ([X y] - shift) turn]``, `Coordinates`. About the mean of
some rows such sums lose nothing of columns far from zero. Of columns that are nearly combinations
of others, and of a response that the fixed part nearly explains, they lose digits: the smallest
share of a sum of squares that is left tells how many. Then the rows are to be looked at again, in
coordinates in which these are residuals, `sharper`: CholeskyQR2 of Yamamoto, Nakatsukasa,
Yanagisawa, Fukaya (2015), Electronic Transactions on Numerical Analysis 44.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from .._arrays import Array, largest_entry
from ..covariances.structures import Structure
from .fixed import COLLINEAR, FixedPart, by_position
from .response import Output, is_rounding
from .terms import CONSTANT, FactorRows, is_centered

CLOSE = 1e-4  # share of a sum of squares below which fewer than twelve digits of it are left
DEPENDENT = 1e-10  # the same, where it may be rounding
RANGE = 1e130  # largest entry whose square, and that of its last digit, are numbers
FAR = 1e3  # standard deviations from zero: squares lose six digits of them
PIVOT_ROWS = 2**16  # whose mean is the pivot


class Coordinates(NamedTuple):
    """What sums are taken of: ``[1, ([X y] - shift) turn]``, and ``[1, slopes - shift]`` by level.

    Attributes
    ----------
    shift : ndarray of shape (p + t,)
        What is subtracted from fixed columns and responses.
    turn : ndarray of shape (p + t, p + t) or None
        What they are multiplied by then, None for nothing.
    of_slopes : tuple of ndarray of shape (s_k - 1,)
        What is subtracted from the slopes of each factor.
    """

    shift: Array
    turn: Array | None
    of_slopes: tuple[Array, ...]


def first_coordinates(
    X: Array, y: Array, factors: Sequence[FactorRows], weights: Array
) -> Coordinates:
    """The mean of some rows as a pivot, of a constant column its value.

    Parameters
    ----------
    X : ndarray of shape (n, p)
        Fixed columns.
    y : ndarray of shape (n, t)
        Responses.
    factors : sequence of FactorRows
        Levels and slopes.
    weights : ndarray of shape (n,)
        Row weights.

    Returns
    -------
    Coordinates
    """

    def center(columns: Array) -> Array:
        piece = columns[:PIVOT_ROWS]
        unit = largest_entry(piece)
        unit = np.where(unit > 0, unit, 1.0)
        mean = unit * np.average(piece / unit, axis=0, weights=weights[:PIVOT_ROWS])
        return np.where(np.min(piece, axis=0) == np.max(piece, axis=0), piece[0], mean)

    def of_slopes(factor: FactorRows) -> Array:
        sd = np.std(factor.slopes[:PIVOT_ROWS], axis=0)
        is_moved = is_centered(factor.intercept, factor.structure)
        return slope_pivot(center(factor.slopes), sd, is_centered=is_moved)

    shift = np.concatenate([center(X), center(y)])
    return Coordinates(shift, None, tuple(of_slopes(factor) for factor in factors))


def slope_pivot(mean: Array, sd: Array, *, is_centered: bool) -> Array:
    """What is subtracted from slopes.

    Those that a fit does not centre stay as they are unless they are far from zero: what is zero in
    a level is then no rounding there.
    """
    return mean if is_centered else np.where(np.abs(mean) > FAR * sd, mean, 0.0)


class Moments(NamedTuple):
    """Weighted mean and standard deviation of fixed columns and responses, and ``max |x|``."""

    mean: Array
    sd: Array
    largest: Array


class LaidOut(NamedTuple):
    """Fixed columns and responses in internal coordinates.

    Attributes
    ----------
    M : ndarray of shape (1 + p + t, r + t)
        Internal columns, of those that sums were taken of.
    fixed : FixedPart
        The way to the user's coefficients.
    outputs : tuple of Output
        Responses in the user's units.
    shares : ndarray of shape (p + t,)
        Share of its sum of squares that is left of each column, then of each response.
    """

    M: Array
    fixed: FixedPart
    outputs: tuple[Output, ...]
    shares: Array


def moments(products: Array, shift: Array, largest: Array) -> Moments:
    """Moments of columns whose products (1 + p + t, 1 + p + t) were taken without a turn."""
    mean = products[0, 1:] / products[0, 0]
    variance = np.maximum(np.diag(products)[1:] / products[0, 0] - mean**2, 0.0)
    return Moments(shift + mean, np.sqrt(variance), largest)


@dataclass(frozen=True)
class FixedSums:
    """Sums of products of fixed columns and responses.

    Attributes
    ----------
    products : ndarray of shape (1 + p + t, 1 + p + t)
        Weighted, of the columns in `coordinates`.
    coordinates : Coordinates
        Which they are.
    moments : Moments
        Of the user's columns and responses.
    n_outputs : int
        ``t``.
    """

    products: Array
    coordinates: Coordinates
    moments: Moments
    n_outputs: int

    @property
    def p(self) -> int:
        """Number of fixed columns."""
        return len(self.products) - 1 - self.n_outputs

    @property
    def turn(self) -> Array:
        """What shifted columns are multiplied by."""
        given = self.coordinates.turn
        return np.eye(len(self.products) - 1) if given is None else given

    @property
    def limit(self) -> float:
        """Relative square that may be rounding, in coordinates that were not made for it."""
        return DEPENDENT if self.coordinates.turn is None else COLLINEAR**2

    def about(self, *, fit_intercept: bool) -> Array:
        """What is added to the columns to centre them, or to undo the shift."""
        if fit_intercept:
            return np.asarray(-self.products[0, 1:] / self.products[0, 0])
        return np.asarray(self.coordinates.shift @ self.turn)

    def covariance(self, about: Array) -> Array:
        """Mean products of the columns with `about` added."""
        means = self.products / self.products[0, 0]
        cross = np.outer(means[0, 1:], about)
        return np.asarray(means[1:, 1:] + cross + cross.T + np.outer(about, about))

    def size(self, *, fit_intercept: bool) -> Array:
        """Root mean square (p + t,) of the user's columns, centred if so; 0.0 of a constant."""
        mean, sd, largest = self.moments
        return np.where(sd > CONSTANT * largest, sd, 0.0) if fit_intercept else np.hypot(mean, sd)

    def shares(self, left: Array, covariance: Array, of: slice) -> Array:
        """Shares that are left of the sums as they were taken; 1.0 of columns of zeros."""
        taken = np.diag(self.products)[1:] / self.products[0, 0]
        return _share(left, np.maximum(taken, np.diag(covariance))[of])


def in_range(largest: Array) -> NDArray[np.bool_]:
    """Whether squares of such columns, and of their last digits, are numbers."""
    return np.asarray((largest == 0) | ((largest > 1.0 / RANGE) & (largest < RANGE)))


def _share(left: Array, size: Array) -> Array:
    return np.where(size > 0, left / np.where(size > 0, size, 1.0), 1.0)


class _Pivoted(NamedTuple):
    """Pivoted Cholesky factor ``R`` (rank, p) of columns divided by `unit`.

    Columns ``pivots`` (p,) are in their order, the independent ones first.
    """

    R: Array
    pivots: NDArray[np.intp]
    unit: Array

    @property
    def kept(self) -> NDArray[np.intp]:
        """Independent columns."""
        return self.pivots[: len(self.R)]

    @property
    def inverse(self) -> Array:
        """Of ``R`` of the independent columns."""
        r = len(self.R)
        return linalg.solve_triangular(self.R[:, :r], np.eye(r)) if r else np.zeros((0, 0))


def _pivoted(covariance: Array, size: Array, limit: float) -> _Pivoted:
    """Pivoted Cholesky; columns that others leave less than a limit of their square depend."""
    unit = by_position(np.where(size > 0, size, 1.0))
    scaled = covariance / np.outer(unit, unit)
    # LAPACK takes the first pivot however small it is.
    nothing = (size == 0) | (np.diag(scaled) <= limit)
    scaled[nothing] = scaled[:, nothing] = 0.0
    if not len(scaled):
        return _Pivoted(scaled, np.arange(0), unit)
    R, pivots, rank, _ = linalg.lapack.dpstrf(scaled, tol=limit)
    return _Pivoted(np.triu(R)[:rank], (pivots - 1).astype(np.intp), unit)


def lay_out_sums(sums: FixedSums, *, alpha: float, fit_intercept: bool) -> LaidOut:
    """Find the internal coordinates that `build_fixed_part`, `regress` and `make_response` find.

    Parameters
    ----------
    sums : FixedSums
        Of fixed columns and responses.
    alpha : float
        Ridge penalty; with one the columns are scaled only.
    fit_intercept : bool
        Whether there is an intercept.

    Returns
    -------
    LaidOut
    """
    p, of_X, of_y = sums.p, slice(0, sums.p), slice(sums.p, None)
    about = sums.about(fit_intercept=fit_intercept)
    covariance = sums.covariance(about)
    size = sums.size(fit_intercept=fit_intercept)[of_X]
    basis, kept, condition, shares = _basis(sums, covariance, size, alpha=alpha)
    to_user = sums.turn[of_X, of_X] @ basis
    on_basis = basis.T @ covariance[of_X, of_y] * (alpha == 0)
    residual = np.vstack([-basis @ on_basis, np.eye(sums.n_outputs)])
    left = np.maximum(np.einsum("it,ij,jt->t", residual, covariance, residual), 0.0)
    shares = np.append(shares, sums.shares(left, covariance, of_y))
    scale = np.sqrt(left)
    is_explained = is_rounding(scale, sums.moments.sd[of_y], sums.moments.largest[of_y])
    scale = np.where(is_explained, 1.0, scale)
    reduced = np.where(is_explained, 0.0, residual / scale)
    intercept = np.eye(1 + p)[:, : int(fit_intercept)]
    to_one = (about[of_X] @ basis - sums.coordinates.shift[of_X] @ to_user) * fit_intercept
    fixed = FixedPart(
        penalty=np.append(alpha * np.sum(to_user**2, axis=0), np.zeros(int(fit_intercept))),
        to_coefficients=np.column_stack([np.vstack([to_one, to_user]), intercept]),
        has_intercept=fit_intercept,
        log_det_basis=0.0 if alpha > 0 else _log_det(to_user[kept]),
        dropped=np.setdiff1d(np.arange(p), kept),
        condition=condition,
    )
    M = np.block(
        [
            [about[of_X] @ basis, np.ones(int(fit_intercept)), about @ reduced],
            [basis, np.zeros((p, int(fit_intercept))), reduced[of_X]],
            [np.zeros((sums.n_outputs, basis.shape[1] + fit_intercept)), reduced[of_y]],
        ]
    )
    offset = _offset(sums, about, basis[kept], kept, on_basis)[: len(fixed.penalty)]
    mean, sd, _ = sums.moments
    outputs = tuple(
        Output(
            offset[:, j],
            float(scale[j]),
            bool(is_explained[j]),
            float(mean[p + j]),
            float(sd[p + j]),
        )
        for j in range(sums.n_outputs)
    )
    return LaidOut(M, fixed, outputs, shares)


def _basis(
    sums: FixedSums, covariance: Array, size: Array, *, alpha: float
) -> tuple[Array, NDArray[np.intp], float, Array]:
    """Basis (p, r), columns kept, their condition, and the share that is left of each."""
    p, of_X = sums.p, slice(0, sums.p)
    square = np.diag(covariance)[of_X]
    if alpha > 0:
        shares = sums.shares(square, covariance, of_X)
        return np.diag(1.0 / np.where(size > 0, size, 1.0)), np.arange(p), 1.0, shares
    found = _pivoted(covariance[of_X, of_X], size, sums.limit)
    pivot, unit = np.diag(found.R), found.unit[found.kept]
    basis, left = np.zeros((p, len(pivot))), np.zeros(p)
    basis[found.kept] = found.inverse / unit[:, None]
    left[found.kept] = (pivot * unit) ** 2
    shares = sums.shares(left, covariance, of_X)
    # What these coordinates show to be rounding has been decided on.
    decided = COLLINEAR**2 if sums.coordinates.turn is not None else 0.0
    shares[square <= decided * size**2] = 1.0
    condition = float(np.max(pivot) / np.min(pivot)) if len(pivot) else 1.0
    return basis, np.sort(found.kept), condition, shares


def _log_det(basis: Array) -> float:
    return float(np.linalg.slogdet(basis)[1]) if len(basis) else 0.0


def _offset(
    sums: FixedSums, about: Array, basis: Array, kept: NDArray[np.intp], on_basis: Array
) -> Array:
    """Internal coefficients (r + 1, t) of what is taken out of y, the intercept last."""
    p, shift = sums.p, sums.coordinates.shift
    taken = np.linalg.solve(sums.turn[:p, :p], sums.turn[:p, p:])
    constant = shift[p:] - about[p:] + about[:p] @ taken
    return np.vstack([on_basis - np.linalg.solve(basis, taken[kept]), constant])


def sharper(sums: FixedSums, *, alpha: float, fit_intercept: bool) -> Coordinates:
    """Coordinates in which columns and responses are residuals of those before them.

    Parameters
    ----------
    sums : FixedSums
        In coordinates that leave too small a share of one.
    alpha : float
        Ridge penalty; with one the columns stay the user's, about their means.
    fit_intercept : bool
        Whether there is an intercept.

    Returns
    -------
    Coordinates
        With the slopes' shifts as they are.
    """
    p, covariance = sums.p, sums.covariance(sums.about(fit_intercept=fit_intercept))
    size = sums.size(fit_intercept=fit_intercept)
    shift = sums.moments.mean if fit_intercept else np.zeros(len(size))
    if alpha > 0:
        return Coordinates(shift, None, sums.coordinates.of_slopes)
    found = _pivoted(covariance[:p, :p], size[:p], sums.limit)
    strong, inverse = found.kept, found.inverse
    weak = np.setdiff1d(np.arange(len(size)), strong)
    step = np.eye(len(size))
    unit = found.unit[strong]
    on_strong = covariance[np.ix_(strong, weak)] / unit[:, None]
    step[np.ix_(strong, weak)] = -(inverse @ (inverse.T @ on_strong)) / unit[:, None]
    residuals = inverse * np.diag(found.R)
    step[np.ix_(strong, strong)] = residuals / unit[:, None] * unit
    return Coordinates(shift, sums.turn @ step, sums.coordinates.of_slopes)


def lay_out_slopes(
    products: Array, shift: Array, largest: Array, *, intercept: bool, structure: Structure
) -> tuple[Array, Array, Array]:
    """Find the coefficients' internal coordinates that `make_term` finds.

    Parameters
    ----------
    products : ndarray of shape (1 + m, 1 + m)
        Of ones and the shifted slopes, all levels together.
    shift : ndarray of shape (m,)
        What was subtracted from the slopes.
    largest : ndarray of shape (m,)
        ``max |slope|``.
    intercept : bool
        Whether the intercept varies by level.
    structure : Structure
        Of the covariance.

    Returns
    -------
    A : ndarray of shape (1 + m, s)
        Internal columns, of those that sums were taken of.
    transform : ndarray of shape (s, s)
        ``A`` in ``b = A b_internal``.
    shares : ndarray of shape (m,)
        Share of its sum of squares that is left of each slope.
    """
    mean = products[0, 1:] / products[0, 0]
    taken = np.diag(products)[1:] / products[0, 0]
    about = -mean if is_centered(intercept, structure) else shift
    square = np.maximum(taken + 2.0 * mean * about + about**2, 0.0)
    shares = _share(square, np.maximum(taken, square))
    varies = np.sqrt(square) > CONSTANT * largest
    scale = np.where(varies, np.sqrt(square), 1.0)
    A = np.block(
        [
            [np.ones((1, 1)), varies * about / scale],
            [np.zeros((len(shift), 1)), np.diag(varies / scale)],
        ]
    )
    transform = np.diag(np.append(1.0, 1.0 / scale))
    transform[0, 1:] = (about - shift) / scale
    coefficients = slice(0 if intercept else 1, None)
    return A[:, coefficients], transform[coefficients, coefficients], shares
