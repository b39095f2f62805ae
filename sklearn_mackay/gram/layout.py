"""Which terms are eliminated, and Gram blocks in the arrangements that elimination asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arrays import Array
from .crossproducts import CrossGram, CrossProducts


class Layout(NamedTuple):
    """Which terms are eliminated.

    Attributes
    ----------
    chain : tuple of int
        Nested terms in the order of their elimination.
    rest : tuple of int
        Terms that stay in the dense corner, feature blocks last.
    """

    chain: tuple[int, ...]
    rest: tuple[int, ...]


def choose_layout(crossproducts: CrossProducts) -> Layout:
    """Eliminate the chain of nested terms that leaves the smallest corner.

    A feature block meets every level of every other term, so that eliminating it first saves
    nothing, unless it is alone.
    """
    terms = crossproducts.terms
    size = [term.n_effects for term in terms]
    alone = len(terms) == 1 and not terms[0].is_large
    candidates = [k for k in range(len(terms)) if alone or not terms[k].is_block]
    candidates.sort(key=lambda k: -size[k])
    inside = {
        k: [l for l in candidates[i + 1 :] if _is_nested(crossproducts, k, l)]
        for i, k in enumerate(candidates)
    }

    def chains(chain: tuple[int, ...], following: list[int]) -> Iterator[tuple[int, ...]]:
        yield chain
        for i, k in enumerate(following):
            yield from chains((*chain, k), [l for l in following[i + 1 :] if l in inside[k]])

    chain = max(chains((), candidates), key=lambda chain: sum(size[k] for k in chain))
    rest = tuple(k for k in range(len(terms)) if k not in chain)
    return Layout(chain, rest)


def _is_nested(crossproducts: CrossProducts, k: int, l: int) -> bool:
    """Whether each level of term k meets one level of term l only."""
    table = crossproducts.cross[min(k, l)][max(k, l)]
    levels = table.row_levels if k < l else table.column_levels
    return len(levels) <= crossproducts.terms[k].n_levels and len(np.unique(levels)) == len(levels)


def oriented(crossproducts: CrossProducts, k: int, l: int) -> CrossGram:
    """Cross-table with the levels of term k as rows."""
    return crossproducts.cross[k][l] if k < l else crossproducts.cross[l][k].transposed


def parents_and_links(
    crossproducts: CrossProducts, k: int, l: int
) -> tuple[NDArray[np.int32], Array]:
    """For a term k nested in l: the level of l that contains each level, and their blocks."""
    table = oriented(crossproducts, k, l)
    n_levels = crossproducts.terms[k].n_levels
    parent = np.zeros(n_levels, np.int32)
    parent[table.row_levels] = table.column_levels
    link = np.zeros((*table.blocks.shape[:2], n_levels))
    link[:, :, table.row_levels] = table.blocks
    return parent, link


def flat_rows(blocks: Array) -> Array:
    """Blocks (s, P, L) as rows (s L, P)."""
    return blocks.transpose(0, 2, 1).reshape(-1, blocks.shape[1])


def with_columns_of(crossproducts: CrossProducts, others: tuple[int, ...], k: int) -> Array:
    """``Z_k'W[Z_l ... X y]`` of shape (s_k, P, L_k), the columns of other terms dense."""
    term = crossproducts.terms[k]
    blocks = []
    for l in others:
        other = crossproducts.terms[l]
        s, L = other.n_coefficients, other.n_levels
        dense = np.zeros((term.n_coefficients, s, L, term.n_levels))
        if k == l:
            dense[:, :, np.arange(L), np.arange(L)] = term.own
        else:
            table = oriented(crossproducts, k, l)
            dense[:, :, table.column_levels, table.row_levels] = table.blocks
        blocks.append(dense.reshape(term.n_coefficients, s * L, term.n_levels))
    return np.concatenate([*blocks, term.ZWF], axis=1)


def gram_matrix(
    crossproducts: CrossProducts, rest: tuple[int, ...], offsets: NDArray[np.int_]
) -> Array:
    """``[Z X y]'W[Z X y]`` of some terms as a dense matrix, with the ridge penalty.

    The columns of a term go coefficient by coefficient, and begin at its offset.
    """
    R = int(offsets[-1])
    gram = np.zeros((R + len(crossproducts.FWF),) * 2)
    p = len(crossproducts.penalty)
    gram[R:, R:] = crossproducts.FWF
    gram[R : R + p, R : R + p] += np.diag(crossproducts.penalty)
    for i, k in enumerate(rest):
        term = crossproducts.terms[k]
        s, L = term.n_coefficients, term.n_levels
        here = offsets[i] + np.arange(s)[:, None] * L + np.arange(L)  # (s, L)
        gram[here[:, None], here[None, :]] = term.own
        fixed = flat_rows(term.ZWF)
        gram[offsets[i] : offsets[i + 1], R:] = fixed
        gram[R:, offsets[i] : offsets[i + 1]] = fixed.T
        for j in range(i + 1, len(rest)):
            table = oriented(crossproducts, k, rest[j])
            other = crossproducts.terms[rest[j]]
            there = offsets[j] + np.arange(other.n_coefficients)[:, None] * other.n_levels
            rows = here[:, table.row_levels][:, None]  # (s, 1, m)
            columns = (there + table.column_levels)[None]  # (1, s_j, m)
            gram[rows, columns] = table.blocks
            gram[columns, rows] = table.blocks
    return gram
