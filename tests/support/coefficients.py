"""What tests ask of a fit: entries of `coef_` that exist, and the criterion."""

from __future__ import annotations

import numpy as np

from sklearn_mackay import MacKayMixedRegressor

Array = np.ndarray


def existing_coef(model: MacKayMixedRegressor) -> Array:
    """Coefficients that exist, of shape (p,) or (n_outputs, p), in the order of X."""
    return model.coef_[..., _exists(model)]


def fixed_estimates(model: MacKayMixedRegressor) -> Array:
    """Intercept and coefficients of one output."""
    return np.append(model.intercept_, existing_coef(model))


def fixed_errors(model: MacKayMixedRegressor) -> Array:
    """Their standard errors."""
    return np.append(model.intercept_std_, model.coef_std_[_exists(model)])


def _exists(model: MacKayMixedRegressor) -> Array:
    return ~np.isnan(np.atleast_2d(model.coef_)[0])


def deviance(model: MacKayMixedRegressor) -> float:
    """``-2 log-likelihood``."""
    return -2.0 * model.log_likelihood_
