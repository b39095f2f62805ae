"""Predictions of rows that stay where they live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._messages import Message
from ..frames.roles import ColumnRoles, FactorColumns
from ..frames.scoring import (
    LinearSum,
    Product,
    add_labels,
    add_sums,
    as_given,
    distinct,
    join_effects,
    open_rows,
)
from .prediction import Predictor, encode_labels


def require_names(
    names: Sequence[str] | None, roles: ColumnRoles, chosen: Sequence[str]
) -> list[str]:
    """Refuse a model whose columns cannot be found by name.

    Parameters
    ----------
    names : sequence of str or None
        Of the columns of the fit.
    roles : ColumnRoles
        What they are for.
    chosen : sequence of str
        Factors whose effects are added.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        Where `fit` was given an array or, for effects of these, labels beside X.
    """
    if roles.has_array_factors and chosen:
        raise ValueError(
            "`predict_frame` takes labels from columns of X, but this model was fitted with "
            "`groups` given to `fit`: name grouping columns, or set effects='population'."
        )
    if names is None:
        raise ValueError(
            "`predict_frame` finds columns by name, but this model was fitted on an array: fit "
            "it on a data frame."
        )
    return list(names)


def predict_rows(
    predictor: Predictor,
    X: object,
    columns: Sequence[str],
    chosen: Sequence[str],
    *,
    name: str,
    refuse_unseen: bool,
) -> tuple[Any, list[Message]]:
    """Add a column of predictions for each output.

    One query tells the distinct labels of each factor, which are looked up here as `predict` does.

    Parameters
    ----------
    predictor : Predictor
        What the fit knows.
    X : lazy frame
        Rows.
    columns : sequence of str
        Names of the columns of the fit.
    chosen : sequence of str
        Factors whose effects are added.
    name : str
        Of the new column; with several outputs a number follows.
    refuse_unseen : bool
        Whether labels that `fit` never saw are an error.

    Returns
    -------
    frame : lazy frame of the same kind
        The columns of X and the new ones.
    messages : list of Message
        What the user should know about the labels.

    Raises
    ------
    TypeError, ValueError
        As `open_rows`; for labels that are refused.
    """
    roles = predictor.roles
    features = [columns[c] for c in roles.features]
    has_outputs = predictor.coef.ndim == 2
    coef = np.atleast_2d(predictor.coef)[:, list(roles.features)]
    intercept = np.atleast_1d(predictor.intercept).tolist()
    names = [f"{name}{j}" for j in range(len(coef))] if has_outputs else [name]
    factors = [
        (factor.name, grouping, _columns(factor, columns))
        for factor, grouping in zip(roles.factors, predictor.groupings, strict=True)
        if factor.name in chosen
    ]
    labels = [c for *_, of in factors for c in of.labels]
    slopes = [c for *_, of in factors for c in of.times if c is not None]
    frame, called = open_rows(X, labels, [*features, *slopes], names)
    times = [called[feature] for feature in features]
    products: list[list[Product]] = [list(zip(of, times, strict=True)) for of in coef.tolist()]
    said = []
    for k, (factor, grouping, of_factor) in enumerate(factors):
        frame, of_keys = add_labels(frame, [called[c] for c in of_factor.labels], k)
        keys = distinct(frame, of_keys)
        codes, message = encode_labels(grouping, keys.labels, refuse_unseen=refuse_unseen)
        said += [message] if message else []
        effects = predictor.random_effects[factor]
        frame, added = join_effects(frame, keys, codes, effects if has_outputs else effects[None])
        slopes_of = [c if c is None else called[c] for c in of_factor.times]
        for of_output, new in zip(products, added, strict=True):
            of_output += zip(new, slopes_of, strict=True)
    sums = {
        output: LinearSum(constant, of_output)
        for output, constant, of_output in zip(names, intercept, products, strict=True)
    }
    return as_given(X, add_sums(frame, called, sums)), said


class _Columns(NamedTuple):
    """Columns of a factor: of its labels, and what multiplies each coefficient, None for one."""

    labels: tuple[str, ...]
    times: tuple[str | None, ...]


def _columns(factor: FactorColumns, columns: Sequence[str]) -> _Columns:
    slopes = [columns[c] for c in factor.slopes]
    return _Columns(
        tuple(columns[c] for c in factor.columns),
        (None, *slopes) if factor.intercept else tuple(slopes),
    )
