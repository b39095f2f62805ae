"""Fit a workload with the package glmm.

Its Satterthwaite degrees of freedom are left out: no other program here computes them.
"""

import sys

import glmm
from protocol import asked_for, serve


def describe(fit: glmm.Fit) -> dict:
    """Return the answers by the names that all workers use."""
    if not (fit.reml and fit.converged):
        sys.exit("glmm did not converge under REML")
    names = [name for name, _ in fit.re_groups]
    components = {
        name: list(map(float, block)) for name, block in zip(names, fit.varcorr, strict=True)
    }
    return {
        "variance_components": {**components, "residual": [float(fit.dispersion)]},
        "fixed_effects": list(map(float, fit.beta)),
        "criterion": -2 * float(fit.loglik),
    }


workload, data = asked_for()
for group in workload.groups:
    data[group] = data[group].astype(str)
serve(
    workload,
    ["glmm", "numpy", "pandas"],
    lambda: glmm.fit(data, workload.formula, reml=True, satterthwaite=False),
    describe,
)
