"""One mixed model from its problem to its variances: an engine, the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .._machine import MODERATE, one_blas_thread
from ..evidence.loop import Iteration
from ..evidence.solution import Engine
from ..gram.crossproducts import CrossProducts, LargeColumns
from ..gram.layout import Layout
from .monte_carlo import MonteCarloErrors, estimate
from .posing import Posed
from .problem import Fitted, Problem

KEPT_ENTRIES = 2**21  # numbers in Gram blocks that are kept unasked: 16 MiB


class Prepare(Protocol):
    """Chooses an engine and hands it Gram blocks."""

    def __call__(
        self, crossproducts: CrossProducts, layout: Layout, large: LargeColumns, *, reml: bool
    ) -> Engine:
        """Return an engine whose determinant and traces belong to REML or to ML."""
        ...


def fit_model(
    posed: Posed, prepare: Prepare, report: Callable[[Iteration], None]
) -> list[tuple[Fitted, MonteCarloErrors]]:
    """Estimate a mixed model, or several that share everything but the response.

    Parameters
    ----------
    posed : Posed
        What to estimate.
    prepare : callable
        ``prepare(crossproducts, layout, large, reml=...)`` returns an :class:`Engine`.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    list of (Fitted, MonteCarloErrors)
        One for each response.

    Raises
    ------
    ValueError
        Where rows do not suffice to estimate variances, or the equations are singular.
    """
    return [_fit_output(problem, posed, prepare, report) for problem in posed.problems]


def _fit_output(
    problem: Problem,
    posed: Posed,
    prepare: Prepare,
    report: Callable[[Iteration], None],
) -> tuple[Fitted, MonteCarloErrors]:
    """Estimate the variances of one response."""
    _require_degrees_of_freedom(problem)
    crossproducts, options = problem.crossproducts, problem.options
    engine = prepare(crossproducts, problem.layout, posed.large, reml=options.method != "ml")
    with one_blas_thread(n_entries=crossproducts.dense_order**2, limit=MODERATE):
        optimum, errors = estimate(engine, problem, report)
    if not optimum.solution.finite:
        raise ValueError(
            "The penalised equations are singular to working precision: the fixed features are too "
            "nearly collinear (sparse ones are not centred). Remove some, give a positive `alpha`, "
            "or pass a dense X."
        )
    axes = [term.axes for term in crossproducts.terms if term.is_block]
    n_factors = len(crossproducts.terms) - len(posed.blocks)
    names, b = [component.name for component in problem.active], optimum.solution.b
    blocks = list(zip(names[n_factors:], posed.blocks, axes, b[n_factors:], strict=True))
    effects = dict(zip(names[:n_factors], b[:n_factors], strict=True))
    effects |= {name: block.effects(of_block, along) for name, block, along, of_block in blocks}
    loadings = None
    if not posed.large and _is_kept(problem, is_exact=engine.name == "exact"):
        loadings = {name: block.loadings(along) for name, block, along, _ in blocks}
    return Fitted(problem, optimum, effects, loadings, engine.name, engine.kernel), errors


def _is_kept(problem: Problem, *, is_exact: bool) -> bool:
    """Whether the fit is to tell how sure it is."""
    keep = problem.options.keep
    if keep != "auto":
        return bool(keep)
    columns = zip(problem.active, problem.crossproducts.terms, strict=True)
    of_loadings = sum(component.center.size * gram.n_levels for component, gram in columns)
    return is_exact and problem.crossproducts.n_entries + of_loadings <= KEPT_ENTRIES


def _require_degrees_of_freedom(problem: Problem) -> None:
    is_explained = problem.output.is_explained
    if problem.dof <= 0 and problem.estimates_residual and not is_explained and problem.active:
        blocks = problem.crossproducts
        raise ValueError(
            f"The rows count as {blocks.n:g} (n_samples, or the sum of frequency weights), "
            f"too few to estimate variances beside {blocks.n_unpenalized} fixed "
            "coefficients. Use fewer fixed features, a positive `alpha`, or "
            "weight_type='precision' if the weights do not count rows."
        )
