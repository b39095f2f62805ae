"""
MacKay's quick and dirty method on the sleep study
==================================================

Lecture 9f of Hinton's course shows MacKay's "quick and dirty" way to set a penalty: fit, take the
variance of the fitted coefficients for their prior variance, fit again. An article ran it on lme4's
sleep study. It got an intercept variance of half of lme4's, and with correlated effects it broke
down. This script repeats the calculation, finds out why, and puts in the factor that is missing.
"""

from warnings import catch_warnings, filterwarnings, simplefilter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.linalg import eigh
from scipy.stats import chi2
from scipy.stats import f as f_distribution
from sklearn.exceptions import ConvergenceWarning

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy

X, y = load_sleepstudy(as_frame=True, return_X_y=True)
days = X["Days"].to_numpy(float)
codes = np.unique(X["Subject"], return_inverse=True)[1]
n_levels = codes.max() + 1

# %%
# The published loop
# ------------------
#
# Each of the 18 subjects has an intercept and a slope of its own. The columns below are one
# intercept and slope for all, then two columns for each subject. Given the variances, the fit is a
# ridge regression whose penalty spares the first two. The trace of its hat matrix is a sum with one
# term for each coefficient: 1 where nothing is penalised, less the more a coefficient is shrunken.

Z = np.zeros((len(y), n_levels, 2))
Z[np.arange(len(y)), codes] = np.column_stack([np.ones(len(y)), days])
A = np.column_stack([np.ones(len(y)), days, Z.reshape(len(y), -1)])
START = np.diag([410.0, 22.0]), y.var(ddof=1) / 4


def penalised_fit(V, sigma2):
    """Fixed effects, effects of the subjects, terms of the trace, and the next sigma2."""
    penalty = np.zeros((A.shape[1], A.shape[1]))
    penalty[2:, 2:] = np.kron(np.eye(n_levels), sigma2 * np.linalg.inv(V))
    to_coefficients = np.linalg.solve(A.T @ A + penalty, A.T)
    coefficients = to_coefficients @ y
    kept = np.sum(to_coefficients * A.T, axis=1)
    sse = np.sum((y - A @ coefficients) ** 2)
    return coefficients[:2], coefficients[2:].reshape(-1, 2), kept, sse / (len(y) - kept.sum())


V, sigma2 = START
for _ in range(100):
    _, b, _, sigma2 = penalised_fit(V, sigma2)
    V = np.diag(np.diag(np.cov(b, rowvar=False, ddof=1)))
beta, b, *_ = penalised_fit(V, sigma2)

# %%
# That is the whole method: equation (7) of the :doc:`theory page </theory>`, without correlation.
# ``method="quick"`` is the same update, kept because it was published. With ``tol=0`` it runs the
# hundred iterations of the article and reports, rightly, that it met no tolerance.

SLEEP_STUDY = {"groups": "Subject", "random_slopes": {"Subject": ["Days"]}}
INITIAL = {"Subject": START[0], "residual": START[1]}

published = MacKayMixedRegressor(
    method="quick",
    covariance="diagonal",
    initial_variances=INITIAL,
    max_iter=100,
    tol=0,
    **SLEEP_STUDY,
)
with catch_warnings():
    filterwarnings("ignore", "The variances did not converge in 100", ConvergenceWarning)
    published.fit(X, y)

effects = published.random_effects_["Subject"]
V_package = published.variance_components_["Subject"]
rows = {
    "variance, intercept": (302.9045408, V[0, 0], V_package[0, 0]),
    "variance, slope": (31.08902388, V[1, 1], V_package[1, 1]),
    "residual variance": (670.8547, sigma2, published.variance_components_["residual"]),
    "beta, intercept": (251.405105, beta[0], published.intercept_),
    "beta, Days": (10.467286, beta[1], published.coef_[0]),
    "effect of 308, intercept": (2.013963, b[0, 0], effects[0, 0]),
    "effect of 308, slope": (9.147986, b[0, 1], effects[0, 1]),
    "effect of 309, intercept": (-32.683526, b[1, 0], effects[1, 0]),
    "effect of 309, slope": (-9.633964, b[1, 1], effects[1, 1]),
}
comparison = pd.DataFrame(rows, index=["published", "loop above", "method='quick'"]).T
print(comparison.to_string(float_format="{:.8g}".format))

# %%
# Beside it the REML estimates, which are lme4's, with and without correlation. "Half" is true of
# one number: the intercept variance is 48 % of what REML finds for the same model (49 % of what it
# finds with correlation). The slope variance is 13 % too low (11 %), and the residual variance 3 %
# too high (2 %).

diagonal = MacKayMixedRegressor(covariance="diagonal", **SLEEP_STUDY).fit(X, y)
full = MacKayMixedRegressor(**SLEEP_STUDY).fit(X, y)


def variances(model):
    """Variances of intercept and slope, and the residual variance."""
    components = model.variance_components_
    return np.array([*np.diag(components["Subject"]), components["residual"]])


names = ["intercept", "slope", "residual"]
table = pd.DataFrame(
    {
        "quick": variances(published),
        "REML, diagonal": variances(diagonal),
        "quick / REML": variances(published) / variances(diagonal),
        "REML, correlated": variances(full),
        "quick / REML ": variances(published) / variances(full),
    },
    index=names,
)
print(table.round(3).to_string())

# %%
# Why it is too low
# -----------------
#
# Take the simplest layout: intercepts only, each level with :math:`m` rows, and :math:`\sigma^2`
# known. The mean of a level has the sampling variance :math:`v = \sigma^2 / m`, and the mean square
# :math:`S` of the level means estimates :math:`\tau^2 + v`. A fit with the prior variance :math:`t`
# keeps the share :math:`t / (t + v)` of each level's departure. Hence the method iterates
#
# .. math:: t \leftarrow S \, \frac{t^2}{(t + v)^2},
#    \qquad \text{at rest:} \quad S = t + 2 v + \frac{v^2}{t} .
#
# The right-hand side is never below :math:`4 v`. If :math:`S < 4 v` the only point of rest is zero.
# Else :math:`t = (S - 2 v + \sqrt{S^2 - 4 v S}) / 2`, which is :math:`v` at least; zero attracts
# there as well, everything that starts below :math:`v^2 / t`.
#
# REML's estimate is :math:`S - v`. The quick one is lower by :math:`v + v^2 / t` exactly: by
# :math:`2 v` where it just survives, and by :math:`v + v^2 / S + 2 v^3 / S^2 + \dots`, little more
# than :math:`v`, where the levels differ a lot. This bias does not go away with more levels, only
# with more rows in each. What REML puts at less than :math:`3 v` the quick method puts at zero.
#
# Where :math:`\sigma^2` is estimated too, some of what the levels lose goes into the residual,
# which makes :math:`v` larger. With :math:`L` levels, :math:`a = (L - 1) / (L (m - 1))`,
# :math:`x = t / v`, and :math:`v_0` the within-level mean square divided by :math:`m`, the point of
# rest obeys
#
# .. math:: \frac{S}{v_0} = \frac{(x + 1)^3}{x^2 + x - a}, \qquad
#    \frac{v}{v_0} = \frac{x^2 + x}{x^2 + x - a},
#
# and the smallest value of the first, at :math:`x = \sqrt{1 + 3 a}`, is the threshold. A known
# :math:`\sigma^2` is the case ``a = 0``.

N_LEVELS, N_ROWS, N_DATA_SETS, N_DRAWS = 60, 5, 40, 20_000
RATIOS = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])  # tau2 / v
A_ESTIMATED = (N_LEVELS - 1) / (N_LEVELS * (N_ROWS - 1))
rng = np.random.default_rng(0)


def threshold(a):
    """Smallest S / v_0 at which the quick variance is not zero."""
    x = np.sqrt(1 + 3 * a)
    return (x + 1) ** 3 / (x**2 + x - a)


def closed_form(ratio, a):
    """Quick variance t / v_0 that a ratio S / v_0 leads to."""
    x = np.geomspace(np.sqrt(1 + 3 * a), 1e3, 5_000)
    found = np.interp(ratio, (x + 1) ** 3 / (x**2 + x - a), x * (x**2 + x) / (x**2 + x - a))
    return np.where(ratio >= threshold(a), found, 0.0)


print(f"sigma2 known: zero below S = {threshold(0):.2f} v, REML estimate {threshold(0) - 1:.2f} v")
print(
    f"sigma2 estimated, m = {N_ROWS}: zero below S = {threshold(A_ESTIMATED):.2f} v, "
    f"REML estimate {threshold(A_ESTIMATED) - 1:.2f} v"
)

# %%
# A simulation with the package: 60 levels of five rows, 40 data sets for each ratio
# :math:`\tau^2 / v`, fitted together as columns of ``y``. The quick method warns whenever a
# variance vanishes. These warnings are counted; any other would end the script. Close to the
# threshold the method needs hundreds of iterations, so that ``max_iter`` is 5,000.

levels = np.repeat(np.arange(N_LEVELS), N_ROWS)
METHODS = {
    "REML": {"method": "reml"},
    "quick, sigma2 known": {"method": "quick", "fixed_variances": {"residual": 1.0}},
    "quick": {"method": "quick"},
}


def fit_all(Y, **options):
    """Variances t and sampling variances v (the true one is 1), and what it took to find them."""
    model = MacKayMixedRegressor(groups=[0], store_covariance=False, max_iter=5_000, **options)
    with catch_warnings(record=True) as record:
        simplefilter("error")
        filterwarnings("always", ".*collapsed to zero", ConvergenceWarning)
        model.fit(levels[:, None], Y)
    (name,) = model.groups_
    components = model.variance_components_
    t, v = N_ROWS * components[name], components["residual"]
    return t, v, len(record), max(model.n_iter_)


results, worst = [], 0.0
for ratio in RATIOS:
    noise = rng.normal(size=(len(levels), N_DATA_SETS))
    departures = np.sqrt(ratio / N_ROWS) * rng.normal(size=(N_LEVELS, N_DATA_SETS))
    Y = departures[levels] + noise
    S = N_ROWS * Y.reshape(N_LEVELS, N_ROWS, -1).mean(axis=1).var(axis=0, ddof=1)
    for name, options in METHODS.items():
        t, v, n_warnings, n_iter = fit_all(Y, **options)
        if name != "REML":
            assert n_warnings == np.sum(t == 0)
            alive = t > 0
            gap = np.abs(t + 2 * v + v**2 / np.where(alive, t, 1) - S)[alive]
            worst = max(worst, np.max(gap / S[alive], initial=0))
        error = t.std(ddof=1) / np.sqrt(N_DATA_SETS)
        results.append((ratio, name, t.mean(), error, np.mean(t == 0), n_iter))
simulated = pd.DataFrame(
    results, columns=["tau2 / v", "method", "mean", "error", "share of zeros", "iterations"]
)
for what in ("mean", "share of zeros"):
    print(f"\n{what}")
    print(simulated.pivot(index="tau2 / v", columns="method", values=what).round(2).to_string())
of_reml = simulated[simulated["method"] == "REML"]
off = ((of_reml["mean"] - of_reml["tau2 / v"]) / of_reml["error"]).abs().max()
print(f"\nREML's means are off by {off:.1f} standard errors at most")
print(f"most iterations: {simulated['iterations'].max()}")
print(f"S = t + 2 v + v^2 / t holds in every fit that survives, to {worst:.0e} of S")

# %%
# The curves are the closed forms, averaged over the sampling distributions of the mean squares;
# the points are the package's fits. By the curves, of variances that are truly :math:`3 v` 52 %
# vanish where :math:`\sigma^2` is known, and 71 % where it is estimated. The means of
# REML's estimates are within two standard errors of the truth.

draws = {"levels": rng.chisquare(N_LEVELS - 1, N_DRAWS) / (N_LEVELS - 1)}
draws["rows"] = rng.chisquare(N_LEVELS * (N_ROWS - 1), N_DRAWS) / (N_LEVELS * (N_ROWS - 1))
grid = np.linspace(0.25, 8.5, 50)
dof = N_LEVELS - 1, N_LEVELS * (N_ROWS - 1)
curves = {
    "quick, sigma2 known": (
        [closed_form((1 + r) * draws["levels"], 0).mean() for r in grid],
        chi2.cdf(dof[0] * threshold(0) / (1 + grid), dof[0]),
    ),
    "quick": (
        [
            np.mean(
                draws["rows"] * closed_form((1 + r) * draws["levels"] / draws["rows"], A_ESTIMATED)
            )
            for r in grid
        ],
        f_distribution.cdf(threshold(A_ESTIMATED) / (1 + grid), *dof),
    ),
}
STYLES = {
    "REML": ("C0", "o", ":"),
    "quick, sigma2 known": ("C2", "^", "--"),
    "quick": ("C1", "s", "-"),
}

fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
left.plot(grid, grid, color="0.6", lw=1, label="the truth")
for name, (colour, marker, line) in STYLES.items():
    of_method = simulated[simulated["method"] == name]
    if name in curves:
        for ax, curve in zip((left, right), curves[name], strict=True):
            ax.plot(grid, curve, color=colour, ls=line, lw=1.5)
    left.errorbar(
        of_method["tau2 / v"], of_method["mean"], 2 * of_method["error"],
        fmt=marker, color=colour, ms=5, capsize=2, label=name,
    )  # fmt: skip
    right.plot(of_method["tau2 / v"], of_method["share of zeros"], marker, color=colour, ms=5)
left.set(ylabel="estimate / v, mean and 2 standard errors", title="Mean of the estimates")
left.legend()
right.set(ylabel="share of estimates that are zero", title="Zeros", ylim=(-0.04, 1.04))
right.axvline(3.0, color="0.6", lw=1)
right.text(3.1, 0.93, "three times v", color="0.35")
for ax in (left, right):
    ax.set_xlabel("true variance / v")
plt.show()

# %%
# Why correlated effects break down
# ---------------------------------
#
# With a full covariance the loop takes ``V = cov(b)``. The sampling variance is now a matrix, the
# covariance :math:`\Omega = \sigma^2 (Z_j' Z_j)^{-1}` of the least squares line of one subject, the
# same for all since all were measured on the same days. Let :math:`S` be the covariance of the 18
# separate lines. The loop can rest at an invertible :math:`V` only where
#
# .. math:: S = V + 2 \Omega + \Omega V^{-1} \Omega,
#
# the equation above in matrices. The coordinates in which it falls apart are those in which
# :math:`\Omega` is the identity: there :math:`S` and :math:`V` have the same eigenvectors, each
# eigenvalue obeys :math:`s = t + 2 + 1 / t`, and every :math:`s` must be at least 4. The sizes that
# meet the threshold are therefore not the eigenvalues of the matrices themselves, but the
# generalised ones, :math:`S w = s \, \Omega w`. REML's estimate is :math:`S - \Omega`, with the
# eigenvalues :math:`s - 1`.

ZtZ_inverse = np.linalg.inv(Z[codes == 0, 0].T @ Z[codes == 0, 0])
lines = np.array(
    [np.linalg.lstsq(Z[codes == j, j], y[codes == j], rcond=None)[0] for j in range(n_levels)]
)
S = np.cov(lines, rowvar=False)
Omega = full.variance_components_["residual"] * ZtZ_inverse
REML = full.variance_components_["Subject"]


def relative_to(Omega, matrix):
    """Generalised eigenvalues, the weak direction first."""
    return eigh(matrix, Omega, eigvals_only=True)


def correlation(V):
    return V[0, 1] / np.sqrt(V[0, 0] * V[1, 1])


print("S - Omega\n", (S - Omega).round(2))
print("REML\n", REML.round(2))
print("correlation of intercept and slope in Omega:", correlation(Omega).round(2))
print("eigenvalues relative to Omega of S:   ", relative_to(Omega, S).round(2))
print("                              of REML:", relative_to(Omega, REML).round(2))

# %%
# The weak direction has 1.7 where 3 are needed, so it must go. Once its eigenvalue :math:`t` is
# small, a step makes it :math:`s t^2`: it falls faster and faster. The script stops when rounding
# takes over. Beyond, the inverse of ``V`` is noise, and in the end ``numpy.linalg.inv`` finds the
# matrix singular.

ROUNDING = 1e-13  # relative to the other eigenvalue: what double precision can tell from zero

(V, sigma2), path = START, []
while True:
    weak, strong = relative_to(sigma2 * ZtZ_inverse, V)
    path.append((weak, strong, correlation(V), sigma2))
    if weak < ROUNDING * strong:
        break
    _, b, _, sigma2 = penalised_fit(V, sigma2)
    V = np.cov(b, rowvar=False, ddof=1)
path = pd.DataFrame(path, columns=["weak", "strong", "correlation", "sigma2"])
print(path.to_string(float_format="{:.6g}".format))

# %%
# After eight steps the correlation is 1 to rounding, while REML has 0.07. The package computes with
# roots of the variances, which need no inverse: it passes through the collapse, comes to rest at a
# singular covariance and says which combination of the effects it lost. Where the lost direction
# points depends on the start, because a singular ``V`` keeps its direction.

with catch_warnings(record=True) as record:
    simplefilter("error")
    filterwarnings("always", ".*collapsed to zero", ConvergenceWarning)
    quick = MacKayMixedRegressor(method="quick", initial_variances=INITIAL, **SLEEP_STUDY)
    quick.fit(X, y)
(warning,) = record
print(warning.message)
print(quick.variance_components_["Subject"].round(2), "singular:", quick.singular_)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
left.semilogy(path["strong"], "C0s-", ms=5, label="strong direction")
left.semilogy(path["weak"], "C1o-", ms=5, label="weak direction")
for value, colour in zip(relative_to(Omega, REML), ("C1", "C0"), strict=True):
    left.axhline(value, color=colour, ls=":", lw=1.5)
left.plot([], [], "0.4", ls=":", label="REML, weak and strong")
left.set(
    xlabel="step",
    ylabel=r"eigenvalue relative to $\Omega$",
    title="The two directions of the covariance",
)
left.legend(loc="lower left")
right.plot(path["correlation"], "kD-", ms=4)
right.axhline(correlation(REML), color="0.4", ls=":", lw=1.5)
right.text(len(path) - 1, correlation(REML) + 0.03, "REML", ha="right", color="0.3")
right.set(xlabel="step", ylabel="correlation", title="Correlation of intercept and slope")
plt.show()

# %%
# The factor that is missing
# --------------------------
#
# The article asks for "a data-driven way to scale up" the variances. MacKay had one. His update
# divides the sum of squares not by the number of levels, but by the effective number of parameters
# :math:`\gamma`, to which a coefficient adds as much as the data determine it: equation (5) of the
# :doc:`theory page </theory>`. The quick variance times :math:`(L - 1) / \gamma` is MacKay's; in
# the one-way layout the factor is :math:`(t + v) / t`. The loop above has :math:`\gamma` at hand,
# as the terms of the trace that belong to the effects. One line changes:

V, sigma2 = START
for _ in range(100):
    _, b, kept, sigma2 = penalised_fit(V, sigma2)
    gamma = kept[2:].reshape(-1, 2).sum(axis=0)
    V = np.diag(np.sum(b**2, axis=0) / gamma)

print("quick           ", variances(published).round(3))
print("divided by gamma", np.array([*np.diag(V), sigma2]).round(3))
print("REML, diagonal  ", variances(diagonal).round(3))

kept = penalised_fit(V_package, published.variance_components_["residual"])[2]
gammas = {"where the quick loop rests": kept[2:].reshape(-1, 2).sum(axis=0), "at REML": gamma}
for where, values in gammas.items():
    print(f"{where}: gamma", values.round(2), " factor", ((n_levels - 1) / values).round(2))

# %%
# Where the published loop rests, the intercept variance lacks the factor 1.65 and the slope
# variance 1.18. Setting the derivative of the REML likelihood to zero gives MacKay's equations, and
# so his update ends at lme4's answer.
#
# The half is thereby explained. By :math:`t / v = \gamma / (L - 1 - \gamma)` the REML variances can
# be read as multiples of a sampling variance :math:`v`. The intercepts' is 3.2, just above the
# threshold of 3, and there the closed form loses a half. For the slopes it predicts 0.78 of REML,
# where the loop has 0.87. It is made for one coefficient, and does not know that the slopes are
# better determined once the intercepts are drawn in: their :math:`v` falls from 6.4 to 5.6.

multiples = gamma / (n_levels - 1 - gamma)
at_rest = gammas["where the quick loop rests"]
v_at_rest = np.diag(V_package) * (n_levels - 1 - at_rest) / at_rest
print("v at REML                    ", (np.diag(V) / multiples).round(1))
print("v where the quick loop rests ", v_at_rest.round(1))
print("REML variance / v            ", multiples.round(2))
print("quick / REML, closed form    ", (closed_form(multiples + 1, 0) / multiples).round(2))
print("quick / REML, published loop ", (variances(published) / variances(diagonal))[:2].round(2))

# %%
# Correlated effects have no single :math:`\gamma`: each direction asks for a factor of its own.
# ``method="mackay"`` takes equation (5) in the matrix form that the theory page gives with equation
# (6), which stays positive semi-definite. From the start of the published loop:

mackay = MacKayMixedRegressor(method="mackay", initial_variances=INITIAL, **SLEEP_STUDY).fit(X, y)
rows = {}
for name, model in {"quick": quick, "mackay": mackay, "REML": full}.items():
    Sigma = model.variance_components_["Subject"]
    rows[name] = (*variances(model), correlation(Sigma), model.n_iter_, -2 * model.log_likelihood_)
columns = [*names, "correlation", "iterations", "REML criterion"]
print(pd.DataFrame(rows, index=columns).T.round(4).to_string())

of_mackay = relative_to(Omega, mackay.variance_components_["Subject"])
print("eigenvalues t relative to Omega:", of_mackay.round(3))
print("factor (t + 1) / t:             ", (1 + 1 / of_mackay).round(3))

# %%
# The weak direction asks for 1.59, the strong one for 1.04. ``history_`` holds the variances of all
# iterations: on MacKay's path the weak direction settles where REML has it.


def directions(iteration):
    """Variances of intercept and slope, and the weaker eigenvalue relative to Omega."""
    Sigma = iteration["variances"]["Subject"]
    sampling = iteration["variances"]["residual"] * ZtZ_inverse
    return (*np.diag(Sigma), relative_to(sampling, Sigma)[0])


ends = directions(full.history_[-1])
titles = ("intercept variance", "slope variance", r"weak direction, relative to $\Omega$")
fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.6), layout="constrained")
for model, style in ((mackay, "C0o-"), (quick, "C1s--")):
    walked = np.array([directions(iteration) for iteration in model.history_])
    for ax, values in zip(axes, walked.T, strict=True):
        ax.semilogy(values, style, ms=4, label=model.method)
for ax, end, title in zip(axes, ends, titles, strict=True):
    ax.axhline(end, color="k", ls=":", lw=1.2, label="REML, lme4", zorder=0)
    ax.set(xlabel="iteration", title=title)
for ax, ticks in zip(axes, ([250, 300, 400, 500, 600], [22, 25, 30, 35]), strict=False):
    ax.set_yticks(ticks, ticks)
    ax.minorticks_off()
axes[2].set_ylim(bottom=ROUNDING)
axes[0].legend()
plt.show()
