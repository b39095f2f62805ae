"""One fit per line of standard input, one JSON record per fit on standard output."""

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from workloads import WORKLOADS, Workload  # noqa: E402


def asked_for() -> tuple[Workload, pd.DataFrame]:
    """Return the workload named on the command line, and its data; "fast" asks for less."""
    workload = WORKLOADS[sys.argv[1]]
    return workload, workload.load("fast" in sys.argv[2:])


def lower_triangle(covariance: np.ndarray) -> list[float]:
    """Return variances and covariances row by row."""
    return [float(x) for x in covariance[np.tril_indices(len(covariance))]]


def serve(
    packages: list[str], fit: Callable[[], Any], describe: Callable[[Any], dict[str, Any]]
) -> None:
    """Say that the data are read, then time ``fit`` once for each line that comes in.

    Parameters
    ----------
    packages : list of str
        Distributions whose versions are part of the result, the program's own first.
    fit : callable
        The fit, and nothing else: what is timed.
    describe : callable
        The answers of a fit: ``variance_components`` (by factor the lower triangle),
        ``fixed_effects`` (the intercept first) and ``criterion``.
    """
    versions = {package: version(package) for package in packages}
    _send({"versions": {**versions, "Python": platform.python_version()}})
    for _ in sys.stdin:
        start = time.perf_counter()
        fitted = fit()
        seconds = time.perf_counter() - start
        _send({"seconds": seconds, **describe(fitted)})


def _send(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)
