"""Fit random models whose slopes tell less than they seem to, and hold each against dense algebra.

Slopes that are constant within levels, collinear, one-hot, nested or in two units; covariances full
and diagonal; REML and ML; precision weights; levels of one row whose residual variance is given.
The deviance is compared with the least of several optimisations of a dense twin (`stress.Problem`),
the number of parameters with the rank of the dense derivatives of ``V``, and `confint` must end.

    python benchmarks/identification.py --models 300
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from stress import Problem
from threadpoolctl import threadpool_limits

from sklearn_mackay import MacKayMixedRegressor

Array = np.ndarray

LOSS = 1e-6  # deviance above the reference that is an answer beside the optimum
RANK = 1e-6  # singular value of the derivatives of V, in unit columns, that tells nothing
KINDS = ("plain", "constant", "two values", "collinear", "one-hot", "nested", "two units", "zero")


@dataclass
class Model:
    """A model as a user gives it, and the columns of its levels.

    Attributes
    ----------
    kind : str
        What its slopes are like.
    X, y, weights : DataFrame, ndarray, ndarray
        Rows; the weights are precisions.
    arguments : dict
        Of the estimator.
    Z : list of ndarray of shape (n, L, s)
        Columns of each factor's levels and coefficients, in unit mean square.
    """

    kind: str
    X: pd.DataFrame
    y: Array
    weights: Array
    arguments: dict[str, Any]
    Z: list[Array]

    @property
    def diagonal(self) -> bool:
        """Whether coefficients are uncorrelated."""
        return self.arguments["covariance"] == "diagonal"

    @property
    def residual(self) -> bool:
        """Whether the residual variance is estimated."""
        return "fixed_variances" not in self.arguments


def draw(seed: int) -> Model:
    """Draw a model."""
    rng = np.random.default_rng(seed)
    n, L = int(rng.integers(40, 90)), int(rng.integers(6, 14))
    kind = str(rng.choice(KINDS))
    g = np.concatenate([np.arange(L), rng.integers(L, size=n - L)])
    is_meta = kind == "plain" and rng.random() < 0.5
    if is_meta:
        g = np.arange(n)
    h = rng.integers(2, size=n)
    slopes = {} if is_meta else _slopes(kind, g, h, rng)
    intercept = kind == "plain" or bool(rng.random() < 0.7)
    one = np.ones(n)
    random_slopes = {"g": {"slopes": list(slopes), "intercept": intercept}}
    Z = [_columns(g, [one] * intercept + list(slopes.values()))]
    groups: list[Any] = ["g"]
    if kind == "nested":
        groups.append(("g", "h"))
        _, inner = np.unique(2 * g + h, return_inverse=True)
        varies = bool(rng.random() < 0.5)
        Z.append(_columns(inner, [one] + [slopes["x"]] * varies))
        random_slopes |= {"g:h": {"slopes": ["x"]}} if varies else {}
    weights = rng.uniform(0.3, 3.0, size=n) if is_meta or rng.random() < 0.3 else one
    X = pd.DataFrame({**slopes, "w": rng.normal(size=n), "g": g, "h": h})
    y = 1.0 + 0.5 * X["w"].to_numpy() + rng.normal(size=n) / np.sqrt(weights)
    for columns in Z:
        s = columns.shape[2]
        root = rng.choice([0.0, 0.3, 1.0, 2.0]) * rng.normal(size=(s, s))
        y = y + np.einsum("nls,ls->n", columns, rng.normal(size=(columns.shape[1], s)) @ root)
    arguments = {
        "groups": groups,
        "random_slopes": random_slopes,
        "covariance": str(rng.choice(["full", "diagonal"])),
        "fixed_features": ["w"],
        "method": str(rng.choice(["reml", "ml"])),
        "weight_type": "precision",
    }
    if is_meta:
        arguments["fixed_variances"] = {"residual": 1.0}
    return Model(kind, X, y, weights, arguments, Z)


def _slopes(kind: str, g: Array, h: Array, rng: np.random.Generator) -> dict[str, Array]:
    n, L = len(g), int(g.max()) + 1
    x, z = rng.normal(size=(2, n))
    if kind == "constant":
        return {"c": rng.normal(size=L)[g]}
    if kind == "two values":
        return {"c": 1.0 * rng.integers(2, size=L)[g]}
    if kind == "collinear":
        return {"x": x, "z": z, "u": x + 2 * z}
    if kind == "one-hot":
        which = rng.integers(3, size=n) if rng.random() < 0.5 else rng.integers(3, size=L)[g]
        return {f"k{j}": 1.0 * (which == j) for j in range(3)}
    if kind == "nested":
        of_inner = rng.normal(size=(L, 2)) if rng.random() < 0.5 else np.tile([0.0, 1.0], (L, 1))
        return {"x": of_inner[g, h]}
    if kind == "two units":
        return {"x": x, "u": 1000 * x}
    if kind == "zero":
        return {"x": x, "o": np.full(n, rng.choice([0.0, 3.7]))}
    return {"x": x}


def _columns(codes: Array, columns: list[Array]) -> Array:
    """``Z`` of shape (n, L, s) in unit mean square, zeros as they are."""
    n = len(codes)
    Z = np.zeros((n, int(codes.max()) + 1, len(columns)))
    for i, column in enumerate(columns):
        size = np.sqrt(np.mean(column**2))
        Z[np.arange(n), codes, i] = column / (size or 1.0)
    return Z


def rank(model: Model) -> int:
    """How many variances the rows tell: the rank of the derivatives of ``W^1/2 V W^1/2``."""
    root = np.sqrt(model.weights)[:, None, None]
    derivatives = [np.eye(len(root)).ravel()] * model.residual
    for columns in model.Z:
        Z = root * columns
        for a, b in zip(*np.tril_indices(Z.shape[2]), strict=True):
            if a == b or not model.diagonal:
                derivatives.append((Z[:, :, a] @ Z[:, :, b].T + Z[:, :, b] @ Z[:, :, a].T).ravel())
    A = np.column_stack([one / (np.linalg.norm(one) or 1.0) for one in derivatives])
    return int(np.sum(np.linalg.svd(A, compute_uv=False) > RANK))


def least_deviance(model: Model, seed: int) -> float:
    """Best of several optimisations of the dense twin."""
    twin = Problem(
        [Z.copy() for Z in model.Z],
        np.column_stack([np.ones(len(model.y)), model.X["w"]]),
        model.y - np.mean(model.y),
        model.weights,
        model.diagonal,
        model.arguments["method"] == "reml",
    )
    if model.residual:
        return twin.least_deviance(np.random.default_rng(seed), None)
    # One variance beside a given residual: a grid that is refined.
    sizes = np.append(0.0, np.geomspace(1e-6, 1e3, 200))
    for _ in range(8):
        values = [twin.deviance(1.0, [np.array([[size]])]) for size in sizes]
        best = int(np.argmin(values))
        sizes = np.linspace(sizes[max(best - 1, 0)], sizes[min(best + 1, len(sizes) - 1)], 41)
    return float(min(values))


def faults(seed: int, *, intervals: bool = True) -> Iterator[str]:
    """What is wrong with the fit of a drawn model; nothing, if all is well."""
    model = draw(seed)
    # Matrices of some dozen rows are slower on several threads.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        fit = MacKayMixedRegressor(**model.arguments)
        fit.fit(model.X, model.y, sample_weight=model.weights)
        loss = -2.0 * fit.log_likelihood_ - least_deviance(model, seed)
        if loss > LOSS:
            yield f"deviance {loss:.2g} above the reference"
        n_parameters = round((fit.aic_ + 2.0 * fit.log_likelihood_) / 2.0)
        if n_parameters != 2 + rank(model):
            yield f"{n_parameters} parameters and not {2 + rank(model)}"
        if not fit.converged_:
            yield "not converged"
        if intervals:
            for name, (lower, upper) in fit.confint().items():
                if lower > upper:
                    yield f"interval of {name} from {lower:.3g} to {upper:.3g}"


def main() -> None:
    """Print what is wrong, model by model, and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without-intervals", action="store_true")
    parser.add_argument("--n-jobs", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.models)

    def wrong(seed: int) -> list[str]:
        return list(faults(seed, intervals=not options.without_intervals))

    found = Parallel(n_jobs=options.n_jobs)(delayed(wrong)(seed) for seed in seeds)
    for seed, messages in zip(seeds, found, strict=True):
        if messages:
            print(seed, draw(seed).kind, "; ".join(messages))
    print(f"{sum(map(bool, found))} of {options.models} models with a fault")


if __name__ == "__main__":
    main()
