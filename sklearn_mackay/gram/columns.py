"""Gram blocks of other columns: linear combinations of those that the blocks were built from.

Leaving the fixed part out, taking one of several responses, principal axes of a feature block,
holding a combination of coefficients: all are the map ``F -> F M`` and ``Z_k -> Z_k A_k`` of the
columns ``F = [X y]`` and ``Z_k``, which Gram blocks follow without a look at the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import Array, Matrix
from .crossproducts import CrossGram, CrossProducts, TermGram


def in_columns(
    crossproducts: CrossProducts,
    M: Matrix,
    *,
    penalty: Array,
    A: Mapping[int, Array] | None = None,
) -> CrossProducts:
    """Gram blocks of ``F M`` and ``Z_k A_k``.

    ``F'WF -> M'F'WF M``, ``Z_k'WF -> A_k'Z_k'WF M``, ``Z_k'WZ_l -> A_k'Z_k'WZ_l A_l``.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks of ``F`` and ``Z_k``.
    M : ndarray or sparse array of shape (p + t, p' + t')
        New columns of the fixed part and the responses, of the old ones.
    penalty : ndarray of shape (p',)
        Ridge penalty of the new fixed columns, positive ones first.
    A : mapping of int to ndarray of shape (s_k, s_k'), optional
        New coefficients of some terms, of the old ones, the same in every level.

    Returns
    -------
    CrossProducts
    """
    A = A or {}
    return replace(
        crossproducts,
        terms=tuple(
            _term_in_columns(term, M, A.get(k)) for k, term in enumerate(crossproducts.terms)
        ),
        cross={
            k: {l: _table_in_columns(table, A.get(k), A.get(l)) for l, table in row.items()}
            for k, row in crossproducts.cross.items()
        },
        FWF=np.asarray(M.T @ (M.T @ crossproducts.FWF).T).T,
        penalty=penalty,
    )


def _term_in_columns(term: TermGram, M: Matrix, A: Array | None) -> TermGram:
    s, P, L = term.ZWF.shape
    by_column = M.T @ term.ZWF.transpose(1, 0, 2).reshape(P, s * L)
    ZWF = np.asarray(by_column).reshape(-1, s, L).transpose(1, 0, 2)
    if A is None:
        return replace(term, ZWF=np.ascontiguousarray(ZWF))
    own = np.einsum("ai,abl,bj->ijl", A, term.own, A)
    return replace(term, own=own, ZWF=np.einsum("ai,apl->ipl", A, ZWF))


def _table_in_columns(table: CrossGram, A_k: Array | None, A_l: Array | None) -> CrossGram:
    blocks = table.blocks
    if A_k is not None:
        blocks = np.einsum("ai,abm->ibm", A_k, blocks)
    if A_l is not None:
        blocks = np.einsum("abm,bj->ajm", blocks, A_l)
    return table if blocks is table.blocks else replace(table, blocks=blocks)


def reweighted(crossproducts: CrossProducts, unit: float) -> CrossProducts:
    """Gram blocks with all row weights multiplied by a number."""
    if unit == 1.0:
        return crossproducts
    return replace(
        crossproducts,
        terms=tuple(
            replace(term, own=unit * term.own, ZWF=unit * term.ZWF) for term in crossproducts.terms
        ),
        cross={
            k: {l: replace(table, blocks=unit * table.blocks) for l, table in row.items()}
            for k, row in crossproducts.cross.items()
        },
        FWF=unit * crossproducts.FWF,
    )


def without_fixed(crossproducts: CrossProducts) -> CrossProducts:
    """The model without a fixed part."""
    p = len(crossproducts.penalty)
    responses = np.arange(p, len(crossproducts.FWF))
    return in_columns(
        crossproducts, _selection(crossproducts, responses), penalty=crossproducts.penalty[:0]
    )


def of_output(crossproducts: CrossProducts, output: int) -> CrossProducts:
    """The model of one of several responses, which engines and the loop work on."""
    p = len(crossproducts.penalty)
    if len(crossproducts.FWF) == p + 1:
        return crossproducts
    kept = np.append(np.arange(p), p + output)
    return in_columns(crossproducts, _selection(crossproducts, kept), penalty=crossproducts.penalty)


def _selection(crossproducts: CrossProducts, kept: NDArray[np.intp]) -> Matrix:
    """``M`` that takes some of the columns."""
    return sparse.eye_array(len(crossproducts.FWF), format="csc")[:, kept]


def hold_combination(crossproducts: CrossProducts, direction: Array, value: float) -> CrossProducts:
    """The model in which ``direction'beta`` is known, with one column less.

    Equation (21) of docs/theory.md.
    """
    r = len(direction)
    move = np.zeros((r + 1, r))
    move[:r, :-1] = linalg.null_space(direction[None])
    move[:, -1] = np.append(-direction * value / (direction @ direction), 1.0)
    return in_columns(crossproducts, move, penalty=crossproducts.penalty[:-1])


def with_response(
    crossproducts: CrossProducts, on_terms: list[Array], on_X: Array, yWy: float
) -> CrossProducts:
    """The model of another response, given its cross-products with all columns.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks of one response.
    on_terms : list of ndarray of shape (s_k, L_k)
        ``Z_k'Wy``.
    on_X : ndarray of shape (p,)
        ``X'Wy``.
    yWy : float
        ``y'Wy``.

    Returns
    -------
    CrossProducts
    """
    terms = tuple(
        replace(term, ZWF=np.concatenate([term.ZWF[:, :-1], on_y[:, None]], axis=1))
        for term, on_y in zip(crossproducts.terms, on_terms, strict=True)
    )
    XWX = crossproducts.FWF[:-1, :-1]
    FWF = np.block([[XWX, on_X[:, None]], [on_X[None], np.array([[yWy]])]])
    return replace(crossproducts, terms=terms, FWF=FWF)
