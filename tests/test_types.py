"""What a type checker says of a user's script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RIGHT = """
import numpy as np
from numpy.typing import NDArray
from sklearn_mackay import MacKayMixedRegressor, RandomEffectsDisplay
from sklearn_mackay.datasets import load_sleepstudy

X, y = load_sleepstudy(return_X_y=True)
model = MacKayMixedRegressor(
    groups="Subject", random_slopes={"Subject": ["Days"]}, covariance={"Subject": "diagonal"},
    alpha="auto", method="ml", store_covariance=True, effects=["Subject"],
).fit(X, y)
coef: NDArray[np.float64] = model.coef_
mean, std = model.predict(X, return_std=True)
fitted: NDArray[np.float64] = model.predict(X, effects="population")
bounds: NDArray[np.float64] = model.predict_interval(X, kind="confidence")
lower, upper = model.confint(["Subject"], method="wald", level=0.9)["sd(residual)"]
total: float = lower + upper
effects: NDArray[np.float64] = model.random_effects_["Subject"]
table = model.fixed_effects().to_frame("polars")
display: RandomEffectsDisplay = RandomEffectsDisplay.from_estimator(model, kind="shrinkage")
"""
WRONG = [
    'MacKayMixedRegressor(method="remll")',
    'MacKayMixedRegressor(solver="exakt")',
    'MacKayMixedRegressor(covariance="diag")',
    'MacKayMixedRegressor(effects="populaton")',
    'MacKayMixedRegressor(alpha="automatic")',
    'MacKayMixedRegressor(unknown_groups="ignore")',
    'MacKayMixedRegressor(weight_type="inverse")',
    'MacKayMixedRegressor(store_covariance="always")',
    'MacKayMixedRegressor().predict_interval([[0]], kind="predictive")',
    'MacKayMixedRegressor().predict([[0]], effects="fixed")',
    'MacKayMixedRegressor().confint(method="walt")',
    'MacKayMixedRegressor().fixed_effects().to_frame(backend="panda")',
    'RandomEffectsDisplay.from_estimator(MacKayMixedRegressor(), kind="dots")',
    "text: str = MacKayMixedRegressor().coef_",
    "other: str = MacKayMixedRegressor().predict([[0]])",
]


def faulty_lines(script, tmp_path):
    """Numbers of the lines that mypy finds faults in."""
    path = tmp_path / "script.py"
    path.write_text(script)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            f"--cache-dir={tmp_path}",
            str(path),
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert not run.stderr
    found = [line.split(":") for line in run.stdout.splitlines() if ": error:" in line]
    assert {file for file, *_ in found} <= {path.name}, run.stdout
    return {int(line) for _, line, *_ in found}


@pytest.mark.slow
def test_options_and_results_are_checked(tmp_path):
    first = RIGHT.count("\n") + 1
    script = RIGHT + "\n".join(WRONG) + "\n"
    assert faulty_lines(script, tmp_path) == set(range(first, first + len(WRONG)))
