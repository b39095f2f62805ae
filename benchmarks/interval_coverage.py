"""How often 95 % intervals hold, with few groups and with many.

Each data set has five rows a group, one covariate, and variances of 1 between and within groups.
The intervals are for one new row of a known group, one row of a new group, the covariate's
coefficient and the intercept; those of coefficients have t quantiles with Satterthwaite's degrees
of freedom.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

from sklearn_mackay import MacKayMixedRegressor

ROWS_PER_GROUP = 5
COLUMNS = ("known group", "new group", "coefficient", "intercept")


def covered(n_groups: int, rng: np.random.Generator) -> list[bool]:
    """Draw one data set and two new rows, fit, and look which intervals hold."""
    group = np.append(np.repeat(np.arange(n_groups), ROWS_PER_GROUP), [0, n_groups])
    x = rng.normal(size=len(group))
    y = 1.0 + 0.5 * x + rng.normal(size=n_groups + 1)[group] + rng.normal(size=len(group))
    X = np.column_stack([x, group])
    model = MacKayMixedRegressor(groups=[1]).fit(X[:-2], y[:-2])
    rows = model.predict_interval(X[-2:])
    coefficients = model.fixed_effects().interval(0.95)[::-1]
    truth = [*y[-2:], 0.5, 1.0]
    return [low <= t <= high for (low, high), t in zip([*rows, *coefficients], truth, strict=True)]


def main() -> None:
    """Print a row for each number of groups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2_000, metavar="N")
    parser.add_argument("--groups", type=int, nargs="+", default=[6, 10, 50])
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    print(f"| groups | {' | '.join(COLUMNS)} |")
    print(f"| --- |{' --- |' * len(COLUMNS)}")
    for n_groups in arguments.groups:
        rng = np.random.default_rng(n_groups)
        held = [covered(n_groups, rng) for _ in range(arguments.simulations)]
        shares = " | ".join(f"{100 * share:.1f} %" for share in np.mean(held, axis=0))
        print(f"| {n_groups} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
