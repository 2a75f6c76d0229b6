"""Results that share a loop, whatever a caller does with them."""

import functools
import re
import subprocess
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from samples import assert_near, make

import jaxmxopt as mxopt
from jaxmxopt._core import one_loop as _one_loop
from jaxmxopt._core.layout import Layout

SHAPE = (256, 192)
# Loops over a weight: what has a root or a quotient in it is computed after the slots, and norms
# need what they are of. RMSProp is centered here.
LOOPS = {
    mxopt.SGD: 1,
    mxopt.ccSGD: 1,
    mxopt.NAG: 1,
    mxopt.Signum: 1,
    mxopt.DCASGD: 1,
    mxopt.LARS: 1,
    mxopt.Adam: 2,
    mxopt.AdamW: 2,
    mxopt.Adamax: 2,
    mxopt.Nadam: 2,
    mxopt.RMSProp: 3,
    mxopt.LAMB: 3,
    mxopt.LANS: 7,
}
OPERATION = "mhlo.fusion"
# With another release of jaxlib every result has a loop of its own.
SUPPORTED = version("jaxlib") in ("0.10.0", "0.10.1", "0.10.2")


def weights(seed=0, dtype=jnp.float32):
    return {"w": jax.random.normal(jax.random.key(seed), SHAPE, dtype)}


def lowered(opt, params, where=None):
    """The program of `opt.step`."""
    state = opt.init(params)
    own = _one_loop.makes_own_program(state.slots.groups[:1])
    run, numbers = opt._prepared_step(True, own)
    return run.lower(numbers, params, state, params, where)


def loops(program) -> int:
    """The loops of a compiled program that have a result of the weight's shape."""
    dims = ",".join(map(str, SHAPE))
    return len(re.findall(rf"= \(?f32\[{dims}\][^=]* fusion\(", program.compile().as_text()))


def test_only_on_a_cpu_with_the_release_it_is_tested_for(monkeypatch):
    assert _one_loop.makes_own_program(()) == SUPPORTED
    monkeypatch.setattr(_one_loop, "on_cpu", lambda: False)
    assert not _one_loop.makes_own_program(())
    monkeypatch.undo()
    monkeypatch.setattr(_one_loop, "SUPPORTED", False)
    assert not _one_loop.makes_own_program(())
    jax.clear_caches()
    assert OPERATION not in lowered(make(mxopt.Adam), weights()).as_text()
    # What was traced here is not to be found by other tests.
    jax.clear_caches()


@pytest.mark.parametrize("algorithm", LOOPS, ids=lambda cls: cls.__name__)
def test_a_large_weight_is_updated_in_few_loops(algorithm):
    assert loops(lowered(make(algorithm), weights())) == LOOPS[algorithm] or not SUPPORTED


@pytest.mark.parametrize("algorithm", [mxopt.SGD, mxopt.Adam], ids=lambda cls: cls.__name__)
def test_a_step_that_may_be_skipped_has_no_more(algorithm):
    program = lowered(make(algorithm), weights(), jnp.bool_(True))
    assert loops(program) == LOOPS[algorithm] or not SUPPORTED


def test_numbers_are_those_of_a_callers_program(cls):
    opt, params = make(cls), weights()
    inside, outside = (params, opt.init(params)), (params, opt.init(params))
    step = jax.jit(opt.step)
    for seed in range(1, 4):
        inside, outside = step(inside[0], weights(seed), inside[1]), opt.step(
            outside[0], weights(seed), outside[1]
        )  # fmt: skip
    assert_near(outside, inside, ulps=16)


@pytest.mark.filterwarnings("ignore:.*half-precision:UserWarning")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("multi_precision", [True, False])
def test_in_a_callers_program_what_is_rounded_shares_no_loop(dtype, multi_precision):
    opt = make(mxopt.Adam, multi_precision=multi_precision)
    params = weights(0, dtype)
    state = opt.init(params)
    assert (OPERATION in lowered(opt, params).as_text()) == SUPPORTED
    inside = jax.jit(opt.step)
    shared = OPERATION in inside.lower(params, params, state).as_text()
    assert shared == (multi_precision and SUPPORTED)
    assert_near(opt.step(params, params, state), inside(params, params, state))


def forgetful(rule):
    """Leaves out what a rule keeps."""

    @functools.wraps(rule)
    def forgetting(self, rates, weight, grad, slots):
        new, _ = rule(self, rates, weight, grad, slots)
        return new, slots

    return forgetting


class Calling(mxopt.SGD):
    def _rule(self, rates, weight, grad, slots):
        new, _ = super()._rule(rates, weight, grad, slots)
        return new, slots


class Wrapping(mxopt.SGD):
    _rule = forgetful(mxopt.SGD._rule)


class Nameless(mxopt.SGD):
    _rule = forgetful(mxopt.SGD._rule)
    _rule.__module__ = None


@pytest.mark.parametrize("algorithm", [Calling, Wrapping, Nameless], ids=lambda cls: cls.__name__)
def test_a_rule_from_elsewhere_may_leave_out_what_it_likes(algorithm):
    opt, params = algorithm(learning_rate=0.1, momentum=0.9), weights()
    assert OPERATION not in lowered(opt, params).as_text()
    new, state = opt.step(params, params, opt.init(params))
    assert_near(new["w"], params["w"] * jnp.float32(0.9))
    assert not state.slots.groups[0].mom.any()


@pytest.fixture(params=LOOPS, ids=lambda cls: cls.__name__)
def step(request):
    opt, params = make(request.param), weights()
    return opt, params, params, opt.init(params)


def _eagerly(function):
    with jax.ensure_compile_time_eval():
        return function()


def _without_jit(function):
    with jax.disable_jit():
        return function()


# XLA aborts where all results of such a fusion but one are unused, constant or the same.
CALLERS = {
    "weights only": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s)[0])(p, g, s),
    "state only": lambda opt, p, g, s: jax.jit(lambda p, g, s: opt.step(p, g, s)[1])(p, g, s),
    "of constants": lambda opt, p, g, s: jax.jit(lambda: opt.step(p, g, s)[0])(),
    "no gradient": lambda opt, p, g, s: jax.jit(
        lambda p: opt.step(p, jax.tree.map(jnp.zeros_like, p), opt.init(p))
    )(p),
    "vmap": lambda opt, p, g, s: jax.vmap(lambda g: opt.step(p, g, s)[0])(
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), g)
    ),
    "scan": lambda opt, p, g, s: jax.lax.scan(
        lambda p, _: (opt.step(p, g, s)[0], None), p, length=2
    )[0],
    "cond": lambda opt, p, g, s: jax.jit(
        lambda yes: jax.lax.cond(yes, lambda: opt.step(p, g, s)[0], lambda: p)
    )(True),
    "grad": lambda opt, p, g, s: jax.grad(
        lambda rate: opt.replace(learning_rate=rate).step(p, g, s)[0]["w"].sum()
    )(0.1),
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
        lambda w: opt.update("w", w, w, opt.create_state("w", w))[0]
    )(p["w"]),
    "eagerly in a jit": lambda opt, p, g, s: jax.jit(
        lambda x: (_eagerly(lambda: opt.step(p, g, s)[0]), x)[1]
    )(1.0),
    "a callback": lambda opt, p, g, s: jax.jit(
        lambda x: jax.pure_callback(lambda x: (opt.step(p, g, s), x)[1], x, x)
    )(jnp.float32(1)),
    "without jit": lambda opt, p, g, s: _without_jit(lambda: opt.step(p, g, s)[0]),
    "a wrapper": lambda opt, p, g, s: jax.jit(
        lambda p, g: mxopt.EMA(opt).step(p, g, mxopt.EMA(opt).init(p))[0]
    )(p, g),
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
    "while": lambda opt, p, g, s: jax.jit(
        lambda p, s: jax.lax.while_loop(
            lambda now: now[1].num_update < 3, lambda now: opt.step(now[0], g, now[1]), (p, s)
        )[0]
    )(p, s),
    "skipped": lambda opt, p, g, s: jax.jit(
        lambda p, s, ok: opt.step(p, g, s, where=ok)[1].num_update
    )(p, s, False),
    "jvp": lambda opt, p, g, s: jax.jit(
        lambda p, g: jax.jvp(lambda g: opt.step(p, g, s)[0], (g,), (g,))[1]
    )(p, g),
    "checkpoint": lambda opt, p, g, s: jax.jit(
        jax.grad(jax.checkpoint(lambda g: opt.step(p, g, s)[0]["w"].sum()))
    )(g),
    "vmap of jit": lambda opt, p, g, s: jax.jit(
        jax.vmap(lambda rate: opt.replace(learning_rate=rate).step(p, g, s)[0])
    )(jnp.array([0.1, 0.2])),
    "a loss": lambda opt, p, g, s: jax.jit(
        lambda p, s: opt.step(p, jax.grad(lambda p: jnp.sum(p["w"] ** 4))(p), s)[0]
    )(p, s),
}


def _filled(state, value):
    """A state whose slots all hold the same, if they are like a weight."""
    fill = lambda slot: jnp.broadcast_to(value, SHAPE) if slot.shape == SHAPE else slot  # noqa: E731
    return state._replace(slots=jax.tree.map(fill, state.slots))


def _reversed(stepped, grads):
    return stepped[0], grads, stepped[1]


@pytest.mark.parametrize("caller", CALLERS)
def test_callers_may_use_what_they_like_of_a_step(caller, step):
    jax.block_until_ready(CALLERS[caller](*step))


@pytest.mark.parametrize("donate", [False, True])
def test_a_callers_program_has_as_few_loops(donate, step):
    opt, *args = step
    program = jax.jit(lambda *args: opt.step(*args, donate=donate)).lower(*args)
    assert (OPERATION in program.as_text()) == SUPPORTED
    assert loops(program) == LOOPS[type(opt)] or not SUPPORTED


def test_what_is_exported_holds_nothing_of_xlas_own(step):
    opt, *args = step
    exported = jax.export.export(jax.jit(opt.step))(*args)
    assert OPERATION not in exported.mlir_module()
    assert_near(exported.call(*args), opt.step(*args), ulps=16)


def test_importing_inside_of_a_trace_is_no_program_of_its_own():
    program = (
        "import jax\n"
        "def traced(x):\n"
        "    import jaxmxopt._core.one_loop as one_loop\n"
        "    assert not one_loop.makes_own_program(())\n"
        "    return x\n"
        "jax.jit(traced)(1.0)\n"
        "import jaxmxopt._core.one_loop as one_loop\n"
        f"assert one_loop.makes_own_program(()) == {SUPPORTED}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("shape", [(128, 128), (16385,), (0, 3, 3), (1, 1, 2, 2)], ids=str)
def test_all_sizes(shape):
    opt, weight = make(mxopt.NAG), jnp.ones(shape)
    stepped = opt.step(weight, weight, opt.init(weight))
    assert_near(stepped, jax.jit(opt.step)(weight, weight, opt.init(weight)))


def test_importing_at_the_end_of_the_interpreter():
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


def test_divided_slots_of_a_whole_weight_are_on_several_devices():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    opt = make(mxopt.Adam)
    params = jax.device_put(weights(), NamedSharding(mesh, PartitionSpec()))
    divided = NamedSharding(mesh, PartitionSpec("rows"))
    state = jax.tree.map(
        lambda leaf: jax.device_put(leaf, divided if leaf.shape else None), opt.init(params)
    )
    assert not _one_loop.makes_own_program(state.slots.groups[:1])


def test_weights_on_several_devices_are_neither_fused_nor_gathered():
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    opt, params = make(mxopt.NAG), weights()
    divided = jax.device_put(params, NamedSharding(mesh, PartitionSpec("rows")))
    program = lowered(opt, divided)
    assert OPERATION not in program.as_text()
    assert "all-gather" not in program.compile().as_text()
    new, state = opt.step(divided, divided, opt.init(divided))
    assert new["w"].sharding == divided["w"].sharding
    assert_near((new, state), opt.step(params, params, opt.init(params)), ulps=16)


def test_the_trainer_and_lists_share_loops_too():
    opt, weight = mxopt.create("sgd", learning_rate=0.1, momentum=0.9), weights()["w"]
    state, layout = opt.create_state(0, weight), Layout(((0,),))
    counted = opt._counted(0)
    plan = opt._planned(counted)
    rates = plan.rates([counted], True)
    run = plan.run_all((0,), str, False, layout.pack([state]), rates)
    table = plan.table(rates, [0])
    packed = layout.pack([state]), layout.pack([None])
    assert loops(run.lower(*table, [weight], *packed, [weight])) == 1 or not SUPPORTED
