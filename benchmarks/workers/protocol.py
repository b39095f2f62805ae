"""One request per line of standard input, one JSON record per request on standard output."""

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from penalties import PENALTY_WORKLOADS, PenaltyWorkload  # noqa: E402
from workloads import WORKLOADS, Workload  # noqa: E402


def asked_for() -> tuple[Workload, pd.DataFrame]:
    """Return the workload named on the command line, and its data; "fast" asks for less."""
    workload = WORKLOADS[sys.argv[1]]
    return workload, workload.load("fast" in sys.argv[2:])


def penalties_asked_for() -> tuple[str, PenaltyWorkload, str, bool]:
    """Return the workload's name, itself, the program, and whether it wants small data."""
    name, program = sys.argv[1:3]
    return name, PENALTY_WORKLOADS[name], program, "fast" in sys.argv[3:]


def lower_triangle(covariance: np.ndarray) -> list[float]:
    """Return variances and covariances row by row."""
    return [float(x) for x in covariance[np.tril_indices(len(covariance))]]


def serve(
    workload: Workload,
    packages: list[str],
    fit: Callable[[], Any],
    describe: Callable[[Any], dict[str, Any]],
    predict: Callable[[Any], float | None] | None = None,
) -> None:
    """Say that the data are read, then time ``fit`` once for each line that comes in.

    Where the workload times predictions, the first line asks for the fit as well, untimed.

    Parameters
    ----------
    workload : Workload
        What is timed.
    packages : list of str
        Distributions whose versions are part of the result, the program's own first.
    fit : callable
        The fit, and nothing else.
    describe : callable
        The answers of a fit: ``variance_components`` (by factor the lower triangle),
        ``fixed_effects`` (the intercept first) and ``criterion``.
    predict : callable
        The prediction of the first row by a fit; None if it is not to be compared.
    """
    if workload.predictions and predict is None:
        sys.exit(f"{packages[0]} has no predictions with random effects")
    announce(packages)
    fitted = None
    for _ in requests():
        if fitted is None or not workload.predictions:
            seconds, fitted = timed(fit)
            answer = describe(fitted)
        if workload.predictions:
            rows = [timed(predict, fitted) for _ in range(workload.predictions)]
            seconds, answer["prediction"] = median(seconds for seconds, _ in rows), rows[0][1]
        send({"seconds": seconds, **answer})


def announce(packages: list[str]) -> None:
    """Say that everything is ready, and which versions of some distributions are at work."""
    versions = {package: version(package) for package in packages}
    send({"versions": {**versions, "Python": platform.python_version()}})


def requests() -> Iterator[str]:
    """One line of standard input for each request."""
    yield from sys.stdin


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def send(record: dict[str, Any]) -> None:
    """Answer a request."""
    print(json.dumps(record), flush=True)
