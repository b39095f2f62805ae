"""Linear mixed models as a scikit-learn estimator."""

from . import datasets
from ._estimator import MacKayMixedRegressor

__all__ = ["MacKayMixedRegressor", "datasets"]
__version__ = "0.1.0"
