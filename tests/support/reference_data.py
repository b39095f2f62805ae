"""Data sets, the package's and those of tests/data, with the fits that R lme4 made of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[1] / "data"
PACKAGE_DATA = Path(__file__).parents[2] / "sklearn_mackay" / "data"


@dataclass(frozen=True, eq=False)
class Reference:
    """A data set, the model that lme4 fitted to it, and lme4's answers.

    ``frame`` holds all columns but the response, group columns as strings. ``spec`` says what the
    model is (formula, fixed, groups, random_slopes, covariance). ``ml`` is None where lme4 was run
    under REML only.
    """

    name: str
    frame: pd.DataFrame
    y: np.ndarray
    spec: dict[str, Any]
    reml: dict[str, Any]
    ml: dict[str, Any] | None


def load_reference(name: str) -> Reference:
    """Read ``name``.json and the CSV file that it names."""
    spec = json.loads((DATA / f"{name}.json").read_text())
    reml, ml = spec.pop("reml"), spec.pop("ml", None)
    frame = read_table(spec["csv"], spec["groups"])
    y = frame.pop(spec["y"]).to_numpy(dtype=np.float64)
    return Reference(name, frame, y, spec, reml, ml)


def read_table(csv_name: str, groups: list[str]) -> pd.DataFrame:
    names = (PACKAGE_DATA / csv_name, DATA / csv_name, DATA / f"{csv_name}.gz")
    path = next(path for path in names if path.exists())
    return pd.read_csv(path, dtype=dict.fromkeys(groups, str))
