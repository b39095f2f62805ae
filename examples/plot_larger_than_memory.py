"""
A year of ratings, month by month
=================================

Twelve files of ratings, one a month, in Parquet. A fit reads them as a stream, whatever the memory.
Then the same model is kept up to date as the months arrive, and fitted in parts that are merged.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import make_ratings

MONTHS, N_USERS, N_ITEMS = 12, 20_000, 300
folder = TemporaryDirectory()
X, y = make_ratings(
    600_000, N_USERS, N_ITEMS, user_exponent=1.5, user_shift=500, random_state=0, as_frame=True
)
rng = np.random.default_rng(0)
# Users come one after the other: a user has no ratings before the month of the first.
first = rng.integers(MONTHS, size=N_USERS)
month = np.maximum(first[X["user"]], rng.integers(MONTHS, size=len(X)))
ratings = pl.from_pandas(X).with_columns(rating=y.to_numpy(), month=month)
for of_month in ratings.partition_by("month"):
    name = f"{of_month['month'][0] + 1:02d}.parquet"
    of_month.drop("month").write_parquet(Path(folder.name) / name)
files = sorted(Path(folder.name).glob("*.parquet"))
size = sum(file.stat().st_size for file in files) / 2**20
print(f"{len(ratings):,} rows in {len(files)} files, {size:.0f} MB")

# %%
# A lazy frame is a query that nobody has asked for yet. ``fit`` asks for some rows at a time and
# keeps sums by level. The name of the response is enough: all other columns are features
# or grouping columns. ``store_covariance=True`` keeps the sums of a fit of any size.


def model(**parameters):
    """Two crossed factors."""
    return MacKayMixedRegressor(
        groups=["user", "item"], store_covariance=True, random_state=0, **parameters
    )


start = perf_counter()
whole = model().fit(pl.scan_parquet(Path(folder.name) / "*.parquet"), y="rating")
print(f"{perf_counter() - start:.1f} s, {whole.solver_} engine")
print({name: round(value, 4) for name, value in whole.variance_components_.items()})

# %%
# ``partial_fit`` takes the months as they arrive, with users that were never seen before. Each
# month is first predicted by the fit so far, then added to it. Beside it, a fit of the month before
# alone.


def rmse(fit, frame):
    """Error of the prediction."""
    prediction = fit.predict(frame.drop("rating"))
    return float(np.sqrt(np.mean((frame["rating"].to_numpy() - prediction) ** 2)))


so_far, errors, variances, iterations = model(), [], [], []
for k, file in enumerate(files):
    frame = pl.read_parquet(file)
    if k:
        alone = model().fit(pl.scan_parquet(files[k - 1]), y="rating")
        errors.append((rmse(so_far, frame), rmse(alone, frame)))
    so_far.partial_fit(frame.drop("rating"), frame["rating"])
    variances.append(so_far.variance_components_["user"])
    iterations.append(so_far.n_iter_)
print("iterations, month by month:", iterations)
difference = abs(so_far.log_likelihood_ - whole.log_likelihood_)
print(f"log-likelihood after the last month: {difference:.1e} from that of all rows at once")

# %%
# ``merge`` makes one fit of two. Here two halves of a year, which could come from two places that
# do not show each other their rows.

halves = [
    model().fit(pl.scan_parquet([str(file) for file in part]), y="rating")
    for part in (files[:6], files[6:])
]
merged = halves[0].merge(halves[1])
print({name: round(value, 4) for name, value in merged.variance_components_.items()})

# %%
# Left, the error in a month that is still to come. All months so far know more of a user than the
# last one alone. Right, the variance of the users as the year goes on, beside that of all rows.

fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained")
months = np.arange(1, MONTHS + 1)
for values, label, style in zip(
    np.transpose(errors), ("all months so far", "last month alone"), ("C0o-", "C1s--"), strict=True
):
    left.plot(months[1:], values, style, label=label)
left.set(xlabel="month predicted", ylabel="root mean squared error", title="Next month's ratings")
left.legend()
right.plot(months, variances, "C0o-")
right.axhline(whole.variance_components_["user"], color="0.4", ls=":", label="all rows at once")
right.set(xlabel="months so far", title="Variance of the users")
right.legend()
plt.show()
folder.cleanup()

# %%
# What stays of a month is a sum for each user, each item and each pair of these. A user with one
# rating is told by that sum, to whoever gets a fit that is sent elsewhere. So many users have one:

n_ratings = ratings.group_by("user").len()
print(f"{n_ratings.filter(pl.col('len') == 1).height} of {n_ratings.height}")
