"""The Newton step by average information, and standard errors from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._arrays import Array
from ..covariances.structures import Structure
from .freedom import Freedom
from .solution import PenalizedSolution, Variances

LONGEST_LOG_STEP = 3.0  # of log sigma2; a quadratic model says nothing about e^3 times as much
LEAST_CORRECTION = 0.1  # of a curvature; a model that errs by less is as good as Newton's


@dataclass(frozen=True)
class NewtonStep:
    """A Newton step on factors of the relative covariances.

    Attributes
    ----------
    base : Variances
        Where it starts.
    factors : tuple of ndarray of shape (s_k, r_k)
        ``T_k`` in ``Sigma_k / sigma2 = T_k T_k'`` there.
    moves : tuple of ndarray of shape (s_k, r_k)
        Changes of the factors; zero for a term that is held.
    log_sigma2 : float
        Change of ``log sigma2``.
    decrement : float
        ``g'H^-1 g / 2``: the fall of the deviance that the quadratic model predicts.
    slope : float
        Directional derivative of the deviance along the step.
    """

    base: Variances
    factors: tuple[Array, ...]
    moves: tuple[Array, ...]
    log_sigma2: float
    decrement: float
    slope: float

    def at(self, length: float) -> Variances:
        """Variances after a part of the step; positive semi-definite for any length."""
        change = np.clip(length * self.log_sigma2, -LONGEST_LOG_STEP, LONGEST_LOG_STEP)
        sigma2 = self.base.sigma2 * float(np.exp(change))
        Sigma = []
        for present, T, move in zip(self.base.Sigma, self.factors, self.moves, strict=True):
            moved = T + length * move
            Sigma.append(sigma2 * moved @ moved.T if np.any(move) else present)
        return Variances(sigma2, tuple(Sigma))


def newton_step(
    solution: PenalizedSolution,
    freedom: Freedom,
    *,
    damping: float = 0.0,
    previous: PenalizedSolution | None = None,
) -> NewtonStep:
    """Average-information step in factors ``T_k`` of ``Sigma_k / sigma2``.

    On the scale of standard deviations the deviance is smooth through zero and through
    correlations of one, so that a variance whose optimum is zero is reached in a few steps. ``T_k``
    has the principal directions as columns, the largest first, and its change is lower triangular
    in them: a singular covariance turns without gaining rank. The model's Hessian is
    ``J' (2 AI) J`` plus the curvature ``2 tr(G M M')`` of the product itself; directions in which
    it is not positive are turned downhill. Equation (9) of docs/theory.md.

    Parameters
    ----------
    solution : PenalizedSolution
        At the present variances.
    freedom : Freedom
        What may move.
    damping : float
        Added to the Hessian's eigenvalues, in coordinates that give it a unit diagonal; shortens
        the step most where the model is flat.
    previous : PenalizedSolution, optional
        Where the last step came from. The model is made to agree with the change of the gradient
        from there, by a symmetric update of rank one.

    Returns
    -------
    NewtonStep

    References
    ----------
    Gilmour, Thompson, Cullis (1995), "Average information REML", Biometrics 51. Nocedal, Wright
    (2006), "Numerical optimization", equation 6.24.
    """
    present = solution.variances
    here, gradient = _natural_point(solution, freedom)
    hessian = _natural_hessian(solution, freedom)
    if previous is not None:
        there, earlier = _natural_point(previous, freedom)
        hessian = _corrected(hessian, here - there, gradient - earlier)
    coordinates = _factor_coordinates(solution, freedom)
    jacobian = coordinates.jacobian
    g = jacobian.T @ gradient
    H = jacobian.T @ hessian @ jacobian + coordinates.curvature
    # A direction of zero variance is stationary in its factor; it must not pick up rounding.
    moving = np.any(jacobian != 0.0, axis=0)
    step = np.zeros(len(g))
    step[moving] = -_solve_downhill(H[np.ix_(moving, moving)], g[moving], damping)
    moves, start = [], 0
    for units in coordinates.units:
        moves.append(np.tensordot(step[start : start + len(units)], units, 1))
        start += len(units)
    slope = float(g @ step)
    return NewtonStep(
        base=present,
        factors=coordinates.factors,
        moves=tuple(moves),
        log_sigma2=float(step[-1]),
        decrement=-0.5 * slope,
        slope=slope,
    )


def _natural_point(solution: PenalizedSolution, freedom: Freedom) -> tuple[Array, Array]:
    """Entries of all ``Sigma_k / sigma2``, then ``log sigma2``, and the gradient in these.

    With these ratios held, ``log sigma2`` is that of a common factor of all variances.
    """
    sigma2 = solution.variances.sigma2
    at, gradient = [], []
    for S, G, structure in zip(
        solution.variances.Sigma, solution.gradient, freedom.structures, strict=True
    ):
        units = structure.units(len(S))
        at.append(_coordinates(S[None] / sigma2, units)[0])
        gradient.append(sigma2 * np.tensordot(units, G, 2))
    return (
        np.concatenate([*at, [np.log(sigma2)]]),
        np.concatenate([*gradient, [freedom.dof - solution.yPy]]),
    )


def _natural_hessian(solution: PenalizedSolution, freedom: Freedom) -> Array:
    """Twice the average information in the coordinates of `_natural_point`.

    A common factor on all variances scales ``V``; its derivatives need no working vector.
    """
    sigma2 = solution.variances.sigma2
    vEv = [
        np.tensordot(structure.units(len(vv)), vv, 2)
        for vv, structure in zip(solution.vv, freedom.structures, strict=True)
    ]
    cross = sigma2 * np.concatenate([np.zeros(0), *vEv])[:, None]
    corner = np.array([[solution.yPy]])
    return np.block([[sigma2**2 * solution.information, cross], [cross.T, corner]])


def _corrected(hessian: Array, step: Array, change: Array) -> Array:
    """Symmetric update of rank one of a Hessian, so that it maps ``step`` to ``change``."""
    expected = hessian @ step
    missing = change - expected
    if abs(missing @ step) <= LEAST_CORRECTION * (expected @ step):
        return hessian
    return np.asarray(hessian + np.outer(missing, missing) / (missing @ step))


@dataclass(frozen=True)
class _FactorCoordinates:
    """Coordinates of a Newton step: changes of all factors, then of log sigma2.

    `units` has for each term the changes of its factor, shape (m_k, s_k, r_k); `jacobian` the
    derivatives of `_natural_point`'s, zero for what is held; `curvature` what the product ``T T'``
    adds to the Hessian.
    """

    factors: tuple[Array, ...]
    units: tuple[Array, ...]
    jacobian: Array
    curvature: Array


def _factor_coordinates(solution: PenalizedSolution, freedom: Freedom) -> _FactorCoordinates:
    present, sigma2 = solution.variances, solution.variances.sigma2
    sizes = [
        structure.n_parameters(len(S))
        for S, structure in zip(present.Sigma, freedom.structures, strict=True)
    ]
    jacobian = np.zeros((sum(sizes) + 1,) * 2)
    jacobian[-1, -1] = freedom.residual
    curvature = np.zeros_like(jacobian)
    factors, all_units = [], []
    row = column = 0
    for Sigma, G, free, structure, basis in zip(
        present.Sigma,
        solution.gradient,
        freedom.terms,
        freedom.structures,
        freedom.directions,
        strict=True,
    ):
        entries = structure.units(len(Sigma))
        T, units = _principal_factor(Sigma / sigma2, basis, structure)
        rows, columns = slice(row, row + len(entries)), slice(column, column + len(units))
        if free:
            jacobian[rows, columns] = _coordinates(2.0 * units @ T.T, entries).T
            curvature[columns, columns] = (
                2.0 * sigma2 * np.einsum("iab,jcb,ca->ij", units, units, G)
            )
        elif freedom.residual:
            jacobian[rows, -1] = _coordinates(-Sigma[None] / sigma2, entries)[0]
        row, column = rows.stop, columns.stop
        factors.append(T)
        all_units.append(units)
    return _FactorCoordinates(tuple(factors), tuple(all_units), jacobian, curvature)


def _principal_factor(Sigma: Array, basis: Array, structure: Structure) -> tuple[Array, Array]:
    """``T = W Lambda^1/2`` of a covariance with variance in the basis only, and its changes.

    Column ``j`` of ``T`` changes by what varies no more than it does.
    """
    variances, vectors = structure.principal(basis.T @ Sigma @ basis)
    order = np.argsort(-variances)
    W = basis @ vectors[:, order]
    pairs = structure.factor_entries(len(order))
    units = np.zeros((len(pairs), *W.shape))
    for unit, (i, j) in zip(units, pairs, strict=True):
        unit[:, j] = W[:, i]
    return W * np.sqrt(variances[order]), units


def _coordinates(matrices: Array, units: Array) -> Array:
    """Coefficients of the symmetric parts of matrices (m, s, s) in the symmetric units."""
    norms = np.einsum("iab,iab->i", units, units)
    return np.asarray(np.tensordot(matrices, units, ([1, 2], [1, 2])) / norms)


def _solve_downhill(H: Array, g: Array, damping: float) -> Array:
    """``(|H| + damping)^-1 g`` in coordinates that give ``H`` a unit diagonal."""
    scale = np.sqrt(np.abs(np.diag(H)))
    scale = np.where(scale > 0, scale, 1.0)
    eigenvalues, vectors = np.linalg.eigh(H / np.outer(scale, scale))
    size = damping + np.abs(eigenvalues)
    size = np.maximum(size, 1e-10 * np.max(size, initial=1e-300))
    return np.asarray(vectors @ ((vectors.T @ (g / scale)) / size) / scale)


@dataclass(frozen=True)
class StandardErrors:
    """Standard errors of variances, entry by entry.

    Attributes
    ----------
    Sigma : tuple of ndarray of shape (s_k, s_k)
        Of each covariance; zero where it is held or zero itself.
    sigma2 : float
        Of the residual variance.
    """

    Sigma: tuple[Array, ...]
    sigma2: float


def standard_errors(
    solution: PenalizedSolution, freedom: Freedom, gradient_cov: Array | None = None
) -> StandardErrors:
    """Standard errors of the variances at the optimum, from the average information.

    ``Cov = 2 H^-1`` with the deviance's Hessian ``H``, or ``H^-1 C H^-1`` where the gradient was
    computed with an error of covariance ``C``.

    Parameters
    ----------
    solution : PenalizedSolution
        At the optimum.
    freedom : Freedom
        What was estimated.
    gradient_cov : ndarray of shape (m, m), optional
        Covariance of the error of the gradient in the symmetric units of all terms.

    Returns
    -------
    StandardErrors

    References
    ----------
    Gilmour, Thompson, Cullis (1995), "Average information REML", Biometrics 51.
    """
    present = solution.variances
    hessian = _natural_hessian(solution, freedom)
    jacobian = _factor_coordinates(solution, freedom).jacobian
    jacobian = jacobian[:, np.any(jacobian != 0.0, axis=0)]
    H_inverse = np.linalg.pinv(jacobian.T @ hessian @ jacobian, hermitian=True)
    if gradient_cov is None:
        cov = 2.0 * H_inverse
    else:
        on_units = present.sigma2 * jacobian[:-1]
        cov = H_inverse @ on_units.T @ gradient_cov @ on_units @ H_inverse
    # log sigma2 multiplies all variances.
    units = [
        structure.units(len(S))
        for S, structure in zip(present.Sigma, freedom.structures, strict=True)
    ]
    entries = [_coordinates(S[None], E)[0] for S, E in zip(present.Sigma, units, strict=True)]
    common = np.concatenate([*entries, [present.sigma2]])
    to_variances = present.sigma2 * np.eye(len(common))
    to_variances[:, -1] = common
    to_variances = to_variances @ jacobian
    std = np.sqrt(np.maximum(np.diag(to_variances @ cov @ to_variances.T), 0.0))
    cuts = np.cumsum([len(E) for E in units])
    *by_term, residual = np.split(std, cuts)
    return StandardErrors(
        tuple(np.tensordot(part, E, 1) for part, E in zip(by_term, units, strict=True)),
        float(residual[0]),
    )


def gradient_noise(samples: Sequence[Array], freedom: Freedom) -> Array:
    """Covariance of the mean of trace samples (n_probes, s, s), in the terms' symmetric units.

    The ``C_g`` of equation (16) of docs/theory.md.
    """
    by_unit = [
        np.tensordot(part, structure.units(part.shape[1]), ([1, 2], [1, 2]))
        for part, structure in zip(samples, freedom.structures, strict=True)
    ]
    together = np.concatenate(by_unit, axis=1)
    return np.atleast_2d(np.cov(together, rowvar=False)) / len(together)
