"""Fitted attributes from estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import Array


def stacked(outputs: Sequence[Any]) -> Any:
    """Attributes of several responses: numbers and arrays along a new first axis."""
    first = outputs[0]
    if isinstance(first, dict):
        return {key: stacked([output[key] for output in outputs]) for key in first}
    if isinstance(first, str):
        return first
    return list(outputs) if isinstance(first, list) else np.array(outputs)


def by_component(matrices: Mapping[str, Any]) -> dict[str, float | Array]:
    """Covariances as users see them: a number where there is one coefficient."""
    return {name: np.asarray(S).item() if np.size(S) == 1 else S for name, S in matrices.items()}


def penalty_of(sigma2: float, variance: float) -> float:
    """Ridge penalty that a prior variance stands for, equation (11) of docs/theory.md."""
    return sigma2 / variance if variance > 0 else float(np.inf)
