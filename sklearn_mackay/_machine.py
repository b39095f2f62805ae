"""What the machine has: memory, and BLAS threads where several cost more than they save."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

DENSE_COPIES = 4  # matrices of an order that factorising one of them takes
SMALL = 2**17  # entries of a matrix whose products take less time than waking a thread
MODERATE = 2**21  # the same of one that a thread factorises in some hundredths of a second


@contextmanager
def one_blas_thread(*, n_entries: int = 0, limit: int = SMALL) -> Iterator[None]:
    """Keep BLAS to one thread for arithmetic on small matrices.

    Threads that wait for each other on busy cores take up to a hundred times as long as one.

    Parameters
    ----------
    n_entries : int
        Entries of the largest matrix.
    limit : int
        Beyond so many nothing is changed.
    """
    if n_entries > limit:
        yield
        return
    with _LIMIT.shared():
        yield


class _SharedLimit:
    """A limit of the whole process that the first of several threads sets and the last lifts."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_inside = 0
        self._limiter: Any = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._lock:
            if self._n_inside == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._n_inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_inside -= 1
                if self._n_inside == 0:
                    self._limiter.restore_original_limits()


_LIMIT = _SharedLimit()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def require_memory(order: int, cure: str) -> None:
    """Refuse to factorise a dense matrix that the machine has no memory for.

    Parameters
    ----------
    order : int
        Of the matrix.
    cure : str
        What to do instead, for the message.

    Raises
    ------
    MemoryError
    """
    needed = 8.0 * DENSE_COPIES * float(order) ** 2
    if needed > physical_memory():
        raise MemoryError(
            f"This factorises a dense matrix of order {order:,}, which takes about "
            f"{needed / 2**30:,.0f} GiB. {cure}"
        )


def physical_memory() -> float:
    """Bytes of memory, infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return np.inf
