"""Fit random intercepts with GPBoost, which maximises the likelihood.

Its iterative (Krylov) method is for crossed factors only; a single one is factorised.
"""

import sys

import gpboost
import numpy as np
from protocol import asked_for, serve

workload, data = asked_for()
if workload.slopes:
    sys.exit("this worker of gpboost fits random intercepts only")
group_data = data[list(workload.groups)].to_numpy()
X = np.column_stack([np.ones(len(data)), data[list(workload.features)]])
y = data["y"].to_numpy()
method = "iterative" if len(workload.groups) > 1 else "cholesky"
del data


def fit() -> gpboost.GPModel:
    """Build the model and estimate it, at GPBoost's defaults."""
    model = gpboost.GPModel(
        group_data=group_data, likelihood="gaussian", matrix_inversion_method=method
    )
    model.fit(y=y, X=X)
    return model


def describe(model: gpboost.GPModel) -> dict:
    """Return the answers by the names that all workers use."""
    residual, *components = np.asarray(model.get_cov_pars()).ravel()[: 1 + len(workload.groups)]
    return {
        "variance_components": {
            **{name: [float(v)] for name, v in zip(workload.groups, components, strict=True)},
            "residual": [float(residual)],
        },
        "fixed_effects": list(map(float, np.asarray(model.get_coef()).ravel()[: X.shape[1]])),
        "criterion": 2 * float(model.get_current_neg_log_likelihood()),
    }


def predict(model: gpboost.GPModel) -> float:
    """Return the prediction of the first row."""
    return float(model.predict(X_pred=X[:1], group_data_pred=group_data[:1])["mu"][0])


serve(workload, ["gpboost", "numpy", "pandas"], fit, describe, predict)
