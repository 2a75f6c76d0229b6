"""Nothing moves unseen between host and device once the first step was made."""

import jax
import jax.numpy as jnp
import pytest

import jaxmxopt as mxopt

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def definition(params, grads):
    opt = mxopt.Adam(wd=0.1)
    kept = [params, opt.init(params)]

    def step():
        kept[:] = opt.step(kept[0], grads, kept[1])

    return step


def trainer(params, grads, opt="adam", **more):
    trained = mxopt.Trainer(params, opt, **more)
    return lambda: trained.step(grads, batch_size=2)


def wrapped(params, grads):
    return trainer(params, grads, mxopt.EMA(mxopt.ClipGlobalNorm(mxopt.Adam(), max_norm=1.0)))


def accumulating(params, grads):
    return trainer(params, grads, mxopt.Accumulate(mxopt.Adam(), every=2))


def scaled(params, grads):
    return trainer(params, grads, loss_scaler=mxopt.amp.DynamicLossScaler())


def updater(params, grads):
    update = mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
    kept = dict(params)

    def step():
        for name in kept:
            kept[name] = update(name, grads[name], kept[name])

    return step


def lists(params, grads):
    update = mxopt.get_updater("adam")
    return lambda: update(list(params), list(grads.values()), list(params.values()))


WAYS = [definition, trainer, wrapped, accumulating, scaled, updater, lists]


@pytest.mark.parametrize("way", WAYS)
def test_a_training_loop_passes_the_guard_once_a_step_was_made(way):
    params = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
    step = way(params, jax.tree.map(jnp.ones_like, params))
    step()
    step()
    with jax.transfer_guard("disallow"):
        step()
        step()
