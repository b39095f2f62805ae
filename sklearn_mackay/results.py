"""Records that methods of the estimators return: tests, intervals, predictions of rows left out."""

from .display.fit_tables import History
from .display.summary import BlockRow, FixedRow, RandomRow, Summary
from .inference.coefficients import FixedEffects
from .inference.comparison import LikelihoodRatio
from .inference.held_out import HeldOut
from .inference.intervals import Intervals
from .inference.profiles import Profile
from .inference.shares import VarianceShares

__all__ = [
    "BlockRow",
    "FixedEffects",
    "FixedRow",
    "HeldOut",
    "History",
    "Intervals",
    "LikelihoodRatio",
    "Profile",
    "RandomRow",
    "Summary",
    "VarianceShares",
]
