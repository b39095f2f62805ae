"""The sparse Z of a term, its scaling, and the small functions around it."""

from __future__ import annotations

import numpy as np
import pytest
from designs import term_of
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from structured import structure_of

from sklearn_mackay._arrays import root_mean_square, row_scaled, to_dense
from sklearn_mackay.design.terms import random_part
from sklearn_mackay.design.weighted import WeightedRows

ATOL = 1e-13  # some roundings of numbers of order one
SCALE_RTOL = 1e-14  # a handful of roundings, free of overflow


def dense_Z(codes, n_levels, columns):
    """Row by row: the values of a row stand in the columns of its level."""
    s = len(columns)
    Z = np.zeros((len(codes), n_levels * s))
    for i, code in enumerate(codes):
        Z[i, code * s : (code + 1) * s] = columns[:, i]
    return Z


@pytest.fixture
def codes(rng):
    return rng.permutation(np.append(np.arange(5), rng.integers(5, size=25)))


@pytest.fixture
def weights(rng):
    return rng.uniform(0.5, 2.0, size=30)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(("n_slopes", "intercept"), [(0, True), (1, True), (3, True), (1, False)])
def test_transform_undoes_scaling_and_centring(rng, codes, weights, n_slopes, intercept, diagonal):
    slopes = 40.0 * rng.normal(loc=[5.0, 0.0, -300.0][:n_slopes], size=(30, n_slopes))
    term = term_of(
        codes,
        5,
        slopes,
        WeightedRows(weights),
        intercept=intercept,
        structure=structure_of(diagonal),
    )
    s = n_slopes + intercept
    assert term.n_coefficients == s
    assert term.structure is structure_of(diagonal)
    Z = term.Z()
    assert sparse.issparse(Z)
    assert Z.nnz == 30 * s
    assert_array_equal(Z.toarray(), dense_Z(codes, 5, term.columns))

    user_columns = np.vstack([np.ones((int(intercept), 30)), slopes.T])
    size = np.max(np.abs(user_columns))
    internal = rng.normal(size=(5, s))
    user = internal @ term.transform.T
    expected = dense_Z(codes, 5, user_columns) @ user.ravel()
    atol = ATOL * size * np.max(np.abs(user))
    assert_allclose(Z @ internal.ravel(), expected, rtol=0, atol=atol)
    atol = ATOL * size * np.max(np.abs(term.transform))
    assert_allclose(term.columns.T, user_columns.T @ term.transform, rtol=0, atol=atol)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_slopes_have_unit_root_mean_square(rng, codes, weights, intercept, diagonal):
    slopes = rng.normal(loc=[5.0, 0.0], size=(30, 2)) * [1e-8, 1e6]
    term = term_of(
        codes,
        5,
        slopes,
        WeightedRows(weights),
        intercept=intercept,
        structure=structure_of(diagonal),
    )
    scaled = term.columns[int(intercept) :]
    assert_allclose(np.average(scaled**2, axis=1, weights=weights), 1.0, rtol=ATOL)
    if intercept and not diagonal:
        assert_allclose(np.average(scaled, axis=1, weights=weights), 0.0, atol=ATOL)
    else:
        assert_array_equal(np.diag(np.diag(term.transform)), term.transform)
    if intercept:
        assert_array_equal(term.columns[0], 1.0)


def test_a_shift_of_a_slope_changes_only_the_transform(rng, codes, weights):
    slope = rng.normal(size=(30, 1))
    here = term_of(
        codes, 5, slope, WeightedRows(weights), intercept=True, structure=structure_of(False)
    )
    there = term_of(
        codes,
        5,
        slope + 1000.0,
        WeightedRows(weights),
        intercept=True,
        structure=structure_of(False),
    )
    assert_allclose(here.columns, there.columns, rtol=0, atol=1000 * ATOL)


def test_a_slope_of_zeros_keeps_a_finite_scale(codes, weights):
    term = term_of(
        codes,
        5,
        np.zeros((30, 1)),
        WeightedRows(weights),
        intercept=True,
        structure=structure_of(False),
    )
    assert_array_equal(term.columns[1], 0.0)
    assert_array_equal(term.transform, np.eye(2))


@pytest.mark.parametrize("exponent", [-150, -100, -3, 0, 3, 100, 150])
def test_root_mean_square_neither_overflows_nor_underflows(rng, weights, exponent):
    x = rng.normal(size=(30, 2))
    expected = np.sqrt(weights @ x**2 / np.sum(weights))
    scale = 10.0**exponent
    assert_allclose(root_mean_square(x * scale, weights), expected * scale, rtol=SCALE_RTOL)


def test_root_mean_square_of_mixed_magnitudes_and_zeros(weights):
    columns = np.zeros((30, 3))
    columns[0] = 1e150
    columns[1:, 1] = 1e-150
    columns[:, 2] = 0.0
    peak = 1e150 * np.sqrt(weights[0] / np.sum(weights))
    assert_allclose(root_mean_square(columns, weights), [peak, peak, 1.0], rtol=SCALE_RTOL)
    assert root_mean_square(np.zeros((30, 0)), weights).shape == (0,)


def test_random_part_looks_effects_up(rng, codes):
    columns = rng.normal(size=(2, 30))
    effects = rng.normal(size=(5, 2))
    expected = dense_Z(codes, 5, columns) @ effects.ravel()
    assert_allclose(random_part(codes, columns, effects), expected, rtol=0, atol=ATOL)
    unseen = codes.copy()
    unseen[::3] = -1
    part = random_part(unseen, columns, effects)
    assert_array_equal(part[::3], 0.0)
    seen = unseen >= 0
    assert_allclose(part[seen], expected[seen], rtol=0, atol=ATOL)
    assert_array_equal(random_part(np.full(30, -1), columns, effects), np.zeros(30))


def test_row_scaled_and_to_dense(rng, weights):
    matrix = rng.normal(size=(30, 3)) * (rng.random((30, 3)) < 0.5)
    expected = np.diag(weights) @ matrix
    assert_allclose(row_scaled(matrix, weights), expected, rtol=0, atol=ATOL)
    scaled = row_scaled(sparse.csr_array(matrix), weights)
    assert sparse.issparse(scaled)
    assert_allclose(to_dense(scaled), expected, rtol=0, atol=ATOL)
    assert_array_equal(to_dense(matrix), matrix)
