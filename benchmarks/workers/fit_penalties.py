"""Fit a workload of P7 with the program named on the command line; each request draws new data."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from protocol import announce, penalties_asked_for, requests, send, timed
from sklearn.compose import make_column_transformer
from sklearn.linear_model import BayesianRidge, Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder

ALPHAS = np.logspace(-2, 5, 15)
GRID = np.logspace(-1, 2, 7)
WEIGHTS = (0.3, 0.6, 1.2)  # of one-hot columns, the root of a variance over the noise's


def one_hot(sparse: bool = True) -> OneHotEncoder:
    """Return indicator columns, all zero for a level that was not seen."""
    return OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)


def three_penalties() -> GridSearchCV:
    """Return a search over one penalty per factor: indicators times a weight, ridge penalty 1."""
    factors = ("customer", "state", "product")
    columns = make_column_transformer(*((one_hot(), [name]) for name in factors))
    names = [name for name, *_ in columns.transformers]
    weights = [dict(zip(names, w, strict=True)) for w in product(WEIGHTS, repeat=len(names))]
    grid = {"columntransformer__transformer_weights": weights}
    return GridSearchCV(make_pipeline(columns, Ridge()), grid)


def ridge_cv() -> Any:
    """Return RidgeCV, on indicators where the columns are categories."""
    model = RidgeCV(ALPHAS)
    return make_pipeline(one_hot(sparse=False), model) if name == "P7" else model


def bayesian_ridge() -> Any:
    """Return BayesianRidge, on indicators where the columns are categories."""
    model = BayesianRidge()
    return make_pipeline(one_hot(sparse=False), model) if name == "P7" else model


def himalaya_bands() -> Any:
    """Return himalaya's random search over one penalty per block, at its 100 candidates or 10."""
    from himalaya.ridge import GroupRidgeCV

    sizes = [len(columns) for columns in workload.parameters["feature_blocks"].values()]
    return GroupRidgeCV(
        groups=np.repeat(np.arange(len(sizes)), sizes),
        solver_params={
            "alphas": ALPHAS,
            "n_iter": 10 if fast else 100,
            "progress_bar": False,
            "warn": False,
        },
        fit_intercept=True,
        random_state=0,
    )


def himalaya_ridge() -> Any:
    """Return himalaya's ridge with cross-validated penalty."""
    from himalaya.ridge import RidgeCV as HimalayaRidgeCV

    return HimalayaRidgeCV(alphas=ALPHAS, fit_intercept=True, solver_params={"warn": False})


def himalaya_one_penalty() -> Any:
    """Return himalaya's ridge with the penalty given."""
    from himalaya.ridge import Ridge as HimalayaRidge

    return HimalayaRidge(alpha=1.0, fit_intercept=True, solver_params={"warn": False})


def ours() -> Any:
    """Return our estimator."""
    from sklearn_mackay import MacKayMixedRegressor

    return MacKayMixedRegressor(**workload.parameters)


PROGRAMS: dict[str, tuple[str, Callable[[], Any]]] = {
    "sklearn_mackay": ("sklearn_mackay", ours),
    "one penalty, grid": (
        "scikit-learn",
        lambda: GridSearchCV(make_pipeline(one_hot(), Ridge()), {"ridge__alpha": GRID}),
    ),
    "three penalties, grid": ("scikit-learn", three_penalties),
    "target encoding": (
        "scikit-learn",
        lambda: make_pipeline(TargetEncoder(target_type="continuous"), Ridge()),
    ),
    "one penalty, RidgeCV": ("scikit-learn", ridge_cv),
    "BayesianRidge": ("scikit-learn", bayesian_ridge),
    "Ridge(1.0)": ("scikit-learn", Ridge),
    "himalaya GroupRidgeCV": ("himalaya", himalaya_bands),
    "himalaya RidgeCV": ("himalaya", himalaya_ridge),
    "himalaya Ridge(1.0)": ("himalaya", himalaya_one_penalty),
}

name, workload, program, fast = penalties_asked_for()
package, make_model = PROGRAMS[program]
announce([package, "numpy", "scipy", "scikit-learn"])
for seed, _ in enumerate(requests()):
    split = workload.draw(fast, seed)
    model = make_model()
    seconds, fitted = timed(model.fit, split.X, split.y)
    send({"seconds": seconds, "r2": float(r2_score(split.y_new, fitted.predict(split.X_new)))})
    del split, model, fitted
