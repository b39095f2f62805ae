"""Fit a workload of one grouping factor with the package mixedlm-rs."""

import numpy as np
from mixedlm_rs import mixedlm
from protocol import asked_for, lower_triangle, serve

workload, data = asked_for()
(group,) = workload.groups
slopes = workload.slopes.get(group, [])


def describe(fit: object) -> dict:
    """Return the answers by the names that all workers use."""
    return {
        "variance_components": {
            group: lower_triangle(np.asarray(fit.cov_re)),
            "residual": [float(fit.scale)],
        },
        "fixed_effects": list(map(float, fit.fe_params)),
        "criterion": -2 * float(fit.llf),
    }


serve(
    workload,
    ["mixedlm-rs", "numpy", "pandas"],
    lambda: mixedlm(
        f"y ~ {' + '.join(workload.features)}",
        data,
        groups=group,
        re_formula=f"~{' + '.join(slopes)}" if slopes else None,
    ).fit(),
    describe,
)
