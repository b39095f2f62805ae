"""Compare the iterative engine with the exact one on problems that both can solve.

For each layout and seed both engines fit the same data. The table holds the largest differences: of
fixed effects in their standard errors, of variances in theirs (taken as
``variance sqrt(2 / levels)``, which is less than the true one), and the iterative engine's work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_mackay import MacKayMixedRegressor

DATA = Path(__file__).parents[1] / "tests" / "data"
BETA, VARIANCE = 0.01, 0.1  # largest differences that are no disagreement


def crossed(*levels: int, n: int, slopes: bool = False, nested: int = 0) -> Callable[..., Any]:
    """Uneven levels of crossed factors, the first perhaps with a slope or within a coarser one."""

    def draw(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, dict[str, Any]]:
        frame = pd.DataFrame({"x": rng.normal(size=n)})
        y = 1.0 + 0.5 * frame["x"].to_numpy() + rng.normal(size=n)
        codes = [np.minimum((L * rng.random(n) ** 1.5).astype(int), L - 1) for L in levels]
        if nested:
            codes.append(codes[0] % nested)
        for k, code in enumerate(codes):
            frame[f"g{k}"] = code
            y += np.sqrt(0.3) * rng.normal(size=code.max() + 1)[code]
        if slopes:
            y += 0.5 * rng.normal(size=levels[0])[codes[0]] * frame["x"].to_numpy()
        parameters: dict[str, Any] = {"groups": [f"g{k}" for k in range(len(codes))]}
        return frame, y, parameters | ({"random_slopes": {"g0": ["x"]}} if slopes else {})

    return draw


def zipf(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, dict[str, Any]]:
    """Counts of a power law in one factor."""
    n = 5_000
    return _two(rng, rng.integers(700, size=n), np.minimum(rng.zipf(1.6, size=n), 500) - 1)


def two_rows(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, dict[str, Any]]:
    """Each level of either factor has two rows."""
    pairs = np.arange(3_000) // 2
    return _two(rng, rng.permutation(pairs), rng.permutation(pairs))


def _two(rng: np.random.Generator, *codes: np.ndarray) -> Any:
    frame = pd.DataFrame({"x": rng.normal(size=len(codes[0]))})
    y = 1.0 + 0.5 * frame["x"].to_numpy() + rng.normal(size=len(frame))
    for k, code in enumerate(codes):
        frame[f"g{k}"] = code
        y += 0.7 * rng.normal(size=code.max() + 1)[code]
    return frame, y, {"groups": ["g0", "g1"]}


def insteval(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, dict[str, Any]]:
    """The same data whatever the seed; the probes differ."""
    frame = pd.read_csv(DATA / "insteval.csv.gz")
    return frame.drop(columns="y"), frame["y"].to_numpy(), {"groups": ["s", "d", "dept"]}


LAYOUTS = {
    "InstEval": insteval,
    "5,000 x 3,000": crossed(5_000, 3_000, n=100_000),
    "slopes on one factor": crossed(1_000, 400, n=20_000, slopes=True),
    "three crossed": crossed(800, 500, 300, n=20_000),
    "nested within crossed": crossed(900, 400, n=20_000, nested=90),
    "Zipf counts": zipf,
    "two rows a level": two_rows,
}


def differences(draw: Callable[..., Any], seed: int) -> dict[str, float]:
    """Fit with both engines and compare."""
    X, y, parameters = draw(np.random.default_rng(seed))
    exact, iterative = (
        MacKayMixedRegressor(**parameters, solver=solver, random_state=seed).fit(X, y)
        for solver in ("exact", "iterative")
    )
    beta = np.nanmax(np.abs(iterative.coef_ - exact.coef_) / exact.coef_std_)
    by_variance = []
    for name, expected in exact.variance_components_.items():
        levels = len(exact.group_levels_.get(name, y))
        variances = np.diag(np.atleast_2d(expected))
        moved = np.diag(np.atleast_2d(iterative.variance_components_[name])) - variances
        by_variance.append(np.max(np.abs(moved) / (variances * np.sqrt(2 / levels))))
    return {
        "beta": float(beta),
        "variances": float(max(by_variance)),
        "steps": iterative.n_iter_,
        "products": iterative.n_products_,
    }


def main() -> None:
    """Print a row for each layout; fail where an answer is too far."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    arguments = parser.parse_args()
    print("| layout | seeds | beta, in s.e. | variances, in s.e. | steps | products |")
    print("| --- | --- | --- | --- | --- | --- |")
    furthest = [0.0, 0.0]
    for name in arguments.layout:
        rows = [differences(LAYOUTS[name], seed) for seed in range(arguments.seeds)]
        most = {key: max(row[key] for row in rows) for key in rows[0]}
        print(
            f"| {name} | {arguments.seeds} | {most['beta']:.1e} | {most['variances']:.1e} | "
            f"{most['steps']} | {most['products']} |",
            flush=True,
        )
        furthest = [max(furthest[0], most["beta"]), max(furthest[1], most["variances"])]
    if furthest[0] > BETA or furthest[1] > VARIANCE:
        raise SystemExit("The engines disagree.")


if __name__ == "__main__":
    main()
