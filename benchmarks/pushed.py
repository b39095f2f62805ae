"""A million rows that stay in an engine: time, peak memory, agreement with the rows read whole.

    python benchmarks/pushed.py --folder /somewhere/with/space

Each runs in a process of its own. "own" is that process, "others" its workers or its JVM; memory is
above what importing and starting the engine takes. Wants the extras `dask`, `spark`, `ibis`,
`polars`, distributed, and Java 17.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import make_ratings

KINDS = ("whole", "dask", "spark", "ibis")
MIB = 2**20


def write(folder: Path) -> Path:
    """Write the rows as Parquet files of a quarter each, once."""
    import polars as pl

    path = folder / "ratings"
    if not path.exists():
        path.mkdir(parents=True)
        frame, y = make_ratings(1_000_000, 50_000, 10_000, random_state=0, as_frame=True)
        frame["y"] = y
        for i, part in enumerate(np.array_split(np.arange(len(frame)), 4)):
            pl.from_pandas(frame.iloc[part]).write_parquet(path / f"part{i}.parquet")
    return path


class Peak(threading.Thread):
    """Looks at the memory of this process and of those that it started, twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import psutil

        self.process = psutil.Process()
        self.missing = psutil.NoSuchProcess
        self.first = self.look()
        self.own, self.others = self.first

    def look(self) -> tuple[int, int]:
        """Bytes of this process and of the others, now."""
        others = 0
        for child in self.process.children(recursive=True):
            try:
                others += child.memory_info().rss
            except self.missing:
                continue
        return self.process.memory_info().rss, others

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            own, others = self.look()
            self.own, self.others = max(self.own, own), max(self.others, others)
            time.sleep(0.05)

    def above(self) -> dict[str, float]:
        """Peaks above what was there at first."""
        return {
            "own MiB": (self.own - self.first[0]) / MIB,
            "others MiB": (self.others - self.first[1]) / MIB,
        }


def open_rows(kind: str, path: Path) -> tuple[Any, Any]:
    """The rows, and how to count those of a scored frame that have a prediction."""
    files = str(path / "*.parquet")
    if kind == "whole":
        import polars as pl

        return pl.scan_parquet(files), lambda scored: scored.select("prediction").collect().height
    if kind == "dask":
        import dask.dataframe
        from distributed import Client, LocalCluster

        Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
        return dask.dataframe.read_parquet(files), lambda s: int(s["prediction"].count().compute())
    if kind == "spark":
        from pyspark.sql import SparkSession, functions

        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "4").getOrCreate()
        session.range(10).count()
        return session.read.parquet(files), lambda s: s.select(
            functions.count("prediction")
        ).first()[0]
    import ibis

    table = ibis.duckdb.connect().read_parquet(files)
    return table, lambda scored: scored.prediction.count().execute()


def run(kind: str, path: Path) -> dict[str, Any]:
    """Fit and score by one engine."""
    X, n_predicted = open_rows(kind, path)
    model = MacKayMixedRegressor(groups=["user", "item"], random_state=0)
    # What is loaded once is not the rows'.
    import polars as pl

    few = pl.scan_parquet(str(path / "part0.parquet")).head(5_000).collect()
    model.fit(few.drop("y"), few["y"].to_numpy())
    peak = Peak()
    peak.start()
    start = time.perf_counter()
    if kind == "whole":
        rows = X.collect()
        model.fit(rows.drop("y"), rows["y"].to_numpy())
    else:
        model.fit(X, y="y")
    fitted = time.perf_counter() - start
    memory = peak.above()
    start = time.perf_counter()
    n = n_predicted(model.predict_frame(X))
    return {
        "fit s": fitted,
        **memory,
        "score s": time.perf_counter() - start,
        "n_predicted": int(n),
        "log_likelihood": model.log_likelihood_,
        "variances": [model.variance_components_[c] for c in ("user", "item", "residual")],
    }


def main() -> None:
    """Compare all kinds, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    path = write(arguments.folder)
    if arguments.kind:
        print("RESULT " + json.dumps(run(arguments.kind, path)))
        return
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.repeats):
        for kind, results in found.items():
            command = [sys.executable, __file__, "--folder", str(arguments.folder), "--kind", kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            results.append(json.loads(line.removeprefix("RESULT ")))
    whole = found["whole"][0]
    for kind, results in found.items():
        medians = {
            what: float(np.median([result[what] for result in results]))
            for what in ("fit s", "own MiB", "others MiB", "score s")
        }
        ranges = [min(r["fit s"] for r in results), max(r["fit s"] for r in results)]
        off = np.max(np.abs(np.array(results[0]["variances"]) / whole["variances"] - 1))
        text = ", ".join(f"{what} {value:.1f}" for what, value in medians.items())
        print(f"{kind:6} {text}; fit {ranges[0]:.1f} to {ranges[1]:.1f}; variances off {off:.0e}")


if __name__ == "__main__":
    main()
