"""
How sure: a subject who was seen, and one who was not
=====================================================

What will the next reaction time be? For a subject with ten measurements the answer is narrow; for a
new subject it carries the whole variance between subjects. One fit of the sleep study gives both,
and what it would have said of each subject without that subject's rows.
"""

import matplotlib.pyplot as plt
import numpy as np

from sklearn_mackay import MacKayMixedRegressor, RandomEffectsDisplay
from sklearn_mackay.datasets import load_sleepstudy

X, y = load_sleepstudy(as_frame=True, return_X_y=True)
model = MacKayMixedRegressor(groups="Subject", random_slopes={"Subject": ["Days"]}).fit(X, y)
print(model.summary())

# %%
# Two kinds of cross-validation answer two questions. Leaving out single rows asks how well further
# days of the same subjects are predicted, leaving out subjects how well new ones are. Both come
# from one factorisation at the fitted variances; nothing is refitted.

rows, subjects = model.loo_predict(X, y), model.logo_predict(X, y, "Subject")
for what, held in {"a row": rows, "a subject": subjects}.items():
    error = np.sqrt(np.mean((y - held.mean) ** 2))
    inside = np.mean(np.abs(y - held.mean) <= 1.96 * held.std)
    print(
        f"{what} left out: error {error:.1f} ms, stated {np.sqrt(np.mean(held.std**2)):.1f} ms, "
        f"{100 * inside:.0f} % of rows within 95 % intervals"
    )

# %%
# Subject 309 hardly slows down. Known, the interval follows the subject's own line; as a new
# subject it follows the line of all, and is as wide as subjects differ.

days = X[X["Subject"] == X["Subject"].unique()[1]]
fig, axes = plt.subplots(1, 2, figsize=(8.4, 4.2), sharey=True, layout="constrained")
for ax, frame, title in zip(
    axes, (days, days.assign(Subject="new")), ("known subject", "the same, not known"), strict=True
):
    mean = model.predict(frame)
    for kind, alpha in (("prediction", 0.2), ("confidence", 0.4)):
        lower, upper = model.predict_interval(frame, kind=kind).T
        ax.fill_between(frame["Days"], lower, upper, alpha=alpha, color="C0", label=kind, lw=0)
    ax.plot(frame["Days"], mean, color="C0", label="mean")
    ax.plot(days["Days"], y[days.index], "ko", markersize=4, label="measured")
    ax.set(title=title, xlabel="days of little sleep")
axes[0].set_ylabel("reaction time (ms)")
axes[0].legend(loc="upper left", title="95 % intervals")
plt.show()

# %%
# The effects of all subjects, with the intervals of their errors.

RandomEffectsDisplay.from_estimator(model, coefficient="Days")
plt.show()
