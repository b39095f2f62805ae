"""Fit a workload with the package mixedlm."""

import sys

import mixedlm
from protocol import asked_for, lower_triangle, serve


def describe(fit: object) -> dict:
    """Return the answers by the names that all workers use."""
    if not (fit.REML and fit.converged):
        sys.exit("mixedlm did not converge under REML")
    components = fit.VarCorr()
    return {
        "variance_components": {
            **{name: lower_triangle(components.get_cov(name)) for name in workload.groups},
            "residual": [float(components.residual)],
        },
        "fixed_effects": list(map(float, fit.beta)),
        "criterion": float(fit.REMLcrit()),
    }


workload, data = asked_for()
row = data.head(1)
serve(
    workload,
    ["mixedlm", "numpy", "scipy", "pandas"],
    lambda: mixedlm.lmer(workload.formula, data),
    describe,
    lambda fit: float(fit.predict(row)[0]),
)
