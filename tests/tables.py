"""A small table with columns of every kind, and the frames it is tested in."""

from __future__ import annotations

import datetime as dt

import pytest

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

FRAMES = [pd.DataFrame, pl.DataFrame]
COLUMNS = {
    "subject": ["a", "b", "a"],
    "item": [1, 2, 2],
    "days": [0.0, 1.0, 2.5],
    "late": [True, False, True],
    "date": [dt.datetime(2020, 1, day) for day in (1, 2, 3)],
}
