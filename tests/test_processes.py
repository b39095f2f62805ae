"""Fits beside each other in processes and threads, interrupted fits, and many fits in one process.

`small` problems are solved with LAPACK and never call TensorFlow, `large` ones call it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV, KFold
from threadpoolctl import ThreadpoolController

from sklearn_mackay import MacKayMixedRegressor, _machine

SAME = 1e-10  # relative; several threads add in another order, 4e-15 in fits of these sizes
DEVICE = 1e-8  # relative, between processors
PATIENCE = 20.0  # seconds for a fit in a forked process, which takes less than one
MEMORY = 50.0  # MiB that 1,000 fits may leave behind; they leave 1
MIB = 2**20 if sys.platform == "darwin" else 2**10  # unit of the resident memory reported

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
alarms = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no alarm to interrupt with"
)


def crossed(n, *levels, seed=0):
    """Codes of crossed factors, and a response with an effect of each."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.integers(L, size=n) for L in levels])
    effects = (rng.normal(size=L)[codes] for L, codes in zip(levels, X.T, strict=True))
    return X, sum(effects) + rng.normal(size=n)


def regressor(solver="auto", **parameters):
    return MacKayMixedRegressor(groups=[0, 1], solver=solver, random_state=0, **parameters)


SMALL = crossed(100, 6, 5)
LARGE = crossed(900, 130, 120)
PROBLEMS = {"small": (SMALL, "auto"), "large": (LARGE, "auto"), "iterative": (LARGE, "iterative")}


def estimates(model):
    return [model.intercept_, model.log_likelihood_, *model.variance_components_.values()]


def in_a_new_process(function, **environment):
    """What a function of this module returns there."""
    code = f"import json, test_processes; print(json.dumps(test_processes.{function}()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Processes and threads that joblib starts.


def scores(X, y):
    grid = {"method": ["reml", "ml"], "fit_intercept": [True, False]}
    cv = KFold(2, shuffle=True, random_state=0)
    return GridSearchCV(regressor(), grid, cv=cv).fit(X, y).cv_results_["mean_test_score"]


@pytest.mark.parametrize(
    ("backend", "size"),
    [
        ("threading", "small"),
        pytest.param("threading", "large", marks=pytest.mark.slow),
        # tests/test_sklearn_contract.py has the small one.
        pytest.param("loky", "large", marks=pytest.mark.slow),
    ],
)
def test_a_grid_search_with_two_jobs_equals_one_with_one(backend, size):
    data, _ = PROBLEMS[size]
    expected = scores(*data)
    with parallel_config(backend=backend, n_jobs=2):
        assert_allclose(scores(*data), expected, rtol=SAME)


# Forked processes.


def outcome_in_a_fork(function, patience=PATIENCE):
    """What `function` returns in a forked process, its error, or None where it hangs."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        try:
            sender.send(function())
        except Exception as error:
            sender.send(f"{type(error).__name__}: {error}")

    process = context.Process(target=run)
    process.start()
    outcome = receiver.recv() if receiver.poll(patience) else None
    process.kill()
    process.join()
    return outcome


def fork_outcomes():
    """Outcomes in processes forked before and after TensorFlow has started."""

    def fit(size):
        (X, y), solver = PROBLEMS[size]
        return estimates(regressor(solver).fit(X, y))

    import tensorflow  # noqa: F401  # so that the first child need not, which takes seconds

    outcomes = {"large, before": outcome_in_a_fork(lambda: fit("large"))}
    model = regressor().fit(*LARGE)
    assert "tensorflow" in sys.modules
    outcomes["large, here"] = estimates(model)
    for size in ("small", "large"):
        outcomes[size] = outcome_in_a_fork(lambda size=size: fit(size))
    outcomes["std"] = outcome_in_a_fork(lambda: std_of_five(model))
    return outcomes


def std_of_five(model):
    return model.predict(LARGE[0][:5], return_std=True)[1].tolist()


@pytest.fixture(scope="module")
def forked():
    return in_a_new_process("fork_outcomes")


@forks
@pytest.mark.slow
def test_a_small_fit_in_a_process_forked_after_tensorflow_started(forked):
    assert_allclose(forked["small"], estimates(regressor().fit(*SMALL)), rtol=SAME)


@forks
@pytest.mark.slow
def test_predictions_in_a_process_forked_after_tensorflow_started(forked):
    assert_allclose(forked["std"], std_of_five(regressor().fit(*LARGE)), rtol=SAME)


@forks
@pytest.mark.slow
def test_a_large_fit_in_a_process_forked_before_tensorflow_started(forked):
    assert_allclose(forked["large, before"], forked["large, here"], rtol=SAME)


@forks
@pytest.mark.slow
def test_a_large_fit_in_a_process_forked_after_tensorflow_started_is_refused(forked):
    assert isinstance(forked["large"], str), "no answer"
    assert "RuntimeError" in forked["large"]
    for cure in ("loky", "spawn"):
        assert cure in forked["large"]


def fit_in_a_fork_while_the_limit_is_set():
    """Outcome in a process forked while another thread sets the limit of BLAS threads."""
    with _machine._LIMIT._lock:
        return outcome_in_a_fork(lambda: estimates(regressor().fit(*SMALL)), patience=5.0)


@forks
@pytest.mark.slow
def test_a_fit_in_a_process_forked_while_a_thread_sets_the_limit_of_blas():
    found = in_a_new_process("fit_in_a_fork_while_the_limit_is_set")
    assert found is not None, "no answer"
    assert_allclose(found, estimates(regressor().fit(*SMALL)), rtol=SAME)


# Threads.


@pytest.mark.slow
@pytest.mark.parametrize("names", [("small", "small"), ("small", "large"), ("large", "iterative")])
def test_fits_in_threads_give_the_answers_of_fits_in_turn(names):
    def fit(name):
        data, solver = PROBLEMS[name]
        return estimates(regressor(solver).fit(*data))

    expected = [fit(name) for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        for found, one in zip(pool.map(fit, names), expected, strict=True):
            assert_allclose(found, one, rtol=SAME)


def test_threads_may_predict_with_one_model():
    X, y = SMALL
    model = regressor().fit(X, y)
    expected = np.column_stack(model.predict(X, return_std=True))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict(X, return_std=True), range(20)):
            assert_allclose(np.column_stack(found), expected, rtol=SAME)


# Interrupts.


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("fitted", [False, True])
def test_an_interrupt_in_the_loop_leaves_the_estimator_as_it_was(monkeypatch, fitted):
    X, y = SMALL
    model = regressor()
    if fitted:
        model.fit(X, y + 1)
    before, threads = dict(vars(model)), blas_threads()
    monkeypatch.setattr("sklearn_mackay.evidence.loop.newton_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert vars(model) == before
    assert blas_threads() == threads
    monkeypatch.undo()
    assert_allclose(estimates(model.fit(X, y)), estimates(regressor().fit(X, y)), rtol=SAME)


def blas_threads():
    return [
        library.num_threads
        for library in ThreadpoolController().lib_controllers
        if library.user_api == "blas"
    ]


def blas_limits_left_in_a_new_process():
    """Interrupt what limits the threads of BLAS, and count how often the limit stays."""
    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas":
            library.set_num_threads(2)  # also where there is one processor
    rng, before, left = np.random.default_rng(0), blas_threads(), 0
    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(300):
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 1e-3))
            while True:
                with _machine.one_blas_thread():
                    pass
        # What an interrupt at the wrong moment left, the next user lifts.
        with _machine.one_blas_thread():
            pass
        left += blas_threads() != before
    return left


@pytest.mark.slow
@alarms
def test_interrupts_leave_no_limit_of_blas_threads():
    assert in_a_new_process("blas_limits_left_in_a_new_process") == 0


def interrupted_while_keeping(model, line, X, y):
    """Interrupt a fit before a line of `_keep`, counted from 1; whether it has so many."""
    code, lines = MacKayMixedRegressor._keep.__code__, 0

    def trace(frame, event, arg):
        nonlocal lines
        if frame.f_code is not code:
            return None
        lines += event == "line"
        if event == "line" and lines == line:
            raise KeyboardInterrupt
        return trace

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        model.fit(X, y)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(tracer)
    return False


def test_an_interrupt_while_attributes_are_set_leaves_the_old_or_the_new_fit():
    X, y = SMALL
    line = 0
    while True:
        line += 1
        model = regressor().fit(X, y)
        before = dict(vars(model))
        if not interrupted_while_keeping(model, line, X, y + 1):
            break
        after = vars(model)
        kept = [name for name in before if name in after and after[name] is before[name]]
        new = [name for name in after if name.endswith("_") and after[name] is not before.get(name)]
        assert after.keys() == before.keys(), f"line {line}"
        assert not new or "intercept_" not in kept, f"line {line}"
    assert line > 3


# The machine.


def estimates_of_all():
    return {
        name: estimates(regressor(solver).fit(*data)) for name, (data, solver) in PROBLEMS.items()
    }


@pytest.mark.slow
def test_without_visible_gpus_the_numbers_are_the_same():
    hidden = in_a_new_process("estimates_of_all", CUDA_VISIBLE_DEVICES="-1")
    for name, expected in estimates_of_all().items():
        assert_allclose(hidden[name], expected, rtol=DEVICE, err_msg=name)


def memory_growth():
    """MiB that the most resident memory grows by in 1,000 fits of changing shapes."""
    import resource

    def one_factor(i):
        X, y = crossed(900 + i % 41, 220 + i % 37, seed=i)
        MacKayMixedRegressor(groups=[0]).fit(X, y)

    def slopes(i):
        X, y = crossed(900 + i % 41, 180 + i % 37, 40 + i % 11, seed=i)
        x = np.random.default_rng(i).normal(size=len(y))
        regressor(random_slopes={0: [2]}, max_iter=3, tol=1.0).fit(np.column_stack([X, x]), y)

    fits = {
        lambda i: regressor().fit(*crossed(60 + i % 41, 4 + i % 7, 3 + i % 5, seed=i)): 600,
        one_factor: 200,
        lambda i: regressor().fit(*crossed(900 + i % 41, 180 + i % 37, 40 + i % 11, seed=i)): 150,
        slopes: 50,
    }

    def resident():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB

    for fit in fits:
        for i in range(20):
            fit(i)
    before = resident()
    for fit, n_fits in fits.items():
        for i in range(n_fits):
            fit(i)
    return resident() - before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="tells no resident memory")
def test_a_thousand_fits_of_changing_shapes_keep_the_memory():
    # tests/test_iterative.py has the iterative engine.
    assert in_a_new_process("memory_growth") < MEMORY
