"""Gram blocks against the dense product of the whole design."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import design_of, gram_blocks
from numpy.testing import assert_allclose, assert_array_equal
from reference import Problem, random_problem
from scipy import sparse

from sklearn_mackay._arrays import row_blocks, to_dense
from sklearn_mackay.covariances.structures import DIAGONAL
from sklearn_mackay.design.blocks import make_block
from sklearn_mackay.design.terms import Term
from sklearn_mackay.design.weighted import WeightedRows
from sklearn_mackay.gram.columns import of_output, without_fixed
from sklearn_mackay.gram.crossproducts import CrossProducts, TermGram
from sklearn_mackay.gram.from_rows import build_crossproducts

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
    gram = np.zeros((start[-1] + len(crossproducts.FWF),) * 2)
    gram[start[-1] :, start[-1] :] = crossproducts.FWF

    def place(k, level):
        s = terms[k].n_coefficients
        return slice(start[k] + level * s, start[k] + (level + 1) * s)

    for k, term in enumerate(terms):
        for level in range(term.n_levels):
            gram[place(k, level), place(k, level)] = term.own[:, :, level]
            gram[place(k, level), start[-1] :] = term.ZWF[:, :, level]
            gram[start[-1] :, place(k, level)] = term.ZWF[:, :, level].T
    for (k, l), table in crossproducts.tables.items():
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
        assert gram.structure == term.structure


def test_only_pairs_of_levels_that_meet_are_stored(rng):
    problem = random_problem(rng, **STRUCTURES["crossed"])
    for (k, l), table in problem.crossproducts().tables.items():
        pairs = set(zip(problem.terms[k].codes, problem.terms[l].codes, strict=True))
        stored = list(zip(table.row_levels, table.column_levels, strict=True))
        assert stored == sorted(pairs)
    nested = random_problem(rng, **STRUCTURES["nested"]).crossproducts()
    assert [len(table.row_levels) for table in nested.tables.values()] == [9, 9, 4]


def test_transposed_cross_table(rng):
    problem = random_problem(rng, weighted=True, **STRUCTURES["crossed"])
    swapped = replace(problem, terms=problem.terms[::-1]).crossproducts()
    for (k, l), table in problem.crossproducts().tables.items():
        expected = swapped.tables[2 - l, 2 - k]
        actual = table.transposed
        assert_array_equal(actual.row_levels, expected.row_levels)
        assert_array_equal(actual.column_levels, expected.column_levels)
        assert_close(actual.blocks, expected.blocks)


@by_structure
def test_blocks_of_two_data_sets_add(rng, structure):
    problem = random_problem(rng, n=60, weighted=True, **structure)

    def rows(chosen):
        terms = tuple(
            Term(t.codes[chosen], t.n_levels, t.columns[:, chosen], t.transform, t.structure)
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
        built = gram_blocks(
            problem.terms,
            container(problem.X),
            problem.y,
            problem.weights,
            penalty=problem.penalty,
            n=40,
            sum_log_weights=0.0,
        )
        assert isinstance(built.FWF, np.ndarray)
        assert_close(assembled(built), assembled(dense))


def test_frequency_weights_equal_repeated_rows(rng):
    problem = random_problem(rng, **STRUCTURES["crossed"])
    counts = rng.integers(1, 4, size=40)
    repeated = np.repeat(np.arange(40), counts)
    terms = tuple(
        Term(t.codes[repeated], t.n_levels, t.columns[:, repeated], t.transform, t.structure)
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
    assert crossproducts.tables[0, 1].blocks.size <= n
    assert crossproducts.tables[0, 1].row_levels.dtype == np.int32
    v = rng.normal(size=1500)
    table = crossproducts.tables[0, 1]
    product = np.zeros(2000)
    np.add.at(product, table.row_levels, table.blocks[0, 0] * v[table.column_levels])
    assert_close(product, problem.terms[0].Z().T @ (problem.terms[1].Z() @ v))


@pytest.mark.parametrize("entries", [28, 1], ids=["some rows", "row by row"])
def test_rows_in_blocks_give_the_same(rng, monkeypatch, entries):
    problem = random_problem(rng, levels=(6, 5), coefficients=(2, 1), weighted=True)
    whole = assembled(problem.crossproducts())
    monkeypatch.setattr("sklearn_mackay._arrays.BLOCK_ENTRIES", entries)
    assert len(row_blocks(len(problem.y))) > 1
    assert_close(assembled(problem.crossproducts()), whole)


# Feature blocks, and views of the whole


def build(terms, X, y, weights):
    return build_with_large(terms, X, y, weights)[0]


def build_with_large(terms, X, y, weights):
    design = design_of(
        terms, X, weights, penalty=np.zeros(X.shape[1]), n=len(y), sum_log_weights=0.0
    )
    return build_crossproducts(design, y)


def columns_of(term, gram: TermGram) -> np.ndarray:
    """``Z`` of a factor, or of a block along its axes."""
    if isinstance(term, Term):
        return term.Z().toarray()
    rows = to_dense(term.rows(slice(None)))
    return rows if gram.axes is None else rows @ gram.axes


@pytest.mark.parametrize("sparse_X", [False, True], ids=["", "sparse X"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array], ids=["", "sparse blocks"])
@pytest.mark.parametrize("p", [0, 3])
@pytest.mark.parametrize("layout", ["small", "large"])
@by_structure
def test_blocks_of_columns_equal_the_dense_product(
    rng, monkeypatch, structure, layout, p, container, sparse_X
):
    # Small: one block has fewer columns than rows, one has more. Large: two blocks have no axes.
    sizes = {"small": (3, 60, 2), "large": (5, 60, 2, 1)}[layout]
    if layout == "large":
        monkeypatch.setattr("sklearn_mackay.design.blocks.LARGEST_GRAM", 3)
    problem = random_problem(rng, p=p, weighted=True, **structure)
    blocks = []
    for size in sizes:
        columns = rng.normal(size=(40, size)) * (rng.random((40, size)) < 0.5)
        blocks.append(make_block(container(columns), WeightedRows(problem.weights), centered=True))
    n_large = sum(block.is_large for block in blocks)
    assert n_large == {"small": 0, "large": 2}[layout]
    y = np.column_stack([problem.y, rng.normal(size=40)])
    terms = [*problem.terms, *blocks]
    X = sparse.csr_array(problem.X) if sparse_X else problem.X
    crossproducts, large_columns = build_with_large(terms, X, y, problem.weights)
    assert [*large_columns] == [n for n, gram in enumerate(crossproducts.terms) if gram.is_large]

    pairs = list(zip(terms, crossproducts.terms, strict=True))
    parts = [columns_of(term, gram) for term, gram in pairs]
    everything = np.hstack([*parts, problem.X, y])
    expected = everything.T @ (problem.weights[:, None] * everything)
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    n_factors = len(problem.terms)
    large = places[n_factors : n_factors + n_large]
    for i, place in enumerate(large):
        # The columns of large blocks stand for their products with one another.
        expected[place, place] = np.diag(np.diag(expected[place, place]))
        for other in large[:i]:
            expected[place, other] = expected[other, place] = 0.0
        root = np.sqrt(problem.weights)[:, None]
        assert_close(
            to_dense(large_columns[n_factors + i]), root * to_dense(blocks[i].rows(slice(None)))
        )
    assert_close(assembled(crossproducts), expected)
    kinds = [gram.is_block for gram in crossproducts.terms]
    assert kinds == [False] * n_factors + [True] * len(blocks)
    assert not any(gram.structure is DIAGONAL for gram in crossproducts.terms[n_factors:])
    n_terms = len(terms)
    stored = {(k, l) for k in range(n_terms) for l in range(k + 1, n_terms)}
    assert set(crossproducts.tables) == stored - (
        {(n_factors, n_factors + 1)} if n_large else set()
    )


def test_a_large_sparse_block_stores_what_its_columns_meet(rng, monkeypatch):
    monkeypatch.setattr("sklearn_mackay.design.blocks.LARGEST_GRAM", 3)
    problem = random_problem(rng, levels=(6,), coefficients=(2,))
    columns = np.zeros((40, 5))
    columns[np.arange(40), np.minimum(problem.terms[0].codes, 4)] = 1.0
    block = make_block(sparse.csr_array(columns), WeightedRows(problem.weights), centered=False)
    table = build([*problem.terms, block], problem.X, problem.y, problem.weights).tables[0, 1]
    assert_array_equal(table.row_levels, [0, 1, 2, 3, 4, 5])
    assert_array_equal(table.column_levels, [0, 1, 2, 3, 4, 4])
    assert table.row_levels.dtype == table.column_levels.dtype == np.int32


@pytest.mark.parametrize("p", [0, 3])
@by_structure
def test_one_of_several_responses(rng, structure, p):
    problem = random_problem(rng, p=p, weighted=True, **structure)
    responses = rng.normal(size=(40, 3))
    several = build(problem.terms, problem.X, responses, problem.weights)
    for j, y in enumerate(responses.T):
        alone = build(problem.terms, problem.X, y, problem.weights)
        assert_close(assembled(of_output(several, j)), assembled(alone))
        assert of_output(alone, 0) is alone


@by_structure
def test_model_without_its_fixed_part(rng, structure):
    problem = random_problem(rng, p=4, n_penalized=2, weighted=True, **structure)
    without = without_fixed(problem.crossproducts())
    expected = replace(problem, X=problem.X[:, :0], penalty=np.zeros(0)).crossproducts()
    assert_close(assembled(without), assembled(expected))
    assert without.n_unpenalized == len(without.penalty) == 0


def test_sizes(rng):
    # Effects 12, 5 and 12: one of the largest terms is eliminated.
    crossproducts = random_problem(rng, p=3, **STRUCTURES["crossed"]).crossproducts()
    assert [term.n_effects for term in crossproducts.terms] == [12, 5, 12]
    assert crossproducts.dense_order == 17 + 3
    assert random_problem(rng, p=3, levels=()).crossproducts().dense_order == 3
    # Each term with itself and with [X y]; a cross-table and its transpose.
    own = 2 * 2 * 6 + 1 * 1 * 5 + 3 * 3 * 4
    fixed = 4 * (12 + 5 + 12)
    meet = {pair: len(table.row_levels) for pair, table in crossproducts.tables.items()}
    crossed = 2 * (2 * meet[0, 1] + 6 * meet[0, 2] + 3 * meet[1, 2])
    assert crossproducts.n_entries == own + fixed + crossed
