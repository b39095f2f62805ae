"""P7: data on which ridge regression needs more than one penalty, or many columns or rows.

Each round draws new data from its own seed; programs are compared by the R2 of rows held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to predict."""

    X: Any
    y: np.ndarray
    X_new: Any
    y_new: np.ndarray


@dataclass(frozen=True)
class PenaltyWorkload:
    """A comparison of regularised regressions.

    Attributes
    ----------
    title : str
        One line.
    draw : callable
        ``draw(fast, seed) -> Split``; `fast` asks for small data.
    parameters : dict
        Of ours.
    peers, small_peers : tuple of str
        Programs to compare with; those that only the small data let finish.
    """

    title: str
    draw: Callable[[bool, int], Split]
    parameters: dict[str, Any]
    peers: tuple[str, ...]
    small_peers: tuple[str, ...] = ()
    compared: str = field(default="r2", init=False)

    @property
    def formula(self) -> str:
        """What ours is asked for."""
        return f"MacKayMixedRegressor({', '.join(f'{k}=...' for k in self.parameters)})"

    def default_peers(self, fast: bool) -> list[str]:
        """Return the programs to compare with where none are named."""
        return [*self.peers, *(self.small_peers if fast else ())]


def _split(X: Any, y: np.ndarray, held_out: np.ndarray) -> Split:
    return Split(X[~held_out], y[~held_out], X[held_out], y[held_out])


def _zipf(rng: np.random.Generator, n_levels: int, n: int) -> np.ndarray:
    shares = np.cumsum(1.0 / (np.arange(n_levels) + 10.0))
    return np.minimum(np.searchsorted(shares / shares[-1], rng.random(n)), n_levels - 1)


def customers(fast: bool, seed: int) -> Split:
    """Customers in states who buy products; effects of variance 0.5, 0.1 and 1, noise 1."""
    rng = np.random.default_rng(seed)
    n, n_customers = (2_500, 600) if fast else (125_000, 100_000)
    customer, product = _zipf(rng, n_customers, n), _zipf(rng, n_customers // 200, n)
    state = rng.integers(50, size=n_customers)[customer]
    y = 3.0 + rng.normal(size=n)
    for codes, variance in ((customer, 0.5), (state, 0.1), (product, 1.0)):
        y += np.sqrt(variance) * rng.normal(size=codes.max() + 1)[codes]
    frame = pd.DataFrame({"customer": customer, "state": state, "product": product})
    return _split(frame, y, rng.random(n) < 0.2)


BANDS = {"strong": 20, "weak": 100, "none": 400}


def bands(fast: bool, seed: int) -> Split:
    """Blocks that explain 45, 15 and 0 parts of y, noise 40."""
    rng = np.random.default_rng(seed)
    n = 200 if fast else 600
    X = [rng.normal(size=(n, p)) for p in BANDS.values()]
    y = np.sqrt(0.4) * rng.normal(size=n)
    for columns, share in zip(X, (0.45, 0.15, 0.0), strict=True):
        p = columns.shape[1]
        y += columns @ rng.normal(size=p) * np.sqrt(share / p)
    return _split(np.hstack(X), y, np.arange(n) < n // 2)


def _band_positions() -> dict[str, range]:
    ends = np.cumsum([0, *BANDS.values()]).tolist()
    pairs = zip(ends[:-1], ends[1:], strict=True)
    return {name: range(*pair) for name, pair in zip(BANDS, pairs, strict=True)}


def _dense(n: int, p: int) -> Callable[[bool, int], Split]:
    def draw(fast: bool, seed: int) -> Split:
        """Columns with a common part, half of y explained."""
        rng = np.random.default_rng(seed)
        rows, columns = (n // 10, p // 10) if fast else (n, p)
        held_out = np.arange(rows + 1_000) >= rows
        factors = rng.normal(size=(len(held_out), 5))
        X = rng.normal(size=(len(held_out), columns))
        X += factors @ rng.normal(size=(5, columns))
        signal = X @ rng.normal(size=columns)
        y = signal / np.std(signal) + rng.normal(size=len(held_out))
        return _split(X, y, held_out)

    return draw


PENALTY_WORKLOADS = {
    "P7": PenaltyWorkload(
        "P7: 100,000 customers, 50 states, 500 products, n = 100,000 and 25,000 held out",
        customers,
        {"groups": ["customer", "state", "product"]},
        ("one penalty, grid", "three penalties, grid", "target encoding"),
        ("one penalty, RidgeCV", "BayesianRidge"),
    ),
    "P7-bands": PenaltyWorkload(
        "P7-bands: blocks of 20, 100 and 400 columns, n = 300 and 300 held out",
        bands,
        {"feature_blocks": _band_positions()},
        ("one penalty, RidgeCV", "BayesianRidge", "himalaya GroupRidgeCV"),
    ),
    "P7-wide": PenaltyWorkload(
        "P7-wide: 100,000 columns, n = 500 and 1,000 held out",
        _dense(500, 100_000),
        {"alpha": "auto"},
        ("Ridge(1.0)", "one penalty, RidgeCV", "himalaya RidgeCV"),
    ),
    "P7-tall": PenaltyWorkload(
        "P7-tall: 200 columns, n = 1,000,000 and 1,000 held out",
        _dense(1_000_000, 200),
        {"alpha": "auto"},
        ("Ridge(1.0)", "one penalty, RidgeCV", "himalaya Ridge(1.0)"),
    ),
}
