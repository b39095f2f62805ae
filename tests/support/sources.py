"""One table as every source of rows that a fit reads."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pl = pytest.importorskip("polars")

ENGINES = ["dask", "ibis", "spark"]
REREADABLE = ["polars", "parquet", "duckdb", *ENGINES]
SOURCES = [*REREADABLE, "reader", "dataset of a table"]

MANY = 10_000  # rows that Spark would send with every query, were they not in a file


def source_of(kind: str, frame: Any, folder: Path) -> Any:
    """A Polars data frame as a source; skips where its library is not installed."""
    if kind == "polars":
        return frame.lazy()
    if kind == "spark" and len(frame) > MANY:
        frame.write_parquet(folder / "spark.parquet")
        return spark_session().read.parquet(str(folder / "spark.parquet"))
    if kind == "spark":
        return spark_session().createDataFrame(frame.to_arrow())
    if kind == "dask":
        return pytest.importorskip("dask.dataframe").from_pandas(frame.to_pandas(), npartitions=3)
    if kind == "ibis":
        return pytest.importorskip("ibis").memtable(frame.to_arrow())
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


@cache
def spark_session() -> Any:
    """Spark on this machine, one session for all tests."""
    sql = pytest.importorskip("pyspark.sql")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[2]").appName("tests")
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
    }
    for key, value in options.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()
