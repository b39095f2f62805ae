"""Elimination of a chain of nested terms, at given variances.

A level of an earlier term touches one level of every later one, so that each term stays
block-diagonal. Blocks are unscaled: with ``Sigma = TT'`` and the Schur complement ``A`` of a term's
own blocks, eliminating it takes ``J'WJ`` from what remains, ``W = T (T'AT + I)^-1 T'``, in which
nothing is divided by a variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from .linalg import Tensor, inverse_and_log_det, matmul, matmul_transposed, segment_sum


class Coupling(NamedTuple):
    """Blocks of an eliminated term with columns that remain.

    Attributes
    ----------
    values : (s, c, m)
        One block for each pair of a level and what it meets.
    levels : (m,) or None
        The level of each pair; None where each level has one pair, in their order.
    positions : tuple of (m,)
        Where the pair of the parent level stands, for each later term of the chain.
    """

    values: Tensor
    levels: Tensor
    positions: tuple[Tensor, ...]


class Nested(NamedTuple):
    """Blocks of a term of the chain.

    Attributes
    ----------
    own : (s, s, L)
        Level by level.
    parents : tuple of (L,)
        The level of each later term that contains each level.
    links : tuple of (s, s_l, L)
        The block with that parent.
    couplings : tuple of Coupling
        With what remains, in the same order for each term.
    """

    own: Tensor
    parents: tuple[Tensor, ...]
    links: tuple[Tensor, ...]
    couplings: tuple[Coupling, ...]


class Elimination(NamedTuple):
    """What eliminating the chain leaves of its terms' blocks, at given variances; unscaled.

    Attributes
    ----------
    links, values : lists by term
        Schur complements of the blocks with parents and of the couplings.
    inverses, W : lists of (s_m, s_m, L_m)
        ``(T'AT + I)^-1`` of the own blocks' Schur complements ``A``, and ``T (T'AT + I)^-1 T'``.
    log_det : ()
        ``sum log|T'AT + I|``.
    """

    links: list[tuple[Tensor, ...]]
    values: list[tuple[Tensor, ...]]
    inverses: list[Tensor]
    W: list[Tensor]
    log_det: Tensor


def eliminate(chain: Sequence[Nested], T: Sequence[Tensor]) -> Elimination:
    """Eliminate nested terms in turn, for ``Sigma = TT'`` of each."""
    own = [term.own for term in chain]
    links = [term.links for term in chain]
    values = [tuple(coupling.values for coupling in term.couplings) for term in chain]
    inverses, W = [], []
    log_det = tf.zeros([], tf.float64)
    for m, term in enumerate(chain):
        inverse, log_dets = inverse_and_log_det(spherical(T[m], own[m]))
        inverses.append(inverse)
        T_transposed = tf.transpose(T[m])
        W.append(between(T_transposed, inverse, T_transposed))
        log_det += tf.reduce_sum(log_dets)
        for j, parents in enumerate(term.parents):
            later = m + 1 + j
            weights = matmul(W[m], links[m][j])
            own[later] -= _inherited(weights, links[m][j], parents, own[later])
            links[later] = tuple(
                link - _inherited(weights, mine, parents, link)
                for link, mine in zip(links[later], links[m][j + 1 :], strict=True)
            )
            values[later] = tuple(
                theirs - _inherited(_at(weights, one.levels), mine, one.positions[j], theirs)
                for theirs, mine, one in zip(values[later], values[m], term.couplings, strict=True)
            )
    return Elimination(links, values, inverses, W, log_det)


def _at(weights: Tensor, levels: Tensor) -> Tensor:
    return weights if levels is None else tf.gather(weights, levels, axis=-1)


def _inherited(weights: Tensor, blocks: Tensor, positions: Tensor, of_parents: Tensor) -> Tensor:
    """What eliminated blocks take from those of their parents."""
    taken = matmul_transposed(weights, blocks)
    n = of_parents.shape[-1]  # None in a trace, which serves data of any size
    return segment_sum(taken, positions, tf.shape(of_parents)[-1] if n is None else n)


def spherical(T: Tensor, blocks: Tensor) -> Tensor:
    """``T'AT + I`` level by level."""
    return between(T, blocks, T) + tf.eye(T.shape[0], dtype=T.dtype)[:, :, None]


def between(t: Tensor, blocks: Tensor, t_columns: Tensor) -> Tensor:
    """``t' B t`` level by level."""
    return matmul_transposed(t[:, :, None], matmul(blocks, t_columns[:, :, None]))
