"""What is done around every rule: precision, skipping, transformations."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import (
    OF_MATRICES,
    OF_THE_WHOLE,
    assert_near,
    assert_same,
    is_real,
    make,
    run,
    scanned,
    tree,
)

import jaxmxopt as mxopt

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* half-precision weights:UserWarning"),
    pytest.mark.usefixtures("compiled_quickly"),
]
HALF = {"a": jnp.bfloat16, "b": jnp.bfloat16, "c": jnp.float16}


def half_tree(seed=0):
    """`tree()` in half precision of both kinds."""
    return {key: leaf.astype(HALF[key]) for key, leaf in tree(seed).items()}


def single(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if is_real(leaf) else leaf, tree)


def like(tree, other):
    return jax.tree.map(lambda leaf, as_: leaf.astype(as_.dtype), tree, other)


def dtypes(tree):
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


@pytest.mark.usefixtures("thresholds")
def test_masters_are_the_float32_run(cls):
    opt = make(cls, multi_precision=True)
    params, exact = half_tree(), single(half_tree())
    state, exact_state = opt.init(params), opt.init(exact)
    for seed in (1, 2, 3):
        params, state = opt.step(params, half_tree(seed), state)
        exact, exact_state = opt.step(exact, single(half_tree(seed)), exact_state)
    states, exact_states = state.unpack(params), exact_state.unpack(exact)
    masters = {key: one.master for key, one in states.items()}
    assert_same(params, like(masters, half_tree()))
    # The norms of some are of the weight as it is stored.
    ulps = 2.0**16 if cls.__name__ in OF_THE_WHOLE else 8
    assert_near(masters, exact, ulps)
    for key, one in states.items():
        assert_near(one.slots, exact_states[key].slots, ulps)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_of_eight_bits_have_masters(dtype):
    opt, w = mxopt.SGD(learning_rate=2**-6, multi_precision=True), jnp.ones(2, dtype)
    state = opt.init(w)
    for _ in range(16):
        w, state = opt.step(w, jnp.ones_like(w), state)
    assert_same(state.unpack(w).master, jnp.full(2, 0.75))
    assert_same(w, jnp.full(2, 0.75, dtype))


def test_without_master_float32_is_rounded_when_stored(cls):
    opt = make(cls)
    params = half_tree()
    state = opt.init(params)
    assert all(one.master is None for one in state.unpack(params).values())
    for seed in (1, 2):
        exact, exact_state = opt.step(single(params), single(half_tree(seed)), single(state))
        params, state = opt.step(params, half_tree(seed), state)
        assert_near(params, like(exact, params), 1)
        assert_near(state, like(exact_state, state), 1)
        # The next step is computed from the same bits.
        params, state = like(exact, params), like(exact_state, state)


@pytest.mark.usefixtures("thresholds")
def test_of_many_multipliers_each_weight_has_its_own(cls):
    names = "abcdefgh"
    params, grads = ({n: tree(seed + i)["a"] for i, n in enumerate(names)} for seed in (0, 50))
    factors = {n: 0.3 + 0.1 * i for i, n in enumerate(names)}
    decays = {"wd_mult": {**factors, "b": 0.0, "e": 0.0}} if make(cls).wd else {}
    opt = make(cls, lr_mult=factors, **decays)
    state = opt.init(params)
    for _ in range(2):
        states, old = state.unpack(params), params
        params, state = opt.step(params, grads, state)
        for name, now in state.unpack(params).items():
            weight, alone = opt.update(name, old[name], grads[name], states[name])
            assert_near(params[name], weight, 16)
            assert_near(now, alone, 16)


@pytest.mark.usefixtures("x64")
def test_float64_is_computed_in_float64(cls):
    exact, state = run(make(cls), dtype=np.float64)
    assert {x.dtype for x in jax.tree.leaves((exact, state)) if is_real(x)} == {np.dtype("f8")}
    rough, state = run(make(cls))
    assert {x.dtype for x in jax.tree.leaves((rough, state)) if is_real(x)} == {np.dtype("f4")}
    if cls.__name__ != "SGLD":  # Noise of another precision is other noise.
        assert_near(single(exact), rough, 64)
        assert any(np.any(np.float32(x) != np.asarray(x)) for x in exact.values())


@pytest.mark.usefixtures("x64")
def test_hyperparameters_are_double_for_float64_weights():
    opt = mxopt.SGD(learning_rate=0.1)
    weight, grad = np.float64([1.0]), np.float64([0.3])
    moved, _ = opt.update(0, weight, grad, opt.create_state(0, weight))
    assert moved == weight - np.float64(0.1) * grad


@pytest.mark.parametrize("kind", [mxopt.Adam, mxopt.SGD, mxopt.LAMB, mxopt.GroupAdaGrad])
def test_mixed_dtypes_of_weights_and_gradients(kind):
    opt = make(kind, multi_precision=True)
    params = {**tree(), "d": half_tree()["a"], "e": half_tree()["b"], "f": half_tree()["c"]}
    grads = jax.tree.map(lambda w, g: (w * 0.5).astype(g), params, {
        "a": jnp.bfloat16, "b": np.float32, "c": jnp.float16,
        "d": np.float32, "e": jnp.bfloat16, "f": jnp.bfloat16,
    })  # fmt: skip
    state = opt.init(params)
    states = state.unpack(params)
    assert [key for key, state in states.items() if state.master is not None] == ["d", "e", "f"]
    stepped, new = opt.step(params, grads, state)
    assert dtypes(stepped) == dtypes(params)
    assert dtypes(new) == dtypes(state)
    for key in params:
        alone = opt.update(key, params[key], grads[key], states[key])
        assert_near((stepped[key], new.unpack(params)[key]), alone, 4)


@pytest.mark.usefixtures("thresholds")
def test_where_false_leaves_every_bit(cls):
    opt = make(cls, multi_precision=True)
    params = half_tree()
    params, state = opt.step(params, half_tree(1), opt.init(params))
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, np.nan), params)
    assert_same(opt.step(params, broken, state, where=jnp.bool_(False)), (params, state))
    expected = opt.step(params, half_tree(4), state)
    assert_near(opt.step(params, half_tree(4), state, where=np.bool_(True)), expected)
    assert expected[1].num_update == 2


def test_where_is_traced():
    opt = mxopt.Adam(learning_rate=0.1)
    params, state = run(opt, 1)

    @jax.jit
    def guarded(params, grads, state):
        finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)]))
        return opt.step(params, grads, state, where=finite)

    assert_same(guarded(params, {**params, "a": params["a"] * np.inf}, state), (params, state))
    assert guarded(params, params, state)[1].num_update == 2


@pytest.mark.usefixtures("thresholds")
def test_a_scan_equals_a_loop(cls):
    # Within a loop XLA may sum norms in another order, which moves every element.
    units = 8 if cls.__name__ in OF_THE_WHOLE else 4
    # A function of its own, or JAX would take what it traced at the other settings.
    assert_near(jax.jit(lambda opt: scanned(opt))(make(cls)), run(make(cls)), units)


def test_nested_jit_and_checkpoint_change_nothing():
    opt = make(mxopt.Adam)
    params, grads = tree(), tree(1)
    state = opt.init(params)
    expected = opt.step(params, grads, state)
    nested = jax.jit(lambda p, g, s: jax.jit(opt.step)(p, g, s))
    assert_same(nested(params, grads, state), expected)
    assert_near(jax.checkpoint(opt.step)(params, grads, state), expected)


@pytest.mark.usefixtures("thresholds")
def test_vmap_over_weights_equals_one_by_one(cls):
    opt = make(cls)
    models, grads = [tree(0), tree(7)], [tree(1), tree(2)]
    stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    state = jax.vmap(opt.init)(stack(models))
    assert state.num_update.shape == (2,)
    stepped = jax.jit(jax.vmap(opt.step))(stack(models), stack(grads), state)
    for number in range(2):
        alone = opt.step(models[number], grads[number], opt.init(models[number]))
        assert_near(jax.tree.map(lambda leaf: leaf[number], stepped), alone, 4)  # noqa: B023


def test_mapping_update_over_a_tree_equals_step(cls):
    # Of the two that share an array one decays and the other does not.
    opt = make(cls, param_idx2name={"a": "a_weight", "b": "a_bias"})
    params, grads = tree(), tree(1)
    stepped, state = opt.step(params, grads, opt.init(params))
    names = {key: key for key in params}
    states = jax.tree.map(opt.create_state, names, params)
    both = jax.tree.map(opt.update, names, params, grads, states)
    assert_near({key: pair[0] for key, pair in both.items()}, stepped, 4)
    assert_near(opt.pack(params, {key: pair[1] for key, pair in both.items()}), state, 4)


@pytest.mark.usefixtures("thresholds")
def test_odd_shapes(cls):
    shapes = [(0, 3), (1, 1), (2, 0)]
    if cls.__name__ not in OF_MATRICES:
        shapes += [(), (0,), (1,), (2, 1, 2, 1, 2)]
    opt = make(cls)
    params = [jnp.ones(shape) for shape in shapes for _ in range(2)]
    stepped, state = opt.step(params, params, opt.init(params))
    assert [leaf.shape for leaf in stepped] == [leaf.shape for leaf in params]
    assert all(np.all(np.isfinite(leaf)) for leaf in stepped)
    assert state.num_update == 1
    empty, state = opt.step({}, {}, opt.init({}))
    assert empty == {}
    assert state.num_update == 1


def test_numpy_arrays_and_floats_serve_as_weights(cls):
    opt = make(cls)
    numpy = jax.tree.map(np.asarray, tree())
    assert_same(opt.step(numpy, numpy, opt.init(numpy)), opt.step(tree(), tree(), opt.init(tree())))
    if cls.__name__ not in OF_MATRICES:
        updated, _ = opt.update(0, 1.0, 0.5, opt.create_state(0, 1.0))
        assert updated.shape == ()


WARNS = """
import warnings
import jax.numpy as jnp
import jaxmxopt as mxopt

weight = jnp.ones(2, jnp.bfloat16)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    mxopt.Adam(multi_precision=True).init({"w": weight})
    mxopt.Adam().create_state("w", weight)
    assert not seen
    mxopt.Adam().create_state_multi_precision("w", weight)
    mxopt.Adam().init({"w": weight})
    mxopt.Adam(learning_rate=0.5).init({"w": weight})
for warning in seen:
    print(warning.category.__name__, warning.message)
"""


def test_half_precision_without_masters_is_warned_of_once_a_process():
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True)
    (said,) = done.stdout.splitlines()
    assert re.match(r"UserWarning Adam: .*multi_precision=True keeps float32 masters", said)


@pytest.mark.parametrize("two", [2, 2.0, np.float64(2), np.int32(2), jnp.float16(2), jnp.int32(2)])
def test_schedules_may_give_any_number(two):
    weight = tree()["a"]
    opt, plain = mxopt.SGD(lr_scheduler=lambda t: two), mxopt.SGD(learning_rate=2.0)
    state = plain.create_state(0, weight)
    assert_same(opt.update(0, weight, weight, state), plain.update(0, weight, weight, state))


def test_hyperparameters_may_be_arrays_of_any_number():
    weight = tree()["a"]
    expected, _ = mxopt.SGD(learning_rate=2).update(
        0, weight, weight, mxopt.SGD().create_state(0, weight)
    )
    for two in (jnp.int32(2), np.array(2.0), jnp.float16(2), jnp.asarray(2)):
        opt = mxopt.SGD(learning_rate=two)
        assert_same(opt.update(0, weight, weight, opt.create_state(0, weight))[0], expected)


def test_lars_without_any_gradient_left_does_not_move():
    opt = mxopt.LARS(learning_rate=0.5, rescale_grad=0.0)
    params = {"w": jnp.ones(3)}
    assert_same(opt.step(params, params, opt.init(params))[0], params)


def test_chains_under_vmap_share_their_noise_until_their_keys_differ():
    opt = make(mxopt.SGLD)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), tree())
    state = jax.vmap(opt.init)(params)
    chains = jnp.arange(3, dtype=jnp.uint32)

    def own(state, chain):
        is_key = lambda leaf: leaf.dtype == jnp.uint32  # noqa: E731
        return jax.tree.map(lambda leaf: leaf ^ chain if is_key(leaf) else leaf, state)

    for given, different in ((state, 1), (jax.vmap(own)(state, chains), 3)):
        new, _ = jax.vmap(opt.step)(params, jax.tree.map(jnp.zeros_like, params), given)
        assert len(np.unique(np.asarray(new["c"]), axis=0)) == different
