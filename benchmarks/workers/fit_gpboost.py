"""Fit random intercepts with GPBoost's iterative (Krylov) method; it maximises the likelihood."""

import gpboost
import numpy as np
from protocol import asked_for, serve

workload, data = asked_for()
group_data = data[list(workload.groups)].to_numpy()
X = np.column_stack([np.ones(len(data)), data[list(workload.features)]])
y = data["y"].to_numpy()
del data


def fit() -> gpboost.GPModel:
    """Build the model and estimate it, at GPBoost's defaults."""
    model = gpboost.GPModel(
        group_data=group_data, likelihood="gaussian", matrix_inversion_method="iterative"
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


serve(["gpboost", "numpy", "pandas"], fit, describe)
