"""Linear mixed models as a scikit-learn estimator."""

from . import datasets, results
from ._regressor import MacKayMixedRegressor
from .display.convergence import ConvergenceDisplay
from .display.effects import RandomEffectsDisplay
from .display.profile import VarianceProfileDisplay

__all__ = [
    "ConvergenceDisplay",
    "MacKayMixedRegressor",
    "RandomEffectsDisplay",
    "VarianceProfileDisplay",
    "datasets",
    "results",
]
__version__ = "0.1.0"
