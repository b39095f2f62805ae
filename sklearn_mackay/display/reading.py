"""What plots read of a fitted estimator: the only place of the room that looks inside one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._arrays import Array
from ..frames.roles import ColumnRoles


class FittedEstimator(Protocol):
    """A fitted mixed model of one output."""

    groups_: list[str]
    random_effects_: dict[str, Array]
    group_levels_: dict[str, NDArray[Any]]
    _roles: ColumnRoles

    @property
    def random_effects_std_(self) -> dict[str, Array]:
        """Standard deviations of the errors of the effects."""
        ...

    @property
    def history_(self) -> Sequence[Mapping[str, Any]]:
        """Iterations."""
        ...

    def profile(self, parameter: str, n_points: int) -> Curve:
        """Profile of a parameter."""
        ...

    def predict(self, X: object, groups: object, *, effects: list[str]) -> Array:
        """Predictions with some of the effects."""
        ...

    def _require_labels(self, groups: object) -> None: ...

    def _read_rows(self, X: object, groups: object, effects: object) -> RowsOfFactors: ...


class RowsOfFactors(Protocol):
    """New rows, as the estimator has read them."""

    @property
    def factors(self) -> Mapping[str, tuple[NDArray[np.integer[Any]], Array]]:
        """Level of each row, -1 for one not known, and the columns (s, n) of its coefficients."""
        ...


class Curve(Protocol):
    """A profile."""

    @property
    def parameter(self) -> str:
        """Its name."""
        ...

    @property
    def values(self) -> Array:
        """Where it was held."""
        ...

    @property
    def zeta(self) -> Array:
        """Signed root of the rise of the deviance there."""
        ...

    @property
    def estimate(self) -> float:
        """Where the deviance is least."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds at 95 %."""
        ...


def model_inside(
    estimator: object, X: object = None, y: object = None
) -> tuple[FittedEstimator, object, object]:
    """Find the fitted mixed model in an estimator, and rows as they reach it."""
    model: Any = estimator
    passed = []
    while not hasattr(model, "random_effects_"):
        check_is_fitted(model)
        passed.append(type(model).__name__)
        if isinstance(model, Pipeline):
            before, model = model[:-1], model[-1]
            X = before.transform(X) if len(before) and X is not None else X
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, TransformedTargetRegressor):
            y = y if y is None else _transformed_target(model.transformer_, y)
            model = model.regressor_
        else:
            raise TypeError(
                "Expected `estimator` to be a fitted MacKayMixedRegressor, or a pipeline, a search "
                f"or a TransformedTargetRegressor of one, got {' of '.join(passed)}."
            )
    if np.ndim(model.intercept_):
        raise ValueError(
            "This model was fitted on several outputs: to display it fit one, with y of shape "
            "(n_samples,)."
        )
    return model, X, y


def _transformed_target(transformer: Any, y: object) -> Any:
    """A response as TransformedTargetRegressor hands it on: a column to transform, and back."""
    y = np.asarray(y)
    return transformer.transform(y[:, np.newaxis]).ravel() if y.ndim == 1 else y


def names_of_coefficients(estimator: FittedEstimator, factor: str) -> tuple[str, ...]:
    """Names of a factor's coefficients, "intercept" first if it varies by level."""
    names: dict[str, tuple[str, ...]] = {
        columns.name: columns.coefficient_names for columns in estimator._roles.factors
    }
    return names[factor]


def level_rows(
    estimator: FittedEstimator, factor: str, X: object, groups: object
) -> tuple[NDArray[np.integer[Any]], Array]:
    """Level of each row, -1 for one not known, and the columns (s, n) of its coefficients."""
    estimator._require_labels(groups)
    return estimator._read_rows(X, groups, [factor]).factors[factor]
