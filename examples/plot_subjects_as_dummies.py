"""
Subjects as dummy columns or as random effects
==============================================

Eighteen subjects slept three hours a night, and their reaction time was measured on ten days.
Should each subject have an intercept and a slope of its own, fitted by least squares on dummy
columns, or should they share what they have in common? We fit days 0 to 4 and predict days 5 to 9.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy

X, y = load_sleepstudy(as_frame=True, return_X_y=True)
early = X["Days"] <= 4

# %%
# Three models: one line for all; one line for each subject, by least squares on dummy columns; and
# the mixed model, whose lines are drawn towards the common one as far as the data ask for it.


def dummies(frame):
    """Indicators of the subjects, and their products with the days."""
    own = pd.get_dummies(frame["Subject"], dtype=float)
    return np.hstack([own, own.mul(frame["Days"], axis=0)])


common = LinearRegression().fit(X.loc[early, ["Days"]], y[early])
separate = LinearRegression(fit_intercept=False).fit(dummies(X[early]), y[early])
mixed = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]})
mixed.fit(X[early], y[early])

predictions = {
    "one line for all": common.predict(X[["Days"]]),
    "dummy columns": separate.predict(dummies(X)),
    "random effects": mixed.predict(X),
}
errors = pd.DataFrame(
    {
        name: {
            "days 0 to 4, fitted": np.sqrt(np.mean((prediction - y)[early] ** 2)),
            "days 5 to 9, predicted": np.sqrt(np.mean((prediction - y)[~early] ** 2)),
        }
        for name, prediction in predictions.items()
    }
).T
print("Root mean squared error, in milliseconds")
print(errors.round(1))

# %%
# The dummy columns fit the first days best, because each subject's line follows five points alone.
# What follows noise does not last: on the later days the mixed model errs least. Nobody chose how
# far to shrink; the variances did.

print(mixed.variance_components_["Subject"].round(1))
print("residual", round(mixed.variance_components_["residual"], 1))

# %%
# Each arrow leads from a subject's line by least squares to its line in the mixed model.

subjects = np.unique(X["Subject"])
intercepts, slopes = separate.coef_[: len(subjects)], separate.coef_[len(subjects) :]
shrunken = mixed.random_effects_["Subject"] + [mixed.intercept_, mixed.coef_[0]]

fig, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
for start, end in zip(np.column_stack([intercepts, slopes]), shrunken, strict=True):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.6"})
ax.plot(intercepts, slopes, "o", color="C1", label="dummy columns")
ax.plot(*shrunken.T, "o", color="C0", label="random effects")
ax.plot(mixed.intercept_, mixed.coef_[0], "k*", markersize=14, label="all subjects")
ax.set(xlabel="reaction time on day 0 (ms)", ylabel="change per day (ms)")
ax.set_title("Lines of 18 subjects, from days 0 to 4")
ax.legend()
plt.show()
