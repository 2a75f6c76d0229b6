"""`donate=True` and a caller's own donation: the same numbers, and the old buffers used again.

    python tests/test_donation.py

prints the table of what each algorithm keeps beside its buffers.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import ALGORITHMS, assert_near, assert_same, make, tree

import jaxmxopt as mxopt

LARGE = (512, 512)
# What a weight may need beside its buffers, as a part of the largest weight.
NOTHING, ONE = 0.01, 1.01
# Arrays that XLA keeps beside a weight, as of docs/performance.md: it computes a result anew in
# each loop that reads it, from an array that another loop overwrites, and copies that. None of
# those that are not here.
KEPT = {"AdaBelief": 2, "AdaDelta": 3, "AdaGrad": 1, "DCASGD": 1, "FTML": 3, "Ftrl": 2}
KEPT |= {"GroupAdaGrad": 1, "LAMB": 1, "LANS": 3, "LBSGD": 3, "NAG": 1, "RMSProp": 1, "SGLD": 4}
KEPT |= {"Adafactor": 2, "Lion": 1, "ScheduleFreeSGD": 2, "ScheduleFreeAdamW": 2}
# Its slot is the new weight once more.
KEPT |= {"Test": 1}
IN_PLACE = ("Adam", "AdamW", "Adamax", "Nadam", "SGD", "Signum", "ccSGD")
# Without decay and clipping nothing is kept by these either.
PLAINLY = (*IN_PLACE, "AdaGrad", "LARS", "RMSProp")
ONE_LARGE = {"w": LARGE}
SEVERAL = {"w": LARGE, "v": LARGE, "conv": (3, 3, 128, 128), "table": (2048, 32), "bias": (512,)}
TREES = {"one weight": ONE_LARGE, "several": SEVERAL}
GIVEN = {
    "plain": {"wd": 0.0, "clip_gradient": None},
    "decay and clipping": {},
    "masters": {"multi_precision": True},
}


def definition(cls: type[mxopt.OptimizerDef], given: str) -> mxopt.OptimizerDef:
    """An algorithm with momentum, plain or with more work to do."""
    changes = {"centered": False} if cls is mxopt.RMSProp else {}
    if cls is mxopt.GroupAdaGrad and given == "plain":
        return make(cls, clip_gradient=None)
    return make(cls, **GIVEN[given], **changes)


def arguments(opt: mxopt.OptimizerDef, shapes: Any, dtype: Any = jnp.float32) -> Any:
    """Weights, gradients and a state; matrices alone where an algorithm takes no others."""
    if isinstance(opt, mxopt.GroupAdaGrad):
        shapes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    elif opt.acts_on == "matrices":
        shapes = {name: s for name, s in shapes.items() if len(s) > 1 and max(s) <= max(LARGE)}
    draw = np.random.default_rng(0)
    params, grads = (
        {name: jnp.asarray(draw.normal(size=shapes[name]), dtype) for name in shapes}
        for _ in range(2)
    )
    return params, grads, opt.init(params)


def in_a_callers_jit(opt: mxopt.OptimizerDef, params: Any, grads: Any, state: Any) -> Any:
    """What XLA says of the memory of a step in a caller's program."""
    step = jax.jit(opt.step, donate_argnums=(0, 2))
    return step.lower(params, grads, state).compile().memory_analysis()


def by_itself(opt: mxopt.OptimizerDef, params: Any, grads: Any, state: Any) -> Any:
    """The same of `step(donate=True)`: of the largest program that is new with the call."""
    client = jax.devices()[0].client
    jax.clear_caches()
    known = {id(program) for program in client.live_executables()}
    opt.step(params, grads, state, donate=True)
    programs = [program for program in client.live_executables() if id(program) not in known]
    memory = [program.get_compiled_memory_stats() for program in programs]
    return max(memory, key=lambda stats: stats.argument_size_in_bytes)


CALLS: dict[str, Callable[..., Any]] = {
    "step(donate=True)": by_itself,
    "in a caller's jit": in_a_callers_jit,
}


def beside(call: str, opt: mxopt.OptimizerDef, shapes: Any, dtype: Any = jnp.float32) -> float:
    """What a step needs beside what it is given, as a part of the largest weight's size.

    That is temporary memory, and results that are not written over what was given away.
    """
    params, grads, state = arguments(opt, shapes, dtype)
    largest = 4 * max(leaf.size for leaf in params.values())
    memory = CALLS[call](opt, params, grads, state)
    apart = memory.output_size_in_bytes - memory.alias_size_in_bytes
    # Products of matrices have to stand somewhere; buffers are written over all the same.
    temporary = 0 if opt.acts_on == "matrices" else memory.temp_size_in_bytes
    return (temporary + apart) / largest


@pytest.mark.parametrize("shapes", TREES)
@pytest.mark.parametrize("call", CALLS)
def test_donated_buffers_are_used_again(
    cls: type[mxopt.OptimizerDef], call: str, shapes: str
) -> None:
    sizes = [np.prod(shape) for shape in TREES[shapes].values()]
    most = NOTHING + KEPT.get(cls.__name__, 0) * 1.01 * sum(sizes) / max(sizes)
    assert beside(call, definition(cls, "decay and clipping"), TREES[shapes]) < most


@pytest.mark.parametrize("name", PLAINLY)
@pytest.mark.parametrize("call", CALLS)
def test_donated_buffers_are_used_again_without_decay_and_clipping(name: str, call: str) -> None:
    assert beside(call, definition(getattr(mxopt, name), "plain"), ONE_LARGE) < NOTHING


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("call", CALLS)
def test_donated_masters_are_used_again(name: str, dtype: str, call: str) -> None:
    opt = definition(getattr(mxopt, name), "masters")
    assert beside(call, opt, ONE_LARGE, jnp.dtype(dtype)) < ONE


@pytest.mark.parametrize("call", CALLS)
def test_many_small_weights_keep_no_second_copy(call: str) -> None:
    opt = make(mxopt.Adam)
    shapes = {f"layer{number}": (64, 32) for number in range(120)}
    # As much as their moments, of which all shapes share one array each.
    assert beside(call, opt, shapes) < 2.5 * len(shapes)


def own(tree: Any) -> Any:
    """Arrays of their own, which a test may give away."""
    return jax.tree.map(jnp.copy, tree)


def pointers(tree: Any) -> set[int]:
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def deleted(tree: Any) -> list[bool]:
    return [leaf.is_deleted() for leaf in jax.tree.leaves(tree)]


@pytest.mark.usefixtures("thresholds")
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


@pytest.mark.parametrize("shape", [(512, 128), (3, 3, 64, 256), (20000,)], ids=str)
@pytest.mark.parametrize("name", ["Adam", "SGD", "RMSProp", "Ftrl"])
def test_large_weights_and_slots_stay_where_they_are(name, shape):
    opt = make(getattr(mxopt, name))
    params = {"one": jnp.ones(shape), "two": jnp.ones(shape)}
    grads = own(params)
    state = opt.init(params)
    for _ in range(3):
        before = pointers((params, state))
        params, state = opt.step(params, grads, state, donate=True)
        assert pointers((params, state)) <= before


@pytest.mark.usefixtures("thresholds")
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


@pytest.mark.usefixtures("thresholds")
def test_a_fresh_state_of_a_tree_may_be_given_away_with_its_weights(cls):
    opt = make(cls)
    params = own(tree())
    state = opt.init(params)
    # `Test` never reads its slot.
    jax.jit(opt.step, donate_argnums=(0, 2), keep_unused=True)(params, tree(1), state)
    assert all(deleted((params, state)))


@pytest.mark.usefixtures("thresholds")
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


@pytest.mark.usefixtures("thresholds")
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


def table() -> str:
    """What each algorithm keeps beside its buffers, in arrays of the largest weight."""
    columns = [(call, shapes) for call in CALLS for shapes in TREES]
    heads = [f"{call}, {shapes}" for call, shapes in columns]
    lines = [f"jax {jax.__version__}", f"{'':14}" + "".join(f"{head:>32}" for head in heads)]
    for cls in ALGORITHMS:
        opt = definition(cls, "decay and clipping")
        found = [beside(call, opt, TREES[shapes]) for call, shapes in columns]
        lines.append(f"{cls.__name__:14}" + "".join(f"{value:32.2f}" for value in found))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
