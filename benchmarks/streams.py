"""Rows that are read piece by piece: time, peak memory and agreement, each in a process of its own.

    python benchmarks/streams.py --folder /somewhere/with/two/gigabytes

Statistics alone of ten million rows, by each source; a fit of benchmark P9 from a lazy scan, beside
the same rows in memory; a million rows in four parts, fitted in processes, sent and merged.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import make_ratings

GROUPS = ["user", "item"]
SOURCES = ("polars", "duckdb", "dataset")
N_PARTS = 4


def write(folder: Path, name: str) -> Path:
    """Write a workload as a Parquet file, once."""
    import polars as pl

    path = folder / f"{name}.parquet"
    if not path.exists():
        if name == "P9":
            from workloads import WORKLOADS

            frame = WORKLOADS["P9"].load(False)
        else:
            n, n_users, n_items = {
                "ten": (10_000_000, 138_000, 27_000),
                "one": (1_000_000, 50_000, 300),
            }[name]
            frame, y = make_ratings(n, n_users, n_items, random_state=0, as_frame=True)
            frame["y"] = y
        pl.from_pandas(frame).write_parquet(path, row_group_size=2**20)
    return path


def open_rows(kind: str, path: Path) -> Any:
    """The rows of a file, by one library."""
    if kind == "duckdb":
        import duckdb

        return duckdb.sql(f"SELECT * FROM '{path}'")
    if kind == "dataset":
        import pyarrow.dataset

        return pyarrow.dataset.dataset(path)
    import polars as pl

    return pl.read_parquet(path) if kind == "memory" else pl.scan_parquet(path)


def peak() -> float:
    """Peak resident memory of this process in MB; `getrusage` would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def statistics(kind: str, path: Path) -> dict[str, Any]:
    """Sum the rows, and nothing else."""
    from sklearn_mackay.frames.options import read_options
    from sklearn_mackay.frames.roles import resolve_roles
    from sklearn_mackay.frames.streams import open_source
    from sklearn_mackay.model.scans import read_statistics

    model = MacKayMixedRegressor(GROUPS)
    parameters = model.get_params(deep=False)
    rows = open_rows(kind, path)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    source = open_source(model, rows, "y", None, reset=True)
    roles = resolve_roles(source.header, rows, parameters)
    sums = read_statistics(source, roles, read_options(parameters, roles)).sums
    return {
        "seconds": time.perf_counter() - start,
        "CPU seconds": time.process_time() - cpu,
        "MB above imports": peak() - before,
        "pairs": len(sums.products.tables[0, 1].row_levels),
    }


def fit(kind: str, path: Path) -> dict[str, Any]:
    """Fit, with the import of TensorFlow."""
    rows = open_rows(kind, path)
    start = time.perf_counter()
    model = MacKayMixedRegressor(GROUPS, random_state=0)
    if kind == "memory":
        model.fit(rows.drop("y"), rows["y"])
    else:
        model.fit(rows, y="y")
    return {
        "seconds": time.perf_counter() - start,
        "peak MB": peak(),
        "variances": model.variance_components_,
        "Monte Carlo error": model.variance_mc_error_,
        "log-likelihood": model.log_likelihood_,
        "its error": model.log_likelihood_mc_error_,
        "iterations": model.n_iter_,
    }


def part(kind: str, path: Path) -> None:
    """Fit every fourth row and write the pickle to standard output."""
    import polars as pl

    rows = pl.scan_parquet(path).gather_every(N_PARTS, int(kind)).collect()
    model = MacKayMixedRegressor(GROUPS, tol=1e-12)
    sys.stdout.buffer.write(pickle.dumps(model.partial_fit(rows.drop("y"), rows["y"])))


def merge(path: Path) -> dict[str, Any]:
    """Fit parts in processes, receive them, merge them, and compare with the fit of all rows."""
    start = time.perf_counter()
    sent = [run("part", str(k), path) for k in range(N_PARTS)]
    fitted = time.perf_counter()
    models = [pickle.loads(text) for text in sent]
    received = time.perf_counter()
    total = models[0]
    for model in models[1:]:
        total = total.merge(model)
    merged = time.perf_counter()
    rows = open_rows("memory", path)
    whole = MacKayMixedRegressor(GROUPS, tol=1e-12)
    whole.fit(rows.drop("y"), rows["y"])
    return {
        "seconds to fit the parts": fitted - start,
        "MB sent": [round(len(text) / 2**20, 1) for text in sent],
        "seconds to receive": received - fitted,
        "seconds to merge": merged - received,
        "difference of log-likelihoods": float(total.log_likelihood_ - whole.log_likelihood_),
        "largest difference of effects": float(
            max(np.max(np.abs(total.random_effects_[g] - whole.random_effects_[g])) for g in GROUPS)
        ),
    }


def run(task: str, kind: str, path: Path) -> bytes:
    """Do something in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--kind", kind, "--path", str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def main() -> None:
    """Run one task, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where Parquet files are written")
    parser.add_argument("--task", choices=("statistics", "fit", "part"))
    parser.add_argument("--kind")
    parser.add_argument("--path", type=Path)
    asked = parser.parse_args()
    if asked.task == "part":
        part(asked.kind, asked.path)
    elif asked.task:
        print(
            json.dumps({"statistics": statistics, "fit": fit}[asked.task](asked.kind, asked.path))
        )
    elif asked.folder is None:
        parser.error("give --folder")
    else:
        ten, one, nine = (write(asked.folder, name) for name in ("ten", "one", "P9"))
        for kind in SOURCES:
            print("statistics of ten million rows,", kind, run("statistics", kind, ten).decode())
        print("a million rows in four parts", json.dumps(merge(one)), "\n")
        for kind in ("polars", "memory"):
            print("P9,", kind, run("fit", kind, nine).decode())


if __name__ == "__main__":
    main()
