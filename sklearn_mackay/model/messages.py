"""What to tell the user of a fit, and of what could not be had from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import linalg
from sklearn.exceptions import ConvergenceWarning

from .._arrays import Array
from .._messages import Message
from ..design.components import Component, Factor
from ..design.fixed import FixedPart
from ..design.summed import CLOSE, DEPENDENT
from ..evidence.identification import Identification
from ..frames.grouping import rounding
from .estimates import Estimates
from .problem import Fitted
from .statistics import Description

ROUNDING = float(np.finfo(float).eps)
ILL_CONDITIONED = 1e7  # condition of the scaled columns of X beyond which digits are lost
NEGLIGIBLE = 1e-9  # weight in a combination, relative to the largest, that is rounding


def unidentified(components: Sequence[Component], found: Identification) -> list[Message]:
    """Say what of the variances the rows do not tell, and what can be done.

    Parameters
    ----------
    components : sequence of Component
        Those that have a term.
    found : Identification
        What `identify` found.

    Returns
    -------
    list of Message
        One for each component and kind of finding.
    """
    said = [
        message
        for k, component in enumerate(components)
        for message in (
            *_about_kernel(component, found, k),
            *_about_held(component, found, k),
            *_about_flat(component, found, k),
        )
    ]
    if found.together:
        names = ", ".join(repr(components[k].name) for k in found.together)
        said.append(
            Message(
                f"The variances of {names} cannot all be told apart: the effects of one are sums "
                "of effects of another. Others fit as well as those in `variance_components_`, "
                "and predict the same for these levels. Remove a factor, or a random slope."
            )
        )
    return said


def _about_kernel(component: Component, found: Identification, k: int) -> Iterator[Message]:
    """Effects that no row tells from zero, or that the fixed features take up."""
    name = component.name
    if found.unseen[k].size:
        yield Message(
            f"No row tells {_combinations(component, found.unseen[k])} of the levels of "
            f"{name!r} from zero: its variance is set to 0. Remove one of these random slopes."
        )
    if found.taken_up[k].size:
        taken_up = _combinations(component, found.taken_up[k])
        if isinstance(component, Factor) and component.n_levels == 1:
            yield Message(
                f"Grouping factor {name!r} has a single level so far, whose {taken_up} the fixed "
                "part takes up: its variance is set to 0 until rows of other levels come."
            )
        else:
            yield Message(
                f"The fixed features take up {taken_up} of every level of {name!r}: its variance "
                "is not identified and is set to 0. Remove those features, or that random effect."
            )


def _about_held(component: Component, found: Identification, k: int) -> Iterator[Message]:
    """Variances that are held at zero, since others make up for them."""
    if not found.held[k].size:
        return
    if found.with_residual[k] and len(component.coefficients) == 1:
        yield component.is_residual_twin()
        return
    held, name = _combinations(component, found.held[k]), component.name
    beside = " and the residual variance" * found.with_residual[k]
    yield Message(
        f"The variance of {held} of the levels of {name!r} cannot be told from the other "
        f"variances of {name!r}{beside} and is set to 0. Remove it from `random_slopes`, "
        "or set 'intercept': False there."
    )


def _about_flat(component: Component, found: Identification, k: int) -> Iterator[Message]:
    """Directions that stay free though nothing tells where on them the variances are."""
    name = component.name
    if found.n_flat_within[k] and found.with_residual[k]:
        yield Message(
            f"The levels of {name!r} have as many random coefficients as rows: its variances "
            "cannot be told from the residual variance. Others fit as well as those in "
            "`variance_components_`, and predict the same for these levels. Remove a slope "
            "from `random_slopes`, or give the residual variance in `fixed_variances`."
        )
    elif found.n_flat_within[k]:
        n_entries = component.structure.n_parameters(found.bases[k].shape[1])
        yield Message(
            f"The rows tell {n_entries - found.n_flat_within[k]} of the {n_entries} variances "
            f"and covariances of {name!r}: slopes that are constant within its levels take too "
            "few values. Others fit as well as those in `variance_components_`, and predict "
            "the same for these levels. Remove one from `random_slopes`, or name one-hot "
            "columns of its values there, without an intercept and with covariance='diagonal'."
        )


def combination(direction: Array, coefficients: Sequence[str]) -> str:
    """A direction as a readable sum, its largest weight 1."""
    scaled = direction / direction[np.argmax(np.abs(direction))]
    parts = [
        f"{w:+.3g}*{c}" for w, c in zip(scaled, coefficients, strict=True) if abs(w) > NEGLIGIBLE
    ]
    return " ".join(parts).removeprefix("+")


def _combinations(component: Component, directions: Array) -> str:
    """Directions of a term's coefficients, each with as few of the user's as can be."""
    user = component.transform @ directions
    scale = np.linalg.norm(user, axis=1)
    scaled = user / np.where(scale > 0, scale, 1.0)[:, None]
    _, _, pivots = linalg.qr(scaled.T, mode="economic", pivoting=True)
    few = user @ np.linalg.inv(scaled[pivots[: user.shape[1]]])
    return " and ".join(combination(w, component.coefficients) for w in few.T)


def about_fit(
    fits: Sequence[tuple[Fitted, Estimates]], rows: Description, notes: Sequence[Message]
) -> list[Message]:
    """Say what a user should know of a fit.

    Parameters
    ----------
    fits : sequence of (Fitted, Estimates)
        One for each response.
    rows : Description
        What was fitted.
    notes : sequence of Message
        What was found before anything was estimated.

    Returns
    -------
    list of Message
    """
    problem = fits[0][0].problem
    rounded = (rounding(grouping.name, grouping.column_levels) for grouping in rows.groupings)
    messages = [*filter(None, rounded), *notes]
    messages += _about_fixed_part(problem.fixed, _fixed_names(rows))
    messages += unidentified(problem.active, problem.identification)
    for j, (fitted, estimates) in enumerate(fits):
        where = f"Output {j}: " if len(fits) > 1 else ""
        messages += [
            Message(where + text, category) for text, category in _about_output(fitted, estimates)
        ]
    return messages


def about_digits(shares: Array, rows: Description) -> list[Message]:
    """Say what sums hold too few digits of, where the rows cannot be looked at again.

    Parameters
    ----------
    shares : ndarray of shape (p + t + m,)
        Share of its sum of squares that is left of each fixed column, response and slope.
    rows : Description
        What the sums are of.

    Returns
    -------
    list of Message
    """
    weakest = int(np.argmin(shares))
    share = float(shares[weakest])
    if share >= CLOSE:
        return []
    fixed = _fixed_names(rows)
    slopes = [
        f"{slope!r} of {factor.name!r}"
        for factor in rows.roles.factors
        for slope in factor.coefficient_names[int(factor.intercept) :]
    ]
    names = [*fixed, *["y"] * (len(shares) - len(fixed) - len(slopes)), *slopes]
    digits = "no digit" if share < DEPENDENT else f"a relative error of {ROUNDING / share:.0e}"
    return [
        Message(
            f"Sums over rows tell {names[weakest]} with {digits}: the other columns, or its mean, "
            f"leave {share:.0e} of its sum of squares, and these rows cannot be read again. Fit "
            "them in memory or from a file, or centre it and leave out what it nearly repeats."
        )
    ]


def _fixed_names(rows: Description) -> list[str]:
    names = rows.header.names
    return [repr(column if names is None else names[column]) for column in rows.roles.fixed]


def _about_fixed_part(fixed: FixedPart, names: Sequence[str]) -> list[Message]:
    if len(fixed.dropped):
        dropped = ", ".join(names[i] for i in fixed.dropped)
        return [
            Message(
                f"Fixed features {dropped} are combinations of the others (or of the intercept) "
                "and get coefficient 0. Remove them, or give a positive `alpha`."
            )
        ]
    if fixed.condition > ILL_CONDITIONED:
        return [
            Message(
                f"The fixed features are nearly collinear (condition number "
                f"{fixed.condition:.1e} after scaling): their coefficients are poorly "
                "determined. Remove some, or give a positive `alpha`."
            )
        ]
    return []


def _about_output(fitted: Fitted, estimates: Estimates) -> list[Message]:
    problem, options = fitted.problem, fitted.problem.options
    said: list[Message] = []
    if estimates.exact_fit and problem.components:
        said.append(
            Message(
                "The model fits y exactly: the residual variance is zero, and variances cannot be "
                "estimated (y may be constant, or a function of the features and groups)."
            )
        )
    coefficients = {component.name: component.coefficients for component in problem.components}
    for name, direction in estimates.collapsed:
        said.append(
            Message(
                f"method='quick' lost a direction of the covariance of {name!r}: the variance of "
                f"{combination(direction, coefficients[name])} collapsed to zero, because it is "
                "less than about three times its sampling variance. Use method='reml' or 'mackay'.",
                ConvergenceWarning,
            )
        )
    if not estimates.solved:
        said.append(
            Message(
                "Conjugate gradients did not converge: the factors are hardly connected, or their "
                "variances enormous beside the residual. The estimates are not to be trusted. Use "
                "solver='exact', or fewer factors.",
                ConvergenceWarning,
            )
        )
    elif not estimates.converged and estimates.n_iter < options.max_iter:
        said.append(
            Message(
                f"The variances stopped after {estimates.n_iter} iterations, where rounding hides "
                "which way the criterion falls: some effects vary enormously beside the residual. "
                "Remove random slopes, or factors whose levels have few rows.",
                ConvergenceWarning,
            )
        )
    elif not estimates.converged:
        said.append(
            Message(
                f"The variances did not converge in {options.max_iter} iterations; the last change "
                f"was {estimates.history[-1]['change']:.1e}, `tol` is {options.tol:.1e}. Increase "
                "`max_iter`, or use method='reml', which needs fewer.",
                ConvergenceWarning,
            )
        )
    return said


def no_intervals(reasons: Mapping[str, str]) -> list[Message]:
    """Say which parameters have no interval, those of one reason together."""
    said = []
    for why in dict.fromkeys(reasons.values()):
        names = ", ".join(repr(name) for name, reason in reasons.items() if reason == why)
        said.append(Message(f"There is no interval of {names}: {why}."))
    return said


def few_values(names: Sequence[str], values: Array) -> list[Message]:
    """Say which parameters most refits of a bootstrap have no value of."""
    counts = np.sum(~np.isnan(values), axis=0)
    few = [name for name, count in zip(names, counts, strict=True) if 2 * count < len(values)]
    if not few:
        return []
    return [
        Message(
            f"Fewer than half of the resamples have a value of {', '.join(map(repr, few))}, "
            "because a standard deviation is zero in the others: the interval rests on the rest. "
            "Use method='profile'."
        )
    ]


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
