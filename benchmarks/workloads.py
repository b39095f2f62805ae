"""The workloads: what is fitted to which data, what is timed and what is compared.

Synthetic data are drawn anew in each process, from a fixed seed, so that nothing large is stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sklearn_mackay"


def _load_module(path: Path) -> ModuleType:
    """Load one module of the package, which the peers' interpreter does not have."""
    spec = spec_from_file_location(f"sklearn_mackay_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATASETS = _load_module(PACKAGE / "datasets.py")


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
    return pd.read_csv(PACKAGE / "data" / "sleepstudy.csv").rename(columns={"Reaction": "y"})


def _insteval(fast: bool) -> pd.DataFrame:
    frame = pd.read_csv(ROOT / "tests" / "data" / "insteval.csv.gz")
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


def _ratings(
    name: str,
    n_users: int,
    n_items: int,
    n: int,
    peers: tuple[str, ...] = (),
    n_features: int = 2,
    **law: float | dict[str, float],
) -> Workload:
    def load(fast: bool) -> pd.DataFrame:
        scale = max(50, n // 100_000) if fast else 1
        sizes = (size // scale for size in (n, n_users, n_items))
        frame, y = DATASETS.make_ratings(
            *sizes, n_features=n_features, random_state=0, as_frame=True, **law
        )
        frame.insert(0, "y", y)
        return frame

    covariates = "two covariates" if n_features else "no covariates"
    return Workload(
        f"{name}: {n_users:,} x {n_items:,} crossed, n = {n:,}, {covariates}",
        ("user", "item"),
        tuple(f"x{j}" for j in range(1, n_features + 1)),
        load,
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
    "P4": _ratings("P4", 50_000, 10_000, 1_000_000, ("gpboost",)),
    "P5": _ratings("P5", 138_000, 27_000, 20_000_000),
    "P6": _ratings("P6", 1_000_000, 100_000, 100_000_000),
    "P8": Workload(
        "P8: predict one row, 100,000 known levels, n = 300,000",
        ("group",),
        ("x1", "x2"),
        _many_levels,
        ("lme4", "mixedlm", "gpboost", "scikit-learn"),
        predictions=100,
        compared="prediction",
    ),
    "P9": _ratings(
        "P9",
        200_948,
        84_432,
        32_000_204,
        n_features=0,
        user_exponent=0.8,
        item_exponent=1.25,
        user_shift=50.0,
        item_shift=30.0,
        variances={"user": 0.185, "item": 0.25, "residual": 0.7225},
    ),
}
