"""Parametric bootstrap without rows: new cross-products drawn from the fitted model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from ..evidence.fixed_points import matrix_root
from ..evidence.loop import Fit, Solve, estimate_variances
from ..gram.crossproducts import CrossProducts
from ..gram.layout import gram_matrix
from ..model.fitted import FittedModel

Array = NDArray[np.float64]
Prepare = Callable[[CrossProducts], Solve]

LARGEST_GRAM = 3000  # order of a dense matrix whose eigendecomposition takes seconds
NEGLIGIBLE = 1e-12  # eigenvalue relative to the largest that is rounding
MAX_ITER = 200


class Simulation:
    """Draws of ``[Z X y]'W[Z X y]`` with y from the fitted model and fixed effects of zero.

    ``Z'We`` and ``X'We`` are normal with the Gram matrix as covariance, times sigma2, and the rest
    of ``e'We`` is a scaled chi-square: no row is needed. Equation (22) of docs/theory.md.

    Parameters
    ----------
    model : FittedModel
        The fit.

    Raises
    ------
    ValueError
        For more than 3,000 effects, or a ridge penalty.
    """

    def __init__(self, model: FittedModel) -> None:
        self._model = model
        terms = model.crossproducts.terms
        self._ends = np.cumsum([0, *(term.n_effects for term in terms)])
        order = int(self._ends[-1]) + len(model.crossproducts.penalty)
        if order > LARGEST_GRAM:
            raise ValueError(
                f"The bootstrap factorises a dense matrix of all {order:,} effects; it takes up to "
                f"{LARGEST_GRAM:,}. Use method='profile' or 'wald'."
            )
        if np.any(model.crossproducts.penalty > 0):
            raise ValueError("The bootstrap needs alpha=0.0 or 'auto': a penalty has no model.")
        gram = gram_matrix(model.crossproducts, tuple(range(len(terms))), self._ends)[:-1, :-1]
        values, vectors = np.linalg.eigh(gram)
        kept = values > NEGLIGIBLE * values[-1:]
        self._gram, self._root = gram, vectors[:, kept] * np.sqrt(values[kept])
        self._roots = [matrix_root(Sigma) for Sigma in model.variances.Sigma]

    def draw(self, random_state: np.random.RandomState) -> CrossProducts:
        """One new data set."""
        blocks, sigma2 = self._model.crossproducts, self._model.variances.sigma2
        parts = [
            root @ random_state.standard_normal((len(root), term.n_levels))
            for root, term in zip(self._roots, blocks.terms, strict=True)
        ]
        effects = np.concatenate([*(b.ravel() for b in parts), np.zeros(len(blocks.penalty))])
        z = random_state.standard_normal(self._root.shape[1])
        on_noise = np.sqrt(sigma2) * self._root @ z
        left = blocks.n - len(z)
        squares = z @ z + (random_state.chisquare(left) if left > 0 else 0.0)
        on_y = self._gram @ effects + on_noise
        yWy = effects @ (self._gram @ effects + 2.0 * on_noise) + sigma2 * squares
        return self._with_response(on_y, float(yWy))

    def _with_response(self, on_y: Array, yWy: float) -> CrossProducts:
        blocks = self._model.crossproducts
        terms = []
        for k, term in enumerate(blocks.terms):
            fixed = term.fixed.copy()
            on_term = on_y[self._ends[k] : self._ends[k + 1]]
            fixed[:, -1] = on_term.reshape(term.n_coefficients, term.n_levels)
            terms.append(replace(term, fixed=fixed))
        fixed = blocks.fixed.copy()
        fixed[-1, :-1] = fixed[:-1, -1] = on_y[self._ends[-1] :]
        fixed[-1, -1] = yWy
        return replace(blocks, terms=tuple(terms), fixed=fixed)


def bootstrap(
    model: FittedModel,
    prepare: Prepare,
    *,
    n_resamples: int,
    tol: float,
    n_jobs: int | None,
    random_state: np.random.RandomState,
) -> Iterator[Fit]:
    """Fit new data sets drawn from a fitted model.

    Parameters
    ----------
    model : FittedModel
        The fit; each refit starts at its variances.
    prepare : callable
        Exact engine for Gram blocks.
    n_resamples : int
        How many.
    tol : float
        Tolerance of the loop.
    n_jobs : int or None
        Processes, as in joblib.
    random_state : numpy.random.RandomState
        Draws them; the result does not depend on `n_jobs`.

    Yields
    ------
    Fit
        In the order of the draws.
    """
    simulation = Simulation(model)
    seeds = random_state.randint(np.iinfo(np.int32).max, size=n_resamples)
    refits = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_refit)(simulation, model, prepare, tol, int(seed)) for seed in seeds
    )
    yield from refits


def _refit(
    simulation: Simulation, model: FittedModel, prepare: Prepare, tol: float, seed: int
) -> Fit:
    drawn = simulation.draw(np.random.RandomState(seed))
    return estimate_variances(
        prepare(drawn),
        drawn,
        model.variances,
        model.freedom,
        method=model.method,
        max_iter=MAX_ITER,
        tol=tol,
    )
