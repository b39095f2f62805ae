"""The workloads: what is fitted to which data, what is timed and what is compared.

Synthetic data are drawn anew in each process, from a fixed seed, so that nothing large is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[1] / "tests" / "data"


@dataclass(frozen=True)
class Workload:
    """A model and its data.

    Attributes
    ----------
    title : str
        One line.
    groups : tuple of str
        Grouping columns.
    features : tuple of str
        Fixed columns.
    load : callable
        ``load(fast) -> DataFrame`` with the response "y"; `fast` asks for a small version.
    peers : tuple of str
        Programs to compare with.
    slopes : dict
        Random slopes by group.
    small_peers : tuple of str
        Programs to compare with in the small version only, as the full one takes them minutes.
    predictions : int
        How many predictions of one row a request makes, timing the median; 0 to time the fit.
    compared : str
        The answer that is compared with ours.
    """

    title: str
    groups: tuple[str, ...]
    features: tuple[str, ...]
    load: Callable[[bool], pd.DataFrame]
    peers: tuple[str, ...]
    slopes: dict[str, list[str]] = field(default_factory=dict)
    small_peers: tuple[str, ...] = ()
    predictions: int = 0
    compared: str = "variance_components"

    @property
    def formula(self) -> str:
        """The model in lme4's notation."""
        terms = [
            f"({' + '.join(['1', *self.slopes.get(group, [])])} | {group})" for group in self.groups
        ]
        return f"y ~ {' + '.join([*self.features, *terms])}"

    def default_peers(self, fast: bool) -> list[str]:
        """Return the programs to compare with where none are named."""
        return [*self.peers, *(self.small_peers if fast else ())]


def _sleepstudy(fast: bool) -> pd.DataFrame:
    return pd.read_csv(DATA / "sleepstudy.csv").rename(columns={"Reaction": "y"})


def _insteval(fast: bool) -> pd.DataFrame:
    frame = pd.read_csv(DATA / "insteval.csv.gz")
    return frame[frame["s"] % 4 == 0] if fast else frame


def _many_groups(fast: bool) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n_groups = 2_000 if fast else 125_000
    group = np.repeat(np.arange(n_groups), 4)
    x = rng.normal(size=len(group))
    b = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.3], [0.3, 0.5]], size=n_groups)
    y = 1.0 + 2.0 * x + b[group, 0] + b[group, 1] * x + rng.normal(size=len(group))
    return pd.DataFrame({"y": y, "x": x, "g": group})


def _many_levels(fast: bool) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n_groups = 5_000 if fast else 100_000
    group = np.append(np.arange(n_groups), rng.integers(n_groups, size=2 * n_groups))
    x1, x2 = rng.normal(size=(2, len(group)))
    y = 3.5 + 0.1 * x1 - 0.2 * x2 + rng.normal(size=len(group))
    y += np.sqrt(0.5) * rng.normal(size=n_groups)[group]
    return pd.DataFrame({"y": y, "x1": x1, "x2": x2, "group": group})


def _crossed(n_users: int, n_items: int, n: int) -> Callable[[bool], pd.DataFrame]:
    def load(fast: bool) -> pd.DataFrame:
        scale = max(50, n // 100_000) if fast else 1
        users, items, rows = n_users // scale, n_items // scale, n // scale
        rng = np.random.default_rng(0)
        user = _popular(rng, users, 0.7, rows)
        item = _popular(rng, items, 1.0, rows)
        frame = {"x1": rng.normal(size=rows), "x2": rng.normal(size=rows)}
        y = 3.5 + 0.1 * frame["x1"] - 0.2 * frame["x2"]
        y += np.sqrt(0.2) * rng.normal(size=users)[user]
        y += np.sqrt(0.3) * rng.normal(size=items)[item]
        y += np.sqrt(0.75) * rng.normal(size=rows)
        return pd.DataFrame({"y": y, **frame, "user": user, "item": item}, copy=False)

    return load


def _popular(rng: np.random.Generator, n_levels: int, exponent: float, n: int) -> np.ndarray:
    """Levels drawn with probability proportional to (rank + 20)^-exponent."""
    shares = np.cumsum((np.arange(n_levels) + 20.0) ** -exponent)
    drawn = np.searchsorted(shares / shares[-1], rng.random(n))
    return np.minimum(drawn, n_levels - 1).astype(np.int32)


def _movies(name: str, n_users: int, n_items: int, n: int, peers: tuple[str, ...]) -> Workload:
    return Workload(
        f"{name}: {n_users:,} x {n_items:,} crossed, n = {n:,}, two covariates",
        ("user", "item"),
        ("x1", "x2"),
        _crossed(n_users, n_items, n),
        peers,
    )


WORKLOADS = {
    "P1": Workload(
        "P1: sleepstudy, correlated slope",
        ("Subject",),
        ("Days",),
        _sleepstudy,
        ("lme4", "glmm", "mixedlm", "mixedlm-rs", "statsmodels"),
        {"Subject": ["Days"]},
    ),
    "P2": Workload(
        "P2: InstEval, three crossed factors, n = 73,421",
        ("s", "d", "dept"),
        ("service",),
        _insteval,
        ("lme4", "glmm", "mixedlm"),
    ),
    "P3": Workload(
        "P3: 125,000 groups, intercept and slope, n = 500,000",
        ("g",),
        ("x",),
        _many_groups,
        ("glmm", "mixedlm", "mixedlm-rs"),
        {"g": ["x"]},
        small_peers=("statsmodels",),
    ),
    "P4": _movies("P4", 50_000, 10_000, 1_000_000, ("gpboost",)),
    "P5": _movies("P5", 138_000, 27_000, 20_000_000, ()),
    "P6": _movies("P6", 1_000_000, 100_000, 100_000_000, ()),
    "P8": Workload(
        "P8: predict one row, 100,000 known levels, n = 300,000",
        ("group",),
        ("x1", "x2"),
        _many_levels,
        ("lme4", "mixedlm", "gpboost", "scikit-learn"),
        predictions=100,
        compared="prediction",
    ),
}
