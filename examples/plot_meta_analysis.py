"""
Meta-analysis: one row a study, its precision known
===================================================

Thirteen trials of the BCG vaccine against tuberculosis report a risk ratio each, with a standard
error of its own. How effective is the vaccine on average, and how much does that differ between
trials? Each trial is one row and one level: no residual variance could be told from the variance
between trials, but here the residual variance is *known*. It is held at 1, and each row weighs as
much as its precision, the inverse of its squared standard error: ``y_i = mu + b_i + e_i`` with
``e_i ~ N(0, v_i)``.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_mackay import MacKayMixedRegressor

# Colditz et al. (1994), JAMA 271: cases and others among the treated and the control group.
trials = pd.DataFrame(
    [
        ("Aronson 1948", 4, 119, 11, 128, 44),
        ("Ferguson & Simes 1949", 6, 300, 29, 274, 55),
        ("Rosenthal et al. 1960", 3, 228, 11, 209, 42),
        ("Hart & Sutherland 1977", 62, 13536, 248, 12619, 52),
        ("Frimodt-Moller et al. 1973", 33, 5036, 47, 5761, 13),
        ("Stein & Aronson 1953", 180, 1361, 372, 1079, 44),
        ("Vandiviere et al. 1973", 8, 2537, 10, 619, 19),
        ("TPT Madras 1980", 505, 87886, 499, 87892, 13),
        ("Coetzee & Berjak 1968", 29, 7470, 45, 7232, 27),
        ("Rosenthal et al. 1961", 17, 1699, 65, 1600, 42),
        ("Comstock et al. 1974", 186, 50448, 141, 27197, 18),
        ("Comstock & Webster 1969", 5, 2493, 3, 2338, 33),
        ("Comstock et al. 1976", 27, 16886, 29, 17825, 33),
    ],
    columns=["trial", "cases", "others", "control_cases", "control_others", "latitude"],
)
treated = trials["cases"] + trials["others"]
control = trials["control_cases"] + trials["control_others"]
y = np.log(trials["cases"] / treated) - np.log(trials["control_cases"] / control)
variance = 1 / trials["cases"] - 1 / treated + 1 / trials["control_cases"] - 1 / control

known = {"fixed_variances": {"residual": 1.0}, "weight_type": "precision"}
model = MacKayMixedRegressor("trial", **known)
model.fit(trials[["trial"]], y, sample_weight=1 / variance)
mean, std = model.intercept_, model.intercept_std_
lower, upper = model.confint("trial")["sd(trial: intercept)"]
print(f"mean log risk ratio {mean:.4f}, standard error {std:.4f}")
print(f"variance between trials {model.variance_components_['trial']:.4f}")
print(f"standard deviation {lower:.2f} to {upper:.2f} at 95 %")

# %%
# R's metafor says -0.7145, 0.1798 and 0.3132 by REML. Taking the trials as equal would give the
# plain weighted mean, with a standard error that is far too small.

weighted = np.average(y, weights=1 / variance)
print(f"no variance between trials: {weighted:.4f}, {np.sqrt(1 / np.sum(1 / variance)):.4f}")

# %%
# Effects of single trials are shrunken towards the mean, the less precise ones most.

effects = mean + model.random_effects_["trial"][:, 0]
fig, ax = plt.subplots(figsize=(7.2, 5), layout="constrained")
rows = np.arange(len(trials))[::-1]
ax.errorbar(y, rows + 0.12, 1.96 * np.sqrt(variance), fmt="o", color="0.6", label="trial alone")
order = np.searchsorted(model.group_levels_["trial"], trials["trial"])
ax.plot(effects[order], rows - 0.12, "o", color="C0", label="in the light of all")
ax.axvline(mean, color="C0", lw=1)
ax.axvspan(mean - 1.96 * std, mean + 1.96 * std, color="C0", alpha=0.15, lw=0, label="mean, 95 %")
ax.axvline(0, color="k", lw=0.5)
ax.set(yticks=rows, yticklabels=trials["trial"], xlabel="log risk ratio")
ax.legend(loc="lower left")
plt.show()

# %%
# Meta-regression is a fixed feature: the vaccine protects better far from the equator, which
# explains most of the variance between trials.

regression = MacKayMixedRegressor("trial", **known)
regression.fit(trials[["latitude", "trial"]], y, sample_weight=1 / variance)
slope = regression.fixed_effects()
print(f"for a degree of latitude {slope.estimate[1]:.4f}, standard error {slope.std_error[1]:.4f}")
print(f"variance that is left {regression.variance_components_['trial']:.4f}")
