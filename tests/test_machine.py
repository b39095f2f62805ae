"""BLAS threads and memory: what is limited, and that the limit is lifted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay._machine import MODERATE, one_blas_thread
from sklearn_mackay.kernels import engine
from sklearn_mackay.model import fit

MAPPED_FILES = Path("/proc/self/maps")


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_limit_holds_inside_and_is_lifted_after_the_last(monkeypatch):
    before = blas_threads()
    with one_blas_thread():
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == before
    with one_blas_thread(n_entries=11, limit=10):
        assert blas_threads() == before


@pytest.mark.skipif(not MAPPED_FILES.exists(), reason="what is loaded is told by Linux only")
def test_every_openblas_of_the_process_can_be_limited():
    # SciPy brings its own beside NumPy's, under a name that threadpoolctl 3.4 did not know.
    files = {
        Path(line.split()[-1]) for line in MAPPED_FILES.read_text().splitlines() if "/" in line
    }
    loaded = {file.name for file in files if "openblas" in file.name}
    assert loaded <= {Path(pool["filepath"]).name for pool in threadpool_info()}


@pytest.mark.parametrize("n_levels", [5, 300])
def test_the_loop_of_a_moderate_problem_keeps_to_one_thread(monkeypatch, rng, n_levels):
    """Threads that wait for each other on busy cores took forty times as long on InstEval."""
    seen = []
    loop = fit.estimate

    def watched(*args):
        seen.append(blas_threads())
        return loop(*args)

    monkeypatch.setattr(fit, "estimate", watched)
    X = np.column_stack([rng.integers(n_levels, size=2000), rng.integers(n_levels, size=2000)])
    assert n_levels**2 < MODERATE
    MacKayMixedRegressor(groups=[0, 1]).fit(X, rng.normal(size=2000))
    assert seen == [{1}]


@pytest.mark.parametrize("n_levels", [5, 300])
def test_intervals_of_a_moderate_problem_keep_to_one_thread(monkeypatch, rng, n_levels):
    seen = set()
    prepare = engine._prepare_exact

    def watched(*args, **kwargs):
        prepared = prepare(*args, **kwargs)

        def solve(variances):
            seen.update(blas_threads())
            return prepared.solve(variances)

        return replace(prepared, solve=solve)

    X = np.column_stack([rng.integers(n_levels, size=2000), rng.integers(n_levels, size=2000)])
    model = MacKayMixedRegressor(groups=[0, 1]).fit(X, rng.normal(size=2000))
    monkeypatch.setattr(engine, "_prepare_exact", watched)
    with threadpool_limits(limits=2, user_api="blas"):
        model.confint("intercept")
    assert seen == {1}
