"""The formulas of the page "Coming from lme4": each row of its table fits what lme4 fits."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coefficients import existing_coef, fixed_estimates
from numpy.testing import assert_allclose
from reference_data import DATA, read_table

from sklearn_mackay import MacKayMixedRegressor

USER_GUIDE = Path(__file__).parents[1] / "docs" / "user_guide"
TABLE = USER_GUIDE / "lme4_formulas.csv"
PAGE = USER_GUIDE / "coming_from_lme4.rst"

CRITERION_ATOL = 1e-6  # lme4's optimiser ran to 1e-10; both minima are good to some 1e-10
COEFFICIENT_RTOL = 1e-6  # lme4's variances are good to about 1e-6
VARIANCE_RTOL = 1e-4  # the criterion is flat: 1e-10 of it is 1e-5 of a variance
VARIANCE_ATOL = 1e-6  # of the residual variance: below it only the difference counts


def read_rows() -> list[dict[str, str]]:
    """Rows of the table, without the backticks that make code of a cell."""
    with TABLE.open(newline="") as file:
        return [
            {name: cell.replace("``", "") for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]


ROWS = read_rows()
FITS = json.loads((DATA / "formulas.json").read_text())["fits"]


def fit(row: dict[str, str]) -> MacKayMixedRegressor:
    X = read_table(f"{row['Data']}.csv", [])
    y = X.pop(row["lmer"].partition(" ~")[0])
    code = f"MacKayMixedRegressor({row['MacKayMixedRegressor']}).fit({row['fit']})"
    return eval(code, {"MacKayMixedRegressor": MacKayMixedRegressor, "pd": pd, "X": X, "y": y})


def test_the_page_shows_the_formulas_that_lme4_fitted():
    assert f".. csv-table::\n   :file: {TABLE.name}\n" in PAGE.read_text()
    fitted = [(answer["data"], answer["lmer"]) for answer in FITS]
    assert [(row["Data"], row["lmer"]) for row in ROWS] == fitted


@pytest.mark.parametrize(
    ("row", "answer"),
    list(zip(ROWS, FITS, strict=True)),
    ids=[f"{row['Data']}: {row['lmer']}" for row in ROWS],
)
def test_row_is_the_fit_of_lme4(row, answer):
    model = fit(row)
    assert model.converged_
    assert model.singular_ == answer["singular"]
    assert_allclose(-2.0 * model.log_likelihood_, answer["criterion"], rtol=0, atol=CRITERION_ATOL)

    beta = fixed_estimates(model) if model.fit_intercept else existing_coef(model)
    assert_allclose(beta, list(answer["fixef"].values()), rtol=COEFFICIENT_RTOL)

    assert sorted(model.groups_) == sorted(answer["varcomp"])
    for name, expected in {**answer["varcomp"], "residual": answer["sigma2"]}.items():
        found, expected = np.atleast_2d(model.variance_components_[name]), np.atleast_2d(expected)
        atol = VARIANCE_ATOL * answer["sigma2"]
        assert_allclose(found, expected, rtol=VARIANCE_RTOL, atol=atol, err_msg=name)
