"""Fit InstEval with sklearn_mackay; the first fit includes the import of TensorFlow."""

import sys

import pandas as pd
from protocol import serve

from sklearn_mackay import MacKayMixedRegressor

GROUPS = ["s", "d", "dept"]
PACKAGES = ["sklearn_mackay", "tensorflow", "numpy", "scipy", "scikit-learn", "pandas"]


def describe(model: MacKayMixedRegressor) -> dict:
    """Return the answers by the names that all workers use."""
    components = {name: float(value) for name, value in model.variance_components_.items()}
    return {
        "variance_components": components,
        "fixed_effects": {"(Intercept)": float(model.intercept_), "service": float(model.coef_[0])},
        "criterion": -2 * float(model.log_likelihood_),
    }


X = pd.read_csv(sys.argv[1], dtype=dict.fromkeys(GROUPS, str))
y = X.pop("y")
serve(PACKAGES, lambda: MacKayMixedRegressor(groups=GROUPS).fit(X, y), describe)
