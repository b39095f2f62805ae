"""Fit InstEval with the package glmm.

Its Satterthwaite degrees of freedom are left out: no other program here computes them.
"""

import sys

import glmm
import pandas as pd
from protocol import serve

GROUPS = ["s", "d", "dept"]
FORMULA = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


def describe(fit: glmm.Fit) -> dict:
    """Return the answers by the names that all workers use."""
    if not (fit.reml and fit.converged):
        sys.exit("glmm did not converge under REML")
    names = [name for name, _ in fit.re_groups]
    components = dict(zip(names, map(float, fit.tau2), strict=True))
    return {
        "variance_components": {**components, "residual": float(fit.dispersion)},
        "fixed_effects": dict(zip(fit.names, map(float, fit.beta), strict=True)),
        "criterion": -2 * float(fit.loglik),
    }


data = pd.read_csv(sys.argv[1], dtype=dict.fromkeys(GROUPS, str))
serve(
    ["glmm", "numpy", "pandas"],
    lambda: glmm.fit(data, FORMULA, reml=True, satterthwaite=False),
    describe,
)
