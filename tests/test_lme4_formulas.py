"""The formulas of the page "Coming from lme4": each row of its table fits what lme4 fits."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from coefficients import existing_coef, fixed_estimates
from numpy.testing import assert_allclose
from reference_data import DATA, read_table

from sklearn_mackay import MacKayMixedRegressor, datasets

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


def data_of(row: dict[str, str]) -> str:
    """Name of the data set: load_cake is the loader of cake, and InstEval has none."""
    return row["Data"].removeprefix("load_").lower()


def load(row: dict[str, str]) -> tuple[pd.DataFrame, pd.Series]:
    if row["Data"] == "InstEval":
        X = read_table("insteval.csv", [])
        return X, X.pop("y")
    return getattr(datasets, row["Data"])(as_frame=True, return_X_y=True)


def fit(row: dict[str, str]) -> MacKayMixedRegressor:
    X, y = load(row)
    code = f"MacKayMixedRegressor({row['MacKayMixedRegressor']}).fit({row['fit']})"
    return eval(code, {"MacKayMixedRegressor": MacKayMixedRegressor, "pd": pd, "X": X, "y": y})


def test_the_page_shows_the_formulas_that_lme4_fitted():
    assert f".. csv-table::\n   :file: {TABLE.name}\n" in PAGE.read_text()
    fitted = [(answer["data"], answer["lmer"]) for answer in FITS]
    assert [(data_of(row), row["lmer"]) for row in ROWS] == fitted


def test_every_data_set_but_insteval_has_a_loader_whose_columns_the_formulas_use():
    assert {row["Data"] for row in ROWS if not hasattr(datasets, row["Data"])} == {"InstEval"}
    for row in ROWS:
        X, y = load(row)
        response, _, terms = row["lmer"].partition(" ~ ")
        words = set(re.findall(r"[A-Za-z]+", terms.partition(",")[0])) - {"I"}
        assert (y.name, words - set(X.columns)) == (response, set())


@pytest.mark.parametrize(
    ("row", "answer"),
    list(zip(ROWS, FITS, strict=True)),
    ids=[f"{data_of(row)}: {row['lmer']}" for row in ROWS],
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
