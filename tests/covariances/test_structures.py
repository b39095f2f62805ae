"""Structures of covariances: what each says about matrices, and that it keeps within them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mackay.covariances.matrices import is_inside
from sklearn_mackay.covariances.structures import DIAGONAL, FULL, principal_directions

RTOL = 1e-12  # small matrices: a few operations on each entry

both = pytest.mark.parametrize("structure", [FULL, DIAGONAL], ids=["full", "diagonal"])


def random_covariance(rng, structure, s=4, rank=4):
    root = rng.normal(size=(s, rank))
    return structure.projected(root @ root.T)


@both
@pytest.mark.parametrize("s", [1, 2, 4])
def test_units_span_the_matrices_of_the_structure(rng, structure, s):
    units = structure.units(s)
    assert units.shape == (structure.n_parameters(s), s, s)
    assert_array_equal(units, units.swapaxes(1, 2))
    assert np.linalg.matrix_rank(units.reshape(len(units), -1)) == len(units)
    Sigma = random_covariance(rng, structure, s, s)
    norms = np.einsum("iab,iab->i", units, units)
    coordinates = np.tensordot(units, Sigma, 2) / norms
    assert_allclose(np.tensordot(coordinates, units, 1), Sigma, rtol=RTOL, atol=0)


@both
def test_projection_is_the_closest_matrix(rng, structure):
    matrix = rng.normal(size=(4, 4))
    matrix = matrix + matrix.T
    left = matrix - structure.projected(matrix)
    assert_allclose(np.tensordot(structure.units(4), left, 2), 0.0, atol=RTOL)
    assert_array_equal(
        structure.projected(structure.projected(matrix)), structure.projected(matrix)
    )


@both
def test_principal_directions_compose_the_covariance(rng, structure):
    Sigma, N = random_covariance(rng, structure), random_covariance(rng, FULL)
    variances, vectors, gamma = principal_directions(structure, Sigma, N)
    assert_allclose((vectors * variances) @ vectors.T, Sigma, atol=RTOL * np.trace(Sigma))
    assert_allclose(np.sum(gamma), np.sum(N * Sigma), rtol=RTOL)


def test_variances_that_are_rounding_are_zero(rng):
    Sigma = random_covariance(rng, FULL, rank=2)
    assert np.sum(FULL.principal(Sigma)[0] == 0.0) == 2
    assert_array_equal(DIAGONAL.principal(np.diag([1.0, 1e-15, 0.0]))[0], [1.0, 0.0, 0.0])


@both
def test_changes_of_a_factor_stay_within_the_structure(rng, structure):
    variances, vectors = structure.principal(random_covariance(rng, structure))
    T = vectors * np.sqrt(variances)
    for i, j in structure.factor_entries(4):
        moved = T.copy()
        moved[:, j] += 0.3 * vectors[:, i]
        Sigma = moved @ moved.T
        assert_allclose(structure.projected(Sigma), Sigma, atol=RTOL * np.trace(Sigma))
    assert len(structure.factor_entries(4)) == structure.n_parameters(4)


@both
def test_a_step_along_the_geodesic_solves_its_equation(rng, structure):
    Sigma, N, vv = (random_covariance(rng, structure) for _ in range(3))
    M = structure.geodesic(Sigma, N, vv, 1)
    U = Sigma @ vv @ Sigma
    assert_allclose(structure.projected(M @ N @ M), structure.projected(U), rtol=1e3 * RTOL)
    assert_array_equal(structure.projected(M), M)


@both
def test_a_basis_without_directions_lacks_them(rng, structure):
    taken = np.eye(4)[:, [2]]
    basis = structure.basis_without(np.eye(4), taken, np.eye(4))
    assert basis.shape == (4, 3)
    assert_allclose(basis.T @ taken, 0.0, atol=RTOL)
    again = structure.basis_without(basis, np.eye(4)[:, [0]], np.eye(4))
    assert again.shape == (4, 2)
    assert_allclose(again.T @ np.eye(4)[:, [0, 2]], 0.0, atol=RTOL)


def test_of_correlated_coefficients_the_metric_says_what_is_apart(rng):
    metric, taken = rng.normal(size=(3, 3)), rng.normal(size=(3, 1))
    basis = FULL.basis_without(np.eye(3), taken, metric)
    assert_allclose((metric @ taken).T @ (metric @ basis), 0.0, atol=10 * RTOL)


def test_random_directions_may_have_a_variance_alone(rng):
    generator = np.random.RandomState(0)
    directions = FULL.random_directions(4, generator)
    assert_allclose(directions.T @ directions, np.eye(4), atol=RTOL)
    assert_array_equal(DIAGONAL.random_directions(3, generator), np.eye(3))


@pytest.mark.parametrize(
    ("Sigma", "expected"),
    [
        ([[1e-30]], True),
        ([[0.0]], False),
        ([[np.nan]], False),
        ([[1e8, 0.5], [0.5, 1e-8]], True),  # however unequal the units
        ([[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]], False),
        ([[1.0, 0.0], [0.0, 0.0]], False),
    ],
)
def test_the_boundary_is_a_variance_of_zero_or_a_correlation_of_one(Sigma, expected):
    assert is_inside(np.array(Sigma)) is expected
