"""`donate=True` and a caller's own donation: same numbers, old buffers used again."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_near, assert_same, make, tree

import jaxmxopt as mxopt

LARGE = (512, 128)


def own(tree):
    """Arrays of their own, which a test may give away."""
    return jax.tree.map(jnp.copy, tree)


def pointers(tree):
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def deleted(tree):
    return [leaf.is_deleted() for leaf in jax.tree.leaves(tree)]


def test_donation_changes_no_number_and_gives_everything_away(cls):
    opt = make(cls)
    params, grads = own(tree()), tree(1)
    state = opt.init(params)
    expected = opt.step(params, grads, state)
    stepped = opt.step(params, grads, state, donate=True)
    assert all(deleted((params, state)))
    assert not any(deleted(grads))
    assert_near(stepped, expected)
    assert_near(opt.step(*stepped[:1], grads, stepped[1], donate=True), opt.step(
        expected[0], grads, expected[1]
    ))  # fmt: skip


def test_no_donated_buffer_is_copied(cls):
    opt = make(cls)
    params = {"one": jnp.ones(LARGE), "two": jnp.ones(LARGE), **tree()}
    state = opt.init(params)
    step = jax.jit(opt.step, donate_argnums=(0, 2)).lower(params, params, state).compile()
    shape = ",".join(map(str, LARGE))
    copies = re.findall(rf"= f32\[{shape}\]\S* copy\(.*", step.as_text())
    total = sum(leaf.nbytes for leaf in jax.tree.leaves((params, state)))
    if cls is mxopt.Test:  # Its slot is the new weight once more.
        assert len(copies) == 2
        return
    assert copies == []
    assert step.memory_analysis().alias_size_in_bytes == total


@pytest.mark.parametrize("shape", [LARGE, (3, 3, 64, 256), (20000,)], ids=str)
def test_large_weights_and_slots_stay_where_they_are(shape):
    opt = make(mxopt.Adam)
    params = {"one": jnp.ones(shape), "two": jnp.ones(shape)}
    grads = own(params)
    state = opt.init(params)
    for _ in range(3):
        before = pointers((params, state))
        params, state = opt.step(params, grads, state, donate=True)
        assert pointers((params, state)) <= before


def test_donation_with_where(cls):
    opt = make(cls)
    params = own(tree())
    state = opt.init(params)
    expected = own((params, state))
    kept = opt.step(params, tree(1), state, where=jnp.bool_(False), donate=True)
    assert all(deleted((params, state)))
    assert_same(kept, expected)


def test_donation_of_masters():
    opt = make(mxopt.Adam, multi_precision=True)
    params = {"one": jnp.ones(LARGE, jnp.bfloat16), "two": jnp.ones((3, 2), jnp.bfloat16)}
    state = opt.init(params)
    grads = own(params)
    expected = opt.step(params, grads, state)
    assert_near(opt.step(params, grads, state, donate=True), expected)
    assert all(deleted((params, state)))


def test_a_fresh_state_may_be_given_away_with_its_weights(cls):
    """No slot is the weight itself, and no two share a buffer."""
    opt = make(cls)
    params = own(tree())
    states = {key: opt.create_state(key, weight) for key, weight in params.items()}
    leaves = [*jax.tree.leaves(params), *jax.tree.leaves(states)]
    assert len(pointers(leaves)) == len([leaf for leaf in leaves if leaf.size])

    @partial(jax.jit, donate_argnums=(0, 2))
    def updates(params, grads, states):
        return {key: opt.update(key, params[key], grads[key], states[key]) for key in params}

    updates(params, tree(1), states)
    assert all(deleted(params))


def test_an_unpacked_state_may_be_given_away():
    opt = make(mxopt.Adam)
    params = own(tree())
    states = opt.init(params).unpack(params)
    update = jax.jit(
        lambda p, s: {key: opt.update(key, p[key], p[key], s[key]) for key in p},
        donate_argnums=(0, 1),
    )
    update(params, states)
    assert all(deleted((params, states)))


def test_a_refused_step_gives_nothing_away():
    opt = make(mxopt.Adam)
    params = own(tree())
    state = opt.init(params)
    with pytest.raises(ValueError, match="grad has shape"):
        opt.step(params, {**params, "a": jnp.ones((2, 3))}, state, donate=True)
    assert not any(deleted((params, state)))
    opt.step(params, tree(1), state, donate=True)


def test_donation_inside_a_jit_is_left_to_the_caller():
    opt = make(mxopt.Adam)
    params = tree()
    state = opt.init(params)
    inner = jax.jit(lambda p, g, s: opt.step(p, g, s, donate=True))
    assert_near(inner(params, tree(1), state), opt.step(params, tree(1), state))
    assert not any(deleted((params, state)))


def test_numpy_weights_may_be_donated():
    opt = make(mxopt.Adam)
    params = jax.tree.map(np.asarray, tree())
    expected = opt.step(params, params, opt.init(params))
    assert_near(opt.step(params, params, opt.init(params), donate=True), expected)
