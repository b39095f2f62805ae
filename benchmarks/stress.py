"""Fit random hard problems and hold each answer against the best of many optimisations.

A problem combines at random what is known to break programs: crossed, nested, disconnected and
unbalanced factors, levels with one row, correlated slopes, variances that are zero, tiny, enormous
or singular, units from 1e-150 to 1e150, offsets up to 1e12, duplicate columns, outliers, weights,
labels of every kind. The reference is lme4's profiled deviance by dense orthogonal factorisations,
minimised by L-BFGS-B from several starts, and once more from the answer that is judged.

    python benchmarks/stress.py --problems 400 --peer-python .venv-peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import linalg, optimize

from sklearn_mackay import MacKayMixedRegressor

Array = np.ndarray

LOSS = 1e-6  # deviance above the reference that is an answer beside the optimum
LARGE_LOSS = 1e-2  # the same where it matters to anybody
PEERS = ("glmm", "statsmodels")
OUTCOMES = ("right", "near", "wrong", "not converged", "exception", "cannot be expressed")
N_STARTS = 3
FULL = 0.9  # of the rows: so many effects and coefficients may there be
STRUCTURES = ("one", "crossed", "three crossed", "nested", "nested labelled apart", "islands")
VARIANCES = ("moderate", "zero", "tiny", "large", "enormous", "singular")
SCALES = (-498, -60, 0, 0, 0, 0, 60, 498)  # powers of two, up to about 1e150
LABELS = ("int", "str", "float", "category", "large int")


@dataclass
class Problem:
    """Rows of a mixed model in moderate units, and its deviance.

    Attributes
    ----------
    Z : list of ndarray of shape (n, L, s)
        Columns of each factor's levels and coefficients.
    X, y, weights : ndarray of shape (n, p), (n,), (n,)
        Fixed part, response, precision weights.
    diagonal, reml : bool
        Whether coefficients are uncorrelated; which criterion.
    """

    Z: list[Array]
    X: Array
    y: Array
    weights: Array
    diagonal: bool
    reml: bool

    @property
    def dof(self) -> int:
        """What the residual variance divides by."""
        return len(self.y) - self.reml * self.X.shape[1]

    @property
    def masks(self) -> list[Array]:
        """Entries of the Cholesky factors that are free."""
        sizes = [Z.shape[2] for Z in self.Z]
        return [np.eye(s, dtype=bool) if self.diagonal else np.tri(s, dtype=bool) for s in sizes]

    def solve(self, T: list[Array]) -> tuple[float, float, list[Array], list[Array]]:
        """Return log|K|, the penalised residual sum of squares, and their derivatives in T.

        ``M'M = K`` with ``M = [ZT X; I 0]``; neither is a difference of large numbers.
        """
        root = np.sqrt(self.weights)
        n = len(root)
        Zw = [Z * root[:, None, None] for Z in self.Z]
        A = np.hstack([(Z @ t).reshape(n, -1) for Z, t in zip(Zw, T, strict=True)])
        q = A.shape[1]
        X, y = self.X * root[:, None], self.y * root
        M = np.vstack([np.hstack([A, X]), np.eye(q, q + X.shape[1])])
        Q, R = linalg.qr(M, mode="economic", check_finite=False)
        rhs = np.concatenate([y, np.zeros(q)])
        solution = linalg.solve_triangular(R, Q.T @ rhs, check_finite=False)
        residual = rhs - M @ solution
        if not self.reml:
            Q, R = linalg.qr(M[:, :q], mode="economic", check_finite=False)
        log_det = 2.0 * float(np.sum(np.log(np.abs(np.diag(R)))))
        inverse = linalg.solve_triangular(R, Q[:n].T, check_finite=False)[:q].T
        ends = np.cumsum([Z.shape[1] * Z.shape[2] for Z in self.Z])[:-1]
        slopes, changes = [], []
        for Z, g, u in zip(
            Zw, np.split(inverse, ends, axis=1), np.split(solution[:q], ends), strict=True
        ):
            slopes.append(2 * np.einsum("nla,nlb->ab", Z, g.reshape(Z.shape)))
            moved = np.einsum("nla,n->la", Z, residual[:n])
            changes.append(-2 * moved.T @ u.reshape(Z.shape[1:]))
        return log_det, float(residual @ residual), slopes, changes

    def deviance(self, sigma2: float, Sigma: list[Array]) -> float:
        """Return -2 log-likelihood, with lme4's constants."""
        if not sigma2 > 0:
            return np.inf
        log_det, squares, *_ = self.solve([square_root(S / sigma2) for S in Sigma])
        constant = self.dof * np.log(2 * np.pi * sigma2) - np.sum(np.log(self.weights))
        return float(constant + log_det + squares / sigma2)

    def profiled(self, theta: Array) -> tuple[float, Array]:
        """Return the deviance at its best residual variance, and its gradient in theta."""
        masks = self.masks
        T = [np.zeros(mask.shape) for mask in masks]
        ends = np.cumsum([np.count_nonzero(mask) for mask in masks])
        for t, mask, values in zip(T, masks, np.split(theta, ends[:-1]), strict=True):
            t[mask] = values
        log_det, squares, slopes, changes = self.solve(T)
        dof = self.dof
        value = dof * (1 + np.log(2 * np.pi * squares / dof)) + log_det
        gradient = [
            (slope + dof / squares * change)[mask]
            for slope, change, mask in zip(slopes, changes, masks, strict=True)
        ]
        return float(value - np.sum(np.log(self.weights))), np.concatenate(gradient)

    def least_deviance(
        self, rng: np.random.Generator, near: tuple[float, list[Array]] | None
    ) -> float:
        """Return the least deviance that is found from random starts, and beside an answer."""
        starts = []
        for size in 10.0 ** rng.uniform(-2, 3, size=N_STARTS):
            T = [
                size * (np.eye(len(mask)) + 0.3 * rng.normal(size=mask.shape))
                for mask in self.masks
            ]
            starts.append(T)
        if near is not None and near[0] > 0:
            # At a zero of a factor every derivative vanishes: the start is a little beside it.
            starts.append(
                [
                    np.linalg.cholesky(
                        S / near[0] + (1e-4 + 1e-9 * np.trace(S) / near[0]) * np.eye(len(S))
                    )
                    for S in near[1]
                ]
            )
        results = [
            optimize.minimize(
                self.profiled,
                np.concatenate([t[mask] for t, mask in zip(T, self.masks, strict=True)]),
                jac=True,
                method="L-BFGS-B",
                options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 500},
            )
            for T in starts
        ]
        return min(float(result.fun) for result in results)


def square_root(S: Array) -> Array:
    """Return a matrix T with ``TT' = S``, for a positive semi-definite S."""
    values, vectors = np.linalg.eigh(S)
    return vectors * np.sqrt(np.maximum(values, 0.0))


@dataclass
class Task:
    """A problem as a user would give it, and what its coordinates are.

    Attributes
    ----------
    traits : list of str
        What makes it hard.
    frame : DataFrame
        Features and grouping columns.
    y, weights : ndarray of shape (n,)
        Response and precision weights.
    groups : list of str or tuple of str
        Grouping factors.
    slopes : dict of str to list of str
        Random slopes.
    covariance, method : str
        Parameters of the same names.
    scale, offset : float
        ``y`` is `offset` plus `scale` times the response of `problem`.
    column_scales : ndarray of shape (p,)
        The features are these times the columns of `problem`, without its intercept.
    problem : Problem
        The rows in moderate units.
    """

    traits: list[str]
    frame: pd.DataFrame
    y: Array
    weights: Array
    groups: list[Any]
    slopes: dict[str, list[str]]
    covariance: str
    method: str
    scale: float
    offset: float
    column_scales: Array
    problem: Problem

    @property
    def shift(self) -> float:
        """What the units add to the deviance of `problem`."""
        reml = self.method == "reml"
        shift = 2 * (len(self.y) - reml * self.problem.X.shape[1]) * np.log(self.scale)
        return float(shift + 2 * reml * np.sum(np.log(self.column_scales)))

    def rounding(self, sigma2: float) -> float:
        """Error of a deviance from cross-products, whose rounding is that of ``y'Wy``."""
        y, weights = self.problem.y, self.problem.weights
        return 1e-14 * float(weights @ (y - y.mean()) ** 2) / sigma2


@dataclass
class Verdict:
    """What came of a fit.

    Attributes
    ----------
    outcome : str
        One of OUTCOMES; "near" and "wrong" are said to have converged.
    loss : float or None
        Deviance above the reference.
    detail : str
        What was wrong.
    """

    outcome: str
    loss: float | None = None
    detail: str = ""


def random_codes(rng: np.random.Generator, n: int, n_levels: int, kind: str) -> Array:
    """Draw levels of rows, each level at least once: evenly, by Zipf's law, or mostly single."""
    if kind == "single rows":
        n_levels = min(n - 1, max(n_levels, (2 * n) // 3))
    shares = 1.0 / np.arange(1, n_levels + 1) ** (2.0 if kind == "Zipf" else 0.0)
    rest = rng.choice(n_levels, size=n - n_levels, p=shares / shares.sum())
    return rng.permutation(np.concatenate([np.arange(n_levels), rest]))


def draw_codes(rng: np.random.Generator, n: int, structure: str, balance: str) -> list[Array]:
    """Draw the levels of all factors."""
    n_levels = int(rng.integers(2, 16))
    first = random_codes(rng, n, n_levels, balance)
    if structure == "one":
        return [first]
    if structure in ("crossed", "three crossed"):
        sizes = rng.integers(2, 9, size=2 if structure == "three crossed" else 1)
        return [first, *(random_codes(rng, n, int(size), "even") for size in sizes)]
    if structure == "islands":
        islands = first % 2
        return [first, 3 * islands + rng.integers(3, size=n)]
    if first.max() < 3:
        first = random_codes(rng, n, 4, "even")
    parents = rng.permutation(first.max() + 1) % max(2, (first.max() + 1) // 3)
    return [first, parents[first]]


def draw_root(rng: np.random.Generator, s: int, kind: str, diagonal: bool) -> Array:
    """Draw a root of the covariance of coefficients, beside a residual variance of one."""
    size = {"zero": 0.0, "tiny": 1e-3, "large": 30.0, "enormous": 1e3}.get(kind, 1.0)
    root = np.eye(s) if diagonal else rng.normal(size=(s, s)) + np.eye(s)
    if kind == "singular":
        root[:, -1] = 0.0
    return size * root


def as_labels(codes: Array, kind: str) -> Any:
    """Write level numbers as labels of some kind."""
    if kind == "str":
        return np.array([f"level {code:03d}" for code in codes], dtype=object)
    if kind == "category":
        return pd.Categorical([f"c{code}" for code in codes])
    if kind == "float":
        return codes.astype(float)
    return codes + (2**40 if kind == "large int" else 0)


def draw_task(seed: int) -> Task:
    """Draw a problem."""
    rng = np.random.default_rng([seed, 7])
    p = int(rng.integers(1, 5))
    while True:
        n = int(rng.integers(20, 100))
        structure = str(rng.choice(STRUCTURES))
        balance = str(rng.choice(["even", "even", "Zipf", "single rows"]))
        codes = draw_codes(rng, n, structure, balance)
        n_levels = [int(one.max()) + 1 for one in codes]
        # With more effects than rows the residual cannot be told from them; lme4 refuses that.
        if sum(n_levels) + p < FULL * n:
            break
    diagonal = bool(rng.random() < 0.3)
    features = rng.normal(size=(n, p))
    if rng.random() < 0.2:
        features[:, -1] = rng.normal(size=codes[0].max() + 1)[codes[0]]
    n_slopes = [int(rng.integers(0, min(p - 1, 2) + 1)) * (rng.random() < 0.5) for _ in codes]
    while np.dot(np.add(n_slopes, 1), n_levels) + p >= FULL * n:
        n_slopes[int(np.argmax(n_slopes))] -= 1
    kinds = [str(rng.choice(VARIANCES)) for _ in codes]
    weights = rng.uniform(0.2, 5.0, size=n) if rng.random() < 0.25 else np.ones(n)
    y = features @ rng.normal(size=p) + rng.normal(size=n) / np.sqrt(weights)
    Z = []
    for one, L, s, kind in zip(codes, n_levels, n_slopes, kinds, strict=True):
        columns = np.column_stack([np.ones(n), features[:, :s]])
        Z.append(np.eye(L)[one][:, :, None] * columns[:, None, :])
        root = draw_root(rng, 1 + s, kind, diagonal)
        y += np.einsum("nls,ls->n", Z[-1], rng.normal(size=(L, 1 + s)) @ root.T)
    traits = [structure, balance, *(f"variance {kind}" for kind in set(kinds))]
    if rng.random() < 0.1:
        y[0] += 1e3
        traits.append("outlier")
    size = 2.0 ** float(np.ceil(np.log2(np.max(np.abs(y)))))
    scale = 2.0 ** int(rng.choice(SCALES))
    scale = scale if scale == 1.0 else scale / size
    offset = 0.0
    if scale == 1.0 and rng.random() < 0.3:
        offset = float(rng.choice([1e6, 1e9, 1e12]))
    y_given = offset + scale * y
    # With both, variances of slopes would leave the range of floating point numbers.
    rescaled = rng.random() < 0.3 and abs(np.log2(scale)) < 100
    column_scales = np.exp2(rng.integers(-30, 30, size=p) * rescaled)
    frame = pd.DataFrame({f"x{j}": features[:, j] * column_scales[j] for j in range(p)})
    if rng.random() < 0.1:
        frame["copy"] = -frame["x0"]
        traits.append("duplicate column")
    names = [f"g{k}" for k in range(len(codes))]
    groups: list[Any] = list(names)
    for name, one in zip(names, codes, strict=True):
        frame[name] = as_labels(one, str(rng.choice(LABELS)))
    if structure == "nested labelled apart":
        within = np.zeros(n, dtype=int)
        for parent in np.unique(codes[1]):
            inside = codes[1] == parent
            within[inside] = np.unique(codes[0][inside], return_inverse=True)[1]
        frame["g0"] = within
        groups[0] = ("g0", "g1")
        names[0] = "g0:g1"
    traits += [f"scale {scale:.0e}"] * (scale != 1.0) + [f"offset {offset:.0e}"] * (offset > 0)
    # Rounding is part of the data: the reference must see the same numbers.
    method = str(rng.choice(["reml", "reml", "ml"]))
    X = np.column_stack([np.ones(n), features])
    problem = Problem(Z, X, (y_given - offset) / scale, weights, diagonal, method == "reml")
    return Task(
        traits=traits,
        frame=frame,
        y=y_given,
        weights=weights,
        groups=groups,
        slopes={
            name: [f"x{j}" for j in range(s)] for name, s in zip(names, n_slopes, strict=True) if s
        },
        covariance="diagonal" if diagonal else "full",
        method=method,
        scale=scale,
        offset=offset,
        column_scales=column_scales,
        problem=problem,
    )


def fit_ours(task: Task) -> tuple[bool, dict[str, Any], float]:
    """Fit with our program: whether it converged, variances and criterion in the user's units."""
    model = MacKayMixedRegressor(
        groups=task.groups,
        random_slopes=task.slopes,
        covariance=task.covariance,
        method=task.method,
        weight_type="precision",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(task.frame, task.y, sample_weight=task.weights)
    return model.converged_, model.variance_components_, -2.0 * model.log_likelihood_


def in_moderate_units(task: Task, components: dict[str, Any]) -> tuple[float, list[Array]]:
    """Bring variances, of the factors in their order and "residual", to the units of `problem`."""
    *factors, residual = components.values()
    Sigma = []
    for value, Z in zip(factors, task.problem.Z, strict=True):
        s = Z.shape[2]
        units = np.concatenate([[1.0], task.column_scales[: s - 1]]) / task.scale
        Sigma.append(np.reshape(value, (s, s)) * units[:, None] * units)
    return float(residual) / task.scale / task.scale, Sigma


def judge(
    task: Task, converged: bool, components: dict[str, Any], reported: float | None, best: float
) -> Verdict:
    """Compare variances, and the criterion that a program reports of them, with the reference."""
    sigma2, Sigma = in_moderate_units(task, components)
    at_answer = task.problem.deviance(sigma2, Sigma)
    loss = at_answer - best
    if not converged:
        return Verdict("not converged", loss)
    if not loss <= LOSS:
        outcome = "near" if loss <= LARGE_LOSS else "wrong"
        return Verdict(outcome, loss, "the criterion is not at its minimum")
    if reported is not None:
        mismatch = abs(reported - task.shift - at_answer)
        if not mismatch <= LOSS + task.rounding(sigma2):
            return Verdict("wrong", loss, f"the reported criterion is off by {mismatch:.1e}")
    return Verdict("right", loss)


def try_ours(seed: int) -> tuple[Verdict, float]:
    """Return what our program makes of a problem, and the reference."""
    task, rng = draw_task(seed), np.random.default_rng(seed)
    try:
        converged, components, reported = fit_ours(task)
    except Exception as error:
        verdict = Verdict("exception", None, f"{type(error).__name__}: {error}")
        return verdict, task.problem.least_deviance(rng, None)
    best = task.problem.least_deviance(rng, in_moderate_units(task, components))
    return judge(task, converged, components, reported, best), best


def write_task(task: Task, folder: Path, seed: int) -> None:
    """Write a problem for other programs: labels as strings, interactions as columns."""
    frame, groups = task.frame.copy(), []
    for group in task.groups:
        columns = [group] if isinstance(group, str) else list(group)
        groups.append("by_" + "_".join(columns))
        labels = frame[columns].astype(str).agg("/".join, axis=1)
        frame = frame.assign(**{groups[-1]: labels})
    features = [name for name in frame.columns if name.startswith("x") or name == "copy"]
    frame[[*features, *groups]].assign(y=task.y, weight=task.weights).to_csv(
        folder / f"{seed}.csv", index=False, float_format="%.17g"
    )
    names = [group if isinstance(group, str) else ":".join(group) for group in task.groups]
    specification = {
        "features": features,
        "groups": groups,
        "slopes": [task.slopes.get(name, []) for name in names],
        "diagonal": task.covariance == "diagonal",
        "reml": task.method == "reml",
        "weighted": bool(np.any(task.weights != 1.0)),
    }
    (folder / f"{seed}.json").write_text(json.dumps(specification))


def try_peer(program: str, python: str, folder: Path, bests: dict[int, float]) -> list[Verdict]:
    """Return what another program makes of the problems in a folder."""
    worker = Path(__file__).parent / "workers" / "fit_stress.py"
    run = subprocess.run(
        [python, str(worker), program, str(folder), *map(str, bests)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if len(lines) != len(bests):
        raise RuntimeError(f"{program} died: {run.stderr.strip().splitlines()[-1:]}")
    verdicts = []
    for line, (seed, best) in zip(lines, bests.items(), strict=True):
        if "variances" not in line:
            verdicts.append(Verdict(line["outcome"], None, line.get("detail", "")))
        else:
            components = dict(enumerate(line["variances"]))
            verdicts.append(judge(draw_task(seed), line["converged"], components, None, best))
    return verdicts


def main() -> None:
    """Fit, judge, count, and fail where our program did not do what it must."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=400, metavar="N", help="how many")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter that has the peers")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every verdict here")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.problems)
    ours = Parallel(n_jobs=-1)(delayed(try_ours)(seed) for seed in seeds)
    verdicts = {"sklearn_mackay": [verdict for verdict, _ in ours]}
    if arguments.peer_python:
        bests = {seed: best for seed, (_, best) in zip(seeds, ours, strict=True)}
        with tempfile.TemporaryDirectory() as folder:
            for seed in seeds:
                write_task(draw_task(seed), Path(folder), seed)
            for program in PEERS:
                verdicts[program] = try_peer(program, arguments.peer_python, Path(folder), bests)
    print(f"| program | {' | '.join(OUTCOMES)} |\n|{' --- |' * (len(OUTCOMES) + 1)}")
    for program, of_program in verdicts.items():
        counts = Counter(verdict.outcome for verdict in of_program)
        print(f"| {program} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    for seed, verdict in zip(seeds, verdicts["sklearn_mackay"], strict=True):
        if verdict.outcome != "right":
            print(seed, verdict, draw_task(seed).traits)
    if arguments.json:
        records = {name: list(map(asdict, of_program)) for name, of_program in verdicts.items()}
        arguments.json.write_text(json.dumps(records, indent=1))
    counts = Counter(verdict.outcome for verdict in verdicts["sklearn_mackay"])
    if counts["exception"] or counts["near"] or counts["wrong"]:
        sys.exit("a fit raised an exception, or is said to have converged and is wrong")
    if counts["not converged"] > 0.01 * len(seeds):
        sys.exit("more than one fit in a hundred did not converge")


if __name__ == "__main__":
    main()
