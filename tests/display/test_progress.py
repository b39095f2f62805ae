"""What `verbose` shows: nothing, lines, or a bar."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import numpy as np
import pytest

from sklearn_mackay import MacKayMixedRegressor
from sklearn_mackay.datasets import load_sleepstudy
from sklearn_mackay.display.progress import progress
from sklearn_mackay.evidence.loop import Iteration
from sklearn_mackay.evidence.solution import Variances

NOWHERE = Variances(1.0, ())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def reported(changes, *, verbose=1, tol=1e-6):
    with progress(verbose, tol) as report:
        for i, change in enumerate(changes):
            report(Iteration("newton", 100.0 - i, NOWHERE, change))


def shown(changes, **parameters):
    """What a terminal shows."""
    with redirect_stderr(Terminal()) as screen:
        reported(changes, **parameters)
    return screen.getvalue()


def shares(text):
    """Percentages that the bar showed, in order."""
    return [int(part[:3]) for part in text.split("\r") if part[3:4] == "%"]


def test_silent_by_default(capsys):
    MacKayMixedRegressor(groups=[1]).fit(*load_sleepstudy(return_X_y=True))
    assert capsys.readouterr() == ("", "")


def test_silent_where_not_asked_for():
    assert shown([np.inf, 1.0], verbose=0) == ""


def test_lines_where_no_terminal_is_attached(capsys):
    reported([np.inf, 1.0, 1e-8])
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "deviance 100.0" in first
    assert "deviance 98.0" in last
    assert "change 1.00e-08" in last


def test_a_bar_on_a_terminal(capsys):
    text = shown([np.inf, 1.0, 1e-3, 1e-2, 1e-8])
    assert capsys.readouterr().out == ""
    assert "iteration 5:   newton  deviance 96.0" in text
    seen = shares(text)
    # Half of the way in decades after 1e-3; a change that grows takes nothing back.
    assert sorted(set(seen)) == [0, 50, 100]
    assert seen == sorted(seen)


@pytest.mark.parametrize("tol", [0.0, 10.0])
def test_a_bar_without_a_distance_to_go(tol):
    assert set(shares(shown([np.inf, 1.0, 1e-3], tol=tol))) == {0, 100}


def test_a_fit_fills_the_bar():
    with redirect_stderr(Terminal()) as screen:
        MacKayMixedRegressor(groups=[1], verbose=1).fit(*load_sleepstudy(return_X_y=True))
    assert shares(screen.getvalue())[-1] == 100
