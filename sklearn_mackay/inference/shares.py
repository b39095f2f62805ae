"""Shares of variance: R2 and intraclass correlations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import Array
from ..frames.making import Backend, PartlyKnown, make_frame
from ..model.fitted import FittedModel


@dataclass(frozen=True)
class VarianceShares:
    """What the variance of y is made of, by the model.

    Attributes
    ----------
    r2_marginal, r2_conditional : float
        Share of fixed features and feature blocks; of these and of the grouping factors. NaN
        without an intercept. The variance of the fixed part is that of its predictions over the
        rows, with the denominator n where R's ``performance`` has n - 1.
    icc : dict of str to float
        Intraclass correlation: share of each factor in the variance that features leave.

    Examples
    --------
    >>> from sklearn_mackay import MacKayMixedRegressor
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
    >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
    >>> shares = model.explained_variance()
    >>> round(shares.r2_marginal, 3), round(shares.icc["Subject"], 3)
    (0.279, 0.589)
    """

    r2_marginal: float
    r2_conditional: float
    icc: dict[str, float]

    def to_frame(self, backend: Backend = "pandas") -> Any:
        """Make a table of the shares.

        Parameters
        ----------
        backend : {"pandas", "polars", "pyarrow"}, default="pandas"
            Library of the table.

        Returns
        -------
        pandas.DataFrame, polars.DataFrame or pyarrow.Table
            Columns `name`: "r2_marginal", "r2_conditional" or "icc"; `factor`, null but for the
            latter; and `share`.

        Raises
        ------
        ValueError
            For another library.
        ImportError
            Where it is not installed.

        Examples
        --------
        >>> from sklearn_mackay import MacKayMixedRegressor
        >>> from sklearn_mackay.datasets import load_sleepstudy
        >>> X, y = load_sleepstudy(as_frame=True, return_X_y=True)
        >>> model = MacKayMixedRegressor(groups="Subject").fit(X, y)
        >>> for row in model.explained_variance().to_frame("polars").rows():
        ...     print(row)
        ('r2_marginal', None, 0.27...)
        ('r2_conditional', None, 0.70...)
        ('icc', 'Subject', 0.58...)
        """
        factors = ["", "", *self.icc]
        columns = {
            "name": ["r2_marginal", "r2_conditional", *["icc"] * len(self.icc)],
            "factor": PartlyKnown(np.array(factors), np.arange(len(factors)) >= 2),
            "share": [self.r2_marginal, self.r2_conditional, *self.icc.values()],
        }
        return make_frame(columns, backend)


def variance_shares(model: FittedModel, *, has_intercept: bool) -> VarianceShares:
    """Shares of variance over the (weighted) rows; with slopes their mean over the rows.

    Parameters
    ----------
    model : FittedModel
        The fit.
    has_intercept : bool
        Whether the last internal column is the intercept, which the mean is taken of.

    Returns
    -------
    VarianceShares

    References
    ----------
    Nakagawa, Schielzeth (2013), "A general and simple method for obtaining R2 from generalized
    linear mixed-effects models", Methods in Ecology and Evolution 4; Johnson (2014), the same 5.
    """
    n, r = model.crossproducts.n, len(model.beta)
    of_fixed = np.nan
    if has_intercept:
        # In units of y, whose squares are within the range of floating point numbers.
        features = model.offset[:-1] / model.y_scale + model.beta[:-1]
        gram = _centered_gram(model.crossproducts.FWF[:r, :r]) / n
        of_fixed = max(float(features @ gram @ features), 0.0)
    of_blocks, of_factors = 0.0, {}
    for k, component in enumerate(model.active):
        term = model.crossproducts.terms[k]
        own = term.own.sum(axis=2) / n
        if has_intercept and component.is_feature:
            own = np.maximum(own - np.sum((term.ZWF[0, r - 1] / n) ** 2), 0.0)
        variance = float(np.sum(own * model.variances.Sigma[k]))
        if component.is_feature:
            of_blocks += variance
        else:
            of_factors[component.name] = variance
    random = sum(of_factors.values())
    of_features = of_fixed + of_blocks
    sigma2 = model.sigma2 / model.y_scale**2
    whole = of_features + random + sigma2
    return VarianceShares(
        r2_marginal=_share(of_features, whole),
        r2_conditional=_share(of_features + random, whole),
        icc={name: _share(value, random + sigma2) for name, value in of_factors.items()},
    )


def _centered_gram(gram: Array) -> Array:
    """Gram matrix of the columns before the last, the intercept, less their means."""
    of_intercept = gram[:-1, -1]
    return np.asarray(gram[:-1, :-1] - np.outer(of_intercept, of_intercept) / gram[-1, -1])


def _share(part: float, whole: float) -> float:
    """A ratio; NaN where there is nothing to share."""
    return part / whole if whole != 0.0 else np.nan
