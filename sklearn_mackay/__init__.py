"""Linear mixed models as a scikit-learn estimator."""

from . import datasets
from ._displays import ConvergenceDisplay, RandomEffectsDisplay, VarianceProfileDisplay
from ._estimator import MacKayMixedRegressor

__all__ = [
    "ConvergenceDisplay",
    "MacKayMixedRegressor",
    "RandomEffectsDisplay",
    "VarianceProfileDisplay",
    "datasets",
]
__version__ = "0.1.0"
