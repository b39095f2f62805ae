"""What the rows can tell of the variances, whatever the response.

A direction ``(E_1, ..., E_K, d)`` of ``(Sigma_1, ..., Sigma_K, sigma2)`` along which
``V = sum_k Z_k (I (x) Sigma_k) Z_k' + sigma2 W^-1`` does not change is flat: no response tells
where on it the variances are. That is equation (26) of docs/theory.md. Three tests, each on Gram
blocks:

- coefficients ``w`` that no row sees, ``Z_kj w = 0`` in every level ``j``;
- coefficients of which the fixed part leaves nothing, ``P Z_kj w = 0`` in every level;
- directions that are flat though rows see every coefficient: within a term
  ``Z_kj E Z_kj' + d W_j^-1 = 0`` in every level, the rank of what each level says, and between
  terms the null space of the inner products of all ``Z_k (I (x) E) Z_k'``.

A covariance is a subspace of its coefficients' covariances in the first two, so that it is held at
zero there. Flat directions of the third kind are no subspace. Of a diagonal covariance a variance
is held at zero where that loses nothing: where all others can make up for it. The rest stays free,
and is not counted as a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize

from .._arrays import Array
from ..covariances.structures import Structure
from ..gram.crossproducts import CrossProducts, TermGram

UNSEEN = 1e-10  # share of a sum of squares below which it is rounding
RANK = 1e-13  # eigenvalue of one level's Gram block, relative to the largest, that is rounding
FLAT = 1e-6  # singular value of what levels say, in unit columns, that says nothing
CLEAR = 1e-6  # least eigenvalue of inner products in unit diagonal that leaves no doubt: FLAT^(1/2)
FLAT_TOGETHER = 1e-10  # the same that says nothing; a square, so coarser than FLAT
PARTICIPATES = 1e-3  # share of a flat direction's length that makes a term part of it


@dataclass(frozen=True)
class Identification:
    """Which directions of the variances may move, and what is wrong with the others.

    Coefficients are the term's own, of unit mean square.

    Attributes
    ----------
    bases : tuple of ndarray of shape (s_k, r_k)
        Orthonormal basis of the directions in which each covariance may have variance.
    unseen, taken_up : tuple of ndarray of shape (s_k, t_k)
        Combinations of each term's coefficients that no row sees, and of which the fixed part
        leaves nothing; by column.
    held : tuple of ndarray of shape (s_k, h_k)
        Combinations of each term's coefficients whose variance is held at zero, since the other
        variances, or the residual's, make up for it.
    with_residual : tuple of bool
        Whether a flat direction of a term is one with the residual variance.
    n_flat_within : tuple of int
        Flat directions of each term, with the residual, that stay free.
    n_flat : int
        Flat directions of all terms together that stay free.
    together : tuple of int
        Terms which have a flat direction in common.
    """

    bases: tuple[Array, ...]
    unseen: tuple[Array, ...]
    taken_up: tuple[Array, ...]
    held: tuple[Array, ...]
    with_residual: tuple[bool, ...]
    n_flat_within: tuple[int, ...]
    n_flat: int
    together: tuple[int, ...]


def identify(
    crossproducts: CrossProducts,
    transforms: Sequence[Array],
    *,
    free: Sequence[bool],
    residual: bool,
    reml: bool,
) -> Identification:
    """Find what the rows cannot tell of the variances.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks; the response has no part in it.
    transforms : sequence of ndarray of shape (s_k, s_k)
        Each term's coefficients in the user's units: what the fixed part takes up is set to zero
        there.
    free : sequence of bool
        Whether each covariance is estimated; of one that is given nothing has to be identified.
    residual : bool
        Whether sigma2 is estimated.
    reml : bool
        Whether the fixed part is integrated out, so that what it takes up has no likelihood.

    Returns
    -------
    Identification
    """
    terms = crossproducts.terms
    p = len(crossproducts.penalty)
    unpenalized = slice(p - crossproducts.n_unpenalized, p)
    # Of a fixed part that fits every row there is nothing to say.
    is_integrated = reml and crossproducts.n > crossproducts.n_unpenalized
    inverse = np.asarray(linalg.pinvh(crossproducts.FWF[unpenalized, unpenalized]), np.float64)
    bases, unseen, taken_up = [], [], []
    for term, transform, is_free in zip(terms, transforms, free, strict=True):
        s = term.n_coefficients
        nothing, basis = np.zeros((s, 0)), np.eye(s)
        not_seen = unseen_directions(term) if is_free else nothing
        if not_seen.size:
            basis = term.structure.basis_without(basis, not_seen, np.eye(s))
        taken = nothing
        if is_free and is_integrated:
            taken = _taken_up(term, basis, term.ZWF[:, unpenalized], inverse)
        if taken.size:
            # Stands for all covariances that REML cannot tell from one: the one without variance of
            # what is taken up, in the user's units.
            basis = term.structure.basis_without(basis, taken, transform)
        bases.append(basis)
        unseen.append(not_seen)
        taken_up.append(taken)
    within = [_all_told(basis) for basis in bases]
    n_flat = 0
    together: tuple[int, ...] = ()
    if not _clearly_identified(crossproducts, bases, free, residual):
        within = [
            _flat_within(term, basis, crossproducts.n, residual) if is_free else _all_told(basis)
            for term, basis, is_free in zip(terms, bases, free, strict=True)
        ]
        bases = [one.basis for one in within]
        n_flat, together = _flat_together(
            crossproducts, bases, free, residual, sum(one.n_flat for one in within)
        )
    return Identification(
        bases=tuple(bases),
        unseen=tuple(unseen),
        taken_up=tuple(taken_up),
        held=tuple(one.held for one in within),
        with_residual=tuple(one.with_residual for one in within),
        n_flat_within=tuple(one.n_flat for one in within),
        n_flat=n_flat,
        together=together,
    )


def unseen_directions(term: TermGram) -> Array:
    """Combinations (s, t) of a term's coefficients that no row sees, ``Z_kj w = 0`` everywhere.

    The null space of ``sum_j Z_kj'WZ_kj`` in unit diagonal; of uncorrelated coefficients those
    whose column is zero.
    """
    own = term.structure.projected(np.sum(term.own, axis=2))
    scale = _unit(np.sqrt(np.diag(own)))
    shares, vectors = np.linalg.eigh(own / np.outer(scale, scale))
    return np.asarray(vectors[:, shares <= UNSEEN] / scale[:, None])


def _unit(sizes: Array) -> Array:
    """Sizes to divide by; 1 for what is zero."""
    return np.where(sizes > 0, sizes, 1.0)


def _taken_up(term: TermGram, basis: Array, on_X: Array, inverse: Array) -> Array:
    """Combinations (s, t) in a basis whose effects are combinations of fixed effects.

    ``Z_kj w`` of every level ``j`` then lies in the span of the unpenalised columns of ``X``, so
    that ``P Z_kj w = 0`` and REML's criterion does not depend on a variance along ``w``.
    """
    on_basis = np.tensordot(basis, on_X, (0, 0))
    own = basis.T @ np.sum(term.own, axis=2) @ basis
    taken = np.array([[np.sum(inverse * (a @ b.T)) for b in on_basis] for a in on_basis])
    scale = _unit(np.sqrt(np.diag(own)))
    left = (own - taken.reshape(own.shape)) / np.outer(scale, scale)
    shares, vectors = np.linalg.eigh(term.structure.projected(left))
    return np.asarray(basis @ (vectors[:, shares <= UNSEEN] / scale[:, None]))


@dataclass(frozen=True)
class _Within:
    """What the levels of one term leave open: see `Identification`."""

    basis: Array
    held: Array
    with_residual: bool
    n_flat: int


def _all_told(basis: Array) -> _Within:
    return _Within(basis, basis[:, :0], False, 0)


def _flat_within(term: TermGram, basis: Array, n: float, residual: bool) -> _Within:
    """Flat directions of one covariance, and of it with the residual variance."""
    if term.is_large:
        return _all_told(basis)
    roots, is_saturated = _roots(term.own, n)
    residual = residual and is_saturated
    units = _units(basis, term.structure)
    alone = _null_space(_of_levels(roots, units, residual=False))
    flat = _null_space(_of_levels(roots, units, residual=residual))
    with_residual = flat.shape[1] > alone.shape[1]
    kept, held = basis, basis[:, :0]
    if not term.structure.correlates or len(units) == 1:
        free = list(range(len(units)))
        while flat.shape[1] and (spare := _spare(flat, len(free))) is not None:
            free.pop(spare)
            flat = _null_space(_of_levels(roots, units[free], residual=residual))
        kept, held = basis[:, free], np.delete(basis, free, axis=1)
    elif with_residual:
        kept, held = _without_residual_twin(_of_levels(roots, units, residual=True), units, basis)
        rest = _units(kept, term.structure)
        flat = _null_space(_of_levels(roots, rest, residual=True))
    return _Within(kept, held, with_residual, flat.shape[1])


def _without_residual_twin(said: Array, units: Array, basis: Array) -> tuple[Array, Array]:
    """Split a basis in two: what stays, and a direction whose variance is a residual variance.

    That of ``E`` in ``Z_kj E Z_kj' = W_j^-1`` where it has rank one, as the intercept of levels of
    one row. Beside slopes it would let the variance of one row fall to zero, and the likelihood
    rise without bound where the fixed part meets that row.
    """
    twin = np.tensordot(linalg.lstsq(said[:, :-1], said[:, -1])[0], units, 1)
    values, vectors = np.linalg.eigh(basis.T @ twin @ basis)
    if np.any(np.abs(values[:-1]) > FLAT * values[-1]):
        return basis, basis[:, :0]
    return basis @ vectors[:, :-1], basis @ vectors[:, -1:]


def _roots(own: Array, n: float) -> tuple[Array, bool]:
    """``R_j`` with ``Z_kj'WZ_kj = R_j'R_j`` (L, s, s), and whether levels have no more rows.

    Rows of ``R_j`` beyond its rank are zero. As many rows as ranks in sum leave none beside.
    """
    values, vectors = np.linalg.eigh(np.moveaxis(own, 2, 0))
    positive = values > RANK * np.max(values, axis=1, keepdims=True, initial=0.0)
    roots = np.sqrt(np.where(positive, values, 0.0))[:, :, None] * vectors.swapaxes(1, 2)
    return roots, bool(abs(np.count_nonzero(positive) - n) < 0.5)


def _units(basis: Array, structure: Structure) -> Array:
    """Free directions (m, s, s) of a covariance with variance in a basis only."""
    units = structure.units(basis.shape[1])
    return np.asarray(basis @ units @ basis.T)


def _of_levels(roots: Array, units: Array, *, residual: bool) -> Array:
    """What each level says: ``R_j E R_j'`` of each direction, and the identity of its rank.

    Shape (L s^2, m + residual); each level counts the same, however much it weighs.
    """
    L, s, _ = roots.shape
    said = (roots[:, None] @ units @ roots.swapaxes(1, 2)[:, None]).reshape(L, -1, s * s)
    if residual:
        rank = np.any(roots != 0.0, axis=2)[:, :, None] * np.eye(s)
        said = np.concatenate([said, rank.reshape(L, 1, s * s)], axis=1)
    size = _unit(np.sqrt(np.sum(said**2, axis=(1, 2), keepdims=True)))
    return np.asarray((said / size).swapaxes(1, 2).reshape(L * s * s, -1))


def _null_space(said: Array) -> Array:
    """Directions (m, r) that no level tells from nothing, in columns of unit length."""
    scale = _unit(np.linalg.norm(said, axis=0))
    _, values, rows = np.linalg.svd(np.linalg.qr(said / scale, mode="r"))
    return np.asarray(rows[int(np.sum(values > FLAT)) :].T)


def _spare(flat: Array, n_candidates: int) -> int | None:
    """A variance that may be zero, since along a flat direction all others only grow; the last.

    None where there is no such variance.
    """
    others = np.arange(len(flat))
    for i in reversed(range(n_candidates)):
        found = optimize.linprog(
            np.zeros(flat.shape[1]),
            A_ub=-flat[others != i],
            b_ub=np.zeros(len(flat) - 1),
            A_eq=flat[i : i + 1],
            b_eq=[-1.0],
            bounds=(None, None),
        )
        if found.status == 0:
            return i
    return None


def _clearly_identified(
    crossproducts: CrossProducts, bases: Sequence[Array], free: Sequence[bool], residual: bool
) -> bool:
    """A test that costs next to nothing, passed by almost every data set."""
    values, *_ = _inner_products(crossproducts, bases, free, residual)
    return bool(np.all(values > CLEAR))


def _inner_products(
    crossproducts: CrossProducts, bases: Sequence[Array], free: Sequence[bool], residual: bool
) -> tuple[Array, Array, Array]:
    """Eigenvalues and vectors of the inner products of all directions, and the term of each.

    ``<Z_k E Z_k', Z_l F Z_l'> = sum_jm tr(E C_jm F C_jm')`` with ``C_jm = Z_kj'WZ_lm``, in unit
    diagonal; -1 stands for the residual. Equation (27) of docs/theory.md.
    """
    units = {
        k: _units(bases[k], term.structure)
        for k, term in enumerate(crossproducts.terms)
        if free[k] and not term.is_large and bases[k].shape[1]
    }
    rows = []
    for k, E in units.items():
        row = []
        for l, F in units.items():
            if k == l:
                blocks = crossproducts.terms[k].own
            elif k < l:
                blocks = crossproducts.cross[k][l].blocks
            else:
                blocks = crossproducts.cross[l][k].blocks.swapaxes(0, 1)
            flat = blocks.reshape(-1, blocks.shape[2])
            products = (flat @ flat.T).reshape(2 * blocks.shape[:2])
            on_E = np.tensordot(E, products, ([1, 2], [0, 2]))
            row.append(np.tensordot(on_E, F, ([1, 2], [1, 2])))
        if residual:
            own = np.sum(crossproducts.terms[k].own, axis=2)
            row.append(np.tensordot(E, own, 2)[:, None])
        rows.append(row)
    if residual:
        rows.append([*(row[-1].T for row in rows), np.array([[crossproducts.n]])])
    term_of = np.array([k for k, E in units.items() for _ in E] + [-1] * residual, dtype=int)
    if not rows:
        return np.zeros(0), np.zeros((0, 0)), term_of
    inner = np.block(rows)
    scale = _unit(np.sqrt(np.diag(inner)))
    values, vectors = np.linalg.eigh(inner / np.outer(scale, scale))
    return values, vectors, term_of


def _flat_together(
    crossproducts: CrossProducts,
    bases: Sequence[Array],
    free: Sequence[bool],
    residual: bool,
    n_within: int,
) -> tuple[int, tuple[int, ...]]:
    """Number of flat directions of all terms, and the terms of those that no one has alone."""
    values, vectors, term_of = _inner_products(crossproducts, bases, free, residual)
    flat = vectors[:, values <= FLAT_TOGETHER]
    together = tuple(
        int(k)
        for k in np.unique(term_of[term_of >= 0])
        if np.max(np.linalg.norm(flat[term_of == k], axis=0), initial=0.0) > PARTICIPATES
    )
    # Of one term alone its levels have told more exactly.
    if flat.shape[1] <= n_within or len(together) < 2:
        return n_within, ()
    return flat.shape[1], together
