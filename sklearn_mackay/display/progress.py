"""What a long fit shows of its iterations: lines, or a bar where a terminal is attached."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from tqdm import tqdm

from ..evidence.loop import Iteration

Report = Callable[[Iteration], None]


@contextmanager
def progress(verbose: int, tol: float) -> Iterator[Report]:
    """Yield a function to be called with each iteration.

    Parameters
    ----------
    verbose : int
        0 shows nothing.
    tol : float
        The loop's tolerance. A bar is full when the change of an iteration has fallen from the
        first one to it, on a logarithmic scale.
    """
    if not verbose:
        yield lambda _: None
    elif not sys.stderr.isatty():
        yield lambda iteration: print(describe(iteration))
    else:
        with tqdm(total=1.0, bar_format="{percentage:3.0f}% |{bar:20}| {elapsed} {desc}") as bar:
            changes: list[float] = []

            def advance(iteration: Iteration) -> None:
                changes.append(iteration.change)
                bar.set_description_str(f"iteration {len(changes)}: {describe(iteration)}", False)
                bar.update(max(_share_done(changes, tol) - bar.n, 0.0))
                bar.refresh()

            yield advance
            bar.update(1.0 - bar.n)


def describe(iteration: Iteration) -> str:
    """One line: the step, the criterion and how much changed."""
    return f"{iteration.step:>8s}  deviance {iteration.deviance:.8f}  change {iteration.change:.2e}"


def _share_done(changes: list[float], tol: float) -> float:
    known = [change for change in changes if 0.0 < change < np.inf]
    if not known or not 0.0 < tol < known[0]:
        return 0.0
    done = np.log(known[0] / known[-1]) / np.log(known[0] / tol)
    return float(np.clip(done, 0.0, 1.0))
