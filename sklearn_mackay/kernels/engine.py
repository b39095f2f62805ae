"""Which engine solves a problem, by predicted work and memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.utils import check_random_state

from .._machine import MODERATE, one_blas_thread, require_memory
from ..evidence.solution import Engine, PenalizedSolution, Variances
from ..gram.crossproducts import CrossProducts, LargeColumns
from ..gram.layout import Layout
from . import dense
from .loading import load_tensorflow

FEW_EFFECTS = 200  # up to it LAPACK takes no longer than TensorFlow, which takes seconds to load
LAPACK, TENSORFLOW = "lapack", "tensorflow"
EXACT_FLOPS = 3e10  # of a factorisation, about two seconds on two cores


def prepare_engine(
    crossproducts: CrossProducts,
    layout: Layout,
    large: LargeColumns,
    *,
    reml: bool,
    solver: str,
    n_probes: int,
    random_state: int | np.random.RandomState | None,
) -> Engine:
    """Choose an engine and hand it the Gram blocks.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Order of elimination.
    large : mapping of int to ndarray or sparse array of shape (n, L)
        ``W^1/2 Z`` of feature blocks without principal axes, by term.
    reml : bool
        Whether determinant and traces belong to REML or to ML.
    solver : {"auto", "exact", "iterative"}
        "auto" is exact where its dense corner is a matter of seconds. Nested terms are always
        eliminated exactly, so that nothing is left to iterate without crossed ones.
    n_probes : int
        Random probes of the iterative engine.
    random_state : int, RandomState instance or None
        Draws the probes.

    Returns
    -------
    Engine

    Raises
    ------
    MemoryError
        If solver="exact" needs more memory than the machine has.
    """
    generator = check_random_state(random_state)
    order = _corner_order(crossproducts, layout.rest)
    if large and solver == "exact":
        n_columns = max(crossproducts.terms[k].n_levels for k in large)
        raise MemoryError(
            f"solver='exact' would factorise a dense matrix for a feature block of {n_columns:,} "
            "columns. Use solver='iterative' or 'auto'."
        )
    if layout.rest and (
        solver == "iterative" or (solver == "auto" and (large or float(order) ** 3 > EXACT_FLOPS))
    ):
        load_tensorflow()
        from .iterative import IterativeEngine

        iterative = IterativeEngine(
            crossproducts, layout, large, reml=reml, n_probes=n_probes, random_state=generator
        )
        return Engine("iterative", TENSORFLOW, iterative, iterative)
    return _prepare_exact(crossproducts, layout, reml=reml)


def exact_solver(
    crossproducts: CrossProducts, layout: Layout, *, reml: bool
) -> Callable[[Variances], PenalizedSolution]:
    """Solve by factorising, with LAPACK where that is faster than calling TensorFlow.

    Parameters
    ----------
    crossproducts : CrossProducts
        Gram blocks, without a large feature block.
    layout : Layout
        Order of elimination.
    reml : bool
        Whether determinant and traces belong to REML or to ML.

    Returns
    -------
    callable
        ``variances -> PenalizedSolution``.

    Raises
    ------
    MemoryError
        If the dense corner needs more memory than the machine has.
    """
    engine = _prepare_exact(crossproducts, layout, reml=reml)

    @one_blas_thread(n_entries=crossproducts.dense_order**2, limit=MODERATE)
    def solve(variances: Variances) -> PenalizedSolution:
        return engine.solve(variances)

    return solve


def _prepare_exact(crossproducts: CrossProducts, layout: Layout, *, reml: bool) -> Engine:
    order = _corner_order(crossproducts, layout.rest)
    require_memory(order, "Use solver='iterative' or 'auto'.")
    if sum(term.n_effects for term in crossproducts.terms) <= FEW_EFFECTS:
        return Engine("exact", LAPACK, dense.prepare(crossproducts, reml=reml))
    load_tensorflow()
    from .exact import prepare

    return Engine("exact", TENSORFLOW, prepare(crossproducts, layout, reml=reml))


def _corner_order(crossproducts: CrossProducts, corner: tuple[int, ...]) -> int:
    terms = (crossproducts.terms[k] for k in corner)
    return len(crossproducts.FWF) + sum(term.n_effects for term in terms)
