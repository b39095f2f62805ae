"""
Learning curves of EM, MM, MacKay and average information
=========================================================

Four iterations lead to the same REML estimate: EM, MM (2019), MacKay's evidence update, and the
average information that the package uses by default. This script draws how fast each one comes
down, and shows that for the first three the speed depends on one number, the share of its own
departure that a level keeps.
"""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.linalg import block_diag, sqrtm

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy

# %%
# The updates
# -----------
#
# The package has MacKay's update, equation (5) of the :doc:`theory page </theory>`, as
# ``method="mackay"``, and average information, equations (8) and (9), as ``method="reml"``. Both
# keep their paths in ``history_``. EM and MM are not in the package as methods; here they are with
# dense matrices. They look at the sum of squares of the effects :math:`U = \sum_j b_j b_j'`, the
# sum :math:`T` of the effects' error covariances, and
# :math:`N = L \Sigma^{-1} - \Sigma^{-1} T \Sigma^{-1}`.


class Look(NamedTuple):
    """What the updates need to know at the present Sigma and sigma2."""

    Sigma: np.ndarray
    sigma2: float
    U: np.ndarray
    T: np.ndarray
    N: np.ndarray
    gamma: float
    sse: float
    deviance: float


class Data(NamedTuple):
    """Columns of the fixed part, then those of each level, and the response."""

    A: np.ndarray
    y: np.ndarray
    n_fixed: int
    n_levels: int


def look(data, Sigma, sigma2):
    A, y, p, L = data
    s, n = len(Sigma), len(y)
    Sigma_inverse = np.linalg.inv(Sigma)
    K = A.T @ A / sigma2 + block_diag(np.zeros((p, p)), np.kron(np.eye(L), Sigma_inverse))
    C = np.linalg.inv(K)
    coefficients = C @ (A.T @ y) / sigma2
    b = coefficients[p:].reshape(L, s)
    U = b.T @ b
    T = np.einsum("jajb->ab", C[p:, p:].reshape(L, s, L, s))
    gamma = L * s - np.trace(Sigma_inverse @ T)
    sse = np.sum((y - A @ coefficients) ** 2)
    log_dets = L * np.linalg.slogdet(Sigma)[1] + np.linalg.slogdet(K)[1] + n * np.log(sigma2)
    quadratic = sse / sigma2 + np.sum(Sigma_inverse * U)
    deviance = (n - p) * np.log(2 * np.pi) + log_dets + quadratic
    N = L * Sigma_inverse - Sigma_inverse @ T @ Sigma_inverse
    return Look(Sigma, sigma2, U, T, N, gamma, sse, deviance)


def em(at, data):
    """The unknown sums of squares are replaced by what they are on average, given y."""
    n, p = len(data.y), data.n_fixed
    return (at.U + at.T) / data.n_levels, (at.sse + at.sigma2 * (p + at.gamma)) / n


def mm(at, data):
    """Equation (6) of the theory page: M N M = U, and half of MacKay's step in log sigma2."""
    root = np.real(sqrtm(at.N))
    inverse_root = np.linalg.inv(root)
    M = inverse_root @ np.real(sqrtm(root @ at.U @ root)) @ inverse_root
    target = at.sse / (len(data.y) - data.n_fixed - at.gamma)
    return M, np.sqrt(at.sigma2 * target)


def iterate(update, data, Sigma, sigma2, n_iterations, *, hold_sigma2=False):
    """Looks along the path of an update."""
    path = [look(data, Sigma, sigma2)]
    for _ in range(n_iterations):
        Sigma, moved = update(path[-1], data)
        sigma2 = sigma2 if hold_sigma2 else moved
        path.append(look(data, Sigma, sigma2))
    return path


# %%
# Two problems
# ------------
#
# The sleep study with correlated intercepts and slopes, and a balanced one-way layout whose
# variance ratio is small. In the latter, :math:`v = \sigma^2 / m` is the sampling variance of the
# mean of a level, and all depends on :math:`r = \tau^2 / (\tau^2 + v)`, the share of its departure
# that a level keeps. We make data whose mean squares are exactly those of a given :math:`r`, with
# :math:`\sigma^2 = 1`, so that the REML estimate is known.

N_LEVELS, N_ROWS = 50, 5


def tau2_of(r):
    return r / (1 - r) / N_ROWS


def one_way(r):
    """Levels and response of 50 levels of 5 rows, with REML estimates tau2_of(r) and 1."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=N_LEVELS)
    means = (means - means.mean()) * np.sqrt((tau2_of(r) + 1 / N_ROWS) / means.var(ddof=1))
    rows = rng.normal(size=(N_LEVELS, N_ROWS))
    rows -= rows.mean(axis=1, keepdims=True)
    rows *= np.sqrt(N_LEVELS * (N_ROWS - 1) / np.sum(rows**2))
    return np.repeat(np.arange(N_LEVELS), N_ROWS), (means[:, None] + rows).ravel()


def columns(codes, *by_level):
    """Fixed columns, then the same for each level."""
    B = np.column_stack([np.ones(len(codes)), *by_level])
    Z = np.zeros((len(codes), codes.max() + 1, B.shape[1]))
    Z[np.arange(len(codes)), codes] = B
    return np.hstack([B, Z.reshape(len(codes), -1)])


X, reaction = load_sleepstudy(as_frame=True, return_X_y=True)
subjects = np.unique(X["Subject"], return_inverse=True)[1]
levels, response = one_way(0.1)

# The starts are far off on purpose: a tenth of the right covariances beside five times the right
# sigma2, and twenty times the right variance beside half of the right sigma2.
PROBLEMS = {
    "sleep study": {
        "data": Data(columns(subjects, X["Days"]), reaction.to_numpy(), 2, subjects.max() + 1),
        "start": {"Subject": np.diag([60.0, 3.0]), "residual": 3000.0},
        "model": {"groups": "Subject", "random_slopes": {"Subject": ["Days"]}},
        "table": X,
        "n_iterations": 40,
    },
    "one-way layout, r = 0.1": {
        "data": Data(columns(levels), response, 1, N_LEVELS),
        "start": {"level": np.array([[0.5]]), "residual": 0.5},
        "model": {"groups": "level"},
        "table": pd.DataFrame({"level": levels}),
        "n_iterations": 150,
    },
}


def learning_curves(data, start, model, table, n_iterations):
    """Deviance above the optimum at each iteration, by update."""
    paths = {}
    optimum = MacKayMixedRegressor(**model).fit(table, data.y)
    for name, update in {"EM": em, "MM": mm}.items():
        path = iterate(update, data, *start.values(), n_iterations)
        paths[name] = np.array([at.deviance for at in path]) + 2 * optimum.log_likelihood_
    # The package's history counts from a constant of its own: only differences can be compared.
    lowest = None
    for name, method in {"average information": "reml", "MacKay": "mackay"}.items():
        fit = MacKayMixedRegressor(method=method, initial_variances=start, **model)
        path = [iteration["deviance"] for iteration in fit.fit(table, data.y).history_]
        lowest = path[-1] if lowest is None else lowest
        paths[name] = np.array(path) - lowest
    return {name: paths[name] for name in ("EM", "MM", "MacKay", "average information")}


def first_below(curve, level):
    """The first iteration within `level` of the optimum."""
    return int(np.argmax(curve < level)) if np.any(curve < level) else f"> {len(curve) - 1}"


curves = {name: learning_curves(**problem) for name, problem in PROBLEMS.items()}
for name, of_problem in curves.items():
    counts = {
        update: [first_below(curve, level) for level in (1.0, 1e-2, 1e-4, 1e-8)]
        for update, curve in of_problem.items()
    }
    print(f"{name}: iterations until the deviance is within this much of the optimum")
    print(pd.DataFrame(counts, index=["1", "1e-2", "1e-4", "1e-8"]).T.to_string(), "\n")

# %%
# Average information needs 8 and 6 iterations to 1e-8, and squares the error in the last ones. It
# begins with one step of MacKay's, and its start is a little lower since it finds the best common
# multiple of all variances first. MacKay's update takes about half as many iterations as MM. Each
# of them solves the penalised equations once in an iteration. A step of average information costs a
# few products more, and where it does not lower the deviance it is shortened, at one more solution.

STYLES = {
    "EM": ("C3", ":", "v"),
    "MM": ("C2", "-.", "^"),
    "MacKay": ("C0", "--", "o"),
    "average information": ("k", "-", "s"),
}

ROUNDING = 1e-12  # of the deviance; below it differences mean nothing

fig, axes = plt.subplots(1, 2, figsize=(9.2, 4.2), layout="constrained", sharey=True)
for ax, (problem, of_problem) in zip(axes, curves.items(), strict=True):
    for update, curve in of_problem.items():
        colour, line, marker = STYLES[update]
        every = PROBLEMS[problem]["n_iterations"] // 20
        ax.semilogy(
            np.maximum(curve, ROUNDING), color=colour, ls=line, marker=marker, ms=4,
            markevery=1 if update == "average information" else every, label=update,
        )  # fmt: skip
    ax.set(title=problem, xlabel="iteration", ylim=(1e-9, 300.0))
    ax.set_xlim(-1, PROBLEMS[problem]["n_iterations"])
axes[0].set_ylabel("deviance above the optimum")
axes[1].legend(loc="upper right")
plt.show()

# %%
# The plateau of the sleep study at a deviance of 6 is the weak direction of
# :doc:`plot_quick_and_dirty`. It starts at 4 % of the sampling variance of a subject's own line,
# where levels keep next to nothing of their departure, so that an update sees little of what it
# should enlarge. Once the direction has grown all updates are fast; on the last stretch EM is
# faster than MM.
#
# The rates, from theory
# ----------------------
#
# In the balanced one-way layout the updates are functions of one number. With :math:`S` the mean
# square of the level means they are, for a known :math:`\sigma^2`,
#
# .. math::
#
#    \text{MacKay:} \; t \leftarrow \frac{S \, t}{t + v}, \qquad
#    \text{MM:} \; t \leftarrow t \sqrt{\frac{S}{t + v}}, \qquad
#    \text{EM:} \; t \leftarrow t + \frac{L - 1}{L} \Bigl( \frac{S \, t^2}{(t + v)^2}
#    - \frac{t^2}{t + v} \Bigr) .
#
# Their derivatives at the optimum :math:`t = \tau^2 = S - v` are the rates by which the error
# shrinks in an iteration: :math:`1 - r`, :math:`1 - r / 2` and :math:`1 - r^2 (L - 1) / L`, which
# is the textbook's :math:`1 - r^2` when there are many levels. For small :math:`r` EM needs
# :math:`1 / r` times as many iterations as MacKay, and MM twice as many. Above :math:`r = 1/2`,
# where there are many levels, EM is faster than MM.
#
# With :math:`\sigma^2` estimated in the same iterations all three are slower. MacKay's rate is then
# :math:`(1 - r) (1 + c r)` with :math:`c = (L - 1) / (L (m - 1) + (L - 1) (1 - r))`, which is about
# :math:`1 / (m - r)`, and MM's is the mean of that and 1; for EM there is no formula here.
#
# The table measures both cases, from starts 0.1 % above the optimum, as the ratio of two successive
# errors of :math:`\tau^2` when they are small. They agree with theory to four digits but for MM at
# :math:`r = 0.9`: there the error of :math:`\sigma^2`, which MM halves in each step, is still mixed
# in.

NEAR, SMALL = 1.001, 1e-7  # relative errors: where the paths start and where the ratio is taken
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def measured_rate(variances, optimum):
    """Ratio of the last two errors that are not rounding."""
    errors = np.abs(np.array(variances) - optimum) / optimum
    last = np.flatnonzero(errors > SMALL)[-1]
    return errors[last] / errors[last - 1]


def package_path(levels, y, start, **options):
    """Variances on MacKay's path."""
    model = MacKayMixedRegressor(
        groups=[0], method="mackay", initial_variances=start, max_iter=1_000, tol=1e-9, **options
    ).fit(levels[:, None], y)
    steps = [it for it in model.history_ if it["step"] in ("start", "mackay")]
    return [it["variances"]["x0"] for it in steps]


def rates(r, *, known):
    """Measured and theoretical rates of the three updates."""
    levels, y = one_way(r)
    data, optimum = Data(columns(levels), y, 1, N_LEVELS), tau2_of(r)
    held = {"fixed_variances": {"residual": 1.0}} if known else {}
    mackay = package_path(levels, y, {"x0": NEAR * optimum, "residual": 1.0}, **held)
    paths = {
        name: [
            at.Sigma[0, 0]
            for at in iterate(
                update, data, np.array([[NEAR * optimum]]), 1.0, 400, hold_sigma2=known
            )
        ]
        for name, update in {"EM": em, "MM": mm}.items()
    }
    c = 0 if known else (N_LEVELS - 1) / (N_LEVELS * (N_ROWS - 1) + (N_LEVELS - 1) * (1 - r))
    of_mackay = (1 - r) * (1 + c * r)
    theory = {
        "MacKay": of_mackay,
        "MM": (1 + of_mackay) / 2,
        "EM": 1 - r**2 * (N_LEVELS - 1) / N_LEVELS if known else np.nan,
    }
    paths["MacKay"] = mackay
    return {name: (measured_rate(paths[name], optimum), theory[name]) for name in theory}


rows = {
    (r, "known" if known else "estimated", name): values
    for r in SHARES
    for known in (True, False)
    for name, values in rates(r, known=known).items()
}
table = pd.DataFrame(rows, index=["measured", "theory"]).T
table.index.names = ["r", "sigma2", "update"]
print(table.unstack("update").round(4).to_string(na_rep=""))

# %%
# Read as iterations for each further decimal digit, with :math:`\sigma^2` known: lines are theory,
# points the measured rates. Where levels keep a tenth of their departure a digit costs MacKay 22
# iterations, MM 45 and EM 234. Average information has no place here: its digits double.

shares = np.linspace(0.05, 0.95, 100)
THEORY = {
    "EM": 1 - shares**2 * (N_LEVELS - 1) / N_LEVELS,
    "MM": 1 - shares / 2,
    "MacKay": 1 - shares,
}

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
for update, rate in THEORY.items():
    colour, line, marker = STYLES[update]
    measured = table.xs(("known", update), level=("sigma2", "update"))["measured"]
    ax.semilogy(shares, -1 / np.log10(rate), color=colour, ls=line)
    ax.semilogy(measured.index, -1 / np.log10(measured), marker, color=colour)
    ax.plot([], [], color=colour, ls=line, marker=marker, label=update)
ticks = [1, 3, 10, 30, 100, 300, 1000]
ax.set_yticks(ticks, ticks)
ax.set(xlabel="r, share of its departure that a level keeps", ylabel="iterations for a digit")
ax.legend()
plt.show()
