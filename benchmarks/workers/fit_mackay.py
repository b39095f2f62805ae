"""Fit a workload with sklearn_mackay; the first fit includes the import of TensorFlow."""

import numpy as np
from protocol import asked_for, lower_triangle, serve

from sklearn_mackay import MacKayMixedRegressor

PACKAGES = ["sklearn_mackay", "tensorflow", "numpy", "scipy", "scikit-learn", "pandas"]


def describe(model: MacKayMixedRegressor) -> dict:
    """Return the answers by the names that all workers use."""
    return {
        "variance_components": {
            name: lower_triangle(np.atleast_2d(value))
            for name, value in model.variance_components_.items()
        },
        "fixed_effects": [
            float(model.intercept_),
            *map(float, model.coef_[~np.isnan(model.coef_)]),
        ],
        "criterion": -2 * float(model.log_likelihood_),
        "solver": model.solver_,
    }


workload, data = asked_for()
X = data[[*workload.features, *workload.groups]]
y = data["y"].to_numpy()
row = X.head(1)
del data
serve(
    workload,
    PACKAGES,
    lambda: MacKayMixedRegressor(
        groups=list(workload.groups), random_slopes=workload.slopes, random_state=0
    ).fit(X, y),
    describe,
    lambda model: float(model.predict(row)[0]),
)
