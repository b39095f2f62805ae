"""Gram blocks of other columns: linear combinations of those that the blocks were built from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import linalg

from .._arrays import Array
from .crossproducts import CrossProducts


def hold_combination(crossproducts: CrossProducts, direction: Array, value: float) -> CrossProducts:
    """Gram blocks of the model in which ``direction'beta`` is known, with one column less.

    Equation (21) of docs/theory.md.
    """
    r = len(direction)
    move = np.zeros((r + 1, r))
    move[:r, :-1] = linalg.null_space(direction[None])
    move[:, -1] = np.append(-direction * value / (direction @ direction), 1.0)
    terms = tuple(
        replace(term, ZWF=np.ascontiguousarray(np.einsum("apl,pr->arl", term.ZWF, move)))
        for term in crossproducts.terms
    )
    FWF = move.T @ crossproducts.FWF @ move
    return replace(crossproducts, terms=terms, FWF=FWF, penalty=crossproducts.penalty[:-1])
