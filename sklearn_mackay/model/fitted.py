"""What a fit keeps of the data to say how sure it is: Gram blocks, no rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from .._arrays import Array
from ..covariances.matrices import matrix_root
from ..design.components import AnyComponent, BlockComponent, Component
from ..design.fixed import FixedPart
from ..design.terms import level_columns
from ..evidence.freedom import Freedom
from ..evidence.solution import Variances
from ..gram.crossproducts import CrossProducts
from .posterior import Posterior, factorise


class LevelRows(NamedTuple):
    """Level of each row, negative for one not known, and the columns (s, n) of its coefficients."""

    codes: NDArray[np.integer[Any]]
    columns: Array


class Rows(NamedTuple):
    """New rows: what the data tell about, and what only the prior does.

    Attributes
    ----------
    known : sparse array of shape (n, Q)
        In the posterior's coordinates.
    prior_variance : ndarray of shape (n,)
        Variance of effects that no data inform, in internal units.
    """

    known: Any
    prior_variance: Array


@dataclass(frozen=True)
class FittedModel:
    """A fit of one response, in internal units, and the way to the user's.

    Attributes
    ----------
    crossproducts : CrossProducts
        Gram blocks.
    variances : Variances
        At the optimum.
    freedom : Freedom
        What was estimated.
    method : str
        How.
    beta : ndarray of shape (r,)
        Fixed effects, of the reduced response.
    fixed : FixedPart
        The fixed part without its rows.
    components : tuple of Component or BlockComponent
        Grouping factors, then feature blocks, without their rows.
    loadings : dict of str to ndarray of shape (p, r)
        Of each feature block, see `Block.loadings`.
    y_scale : float
        The user's unit of y.
    sigma2_scale : float
        The user's unit of the residual variance.
    unseen : dict of str to float
        Given variance, in internal units, of feature blocks no column of which varies: the data
        say nothing about their coefficients.
    untold : tuple of str
        Components, and "residual", whose variances the rows tell only in part.
    certainty : float
        1.0; 0.0 where the model fits y exactly and its effects are certain, NaN where there are no
        degrees of freedom to tell.
    """

    crossproducts: CrossProducts
    variances: Variances
    freedom: Freedom
    method: str
    beta: Array
    fixed: FixedPart
    components: tuple[AnyComponent, ...]
    loadings: dict[str, Array]
    unseen: dict[str, float]
    y_scale: float
    sigma2_scale: float
    certainty: float
    untold: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed again."""
        return {key: value for key, value in self.__dict__.items() if key != "posterior"}

    @cached_property
    def posterior(self) -> Posterior:
        """The factorised covariance of all effects."""
        return factorise(self.crossproducts, self.variances)

    @property
    def active(self) -> list[AnyComponent]:
        """The components that have a term, in the order of the terms."""
        return [component for component in self.components if component.term is not None]

    @property
    def sigma2(self) -> float:
        """Residual variance in the user's units."""
        return self.variances.sigma2 * self.sigma2_scale * self.certainty

    def rows(
        self,
        fixed: Array,
        factors: Mapping[str, LevelRows],
        blocks: Mapping[str, Array],
    ) -> Rows:
        """Bring new rows to internal coordinates.

        Parameters
        ----------
        fixed : ndarray of shape (n, 1 + p)
            What multiplies the intercept, and the fixed columns.
        factors : mapping of str to LevelRows
            Factors whose effects are part of the rows.
        blocks : mapping of str to ndarray of shape (n, p)
            Columns of feature blocks.

        Returns
        -------
        Rows
        """
        return self._rows(fixed @ self.fixed.to_coefficients, factors, blocks)

    def _rows(
        self,
        on_fixed: Array,
        factors: Mapping[str, LevelRows],
        blocks: Mapping[str, Array],
    ) -> Rows:
        """The same for rows that are known in the internal coordinates of the fixed part."""
        n = len(on_fixed)
        random, prior = [], np.zeros(n)
        for k, component in enumerate(self.active):
            Sigma = self.variances.Sigma[k]
            if isinstance(component, BlockComponent):
                part, variance = self._block_rows(component, blocks.get(component.name), Sigma, n)
            else:
                part, variance = _factor_rows(component, factors.get(component.name), Sigma, n)
            random.append(part)
            prior += variance
        for block, given in self._unseen_blocks(blocks):
            prior += given * np.sum((blocks[block.name] - block.center) ** 2, axis=1)
        return Rows(self.posterior.rows(random, on_fixed), prior)

    def _block_rows(
        self, component: BlockComponent, columns: Array | None, Sigma: Array, n: int
    ) -> tuple[Any, Array]:
        loadings, block = self.loadings[component.name], component.term
        if columns is None or block is None:
            return sparse.csr_array((n, loadings.shape[1])), np.zeros(n)
        centered = columns - block.center
        Z = centered @ loadings
        # The axes span what the training rows span; beyond it there is the prior.
        beyond = np.sum((centered / block.scale) ** 2, axis=1) - np.sum(Z**2, axis=1)
        return sparse.csr_array(Z), Sigma[0, 0] * np.maximum(beyond, 0.0)

    def _unseen_blocks(self, blocks: Mapping[str, Array]) -> list[tuple[BlockComponent, float]]:
        """Blocks among `blocks` that have no term but a given variance, and that variance."""
        return [
            (component, self.unseen[component.name])
            for component in self.components
            if isinstance(component, BlockComponent)
            and component.name in self.unseen
            and component.name in blocks
        ]

    def fixed_covariance(self) -> Array:
        """Covariance (1 + p, 1 + p) of the intercept and coefficients, in the user's units.

        Centring a feature block moves the internal intercept by the block's prediction at its
        columns' means; this is the covariance of the intercept at zero of all columns.
        """
        rows = self._fixed_part_rows(self.fixed.to_coefficients, intercept=0)
        C = self.certainty * self.posterior.covariance(rows.known) + np.diag(rows.prior_variance)
        dropped = 1 + self.fixed.dropped
        C[dropped] = C[:, dropped] = np.nan
        return np.asarray(C * self.y_scale**2)

    def _fixed_part_rows(self, on_fixed: Array, intercept: int) -> Rows:
        """Rows at the blocks' centers, but the intercept's at zero of their columns."""
        at_zero = np.arange(len(on_fixed))[:, None] == intercept
        blocks = {
            component.name: np.where(at_zero, 0.0, component.center)
            for component in self.components
            if isinstance(component, BlockComponent)
        }
        return self._rows(on_fixed, {}, blocks)

    def variance(self, rows: Rows) -> Array:
        """Variance of each row's linear predictor in the user's units, without the residual's."""
        known = self.certainty * self.posterior.variance(rows.known)
        return np.asarray((known + rows.prior_variance) * self.y_scale**2)

    def sample(
        self,
        rows: Rows,
        factors: Mapping[str, LevelRows],
        blocks: Mapping[str, Array],
        n_samples: int,
        random_state: np.random.RandomState,
    ) -> Array:
        """Draw errors (n, n_samples) of the rows' linear predictors together, in the user's units.

        Rows share what they have in common: known effects, and the effect of one unknown level.
        """
        draws = self.certainty * (rows.known @ self.posterior.sample(n_samples, random_state))
        for component, Sigma in zip(self.active, self.variances.Sigma, strict=True):
            root = matrix_root(Sigma)
            if isinstance(component, BlockComponent):
                if component.term and component.name in blocks:
                    loadings = self.loadings[component.name] * component.term.scale
                    z = random_state.standard_normal((len(loadings), n_samples)) * root
                    beyond = z - loadings @ (loadings.T @ z)
                    centered = blocks[component.name] - component.term.center
                    draws += centered @ beyond / component.term.scale
            elif component.name in factors:
                codes, columns = factors[component.name]
                _, unknown = np.unique(np.minimum(codes, 0), return_inverse=True)
                z = random_state.standard_normal((unknown.max(initial=0) + 1, len(root), n_samples))
                columns = _internal_columns(component, columns) * (codes < 0)
                draws += np.einsum("an,nas->ns", root @ columns, z[unknown])
        for block, variance in self._unseen_blocks(blocks):
            z = random_state.standard_normal((block.n_columns, n_samples)) * np.sqrt(variance)
            draws += (blocks[block.name] - block.center) @ z
        return np.asarray(draws * self.y_scale)

    def component(self, name: str) -> tuple[int | None, AnyComponent]:
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
        assert isinstance(component, Component)
        assert k is not None
        if not given_fixed:
            own = self.posterior.level_covariances(k)
        elif self.has_centered_blocks:
            own = self._given_fixed(k)
        else:
            own = self.without_fixed().posterior.level_covariances(k)
        transform = self.y_scale * component.transform
        return np.asarray(transform @ (self.certainty * own) @ transform.T)

    @property
    def has_centered_blocks(self) -> bool:
        """Whether the internal intercept is another than that at zero of the blocks' columns."""
        return any(
            isinstance(c, BlockComponent) and bool(np.any(c.center)) for c in self.components
        )

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
        return replace(self, crossproducts=self.crossproducts.without_fixed(), fixed=fixed)

    def coefficient_std(self, name: str) -> Array:
        """Standard deviation (p,) of the error of a feature block's coefficients."""
        k, component = self.component(name)
        assert isinstance(component, BlockComponent)
        if k is None or component.term is None:
            std = np.sqrt(self.unseen.get(name, 0.0)) * self.y_scale
            return np.full(component.n_columns, std)
        loadings, unit = self.loadings[name], 1.0 / component.term.scale
        known = self.certainty * self.posterior.variance_of_term(k, loadings)
        beyond = unit**2 - np.sum(loadings**2, axis=1)
        prior = self.variances.Sigma[k][0, 0] * np.maximum(beyond, 0.0)
        return np.asarray(np.sqrt(known + prior) * self.y_scale)


def _factor_rows(
    component: Component, rows: LevelRows | None, Sigma: Array, n: int
) -> tuple[Any, Array]:
    if rows is None:
        return sparse.csr_array((n, component.n_levels * len(component.coefficients))), np.zeros(n)
    columns = _internal_columns(component, rows.columns)
    prior = np.einsum("an,ab,bn->n", columns, Sigma, columns)
    return level_columns(rows.codes, columns, component.n_levels), prior * (rows.codes < 0)


def _internal_columns(component: Component, columns: Array) -> Array:
    """What multiplies the term's coefficients where `columns` multiply the user's."""
    return np.asarray(component.transform.T @ columns)


def in_unit_of_y(model: FittedModel) -> FittedModel:
    """The same fit with its internal unit of y as the user's.

    What is a square of a variance leaves the range of floating point numbers long before the
    variances do.
    """
    return replace(model, y_scale=1.0, sigma2_scale=model.sigma2_scale / model.y_scale**2)
