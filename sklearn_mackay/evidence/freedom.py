"""What may move, and under which criterion."""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays import Array
from ..covariances.structures import Structure


@dataclass(frozen=True)
class Freedom:
    """What may move, and under which criterion.

    Attributes
    ----------
    terms : tuple of bool
        Whether each term's covariance is estimated.
    residual : bool
        Whether sigma2 is estimated.
    structures : tuple of Structure
        Of each covariance.
    dof : float
        ``n - p`` for REML, ``n`` for ML.
    directions : tuple of ndarray of shape (s_k, r_k)
        Orthonormal basis of the directions in which each covariance may have variance. Where the
        fixed part takes up the effects of all levels, the criterion does not depend on it.
    """

    terms: tuple[bool, ...]
    residual: bool
    structures: tuple[Structure, ...]
    dof: float
    directions: tuple[Array, ...]

    @property
    def is_rescalable(self) -> bool:
        """Whether all variances may be multiplied by a common factor."""
        return self.residual and all(self.terms)
