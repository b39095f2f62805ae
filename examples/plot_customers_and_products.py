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
# TensorFlow is loaded by the first larger fit of a process, which is not what we want to time.
MacKayMixedRegressor(groups=FACTORS).fit(X[:2000], y[:2000])
rows = {}
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
# How far a customer's mean is drawn towards the others depends on how often we saw the customer.

counts = X.loc[~new, "customer"].value_counts().reindex(mixed.group_levels_["customer"])
others = mixed.predict(X[~new], effects=["state", "product"])
residual = pd.Series(y[~new] - others).groupby(X.loc[~new, "customer"].to_numpy()).mean()
share = mixed.random_effects_["customer"][:, 0] / residual.to_numpy()
for low, high in ((1, 1), (2, 3), (10, 20), (100, 1000)):
    seen = counts.between(low, high).to_numpy()
    print(f"{low:4d} to {high:4d} rows: keeps {np.median(share[seen]):.2f} of its own mean")

# %%
fig, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
markers = ["*", "o", "s", "^"]
for (name, row), marker in zip(table.iterrows(), markers, strict=True):
    size = 15 if marker == "*" else 9
    ax.semilogx(row["seconds"], row["R2"], marker, markersize=size, linestyle="none", label=name)
ax.set(xlabel="seconds to fit and choose penalties", ylabel="R2 on new rows")
ax.set_title("One fit against grids of penalties")
ax.grid(alpha=0.3)
ax.legend(loc="center left")
plt.show()
