"""Sums over rows about a pivot: the same problem as from the rows, and parts that add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import columns_of, factor_rows, options
from numpy.testing import assert_allclose, assert_array_equal
from structured import structure_of

from sklearn_mackay.design.summed import Coordinates, sharper
from sklearn_mackay.frames.roles import FactorColumns
from sklearn_mackay.gram import pairs
from sklearn_mackay.gram.from_rows import sum_columns
from sklearn_mackay.gram.pairs import Levels
from sklearn_mackay.gram.sums import about, add
from sklearn_mackay.model.posing import lay_out_blocks, pose_columns, pose_rows

ROUNDING = 1e-12  # of the largest entry: sums of some hundred products, in two arrangements
OFFSET_RTOL = 1e-15  # per unit of an offset, of which so many digits are none of the spread's
HARD_RTOL = 1e-7  # of columns that differ in their eighth digit: so many of theirs are left
N = 120


def assert_close(actual, expected, rtol=ROUNDING):
    assert_allclose(actual, expected, rtol=0, atol=rtol * max(np.max(np.abs(expected)), 1.0))


def assert_same_products(actual, expected, rtol=ROUNDING):
    """Every number of two Gram blocks; whole tables, in their order."""
    assert_close(actual.FWF, expected.FWF, rtol)
    assert_allclose(actual.penalty, expected.penalty, rtol=rtol)
    assert_allclose(
        [actual.n, actual.sum_log_weights],
        [expected.n, expected.sum_log_weights],
        rtol=rtol,
        atol=N * rtol,
    )
    for one, other in zip(actual.terms, expected.terms, strict=True):
        assert_close(one.own, other.own, rtol)
        assert_close(one.ZWF, other.ZWF, rtol)
    assert actual.tables.keys() == expected.tables.keys()
    for pair, table in expected.tables.items():
        assert_array_equal(actual.tables[pair].row_levels, table.row_levels)
        assert_array_equal(actual.tables[pair].column_levels, table.column_levels)
        assert_close(actual.tables[pair].blocks, table.blocks, rtol)


def assert_same_problem(actual, expected, rtol=ROUNDING):
    """Gram blocks in internal coordinates, and the way to the user's."""
    assert_same_products(actual.crossproducts, expected.crossproducts, rtol)
    assert_close(actual.fixed.to_coefficients, expected.fixed.to_coefficients, rtol)
    assert_array_equal(actual.fixed.dropped, expected.fixed.dropped)
    assert_allclose(actual.fixed.log_det_basis, expected.fixed.log_det_basis, rtol=rtol, atol=rtol)
    assert_allclose(actual.fixed.condition, expected.fixed.condition, rtol=rtol)
    assert_close(actual.output.offset, expected.output.offset, rtol)
    for name in ("scale", "mean", "sd"):
        assert_close(getattr(actual.output, name), getattr(expected.output, name), rtol)
    assert actual.output.is_explained == expected.output.is_explained
    for one, other in zip(actual.components, expected.components, strict=True):
        assert_close(one.transform, other.transform, rtol)


KINDS = {
    "intercepts": dict(),
    "slopes": dict(slopes=2),
    "diagonal": dict(slopes=2, diagonal=True),
    "no random intercept": dict(slopes=1, random_intercept=False),
    "no intercept": dict(slopes=1, fit_intercept=False),
    "penalty": dict(alpha=2.0),
    "penalty, no intercept": dict(alpha=2.0, fit_intercept=False),
    "no columns": dict(p=0),
    "one constant column": dict(constant=True),
    "frequency": dict(weighted=True, slopes=1),
    "precision": dict(weighted=True, frequency=False, alpha=1.0, slopes=1),
}


class Drawn:
    """Rows of two crossed factors, of which the first may have slopes."""

    def __init__(
        self,
        rng,
        *,
        p=3,
        slopes=0,
        diagonal=False,
        random_intercept=True,
        constant=False,
        weighted=False,
        **settings,
    ):
        self.X = rng.normal(size=(N, p)) @ np.triu(rng.normal(size=(p, p)) + 2.0) + rng.normal(
            size=p
        )
        if constant:
            self.X[:, 1] = 0.1
        self.y = rng.normal(size=(N, 1)) + self.X @ np.ones((p, 1))
        self.weights = rng.integers(1, 4, N) / 2.0 if weighted else np.ones(N)
        self.codes = [np.append(np.arange(L), rng.integers(L, size=N - L)) for L in (9, 5)]
        self.slopes = 3.0 + rng.normal(size=(N, slopes))
        self.kind = dict(intercept=random_intercept, structure=structure_of(diagonal))
        self.options = options(**settings)
        self.options = replace(
            self.options, structures={"g": structure_of(diagonal), "h": structure_of(False)}
        )
        names = ("intercept",) * random_intercept + tuple(f"x{j}" for j in range(slopes))
        self.roles = [
            FactorColumns("g", (0,), tuple(range(1, 1 + slopes)), random_intercept, names),
            FactorColumns("h", (0,), (), True, ("intercept",)),
        ]

    def columns(self, rows=slice(None), codes=None):
        g, h = codes or (of[rows] for of in self.codes)
        factors = [
            factor_rows(g, int(g.max()) + 1, self.slopes[rows], name="g", **self.kind),
            factor_rows(h, int(h.max()) + 1, name="h"),
        ]
        return columns_of(self.X[rows].copy(), self.weights[rows], factors)

    def sums(self, coordinates=None):
        return sum_columns(self.columns(), self.y, coordinates)

    def from_rows(self):
        (problem,) = pose_rows(self.columns(), self.y, self.options).problems
        return problem

    def from_sums(self, sums=None, known=None):
        internal = lay_out_blocks(sums or self.sums(), self.roles, self.options, known)
        return _OneOutput(internal)


class _OneOutput:
    """What is compared of blocks in internal coordinates, by the names that a problem has."""

    def __init__(self, internal):
        self.crossproducts, self.fixed = internal.crossproducts, internal.fixed
        self.components, self.keeps_digits = internal.components, internal.keeps_digits
        (self.output,) = internal.outputs


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_sums_give_the_problem_of_the_rows(rng, kind):
    for _ in range(5):
        data = Drawn(rng, **kind)
        actual = data.from_sums()
        assert actual.keeps_digits
        assert_same_problem(actual, data.from_rows())


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_pivot_does_not_matter(rng, kind):
    data = Drawn(rng, **kind)
    sums = data.sums()
    shift, _, of_slopes = sums.coordinates
    moved = Coordinates(shift + 1.5, None, tuple(center - 0.5 for center in of_slopes))
    assert_same_products(about(sums, moved).products, data.sums(moved).products)
    assert_same_problem(data.from_sums(data.sums(moved)), data.from_sums())
    assert about(sums, sums.coordinates) is sums


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_offsets_lose_what_is_no_digit_of_the_data(rng, offset):
    data = Drawn(rng, slopes=1)
    data.X, data.y, data.slopes = data.X + offset, data.y + offset, data.slopes + offset
    assert_same_products(
        data.from_sums().crossproducts, data.from_rows().crossproducts, OFFSET_RTOL * offset * N
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(("n_parts", "n_pairs"), [(2, 2**19), (7, 2**19), (2, 1), (7, 4)])
def test_parts_add(rng, monkeypatch, kind, n_parts, n_pairs):
    monkeypatch.setattr(pairs, "PART", n_pairs)
    data = Drawn(rng, **kind)
    parts = np.sort(rng.integers(n_parts, size=N))
    parts[:n_parts] = np.sort(np.arange(n_parts))
    parts.sort()
    total = levels = None
    for part in range(n_parts):
        rows = parts == part
        found = [np.unique(of[rows], return_inverse=True) for of in data.codes]
        one = sum_columns(data.columns(rows, [codes for _, codes in found]), data.y[rows])
        if total is None:
            total, levels = one, [labels for labels, _ in found]
            continue
        union = [np.union1d(a, b) for a, (b, _) in zip(levels, found, strict=True)]
        where = [
            tuple(Levels(np.searchsorted(both, labels), len(both)) for labels in (a, b))
            for both, a, (b, _) in zip(union, levels, found, strict=True)
        ]
        total, levels = add(total, one, where), union
    whole = data.sums(total.coordinates)
    assert_same_products(total.products, whole.products)
    assert_array_equal(total.largest, whole.largest)
    assert_array_equal(np.concatenate(total.largest_slopes), np.concatenate(whole.largest_slopes))
    assert total.n_rows == N
    assert_same_problem(data.from_sums(total), data.from_rows())


@pytest.mark.parametrize("kind", ["diagonal", "no random intercept"])
def test_zeros_of_slopes_that_are_not_centred_stay_zeros(rng, kind):
    data = Drawn(rng, **KINDS[kind])
    data.slopes = rng.integers(2, size=data.slopes.shape) * (data.codes[0] % 3 == 0)[:, None]
    own = data.from_sums().crossproducts.terms[0].own
    assert_array_equal(own == 0.0, data.from_rows().crossproducts.terms[0].own == 0.0)
    assert np.any(own[-1, -1] == 0.0)
    data.slopes = data.slopes + 1e6
    assert_same_problem(data.from_sums(), data.from_rows())


def nearly_collinear(rng):
    data = Drawn(rng, slopes=1)
    data.X[:, 2] = data.X[:, 0] + 1e-8 * rng.normal(size=N)
    return data


def nearly_explained(rng):
    data = Drawn(rng)
    data.y = 1e8 * data.X[:, :1] + rng.normal(size=(N, 1))
    return data


def exactly_collinear(rng):
    data = Drawn(rng)
    data.X[:, 2] = 3.0 * data.X[:, 0] - 1.0
    return data


def exactly_explained(rng):
    data = Drawn(rng)
    data.y = data.X @ np.ones((3, 1))
    return data


HARD = [nearly_collinear, nearly_explained, exactly_collinear, exactly_explained]


@pytest.mark.parametrize("draw", HARD)
def test_rows_are_looked_at_again_where_sums_lose_digits(rng, draw):
    data = draw(rng)
    assert not data.from_sums().keeps_digits
    (actual,) = pose_columns(data.columns(), data.y, data.sums(), data.roles, data.options).problems
    expected = data.from_rows()
    assert_array_equal(actual.crossproducts.FWF, expected.crossproducts.FWF)
    assert_array_equal(actual.fixed.dropped, expected.fixed.dropped)
    assert actual.output.is_explained == expected.output.is_explained


@pytest.mark.parametrize("size", [1e-300, 1e-140, 1e140, 1e200])
@pytest.mark.parametrize("what", ["X", "y", "slopes"])
def test_columns_whose_squares_are_no_numbers_are_not_summed(rng, what, size):
    data = Drawn(rng, slopes=1)
    assert data.columns().can_be_summed(data.y)
    setattr(data, what, getattr(data, what) * size)
    assert not data.columns().can_be_summed(data.y)


@pytest.mark.parametrize("draw", HARD)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_second_look_at_residuals_gives_back_the_digits(rng, draw, fit_intercept):
    data = draw(rng)
    data.options = replace(data.options, fit_intercept=fit_intercept)
    first = data.sums()
    again = sharper(first.of_fixed(), alpha=0.0, fit_intercept=fit_intercept)
    sums = data.sums(again)
    actual, expected = data.from_sums(sums, first.moments), data.from_rows()
    assert actual.keeps_digits
    assert actual.output.is_explained == expected.output.is_explained
    assert_array_equal(actual.fixed.dropped, expected.fixed.dropped)
    assert_allclose(actual.output.scale, expected.output.scale, rtol=HARD_RTOL)
    if not expected.output.is_explained:
        assert_same_products(actual.crossproducts, expected.crossproducts, HARD_RTOL)
