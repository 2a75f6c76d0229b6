"""What is compiled with a schedule sees what that reads now, and keeps nothing of it."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import optax
import pytest
from samples import assert_same

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
def test_other_numbers_trace_no_schedule_again(wrapped):
    asked = []

    def schedule(t):
        asked.append(t)
        return jnp.float32(0.1)

    opt = WRAPPED[wrapped](mxopt.Adam(lr_scheduler=schedule))
    params, state = opt.step(PARAMS, PARAMS, opt.init(PARAMS))
    times = len(asked)
    for beta in (0.8, 0.7):
        params, state = opt.replace(beta1=beta).step(params, PARAMS, state)
    assert len(asked) == times
