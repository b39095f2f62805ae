"""Gram blocks against the dense product of the whole design."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import Problem, random_problem
from scipy import sparse

from sklearn_mackay._crossproducts import CrossProducts, build_crossproducts
from sklearn_mackay._design import Term

RTOL = 1e-13  # of the largest entry: sums of some dozen products

STRUCTURES = {
    "no terms": dict(levels=()),
    "one term": dict(levels=(6,), coefficients=(3,)),
    "crossed": dict(levels=(6, 5, 4), coefficients=(2, 1, 3)),
    "nested": dict(levels=(9, 4, 2), coefficients=(1, 2, 1), coarsens=(None, 0, 1)),
}

by_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


def assembled(crossproducts: CrossProducts) -> np.ndarray:
    """``[Z X y]'W[Z X y]`` from its blocks, coefficients of a level side by side."""
    terms = crossproducts.terms
    sizes = [term.n_coefficients * term.n_levels for term in terms]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    gram = np.zeros((start[-1] + len(crossproducts.fixed),) * 2)
    gram[start[-1] :, start[-1] :] = crossproducts.fixed

    def place(k, level):
        s = terms[k].n_coefficients
        return slice(start[k] + level * s, start[k] + (level + 1) * s)

    for k, term in enumerate(terms):
        for level in range(term.n_levels):
            gram[place(k, level), place(k, level)] = term.own[:, :, level]
            gram[place(k, level), start[-1] :] = term.fixed[:, :, level]
            gram[start[-1] :, place(k, level)] = term.fixed[:, :, level].T
    for (k, l), table in crossproducts.cross.items():
        for i, (row, column) in enumerate(zip(table.row_levels, table.column_levels, strict=True)):
            gram[place(k, row), place(l, column)] = table.blocks[:, :, i]
            gram[place(l, column), place(k, row)] = table.blocks[:, :, i].T
    return gram


def dense_gram(problem: Problem) -> np.ndarray:
    everything = np.hstack(
        [*(term.Z().toarray() for term in problem.terms), problem.X, problem.y[:, None]]
    )
    return everything.T @ (problem.weights[:, None] * everything)


def assert_close(actual, expected):
    assert_allclose(actual, expected, rtol=0, atol=RTOL * np.max(np.abs(expected), initial=0.0))


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("p", [0, 3])
@by_structure
def test_blocks_equal_the_dense_product(rng, structure, p, weighted):
    problem = random_problem(rng, p=p, weighted=weighted, **structure)
    crossproducts = problem.crossproducts()
    assert_close(assembled(crossproducts), dense_gram(problem))
    assert crossproducts.n_unpenalized == p
    assert crossproducts.n == 40
    for term, gram in zip(problem.terms, crossproducts.terms, strict=True):
        assert (gram.n_levels, gram.n_coefficients) == (term.n_levels, term.n_coefficients)
        assert gram.diagonal == term.diagonal


def test_only_pairs_of_levels_that_meet_are_stored(rng):
    problem = random_problem(rng, **STRUCTURES["crossed"])
    for (k, l), table in problem.crossproducts().cross.items():
        pairs = set(zip(problem.terms[k].codes, problem.terms[l].codes, strict=True))
        stored = list(zip(table.row_levels, table.column_levels, strict=True))
        assert stored == sorted(pairs)
    nested = random_problem(rng, **STRUCTURES["nested"]).crossproducts()
    assert [len(table.row_levels) for table in nested.cross.values()] == [9, 9, 4]


def test_transposed_cross_table(rng):
    problem = random_problem(rng, weighted=True, **STRUCTURES["crossed"])
    swapped = replace(problem, terms=problem.terms[::-1]).crossproducts()
    for (k, l), table in problem.crossproducts().cross.items():
        expected = swapped.cross[2 - l, 2 - k]
        actual = table.transposed
        assert_array_equal(actual.row_levels, expected.row_levels)
        assert_array_equal(actual.column_levels, expected.column_levels)
        assert_close(actual.blocks, expected.blocks)


@by_structure
def test_blocks_of_two_data_sets_add(rng, structure):
    problem = random_problem(rng, n=60, weighted=True, **structure)

    def rows(chosen):
        terms = tuple(
            Term(t.codes[chosen], t.n_levels, t.columns[:, chosen], t.transform, t.diagonal)
            for t in problem.terms
        )
        return replace(
            problem,
            terms=terms,
            X=problem.X[chosen],
            y=problem.y[chosen],
            weights=problem.weights[chosen],
        )

    whole = problem.crossproducts()
    parts = [rows(slice(None, 25)).crossproducts(), rows(slice(25, None)).crossproducts()]
    assert_close(sum(assembled(part) for part in parts), assembled(whole))
    assert sum(part.n for part in parts) == whole.n
    assert_allclose(sum(part.sum_log_weights for part in parts), whole.sum_log_weights)


@by_structure
def test_sparse_X_equals_dense(rng, structure):
    problem = random_problem(rng, p=4, weighted=True, **structure)
    problem = replace(problem, X=problem.X * (rng.random(problem.X.shape) < 0.4))
    dense = problem.crossproducts()
    for container in (sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.csr_matrix):
        built = build_crossproducts(
            problem.terms,
            container(problem.X),
            problem.y,
            problem.weights,
            penalty=problem.penalty,
            n=40,
            sum_log_weights=0.0,
        )
        assert isinstance(built.fixed, np.ndarray)
        assert_close(assembled(built), assembled(dense))


def test_frequency_weights_equal_repeated_rows(rng):
    problem = random_problem(rng, **STRUCTURES["crossed"])
    counts = rng.integers(1, 4, size=40)
    repeated = np.repeat(np.arange(40), counts)
    terms = tuple(
        Term(t.codes[repeated], t.n_levels, t.columns[:, repeated], t.transform, t.diagonal)
        for t in problem.terms
    )
    rows = replace(
        problem,
        terms=terms,
        X=problem.X[repeated],
        y=problem.y[repeated],
        weights=np.ones(len(repeated)),
    )
    weighted = replace(problem, weights=counts.astype(float)).crossproducts()
    assert_close(assembled(weighted), assembled(rows.crossproducts()))


def test_penalised_columns_are_counted(rng):
    problem = random_problem(rng, p=5, n_penalized=2)
    crossproducts = problem.crossproducts()
    assert crossproducts.n_unpenalized == 3
    assert_array_equal(crossproducts.penalty, problem.penalty)
    # The penalty is no part of the data's Gram block.
    assert_close(assembled(crossproducts), dense_gram(problem))


def test_many_levels_stay_sparse(rng):
    n = 4000
    problem = random_problem(rng, n=n, levels=(2000, 1500))
    crossproducts = problem.crossproducts()
    assert crossproducts.terms[0].own.size == 2000
    assert crossproducts.cross[0, 1].blocks.size <= n
    assert crossproducts.cross[0, 1].row_levels.dtype == np.int32
    v = rng.normal(size=1500)
    table = crossproducts.cross[0, 1]
    product = np.zeros(2000)
    np.add.at(product, table.row_levels, table.blocks[0, 0] * v[table.column_levels])
    assert_close(product, problem.terms[0].Z().T @ (problem.terms[1].Z() @ v))


def test_rows_in_blocks_give_the_same(rng, monkeypatch):
    problem = random_problem(rng, levels=(6, 5), coefficients=(2, 1), weighted=True)
    whole = assembled(problem.crossproducts())
    monkeypatch.setattr("sklearn_mackay._design.BLOCK_ENTRIES", 28)
    assert_close(assembled(problem.crossproducts()), whole)
