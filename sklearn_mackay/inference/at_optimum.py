"""One response's fit at its optimum, with exact engines that look around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evidence.solution import Solve
from ..gram.crossproducts import CrossProducts
from ..model.fitted import FittedModel, in_unit_of_y
from .coefficients import Coefficients, FixedEffects, tests_of
from .coordinates import Coordinates
from .curvature import Curvature, curvature
from .parameters import Parameter, choose_parameters, variance_parameters
from .profiles import Zeta, coefficient_zeta, variance_zeta


@dataclass(frozen=True)
class AtOptimum:
    """A fit of one response at its optimum.

    Attributes
    ----------
    model : FittedModel
        What the fit has kept.
    coefficients : Coefficients
        Its fixed effects.
    residual_sd : float
        Standard deviation of the residual, in the user's unit; zero where it was estimated so.
    prepare : callable
        Exact engine of any Gram blocks, for the criterion of the fit.
    solve : callable
        That of its own.
    """

    model: FittedModel
    coefficients: Coefficients
    residual_sd: float
    prepare: Callable[[CrossProducts], Solve]
    solve: Solve

    def curvature(self) -> tuple[Coordinates, Curvature]:
        """The deviance around the optimum, in the internal unit of y."""
        coordinates = Coordinates(in_unit_of_y(self.model))
        return coordinates, curvature(coordinates.model, self.solve, coordinates)

    def tests(self, curve: Curvature) -> FixedEffects:
        """Tests of all coefficients, the intercept first also where there is none."""
        return tests_of(self.coefficients, curve, self.model.y_scale)

    def zeta(self, parameter: Parameter | int) -> Zeta:
        """Profile of a variance parameter, or of the coefficient at a position."""
        if isinstance(parameter, Parameter):
            return variance_zeta(self.model, self.solve, parameter)
        estimate, std = self.coefficients.estimate_and_std(parameter)
        return coefficient_zeta(self.model, self.prepare, parameter, estimate, std)

    def choose(self, wanted: str | Sequence[str] | None, method: str) -> dict[str, Parameter | int]:
        """Parameters that something is wanted of, by name; coefficients by their position.

        Parameters
        ----------
        wanted : str, sequence of str or None
            Names of parameters, factors or feature blocks; None for all that a method can give.
        method : str
            "profile" needs a fit by ML, without penalty, for coefficients.

        Returns
        -------
        dict of str to Parameter or int

        Raises
        ------
        ValueError
            For a name that is none, or that has nothing to give.
        """
        if isinstance(wanted, str):
            wanted = [wanted]
        elif wanted is not None and not isinstance(wanted, Sequence):
            raise ValueError(f"`parameter` must be a name or a list of names, got {wanted!r}.")
        without = self._without(method)
        for name in wanted or ():
            if name in without:
                raise ValueError(f"Coefficient {name!r} {without[name]}.")
        known: dict[str, Parameter | int] = {p.name: p for p in variance_parameters(self.model)}
        known |= {name: i for name, i in self.coefficients.positions.items() if name not in without}
        return choose_parameters(wanted, known)

    def _without(self, method: str) -> dict[str, str]:
        """Coefficients that a method gives nothing of, and why."""
        coefficients, model = self.coefficients, self.model
        without = {}
        if coefficients.has_intercept and coefficients.beside_blocks:
            without["intercept"] = "depends on the feature blocks: see `intercept_std_`"
        is_ml = model.method == "ml" and not np.any(model.crossproducts.penalty > 0)
        for name, i in coefficients.positions.items():
            if name in without:
                continue
            if not coefficients.covariance[i, i] > 0:
                without[name] = "was dropped as a combination of others"
            elif method == "profile" and not is_ml:
                without[name] = (
                    "has no profile here: fixed parts are compared by method='ml' with alpha=0.0; "
                    "use confint(method='auto')"
                )
        return without
