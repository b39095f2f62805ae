"""Linear algebra of the kernels: many small blocks, one dense block, one block-sparse product.

Small blocks carry their level axis last, shape ``(i, j, L)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from .lapack import factor_with_lapack

Tensor: TypeAlias = Any  # TensorFlow has no type information: the name is for readers

UNROLLED_UP_TO = 3  # beyond it a batched Cholesky is faster than as many elementwise operations


class Factor(NamedTuple):
    """Solution of the dense corner ``[[A, a], [a', c]]``.

    Attributes
    ----------
    cholesky : (C, C)
        Upper ``R`` with ``A = R'R``; what stands below the diagonal is undefined.
    inverse : (C + 1, C + 1)
        Inverse of the leading block that the determinant is taken of, zero elsewhere.
    solution : (C,)
        ``A^-1 a``.
    remainder : ()
        ``c - a'A^-1 a``.
    log_det : ()
        Log determinant of the leading block.
    """

    cholesky: Tensor
    inverse: Tensor
    solution: Tensor
    remainder: Tensor
    log_det: Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a b`` level by level: (i, j, L) and (j, k, L) give (i, k, L)."""
    return tf.add_n([a[:, j, None, :] * b[j, None, :, :] for j in range(b.shape[0])])


def matmul_transposed(a: Tensor, b: Tensor) -> Tensor:
    """``a'b`` level by level: (j, i, L) and (j, k, L) give (i, k, L)."""
    return tf.add_n([a[j, :, None, :] * b[j, None, :, :] for j in range(b.shape[0])])


def segment_sum(values: Tensor, segments: Tensor, n_segments: Tensor) -> Tensor:
    """Sum ``values`` of shape (..., m) over equal ``segments`` of shape (m,)."""
    leading = tf.shape(values)[:-1]
    flat = tf.reshape(values, [-1, tf.shape(values)[-1]])
    rows = tf.range(tf.shape(flat)[0], dtype=segments.dtype)[:, None]
    ids = rows * tf.cast(n_segments, segments.dtype) + segments[None, :]
    total = tf.math.unsorted_segment_sum(flat, ids, tf.shape(flat)[0] * n_segments)
    return tf.reshape(total, tf.concat([leading, [n_segments]], 0))


@tf.custom_gradient
def inverse_and_log_det(D: Tensor) -> Tensor:
    """Inverse (s, s, L) and log determinant (L,) of symmetric positive definite blocks."""
    if D.shape[0] <= UNROLLED_UP_TO:
        inverse, log_det = _unrolled_inverse(D)
    else:
        blocks = tf.transpose(D, [2, 0, 1])
        chol = tf.linalg.cholesky(blocks)
        identity = tf.eye(D.shape[0], batch_shape=tf.shape(blocks)[:1], dtype=D.dtype)
        inverse = tf.transpose(tf.linalg.cholesky_solve(chol, identity), [1, 2, 0])
        log_det = 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(chol)), axis=-1)

    def gradient(inverse_bar: Tensor, log_det_bar: Tensor) -> Tensor:
        return log_det_bar * inverse - matmul(inverse, matmul(inverse_bar, inverse))

    return (inverse, log_det), gradient


def _unrolled_inverse(D: Tensor) -> tuple[Tensor, Tensor]:
    """``D = L diag(d) L'`` and ``D^-1 = M' diag(1/d) M``, ``M = L^-1``, entry by entry."""
    s = D.shape[0]
    L: dict[tuple[int, int], Tensor] = {}
    M: dict[tuple[int, int], Tensor] = {}
    d: list[Tensor] = []
    for j in range(s):
        d.append(D[j, j] - sum(L[j, k] ** 2 * d[k] for k in range(j)))
        for i in range(j + 1, s):
            off = D[i, j] - sum(L[i, k] * L[j, k] * d[k] for k in range(j))
            L[i, j] = off / d[j]
    for i in range(s):
        M[i, i] = tf.ones_like(d[0])
        for j in range(i):
            M[i, j] = -sum(L[i, k] * M[k, j] for k in range(j, i))
    rows = [
        tf.stack([sum(M[k, i] * M[k, j] / d[k] for k in range(max(i, j), s)) for j in range(s)])
        for i in range(s)
    ]
    return tf.stack(rows), sum(tf.math.log(pivot) for pivot in d)


class Pattern(NamedTuple):
    """Sparsity of a block row ``B`` of shape (s L, R), scalar rows coefficient by coefficient.

    Attributes
    ----------
    indices : (m, 2)
        Row and column of each stored value, sorted by row.
    transposed_indices : (m, 2)
        The same sorted by column, column first.
    transposed_order : (m,)
        Which value stands where in the transposed order.
    chunk_rows, chunk_values : (n_chunks + 1,)
        Offsets that cut rows and values into chunks; bounds the memory of a dense product.
    n_columns : ()
        ``R``.
    """

    indices: Tensor
    transposed_indices: Tensor
    transposed_order: Tensor
    chunk_rows: Tensor
    chunk_values: Tensor
    n_columns: Tensor


def _csr(indices: Tensor, values: Tensor, n_rows: Tensor, n_columns: Tensor) -> Tensor:
    shape = tf.cast(tf.stack([n_rows, n_columns]), tf.int64)
    return tf.raw_ops.SparseTensorToCSRSparseMatrix(
        indices=indices, values=values, dense_shape=shape
    )


def block_quadratic(
    values: Tensor,
    inverse: Tensor,
    fixed: Tensor,
    levels: Tensor,
    columns: Tensor,
    pattern: Pattern,
) -> Tensor:
    """``J' D^-1 J`` with ``J = [B, F]``: what eliminating a term takes from the corner.

    ``B`` is sparse and its product with itself goes through sparse products, ``F`` is dense.

    Parameters
    ----------
    values : (s, m)
        Values of ``B``; value (a, i) stands in row ``a L + levels[i]``.
    inverse : (s, s, L)
        ``D^-1``, symmetric.
    fixed : (s, P, L)
        ``F``.
    levels, columns : (m,)
        Level and column of ``B`` of each column of values.
    pattern : Pattern
        The same as a sparse matrix.

    Returns
    -------
    (R + P, R + P), symmetric. Its gradient takes a symmetric cotangent.
    """
    s = inverse.shape[0]

    @tf.custom_gradient
    def quadratic(values: Tensor, inverse: Tensor, fixed: Tensor) -> Tensor:
        L = tf.shape(inverse)[-1]
        P = tf.shape(fixed)[1]
        R = pattern.n_columns
        n_rows = s * L
        gathered = tf.gather(inverse, levels, axis=-1)
        solved = matmul(gathered, values[:, None, :])[:, 0]
        solved_fixed = matmul(inverse, fixed)
        Bt = _csr(
            pattern.transposed_indices,
            tf.gather(tf.reshape(values, [-1]), pattern.transposed_order),
            R,
            n_rows,
        )
        H = _csr(pattern.indices, tf.reshape(solved, [-1]), n_rows, R)
        product = tf.raw_ops.SparseMatrixSparseMatMul(a=Bt, b=H, type=values.dtype)
        sparse_part = tf.raw_ops.CSRSparseMatrixToDense(sparse_input=product, type=values.dtype)
        mixed = tf.raw_ops.SparseMatrixMatMul(a=Bt, b=to_rows(solved_fixed))
        dense_part = tf.matmul(to_rows(fixed), to_rows(solved_fixed), transpose_a=True)
        top = tf.concat([tf.ensure_shape(sparse_part, [None, None]), mixed], 1)
        bottom = tf.concat([tf.transpose(mixed), dense_part], 1)

        def gradient(cotangent: Tensor) -> Tensor:
            at_values, at_fixed = _sampled_product(values, cotangent, pattern)
            at_values = tf.reshape(at_values, tf.shape(values)) + tf.reduce_sum(
                tf.gather(fixed, levels, axis=-1) * tf.gather(cotangent[R:], columns, axis=1),
                axis=1,
            )
            at_fixed = tf.reshape(at_fixed, [s, L, P]) + tf.reshape(
                tf.matmul(to_rows(fixed), cotangent[R:, R:]), [s, L, P]
            )
            at_fixed = tf.transpose(at_fixed, [0, 2, 1])
            from_values = segment_sum(values[:, None, :] * at_values[None, :, :], levels, L)
            from_fixed = tf.reduce_sum(fixed[:, None] * at_fixed[None, :], axis=2)
            return (
                2.0 * matmul(gathered, at_values[:, None, :])[:, 0],
                from_values + from_fixed,
                2.0 * matmul(inverse, at_fixed),
            )

        return tf.concat([top, bottom], 0), gradient

    return quadratic(values, inverse, fixed)


def to_rows(blocks: Tensor) -> Tensor:
    """(s, P, L) as (s L, P)."""
    return tf.reshape(tf.transpose(blocks, [0, 2, 1]), [-1, tf.shape(blocks)[1]])


def _sampled_product(values: Tensor, Q: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """``[B, 0] Q`` where ``B`` has values (s m,), and in the columns after ``B``'s (s L, P)."""
    flat = tf.reshape(values, [-1])
    R, n_chunks = pattern.n_columns, tf.shape(pattern.chunk_rows)[0] - 1

    def chunk(c: Tensor, at_values: Tensor, at_fixed: Tensor) -> Tensor:
        first_row, last_row = pattern.chunk_rows[c], pattern.chunk_rows[c + 1]
        first, last = pattern.chunk_values[c], pattern.chunk_values[c + 1]
        indices = pattern.indices[first:last] - tf.cast(tf.stack([first_row, 0]), tf.int64)
        B = _csr(indices, flat[first:last], last_row - first_row, R)
        product = tf.raw_ops.SparseMatrixMatMul(a=B, b=Q[:R])
        at_values = at_values.write(c, tf.gather_nd(product, indices))
        return c + 1, at_values, at_fixed.write(c, product[:, R:])

    def arrays(row_shape: list[int | None]) -> Tensor:
        return tf.TensorArray(flat.dtype, size=n_chunks, infer_shape=False, element_shape=row_shape)

    _, at_values, at_fixed = tf.while_loop(
        lambda c, *_: c < n_chunks,
        chunk,
        (0, arrays([None]), arrays([None, None])),
        parallel_iterations=1,
    )
    return at_values.concat(), at_fixed.concat()


def factor_corner(corner: Tensor, n_determinant: Tensor, *, lapack_on_cpu: bool) -> Factor:
    """Factorise the dense corner whose last row and column belong to y.

    On a CPU TensorFlow's Cholesky of one matrix runs in one thread and its inverse takes three
    times LAPACK's ``potri``, so that this one operation goes to SciPy there.

    Parameters
    ----------
    corner : (C + 1, C + 1)
        Symmetric; its leading block is positive definite.
    n_determinant : int32
        Size of the leading block that `inverse` and `log_det` are taken of.
    lapack_on_cpu : bool
        SciPy's LAPACK, or TensorFlow's own operations.

    Returns
    -------
    Factor
        All NaN where the corner is not positive definite.
    """
    if lapack_on_cpu:
        parts = tf.numpy_function(
            factor_with_lapack, [corner, n_determinant], [corner.dtype] * 5, stateful=False
        )
        shapes: list[list[None]] = [[None, None], [None, None], [None], [], []]
        return Factor(*(tf.ensure_shape(x, shape) for x, shape in zip(parts, shapes, strict=True)))
    A, a = corner[:-1, :-1], corner[:-1, -1]
    chol = tf.linalg.cholesky(A)
    solution = tf.linalg.cholesky_solve(chol, a[:, None])[:, 0]
    leading = chol[:n_determinant, :n_determinant]
    identity = tf.eye(n_determinant, dtype=corner.dtype)
    rest = tf.shape(corner)[0] - n_determinant
    inverse = tf.pad(tf.linalg.cholesky_solve(leading, identity), [[0, rest], [0, rest]])
    log_det = 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(leading)))
    return Factor(
        tf.transpose(chol),
        inverse,
        solution,
        corner[-1, -1] - tf.tensordot(a, solution, 1),
        log_det,
    )
