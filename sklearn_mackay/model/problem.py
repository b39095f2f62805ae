"""The problem of one response, and its solution, as records: no rows, internal units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from .._arrays import Array
from ..design.components import Component
from ..design.fixed import FixedPart
from ..design.response import Output
from ..evidence.freedom import Freedom
from ..evidence.identification import Identification
from ..evidence.loop import Optimum
from ..evidence.solution import Variances
from ..frames.options import RESIDUAL, Options
from ..gram.crossproducts import CrossProducts
from ..gram.layout import Layout

Certainty: TypeAlias = Literal["known", "exact", "no_dof"]
SHARE_OF_ERRORS: dict[Certainty, float] = {"known": 1.0, "exact": 0.0, "no_dof": np.nan}


@dataclass(frozen=True)
class Problem:
    """What is to be estimated of one response, in internal units; it holds no rows.

    Attributes
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Order of elimination.
    components : tuple of Component
        Grouping factors, then feature blocks.
    fixed : FixedPart
        The way from internal coefficients to the user's.
    output : Output
        The response in the user's units.
    weight_unit : float
        Unit of precision weights.
    options : Options
        What to estimate and how.
    identification : Identification
        What the rows cannot tell of the variances.
    before : mapping of str to ndarray
        Covariances in the user's units that fewer rows had: a start, unless the user chose one.
    """

    crossproducts: CrossProducts
    layout: Layout
    components: tuple[Component, ...]
    fixed: FixedPart
    output: Output
    weight_unit: float
    options: Options
    identification: Identification
    before: Mapping[str, Array] = field(default_factory=dict)

    @property
    def active(self) -> list[Component]:
        """The components that have a term, in the order of the terms."""
        return [component for component in self.components if component.has_term]

    @property
    def y_scale(self) -> float:
        """The user's unit of y."""
        return self.output.scale

    @property
    def sigma2_scale(self) -> float:
        """The user's unit of the residual variance."""
        return self.output.scale**2 * self.weight_unit

    @property
    def estimates_residual(self) -> bool:
        """Whether the residual variance is not given."""
        return RESIDUAL not in self.options.held

    @cached_property
    def dof(self) -> float:
        """``n - p`` for REML, ``n`` for ML."""
        p = 0 if self.options.method == "ml" else self.crossproducts.n_unpenalized
        return self.crossproducts.n - p

    @cached_property
    def freedom(self) -> Freedom:
        """What may move: nothing where the fixed part explains y or leaves no dof."""
        freedom = Freedom(
            terms=tuple(component.name not in self.options.held for component in self.active),
            residual=self.estimates_residual,
            structures=tuple(component.structure for component in self.active),
            dof=self.dof,
            directions=self.identification.bases,
        )
        if self.output.is_explained and freedom.residual:
            return replace(freedom, terms=(False,) * len(self.active), residual=False)
        if self.dof <= 0 and freedom.residual:
            return replace(freedom, residual=False)
        return freedom

    @cached_property
    def start(self) -> Variances:
        """Equal shares of the variance of y, unless the user says otherwise."""
        given: Mapping[str, Array] = {**self.before, **self.options.start, **self.options.held}
        share = 1.0 / (len(self.active) + 1)
        sigma2 = share
        if RESIDUAL in given:
            sigma2 = float(given[RESIDUAL][0, 0]) / self.sigma2_scale
        Sigma = []
        for component, basis in zip(self.active, self.identification.bases, strict=True):
            S = np.eye(len(basis)) * share * component.start_share
            if component.name in given:
                S = component.to_internal(given[component.name], self.y_scale)
            is_free = component.name not in self.options.held
            Sigma.append(basis @ (basis.T @ S @ basis) @ basis.T if is_free else S)
        if self.output.is_explained and self.estimates_residual:
            return Variances(1.0, tuple(np.zeros_like(S) for S in Sigma))
        return Variances(sigma2, tuple(Sigma))


@dataclass(frozen=True)
class Fitted:
    """A problem at its optimum.

    Attributes
    ----------
    problem : Problem
        What was estimated.
    optimum : Optimum
        What the loop found.
    effects : dict of str to ndarray
        Of each component, in units of its internal coefficients and of y: (L, s) of a factor's
        levels, (p,) of a block's columns.
    loadings : dict of str to ndarray of shape (p, r), or None
        Of each feature block, see `Block.loadings`; None where the fit is not to tell how sure it
        is, or cannot without rows.
    solver : {"exact", "iterative"}
        The engine.
    kernel : {"lapack", "tensorflow"}
        What it computed with.
    """

    problem: Problem
    optimum: Optimum
    effects: dict[str, Array]
    loadings: dict[str, Array] | None
    solver: str
    kernel: str

    @property
    def is_exact(self) -> bool:
        """Whether the model leaves no residual though it could not fit every y."""
        problem = self.problem
        by_design = problem.output.is_explained and problem.estimates_residual
        return by_design or self.optimum.exact

    @property
    def certainty(self) -> Certainty:
        """Whether errors of estimates are known, or none, or not to be told."""
        if self.problem.dof <= 0 and self.problem.estimates_residual:
            return "no_dof"
        return "exact" if self.is_exact else "known"

    @property
    def share_of_errors(self) -> float:
        """What covariances of estimates are multiplied by."""
        return SHARE_OF_ERRORS[self.certainty]
