"""
Customers and products: three penalties without a grid
======================================================

Ten thousand customers in fifty states buy five hundred products. One-hot columns for all of them
need a penalty, and the three factors do not need the same. A grid over three penalties is slow; the
mixed model learns them in one fit.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder
from threadpoolctl import threadpool_limits

from sklearn_mackay import MacKayMixedRegressor

rng = np.random.default_rng(0)
n, n_customers, n_states, n_products = 40_000, 10_000, 50, 500
FACTORS = ["customer", "state", "product"]
TRUE = {"customer": 0.5, "state": 0.1, "product": 1.0, "residual": 1.0}


def popular(n_levels):
    """Levels drawn in proportion to 1 / rank: few are seen often, many a few times."""
    shares = 1 / (np.arange(n_levels) + 10)
    return rng.choice(n_levels, size=n, p=shares / shares.sum())


X = pd.DataFrame({"customer": popular(n_customers), "product": popular(n_products)})
X["state"] = rng.integers(n_states, size=n_customers)[X["customer"]]
X = X[FACTORS]
y = 3 + rng.normal(size=n)
for factor in FACTORS:
    levels = rng.normal(size=X[factor].max() + 1)
    y += np.sqrt(TRUE[factor]) * levels[X[factor]]
new = rng.random(n) < 0.25

# %%
# The competitors: one penalty for all columns, chosen on a grid; one penalty for each factor, which
# in scikit-learn is a weight on its one-hot columns; and means of the target in place of columns.


def one_hot():
    return OneHotEncoder(handle_unknown="ignore")


columns = make_column_transformer(*((one_hot(), [factor]) for factor in FACTORS))
names = [name for name, *_ in columns.transformers]
weights = [
    dict(zip(names, (a, b, c), strict=True))
    for a in (0.4, 0.7, 1.2)
    for b in (0.2, 0.4, 0.8)
    for c in (0.5, 1.0, 2.0)
]
models = {
    "mixed model": MacKayMixedRegressor(groups=FACTORS),
    "Ridge, grid of 7 penalties": GridSearchCV(
        make_pipeline(one_hot(), Ridge()), {"ridge__alpha": np.logspace(-1, 2, 7)}, cv=3
    ),
    "Ridge, grid of 27 triples": GridSearchCV(
        make_pipeline(columns, Ridge()),
        {"columntransformer__transformer_weights": weights},
        cv=3,
    ),
    "target encoding, Ridge": make_pipeline(TargetEncoder(target_type="continuous"), Ridge()),
}
# TensorFlow is loaded by the first larger fit of a process, which is not what we want to time. BLAS
# threads cost Ridge more than they save here, so there is one.
rows = {}
with threadpool_limits(limits=1, user_api="blas"):
    MacKayMixedRegressor(groups=FACTORS).fit(X[:2000], y[:2000])
    for name, model in models.items():
        start = perf_counter()
        model.fit(X[~new], y[~new])
        rows[name] = {"seconds": perf_counter() - start, "R2": model.score(X[new], y[new])}
table = pd.DataFrame(rows).T
print(table.round({"seconds": 2, "R2": 4}))

# %%
# The variances that were found, beside those the data were made with.

mixed = models["mixed model"]
print(pd.DataFrame({"true": TRUE, "found": mixed.variance_components_}).round(3))

# %%
# The mean of a customer with ``n`` rows, less what state and product explain, is multiplied by the
# share ``n / (n + sigma2 / tau2)`` to give the customer's effect. This is exact, up to rounding.
# Whether it is right is another question: how much of such a mean comes back in the new rows of the
# same customers can be measured, as the slope of a regression of new rows on means.

customers = mixed.group_levels_["customer"]
residual = pd.Series(y - mixed.predict(X, effects=["state", "product"]))
means = residual[~new].groupby(X.loc[~new, "customer"]).agg(["size", "mean"]).loc[customers]
variances = mixed.variance_components_
penalty = variances["residual"] / variances["customer"]
kept = mixed.random_effects_["customer"][:, 0] / means["mean"]
exact = means["size"] / (means["size"] + penalty)
print(f"sigma2 / tau2 = {penalty:.2f}; largest difference of shares: {abs(kept - exact).max():.0e}")

rows = means.reindex(X.loc[new, "customer"]).assign(y=residual[new].to_numpy()).dropna()
EDGES = [1, 2, 3, 4, 6, 10, 20, 50, 1000]
shares = []
for _, band in rows.groupby(pd.cut(rows["size"], EDGES, right=False)):
    weight = band["mean"] @ band["mean"]
    slope = band["mean"] @ band["y"] / weight
    # Rows of one customer share an effect, so their errors are summed before they are squared.
    of_customer = (band["mean"] * (band["y"] - slope * band["mean"])).groupby(level=0).sum()
    shares.append((band["size"].median(), slope, np.sqrt(of_customer @ of_customer) / weight))
shares = pd.DataFrame(shares, columns=["rows", "comes back", "std. error"])
shares["share kept"] = shares["rows"] / (shares["rows"] + penalty)
print(shares.round(2).to_string(index=False))

# %%
# The one penalty that the grid chose is 1: a customer with a single row keeps half of its mean, of
# which a third comes back. The bars are two standard errors.

fig, (left, right) = plt.subplots(1, 2, figsize=(10.0, 4.2), layout="constrained")
markers = ["*", "o", "s", "^"]
for (name, row), marker in zip(table.iterrows(), markers, strict=True):
    size = 15 if marker == "*" else 9
    left.semilogx(row["seconds"], row["R2"], marker, markersize=size, linestyle="none", label=name)
left.set(xlabel="seconds to fit and choose penalties", ylabel="R2 on new rows")
left.set_title("One fit against grids of penalties")
left.grid(alpha=0.3)
left.legend(loc="center left")

n_rows = np.geomspace(1, 300, 100)
alpha = models["Ridge, grid of 7 penalties"].best_params_["ridge__alpha"]
right.semilogx(n_rows, n_rows / (n_rows + penalty), "C0-", label="mixed model keeps")
right.semilogx(n_rows, n_rows / (n_rows + alpha), "C1--", label="one penalty by a grid keeps")
right.errorbar(
    shares["rows"],
    shares["comes back"],
    2 * shares["std. error"],
    fmt="ko",
    label="comes back in new rows",
)
right.set(xlabel="rows of the customer", ylabel="share of the customer's mean")
right.set_title("Shrinkage chosen by the data")
right.grid(alpha=0.3)
right.legend(loc="lower right")
plt.show()
