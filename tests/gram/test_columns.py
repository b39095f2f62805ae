"""Gram blocks in other columns equal those of the transformed rows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import STRUCTURES, random_problem
from scipy import linalg, sparse

from sklearn_mackay.gram.columns import (
    hold_combination,
    in_columns,
    of_output,
    with_response,
    without_fixed,
)

RTOL = 1e-12  # of the largest number of a block: sums of 40 products in another order

by_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


def numbers(crossproducts):
    """All arrays of Gram blocks, by name."""
    found = {"FWF": crossproducts.FWF, "penalty": crossproducts.penalty}
    for k, term in enumerate(crossproducts.terms):
        found |= {f"own {k}": term.own, f"ZWF {k}": term.ZWF}
    return found | {f"cross {pair}": t.blocks for pair, t in crossproducts.tables.items()}


def assert_same(actual, expected):
    here, there = numbers(actual), numbers(expected)
    assert here.keys() == there.keys()
    for name, array in here.items():
        size = np.max(np.abs(there[name]), initial=0.0)
        assert_allclose(array, there[name], rtol=0, atol=RTOL * size, err_msg=name)


@by_structure
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_columns_of_the_fixed_part_and_the_response(rng, structure, container):
    problem = random_problem(rng, p=3, weighted=True, **structure)
    M = rng.normal(size=(4, 3))
    new = np.column_stack([problem.X, problem.y]) @ M
    there = replace(problem, X=new[:, :2], y=new[:, 2], penalty=np.zeros(2))
    found = in_columns(problem.crossproducts(), container(M), penalty=np.zeros(2))
    assert_same(found, there.crossproducts())
    assert all(term.ZWF.flags.c_contiguous for term in found.terms)


@by_structure
def test_coefficients_of_terms(rng, structure):
    problem = random_problem(rng, p=2, weighted=True, **structure)
    A = {
        k: rng.normal(size=(term.n_coefficients,) * 2)
        for k, term in enumerate(problem.terms)
        if k != 1
    }
    terms = [
        replace(term, columns=A[k].T @ term.columns) if k in A else term
        for k, term in enumerate(problem.terms)
    ]
    here = problem.crossproducts()
    found = in_columns(here, np.eye(3), penalty=here.penalty, A=A)
    assert_same(found, replace(problem, terms=tuple(terms)).crossproducts())


def test_one_after_the_other_is_the_product(rng):
    here = random_problem(rng, levels=(6, 5), coefficients=(2, 1), p=3).crossproducts()
    M, N = rng.normal(size=(4, 4)), rng.normal(size=(4, 3))
    A, B = rng.normal(size=(2, 2)), rng.normal(size=(2, 1))
    one_by_one = in_columns(
        in_columns(here, M, penalty=np.zeros(3), A={0: A}), N, penalty=np.zeros(2), A={0: B}
    )
    assert_same(one_by_one, in_columns(here, M @ N, penalty=np.zeros(2), A={0: A @ B}))


@by_structure
def test_the_model_without_its_fixed_part(rng, structure):
    problem = random_problem(rng, p=3, **structure)
    there = replace(problem, X=problem.X[:, :0], penalty=np.zeros(0))
    assert_same(without_fixed(problem.crossproducts()), there.crossproducts())


@by_structure
def test_another_response(rng, structure):
    problem = random_problem(rng, p=2, weighted=True, **structure)
    there = replace(problem, y=rng.normal(size=len(problem.y))).crossproducts()
    on_terms = [term.ZWF[:, -1] for term in there.terms]
    found = with_response(
        problem.crossproducts(), on_terms, there.FWF[:-1, -1], float(there.FWF[-1, -1])
    )
    assert_same(found, there)


def test_a_held_combination_leaves_a_column_and_an_offset(rng):
    problem = random_problem(rng, levels=(6,), p=3)
    direction = rng.normal(size=3)
    rest = linalg.null_space(direction[None])
    known = 0.7 * problem.X @ direction / (direction @ direction)
    there = replace(problem, X=problem.X @ rest, y=problem.y - known, penalty=np.zeros(2))
    assert_same(hold_combination(problem.crossproducts(), direction, 0.7), there.crossproducts())


def test_of_a_single_response_nothing_is_made(rng):
    here = random_problem(rng, levels=(6,)).crossproducts()
    assert of_output(here, 0) is here
    moved = in_columns(here, np.eye(3), penalty=here.penalty)
    assert_array_equal(moved.terms[0].own, here.terms[0].own)
