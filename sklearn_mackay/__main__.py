"""``python -m sklearn_mackay``: fit the sleep study with every method, beside lme4's numbers."""

from __future__ import annotations

import time
import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from ._regressor import MacKayMixedRegressor
from .datasets import load_sleepstudy
from .frames.options import METHODS

# lmer(Reaction ~ Days + (Days | Subject)), lme4 1.1-31, REML and ML.
LME4: dict[str, tuple[float, ...]] = {
    "reml": (612.0897, 9.6043, 35.0717, 654.9410, 251.4051, 10.4673)
    + (2.2586, 9.1990, -40.3986, -8.6197, 1743.6283),
    "ml": (565.5153, 11.0554, 32.6822, 654.9410, 251.4051, 10.4673)
    + (2.8157, 9.0755, -40.0485, -8.6441, 1751.9393),
}
ROWS = (
    "Subject: Var(intercept)",
    "Subject: Cov(intercept, Days)",
    "Subject: Var(Days)",
    "Residual variance",
    "Fixed: intercept",
    "Fixed: Days",
    "Subject 308: intercept",
    "Subject 308: Days",
    "Subject 309: intercept",
    "Subject 309: Days",
    "-2 log-likelihood",
)


def main() -> None:
    """Fit, and print one table."""
    data = load_sleepstudy()
    print("Sleep study (Belenky et al. 2003): reaction time of 18 subjects over 10 days, 180 rows.")
    print("Model: reaction ~ days + (intercept and slope of days, correlated, by subject)\n")
    columns: dict[str, list[str]] = {}
    notes = []
    for method in METHODS:
        model = MacKayMixedRegressor(groups=[1], random_slopes={1: [0]}, method=method)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(data.data, data.target)  # the first fit of a process imports what it needs
            start = time.perf_counter()
            model.fit(data.data, data.target)
            seconds = time.perf_counter() - start
        notes += [f"{method}: {warning.message}" for warning in caught[:1]]
        columns[method] = [f"{value:.4f}" for value in _numbers(model)]
        columns[method] += [str(model.n_iter_), f"{seconds:.3f}"]
    for criterion, values in LME4.items():
        columns[f"lme4 {criterion}"] = [f"{value:.4f}" for value in values] + ["", ""]
    _print_table([*ROWS, "Iterations", "Seconds (warm)"], columns)
    print("\nlme4: version 1.1-31, published reference. 'mackay' reaches the optimum of 'reml'.")
    print("\n".join(notes), "(x0 is Days, x1 is Subject)")


def _numbers(model: Any) -> list[float]:
    Sigma = model.variance_components_["x1"]
    first, second = model.random_effects_["x1"][:2]
    return [
        Sigma[0, 0],
        Sigma[0, 1],
        Sigma[1, 1],
        model.variance_components_["residual"],
        model.intercept_,
        model.coef_[0],
        *first,
        *second,
        -2 * model.log_likelihood_,
    ]


def _print_table(rows: list[str], columns: dict[str, list[str]]) -> None:
    width = max(map(len, rows))
    print(" " * width + "".join(f"{name:>12}" for name in columns))
    for i, row in enumerate(rows):
        print(row.ljust(width) + "".join(f"{column[i]:>12}" for column in columns.values()))


if __name__ == "__main__":
    main()
