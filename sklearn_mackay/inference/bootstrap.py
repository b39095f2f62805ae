"""Parametric bootstrap without rows: new cross-products drawn from the fitted model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.special import ndtr, ndtri

from .._arrays import Array
from ..covariances.matrices import matrix_root
from ..evidence.loop import Optimum, Stopping, estimate_variances
from ..evidence.solution import Solve
from ..gram.columns import with_response
from ..gram.crossproducts import CrossProducts
from ..gram.layout import gram_matrix
from ..model.fitted import FittedModel
from .coefficients import FixedEffects
from .curvature import fixed_cov_at
from .parameters import Parameter, parameter_value
from .quantiles import normal_quantile

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
        on_terms = [
            part.reshape(term.n_coefficients, term.n_levels)
            for part, term in zip(np.split(on_y, self._ends[1:]), blocks.terms, strict=False)
        ]
        return with_response(blocks, on_terms, on_y[self._ends[-1] :], float(yWy))


def bootstrap(
    model: FittedModel,
    prepare: Prepare,
    *,
    n_resamples: int,
    tol: float,
    n_jobs: int | None,
    random_state: np.random.RandomState,
) -> Iterator[Optimum]:
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
    Optimum
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
) -> Optimum:
    drawn = simulation.draw(np.random.RandomState(seed))
    return estimate_variances(
        prepare(drawn),
        drawn,
        model.variances,
        model.freedom,
        method=model.method,
        stopping=Stopping(MAX_ITER, tol),
    )


TIED = 1e-9  # relative difference of a refit from the estimate that is rounding


class Resamples(NamedTuple):
    """Parameters of refits, one row each: values of variance parameters, t values of coefficients.

    Attributes
    ----------
    values : ndarray of shape (n_resamples, m)
        NaN where a refit has none: a correlation beside a standard deviation of zero.
    estimates, std : ndarray of shape (m,)
        Of the fit that was simulated; `std` is NaN but for coefficients.
    """

    values: Array
    estimates: Array
    std: Array


def resample(
    model: FittedModel,
    refits: Iterable[Optimum],
    parameters: Sequence[Parameter | int],
    tests: FixedEffects,
) -> Resamples:
    """Collect parameters from refits to simulated cross-products with fixed effects of zero.

    Parameters
    ----------
    model : FittedModel
        The fit that was simulated, in the unit in which the parameters are wanted.
    refits : iterable of Optimum
        Fits to the draws.
    parameters : sequence of Parameter or int
        Variance parameters, and positions of coefficients.
    tests : FixedEffects
        Of all coefficients of the fit, in the same unit.

    Returns
    -------
    Resamples
    """
    values = [_refitted(model, fit, parameters) for fit in refits]
    estimates = [
        tests.estimate[p] if isinstance(p, int) else parameter_value(model, p, model.variances)
        for p in parameters
    ]
    std = [tests.std_error[p] if isinstance(p, int) else np.nan for p in parameters]
    return Resamples(np.array(values), np.array(estimates), np.array(std))


def _refitted(
    model: FittedModel, fit: Optimum, parameters: Sequence[Parameter | int]
) -> list[float]:
    """Variance parameters of a refit, and t values of its coefficients, whose truth is zero."""
    if not fit.solution.finite:
        return [np.nan] * len(parameters)
    beta = model.fixed.to_coefficients @ fit.solution.beta * model.y_scale
    std = np.sqrt(np.diag(fixed_cov_at(model, fit.solution)))
    return [
        float(beta[p] / std[p])
        if isinstance(p, int)
        else parameter_value(model, p, fit.solution.variances)
        for p in parameters
    ]


def bootstrap_interval(
    parameter: Parameter | int, values: Array, estimate: float, std: float, level: float
) -> tuple[float, float]:
    """Interval from the refits that have a value: studentised, or corrected for bias and skewness.

    Equation (23) of docs/theory.md. NaN where fewer than two refits have a value.

    Parameters
    ----------
    parameter : Parameter or int
        A variance parameter, or a coefficient's position.
    values : ndarray of shape (n_resamples,)
        Of the refits, a coefficient's in units of its standard error.
    estimate, std : float
        Of the fit.
    level : float
        Probability.

    Returns
    -------
    tuple of float

    References
    ----------
    Efron (1987), "Better bootstrap confidence intervals", Journal of the American Statistical
    Association 82(397).
    """
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return np.nan, np.nan
    if isinstance(parameter, int):
        # The draws are symmetric about zero.
        width = float(np.quantile(np.abs(values), level) * std)
        return float(estimate - width), float(estimate + width)
    is_correlation = len(parameter.coefficients) == 2
    acceleration = 0.0 if is_correlation else _skewness(values**2) / 6.0
    z = _bias(values, estimate) + normal_quantile(level) * np.array([-1.0, 1.0])
    bend = 1.0 - acceleration * z
    corrected = np.where(bend > 0.0, z / np.where(bend > 0.0, bend, 1.0), np.inf)
    lower, upper = np.quantile(values, ndtr(_bias(values, estimate) + corrected))
    return float(lower), float(upper)


def _bias(values: Array, estimate: float) -> float:
    """Normal quantile of the estimate among its refits; zero where it is their median."""
    if np.isnan(estimate):
        return 0.0
    tie = TIED * np.max(np.abs(values))
    below, up_to = np.mean(values < estimate - tie), np.mean(values <= estimate + tie)
    # Of an estimate at a boundary, where many refits are too, the quantile closest to the median.
    share = np.clip(0.5, below, up_to)
    return float(ndtri(np.clip(share, 0.5 / len(values), 1.0 - 0.5 / len(values))))


def _skewness(values: Array) -> float:
    """Third standardised moment; zero where the values are equal."""
    centered = values - np.mean(values)
    largest = np.max(np.abs(centered))
    if not largest > 0.0:
        return 0.0
    centered = centered / largest
    return float(np.mean(centered**3) / np.mean(centered**2) ** 1.5)
