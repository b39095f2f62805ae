"""The loop with as many random probes as its estimates need, and what these leave uncertain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..evidence.criterion import deviance
from ..evidence.freedom import Freedom
from ..evidence.loop import Iteration, Optimum, estimate_variances
from ..evidence.newton import StandardErrors, gradient_noise, standard_errors
from ..evidence.restarts import other_starts
from ..evidence.solution import Engine, PenalizedSolution, Variances
from ..gram.crossproducts import CrossProducts
from .options import Options

MONTE_CARLO_SHARE = 0.05  # of a variance's standard error that random probes may add
ANOTHER_VALLEY = 1e-6  # of the deviance: what one start is lower than another in the same one
MOST_REPETITIONS = 2  # the first may move, the second then starts where it is


@dataclass(frozen=True)
class MonteCarloErrors:
    """Standard errors of what random probes estimate, and their work; zero for the exact engine."""

    variances: StandardErrors
    deviance: float
    n_products: int


def estimate_with(
    engine: Engine,
    crossproducts: CrossProducts,
    start: Variances,
    freedom: Freedom,
    options: Options,
    report: Callable[[Iteration], None],
) -> tuple[Optimum, MonteCarloErrors]:
    """Run the loop, with more probes where they leave too large an error.

    Parameters
    ----------
    engine : Engine
        Solves the equations.
    crossproducts : CrossProducts
        Gram blocks.
    start : Variances
        Where to begin.
    freedom : Freedom
        What may move.
    options : Options
        Method and tolerances.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    fit : Optimum
        Its deviance and history are those of the criterion, also where only its slope was known.
    errors : MonteCarloErrors
        What the probes leave uncertain.
    """

    def run(start: Variances) -> Optimum:
        return estimate_variances(
            engine.solve,
            crossproducts,
            start,
            freedom,
            method=options.method,
            max_iter=options.max_iter,
            tol=options.tol,
            report=report,
        )

    fit = run(start)
    monte_carlo = engine.monte_carlo
    if monte_carlo is None or not fit.solution.finite:
        fit = _best_of_restarts(fit, run, engine, crossproducts, start, freedom, options)
        none = tuple(np.zeros_like(S) for S in fit.solution.variances.Sigma)
        return fit, MonteCarloErrors(StandardErrors(none, 0.0), 0.0, 0)
    while True:
        variances = fit.solution.variances
        for _ in range(MOST_REPETITIONS):
            if not monte_carlo.is_accurate(variances):
                fit = replace(fit, solution=engine.solve(variances))
        samples = monte_carlo.trace_samples(variances)
        n_probes = len(samples[0])
        errors = standard_errors(fit.solution, freedom, gradient_noise(samples, freedom))
        ratio = _largest_ratio(errors, standard_errors(fit.solution, freedom))
        wanted = int(np.ceil(n_probes * (ratio / MONTE_CARLO_SHARE) ** 2))
        wanted = min(wanted, monte_carlo.most_probes)
        if wanted <= n_probes:
            break
        monte_carlo.add_probes(wanted - n_probes)
        again = run(variances)
        fit = replace(again, history=fit.history + again.history)
    log_det, error = monte_carlo.log_det(variances)
    value = _criterion(replace(fit.solution, log_det=log_det), crossproducts, freedom)
    history = tuple(
        replace(iteration, deviance=iteration.deviance + value - fit.deviance)
        for iteration in fit.history
    )
    fit = replace(fit, deviance=value, history=history)
    return fit, MonteCarloErrors(errors, error, monte_carlo.n_products)


def _criterion(
    solution: PenalizedSolution, crossproducts: CrossProducts, freedom: Freedom
) -> float:
    return deviance(
        solution,
        dof=freedom.dof,
        sum_log_weights=crossproducts.sum_log_weights,
        penalty=crossproducts.penalty,
    )


def _best_of_restarts(
    fit: Optimum,
    run: Callable[[Variances], Optimum],
    engine: Engine,
    crossproducts: CrossProducts,
    start: Variances,
    freedom: Freedom,
    options: Options,
) -> Optimum:
    """The lowest of the valleys that other starts find, unless the user chose the start."""
    if options.method == "quick" or options.start or fit.zero_residual or not fit.solution.finite:
        return fit

    def height(variances: Variances) -> float:
        solution = engine.solve(variances)
        if freedom.is_rescalable:
            solution = solution.rescaled(solution.yPy / freedom.dof)
        return _criterion(solution, crossproducts, freedom)

    for other in other_starts(height, crossproducts, freedom, start, fit.solution.variances):
        again = run(other)
        is_better = again.converged and again.deviance < fit.deviance - ANOTHER_VALLEY
        if is_better and not again.zero_residual:
            fit = again
    return fit


def _largest_ratio(errors: StandardErrors, of: StandardErrors) -> float:
    """Largest Monte Carlo error of a variance as a share of the variance's standard error."""
    pairs = [(errors.sigma2, of.sigma2)]
    for error, std in zip(errors.Sigma, of.Sigma, strict=True):
        pairs += zip(np.diag(error), np.diag(std), strict=True)
    return max((a / b for a, b in pairs if b > 0), default=0.0)
