"""Other starts, where a few levels that say little leave the criterion several valleys.

A level with fewer rows than random coefficients, or with slopes that are constant in it, tells of
its variance in some direction alone. With few such levels other covariances may explain the effects
that were seen about as well, and a descent from one start ends in either valley.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._arrays import Array
from ..covariances.matrices import null_directions
from ..covariances.structures import Structure
from ..gram.crossproducts import CrossProducts, TermGram
from .freedom import Freedom
from .solution import Variances

MOST_LEVELS = 100  # beyond which levels that say little say enough together
MOST_ENTRIES = 2**15  # of Gram blocks that are solved in about a millisecond
N_DRAWN = 80  # covariances that are looked at
N_STARTS = 5  # of which the lowest are descended from
RANK = 1e-10  # eigenvalue of a level's Gram block, relative to the largest, that says nothing
LARGE = (10.0, 100.0)  # times the covariance of the first start
SPREAD = 0.7  # standard deviation of the logarithm of a trace that is drawn
CONCENTRATION = 0.5  # of eigenvalues drawn from a Dirichlet distribution: mostly one is large


def other_starts(
    height: Callable[[Variances], float],
    crossproducts: CrossProducts,
    freedom: Freedom,
    start: Variances,
    found: Variances,
) -> list[Variances]:
    """Covariances unlike those found: larger ones, and the lowest of many that are as large.

    Parameters
    ----------
    height : callable
        The criterion.
    crossproducts : CrossProducts
        Gram blocks.
    freedom : Freedom
        What may move.
    start, found : Variances
        Where the first descent began, and where it ended.

    Returns
    -------
    list of Variances
        Empty where every term has levels enough, or each level says enough and no covariance is
        singular, and where solving takes long.
    """
    if crossproducts.n_entries > MOST_ENTRIES:
        return []
    several = [
        k
        for k, basis in enumerate(freedom.directions)
        if freedom.terms[k] and basis.shape[1] > 1 and not crossproducts.terms[k].is_large
    ]
    few = [k for k in several if crossproducts.terms[k].n_levels <= MOST_LEVELS]
    is_vague = any(_is_vague(crossproducts.terms[k], freedom.directions[k]) for k in few)
    if not is_vague and not any(_is_singular(found.Sigma[k], freedom.directions[k]) for k in few):
        return []
    larger = [
        Variances(
            start.sigma2,
            tuple(S * factor if k in few else S for k, S in enumerate(start.Sigma)),
        )
        for factor in LARGE
    ]
    if not is_vague:
        return larger
    present = [S if np.any(S) else start.Sigma[k] for k, S in enumerate(found.Sigma)]
    generator = np.random.RandomState(0)
    drawn = []
    for i in range(N_DRAWN):
        Sigma = list(present)
        for k in several:
            basis, structure = freedom.directions[k], freedom.structures[k]
            within = basis.T @ present[k] @ basis
            other = _turned(within, generator, structure) if i else _swapped(within, structure)
            Sigma[k] = basis @ other @ basis.T
        drawn.append(Variances(found.sigma2, tuple(Sigma)))
    return larger + sorted(drawn, key=height)[:N_STARTS]


def _is_singular(Sigma: Array, basis: Array) -> bool:
    """Whether some direction that may vary does not."""
    return null_directions(basis.T @ Sigma @ basis).size > 0


def _is_vague(term: TermGram, basis: Array) -> bool:
    """Whether a level of a term does not see all directions."""
    own = basis.T @ np.moveaxis(term.own, 2, 0) @ basis
    values = np.linalg.eigvalsh(own)
    return bool(np.any(values[:, 0] <= RANK * values[:, -1]))


def _swapped(Sigma: Array, structure: Structure) -> Array:
    """The same with the largest variance where the least is."""
    variances, vectors = structure.principal(Sigma)
    ascending = np.argsort(variances)
    swapped = np.empty_like(variances)
    swapped[ascending] = variances[ascending[::-1]]
    least = 1e-3 * np.max(variances)
    return np.asarray((vectors * np.maximum(swapped, least)) @ vectors.T)


def _turned(Sigma: Array, generator: np.random.RandomState, structure: Structure) -> Array:
    """Another covariance of about the same trace, in directions of its own."""
    r = len(Sigma)
    shares = generator.dirichlet(np.full(r, CONCENTRATION if structure.correlates else 1.0))
    axes = structure.random_directions(r, generator)
    trace = np.trace(Sigma) * np.exp(SPREAD * generator.normal())
    return np.asarray((axes * (trace * shares)) @ axes.T)
