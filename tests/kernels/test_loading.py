"""When TensorFlow is loaded, and that nothing is heard of it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.kernels import loading
from sklearn_mackay.kernels.engine import FEW_EFFECTS

NOISE = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795677666.002271    3338 port.cc:153] oneDNN custom operations are on.\n"
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild.\n"
    b"E0000 00:00:1795677669.404638    3338 cuda_platform.cc:52] failed call to cuInit: 303\n"
    b"2024-03-09 10:00:00.123456: W tensorflow/compiler/tf2tensorrt/py_utils.cc:38] no TensorRT\n"
)
ANOTHERS = b"I had something to say\n"

FIRST_FIT = """
import numpy as np
from sklearn_mackay import MacKayMixedRegressor

rng = np.random.default_rng(0)
codes = np.column_stack([rng.integers(400, size=5000), rng.integers(300, size=5000)])
X = np.column_stack([codes, codes[:, 0] % 20, rng.normal(size=5000)])
y = rng.normal(size=400)[codes[:, 0]] + rng.normal(size=300)[codes[:, 1]] + rng.normal(size=5000)
model = MacKayMixedRegressor(**{parameters}).fit(X, y)
assert model.kernel_ == "tensorflow", model.kernel_
"""
MODELS = {
    "crossed": {"groups": [0, 1], "fixed_features": [3]},
    "one factor": {"groups": [0], "random_slopes": {0: [3]}, "fixed_features": [3]},
    "nested": {"groups": [2, 0], "fixed_features": [3]},
    "iterative": {"groups": [0, 1], "fixed_features": [3], "solver": "iterative"},
}


@pytest.mark.slow
@pytest.mark.parametrize("parameters", MODELS.values(), ids=MODELS)
def test_the_first_fit_of_a_process_prints_nothing(parameters):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIRST_FIT.format(parameters=parameters)],
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_what_others_write_meanwhile_is_passed_on(capfd):
    with loading.without_log_lines():
        os.write(2, NOISE + ANOTHERS + NOISE)
        assert capfd.readouterr().err == ""
    os.write(2, b"after")
    assert capfd.readouterr().err.encode() == ANOTHERS + b"after"


def test_all_is_passed_on_if_loading_fails(capfd):
    def fails():
        os.write(2, NOISE + ANOTHERS)
        raise ImportError

    with pytest.raises(ImportError), loading.without_log_lines():
        fails()
    assert capfd.readouterr().err.encode() == NOISE + ANOTHERS


@pytest.mark.slow
def test_a_process_that_dies_meanwhile_says_where():
    code = (
        "import os\n"
        "from sklearn_mackay.kernels.loading import without_log_lines\n"
        "with without_log_lines():\n"
        "    os.abort()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0
    assert "Fatal Python error" in run.stderr
    assert "line 4 in <module>" in run.stderr


@pytest.mark.parametrize("name", ["os.dup", "tempfile.TemporaryFile"])
def test_without_a_place_to_hold_them_lines_are_printed(monkeypatch, capfd, name):
    def refuse(*_):
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(name, refuse)
        with loading.without_log_lines():
            os.write(2, NOISE)
    assert capfd.readouterr().err.encode() == NOISE


def read_only():
    return os.open(os.devnull, os.O_RDONLY)


def pipe_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.slow
@pytest.mark.parametrize("standard_error", [read_only, pipe_that_nobody_reads])
def test_what_cannot_be_passed_on_is_no_error_of_the_fit(standard_error):
    code = (
        "import os\n"
        "from sklearn_mackay.kernels.loading import without_log_lines\n"
        "with without_log_lines():\n"
        "    os.write(2, b'unheard')\n"
        "print('went on')\n"
    )
    with open(standard_error(), "wb", buffering=0) as stderr:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert run.stdout == "went on\n"


def groups(n_levels):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(n_levels), 3)
    return codes[:, np.newaxis], rng.normal(size=len(codes)) + rng.normal(size=n_levels)[codes]


def test_kernel_names_what_computed():
    for n_levels, kernel in ((FEW_EFFECTS, "lapack"), (FEW_EFFECTS + 1, "tensorflow")):
        model = MacKayMixedRegressor(groups=[0]).fit(*groups(n_levels))
        assert (model.solver_, model.kernel_) == ("exact", kernel)
    X, y = groups(50)
    crossed = np.column_stack([X, np.tile(np.arange(30), 5)])
    by_products = MacKayMixedRegressor(groups=[0, 1], solver="iterative", random_state=0)
    by_products.fit(crossed, y)
    assert (by_products.solver_, by_products.kernel_) == ("iterative", "tensorflow")


def test_without_random_effects_any_number_of_features_is_lapacks(rng):
    X = rng.normal(size=(700, FEW_EFFECTS + 50))
    assert MacKayMixedRegressor().fit(X, X[:, 0]).kernel_ == "lapack"


def test_missing_tensorflow_gets_one_sentence_and_no_half_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    loading._load_once.cache_clear()
    model = MacKayMixedRegressor(groups=[0])
    before = dict(vars(model))
    with pytest.raises(ImportError, match="not installed: run `pip install tensorflow`"):
        model.fit(*groups(FEW_EFFECTS + 1))
    assert vars(model) == before
    # The cause is not another process.
    assert loading._process_of_tensorflow.cache_info().currsize == 0
    assert model.fit(*groups(FEW_EFFECTS)).kernel_ == "lapack"
