"""Sweeps over hyperparameters by `vmap`, and gradients with respect to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import ALGORITHMS, assert_near, make, run, scanned, tree

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler


def stacked(definitions):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *definitions)


def one_of(tree, number):
    return jax.tree.map(lambda leaf: leaf[number], tree)


def scaled(opt, factor):
    """A neighbour with other numbers everywhere; those in [0, 1) stay there."""
    return jax.tree.map(lambda leaf: leaf * factor, opt)


def test_a_sweep_of_every_number_equals_one_by_one(cls):
    definitions = [scaled(make(cls), factor) for factor in (1.0, 0.9, 0.7)]
    swept = jax.jit(jax.vmap(scanned))(stacked(definitions))
    for number, opt in enumerate(definitions):
        assert_near(one_of(swept, number), run(opt), 8)


def test_a_sweep_of_rate_betas_and_decay_through_the_constructor():
    def trained(rate, beta, decay):
        return scanned(mxopt.Adam(learning_rate=rate, beta1=beta, beta2=1 - beta / 9, wd=decay))[0]

    values = [(0.1, 0.9, 0.0), (0.01, 0.5, 0.1), (0.03, 0.8, 0.01)]
    swept = jax.jit(jax.vmap(trained))(*map(jnp.array, zip(*values, strict=True)))
    for number, value in enumerate(values):
        assert_near(one_of(swept, number), jax.jit(trained)(*value), 8)


def test_a_definition_is_made_of_tracers(cls):
    rates = jnp.array([0.1, 0.02])
    swept = jax.jit(jax.vmap(lambda rate: scanned(make(cls, learning_rate=rate))[0]))(rates)
    for number, rate in enumerate(rates):
        assert_near(one_of(swept, number), run(make(cls, learning_rate=float(rate)))[0], 8)


def test_a_sweep_of_schedules_and_multipliers():
    def definition(rate, factor):
        schedule = CosineScheduler(max_update=5, base_lr=rate, final_lr=rate / 10)
        return mxopt.LAMB(lr_scheduler=schedule, wd=0.1, wd_mult={"*c": factor})

    definitions = [definition(0.1, 0.0), definition(0.02, 3.0)]
    swept = jax.jit(jax.vmap(scanned))(stacked(definitions))
    for number, opt in enumerate(definitions):
        assert_near(one_of(swept, number), run(opt), 8)


def as_arrays(opt):
    return jax.tree.map(jnp.asarray, opt)


def loss(opt, scale):
    """A smooth function of a weight after some steps with gradients of this size."""
    weight = tree(0, np.float64)["a"]
    grads = scale * jnp.stack([tree(seed, np.float64)["a"] for seed in (1, 2, 3)])
    first = opt.create_state("a", weight)
    updates = lambda carry, grad: (opt.update("a", carry[0], grad, carry[1]), None)  # noqa: E731
    (weight, _), _ = jax.lax.scan(updates, (weight, first), grads)
    return jnp.sum(jnp.sin(weight + 1))


slopes = jax.jit(jax.grad(loss))


def differences(opt, scale):
    """Central finite differences of the loss, number by number."""
    function = jax.jit(jax.vmap(loss, in_axes=(0, None)))
    leaves, structure = jax.tree.flatten(as_arrays(opt))
    values = np.array(leaves)
    moves = np.diag(1e-6 * np.maximum(1.0, np.abs(values)))
    around = jnp.asarray(np.concatenate([values + moves, values - moves]))
    up, down = np.split(function(jax.tree.unflatten(structure, list(around.T)), scale), 2)
    return (up - down) / (2 * np.diag(moves))


# Small enough that nothing is clipped: at a bound there is no derivative.
UNCLIPPED = {"clip_gradient": 9.0}


@pytest.mark.usefixtures("x64")
def test_gradient_agrees_with_finite_differences(cls):
    opt = make(cls, **UNCLIPPED)
    gradient = slopes(as_arrays(opt), 0.3)
    assert type(gradient) is cls
    np.testing.assert_allclose(
        jax.tree.leaves(gradient), differences(opt, 0.3), rtol=1e-5, atol=1e-7
    )


# The eigenvectors of zeros have no derivative.
WITHOUT_EIGENVECTORS = [kind for kind in ALGORITHMS if kind.__name__ != "SOAP"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", WITHOUT_EIGENVECTORS)
def test_gradient_is_finite_where_the_gradient_of_a_weight_is_zero(kind):
    gradient = slopes(as_arrays(make(kind, **UNCLIPPED)), 0.0)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))
    if kind.__name__ != "GroupAdaGrad":
        gradient = slopes(as_arrays(make(kind, **UNCLIPPED, wd=0.0)), 0.0)
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.usefixtures("x64")
def test_gradient_through_a_schedule_and_multipliers():
    schedule = CosineScheduler(max_update=9, base_lr=0.1, final_lr=0.01)
    opt = mxopt.SGD(lr_scheduler=schedule, momentum=0.5, wd=0.1, lr_mult={"a": 0.5, "*c": 2.0})
    gradient = slopes(as_arrays(opt), 0.3)
    np.testing.assert_allclose(
        jax.tree.leaves(gradient), differences(opt, 0.3), rtol=1e-5, atol=1e-7
    )
    assert gradient.lr_mult["a"] != 0
    assert gradient.lr_mult["*c"] == 0


@pytest.mark.usefixtures("x64")
def test_forward_mode_agrees_with_reverse():
    opt = as_arrays(make(mxopt.Adam, **UNCLIPPED))
    forward = jax.jit(jax.jacfwd(loss))(opt, 0.3)
    np.testing.assert_allclose(
        jax.tree.leaves(forward), jax.tree.leaves(slopes(opt, 0.3)), rtol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_gradient_of_a_whole_step_with_respect_to_weights(cls):
    opt = make(cls, **UNCLIPPED)
    grads = jax.tree.map(lambda g: 0.3 * g, tree(1, np.float64))
    params, direction = tree(0, np.float64), tree(5, np.float64)

    def after(size):
        moved = jax.tree.map(lambda w, d: w + size * d, params, direction)
        stepped, _ = opt.step(moved, grads, opt.init(moved))
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(stepped))

    both = jax.jit(jax.vmap(jax.value_and_grad(after)))(jnp.array([1e-6, 0.0, -1e-6]))
    np.testing.assert_allclose(both[1][1], (both[0][0] - both[0][2]) / 2e-6, rtol=1e-5)
