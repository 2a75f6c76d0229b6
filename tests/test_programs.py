"""Programs: compiled once for all numbers, asked anew by who changed, freed with who made them."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import optax
import pytest
from samples import assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.interop import from_optax

WRAPPED = {
    "alone": lambda opt: opt,
    "EMA": mxopt.EMA,
    "Groups": lambda opt: mxopt.Groups({"*": opt}),
}
PARAMS = {"w": jnp.ones(3)}


class Rate:
    """A schedule that changes."""

    def __init__(self, now):
        self.now = now

    def __call__(self, t):
        return jnp.float32(self.now)

    def method(self, t):
        return jnp.float32(self.now)


def after_a_step(how, opt):
    state = opt.init(PARAMS)
    if how == "update":
        w = PARAMS["w"]
        return opt.update("w", w, w, opt.create_state("w", w))[0]
    if how == "Trainer":
        return mxopt.Trainer(PARAMS, opt).step(PARAMS, 1)["w"]
    step = opt.step if how == "step" else jax.jit(lambda *args: opt.step(*args))
    return step(PARAMS, PARAMS, state)[0]["w"]


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("how", ["step", "update", "jit", "Trainer"])
@pytest.mark.parametrize("kind", ["object", "method", "closure", "partial"])
def test_a_definition_made_anew_asks_its_schedule_anew(wrapped, how, kind):
    rate = Rate(0.25)
    schedule = {
        "object": rate,
        "method": rate.method,
        "closure": lambda t: rate(t),
        "partial": functools.partial(Rate.method, rate),
    }[kind]
    for now in (0.25, 0.5):
        rate.now = now
        opt = WRAPPED[wrapped](mxopt.SGD(lr_scheduler=schedule))
        assert_same(after_a_step(how, opt), jnp.full(3, 1 - now))


def test_a_schedule_may_hold_what_a_program_computes():
    rate = Rate(0.0)

    def step(params, lr):
        rate.now = lr
        opt = mxopt.SGD(lr_scheduler=lambda t: rate.now)
        return opt.step(params, params, opt.init(params))[0]["w"]

    for lr in (0.25, 0.5):
        assert_same(jax.jit(lambda *args: step(*args))(PARAMS, lr), jnp.full(3, 1 - lr))


@pytest.mark.parametrize(
    "make",
    [
        lambda held: mxopt.Adam(lr_scheduler=lambda t: (held, jnp.float32(0.1))[1]),
        lambda held: mxopt.EMA(mxopt.Adam(lr_scheduler=lambda t: (held, jnp.float32(0.1))[1])),
        lambda held: from_optax(optax.sgd(lambda t: (held, jnp.float32(0.1))[1])),
    ],
    ids=["Adam", "EMA", "from_optax"],
)
def test_what_a_schedule_holds_is_freed_with_its_definition(make):
    held = Rate(0.0)
    gone = weakref.ref(held)
    opt = make(held)
    for how in ("step", "update", "jit"):
        after_a_step(how, opt)
    del held, opt
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_other_numbers_beside_a_schedule_compile_nothing(wrapped, compilations):
    opt = WRAPPED[wrapped](mxopt.Adam(lr_scheduler=lambda t: jnp.float32(0.1)))
    params, state = opt.step(PARAMS, PARAMS, opt.init(PARAMS))
    params, state = opt.replace(beta1=0.85).step(params, PARAMS, state)
    with compilations as seen:
        for beta in (0.8, 0.7):
            params, state = opt.replace(beta1=beta).step(params, PARAMS, state)
    assert seen.count == 0


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("how", ["step", "update", "Trainer"])
def test_a_new_function_as_a_schedule_compiles_nothing(wrapped, how, compilations):
    """Outside of a caller's jit a schedule is asked before each step: its rate is an argument."""
    made = lambda rate: WRAPPED[wrapped](mxopt.SGD(lr_scheduler=lambda t: rate))  # noqa: E731
    for rate in (0.25, 0.5):
        after_a_step(how, made(rate))
    with compilations as seen:
        for rate in (0.75, 0.125):
            assert_same(after_a_step(how, made(rate)), jnp.full(3, 1 - rate))
    assert seen.count == 0


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_another_number_compiles_nothing_in_wrappers(wrapped, compilations):
    other_numbers_compile_nothing(WRAPPED[wrapped](make(mxopt.Adam)), compilations)


def test_another_number_compiles_nothing(cls, compilations):
    other_numbers_compile_nothing(make(cls), compilations)


def other_numbers_compile_nothing(opt, compilations):
    params = tree()
    state = opt.init(params)
    weight, alone = params["a"], opt.create_state("a", params["a"])

    def all_ways(opt):
        opt.step(params, params, state)
        opt.step(params, params, state, where=True)
        opt.update("a", weight, weight, alone)

    all_ways(opt)
    all_ways(opt.replace(learning_rate=0.25))
    with compilations as seen:
        for number in (0.3, 0.4):
            all_ways(opt.replace(learning_rate=number, rescale_grad=number, clip_gradient=number))
    assert seen.count == 0


def test_attributes_that_a_training_loop_changes_compile_nothing(compilations):
    opt = mxopt.create("adam", wd=0.2)
    ones = jnp.ones(77)
    state = opt.create_state(0, ones)
    opt.update(0, ones, ones, state)
    with compilations as seen:
        opt.lr, opt.wd, opt.beta1, opt.rescale_grad = 0.5, 0.1, 0.8, 0.25
        for index in "abc":
            opt.update(index, ones, ones, state)
    assert seen.count == 0


def test_weights_of_one_shape_share_a_program(compilations):
    opt = mxopt.Adam(lr_mult={"a": 0.5, "b": 0.25})
    ones = jnp.ones(53)
    for index in "ac":  # One with a multiplier, one without.
        opt.update(index, ones, ones, opt.create_state(index, ones))
    with compilations as seen:
        opt.update("b", ones, ones, opt.create_state("b", ones))
        opt.update("d", ones, ones, opt.create_state("d", ones))
    assert seen.count == 0


@pytest.mark.parametrize("how", ["step", "update", "Trainer"])
def test_a_definition_made_anew_of_equal_values_compiles_nothing(how, compilations):
    after_a_step(how, mxopt.Adam())
    after_a_step(how, mxopt.Adam(learning_rate=0.5))
    with compilations as seen:
        for rate in (0.25, 0.125):
            after_a_step(how, mxopt.Adam(learning_rate=rate))
    assert seen.count == 0


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_a_schedule_holds_is_freed_step_by_step(wrapped):
    """A new schedule at each step keeps none of those before."""
    kept = []
    state, params = None, PARAMS
    for number in range(5):
        held = Rate(0.1 + number)
        kept.append(weakref.ref(held))
        opt = WRAPPED[wrapped](mxopt.Adam(lr_scheduler=lambda t, held=held: held(t)))
        state = opt.init(params) if state is None else state
        params, state = opt.step(params, PARAMS, state)
        del held, opt
    gc.collect()
    assert [ref() for ref in kept] == [None] * 5


@pytest.mark.parametrize("how", ["step", "update"])
def test_a_definition_is_freed(how):
    """What is compiled for a definition holds its structure, not the definition."""

    def trained():
        class Passing(mxopt.OptimizerDef):
            def rule(self, rates, weight, grad, slots):
                return weight - rates.lr * grad, slots

        opt = Passing(learning_rate=0.5)
        assert_same(after_a_step(how, opt), jnp.full(3, 0.5))
        return weakref.ref(opt)

    gone = trained()
    gc.collect()
    assert gone() is None


def test_arrays_of_a_step_are_freed():
    """Nothing of a tree is kept beside what is returned."""
    opt = mxopt.EMA(mxopt.Adam(multi_precision=True))
    params = {"w": jnp.ones((41, 43), jnp.bfloat16), "v": jnp.ones((41, 43))}
    grads = jax.tree.map(jnp.copy, params)
    state = opt.init(params)
    params, state = opt.step(params, grads, state)
    params, state = opt.step(params, grads, state, donate=True)
    gc.collect()
    before = len(jax.live_arrays())
    for _ in range(3):
        params, state = opt.step(params, grads, state)
        params, state = opt.step(params, grads, state, donate=True)
    gc.collect()
    assert len(jax.live_arrays()) <= before
