"""What the process has: memory, and BLAS threads where several cost more than they save."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any
from weakref import WeakSet

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
    """A limit of the whole process that the first of several threads sets and the last lifts.

    Whoever is inside holds a token. A token dies with its holder, so that an interrupt at the wrong
    moment leaves the limit to the next user at worst, and never for good.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside: WeakSet[_Token] = WeakSet()
        self._originals: list[tuple[Any, int]] = []

    @contextmanager
    def shared(self) -> Iterator[None]:
        token = _Token()
        try:
            with self._lock:
                self._inside.add(token)
                if not self._originals:
                    self._originals = [(blas, blas.num_threads) for blas in _blas_libraries()]
                for blas, _ in self._originals:
                    blas.set_num_threads(1)
            yield
        finally:
            with self._lock:
                self._inside.discard(token)
                if not self._inside:
                    for blas, n_threads in self._originals:
                        blas.set_num_threads(n_threads)
                    self._originals = []


class _Token:
    """Somebody who is inside."""


_LIMIT = _SharedLimit()
if hasattr(os, "register_at_fork"):
    # Another thread of the parent may have held the lock, and is not there in the child.
    os.register_at_fork(after_in_child=_LIMIT.__init__)  # type: ignore[misc]


@cache
def _blas_libraries() -> list[Any]:
    controller = ThreadpoolController()
    return [library for library in controller.lib_controllers if library.user_api == "blas"]


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
