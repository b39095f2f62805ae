"""TensorFlow, loaded by the first fit that needs it, in silence."""

from __future__ import annotations

import faulthandler
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from threading import Lock

LOG_LINE = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ \S+\] "  # I0000 00:00:1732600000.123456    1234 port.cc:153] ...
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] \S+\] "  # 2024-11-26 07:15:00.123456: I tensorflow/...] ...
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|To enable the following instructions: "
    rb"|Skipping registering GPU devices"
)
STANDARD_ERROR = 2  # its file descriptor, which C++ writes to whatever `sys.stderr` is

_LOADING = Lock()


def load_tensorflow() -> None:
    """Import TensorFlow and let it find its devices; nothing is printed.

    Raises
    ------
    ImportError
        If it is not installed, or cannot be loaded.
    RuntimeError
        In a process that was forked from one which uses it: its threads are not there in the
        fork, and it would wait for them without end.
    """
    if _process_of_tensorflow() != os.getpid():
        raise RuntimeError(
            "This process was forked from one that had fitted with TensorFlow, whose threads are "
            "not here: it would wait without end. Start processes by joblib's loky, which "
            "scikit-learn does by itself, or by multiprocessing's 'spawn'."
        )
    with _LOADING:
        try:
            _load_once()
        except BaseException:
            _process_of_tensorflow.cache_clear()
            raise


@cache
def _process_of_tensorflow() -> int:
    return os.getpid()


@cache
def _load_once() -> None:
    try:
        with without_log_lines():
            import tensorflow as tf

            tf.config.list_logical_devices()
            # oneDNN says once that it leaves integers to others.
            tf.transpose(tf.zeros([1, 1], tf.int32))
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise ImportError(
            "A fit of this size needs TensorFlow, which is not installed: run "
            "`pip install tensorflow`."
        ) from error


@contextmanager
def without_log_lines() -> Iterator[None]:
    """Hold back what is written to standard error; pass on what is no line of TensorFlow's log.

    If an exception ends it, everything is passed on. If the process ends in it, Python writes a
    traceback, which shows where, unless the program has a handler of its own for that. A process
    that another thread starts meanwhile has the standard error that holds back.
    """
    with ExitStack() as closing:
        try:
            held = closing.enter_context(tempfile.TemporaryFile())
            standard_error = os.dup(STANDARD_ERROR)
        except OSError:  # nowhere to hold it, or no standard error, as in a program with windows
            yield
            return
        closing.callback(os.close, standard_error)
        if not faulthandler.is_enabled():
            faulthandler.enable(standard_error)
            closing.callback(faulthandler.disable)
        os.dup2(held.fileno(), STANDARD_ERROR)
        is_over = False
        try:
            yield
            is_over = True
        finally:
            os.dup2(standard_error, STANDARD_ERROR)
            held.seek(0)
            lines = [line for line in held if not (is_over and LOG_LINE.match(line))]
            # What nobody can read is lost, as it would have been.
            with suppress(OSError), open(standard_error, "wb", closefd=False) as stream:
                stream.writelines(lines)
