"""One fit per line of standard input, one JSON record per fit on standard output."""

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any


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
        The answers of a fit: ``variance_components``, ``fixed_effects``, ``criterion``.
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
