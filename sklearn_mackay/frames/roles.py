"""What the columns of X are for: grouping factors, slopes, fixed features and feature blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tables import Header, categorical_columns, check_in_memory, quoted

FIXED_BLOCK = "features"  # name of the fixed features as a block


@dataclass(frozen=True)
class FactorColumns:
    """The columns of one grouping factor.

    Parameters
    ----------
    name : str
        Name of the factor; "batch:sample" for an interaction.
    columns : tuple of int
        Positions in X of the label columns; empty if `fit` was given the labels.
    slopes : tuple of int
        Positions in X of the columns whose coefficient varies by level.
    intercept : bool
        Whether the intercept varies by level.
    coefficient_names : tuple of str
        "intercept" if it varies, then the slopes as given.
    """

    name: str
    columns: tuple[int, ...]
    slopes: tuple[int, ...]
    intercept: bool
    coefficient_names: tuple[str, ...]


@dataclass(frozen=True)
class ColumnRoles:
    """What the columns of X are for.

    Parameters
    ----------
    factors : tuple of FactorColumns
        The grouping factors, as given.
    fixed : tuple of int
        Positions of the fixed features.
    blocks : dict of str to tuple of int
        Positions of each feature block's columns.
    """

    factors: tuple[FactorColumns, ...]
    fixed: tuple[int, ...]
    blocks: dict[str, tuple[int, ...]]

    @property
    def slopes(self) -> tuple[int, ...]:
        """Positions of all slopes, factor by factor."""
        return tuple(slope for factor in self.factors for slope in factor.slopes)

    @property
    def has_array_factors(self) -> bool:
        """Whether `fit` was given labels, so that predicting needs them too."""
        return any(not factor.columns for factor in self.factors)

    @property
    def features(self) -> tuple[int, ...]:
        """Positions of all columns that have one coefficient."""
        in_blocks = [column for columns in self.blocks.values() for column in columns]
        return tuple(sorted([*self.fixed, *in_blocks])) if in_blocks else self.fixed


def resolve_roles(
    header: Header,
    X: object,
    parameters: Mapping[str, Any],
    array_factors: tuple[str, ...] = (),
) -> ColumnRoles:
    """Find the columns which the estimator's parameters name.

    Parameters
    ----------
    header : Header
        Names of the columns of X.
    X : data frame, array-like or sparse matrix
        X as the user gave it, for callables such as `make_column_selector`.
    parameters : mapping of str to object
        Of the estimator: `groups`, `random_slopes`, `fixed_features`, `feature_blocks` and `alpha`,
        which says whether the fixed features are a block of their own.
    array_factors : tuple of str
        Names of the factors whose labels `fit` was given.

    Returns
    -------
    roles : ColumnRoles
        Grouping factors, fixed features and feature blocks.
    """
    groups, fixed_features = parameters["groups"], parameters["fixed_features"]
    if groups is not None and array_factors:
        raise ValueError(
            "`groups` was given both to the constructor and to `fit`: use one of the two."
        )
    given = _read_factors(header, X, groups) or [(name, name, ()) for name in array_factors]
    slopes = _read_slopes(
        header, X, parameters["random_slopes"], {item: name for item, name, _ in given}
    )
    factors = []
    for _, name, columns in given:
        positions, intercept = slopes.get(name, ((), True))
        names = ("intercept",) * intercept + tuple(header.name(slope) for slope in positions)
        factors.append(FactorColumns(name, columns, positions, intercept, names))

    grouping = {column for factor in factors for column in factor.columns}
    for factor in factors:
        _check_not_grouping(header, factor.slopes, grouping, "random_slopes")
    factor_names = [factor.name for factor in factors]
    blocks = _read_blocks(header, X, parameters["feature_blocks"], grouping, factor_names)
    taken = grouping.union(*blocks.values())
    if fixed_features is None:
        fixed = tuple(column for column in range(header.n_columns) if column not in taken)
    else:
        fixed = resolve_columns(header, X, fixed_features, "fixed_features")
        _check_not_grouping(header, fixed, grouping, "fixed_features")
        _check_distinct(
            [header.name(column) for columns in (fixed, *blocks.values()) for column in columns],
            "fixed_features` and `feature_blocks",
        )
    if isinstance(parameters["alpha"], str) and fixed:
        if FIXED_BLOCK in {*blocks, *factor_names}:
            raise ValueError(
                f"With alpha='auto' the fixed features are the block {FIXED_BLOCK!r}: give the "
                "grouping factor or feature block of that name another one."
            )
        blocks, fixed = {FIXED_BLOCK: fixed, **blocks}, ()
    return ColumnRoles(tuple(factors), fixed, blocks)


def _read_blocks(
    header: Header,
    X: object,
    feature_blocks: Any,
    grouping: Collection[int],
    factors: Collection[str],
) -> dict[str, tuple[int, ...]]:
    """Columns of each feature block."""
    if feature_blocks is None:
        return {}
    if not isinstance(feature_blocks, Mapping):
        raise ValueError(
            "`feature_blocks` must be a dict such as {'genes': ['g1', 'g2']}, "
            f"not a {type(feature_blocks).__name__}."
        )
    blocks: dict[str, tuple[int, ...]] = {}
    for name, columns in feature_blocks.items():
        if name in factors:
            raise ValueError(f"`feature_blocks` has the name {name!r} of a grouping factor.")
        blocks[name] = resolve_columns(header, X, columns, "feature_blocks")
        if not blocks[name]:
            raise ValueError(f"`feature_blocks` has no columns for {name!r}.")
        _check_not_grouping(header, blocks[name], grouping, "feature_blocks")
    every = [header.name(column) for columns in blocks.values() for column in columns]
    _check_distinct(every, "feature_blocks")
    return blocks


def resolve_columns(header: Header, X: object, columns: Any, parameter: str) -> tuple[int, ...]:
    """Find the columns which a parameter lists.

    Parameters
    ----------
    header : Header
        Names of the columns of X.
    X : data frame, array-like or sparse matrix
        X as the user gave it, for callables.
    columns : str, int, list of these, boolean mask or callable
        The columns.
    parameter : str
        Name of the parameter, for messages.

    Returns
    -------
    positions : tuple of int
        Positions in X, as listed.
    """
    listed = _list_columns(header, X, columns, parameter)
    positions = tuple(_position(header, column, parameter) for column in listed)
    _check_distinct([header.name(position) for position in positions], parameter)
    return positions


def _read_factors(
    header: Header, X: object, groups: object
) -> list[tuple[Any, str, tuple[int, ...]]]:
    """List each factor as given, its name and its columns."""
    if groups is None:
        return []
    if isinstance(groups, str) and groups == "from_dtype":
        groups = categorical_columns(X)
    elif isinstance(groups, tuple):
        groups = [groups]
    factors = []
    for item in _list_columns(header, X, groups, "groups"):
        parts = item if isinstance(item, tuple) else (item,)
        columns = tuple(_position(header, part, "groups") for part in parts)
        names = [header.name(column) for column in columns]
        if not names:
            raise ValueError("`groups` has an empty tuple: name the columns of the interaction.")
        _check_distinct(names, "groups")
        factors.append((item, ":".join(names), columns))
    # ("a", "b") and ("b", "a") are one factor.
    _check_distinct([":".join(sorted(name.split(":"))) for _, name, _ in factors], "groups")
    return factors


def _read_slopes(
    header: Header, X: object, random_slopes: Any, name_of: Mapping[Any, str]
) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Slope columns and random intercept of the factors that `random_slopes` names."""
    if random_slopes is None:
        return {}
    if not isinstance(random_slopes, Mapping):
        raise ValueError(
            "`random_slopes` must be a dict such as {'subject': ['days']}, "
            f"not a {type(random_slopes).__name__}."
        )
    slopes: dict[str, tuple[tuple[int, ...], bool]] = {}
    for key, value in random_slopes.items():
        name = key if key in name_of.values() else name_of.get(key)
        if name is None:
            raise ValueError(
                f"`random_slopes` has the key {key!r}, which is not a grouping factor; "
                f"the factors are: {quoted(name_of.values()) or 'none'}."
            )
        if name in slopes:
            raise ValueError(f"`random_slopes` lists the factor {name!r} more than once.")
        options = value if isinstance(value, Mapping) else {"slopes": value}
        if not options.keys() <= {"slopes", "intercept"}:
            raise ValueError(
                f"`random_slopes` of {name!r} may have the keys 'slopes' and 'intercept', "
                f"but has {quoted(options)}."
            )
        positions = resolve_columns(header, X, options.get("slopes", []), "random_slopes")
        intercept = bool(options.get("intercept", True))
        if not positions and not intercept:
            raise ValueError(
                f"`random_slopes` leaves factor {name!r} without intercept and slopes: "
                "name a slope or keep the intercept."
            )
        slopes[name] = positions, intercept
    return slopes


def _list_columns(header: Header, X: object, columns: Any, parameter: str) -> list[Any]:
    """List columns given as one name or position, several, a boolean mask or a callable."""
    if callable(columns):
        check_in_memory(X, "X")
        columns = columns(X)
    if isinstance(columns, (str, int, np.integer)):
        return [columns]
    if isinstance(columns, Mapping) or not isinstance(columns, Iterable):
        raise ValueError(
            f"`{parameter}` takes names or positions of columns, a boolean mask or a callable, "
            f"not a {type(columns).__name__}."
        )
    listed = list(columns)
    if not listed or not all(isinstance(column, (bool, np.bool_)) for column in listed):
        return listed
    if len(listed) != header.n_columns:
        raise ValueError(
            f"`{parameter}` is a mask of length {len(listed)}, but X has {header.n_columns} "
            "columns."
        )
    return [position for position, chosen in enumerate(listed) if chosen]


def _position(header: Header, column: Any, parameter: str) -> int:
    """Position of one column given by name or position."""
    if isinstance(column, str):
        return _named_position(header, column, parameter)
    if not isinstance(column, (int, np.integer)) or isinstance(column, bool):
        raise ValueError(f"`{parameter}`: {column!r} is neither a name nor a position of a column.")
    if not -header.n_columns <= column < header.n_columns:
        raise ValueError(
            f"`{parameter}` asks for column {column}, but X has {header.n_columns} columns."
        )
    return int(column) % header.n_columns


def _named_position(header: Header, name: str, parameter: str) -> int:
    if header.names is None:
        raise ValueError(
            f"`{parameter}` asks for column {name!r}, but X has no column names: "
            "use positions or pass a data frame. A transformer before this step passes one on "
            "after `set_output(transform='pandas')`."
        )
    if name in header.positions:
        return header.positions[name]
    message = f"`{parameter}`: column {name!r} not found; "
    renamed = [found for found in header.names if found.endswith(f"__{name}")]
    if renamed:
        raise ValueError(
            f"{message}found {quoted(renamed)}: use `verbose_feature_names_out=False` in the "
            f"ColumnTransformer, or write {renamed[0]!r} in `{parameter}`."
        )
    parts = tuple(re.split("[:/]", name))
    if len(parts) > 1 and all(part in header.positions for part in parts):
        raise ValueError(f"{message}an interaction of columns is a tuple: {parts!r}.")
    raise ValueError(f"{message}the columns of X are: {quoted(header.names)}.")


def _check_distinct(names: Collection[str], parameter: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"`{parameter}` lists {quoted(repeated)} more than once.")


def _check_not_grouping(
    header: Header, columns: Iterable[int], grouping: Collection[int], parameter: str
) -> None:
    both = [header.name(column) for column in columns if column in grouping]
    if both:
        raise ValueError(
            f"`{parameter}` lists {quoted(both)}, also a grouping column: "
            f"take it out of `{parameter}` or out of `groups`."
        )
