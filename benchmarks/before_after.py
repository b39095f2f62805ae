"""Time two versions of the package in turns, and one of them against itself.

For changes that are to cost nothing: a median within 5 % of the other, or inside what the old
version differs from itself.

    python benchmarks/before_after.py --before ../old-checkout --workload P1 P3 --repeats 7
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from run import OURS, Worker, command_of, table

HERE = Path(__file__).parents[1]


def start(checkout: Path, name: str, fast: bool) -> Worker:
    """Start a worker that imports a checkout's package."""
    os.environ["PYTHONPATH"] = str(checkout.resolve())
    worker = Worker(command_of(OURS, name, fast, sys.executable, ""))
    worker.wait()
    return worker


def measure(before: Path, name: str, fast: bool, repeats: int) -> list[str]:
    """Return a row of the table: medians, their ratio, and that of the old version to itself."""
    workers = [start(checkout, name, fast) for checkout in (before, HERE, before)]
    for worker in workers:
        worker.request()
    rounds = [[worker.request()["seconds"] for worker in workers] for _ in range(repeats)]
    seconds = np.array(rounds)
    peaks = [worker.peak_memory() for worker in workers]
    for worker in workers:
        worker.close()
    old, new, again = np.median(seconds, axis=0)
    ratios = seconds[:, 1] / seconds[:, 0]
    return [
        name,
        f"{old:.4g}",
        f"{new:.4g}",
        f"{new / old:.3f}",
        f"{ratios.min():.2f} to {ratios.max():.2f}",
        f"{again / old:.3f}",
        " / ".join("-" if peak is None else f"{peak:.0f}" for peak in peaks[:2]),
    ]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="checkout of the old version")
    parser.add_argument("--workload", nargs="+", default=["P1"], help="of workloads.py")
    parser.add_argument("--fast", action="store_true", help="small data")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of old, new, old")
    arguments = parser.parse_args()
    header = ["workload", "old, s", "new, s", "new / old", "by round", "old / old", "peak MiB"]
    rows = [
        measure(arguments.before, name, arguments.fast, arguments.repeats)
        for name in arguments.workload
    ]
    print(table(header, rows))


if __name__ == "__main__":
    main()
