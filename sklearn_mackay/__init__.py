"""Linear mixed models as a scikit-learn estimator."""

from . import datasets
from ._regressor import MacKayMixedRegressor
from .display.effects import ConvergenceDisplay, RandomEffectsDisplay, VarianceProfileDisplay

__all__ = [
    "ConvergenceDisplay",
    "MacKayMixedRegressor",
    "RandomEffectsDisplay",
    "VarianceProfileDisplay",
    "datasets",
]
__version__ = "0.1.0"
