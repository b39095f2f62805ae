"""Fit the problems that stress.py wrote with another program; one JSON record a problem."""

import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SECONDS = 60  # for one fit

Record = dict[str, Any]


class CannotBeExpressedError(Exception):
    """The program has no such model."""


def fit_glmm(data: pd.DataFrame, model: Record) -> Record:
    """Fit with glmm, whose covariances are always full."""
    import glmm

    if model["diagonal"] and any(model["slopes"]):
        raise CannotBeExpressedError
    bars = [
        f"({' + '.join(['1', *slopes])} | {group})"
        for group, slopes in zip(model["groups"], model["slopes"], strict=True)
    ]
    fit = glmm.fit(
        data,
        f"y ~ {' + '.join([*model['features'], *bars])}",
        reml=model["reml"],
        weights=data["weight"].to_numpy() if model["weighted"] else None,
        satterthwaite=False,
    )
    if not fit.converged:
        return {"outcome": "not converged"}
    by_group = {name: block for (name, _), block in zip(fit.re_groups, fit.varcorr, strict=True)}
    variances = []
    for group, slopes in zip(model["groups"], model["slopes"], strict=True):
        size = 1 + len(slopes)
        lower = np.zeros((size, size))
        lower[np.tril_indices(size)] = by_group[group]
        variances.append((lower + np.tril(lower, -1).T).tolist())
    return {"converged": True, "variances": [*variances, float(fit.dispersion)]}


def fit_statsmodels(data: pd.DataFrame, model: Record) -> Record:
    """Fit with statsmodels: one factor with a full covariance, or independent components."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    if model["weighted"]:
        raise CannotBeExpressedError
    formula = f"y ~ {' + '.join(model['features'])}"
    if len(model["groups"]) == 1 and not model["diagonal"]:
        ((group,), (slopes,)) = model["groups"], model["slopes"]
        fit = MixedLM.from_formula(
            formula, data, groups=group, re_formula=f"~{' + '.join(['1', *slopes])}"
        ).fit(reml=model["reml"])
        variances = [np.asarray(fit.cov_re).tolist()]
    elif any(model["slopes"]) and not model["diagonal"]:
        raise CannotBeExpressedError
    else:
        components = {
            f"{k:02d} {group} {j}": f"0 + C({group}){slope and ':' + slope}"
            for k, (group, slopes) in enumerate(zip(model["groups"], model["slopes"], strict=True))
            for j, slope in enumerate(["", *slopes])
        }
        fit = MixedLM.from_formula(
            formula, data.assign(all=1), groups="all", re_formula="0", vc_formula=components
        ).fit(reml=model["reml"])
        found = dict(zip(fit.model.exog_vc.names, fit.vcomp, strict=True))
        variances = [
            np.diag([found[name] for name in components if name.split()[1] == group]).tolist()
            for group in model["groups"]
        ]
    return {"converged": bool(fit.converged), "variances": [*variances, float(fit.scale)]}


def attempt(fit: Callable[[pd.DataFrame, Record], Record], folder: Path, seed: str) -> Record:
    """Fit a problem; say what happened where there is no answer."""
    model = json.loads((folder / f"{seed}.json").read_text())
    data = pd.read_csv(folder / f"{seed}.csv", dtype=dict.fromkeys(model["groups"], str))
    signal.alarm(SECONDS)
    try:
        answer = fit(data, model)
        found = [np.ravel(v) for v in answer.get("variances", [])]
        if found and not np.all(np.isfinite(np.concatenate(found))):
            return {"outcome": "exception", "detail": "variances are not finite"}
        return answer
    except CannotBeExpressedError:
        return {"outcome": "cannot be expressed"}
    except Exception as error:
        return {"outcome": "exception", "detail": f"{type(error).__name__}: {error}"[:200]}
    finally:
        signal.alarm(0)


def out_of_time(*_: Any) -> None:
    """End a fit."""
    raise TimeoutError(f"no answer in {SECONDS} s")


if __name__ == "__main__":
    program, folder, *seeds = sys.argv[1:]
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, out_of_time)
    fit = {"glmm": fit_glmm, "statsmodels": fit_statsmodels}[program]
    for seed in seeds:
        print(json.dumps(attempt(fit, Path(folder), seed)), flush=True)
