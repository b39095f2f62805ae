"""
A million ratings, crossed
==========================

Fifty thousand users rate ten thousand items, some items a few times and some thousands of times.
Users and items are crossed, so that the equations of the two factors do not come apart. One fit
finds both variances and the effects of all users and items.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import make_ratings

n, n_new, n_users, n_items = 1_000_000, 100_000, 50_000, 10_000
FACTORS = ["user", "item"]
TRUE = {"user": 0.20, "item": 0.25, "residual": 0.80}

X, y, effects = make_ratings(
    n + n_new,
    n_users,
    n_items,
    item_exponent=2.0,
    item_shift=100,
    variances=TRUE,
    n_features=0,
    return_effects=True,
    random_state=0,
    as_frame=True,
)
X_new, y_new = X[n:], y[n:]
X, y = X[:n], y[:n]
rated = X["item"].value_counts()
print("ratings of an item, quartiles:", rated.quantile([0.25, 0.5, 0.75]).astype(int).tolist())
print(f"{(rated <= 5).sum()} of {len(rated)} items have at most five, one has {rated.max()}")

# %%
# What is crossed leaves a dense matrix of the order of the smaller factor. ``solver="auto"`` takes
# the iterative engine where factorising that matrix would take too long, as here. A small fit first
# loads TensorFlow, which is not what we want to time.

MacKayMixedRegressor(FACTORS, solver="iterative", random_state=0).fit(X[:5000], y[:5000])


def timed(model):
    """Fit, and say how long it took."""
    start = perf_counter()
    return model.fit(X, y), perf_counter() - start


mixed, mixed_seconds = timed(MacKayMixedRegressor(groups=FACTORS, random_state=0))
print(f"{mixed.solver_} engine: {mixed_seconds:.1f} s, {mixed.n_iter_} iterations,")
print(f"{mixed.n_products_} products with a batch of vectors, converged: {mixed.converged_}")

# %%
# The iterative engine estimates traces with random vectors, and ``variance_mc_error_`` is the
# standard error that this adds. The one that the data leave is about
# ``variance * sqrt(2 / levels)`` for a factor, as if its effects themselves had been observed, and
# the same with the number of rows for the residual. It is too small for a factor with levels that
# were seen rarely, as the items here. The error by the probes is below a hundredth of it.

levels = {name: len(labels) for name, labels in mixed.group_levels_.items()} | {"residual": n}
variances = pd.DataFrame({"true": TRUE, "found": mixed.variance_components_})
variances["std. error"] = variances["found"] * np.sqrt(2 / pd.Series(levels))
variances["of it by probes"] = pd.Series(mixed.variance_mc_error_)
variances["z"] = (variances["found"] - variances["true"]) / variances["std. error"]
print(variances.round({"found": 4, "std. error": 5, "of it by probes": 5, "z": 1}).to_string())

# %%
# New ratings by the same users, against what one would try first. The last line predicts with the
# effects that the ratings were simulated with, and errs by the residuals alone.


def rmse(prediction):
    """Error on the new ratings."""
    return np.sqrt(np.mean((y_new - prediction) ** 2))


item_means = y.groupby(X["item"]).mean()
ridge, ridge_seconds = timed(
    make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge(1.0, solver="sparse_cg"))
)
errors = {
    "mean of all ratings": (rmse(y.mean()), np.nan),
    "mean of the item": (rmse(X_new["item"].map(item_means).fillna(y.mean())), np.nan),
    "one-hot, Ridge(1.0)": (rmse(ridge.predict(X_new)), ridge_seconds),
    "mixed model": (rmse(mixed.predict(X_new)), mixed_seconds),
    "true effects": (rmse(3.5 + sum(effects[f][X_new[f]] for f in FACTORS)), np.nan),
}
table = pd.DataFrame(errors, index=["RMSE", "seconds"]).T
print(table.round({"RMSE": 4, "seconds": 1}).to_string(na_rep=""))
ratios = {
    f: mixed.variance_components_["residual"] / mixed.variance_components_[f] for f in FACTORS
}
print("penalties in Ridge's units:", {f: round(ratio, 2) for f, ratio in ratios.items()})

# %%
# Ridge's default penalty of 1 is not far from right here, and its error is not far from the
# model's: above that of the true effects, 0.0250 against 0.0210. To find a better penalty by a grid
# means as many more such fits as it has points; the mixed model has found two. The mean of an item,
# in contrast, knows nothing of who rated.
#
# How much of an item's mean enters its effect depends on how often the item was rated.

items = mixed.group_levels_["item"]
count = rated[items].to_numpy()
estimates = {
    "mean of the item": item_means[items].to_numpy() - y.mean(),
    "one-hot, Ridge(1.0)": ridge[-1].coef_[-len(items) :],
    "mixed model": mixed.random_effects_["item"][:, 0],
}
departure, found = estimates["mean of the item"], estimates["mixed model"]
BANDS = {"1": (1, 1), "2 to 5": (2, 5), "20 to 50": (20, 50), "1000 or more": (1000, np.inf)}
seen = {name: (count >= low) & (count <= high) for name, (low, high) in BANDS.items()}
for name, band in seen.items():
    slope = departure[band] @ found[band] / (departure[band] @ departure[band])
    print(f"{band.sum():4d} items with {name:12} ratings keep {slope:.2f} of their mean")

# %%
# On the left, items by their mean and their effect; on the line nothing would be shrunken. On the
# right, the error of the effects against those of the simulation. Where an item has up to three
# ratings its mean errs more than zero does, the dotted line. From about a hundred ratings on the
# penalty hardly matters, and Ridge and the mixed model agree.

edges = 2 ** np.arange(12)
bins = np.digitize(count, edges)
middle = pd.Series(count).groupby(bins).median()
truth = effects["item"][items]

fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.2), layout="constrained")
looks = [("o", "C1"), ("^", "C0"), ("s", "0.1")]
for (name, band), (marker, color) in zip(list(seen.items())[1:], looks, strict=True):
    shown = np.flatnonzero(band)[:250]
    left.scatter(
        departure[shown], found[shown], s=16, marker=marker, color=color, alpha=0.6, label=name
    )
left.axline((0, 0), slope=1, color="0.5", lw=1, zorder=0)
left.set(xlabel="mean of the item less mean of all", ylabel="effect in the mixed model")
left.set_title("Few ratings, little trust")
left.legend(title="ratings of the item")
for (name, estimate), style in zip(estimates.items(), ("C1o--", "C2s-.", "C0^-"), strict=True):
    error = np.sqrt(pd.Series((estimate - truth) ** 2).groupby(bins).mean())
    right.loglog(middle, error, style, label=name)
right.axhline(np.sqrt(TRUE["item"]), color="0.3", ls=":", label="effect taken as zero")
right.set(xlabel="ratings of the item", ylabel="root mean squared error of its effect")
right.set_title("Error of the items' effects")
right.legend()
plt.show()

# %%
# The iterative engine keeps no covariance. Standard deviations of predictions are had with
# ``store_covariance=True``, and cost a dense factorisation of the order of the items when they are
# first asked for.
