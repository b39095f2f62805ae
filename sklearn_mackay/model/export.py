"""A fit as JSON text and back: numbers, names and labels, no code.

Reading takes the attributes that a fit sets, each of its type, shape and range, and nothing else,
so that a damaged or forged text is refused and not computed with.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..frames.grouping import PADDED_TEXT, Grouping, in_utc, is_utc, learn_grouping, without_zone
from ..frames.options import RESIDUAL
from ..frames.roles import ColumnRoles, FactorColumns

FORMAT = "sklearn_mackay.MacKayMixedRegressor"
SCHEMA = 4  # of texts and of pickles; raised whenever the attributes of a fit change
NUMBERS = re.compile(r"float(32|64)|u?int(8|16|32|64)")
TIMES = re.compile(r"(utc )?([mM]8\[(D|h|m|s|ms|us|ns)\])")
NOT_FINITE = ("nan", "inf", "-inf")

DOCUMENT = ("format", "schema", "parameters", "fixed", "blocks", "factors", "attributes")
FACTOR = ("name", "columns", "slopes", "intercept", "coefficient_names", "labels")
ITERATION = ("step", "deviance", "change", "variances")

# What a fit sets and the text has as it is: always, and where columns have names.
ATTRIBUTES = (
    "coef_",
    "intercept_",
    "_vcov",
    "_n_parameters",
    "_n",
    "_intercept_std",
    "_coef_std",
    "variance_components_",
    "alpha_",
    "random_effects_",
    "effective_dof_",
    "variance_mc_error_",
    "log_likelihood_mc_error_",
    "solver_",
    "kernel_",
    "n_products_",
    "log_likelihood_",
    "aic_",
    "bic_",
    "n_iter_",
    "converged_",
    "singular_",
    "_history",
    "_diagonal",
    "_fixed_names",
    "fixed_features_",
    "n_features_in_",
)
NAMES = "feature_names_in_"
CHOICES = {"solver_": ("exact", "iterative"), "kernel_": ("lapack", "tensorflow")}

PSD_RTOL = 1e-8  # rounding of a covariance beside the product of its standard deviations


def to_text(parameters: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """Write a fit.

    Parameters
    ----------
    parameters : dict
        Of the constructor.
    attributes : dict
        Fitted attributes; the cross-products behind standard errors are left out, and so is what
        no fit sets.

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
                "labels": _pack(grouping.column_labels, f"a level of {factor.name!r}"),
            }
            for factor, grouping in zip(roles.factors, groupings, strict=True)
        ],
        "attributes": {
            name: _pack(attributes[name], name)
            for name in (*ATTRIBUTES, NAMES)
            if name != NAMES or name in attributes
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
        document = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError("its format is another one")
        schema = document.get("schema")
        if type(schema) is not int or schema != SCHEMA:
            raise ValueError(f"it has schema {schema!r}, and this version reads schema {SCHEMA}")
        _require_keys(document, DOCUMENT, "it")
        _require_keys(document["parameters"], parameter_names, "its parameters")
        parameters = {name: _unpack(value) for name, value in document["parameters"].items()}
        optional = {NAMES} & set(document["attributes"])
        _require_keys(document["attributes"], {*ATTRIBUTES, *optional}, "its attributes")
        attributes = {name: _unpack(value) for name, value in document["attributes"].items()}
        for factor in document["factors"]:
            _require_keys(factor, FACTOR, "a factor")
        roles = ColumnRoles(
            tuple(_read_factor(factor) for factor in document["factors"]),
            _positions(document["fixed"]),
            {_text(name): _positions(c) for name, c in _unpack(document["blocks"]).items()},
        )
        groupings = tuple(_read_grouping(factor) for factor in document["factors"])
        _check_roles(attributes, roles)
        _check_names(attributes, roles)
        _check_values(attributes, roles, groupings)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ValueError(f"This text is no model to be read: {reason(error)}.") from error
    attributes |= {
        "_roles": roles,
        "_groupings": groupings,
        "_models": None,
        "_marks": None,
        "_statistics": None,
        "groups_": [factor.name for factor in roles.factors],
        "group_levels_": {grouping.name: grouping.labels for grouping in groupings},
    }
    return parameters, attributes


def reason(error: BaseException) -> str:
    """What an error says, as a part of a sentence."""
    return str(error).rstrip(".") or type(error).__name__


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice in an object")
    return dict(pairs)


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _require_keys(found: object, expected: Collection[str], what: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be an object")
    for key in expected:
        if key not in found:
            raise ValueError(f"{key!r} is missing from {what}")
    for key in found:
        if key not in expected:
            raise ValueError(f"{key!r} does not belong to {what}")


def _read_grouping(factor: Mapping[str, Any]) -> Grouping:
    columns = _unpack(factor["labels"])
    if not (
        isinstance(columns, list)
        and len(columns) == max(len(factor["columns"]), 1)
        and all(isinstance(column, np.ndarray) and column.ndim == 1 for column in columns)
        and len({len(column) for column in columns}) == 1
    ):
        raise ValueError(f"levels of {factor['name']!r} are not those of its columns")
    grouping, codes = learn_grouping(_text(factor["name"]), columns)
    if not np.array_equal(codes, np.arange(grouping.n_levels)):
        raise ValueError(f"levels of {grouping.name!r} are not distinct and in order")
    return grouping


def _read_factor(factor: Mapping[str, Any]) -> FactorColumns:
    if type(factor["intercept"]) is not bool:
        raise ValueError("the intercept of a factor must be true or false")
    return FactorColumns(
        name=_text(factor["name"]),
        columns=_positions(factor["columns"]),
        slopes=_positions(factor["slopes"]),
        intercept=factor["intercept"],
        coefficient_names=tuple(map(_text, factor["coefficient_names"])),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a name must be a string")
    return value


def _positions(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(type(x) is int and x >= 0 for x in values):
        raise ValueError("positions of columns must be integers that are not negative")
    if len(set(values)) != len(values):
        raise ValueError("positions of columns must be distinct")
    return tuple(values)


def _check_roles(attributes: Mapping[str, Any], roles: ColumnRoles) -> None:
    """Refuse columns that are not there, or cannot have the parts that they are given."""
    n_columns = attributes["n_features_in_"]
    if type(n_columns) is not int or n_columns < 1:
        raise ValueError("n_features_in_ must be a positive integer")
    grouping = [column for factor in roles.factors for column in factor.columns]
    slopes = [column for factor in roles.factors for column in factor.slopes]
    if not all(column < n_columns for column in (*roles.features, *grouping, *slopes)):
        raise ValueError(f"it uses columns beyond the {n_columns} that it has")
    if len(set(roles.features)) != len(roles.features):
        raise ValueError("a column is in two blocks of features")
    if set(grouping) & {*roles.features, *slopes}:
        raise ValueError("a grouping column is a feature too")
    if len({bool(factor.columns) for factor in roles.factors}) > 1:
        raise ValueError("some of its factors have columns and others none")
    components = [*(factor.name for factor in roles.factors), *roles.blocks, RESIDUAL]
    if len(set(components)) != len(components):
        raise ValueError("two of its components have one name")
    if not all(roles.blocks.values()):
        raise ValueError("a block of features has no columns")


def _check_names(attributes: Mapping[str, Any], roles: ColumnRoles) -> None:
    """Refuse names that are not those of the columns."""
    name_of = _column_names(attributes)
    for factor in roles.factors:
        if factor.columns and factor.name != ":".join(name_of(c) for c in factor.columns):
            raise ValueError(f"the name of {factor.name!r} is not that of its columns")
        terms = (*("intercept",) * factor.intercept, *(name_of(c) for c in factor.slopes))
        if not terms or factor.coefficient_names != terms:
            raise ValueError(f"coefficients of {factor.name!r} are not its columns")
    expected = {
        "_fixed_names": ("intercept", *(name_of(c) for c in roles.fixed)),
        "fixed_features_": [
            name_of(c) if NAMES in attributes else c for c in range(attributes["n_features_in_"])
        ],
    }
    features = attributes["fixed_features_"]
    if attributes["_fixed_names"] != expected["_fixed_names"]:
        raise ValueError("_fixed_names are not the names of its fixed features")
    if not isinstance(features, np.ndarray) or features.tolist() != expected["fixed_features_"]:
        raise ValueError("fixed_features_ are not the names or positions of its columns")


def _column_names(attributes: Mapping[str, Any]) -> Callable[[int], str]:
    """The name of a column by its position."""
    n_columns = attributes["n_features_in_"]
    if NAMES not in attributes:
        return lambda position: f"x{position}"
    names = attributes[NAMES]
    if (
        not isinstance(names, np.ndarray)
        or names.dtype != object
        or names.shape != (n_columns,)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != n_columns
    ):
        raise ValueError(f"it does not have {n_columns} names of columns")
    return lambda position: str(names[position])


class _Range(NamedTuple):
    """What numbers are allowed, in words and as a function of an array of one output."""

    words: str
    holds: Callable[[NDArray[Any]], Any]


def _is_covariance(matrix: NDArray[Any]) -> bool:
    """Whether a matrix is symmetric and positive semi-definite but for rounding."""
    if not np.all(np.isfinite(matrix)) or not np.all(np.diag(matrix) >= 0.0):
        return False
    scale = np.sqrt(np.diag(matrix))
    scale[scale == 0.0] = 1.0
    with np.errstate(over="ignore"):
        correlation = matrix / scale / scale[:, np.newaxis]
    if not np.all(np.isfinite(correlation)) or not np.allclose(
        correlation, correlation.T, rtol=0.0, atol=PSD_RTOL
    ):
        return False
    try:
        np.linalg.cholesky(correlation + PSD_RTOL * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def _is_partial_covariance(matrix: NDArray[Any]) -> bool:
    """The same of the rows that are known; of the others all is NaN."""
    known = ~np.isnan(np.diag(matrix))
    lost = np.isnan(matrix) | np.outer(known, known)
    return bool(np.all(lost)) and _is_covariance(matrix[np.ix_(known, known)])


ANY = _Range("numbers", lambda _: True)
FINITE = _Range("finite", np.isfinite)
NOT_NEGATIVE = _Range("zero or positive", lambda x: x >= 0)
KNOWN_OR_NAN = _Range("zero, positive or NaN", lambda x: np.isnan(x) | (x >= 0))
POSITIVE = _Range("positive and finite", lambda x: (x > 0) & np.isfinite(x))
VARIANCE = _Range("finite and not negative", lambda x: (x >= 0) & np.isfinite(x))
COVARIANCE = _Range("a covariance, symmetric and positive semi-definite", _is_covariance)
PARTIAL_COVARIANCE = _Range(
    "a covariance, symmetric and positive semi-definite", _is_partial_covariance
)


class _Expected(NamedTuple):
    """One value of the text: type and shape for one output, and its range."""

    what: str
    value: Any
    kind: type
    shape: tuple[int, ...]
    range: _Range


def _expected(
    attributes: Mapping[str, Any], roles: ColumnRoles, groupings: Sequence[Grouping]
) -> Iterator[_Expected]:
    """All numbers of a fit."""
    n_columns = attributes["n_features_in_"]
    has_coefficient = np.isin(np.arange(n_columns), roles.features)
    n_fixed = 1 + len(roles.fixed)
    sizes = {factor.name: len(factor.coefficient_names) for factor in roles.factors}
    sizes |= dict.fromkeys((*roles.blocks, RESIDUAL), 1)
    shapes = {name: () if s == 1 else (s, s) for name, s in sizes.items()}
    table: dict[str, tuple[type, tuple[int, ...], _Range]] = {
        "intercept_": (float, (), FINITE),
        "coef_": (
            float,
            (n_columns,),
            _Range("finite for features alone", lambda x: np.isfinite(x) == has_coefficient),
        ),
        "_coef_std": (
            float,
            (n_columns,),
            _Range("known for features alone", lambda x: np.isnan(x) | (x >= 0) & has_coefficient),
        ),
        "_intercept_std": (float, (), KNOWN_OR_NAN),
        "_vcov": (float, (n_fixed, n_fixed), PARTIAL_COVARIANCE),
        "_n": (float, (), POSITIVE),
        "_n_parameters": (int, (), NOT_NEGATIVE),
        "log_likelihood_": (float, (), ANY),
        "log_likelihood_mc_error_": (float, (), KNOWN_OR_NAN),
        "aic_": (float, (), ANY),
        "bic_": (float, (), ANY),
        "n_iter_": (int, (), POSITIVE),
        "n_products_": (int, (), NOT_NEGATIVE),
        "converged_": (bool, (), ANY),
        "singular_": (bool, (), ANY),
    }
    for name, (kind, shape, allowed) in table.items():
        yield _Expected(name, attributes[name], kind, shape, allowed)

    levels = {grouping.name: grouping.n_levels for grouping in groupings}
    covariance = {n: COVARIANCE if shape else VARIANCE for n, shape in shapes.items()}
    by_component: dict[str, dict[str, tuple[tuple[int, ...], _Range]]] = {
        "variance_components_": {n: (shapes[n], covariance[n]) for n in shapes},
        "variance_mc_error_": {n: (shapes[n], KNOWN_OR_NAN) for n in shapes},
        "effective_dof_": {n: ((), FINITE) for n in shapes if n != RESIDUAL},
        "alpha_": {n: ((), NOT_NEGATIVE) for n in roles.blocks},
        "random_effects_": {n: ((levels[n], sizes[n]), FINITE) for n in levels},
    }
    for name, entries in by_component.items():
        _require_keys(attributes[name], entries, name)
        for key, (shape, allowed) in entries.items():
            value = attributes[name][key]
            yield _Expected(f"{name} of {key!r}", value, float, shape, allowed)


def _check_values(
    attributes: Mapping[str, Any], roles: ColumnRoles, groupings: Sequence[Grouping]
) -> None:
    """Refuse numbers of another type, shape or range than a fit sets."""
    outputs = np.shape(attributes["intercept_"])
    if len(outputs) > 1 or 0 in outputs:
        raise ValueError(f"intercept_ has shape {outputs}")
    for expected in _expected(attributes, roles, groupings):
        _check_value(expected, outputs)
    _require_keys(attributes["_diagonal"], [factor.name for factor in roles.factors], "_diagonal")
    if not all(type(value) is bool for value in attributes["_diagonal"].values()):
        raise ValueError("_diagonal is not true or false for each factor")
    for name, values in CHOICES.items():
        if attributes[name] not in values:
            raise ValueError(f"{name} must be {' or '.join(map(repr, values))}")
    history = attributes["_history"]
    histories = history if outputs else [history]
    if not isinstance(history, list) or len(histories) != math.prod(outputs):
        raise ValueError("_history is not one list for each output")
    shapes = {
        name: np.shape(value)[len(outputs) :]
        for name, value in attributes["variance_components_"].items()
    }
    for iteration in (iteration for one in histories for iteration in one):
        _check_iteration(iteration, shapes)


def _check_iteration(iteration: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    _require_keys(iteration, ITERATION, "an iteration of _history")
    _text(iteration["step"])
    _require_keys(iteration["variances"], shapes, "the variances of _history")
    for name in ("deviance", "change"):
        _check_value(_Expected(f"_history {name}", iteration[name], float, (), ANY), ())
    for name, shape in shapes.items():
        value = iteration["variances"][name]
        _check_value(_Expected(f"_history of {name!r}", value, float, shape, ANY), ())


def _check_value(expected: _Expected, outputs: tuple[int, ...]) -> None:
    what, value, kind, shape, allowed = expected
    if np.shape(value) != (*outputs, *shape):
        raise ValueError(f"{what} has shape {np.shape(value)} and not {(*outputs, *shape)}")
    if np.shape(value) == ():
        valid = type(value) is kind
    else:
        valid = isinstance(value, np.ndarray) and value.dtype == np.dtype(kind)
    if not valid:
        raise ValueError(f"{what} is not of type {kind.__name__}")
    for one in value if outputs else [value]:
        if not np.all(allowed.holds(np.asarray(one))):
            raise ValueError(f"numbers in {what} are not {allowed.words}")


def _pack(value: object, what: str) -> Any:
    """Write a value in what JSON has; what it lacks becomes an object with one key."""
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.ndarray):
        if is_utc(value):
            packed = _pack(without_zone(value), what)
            return {**packed, "dtype": f"utc {packed['dtype']}"}
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


def _unpack(value: object) -> Any:
    if isinstance(value, list):
        return [_unpack(x) for x in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"float"}:
        if value["float"] not in NOT_FINITE:
            raise ValueError(f"it has {value['float']!r} for a number")
        return float(value["float"])
    if set(value) == {"tuple"}:
        return tuple(_unpack(value["tuple"]))
    if set(value) == {"dict"}:
        pairs = [(_unpack(k), _unpack(v)) for k, v in value["dict"]]
        return _distinct(pairs)
    if set(value) == {"array", "shape", "dtype"}:
        return _unpack_array(_unpack(value["array"]), value["shape"], value["dtype"])
    raise ValueError(f"it has an object with the keys {sorted(value)}")


def _unpack_array(flat: Any, shape: Any, dtype: Any) -> NDArray[Any]:
    if not isinstance(flat, list) or not isinstance(shape, list) or not isinstance(dtype, str):
        raise ValueError("an array needs a list of values, a shape and a type")
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(flat):
        raise ValueError(f"it cannot reshape array of {len(flat)} values to {shape}")
    times = TIMES.fullmatch(dtype)
    if times:
        _require_types(flat, (int,), dtype)
        array = np.array(flat, dtype=np.int64).view(times[2]).reshape(shape)
        return in_utc(array) if times[1] else array
    if dtype == "object":
        _require_types(flat, (int, float, bool, str, tuple), dtype)
        return np.fromiter(flat, dtype=object, count=len(flat)).reshape(shape)
    if dtype == "str":
        _require_types(flat, (str,), dtype)
        if len(flat) * max(map(len, flat), default=0) > PADDED_TEXT:
            raise ValueError("an array of strings is too large")
        return np.array(flat, dtype=np.str_).reshape(shape)
    if dtype == "bool":
        _require_types(flat, (bool,), dtype)
    elif NUMBERS.fullmatch(dtype):
        _require_types(flat, (int, float) if dtype.startswith("float") else (int,), dtype)
    else:
        raise ValueError(f"it has an array of type {dtype!r}")
    return np.array(flat, dtype=dtype).reshape(shape)


def _require_types(values: list[Any], allowed: tuple[type, ...], dtype: str) -> None:
    wrong = set(map(type, values)).difference(allowed)
    if wrong:
        raise ValueError(f"an array of type {dtype!r} has a value of type {wrong.pop().__name__}")
