"""Steps in programs of their own and in a caller's: the same numbers, whatever it asks for."""

import functools
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from samples import assert_near, make

import jaxmxopt as mxopt

SHAPE = (256, 192)


def weights(seed=0, dtype=jnp.float32):
    return {"w": jax.random.normal(jax.random.key(seed), SHAPE, dtype)}


def test_numbers_are_those_of_a_callers_program(cls):
    opt, params = make(cls), weights()
    inside, outside = (params, opt.init(params)), (params, opt.init(params))
    step = jax.jit(opt.step)
    for seed in range(1, 4):
        inside = step(inside[0], weights(seed), inside[1])
        outside = opt.step(outside[0], weights(seed), outside[1])
    assert_near(outside, inside, ulps=16)


@pytest.mark.filterwarnings("ignore:.*half-precision:UserWarning")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("multi_precision", [True, False])
def test_half_precision_in_a_callers_program(dtype, multi_precision):
    opt = make(mxopt.Adam, multi_precision=multi_precision)
    params = weights(0, dtype)
    state = opt.init(params)
    assert_near(opt.step(params, params, state), jax.jit(opt.step)(params, params, state))


@pytest.mark.parametrize("shape", [(128, 128), (16385,), (0, 3, 3), (1, 1, 2, 2)], ids=str)
def test_all_sizes(shape):
    opt, weight = make(mxopt.NAG), jnp.ones(shape)
    stepped = opt.step(weight, weight, opt.init(weight))
    assert_near(stepped, jax.jit(opt.step)(weight, weight, opt.init(weight)))


# A rule of one's own may leave out what it likes of what the rule that it calls gives.


class Calling(mxopt.SGD):
    def rule(self, rates, weight, grad, slots):
        new, _ = super().rule(rates, weight, grad, slots)
        return new, slots


def forgetful(rule):
    """Leaves out what a rule keeps."""

    @functools.wraps(rule)
    def forgetting(self, rates, weight, grad, slots):
        new, _ = rule(self, rates, weight, grad, slots)
        return new, slots

    return forgetting


def wrapping():
    return type("Wrapping", (mxopt.SGD,), {"rule": forgetful(mxopt.SGD.rule)})


def nameless():
    kind = wrapping()
    kind.rule.__module__ = None
    return kind


@pytest.mark.parametrize("kind", [lambda: Calling, wrapping, nameless], ids=["a", "b", "c"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_rule_from_elsewhere_may_leave_out_what_it_likes(kind, jit):
    opt, params = kind()(learning_rate=0.1, momentum=0.9), weights()
    step = jax.jit(opt.step) if jit else opt.step
    new, state = step(params, params, opt.init(params))
    assert_near(new["w"], params["w"] * jnp.float32(0.9))
    assert not state.unpack(new)["w"].slots.mom.any()


# What callers do with a step. One row for each kind of rule.

KINDS = [mxopt.SGD, mxopt.Adam, mxopt.LAMB, mxopt.NAG, mxopt.RMSProp, mxopt.Ftrl]


@pytest.fixture(params=KINDS, ids=lambda cls: cls.__name__)
def step(request):
    opt, params = make(request.param), weights()
    return opt, params, weights(1), opt.init(params)


def _eagerly(function):
    with jax.ensure_compile_time_eval():
        return function()


def _without_jit(function):
    with jax.disable_jit():
        return function()


# These give the new weights.
WEIGHTS = {
    "weights only": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s)[0])(p, g, s),
    "of constants": lambda opt, p, g, s: jax.jit(lambda: opt.step(p, g, s)[0])(),
    "vmap": lambda opt, p, g, s: jax.tree.map(
        lambda leaf: leaf[1],
        jax.vmap(lambda g: opt.step(p, g, s)[0])(
            jax.tree.map(lambda leaf: jnp.stack([-leaf, leaf]), g)
        ),
    ),
    "scan": lambda opt, p, g, s: jax.lax.scan(
        lambda p, _: (opt.step(p, g, s)[0], None), p, length=1
    )[0],
    "cond": lambda opt, p, g, s: jax.jit(
        lambda yes: jax.lax.cond(yes, lambda: opt.step(p, g, s)[0], lambda: p)
    )(True),
    "shard_map": lambda opt, p, g, s: jax.shard_map(
        lambda p, g, s: opt.step(p, g, s)[0],
        mesh=jax.make_mesh((1,), ("one",)),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )(p, g, s),
    "donating": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s, donate=True)[0])(
        p, g, s
    ),
    "one weight": lambda opt, p, g, s: jax.jit(
        lambda w, g: {"w": opt.update("w", w, g, opt.create_state("w", w))[0]}
    )(p["w"], g["w"]),
    "eagerly in a jit": lambda opt, p, g, s: jax.jit(
        lambda x: (_eagerly(lambda: opt.step(p, g, s)[0]), x)[0]
    )(1.0),
    "without jit": lambda opt, p, g, s: _without_jit(lambda: opt.step(p, g, s)[0]),
    "a wrapper": lambda opt, p, g, s: jax.jit(
        lambda p, g: mxopt.EMA(opt).step(p, g, mxopt.EMA(opt).init(p))[0]
    )(p, g),
    "while": lambda opt, p, g, s: jax.jit(
        lambda p, s: jax.lax.while_loop(
            lambda now: now[1].num_update < 1, lambda now: opt.step(now[0], g, now[1]), (p, s)
        )[0]
    )(p, s),
    "vmap of jit": lambda opt, p, g, s: jax.tree.map(
        lambda leaf: leaf[0],
        jax.jit(jax.vmap(lambda rate: opt.replace(learning_rate=rate).step(p, g, s)[0]))(
            jnp.array([opt.learning_rate, 0.2])
        ),
    ),
    "a loss": lambda opt, p, g, s: jax.jit(
        lambda p, s: opt.step(p, jax.grad(lambda p: jnp.sum(p["w"] * g["w"]))(p), s)[0]
    )(p, s),
    "checkpoint": lambda opt, p, g, s: jax.checkpoint(lambda g: opt.step(p, g, s)[0])(g),
}
# Of these only that they run: XLA may drop what it likes.
RUN = {
    "state only": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s)[1])(p, g, s),
    "no gradient": lambda opt, p, g, s: jax.jit(
        lambda p: opt.step(p, jax.tree.map(jnp.zeros_like, p), opt.init(p))
    )(p),
    "grad": lambda opt, p, g, s: jax.grad(
        lambda rate: opt.replace(learning_rate=rate).step(p, g, s)[0]["w"].sum()
    )(0.1),
    "a callback": lambda opt, p, g, s: jax.jit(
        lambda x: jax.pure_callback(lambda x: (opt.step(p, g, s), x)[1], x, x)
    )(jnp.float32(1)),
    "nothing": lambda opt, p, g, s: jax.jit(lambda p, g, s: (opt.step(p, g, s), 1)[1])(p, g, s),
    "one slot": lambda opt, p, g, s: jax.jit(
        lambda p, g, s: jax.tree.leaves(opt.step(p, g, s)[1])[-1]
    )(p, g, s),
    "one number": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s)[0]["w"][0, 0])(
        p, g, s
    ),
    "a state of its weights": lambda opt, p, g, s: jax.jit(
        lambda p, s: opt.step(p, p, _filled(s, p["w"]))
    )(p, s),
    "a state of ones": lambda opt, p, g, s: jax.jit(
        lambda s: opt.step(*[{"w": jnp.ones(SHAPE)}] * 2, _filled(s, 1.0))[0]
    )(s),
    "no arguments": lambda opt, p, g, s: jax.jit(
        lambda: opt.step(*[{"w": jnp.zeros(SHAPE)}] * 2, opt.init({"w": jnp.zeros(SHAPE)}))
    )(),
    "steps in a row": lambda opt, p, g, s: jax.jit(
        lambda p, s: opt.step(*_reversed(opt.step(p, g, s), g))[0]
    )(p, s),
    "skipped": lambda opt, p, g, s: jax.jit(
        lambda p, s, ok: opt.step(p, g, s, where=ok)[1].num_update
    )(p, s, False),
    "jvp": lambda opt, p, g, s: jax.jit(
        lambda p, g: jax.jvp(lambda g: opt.step(p, g, s)[0], (g,), (g,))[1]
    )(p, g),
    "derivative of a checkpoint": lambda opt, p, g, s: jax.jit(
        jax.grad(jax.checkpoint(lambda g: opt.step(p, g, s)[0]["w"].sum()))
    )(g),
}


def _filled(state, value):
    """A state whose slots all hold the same, if they are like a weight."""
    fill = lambda slot: jnp.broadcast_to(value, SHAPE) if slot.shape == SHAPE else slot  # noqa: E731
    return state._replace(slots=jax.tree.map(fill, state.slots))


def _reversed(stepped, grads):
    return stepped[0], grads, stepped[1]


@pytest.mark.parametrize("caller", WEIGHTS)
def test_a_caller_is_given_the_same_weights(caller, step):
    opt, params, grads, state = step
    expected = opt.step(params, grads, state)[0]
    assert_near(WEIGHTS[caller](*step), expected, 16)


@pytest.mark.parametrize("caller", RUN)
def test_a_caller_may_use_what_he_likes_of_a_step(caller, step):
    jax.block_until_ready(RUN[caller](*step))


def test_what_is_exported_is_loaded_elsewhere(step):
    opt, *args = step
    exported = jax.export.export(jax.jit(opt.step))(*args)
    loaded = jax.export.deserialize(exported.serialize())
    assert_near(loaded.call(*args), opt.step(*args), ulps=16)


@pytest.mark.parametrize("setting", ["jax_disable_jit", "jax_debug_nans"])
@pytest.mark.parametrize("rows", [False, True])
def test_who_wants_to_see_every_operation_is_given_the_same(setting, rows):
    opt, params, grads = mxopt.Adam(), weights(), weights(1)
    if rows:
        values = grads["w"][:3]
        grads = {"w": mxopt.RowSparse(np.int32([4, 1, 4]), values, SHAPE)}
    state = opt.init(params)
    expected = opt.step(params, grads, state)
    jax.config.update(setting, True)
    try:
        jax.clear_caches()
        assert_near(opt.step(params, grads, state), expected, 4)
    finally:
        jax.config.update(setting, False)


# Where the process is in some other state than usual.


def test_imported_inside_of_a_trace_it_works_there_and_afterwards():
    program = (
        "import jax, jax.numpy as jnp\n"
        "def traced(x):\n"
        "    import jaxmxopt\n"
        "    opt = jaxmxopt.SGD(learning_rate=1.0)\n"
        "    return opt.step(x, x, opt.init(x))[0]\n"
        "print(jax.jit(traced)(jnp.float32(1)))\n"
        "print(traced(jnp.float32(1)))\n"
        "print(jax.vmap(traced)(jnp.ones(2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "0.0\n0.0\n[0. 0.]\n", done.stderr


def test_it_may_be_imported_at_the_end_of_the_interpreter():
    program = (
        "import atexit\n"
        "def late():\n"
        "    import jaxmxopt\n"
        "    print('imported')\n"
        "atexit.register(late)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "imported\n", done.stderr


def test_weights_on_several_devices_are_not_gathered():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    opt, params = make(mxopt.NAG), weights()
    divided = jax.device_put(params, NamedSharding(mesh, PartitionSpec("rows")))
    program = jax.jit(opt.step).lower(divided, divided, opt.init(divided)).compile()
    assert "all-gather" not in program.as_text()
    new, state = opt.step(divided, divided, opt.init(divided))
    assert new["w"].sharding == divided["w"].sharding
    assert_near((new, state), opt.step(params, params, opt.init(params)), ulps=16)


def test_a_whole_weight_may_have_divided_slots():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    opt, params = make(mxopt.Adam), weights()
    expected, _ = opt.step(params, params, opt.init(params))
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    place = lambda leaf: jax.device_put(leaf, rows) if leaf.shape == SHAPE else leaf  # noqa: E731
    state = jax.tree.map(place, opt.init(whole))
    new, state = opt.step(whole, whole, state)
    assert_near(jax.device_get(new), jax.device_get(expected), 4)
    for slot in state.unpack(new)["w"].slots:
        assert slot.sharding.is_equivalent_to(rows, slot.ndim)
