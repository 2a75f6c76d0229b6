"""Large gradients, small gradients and half precision leave weights and slots finite."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import is_real

import jaxmxopt as mxopt

pytestmark = pytest.mark.filterwarnings("ignore:.*half-precision weights:UserWarning")
# About the roots of the largest number over the shares that squares have in slots, and its ends.
LARGE = np.float32(
    [1e10, 9e18, 1.8446e19, 1.8447e19, 2e19, 2.1e19, 3e19, 5.83e20, 5.84e20, 1e21, 1e30, 3e38]
)


@pytest.fixture(autouse=True)
def operations() -> Iterator[None]:
    """Runs operation by operation: all algorithms share these, where each had its program."""
    with jax.disable_jit():
        yield


def all_finite(*trees: Any) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(trees) if is_real(leaf)]
    return all(np.isfinite(np.asarray(leaf, np.float64)).all() for leaf in leaves)


def test_finite_gradients_make_finite_weights(cls: Any) -> None:
    opt = cls()
    w = jnp.full((len(LARGE), 2), 0.5)
    once = jnp.asarray(np.stack([LARGE, -LARGE], 1))
    usual = jnp.asarray(np.random.default_rng(0).normal(size=w.shape), jnp.float32)
    state = opt.init(w)
    for t in range(5):
        # Of sums of squares, and of means that are kept, two in turn are a case of their own.
        grad = once if t == 0 else -once if t == 2 and cls not in GROW else usual
        w, state = opt.step(w, grad, state)
        assert all_finite(w, state), t


# The step is a multiple of the gradient or of its square, so two of 3e38 leave the range.
GROW = (mxopt.DCASGD, mxopt.Test)


@pytest.mark.parametrize("kind", [mxopt.AdamW, mxopt.AdaBelief, mxopt.FTML])
def test_a_large_gradient_makes_the_step_of_any_large_gradient(kind: Any) -> None:
    opt = kind(learning_rate=0.1)
    w = jnp.ones(3)
    moved, _ = opt.step(w, jnp.float32([1e10, 3e19, 3e38]), opt.init(w))
    np.testing.assert_allclose(moved, moved[0], rtol=1e-3)


@pytest.mark.parametrize("kind", [mxopt.Adam, mxopt.AdamW, mxopt.Ftrl, mxopt.LBSGD])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_weight(kind: Any, value: float) -> None:
    opt, w = kind(), jnp.ones(2)
    moved, _ = opt.step(w, jnp.float32([value, 1.0]), opt.init(w))
    assert np.isfinite(moved).tolist() == [False, True]


def test_gradients_of_one_batch_may_have_a_sum_beyond_the_range() -> None:
    opt, w = mxopt.LBSGD(learning_rate=2.0**-10, batch_scale=2, warmup_epochs=0), jnp.zeros(2)
    state, grad = opt.init(w), jnp.float32([3e38, -3e38])
    for _ in range(2):
        w, state = opt.step(w, grad, state)
    assert all_finite(w, state)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_without_masters_follows_float32(cls: Any, dtype: Any) -> None:
    """One gradient of 5e-3, then zeros: its square is nothing in float16."""
    opt = cls()
    half, full = jnp.full((12, 2), 0.5, dtype), jnp.full((12, 2), 0.5)
    state, exact = opt.init(half), opt.init(full)
    for grad in (5e-3, 0.0, 0.0, 0.0):
        half, state = opt.step(half, jnp.full_like(half, grad), state)
        full, exact = opt.step(full, jnp.full_like(full, grad), exact)
    if cls is not mxopt.SGLD:  # Its noise alone moves the weight.
        unit = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.float32(half), full, atol=4 * unit)


# What is neither squared nor divided by may be rounded as the weight is, but for AdEMAMix's `slow`:
# it moves by less than half precision can hold.
NARROW = {"mom", "mean", "z", "delta", "previous_weight", "weight"}
# AdaBelief squares what differs from its mean; the others divide by theirs.
WIDE = {("mean", mxopt.AdaBelief), ("z", mxopt.FTML), ("z", mxopt.Ftrl)}


def test_what_is_squared_or_divided_by_is_float32(cls: Any) -> None:
    w = jnp.ones((2, 2), jnp.float16)
    slots = cls().create_state("w", w).slots
    for name, slot in slots._asdict().items() if slots else ():
        if slot is not None and is_real(slot):
            narrow = name in NARROW and (name, cls) not in WIDE
            assert slot.dtype == (jnp.float16 if narrow else jnp.float32), name


def test_slots_of_another_dtype_are_kept_where_they_are_asked_for() -> None:
    opt, w = mxopt.Adam(), jnp.ones(4, jnp.bfloat16)
    state = opt.init(w)
    asked = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if is_real(x) else x, state)
    _, after = opt.step(w, w, asked)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [
        leaf.dtype for leaf in jax.tree.leaves(asked)
    ]


def test_the_warning_says_what_is_lost_and_what_masters_cost() -> None:
    class Loud(mxopt.Adam):
        pass

    said = r"Loud: .* below 1/512 .*bfloat16, 1/4096 in float16, is lost; .* cost 4 bytes"
    with pytest.warns(UserWarning, match=said):
        Loud().init(jnp.ones(2, jnp.float16))
