"""The variance loop: solve, look, move, until nothing moves.

Knows no engine: `solve` maps variances to a :class:`PenalizedSolution`; of Gram blocks it reads the
constants of the criterion and the size of y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..covariances.matrices import VANISHED
from ..gram.crossproducts import CrossProducts
from .boundary import drop_vanished, release, steepest_release
from .criterion import deviance, deviance_change
from .fixed_points import mackay_update, mm_update, quick_update
from .freedom import Freedom
from .newton import NewtonStep, newton_step
from .solution import PenalizedSolution, Solve, Variances

ZERO_RESIDUAL = 1e-12  # share of y'Wy below which a residual is rounding of the Gram blocks
HELD_RESIDUAL = 1e-8  # share of y'Wy that stands for a residual of zero; rounding stays small in it
SUFFICIENT_DECREASE = 1e-4  # Armijo's constant
MACKAY_STEPS = 1  # warm-up before Newton: far from the optimum a MacKay step is longer
PATIENCE = 10  # iterations before average information is corrected, but near the optimum
NEAR = 1e-3  # of the deviance: what the last step promised tells of the next ones
SHORTEST = 0.1  # part of a step that is tried where all of it is too long
DAMPINGS = (0.1, 1.0, 10.0, 100.0)  # of the Hessian with unit diagonal, tried in turn
SMALL = 0.1  # effective parameters below which zero, or leaving it, is worth a try
ROTATION_TOLERANCE = 1e-7  # decrement that MacKay's update may leave, in units of the deviance
POLISHED = 1e-3  # of the tolerance: the variances err by its root, 1e-5 of their standard error
EXACT = 1e-5  # the same where nothing is random: 1e-6 of their standard error
UNKNOWN_RATIO = 0.1  # of two decrements where there was none before
ROUNDING = 1e-13  # relative rounding of a deviance; differences below it mean nothing
ROUNDING_OF_YPY = 0.02  # of y'Wy, in the same unit: y'Py is a difference from it over sigma2


class Stopping(NamedTuple):
    """When the loop ends.

    Attributes
    ----------
    max_iter : int
        Largest number of iterations.
    tol : float
        Newton decrement in units of the deviance for "reml" and "ml", relative change of the
        variances for the fixed points.
    """

    max_iter: int
    tol: float


@dataclass(frozen=True)
class Iteration:
    """What one iteration saw.

    Attributes
    ----------
    step : str
        What led here: "start", "mackay", "mm", "newton", "quick", "zero" or "release".
    deviance : float
        Criterion at `variances`.
    variances : Variances
        Where it was evaluated.
    change : float
        The convergence measure: Newton decrement, or largest relative change of a variance.
    """

    step: str
    deviance: float
    variances: Variances
    change: float


@dataclass(frozen=True)
class Optimum:
    """Result of the loop.

    Attributes
    ----------
    solution : PenalizedSolution
        At the last variances.
    deviance : float
        Criterion there.
    converged : bool
        Whether the stopping rule and the test at zero variances hold, at an exact solution.
    zero_residual : bool
        Whether sigma2 is estimated as zero; the solution then has it next to zero.
    exact : bool
        Whether y moreover lies where ``V`` has no variance without sigma2: the likelihood is
        infinite. Effects that span all rows leave ``V`` regular, and the likelihood finite.
    history : tuple of Iteration
        One entry per solve.
    """

    solution: PenalizedSolution
    deviance: float
    converged: bool
    zero_residual: bool
    exact: bool
    history: tuple[Iteration, ...]


@dataclass
class _Walk:
    """The present point of the loop, and how it got there."""

    solve: Solve
    crossproducts: CrossProducts
    freedom: Freedom
    rescale: bool
    report: Callable[[Iteration], None]
    solution: PenalizedSolution
    deviance: float
    history: list[Iteration]
    previous: PenalizedSolution | None = None

    def look(self, variances: Variances) -> tuple[PenalizedSolution, float]:
        """Solve at `variances`; where everything is free, at their best common multiple."""
        solution = self.solve(variances)
        if not solution.finite:
            return solution, np.inf
        if self.rescale and solution.yPy > 0:
            solution = solution.rescaled(solution.yPy / self.freedom.dof)
        value = self._value(solution)
        return solution, value if np.isfinite(value) else np.inf

    def _value(self, solution: PenalizedSolution) -> float:
        if solution.log_det is not None:
            return deviance(
                solution,
                dof=self.freedom.dof,
                sum_log_weights=self.crossproducts.sum_log_weights,
                penalty=self.crossproducts.penalty,
            )
        if not self.history:
            return 0.0
        return self.deviance + deviance_change(self.solution, solution, dof=self.freedom.dof)

    def move(self, step: str, solution: PenalizedSolution, value: float, change: float) -> None:
        """Accept a point."""
        self.previous, self.solution, self.deviance = self.solution, solution, value
        self.history.append(Iteration(step, value, solution.variances, change))
        self.report(self.history[-1])

    @property
    def yWy(self) -> float:
        return float(self.crossproducts.FWF[-1, -1])

    @property
    def zero_residual(self) -> bool:
        """Whether the residual, if it is free, has fallen to the rounding of the Gram blocks."""
        return self.freedom.residual and self.solution.eWe <= ZERO_RESIDUAL * self.yWy

    @property
    def at_negligible_residual(self) -> Variances:
        """The present covariances beside a residual variance next to zero."""
        sigma2 = HELD_RESIDUAL * self.yWy / self.freedom.dof
        return Variances(sigma2, self.solution.variances.Sigma)

    @property
    def residual_dof(self) -> float:
        """``n - p - sum gamma``; with sigma2 next to zero the rank that ``V`` lacks without it."""
        return self.freedom.dof - sum(self.solution.gamma)

    @property
    def rounding(self) -> float:
        """Rounding of the deviance; that of ``y'Py`` grows as sigma2 falls."""
        yPy = ROUNDING_OF_YPY * self.yWy / self.solution.variances.sigma2
        return ROUNDING * max(abs(self.deviance), self.crossproducts.n, yPy)


def estimate_variances(
    solve: Solve,
    crossproducts: CrossProducts,
    start: Variances,
    freedom: Freedom,
    *,
    method: str,
    stopping: Stopping,
    report: Callable[[Iteration], None] = lambda _: None,
) -> Optimum:
    """Find the variances that a method asks for.

    Parameters
    ----------
    solve : callable
        ``variances -> PenalizedSolution``, with the traces of the criterion.
    crossproducts : CrossProducts
        Gram blocks.
    start : Variances
        Where to begin; components that are held stay there.
    freedom : Freedom
        What may move, and the degrees of freedom of the criterion.
    method : {"reml", "ml", "mackay", "quick"}
        "reml" and "ml" take average-information steps, the others their fixed point's.
    stopping : Stopping
        When to end.
    report : callable
        Called with each :class:`Iteration`.

    Returns
    -------
    Optimum
    """
    max_iter, tol = stopping
    walk = _Walk(
        solve=solve,
        crossproducts=crossproducts,
        freedom=freedom,
        rescale=freedom.is_rescalable and (method in ("reml", "ml") or not freedom.terms),
        report=report,
        solution=None,  # type: ignore[arg-type]
        deviance=np.inf,
        history=[],
    )
    walk.move("start", *walk.look(start), np.inf)
    converged = _iterate(walk, method, max_iter, tol)
    zero_residual = walk.zero_residual
    if zero_residual:
        # The effects are known by now; their covariances are estimated with the residual held.
        walk.freedom = replace(freedom, residual=False)
        walk.rescale = False
        walk.move("zero", *walk.look(walk.at_negligible_residual), np.inf)
        converged = _iterate(walk, method, max_iter, max(tol, walk.rounding))
    return Optimum(
        solution=walk.solution,
        deviance=walk.deviance,
        converged=converged and walk.solution.solved,
        zero_residual=zero_residual,
        exact=zero_residual and walk.residual_dof > 0.5,
        history=tuple(walk.history),
    )


def _iterate(walk: _Walk, method: str, max_iter: int, tol: float) -> bool:
    if not walk.solution.finite:
        return False
    if not (any(walk.freedom.terms) or (walk.freedom.residual and not walk.rescale)):
        return True
    iterate = {"mackay": _iterate_mackay, "quick": _iterate_quick}.get(method, _iterate_newton)
    return iterate(walk, max_iter, tol)


def _iterate_newton(walk: _Walk, max_iter: int, tol: float) -> bool:
    before = np.inf
    for iteration in range(max_iter):
        if walk.zero_residual:
            return True
        if iteration < MACKAY_STEPS:
            _safe_mackay(walk)
            continue
        is_exact = walk.solution.log_det is not None
        is_late = iteration >= PATIENCE or before <= NEAR
        previous = walk.previous if is_exact and is_late else None
        step = newton_step(walk.solution, walk.freedom, previous=previous)
        if step.decrement > tol:
            moved = (
                _descend(walk, step)
                or _release(walk, tol)
                or _try(walk, "mm", mm_update(walk.solution, walk.freedom), step.decrement)
            )
            if not (_zero(walk, step.decrement) or moved):
                return False
            before = step.decrement
            continue
        # What the deviance can fall by is at most tol; the variances err by its root. They are made
        # exact, unless random traces err by more: steps converge linearly, so that the last two
        # decrements tell the next.
        if is_exact or step.decrement > POLISHED * tol:
            _try(walk, "newton", step.at(1.0), step.decrement)
        _zero(walk, step.decrement, below=SMALL)
        ratio = step.decrement / before if 0 < before < np.inf else UNKNOWN_RATIO
        before = step.decrement
        is_last = iteration == max_iter - 1
        if is_exact and not is_last and ratio < 0.5 and ratio * step.decrement > EXACT * tol:
            continue
        if not _release(walk, tol):
            return True
    return False


def _iterate_mackay(walk: _Walk, max_iter: int, tol: float) -> bool:
    for iteration in range(max_iter):
        if walk.zero_residual:
            return True
        change = _safe_mackay(walk)
        settled = change <= tol
        # A variance whose optimum is zero falls only geometrically, so try zero itself.
        _zero(walk, change, below=SMALL if settled or iteration % 10 == 9 else VANISHED)
        if not settled or _release(walk, tol):
            continue
        # The update keeps the range of a singular covariance; only a Newton step can turn it.
        step = newton_step(walk.solution, walk.freedom)
        if step.decrement <= ROTATION_TOLERANCE:
            return True
        if not _descend(walk, step):
            return False
    return False


def _iterate_quick(walk: _Walk, max_iter: int, tol: float) -> bool:
    for _ in range(max_iter):
        if walk.zero_residual:
            return True
        before = walk.solution.variances
        candidate = quick_update(walk.solution, walk.freedom)
        change = relative_change(before, candidate)
        walk.move("quick", *walk.look(candidate), change)
        if change > tol:
            continue
        dropped = drop_vanished(walk.solution, walk.freedom, uphill_only=False)
        if dropped is walk.solution.variances:
            return True
        walk.move("zero", *walk.look(dropped), change)
    return False


def _safe_mackay(walk: _Walk) -> float:
    """MacKay's update, or the monotone MM update where it would raise the deviance.

    Returns the relative change, 0.0 where rounding lets neither lower it.
    """
    before = walk.solution.variances
    for name, update in (("mackay", mackay_update), ("mm", mm_update)):
        candidate = update(walk.solution, walk.freedom)
        change = relative_change(before, candidate)
        if _try(walk, name, candidate, change):
            return change
    return 0.0


def _descend(walk: _Walk, step: NewtonStep) -> bool:
    """Take a Newton step, part of it or a damped one: the first that lowers the deviance enough."""

    def attempt(step: NewtonStep, length: float) -> tuple[bool, float]:
        fall = -SUFFICIENT_DECREASE * length * step.slope
        return _attempt(walk, "newton", step.at(length), decrement, fall=fall)

    decrement = step.decrement
    taken, value = attempt(step, 1.0)
    if not taken:
        # The parabola through both values and the slope is lowest there.
        part = -0.5 * step.slope / (value - walk.deviance - step.slope)
        taken, _ = attempt(step, float(np.clip(part, SHORTEST, 0.5)))
    if not taken:
        damped = (newton_step(walk.solution, walk.freedom, damping=d) for d in DAMPINGS)
        taken = any(attempt(step, 1.0)[0] for step in damped)
    return taken


def _attempt(
    walk: _Walk, name: str, candidate: Variances, change: float, *, fall: float = 0.0
) -> tuple[bool, float]:
    """Move where that lowers the deviance by so much; whether it does, and the deviance there."""
    solution, value = walk.look(candidate)
    taken = value <= walk.deviance - fall + walk.rounding
    if taken:
        walk.move(name, solution, value, change)
    return taken, value


def _try(walk: _Walk, name: str, candidate: Variances, change: float) -> bool:
    taken, _ = _attempt(walk, name, candidate, change)
    return taken


def _zero(walk: _Walk, change: float, *, below: float = VANISHED) -> bool:
    """Set directions of next to no effective parameters to zero, where that lowers the deviance."""
    candidate = drop_vanished(walk.solution, walk.freedom, below=below)
    return candidate is not walk.solution.variances and _try(walk, "zero", candidate, change)


def _release(walk: _Walk, tol: float) -> bool:
    """Free a direction that may not stay at zero; whether there was one."""
    freedom, solution = walk.freedom, walk.solution
    for k, Sigma in enumerate(solution.variances.Sigma):
        basis = freedom.directions[k]
        if not freedom.terms[k] or basis.shape[1] == 0:
            continue
        slope, combination = steepest_release(
            basis.T @ Sigma @ basis,
            basis.T @ solution.N[k] @ basis,
            basis.T @ solution.gradient[k] @ basis,
            freedom.structures[k],
            below=SMALL,
        )
        direction = basis @ combination
        scale = float(direction @ solution.N[k] @ direction)
        # The fall to be had from a slope of -s N is about L s^2 / 2.
        gain = 0.5 * solution.n_levels[k] * (slope / scale) ** 2 if scale > 0 else 0.0
        if slope < 0 and gain > tol:
            return any(
                _try(walk, "release", release(solution, k, direction, length * slope), gain)
                for length in (1.0, 0.25, 0.0625, 0.015625)
            )
    return False


def relative_change(before: Variances, after: Variances) -> float:
    """Largest change of a variance, relative to it; covariances relative to their largest entry."""
    changes = [abs(after.sigma2 - before.sigma2) / before.sigma2]
    for old, new in zip(before.Sigma, after.Sigma, strict=True):
        size = float(np.max(np.abs(old)))
        if size > 0:
            changes.append(float(np.max(np.abs(new - old))) / size)
    return max(changes)
