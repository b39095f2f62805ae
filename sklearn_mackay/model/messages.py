"""What to tell the user, and where: at the line that called the package."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence

import numpy as np
from scipy import linalg

from .._arrays import Array
from ..covariances.matrices import n_units
from ..design.components import AnyComponent, BlockComponent
from ..evidence.identification import Identification

NEGLIGIBLE = 1e-9  # weight in a combination, relative to the largest, that is rounding


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called the package, however deep the call is in it.

    Parameters
    ----------
    message : str
        What to say.
    category : type of Warning
        How to say it.
    """
    package = __name__.split(".")[0]
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def unidentified(components: Sequence[AnyComponent], found: Identification) -> list[str]:
    """Say what of the variances the rows do not tell, and what can be done.

    Parameters
    ----------
    components : sequence of Component or BlockComponent
        Those that have a term.
    found : Identification
        What `identify` found.

    Returns
    -------
    list of str
        One message for each component and kind of finding.
    """
    notes: list[str] = []
    for k, component in enumerate(components):
        name, labels = component.name, component.coefficients
        if found.unseen[k].size:
            notes.append(
                f"No row tells {_combinations(component, found.unseen[k])} of the levels of "
                f"{name!r} from zero: its variance is set to 0. Remove one of these random slopes."
            )
        if found.taken_up[k].size:
            notes.append(
                f"The fixed features take up {_combinations(component, found.taken_up[k])} of "
                f"every level of {name!r}: its variance is not identified and is set to 0. Remove "
                "those features, or that random effect."
            )
        held = _combinations(component, found.held[k]) if found.held[k].size else ""
        if held and found.with_residual[k] and len(labels) == 1:
            if isinstance(component, BlockComponent):
                notes.append(
                    f"The columns of feature block {name!r} are orthogonal and as many as the "
                    "rows: its variance cannot be told from the residual variance and is set to "
                    "0. Remove it from `feature_blocks`."
                )
            else:
                notes.append(
                    f"Grouping factor {name!r} has as many levels as rows: its variance cannot be "
                    "told from the residual variance and is set to 0. Remove it from `groups`."
                )
        elif held:
            beside = " and the residual variance" * found.with_residual[k]
            notes.append(
                f"The variance of {held} of the levels of {name!r} cannot be told from the other "
                f"variances of {name!r}{beside} and is set to 0. Remove it from `random_slopes`, "
                "or set 'intercept': False there."
            )
        if found.n_flat_within[k] and found.with_residual[k]:
            notes.append(
                f"The levels of {name!r} have as many random coefficients as rows: its variances "
                "cannot be told from the residual variance. Others fit as well as those in "
                "`variance_components_`, and predict the same for these levels. Remove a slope "
                "from `random_slopes`, or give the residual variance in `fixed_variances`."
            )
        elif found.n_flat_within[k]:
            r = found.bases[k].shape[1]
            n_entries = n_units(r, component.diagonal)
            notes.append(
                f"The rows tell {n_entries - found.n_flat_within[k]} of the {n_entries} variances "
                f"and covariances of {name!r}: slopes that are constant within its levels take too "
                "few values. Others fit as well as those in `variance_components_`, and predict "
                "the same for these levels. Remove one from `random_slopes`, or name one-hot "
                "columns of its values there, without an intercept and with covariance='diagonal'."
            )
    if found.together:
        names = ", ".join(repr(components[k].name) for k in found.together)
        notes.append(
            f"The variances of {names} cannot all be told apart: the effects of one are sums of "
            "effects of another. Others fit as well as those in `variance_components_`, and "
            "predict the same for these levels. Remove a factor, or a random slope."
        )
    return notes


def combination(direction: Array, coefficients: Sequence[str]) -> str:
    """A direction as a readable sum, its largest weight 1."""
    scaled = direction / direction[np.argmax(np.abs(direction))]
    parts = [
        f"{w:+.3g}*{c}" for w, c in zip(scaled, coefficients, strict=True) if abs(w) > NEGLIGIBLE
    ]
    return " ".join(parts).removeprefix("+")


def _combinations(component: AnyComponent, directions: Array) -> str:
    """Directions of a term's coefficients, each with as few of the user's as can be."""
    user = component.transform @ directions
    scale = np.linalg.norm(user, axis=1)
    scaled = user / np.where(scale > 0, scale, 1.0)[:, None]
    _, _, pivots = linalg.qr(scaled.T, mode="economic", pivoting=True)
    few = user @ np.linalg.inv(scaled[pivots[: user.shape[1]]])
    return " and ".join(combination(w, component.coefficients) for w in few.T)


def why_not_kept(store_covariance: bool | str, solver: str) -> str:
    """Why a fit lacks what tells how sure it is, and what to do about it.

    Parameters
    ----------
    store_covariance : bool or "auto"
        The parameter.
    solver : {"exact", "iterative"}
        The engine that fitted.

    Returns
    -------
    str
        One or two sentences.
    """
    if store_covariance == "auto" and solver == "iterative":
        return "After the iterative engine it is kept with store_covariance=True only."
    if store_covariance == "auto":
        return (
            "It was read from JSON text, or takes more than the 16 MiB of store_covariance='auto'. "
            "Pickle the fit, or fit with store_covariance=True."
        )
    if store_covariance:
        return (
            "It was read from JSON text, fitted with another store_covariance, or has a feature "
            "block of over 3,000 rows and columns. Pickle the fit, fit again, or give it smaller "
            "blocks."
        )
    return "It was fitted with store_covariance=False. Fit with True."
