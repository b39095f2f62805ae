"""Fit a workload of one grouping factor with statsmodels."""

import sys

from protocol import asked_for, lower_triangle, serve
from statsmodels.regression.mixed_linear_model import MixedLM

workload, data = asked_for()
(group,) = workload.groups
slopes = workload.slopes.get(group, [])


def describe(fit: object) -> dict:
    """Return the answers by the names that all workers use."""
    if not (fit.reml and fit.converged):
        sys.exit("statsmodels did not converge under REML")
    return {
        "variance_components": {
            group: lower_triangle(fit.cov_re.to_numpy()),
            "residual": [float(fit.scale)],
        },
        "fixed_effects": list(map(float, fit.fe_params)),
        "criterion": -2 * float(fit.llf),
    }


serve(
    workload,
    ["statsmodels", "numpy", "scipy", "pandas"],
    lambda: MixedLM.from_formula(
        f"y ~ {' + '.join(workload.features)}",
        data,
        groups=group,
        re_formula=f"~{' + '.join(slopes)}" if slopes else None,
    ).fit(),
    describe,
)
