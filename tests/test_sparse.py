"""RowSparse: what it stands for, its arithmetic, and how JAX sees it."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.experimental.sparse import BCOO

from jaxmxopt import RowSparse

SHAPE = (7, 2)


def dense_of(indices, values, shape=SHAPE):
    """What the indices and values stand for, in float64."""
    dense = np.zeros(shape)
    for index, row in zip(np.asarray(indices), np.asarray(values, np.float64), strict=True):
        if 0 <= index < shape[0]:
            dense[index] += row
    return dense


def make(indices, seed=0, shape=SHAPE):
    values = np.random.default_rng(seed).normal(size=(len(indices), *shape[1:]))
    return RowSparse(np.asarray(indices, np.int32), np.float32(values), shape)


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


# Without checks, as under jit: indices may lie outside. A fixed count compiles once.
indices_of_six = st.lists(st.integers(-3, 10), min_size=6, max_size=6)


@jax.jit
def forms(indices, values):
    grad = RowSparse(indices, values, SHAPE)
    return grad.unique(), grad.todense(), grad.norm(), grad.to_bcoo().todense()


@given(indices_of_six)
def test_duplicates_add_up_and_what_is_outside_drops(indices):
    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    rows, dense, norm, bcoo = forms(np.int32(indices), values)
    expected = dense_of(indices, values)
    near(dense, expected)
    near(bcoo, expected)
    near(norm, np.linalg.norm(expected))
    assert len(set(rows.indices.tolist())) == 6
    assert min(rows.indices.tolist()) >= 0
    near(dense_of(rows.indices, rows.values), expected)
    near(rows.inside(SHAPE[0]).sum(0), expected.sum(0))


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint32], ids=lambda d: d.__name__
)
def test_narrow_indices_pass_the_height(dtype):
    shape = (120, 2)
    indices = np.asarray([*range(100), 3, 3], dtype)
    grad = RowSparse(indices, np.ones((102, 2), np.float32), shape)
    near(grad.todense(), dense_of(indices, grad.values, shape))
    rows = grad.unique()
    assert len(set(rows.indices.tolist())) == 102
    near(dense_of(rows.indices, rows.values, shape), grad.todense())


@pytest.mark.parametrize("large", [2**31, 2**32 + 1, 2**63 + 1, 2**70])
def test_indices_are_not_cut_off(large):
    given = [[1, large], np.array([1, large], object)]
    given += [np.array([1, large], kind) for kind in "QL" if large < 2**64]
    for indices in given:
        with pytest.raises(ValueError, match=f"(must be of u?int32|in .0, 7.), got {large}"):
            RowSparse(indices, np.ones((2, 2)), SHAPE)


@pytest.mark.parametrize("indices", [["a"], [None], None, [[1], [2, 3]], np.array([0.5], object)])
def test_indices_that_are_no_numbers_are_refused(indices):
    with pytest.raises(TypeError, match="indices must be a vector of integers, got"):
        RowSparse(indices, np.ones((1, 2)), SHAPE)


def test_indices_of_any_kind():
    for indices in ([5, 0], (5, 0), np.array([5, 0], object), [jnp.int32(5), 0]):
        assert RowSparse(indices, np.ones((2, 2)), SHAPE).indices.tolist() == [5, 0]
    traced = jax.jit(lambda i: RowSparse([i, 0], jnp.ones((2, 2)), SHAPE).todense())
    near(traced(5), RowSparse([5, 0], np.ones((2, 2)), SHAPE).todense())


@pytest.mark.usefixtures("x64")
def test_wide_indices():
    grad = RowSparse(np.array([5, 0, 5]), np.ones((3, 2)), SHAPE)
    assert grad.indices.dtype == np.int64
    assert grad.unique().indices.dtype == np.int64
    mixed = grad + RowSparse(np.int32([1]), np.ones((1, 2)), SHAPE)
    assert mixed.indices.dtype == np.int64
    near(mixed.todense()[:, 0], [1, 1, 0, 0, 0, 2, 0])


def test_ascending_rows_stay_as_they_are():
    grad = make([0, 2, 6])
    rows = grad.unique()
    np.testing.assert_array_equal(rows.indices, grad.indices)
    np.testing.assert_array_equal(rows.values, grad.values)


@pytest.mark.parametrize("shape", [(7,), (7, 2), (7, 2, 3)], ids=str)
def test_any_number_of_dimensions(shape):
    grad = make([4, 1, 4], shape=shape)
    assert (grad.ndim, grad.dtype) == (len(shape), np.float32)
    near(grad.todense(), dense_of(grad.indices, grad.values, shape))
    near(grad.norm(), np.linalg.norm(dense_of(grad.indices, grad.values, shape)))


def test_sum_scaling_and_sign():
    a, b = make([1, 3, 1]), make([3, 0], seed=1)
    near((a + b).todense(), a.todense() + b.todense())
    for two in (2, 2.0, np.float32(2), jnp.float32(2), np.asarray(2.0, np.float32)):
        near((a * two).todense(), 2 * a.todense())
        near((two * a).todense(), 2 * a.todense())
        near((a / two).todense(), a.todense() / 2)
    near((-a).todense(), -a.todense())
    assert (a * 2).dtype == np.float32


def test_norm_of_half_precision_does_not_overflow():
    grad = RowSparse([0, 0], jnp.full((2, 2), 300.0, jnp.float16), SHAPE)
    near(grad.norm(), 600 * np.sqrt(2))


def test_sums_in_half_precision_round_once():
    grad = RowSparse(np.full(1000, 2), jnp.ones((1000, 2), jnp.bfloat16), SHAPE)
    assert grad.todense().dtype == jnp.bfloat16
    assert grad.todense()[2, 0] == 1000
    near(grad.norm(), 1000 * np.sqrt(2))


def test_no_rows():
    empty = RowSparse([], np.zeros((0, 2), np.float32), SHAPE)
    assert repr(empty) == "RowSparse(0 rows of (7, 2), float32)"
    assert empty.indices.dtype == np.int32
    near(empty.todense(), np.zeros(SHAPE))
    near(empty.norm(), 0)
    near((empty + make([2])).todense(), make([2]).todense())
    near(RowSparse.from_bcoo(empty.to_bcoo()).todense(), np.zeros(SHAPE))
    assert empty.unique().indices.shape == (0,)


def test_bcoo_both_ways():
    grad = make([4, 1, 4])
    back = RowSparse.from_bcoo(grad.to_bcoo())
    np.testing.assert_array_equal(back.indices, grad.indices)
    np.testing.assert_array_equal(back.values, grad.values)
    assert back.shape == SHAPE


def test_padding_of_bcoo_has_no_effect():
    dense = np.zeros(SHAPE, np.float32)
    dense[3] = 2
    padded = BCOO.fromdense(dense, n_dense=1, nse=3)
    near(RowSparse.from_bcoo(padded).todense(), dense)
    near(RowSparse.from_bcoo(padded).norm(), np.linalg.norm(dense))


def test_other_bcoo_is_refused():
    elements = BCOO.fromdense(np.ones(SHAPE, np.float32))
    with pytest.raises(ValueError, match=r"from_bcoo: array must have n_sparse=1.*got n_sparse=2"):
        RowSparse.from_bcoo(elements)


def test_repr_of_anything():
    assert repr(make([1, 2])) == "RowSparse(2 rows of (7, 2), float32)"
    assert "object" in repr(jax.tree.map(lambda _: object(), make([1])))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), make([1, 2, 3]))
    assert repr(stacked) == "RowSparse(2 x 3 rows of (7, 2), float32)"


REFUSED = {
    "outside": (([0, 7], np.ones((2, 2)), SHAPE), r"indices must be in \[0, 7\), got 7"),
    "negative": (([-1], np.ones((1, 2)), SHAPE), r"indices must be in \[0, 7\), got -1"),
    "matrix": (([[0]], np.ones((1, 2)), SHAPE), "indices must be a vector of integers"),
    "real": (([0.5], np.ones((1, 2)), SHAPE), "indices must be a vector of integers"),
    "width": (([0], np.ones((1, 3)), SHAPE), r"values must have shape \(1, 2\)"),
    "count": (([0, 1], np.ones((1, 2)), SHAPE), r"values must have shape \(2, 2\)"),
    "scalar": (([0], np.ones(1), ()), "values must have shape"),
}


@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(args, message):
    indices, values, shape = args
    with pytest.raises(ValueError, match=message):
        RowSparse(indices, values.astype(np.float32), shape)


def test_a_shape_is_a_tuple():
    with pytest.raises(TypeError, match="shape must be a tuple of integers, got 4"):
        RowSparse([0], np.ones((1, 4), np.float32), 4)


def test_arithmetic_that_has_no_meaning_is_refused():
    grad = make([1])
    with pytest.raises(ValueError, match=r"__add__: both must be of one shape, got \(7, 2\) and"):
        grad + make([1], shape=(8, 2))
    for factor in (np.ones(2, np.float32), jnp.ones((1, 2)), grad):
        with pytest.raises(ValueError, match="the number must be a scalar"):
            grad * factor
    with pytest.raises(TypeError, match="operand"):
        grad + np.ones(SHAPE, np.float32)
    with pytest.raises(TypeError, match="unsupported operand"):
        jnp.ones(SHAPE) + grad


def test_is_a_pytree():
    grad = make([4, 1])
    leaves, structure = jax.tree.flatten(grad)
    assert len(leaves) == 2
    assert jax.tree.unflatten(structure, leaves).shape == SHAPE
    assert structure == jax.tree.structure(make([0, 0]))
    assert structure != jax.tree.structure(make([0, 0], shape=(8, 2)))
    paths = [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(grad)[0]
    ]
    assert paths == [".indices", ".values"]


def test_vmap_and_scan():
    parts = [make([4, 1, 4], seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    expected = np.stack([part.todense() for part in parts])
    near(jax.vmap(RowSparse.todense)(stacked), expected)
    near(jax.vmap(RowSparse.norm)(stacked), np.linalg.norm(expected, axis=(1, 2)))
    rows = jax.vmap(RowSparse.unique)(stacked)
    for number in range(3):
        near(dense_of(rows.indices[number], rows.values[number]), expected[number])
    total, _ = jax.lax.scan(lambda c, part: (c + part.todense(), None), jnp.zeros(SHAPE), stacked)
    near(total, expected.sum(0))


def test_donation():
    @functools.partial(jax.jit, donate_argnums=0)
    def halved(grad):
        return grad / 2

    grad, expected = make([4, 1]), make([4, 1]).todense() / 2
    near(halved(grad).todense(), expected)
    assert grad.values.is_deleted()


def test_derivatives_pass():
    def loss(values):
        grad = RowSparse(jnp.array([4, 1, 4]), values, SHAPE)
        rows = grad.unique()
        return jnp.sum(rows.values**2) - grad.norm() ** 2 / 2

    values = make([4, 1, 4]).values
    dense = make([4, 1, 4]).todense()
    near(jax.grad(loss)(values), dense[jnp.array([4, 1, 4])])
