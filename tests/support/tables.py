"""A small table with columns of every kind, and the frames it is tested in."""

from __future__ import annotations

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

FRAMES = [pd.DataFrame, pl.DataFrame]
COLUMNS = {
    "subject": ["a", "b", "a"],
    "item": [1, 2, 2],
    "days": [0.0, 1.0, 2.5],
    "late": [True, False, True],
    "date": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[us]"),
}
