"""Weights over several devices: slots follow them, steps keep them where they are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from samples import ALGORITHMS, OF_PRODUCTS, OF_THE_WHOLE, assert_near, is_real, make, tree

import jaxmxopt as mxopt

MESH = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
ROWS, WHOLE = NamedSharding(MESH, P("x")), NamedSharding(MESH, P())


def params(seed=0):
    """Four weights: three of one shape, two of them sharded alike."""
    draw = np.random.default_rng(seed)
    return {
        key: jnp.asarray(draw.normal(size=shape), jnp.float32)
        for key, shape in {"a": (8, 2), "b": (8, 2), "c": (8, 2), "d": (4, 3)}.items()
    }


PLACES = {"a": ROWS, "b": ROWS, "c": WHOLE, "d": WHOLE}


def placed(seed=0):
    return jax.tree.map(jax.device_put, params(seed), PLACES)


def assert_placed_like(leaf, weight):
    """What has the shape of a weight is laid out as the weight is."""
    if leaf.shape == weight.shape:
        assert leaf.sharding.is_equivalent_to(weight.sharding, weight.ndim)


def assert_follows(state, weights):
    for key, one in state.unpack(weights).items():
        for leaf in jax.tree.leaves((one.slots, one.master)):
            assert_placed_like(leaf, weights[key])


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_slots_take_the_sharding_of_their_weight(cls, wrap):
    weights = placed()
    assert_follows(wrap(make(cls).init)(weights), weights)
    one = wrap(partial(make(cls).create_state, "a"))(weights["a"])
    for leaf in jax.tree.leaves(one.slots):
        assert_placed_like(leaf, weights["a"])


def test_masters_take_the_sharding_of_their_weight():
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), placed())
    opt = make(mxopt.Adam, multi_precision=True)
    assert_follows(opt.init(weights), weights)
    assert_follows(jax.jit(opt.init)(weights), weights)


@pytest.mark.usefixtures("shared_arrays")
def test_weights_of_one_shape_may_lie_in_different_places():
    """Hundreds of small weights of one shape: some divided, some whole, none moved."""
    opt, weights = make(mxopt.Adam), placed()
    stepped, state = opt.step(weights, placed(1), opt.init(weights))
    assert_follows(state, weights)
    for key in weights:
        assert_placed_like(stepped[key], weights[key])


def test_a_step_keeps_shardings_and_numbers(cls):
    opt = make(cls)
    weights = placed()
    stepped, state = opt.step(weights, placed(1), opt.init(weights))
    for key in weights:
        assert_placed_like(stepped[key], weights[key])
    assert_follows(state, weights)
    expected, expected_state = opt.step(params(), params(1), opt.init(params()))
    assert_near(jax.device_get(stepped), expected, 16)
    for key, one in expected_state.unpack(expected).items():
        assert_near(jax.device_get(state.unpack(stepped)[key].slots), one.slots, 16)


def test_a_donated_step_keeps_shardings():
    opt = make(mxopt.Adam)
    weights, grads = placed(), placed(1)
    state = opt.init(weights)
    expected, _ = opt.step(weights, grads, state)
    stepped, state = opt.step(weights, grads, state, donate=True)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(weights))
    assert_near(stepped, expected)
    assert_follows(state, stepped)


def test_no_weight_is_gathered():
    opt = make(mxopt.Adam)
    weights = placed()
    text = jax.jit(opt.step).lower(weights, weights, opt.init(weights)).compile().as_text()
    assert "all-gather" not in text
    assert "all-reduce" not in text


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_steps_under_a_mesh(kind):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,))
    opt = make(mxopt.Adam)
    expected, _ = opt.step(params(), params(1), opt.init(params()))
    with jax.set_mesh(mesh):
        weights = jax.device_put(params(), P("x"))
        grads = jax.device_put(params(1), P("x"))
        state = opt.init(weights)
        eager = opt.step(weights, grads, state)
        jitted = jax.jit(lambda p, g: opt.step(p, g, opt.init(p)))(weights, grads)
    for stepped, new in (eager, jitted):
        assert_near(jax.device_get(stepped), expected, 4)
        for key in weights:
            assert_placed_like(stepped[key], weights[key])
        assert_follows(new, weights)


@pytest.mark.parametrize("how", ["update", "step", "jitted step"])
@pytest.mark.parametrize(
    "spec", [P("x"), P(None, "x"), P(None, None, "x"), P(None, None, None, "x")], ids=str
)
def test_convolutions_stay_divided_as_their_types_say(spec, how):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Explicit,))
    opt, ones = make(mxopt.Adam), jnp.ones((8, 8, 4, 4))
    weight = jax.device_put(ones, NamedSharding(mesh, spec))
    if how == "update":
        new, _ = opt.update(0, weight, weight, opt.create_state(0, weight))
    else:
        step = jax.jit(opt.step) if "jit" in how else opt.step
        new, _ = step(weight, weight, opt.init(weight))
    assert_placed_like(new, weight)
    expected, _ = opt.update(0, ones, ones, opt.create_state(0, ones))
    assert_near(jax.device_get(new), expected, 2)


def test_data_parallel_shard_map(cls):
    """Replicated weights, gradients averaged over two devices."""
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
    opt = make(cls)
    weights, halves = tree(), [tree(1), tree(2)]
    state = opt.init(weights)
    batch = jax.tree.map(lambda *g: jnp.stack(g), *halves)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("x"), P()), out_specs=P())
    def step(weights, grads, state):
        mean = jax.tree.map(lambda g: jax.lax.pmean(g[0], "x"), grads)
        return opt.step(weights, mean, state)

    mean = jax.tree.map(lambda one, two: (one + two) / 2, *halves)
    assert_near(jax.device_get(step(weights, batch, state)), opt.step(weights, mean, state), 8)


# Not those that need the whole weight, or noise for all of it.
OTHERS = (*OF_THE_WHOLE, *OF_PRODUCTS, "SGLD")
BY_ROWS = [kind for kind in ALGORITHMS if kind.__name__ not in OTHERS]


@pytest.mark.parametrize("kind", BY_ROWS, ids=lambda kind: kind.__name__)
def test_sharded_weights_in_shard_map(kind):
    """Each device holds and updates its rows."""
    opt = make(kind)
    weights = placed()
    state = opt.init(weights)
    of_weights = {key: place.spec for key, place in PLACES.items()}
    of_state = jax.tree.map(lambda leaf: leaf.sharding.spec if leaf.ndim else P(), state)
    assert any(spec == P("x") for spec in jax.tree.leaves(of_state)) or not state.slots
    step = jax.shard_map(
        opt.step, mesh=MESH, in_specs=(of_weights, of_weights, of_state),
        out_specs=(of_weights, of_state),
    )  # fmt: skip
    stepped, _ = jax.jit(step)(weights, placed(1), state)
    expected, _ = opt.step(params(), params(1), opt.init(params()))
    assert_near(jax.device_get(stepped), expected, 8)


def test_states_are_made_inside_shard_map():
    opt = make(mxopt.Adam)

    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=(P("x"), P("x")), out_specs=P("x"))
    def trained(weights, grads):
        state = opt.init(weights)
        for _ in range(2):
            weights, state = opt.step(weights, grads, state)
        return weights

    alike = {key: jax.device_put(leaf, ROWS) for key, leaf in params().items()}
    grads = {key: jax.device_put(leaf, ROWS) for key, leaf in params(1).items()}
    expected, state = opt.step(params(), params(1), opt.init(params()))
    expected, _ = opt.step(expected, params(1), state)
    assert_near(jax.device_get(trained(alike, grads)), expected, 4)


def test_weights_on_different_devices():
    """A model whose layers live on different devices is updated layer by layer."""
    opt = make(mxopt.Adam)
    weights = {
        key: jax.device_put(leaf, jax.devices()[number])
        for number, (key, leaf) in enumerate(tree().items())
    }
    expected, _ = opt.step(tree(), tree(1), opt.init(tree()))
    for key, weight in weights.items():
        grad = jax.device_put(tree(1)[key], weight.device)
        moved, state = opt.update(key, weight, grad, opt.create_state(key, weight))
        assert {leaf.device for leaf in jax.tree.leaves((moved, state)) if is_real(leaf)} == {
            weight.device
        }
        assert_near(jax.device_get(moved), jax.device_get(expected[key]))
