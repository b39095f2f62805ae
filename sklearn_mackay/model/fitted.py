"""What a fit keeps of the data to say how sure it is: Gram blocks, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse

from .._arrays import Array, Matrix
from ..covariances.matrices import matrix_root
from ..design.components import Component, Part
from ..design.fixed import FixedPart
from ..evidence.freedom import Freedom
from ..evidence.solution import Variances
from ..frames.options import RESIDUAL
from ..gram.columns import without_fixed
from ..gram.crossproducts import CrossProducts
from ..gram.layout import Layout
from .posterior import Posterior, factorise
from .problem import SHARE_OF_ERRORS, Certainty, Fitted, Problem


class Rows(NamedTuple):
    """New rows: what the data tell about, and what only the prior does.

    Attributes
    ----------
    known : sparse array of shape (n, Q)
        In the posterior's coordinates.
    prior_variance : ndarray of shape (n,)
        Variance of effects that no data inform, in internal units.
    """

    known: Matrix
    prior_variance: Array


@dataclass(frozen=True)
class FittedModel:
    """A fit of one response that tells how sure it is: internal units, and the way to the user's.

    Attributes
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    layout : Layout
        Order of elimination.
    variances : Variances
        At the optimum.
    freedom : Freedom
        What was estimated.
    method : str
        How.
    beta : ndarray of shape (r,)
        Fixed effects, of the reduced response.
    fixed : FixedPart
        The fixed part.
    offset : ndarray of shape (r,)
        What was taken out of y before, in the same coordinates.
    components : tuple of Component
        Grouping factors, then feature blocks.
    loadings : dict of str to ndarray of shape (p, r)
        Of each feature block, see `Block.loadings`.
    given : dict of str to float
        Given variance, in the user's units, of feature blocks no column of which varies: the data
        say nothing about their coefficients.
    y_scale : float
        The user's unit of y.
    sigma2_scale : float
        The user's unit of the residual variance.
    certainty : {"known", "exact", "no_dof"}
        Whether errors are known, there are none because the model fits y exactly, or there are no
        degrees of freedom to tell.
    untold : tuple of str
        Components, and "residual", whose variances the rows tell only in part.
    """

    crossproducts: CrossProducts
    layout: Layout
    variances: Variances
    freedom: Freedom
    method: str
    beta: Array
    fixed: FixedPart
    offset: Array
    components: tuple[Component, ...]
    loadings: dict[str, Array]
    given: dict[str, float]
    y_scale: float
    sigma2_scale: float
    certainty: Certainty
    untold: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed again."""
        return {key: value for key, value in self.__dict__.items() if key != "posterior"}

    @cached_property
    def posterior(self) -> Posterior:
        """The factorised covariance of all effects."""
        return factorise(self.crossproducts, self.layout, self.variances)

    @property
    def active(self) -> list[Component]:
        """The components that have a term, in the order of the terms."""
        return [component for component in self.components if component.has_term]

    @property
    def share_of_errors(self) -> float:
        """What covariances of estimates are multiplied by."""
        return SHARE_OF_ERRORS[self.certainty]

    @property
    def sigma2(self) -> float:
        """Residual variance in the user's units."""
        return self.variances.sigma2 * self.sigma2_scale * self.share_of_errors

    def rows(self, fixed: Array, parts: Mapping[str, Part]) -> Rows:
        """Bring new rows to internal coordinates.

        Parameters
        ----------
        fixed : ndarray of shape (n, 1 + p)
            What multiplies the intercept, and the fixed columns.
        parts : mapping of str to LevelRows or ndarray of shape (n, p)
            Levels and slopes of the factors whose effects are part of the rows, and columns of
            feature blocks.

        Returns
        -------
        Rows
        """
        return self._rows(fixed @ self.fixed.to_coefficients, parts)

    def _rows(self, on_fixed: Array, parts: Mapping[str, Part]) -> Rows:
        """The same for rows that are known in the internal coordinates of the fixed part."""
        random, prior = [], np.zeros(len(on_fixed))
        for component, Sigma in self._with_covariances():
            name = component.name
            Z, variance = component.new_rows(
                parts.get(name), len(on_fixed), Sigma, self.loadings.get(name)
            )
            if component.has_term:
                random.append(Z)
            prior += variance
        return Rows(self.posterior.rows(random, on_fixed), prior)

    def _with_covariances(self) -> list[tuple[Component, Array]]:
        """Components with their internal covariances: estimated ones, then those only given."""
        constant = [component for component in self.components if not component.has_term]
        given = [
            np.array([[self.given.get(component.name, 0.0) / self.y_scale**2]])
            for component in constant
        ]
        return [
            *zip(self.active, self.variances.Sigma, strict=True),
            *zip(constant, given, strict=True),
        ]

    def fixed_covariance(self) -> Array:
        """Covariance (1 + p, 1 + p) of the intercept and coefficients, in the user's units.

        Centring a feature block moves the internal intercept by the block's prediction at its
        columns' means; this is the covariance of the intercept at zero of all columns.
        """
        rows = self._fixed_part_rows(self.fixed.to_coefficients, intercept=0)
        known = self.share_of_errors * self.posterior.covariance(rows.known)
        C = known + np.diag(rows.prior_variance)
        dropped = 1 + self.fixed.dropped
        C[dropped] = C[:, dropped] = np.nan
        return np.asarray(C * self.y_scale**2)

    def _fixed_part_rows(self, on_fixed: Array, intercept: int) -> Rows:
        """Rows at the blocks' centers, but the intercept's at zero of their columns."""
        at_zero = np.arange(len(on_fixed))[:, None] == intercept
        blocks = {
            component.name: np.where(at_zero, 0.0, component.center)
            for component in self.components
            if component.is_feature
        }
        return self._rows(on_fixed, blocks)

    def variance(self, rows: Rows) -> Array:
        """Variance of each row's linear predictor in the user's units, without the residual's."""
        known = self.share_of_errors * self.posterior.variance(rows.known)
        return np.asarray((known + rows.prior_variance) * self.y_scale**2)

    def sample(
        self,
        rows: Rows,
        parts: Mapping[str, Part],
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw errors (n, n_samples) of the rows' linear predictors together, in the user's units.

        Rows share what they have in common: known effects, and the effect of one unknown level.
        """
        known = rows.known @ self.posterior.sample(n_samples, random_state)
        draws = self.share_of_errors * known
        for component, Sigma in self._with_covariances():
            if component.name in parts:
                draws += component.draw_beyond(
                    parts[component.name],
                    matrix_root(Sigma),
                    self.loadings.get(component.name),
                    n_samples,
                    random_state,
                )
        return np.asarray(draws * self.y_scale)

    def component(self, name: str) -> tuple[int | None, Component]:
        """Position of a component's term, None where it has none, and the component."""
        at = {component.name: k for k, component in enumerate(self.active)}
        return at.get(name), next(c for c in self.components if c.name == name)

    def effects_covariance(self, name: str, *, given_fixed: bool) -> Array:
        """Covariance (L, s, s) of the error of a factor's effects, level by level.

        Parameters
        ----------
        name : str
            Factor.
        given_fixed : bool
            As if the fixed effects were known, which lme4 calls the conditional variance.

        Returns
        -------
        ndarray of shape (L, s, s)
        """
        k, component = self.component(name)
        assert k is not None
        if not given_fixed:
            own = self.posterior.level_covariances(k)
        elif self.has_centered_blocks:
            own = self._given_fixed(k)
        else:
            own = self.without_fixed().posterior.level_covariances(k)
        transform = self.y_scale * component.transform
        return np.asarray(transform @ (self.share_of_errors * own) @ transform.T)

    @property
    def has_centered_blocks(self) -> bool:
        """Whether the internal intercept is another than that at zero of the blocks' columns."""
        return any(np.any(component.center) for component in self.components)

    def _given_fixed(self, k: int) -> Array:
        """Covariance (L, s, s) of a term's coefficients where the user's fixed effects are known.

        Conditional on the intercept at zero of all columns: centring a block has made it a
        combination of the internal intercept and the block's coefficients. Equation (24) of
        docs/theory.md.
        """
        posterior, r = self.posterior, len(self.beta)
        known = self._fixed_part_rows(np.eye(r), intercept=r - 1)
        C = posterior.covariance(known.known) + np.diag(known.prior_variance)
        of_term = posterior.of_term(k, sparse.eye_array(posterior.sizes[k]))
        cross = posterior.cross_covariance(of_term, known.known)
        half = linalg.solve_triangular(linalg.cholesky(C, lower=True), cross.T, lower=True)
        by_level = half.reshape(r, -1, posterior.coefficients[k])
        told = np.einsum("rja,rjb->jab", by_level, by_level)
        return np.asarray(posterior.level_covariances(k) - told)

    def without_fixed(self) -> FittedModel:
        """The same model with the fixed effects taken as known."""
        fixed = replace(self.fixed, to_coefficients=self.fixed.to_coefficients[:, :0])
        return replace(self, crossproducts=without_fixed(self.crossproducts), fixed=fixed)

    def coefficient_std(self, name: str) -> Array:
        """Standard deviation (p,) of the error of a feature block's coefficients."""
        k, _ = self.component(name)
        component, Sigma = next(pair for pair in self._with_covariances() if pair[0].name == name)
        loadings = self.loadings.get(name)
        variance = component.variance_beyond(Sigma, loadings)
        if k is not None and loadings is not None:
            variance = variance + self.share_of_errors * self.posterior.variance_of_term(
                k, loadings
            )
        return np.asarray(np.sqrt(variance) * self.y_scale)


def keep(fitted: Fitted) -> FittedModel | None:
    """What tells how sure a fit is; None where it has no loadings, and so is not to tell."""
    problem, optimum = fitted.problem, fitted.optimum
    if fitted.loadings is None:
        return None
    return FittedModel(
        crossproducts=problem.crossproducts,
        layout=problem.layout,
        variances=optimum.solution.variances,
        freedom=problem.freedom,
        method=problem.options.method,
        beta=optimum.solution.beta,
        fixed=problem.fixed,
        offset=problem.output.offset,
        components=problem.components,
        loadings=fitted.loadings,
        given={
            component.name: float(problem.options.held[component.name][0, 0])
            for component in problem.components
            if not component.has_term and component.name in problem.options.held
        },
        y_scale=problem.y_scale,
        sigma2_scale=problem.sigma2_scale,
        certainty=fitted.certainty,
        untold=_untold(problem),
    )


def _untold(problem: Problem) -> tuple[str, ...]:
    """Components whose variances the rows tell only in part."""
    active, found = problem.active, problem.identification
    untold = {active[k].name for k in found.together}
    for component, n_flat, with_residual in zip(
        active, found.n_flat_within, found.with_residual, strict=True
    ):
        if n_flat:
            untold |= {component.name, *[RESIDUAL] * with_residual}
    return tuple(sorted(untold))


def in_unit_of_y(model: FittedModel) -> FittedModel:
    """The same fit with its internal unit of y as the user's.

    What is a square of a variance leaves the range of floating point numbers long before the
    variances do.
    """
    return replace(model, y_scale=1.0, sigma2_scale=model.sigma2_scale / model.y_scale**2)
