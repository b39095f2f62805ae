"""Coordinates of the variances in which the deviance is smooth.

Variances are looked at as standard deviations and correlations of the user's coefficients. With
the rows of a Cholesky factor of the correlations on the unit sphere, by angles, the deviance is
smooth in all of them, through zero and through correlations of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from .._arrays import Array
from ..design.components import Component
from ..evidence.solution import PenalizedSolution, Variances
from ..frames.options import RESIDUAL
from ..model.fitted import FittedModel
from .parameters import Parameter

COMPLEX_STEP = 1e-30  # of a derivative without cancellation
PARALLEL = 1e-4  # sine of half an angle between coefficients whose correlation rounding decides


class _Place(NamedTuple):
    """Coordinates of one term: from internal ones and back, and positions of their parameters.

    `to_internal` has shape (s, r) and `back` (r, s), for a covariance with variance in ``r``
    directions.
    """

    term: int
    to_internal: Array
    back: Array
    sds: slice
    angles: slice


@dataclass(frozen=True)
class Coordinates:
    """Free variances as standard deviations and angles of some coefficients.

    Attributes
    ----------
    model : FittedModel
        The fit.
    parameter : Parameter or None
        One that is to be a coordinate: a standard deviation in the user's units, or a correlation
        as its arc cosine. The other coordinates of its term are at right angles to its
        coefficients, in internal units: far from the data an intercept and its slopes are hardly
        to be told apart, an intercept and what is left beside it always are.
    """

    model: FittedModel
    parameter: Parameter | None = None

    @cached_property
    def places(self) -> list[_Place]:
        """One entry for each term that is free."""
        places, start = [], 0
        model, parameter = self.model, self.parameter
        for k, component in enumerate(model.active):
            basis = model.freedom.directions[k]
            r = basis.shape[1]
            if not model.freedom.terms[k] or not r:
                continue
            rows = np.eye(r) * model.y_scale
            if not component.structure.correlates:
                rows = np.diag(np.diag(component.transform)[np.argmax(basis, axis=0)]) @ rows
            elif parameter is not None and parameter.component == component.name:
                leading = _leading(model, parameter)
                rows[: len(leading)] = leading
                rows[len(leading) :] = model.y_scale * linalg.null_space(_directions(leading)).T
            n_angles = component.structure.n_parameters(r) - r
            sds = slice(start, start + r)
            angles = slice(sds.stop, sds.stop + n_angles)
            to_internal = basis @ np.linalg.inv(rows)
            places.append(_Place(k, to_internal, rows @ basis.T, sds, angles))
            start = angles.stop
        return places

    @property
    def n_coordinates(self) -> int:
        """How many there are, the residual standard deviation last."""
        end = self.places[-1].angles.stop if self.places else 0
        return int(end) + self.model.freedom.residual

    def index(self, parameter: Parameter) -> int:
        """Which coordinate is a parameter, or its arc cosine."""
        if parameter.component is None:
            return self.n_coordinates - 1
        place, component = self._place_of(parameter)
        if not component.structure.correlates:
            basis = self.model.freedom.directions[place.term]
            return int(place.sds.start + np.argmax(basis[parameter.coefficients[0]]))
        return int(place.sds.start if len(parameter.coefficients) == 1 else place.angles.start)

    def _place_of(self, parameter: Parameter) -> tuple[_Place, Component]:
        pairs = ((place, self.model.active[place.term]) for place in self.places)
        return next(pair for pair in pairs if pair[1].name == parameter.component)

    def at(self, variances: Variances) -> Array:
        """Coordinates of variances; the angles of a coefficient without variance are right."""
        phi = np.zeros(self.n_coordinates)
        for place in self.places:
            Sigma = place.back @ variances.Sigma[place.term] @ place.back.T
            sds = np.sqrt(np.maximum(np.diag(Sigma), 0.0))
            phi[place.sds] = sds
            if place.angles.stop > place.angles.start:
                phi[place.angles] = _angles(Sigma, sds)
        if self.model.freedom.residual:
            phi[-1] = np.sqrt(variances.sigma2 * self.model.sigma2_scale)
        return phi

    def variances(self, phi: Array) -> Variances:
        """Internal variances of coordinates; those that are held stay."""
        model = self.model
        sigma2 = model.variances.sigma2
        if model.freedom.residual:
            sigma2 = float(phi[-1] ** 2 / model.sigma2_scale)
        Sigma = list(model.variances.Sigma)
        for place in self.places:
            Sigma[place.term] = self._internal(place, phi)
        return Variances(sigma2, tuple(Sigma))

    def _internal(self, place: _Place, phi: Array) -> Array:
        """Internal covariance (s, s) of a term; complex where `phi` is."""
        Sigma = _covariance(phi[place.sds], phi[place.angles])
        return np.asarray(place.to_internal @ Sigma @ place.to_internal.T)

    def value(self, parameter: Parameter, phi: Array) -> Any:
        """A parameter at coordinates, complex where they are."""
        if parameter.component is None:
            return phi[-1]
        place, component = self._place_of(parameter)
        transform = self.model.y_scale * component.transform
        Sigma = transform @ self._internal(place, phi) @ transform.T
        at = parameter.coefficients
        sds = [np.sqrt(Sigma[a, a]) for a in at]
        return sds[0] if len(at) == 1 else Sigma[at[0], at[1]] / (sds[0] * sds[1])

    def gradient(self, phi: Array, solution: PenalizedSolution) -> Array:
        """Derivative of the deviance in the coordinates."""
        model, present = self.model, solution.variances
        slope = np.zeros(len(phi))
        for place in self.places:
            G = solution.gradient[place.term]
            for j in (
                *range(place.sds.start, place.sds.stop),
                *range(place.angles.start, place.angles.stop),
            ):
                moved = phi.astype(complex)
                moved[j] += 1j * COMPLEX_STEP
                slope[j] = np.sum(G * self._internal(place, moved).imag) / COMPLEX_STEP
        if model.freedom.residual:
            # All variances together scale V.
            total = model.freedom.dof - solution.yPy
            pairs = zip(solution.gradient, present.Sigma, strict=True)
            of_sigma2 = total - sum(float(np.sum(G * S)) for G, S in pairs)
            slope[-1] = 2.0 * of_sigma2 / phi[-1]
        return slope


def _leading(model: FittedModel, parameter: Parameter) -> Array:
    """A parameter's coefficients in the user's units, of those of its term's basis (1 or 2, r)."""
    assert parameter.component is not None
    k, component = model.component(parameter.component)
    assert k is not None
    loadings = component.loadings(model.freedom.directions[k])
    return np.asarray(model.y_scale * loadings[list(parameter.coefficients)])


def _directions(rows: Array) -> Array:
    """Rows of unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def unresolved(model: FittedModel, parameter: Parameter, method: str) -> str | None:
    """Why the rows cannot tell a parameter by a method, or None."""
    if method != "profile" and (parameter.component or RESIDUAL) in model.untold:
        return (
            "the rows tell the variances of its factor only in part, as the fit has warned. Use "
            "method='profile', which is as wide as that"
        )
    if len(parameter.coefficients) < 2:
        return None
    directions = _directions(_leading(model, parameter))
    if directions.shape[1] > 1 and np.linalg.svd(directions)[1][1] > PARALLEL:
        return None
    return (
        "in every row its two coefficients vary as one. They are multiples of one another, so that "
        "one of them suffices, or a random intercept beside a slope with values far from zero, "
        "where it is an extrapolation: subtract a typical value from the slope"
    )


def _covariance(sds: Array, angles: Array) -> Array:
    """``D R D`` with ``R = NN'``, row i of the lower triangular ``N`` given by i angles.

    Equation (19) of docs/theory.md.
    """
    s = len(sds)
    if not len(angles):
        return np.asarray(np.diag(sds**2))
    N = np.zeros((s, s), dtype=angles.dtype)
    N[0, 0] = 1.0
    start = 0
    for i in range(1, s):
        theta = angles[start : start + i]
        sines = np.cumprod(np.sin(theta))
        N[i, :i] = np.cos(theta) * np.append(1.0, sines[:-1])
        N[i, i] = sines[-1]
        start += i
    scaled = sds[:, None] * N
    return np.asarray(scaled @ scaled.T)


def _angles(Sigma: Array, sds: Array) -> Array:
    """Angles of a covariance; right ones where a standard deviation is zero."""
    positive = np.where(sds > 0, sds, 1.0)
    R = Sigma / np.outer(positive, positive)
    np.fill_diagonal(R, 1.0)
    N = np.zeros_like(R)
    angles = []
    for i in range(len(R)):
        left = 1.0
        for j in range(i):
            rest = R[i, j] - N[i, :j] @ N[j, :j]
            N[i, j] = rest / N[j, j] if N[j, j] > 1e-8 else 0.0
            cosine = N[i, j] / left if left > 1e-8 else 0.0
            angles.append(np.arccos(np.clip(cosine, -1.0, 1.0)))
            left *= np.sin(angles[-1])
        N[i, i] = np.sqrt(max(1.0 - N[i, :i] @ N[i, :i], 0.0))
    return np.array(angles)
