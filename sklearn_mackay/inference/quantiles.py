"""Probabilities of intervals, and the quantiles that they stand for."""

from __future__ import annotations

from numbers import Real

from scipy.special import ndtri


def normal_quantile(level: object) -> float:
    """Half width of the interval that holds a standard normal variable with probability `level`."""
    return float(ndtri(0.5 + 0.5 * check_level(level)))


def check_level(level: object) -> float:
    """Return a probability, or refuse it."""
    if not (isinstance(level, Real) and 0 < float(level) < 1):
        raise ValueError(f"`level` must be a probability between 0 and 1, got {level!r}.")
    return float(level)
