"""Rows of two crossed factors, and the model that they were drawn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
from structured import structure_of

from sklearn_mackay.design.terms import Term

SLOPES = {"groups": ["a", "b"], "random_slopes": {"a": ["x"]}}


class Data:
    """Rows of two crossed factors, ``a`` with 12 levels and a slope of ``x``, ``b`` with 7."""

    def __init__(self, rng: np.random.Generator, n: int = 150) -> None:
        self.a, self.b = rng.integers(0, 12, n), rng.integers(0, 7, n)
        self.x, self.z = rng.normal(2.0, 1.0, n), rng.normal(size=n)
        self.frame = pd.DataFrame(
            {"x": self.x, "z": self.z, "a": [f"a{code:02d}" for code in self.a], "b": self.b}
        )
        intercepts, slopes = 1.5 * rng.normal(size=12), 0.6 * rng.normal(size=12)
        self.y = 1.0 + 0.5 * self.x + 0.2 * self.z + intercepts[self.a] + slopes[self.a] * self.x
        self.y += rng.normal(size=7)[self.b] + 0.7 * rng.normal(size=n)

    @property
    def array(self) -> np.ndarray:
        return np.column_stack([self.x, self.z, self.a, self.b])

    @property
    def design(self) -> np.ndarray:
        return np.column_stack([np.ones(len(self.y)), self.x, self.z])

    def terms(self, *, slope: bool = True, diagonal: bool = False) -> tuple[Term, Term]:
        return (
            term(self.a, *[np.ones(len(self.y)), self.x][: 1 + slope], diagonal=diagonal),
            term(self.b, np.ones(len(self.y))),
        )


def term(codes: np.ndarray, *columns: np.ndarray, diagonal: bool = False) -> Term:
    return Term(
        codes,
        int(codes.max()) + 1,
        np.vstack(columns),
        np.eye(len(columns)),
        structure_of(diagonal),
    )
