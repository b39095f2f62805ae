"""One table as every source of rows that a fit reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pl = pytest.importorskip("polars")

REREADABLE = ["polars", "parquet", "duckdb"]
SOURCES = [*REREADABLE, "reader", "dataset of a table"]


def source_of(kind: str, frame: Any, folder: Path) -> Any:
    """A Polars data frame as a source; skips where its library is not installed."""
    if kind == "polars":
        return frame.lazy()
    arrow = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    if kind == "parquet":
        path = folder / f"{abs(hash(kind))}.parquet"
        frame.write_parquet(path)
        return dataset.dataset(path)
    if kind == "duckdb":
        return pytest.importorskip("duckdb").from_arrow(frame.to_arrow())
    table: arrow.Table = frame.to_arrow()
    return table.to_reader() if kind == "reader" else dataset.dataset(table)
