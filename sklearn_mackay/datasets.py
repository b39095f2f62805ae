"""Example data, loaded in the manner of scikit-learn's own loaders."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Any, Literal, overload

import numpy as np
from sklearn.utils import Bunch

_FEATURES = ["Days", "Subject"]
_TARGET = "Reaction"


@overload
def load_sleepstudy(*, as_frame: bool = ..., return_X_y: Literal[False] = ...) -> Bunch: ...
@overload
def load_sleepstudy(*, as_frame: bool = ..., return_X_y: Literal[True]) -> tuple[Any, Any]: ...
def load_sleepstudy(*, as_frame: bool = False, return_X_y: bool = False) -> Bunch | tuple[Any, Any]:
    """Load the sleep deprivation study: 18 subjects, ten days each.

    The reaction time of a subject grows with each day of three hours in bed, and each subject
    has a level and a slowing of its own: the usual first example of a mixed model.

    Parameters
    ----------
    as_frame : bool, default=False
        Return pandas objects, ``Days`` as integers and ``Subject`` as strings. Needs pandas.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of the Bunch.

    Returns
    -------
    data : Bunch
        A dictionary whose keys are attributes as well:

        data : ndarray of shape (180, 2) and dtype object, or DataFrame
            Day (int) and subject (str).
        target : ndarray of shape (180,), or Series
            Average reaction time in milliseconds.
        feature_names : list of str
            ``["Days", "Subject"]``.
        target_names : list of str
            ``["Reaction"]``.
        frame : DataFrame of shape (180, 3), or None
            Features and target together, with ``as_frame=True``.
        DESCR : str
            What the data are and where they come from.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    ImportError
        For ``as_frame=True`` without pandas.

    References
    ----------
    Belenky, G. et al. (2003). Patterns of performance degradation and restoration during sleep
    restriction and subsequent recovery: a sleep dose-response study. Journal of Sleep Research,
    12, 1-12. :doi:`10.1046/j.1365-2869.2003.00337.x`

    Examples
    --------
    >>> from sklearn_mackay.datasets import load_sleepstudy
    >>> X, y = load_sleepstudy(return_X_y=True)
    >>> X.shape, y.shape
    ((180, 2), (180,))
    >>> print(*X[0])
    0 308
    """
    data, target = _read_sleepstudy()
    frame = None
    if as_frame:
        frame = _as_frame(data, target)
        data, target = frame[_FEATURES], frame[_TARGET]
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        frame=frame,
        feature_names=list(_FEATURES),
        target_names=[_TARGET],
        DESCR=_read_text("README.md"),
    )


def _read_text(name: str) -> str:
    return (files("sklearn_mackay") / "data" / name).read_text(encoding="utf-8")


def _read_sleepstudy() -> tuple[Any, Any]:
    rows = list(csv.DictReader(_read_text("sleepstudy.csv").splitlines()))
    data = np.array([(int(row["Days"]), row["Subject"]) for row in rows], dtype=object)
    target = np.array([float(row[_TARGET]) for row in rows])
    return data, target


def _as_frame(data: Any, target: Any) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "load_sleepstudy(as_frame=True) needs pandas, which is not installed; install it with "
            "`pip install pandas`, or leave as_frame=False for NumPy arrays."
        ) from error
    days, subject = data.T
    return pd.DataFrame({"Days": days.astype(np.int64), "Subject": list(subject), _TARGET: target})
