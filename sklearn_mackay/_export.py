"""A fit as JSON text and back: numbers, names and labels, no code.

Reading checks everything that predicting relies on, so that a damaged or forged text is refused
and not computed with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ._grouping import Grouping, learn_grouping
from ._roles import ColumnRoles, FactorColumns

FORMAT = "sklearn_mackay.MacKayMixedRegressor"
SCHEMA = 1
NUMBERS = re.compile(r"float(32|64)|u?int(8|16|32|64)|bool|object|str")
TIMES = re.compile(r"[mM]8\[(D|h|m|s|ms|us|ns)\]")
ASIDE = ("_models", "_roles", "_groupings")  # not exported, or in a form of their own
ESTIMATES = ("coef_", "intercept_", "variance_components_", "random_effects_")


def to_text(parameters: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """Write a fit.

    Parameters
    ----------
    parameters : dict
        Of the constructor.
    attributes : dict
        Fitted attributes; the cross-products behind standard errors are left out.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For a parameter or label that JSON cannot hold.
    """
    roles: ColumnRoles = attributes["_roles"]
    groupings: Sequence[Grouping] = attributes["_groupings"]
    document = {
        "format": FORMAT,
        "schema": SCHEMA,
        "parameters": {name: _pack(value, f"`{name}`") for name, value in parameters.items()},
        "fixed": list(roles.fixed),
        "blocks": _pack(roles.blocks, "feature_blocks"),
        "factors": [
            {
                "name": factor.name,
                "columns": list(factor.columns),
                "slopes": list(factor.slopes),
                "intercept": factor.intercept,
                "coefficient_names": list(factor.coefficient_names),
                "labels": _pack(_labels(grouping), f"a level of {factor.name!r}"),
            }
            for factor, grouping in zip(roles.factors, groupings, strict=True)
        ],
        "attributes": {
            name: _pack(value, name)
            for name, value in attributes.items()
            if name not in parameters and name not in ASIDE
        },
    }
    return json.dumps(document, allow_nan=False)


def from_text(text: str, parameter_names: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a fit.

    Parameters
    ----------
    text : str
        From `to_text`.
    parameter_names : collection of str
        Those of the constructor.

    Returns
    -------
    parameters, attributes : dict
        As given to `to_text`.

    Raises
    ------
    ValueError
        Where the text is no such model, of another schema, or does not fit together.
    """
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("its format is another one")
        if document.get("schema") != SCHEMA:
            raise ValueError(
                f"it has schema {document.get('schema')!r}, and this version reads schema {SCHEMA}"
            )
        parameters = {name: _unpack(value) for name, value in document["parameters"].items()}
        if set(parameters) != set(parameter_names):
            raise ValueError("its parameters are not those of the estimator")
        attributes = {name: _unpack(value) for name, value in document["attributes"].items()}
        groupings = tuple(_read_grouping(factor) for factor in document["factors"])
        roles = ColumnRoles(
            tuple(_read_factor(factor) for factor in document["factors"]),
            _positions(document["fixed"]),
            {str(name): _positions(c) for name, c in _unpack(document["blocks"]).items()},
        )
        _check(attributes, roles, groupings)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"This text is no model to be read: {said}.") from error
    return parameters, {**attributes, "_roles": roles, "_groupings": groupings, "_models": None}


def _labels(grouping: Grouping) -> list[Any]:
    """Labels of each column, one entry for each level."""
    if grouping.combinations is None:
        return [grouping.column_levels[0]]
    shape = [len(levels) for levels in grouping.column_levels]
    codes = np.unravel_index(grouping.combinations, shape)
    return [levels[code] for levels, code in zip(grouping.column_levels, codes, strict=True)]


def _read_grouping(factor: Mapping[str, Any]) -> Grouping:
    columns = [np.asarray(column) for column in _unpack(factor["labels"])]
    grouping, codes = learn_grouping(str(factor["name"]), columns)
    if not np.array_equal(codes, np.arange(grouping.n_levels)):
        raise ValueError(f"levels of {grouping.name!r} are not distinct and in order")
    return grouping


def _read_factor(factor: Mapping[str, Any]) -> FactorColumns:
    return FactorColumns(
        name=str(factor["name"]),
        columns=_positions(factor["columns"]),
        slopes=_positions(factor["slopes"]),
        intercept=bool(factor["intercept"]),
        coefficient_names=tuple(map(str, factor["coefficient_names"])),
    )


def _positions(values: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError("positions of columns must be integers that are not negative")
    return tuple(values)


def _check(
    attributes: Mapping[str, Any], roles: ColumnRoles, groupings: Sequence[Grouping]
) -> None:
    """Refuse what does not fit together."""
    n_columns = attributes["n_features_in_"]
    used = [*roles.features, *(c for f in roles.factors for c in (*f.columns, *f.slopes))]
    if not all(column < n_columns for column in used):
        raise ValueError(f"it uses columns beyond the {n_columns} that it has")
    names = attributes.get("feature_names_in_")
    if names is not None and (
        np.shape(names) != (n_columns,) or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"it does not have {n_columns} names of columns")
    if attributes["groups_"] != [factor.name for factor in roles.factors]:
        raise ValueError("names of its factors differ")
    for name in ESTIMATES:
        value = attributes[name]
        for part in value.values() if isinstance(value, dict) else [value]:
            if not np.all(np.isfinite(np.asarray(part, dtype=np.float64))):
                raise ValueError(f"numbers in {name} are not finite")
    outputs = np.shape(attributes["intercept_"])
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "coef_": (attributes["coef_"], (len(roles.features),))
    }
    for factor, grouping in zip(roles.factors, groupings, strict=True):
        s = len(factor.coefficient_names)
        if s != factor.intercept + len(factor.slopes):
            raise ValueError(f"coefficients of {factor.name!r} are not its columns")
        effects = attributes["random_effects_"][factor.name]
        expected[f"effects of {factor.name!r}"] = (effects, (grouping.n_levels, s))
        variance = attributes["variance_components_"][factor.name]
        expected[f"variance of {factor.name!r}"] = (variance, () if s == 1 else (s, s))
    for name in ("residual", *roles.blocks):
        expected[f"variance of {name!r}"] = (attributes["variance_components_"][name], ())
    for what, (value, shape) in expected.items():
        if np.shape(value) != (*outputs, *shape):
            raise ValueError(f"{what} has shape {np.shape(value)} and not {(*outputs, *shape)}")


def _pack(value: Any, what: str) -> Any:
    """Write a value in what JSON has; what it lacks becomes an object with one key."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray):
        flat = value.view("int64") if value.dtype.kind in "mM" else value
        packed = [_pack(x, what) for x in flat.ravel().tolist()]
        if value.dtype.kind in "mM":
            dtype = value.dtype.str.lstrip("<>=")
        else:
            dtype = "str" if value.dtype.kind == "U" else str(value.dtype)
        return {"array": packed, "shape": list(value.shape), "dtype": dtype}
    if isinstance(value, tuple):
        return {"tuple": [_pack(x, what) for x in value]}
    if isinstance(value, list | range):
        return [_pack(x, what) for x in value]
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, what), _pack(v, what)] for k, v in value.items()]}
    raise ValueError(f"{what} is of type {type(value).__name__}, which JSON cannot hold.")


def _unpack(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(x) for x in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"float"}:
        return float(value["float"])
    if set(value) == {"tuple"}:
        return tuple(_unpack(value["tuple"]))
    if set(value) == {"dict"}:
        return {_unpack(k): _unpack(v) for k, v in value["dict"]}
    if set(value) == {"array", "shape", "dtype"}:
        return _unpack_array(_unpack(value["array"]), value["shape"], str(value["dtype"]))
    raise ValueError(f"it has an object with the keys {sorted(value)}")


def _unpack_array(flat: list[Any], shape: list[int], dtype: str) -> np.ndarray[Any, Any]:
    if TIMES.fullmatch(dtype):
        return np.array(flat, dtype=np.int64).view(dtype).reshape(shape)
    if not NUMBERS.fullmatch(dtype):
        raise ValueError(f"it has an array of type {dtype!r}")
    if dtype != "object":
        return np.array(flat, dtype=dtype).reshape(shape)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)
