"""No function over the leaves of gradients changes which rows they are of, without a word."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmxopt as mxopt

ROWS = [4, 1, 4]


def gradient() -> mxopt.RowSparse:
    return mxopt.RowSparse(ROWS, jnp.arange(6, dtype=jnp.float32).reshape(3, 2) + 1, (7, 2))


def is_rows(node: Any) -> bool:
    return isinstance(node, mxopt.RowSparse)


ARITHMETIC: dict[str, Callable[[Any], Any]] = {
    "times": lambda leaf: leaf * 2,
    "times from the left": lambda leaf: jnp.float32(2) * leaf,
    "minus": lambda leaf: -leaf,
    "divided": lambda leaf: leaf / 2,
    "added": lambda leaf: leaf + leaf,
    "squared": jnp.square,
    "cast": lambda leaf: leaf.astype(jnp.bfloat16),
    "clipped": lambda leaf: jnp.clip(leaf, -1, 1),
    "summed": jnp.sum,
    "signs": jnp.sign,
    "chosen": lambda leaf: jnp.where(True, leaf, 0.0),
    "as NumPy": np.asarray,
}
TRANSFORMED: dict[str, Callable[[Callable[[Any], Any]], Callable[[Any], Any]]] = {
    "alone": lambda function: function,
    "jit": jax.jit,
    "vmap": lambda function: lambda grad: jax.vmap(function)(stacked(grad)),
    "scan": lambda function: (
        lambda grad: jax.lax.scan(lambda carry, each: (carry, function(each)), 0, stacked(grad))
    ),
}


def stacked(grad: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), grad)


@pytest.mark.parametrize("transformed", TRANSFORMED)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_on_leaves_fails_loudly(name: str, transformed: str) -> None:
    over = TRANSFORMED[transformed](lambda grad: jax.tree.map(ARITHMETIC[name], grad))
    with pytest.raises((TypeError, ValueError, NotImplementedError)):
        over({"table": gradient()})


@pytest.mark.parametrize("transformed", TRANSFORMED)
def test_arithmetic_on_gradients_reaches_their_values_alone(transformed: str) -> None:
    def halved(grads: Any) -> Any:
        return jax.tree.map(lambda grad: grad / 2, grads, is_leaf=is_rows)

    made = TRANSFORMED[transformed](halved)({"table": gradient()})
    found = (made[1] if transformed == "scan" else made)["table"]
    assert jnp.broadcast_to(jnp.array(ROWS), found.indices.shape).tolist() == found.indices.tolist()
    np.testing.assert_array_equal(
        found.values, jnp.broadcast_to(gradient().values / 2, found.values.shape)
    )


def test_transformations_of_optax_that_take_numbers_fail_loudly() -> None:
    optax = pytest.importorskip("optax")
    params, grads = {"table": jnp.ones((7, 2))}, {"table": gradient()}
    for chain in (
        optax.scale(0.5),
        optax.clip(1.0),
        optax.clip_by_global_norm(1.0),
        optax.chain(optax.trace(0.9), optax.scale(-1.0)),
    ):
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            chain.update(grads, chain.init(params), params)


def test_nothing_is_a_gradient_of_no_row() -> None:
    zeros = jax.tree.map(jnp.zeros_like, gradient())
    np.testing.assert_array_equal(zeros.todense(), jnp.zeros((7, 2)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_indices_are_the_integers_that_were_given(dtype: str) -> None:
    given = np.array([5, 0, 3], dtype)
    for indices in (given, jnp.asarray(given)):
        grad = mxopt.RowSparse(indices, jnp.ones((3, 1)), (6, 1))
        for kept in (grad, jax.jit(lambda same: same)(grad)):
            assert kept.indices.dtype == dtype
            np.testing.assert_array_equal(kept.indices, given)
        rows = jax.jit(lambda same: same.indices)(grad)
        np.testing.assert_array_equal(rows, given)


def test_sums_keep_rows_of_any_dtype() -> None:
    narrow = mxopt.RowSparse(np.array([3], np.int8), jnp.ones((1, 1)), (250, 1))
    wide = mxopt.RowSparse(np.array([200], np.uint8), jnp.ones((1, 1)), (250, 1))
    for total in (narrow + wide, wide + narrow):
        assert sorted(total.indices.tolist()) == [3, 200]


def test_indices_of_64_bits() -> None:
    from samples import double_precision

    with double_precision():
        large = np.array([2**40, 3])
        for indices in (large, jnp.asarray(large)):
            grad = mxopt.RowSparse(indices, jnp.ones((2, 1)), (2**41, 1))
            for kept in (grad, jax.jit(lambda same: same)(grad), grad + grad):
                assert kept.indices.dtype == np.int64
                assert kept.indices[:2].tolist() == large.tolist()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda grad: pickle.loads(pickle.dumps(grad))])
def test_a_copy_is_the_same(again: Callable[[Any], Any]) -> None:
    grad = again(gradient())
    assert (grad.indices.tolist(), grad.shape) == (ROWS, (7, 2))
    np.testing.assert_array_equal(grad.values, gradient().values)


def test_a_description_tells_the_dtype_of_the_indices() -> None:
    described = jax.eval_shape(gradient)
    assert (described.indices.shape, described.indices.dtype) == ((3,), np.int32)
