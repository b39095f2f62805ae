"""The loop with as many random probes as its estimates need, and what these leave uncertain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..evidence.criterion import deviance
from ..evidence.freedom import Freedom
from ..evidence.loop import Iteration, Optimum, Stopping, estimate_variances
from ..evidence.newton import StandardErrors, gradient_noise, standard_errors
from ..evidence.restarts import MOST_ENTRIES, other_starts
from ..evidence.solution import Engine, MonteCarlo, PenalizedSolution, Variances
from .problem import Problem

MONTE_CARLO_SHARE = 0.05  # of a variance's standard error that random probes may add
ANOTHER_VALLEY = 1e-6  # of the deviance: what one start is lower than another in the same one
MOST_REPETITIONS = 2  # the first may move, the second then starts where it is


@dataclass(frozen=True)
class MonteCarloErrors:
    """Standard errors of what random probes estimate, and their work; zero for the exact engine."""

    variances: StandardErrors
    deviance: float
    n_products: int


def estimate(
    engine: Engine, problem: Problem, report: Callable[[Iteration], None]
) -> tuple[Optimum, MonteCarloErrors]:
    """Begin where fewer rows ended, and anew where that does not do or another valley costs little.

    Parameters
    ----------
    engine : Engine
        Solves the equations.
    problem : Problem
        What to estimate, and where to begin.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    optimum : Optimum
        The lower one.
    errors : MonteCarloErrors
        What the probes leave uncertain.
    """
    optimum, errors = estimate_with(engine, problem, report)
    is_finite = optimum.solution.finite
    if problem.before and not (is_finite and problem.crossproducts.n_entries > MOST_ENTRIES):
        anew = estimate_with(engine, replace(problem, before={}), report)
        if not is_finite or _is_lower(anew[0], optimum):
            return anew
    return optimum, errors


def estimate_with(
    engine: Engine, problem: Problem, report: Callable[[Iteration], None]
) -> tuple[Optimum, MonteCarloErrors]:
    """Run the loop, with more probes where they leave too large an error.

    Parameters
    ----------
    engine : Engine
        Solves the equations.
    problem : Problem
        What to estimate, and where to begin.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    optimum : Optimum
        Its deviance and history are those of the criterion, also where only its slope was known.
    errors : MonteCarloErrors
        What the probes leave uncertain.
    """
    options, freedom = problem.options, problem.freedom

    def run(start: Variances) -> Optimum:
        return estimate_variances(
            engine.solve,
            problem.crossproducts,
            start,
            freedom,
            method=options.method,
            stopping=Stopping(options.max_iter, options.tol),
            report=report,
        )

    optimum = run(problem.start)
    monte_carlo = engine.monte_carlo
    if monte_carlo is None or not optimum.solution.finite:
        optimum = _best_of_restarts(optimum, run, engine, problem)
        none = tuple(np.zeros_like(S) for S in optimum.solution.variances.Sigma)
        return optimum, MonteCarloErrors(StandardErrors(none, 0.0), 0.0, 0)
    optimum, errors = _with_probes(optimum, run, engine, monte_carlo, freedom)
    log_det, error = monte_carlo.log_det(optimum.solution.variances)
    value = _criterion(replace(optimum.solution, log_det=log_det), problem)
    history = tuple(
        replace(iteration, deviance=iteration.deviance + value - optimum.deviance)
        for iteration in optimum.history
    )
    optimum = replace(optimum, deviance=value, history=history)
    return optimum, MonteCarloErrors(errors, error, monte_carlo.n_products)


def _with_probes(
    optimum: Optimum,
    run: Callable[[Variances], Optimum],
    engine: Engine,
    monte_carlo: MonteCarlo,
    freedom: Freedom,
) -> tuple[Optimum, StandardErrors]:
    """Draw probes and run again until they add little to any standard error."""
    while True:
        variances = optimum.solution.variances
        for _ in range(MOST_REPETITIONS):
            if not monte_carlo.is_accurate(variances):
                optimum = replace(optimum, solution=engine.solve(variances))
        samples = monte_carlo.trace_samples(variances)
        n_probes = len(samples[0])
        errors = standard_errors(optimum.solution, freedom, gradient_noise(samples, freedom))
        ratio = _largest_ratio(errors, standard_errors(optimum.solution, freedom))
        wanted = int(np.ceil(n_probes * (ratio / MONTE_CARLO_SHARE) ** 2))
        wanted = min(wanted, monte_carlo.most_probes)
        if wanted <= n_probes:
            return optimum, errors
        monte_carlo.add_probes(wanted - n_probes)
        again = run(variances)
        optimum = replace(again, history=optimum.history + again.history)


def _criterion(solution: PenalizedSolution, problem: Problem) -> float:
    return deviance(
        solution,
        dof=problem.freedom.dof,
        sum_log_weights=problem.crossproducts.sum_log_weights,
        penalty=problem.crossproducts.penalty,
    )


def _best_of_restarts(
    optimum: Optimum, run: Callable[[Variances], Optimum], engine: Engine, problem: Problem
) -> Optimum:
    """The lowest of the valleys that other starts find, unless the user chose the start."""
    freedom, is_chosen = problem.freedom, bool(problem.options.start)
    is_final = optimum.zero_residual or not optimum.solution.finite
    if problem.options.method == "quick" or is_chosen or is_final:
        return optimum

    def height(variances: Variances) -> float:
        solution = engine.solve(variances)
        if freedom.is_rescalable:
            solution = solution.rescaled(solution.yPy / freedom.dof)
        return _criterion(solution, problem)

    found = optimum.solution.variances
    for other in other_starts(height, problem.crossproducts, freedom, problem.start, found):
        again = run(other)
        if _is_lower(again, optimum) and not again.zero_residual:
            optimum = again
    return optimum


def _is_lower(one: Optimum, other: Optimum) -> bool:
    return one.converged and one.deviance < other.deviance - ANOTHER_VALLEY


def _largest_ratio(errors: StandardErrors, of: StandardErrors) -> float:
    """Largest Monte Carlo error of a variance as a share of the variance's standard error."""
    pairs = [(errors.sigma2, of.sigma2)]
    for error, std in zip(errors.Sigma, of.Sigma, strict=True):
        pairs += zip(np.diag(error), np.diag(std), strict=True)
    return max((a / b for a, b in pairs if b > 0), default=0.0)
