"""Eliminating a chain of nested terms against one dense factorisation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from reference import random_problem
from scipy.linalg import block_diag

from sklearn_mackay.gram.layout import choose_layout, gram_matrix
from sklearn_mackay.kernels.elimination import eliminate
from sklearn_mackay.kernels.linalg import matmul
from sklearn_mackay.kernels.tensors import to_tensors

RTOL = 1e-11  # sums of some hundred numbers in another order


@pytest.mark.parametrize("sd", [0.0, 1e-9, 1.0, 1e3])
def test_takes_off_what_a_dense_factorisation_does(rng, sd):
    problem = random_problem(
        rng, n=300, levels=(40, 12, 4), coefficients=(2, 1, 2), coarsens=(None, 0, 1), p=3
    )
    crossproducts = problem.crossproducts()
    layout = choose_layout(crossproducts)
    assert layout.rest == ()
    terms = [crossproducts.terms[k] for k in layout.chain]
    T = [rng.normal(size=(term.n_coefficients,) * 2) for term in terms]
    T[1] *= sd
    chain = to_tensors(crossproducts, layout, reml=True).chain
    elimination = eliminate([block.nested for block in chain], T)
    taken = sum(
        np.einsum("apl,aql->pq", fixed, matmul(W, fixed))
        for (fixed,), W in zip(elimination.values, elimination.W, strict=True)
    )

    q = sum(term.n_effects for term in terms)
    gram = gram_matrix(crossproducts, layout.chain, np.cumsum([0, *(t.n_effects for t in terms)]))
    D = block_diag(*(np.kron(t, np.eye(term.n_levels)) for t, term in zip(T, terms, strict=True)))
    K = D.T @ gram[:q, :q] @ D + np.eye(q)
    J = D.T @ gram[:q, q:]
    assert_allclose(elimination.log_det, np.linalg.slogdet(K)[1], rtol=RTOL)
    expected = J.T @ np.linalg.solve(K, J)
    assert_allclose(taken, expected, rtol=0, atol=RTOL * np.max(expected))
