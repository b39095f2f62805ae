"""Fit many models and write every number and message; compare with what another version wrote.

For changes of the code that are to change no number. The models are those of the reference fits in
`tests/data`, hard random problems of `stress.py`, and one of each kind of model besides: outputs,
weights, feature blocks, sparse columns, the iterative engine.

    python benchmarks/same_numbers.py write before.json        # in a checkout of the old version
    python benchmarks/same_numbers.py compare before.json
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from stress import draw_task

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_cake, load_sleepstudy, make_ratings

RTOL = 1e-10  # of the largest number of an array: sums in another order
N_ROWS = 10  # that are predicted
DATA = Path(__file__).parents[1] / "tests" / "data"
PACKAGE_DATA = Path(__file__).parents[1] / "sklearn_mackay" / "data"
SLOPES = {"Subject": ["Days"]}
REFERENCES = (
    "dyestuff",
    "dyestuff2",
    "pastes",
    "penicillin",
    "sleepstudy",
    "sleepstudy__diagonal",
    "sleepstudy__intercept",
    "insteval",
)
ATTRIBUTES = (
    "coef_",
    "intercept_",
    "coef_std_",
    "intercept_std_",
    "vcov_",
    "variance_components_",
    "variance_mc_error_",
    "alpha_",
    "random_effects_",
    "effective_dof_",
    "log_likelihood_",
    "log_likelihood_mc_error_",
    "aic_",
    "bic_",
    "n_iter_",
    "converged_",
    "singular_",
    "n_products_",
)


def of_references() -> Iterator[tuple[str, MacKayMixedRegressor, Any, Any, Any]]:
    """Models that lme4 fitted, by each method."""
    for name in REFERENCES:
        spec = json.loads((DATA / f"{name}.json").read_text())
        paths = (PACKAGE_DATA / spec["csv"], DATA / spec["csv"], DATA / f"{spec['csv']}.gz")
        path = next(path for path in paths if path.exists())
        frame = pd.read_csv(path, dtype=dict.fromkeys(spec["groups"], str))
        y = frame.pop(spec["y"]).to_numpy(dtype=float)
        for method in ("reml",) if name == "insteval" else ("reml", "ml", "mackay", "quick"):
            model = MacKayMixedRegressor(
                groups=spec["groups"],
                fixed_features=spec["fixed"],
                random_slopes=SLOPES if name in ("sleepstudy", "sleepstudy__diagonal") else None,
                covariance=spec["covariance"],
                method=method,
            )
            yield f"{name} {method}", model, frame, y, None


def of_stress(n_problems: int) -> Iterator[tuple[str, MacKayMixedRegressor, Any, Any, Any]]:
    """Hard random problems."""
    for seed in range(n_problems):
        task = draw_task(seed)
        model = MacKayMixedRegressor(
            groups=task.groups,
            random_slopes=task.slopes,
            covariance=task.covariance,
            method=task.method,
            weight_type="precision",
        )
        yield f"stress {seed}", model, task.frame, task.y, task.weights


def of_kinds() -> Iterator[tuple[str, MacKayMixedRegressor, Any, Any, Any]]:
    """One model of each other kind."""
    rng = np.random.default_rng(5)
    X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    cake, angle = load_cake(as_frame=True, return_X_y=True)
    slopes = {"groups": "Subject", "random_slopes": SLOPES}
    yield "outputs", MacKayMixedRegressor(**slopes), X, np.column_stack([y, y[::-1]]), None
    counts = rng.integers(1, 4, size=len(y)).astype(float)
    yield "frequency", MacKayMixedRegressor(**slopes), X, y, counts
    held = {"Subject": np.diag([600.0, 30.0])}
    yield "held", MacKayMixedRegressor(fixed_variances=held, **slopes), X, y, None
    yield "ridge", MacKayMixedRegressor(alpha=2.0, **slopes), X, y, None
    yield "no intercept", MacKayMixedRegressor(fit_intercept=False, **slopes), X, y, None
    nested = MacKayMixedRegressor(
        groups=["recipe", ("recipe", "replicate")], fixed_features=["temp"]
    )
    yield "cake", nested, cake, angle, None
    Z = rng.normal(size=(120, 30))
    blocks = {"a": list(range(20)), "b": list(range(20, 30))}
    response = Z @ rng.normal(size=30) + rng.normal(size=120)
    yield "blocks", MacKayMixedRegressor(feature_blocks=blocks), Z, response, None
    wide = rng.normal(size=(60, 200))
    response = wide[:, :50] @ rng.normal(size=50) + rng.normal(size=60)
    yield "alpha auto", MacKayMixedRegressor(alpha="auto"), wide, response, None
    dummies = sparse.random_array((300, 40), density=0.1, rng=np.random.default_rng(3)).tocsr()
    levels = rng.integers(12, size=300)
    response = dummies @ rng.normal(size=40) + rng.normal(size=12)[levels] + rng.normal(size=300)
    with_levels = sparse.hstack([dummies, levels[:, None]], format="csr")
    yield "sparse", MacKayMixedRegressor(groups=[40]), with_levels, response, None
    ratings, stars = make_ratings(20_000, n_users=900, n_items=300, random_state=1, as_frame=True)
    groups = [name for name in ratings.columns if name in ("user", "item")]
    for solver in ("exact", "iterative"):
        model = MacKayMixedRegressor(
            groups=groups, solver=solver, random_state=0, store_covariance=True
        )
        yield f"ratings {solver}", model, ratings, stars, None
    tall = rng.normal(size=(3200, 3100))
    response = tall[:, :9] @ rng.normal(size=9) + rng.normal(size=3200)
    model = MacKayMixedRegressor(feature_blocks={"all": list(range(3100))}, random_state=0)
    yield "large block", model, tall, response, None


def numbers_of(model: MacKayMixedRegressor, X: Any, y: Any, weights: Any, name: str) -> Any:
    """Fit, and return all that the fit says."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.fit(X, y, sample_weight=weights)
        found |= {attribute: getattr(model, attribute) for attribute in ATTRIBUTES}
        first = X.tail(N_ROWS) if isinstance(X, pd.DataFrame) else X[-N_ROWS:]
        found["predict"] = model.predict(first)
        found["history"] = [entry["change"] for entry in model.history_ if isinstance(entry, dict)]
        if model._models is not None:
            found["std"] = model.predict(first, return_std=True)[1]
            found["sample"] = model.sample_y(first, 2, random_state=0)
            found["effects std"] = model.random_effects_std_
        if np.ndim(y) == 1 and model._models is not None and not name.startswith("insteval"):
            found |= of_one_output(model, X, y, weights, first)
    found["warnings"] = [str(one.message) for one in said]
    return flat(found)


def of_one_output(model: MacKayMixedRegressor, X: Any, y: Any, weights: Any, first: Any) -> Any:
    """What inference says, or why it says nothing."""
    calls = {
        "summary": lambda: str(model.summary()),
        "tests": lambda: model.fixed_effects().to_frame().drop(columns="name").to_numpy(),
        "wald": lambda: dict(model.confint(method="wald")),
        "shares": lambda: model.explained_variance().to_frame()["share"].to_numpy(),
        "loo": lambda: model.loo_predict(X, y, sample_weight=weights).to_frame().to_numpy(),
        "json": lambda: MacKayMixedRegressor.from_json(model.to_json()).predict(first),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except ValueError as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def flat(value: Any) -> Any:
    """Lists of numbers, and texts, by name."""
    if isinstance(value, dict):
        return {str(key): flat(one) for key, one in value.items()}
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str)):
        return value
    return [float(number) for number in np.ravel(np.asarray(value, dtype=float))]


def write(path: Path, n_problems: int) -> None:
    """Fit all models."""
    models = [*of_references(), *of_kinds(), *of_stress(n_problems)]
    found = {name: numbers_of(model, X, y, w, name) for name, model, X, y, w in models}
    path.write_text(json.dumps(found))


def differences(before: Any, after: Any, where: str) -> Iterator[tuple[float, str]]:
    """How far two lists of numbers are apart, relative to the largest; infinite for texts."""
    if isinstance(before, dict) and isinstance(after, dict) and set(before) == set(after):
        for key in before:
            yield from differences(before[key], after[key], f"{where} {key}")
        return
    if before == after:
        return
    numbers = [
        np.array(side, dtype=float) if _is_numbers(side) else None for side in (before, after)
    ]
    one, other = numbers
    if one is None or other is None or one.shape != other.shape:
        yield np.inf, where
        return
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    size = np.nanmax(np.abs(np.where(np.isfinite(one), one, 0.0)), initial=0.0)
    gap = np.where(same, 0.0, np.abs(one - other))
    worst = np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0)
    if worst > 0.0:
        yield float(worst / size) if size > 0 else np.inf, where


def _is_numbers(side: Any) -> bool:
    return isinstance(side, list) and all(isinstance(number, float) for number in side)


def main() -> None:
    """Write, or write again and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--problems", type=int, default=200, help="of stress.py")
    arguments = parser.parse_args()
    if arguments.what == "write":
        write(arguments.path, arguments.problems)
        return
    again = arguments.path.with_suffix(".again.json")
    write(again, arguments.problems)
    found = list(
        differences(json.loads(arguments.path.read_text()), json.loads(again.read_text()), "")
    )
    beyond = sorted((one for one in found if one[0] > RTOL), reverse=True)
    for gap, where in beyond:
        print(f"{gap:.1e} {where}")
    print(f"{len(found)} arrays moved at all, {len(beyond)} by more than {RTOL:g}")
    sys.exit(bool(beyond))


if __name__ == "__main__":
    main()
