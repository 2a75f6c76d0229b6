"""States made before a hyperparameter that decides which slots there are was changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmxopt as mxopt

W = jnp.array([1.0, -2.0])
KINDS = [mxopt.SGD, mxopt.ccSGD, mxopt.NAG, mxopt.Signum, mxopt.LARS, mxopt.LBSGD, mxopt.DCASGD]
SAID = (
    r"state must be made with momentum as it is now, got one made with momentum=0\.0; "
    r"make it anew\.$"
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_momentum_is_not_silently_left_out(kind):
    plain = kind(momentum=0.0)
    opt, name = plain.replace(momentum=0.9), kind.__name__
    with pytest.raises(ValueError, match=rf"^{name}\.step\(''\): {SAID}"):
        opt.step(W, W, plain.init(W))
    with pytest.raises(ValueError, match=rf"^{name}\.update\('w'\): {SAID}"):
        opt.update("w", W, W, plain.create_state("w", W))
    with pytest.raises(ValueError, match=rf"^{name}\.pack\('w'\): {SAID}"):
        opt.pack({"w": W}, {"w": plain.create_state("w", W)})


@pytest.mark.parametrize("now", [False, True])
def test_centered_is_what_the_state_was_made_with(now):
    opt = mxopt.RMSProp(centered=now)
    said = r"^RMSProp\.step\(''\): state is of another algorithm: slots must be (Centered)?RMS"
    with pytest.raises(TypeError, match=said):
        opt.step(W, W, opt.replace(centered=not now).init(W))


def test_momentum_may_become_zero():
    opt = mxopt.SGD(learning_rate=1.0, momentum=0.5)
    w, state = opt.step(W, W, opt.init(W))
    w, state = opt.replace(momentum=0.0).step(w, W, state)
    np.testing.assert_array_equal(w, [-1.0, 2.0])
    np.testing.assert_array_equal(state.unpack(w).slots.mom, -W)


def test_a_momentum_that_is_not_known_goes_by_the_state():
    opt = mxopt.SGD(learning_rate=1.0)
    step = jax.jit(lambda opt, state: opt.step(W, W, state)[0])
    np.testing.assert_array_equal(step(opt, opt.init(W)), [0.0, 0.0])
    np.testing.assert_array_equal(
        opt.replace(momentum=jnp.array(0.0)).step(W, W, opt.init(W))[0], [0.0, 0.0]
    )
    with pytest.raises(ValueError, match=r"^SGD\.step\(''\): state must be made with momentum"):
        opt.replace(momentum=jnp.array(0.9)).step(W, W, opt.init(W))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda opt: mxopt.EMA(mxopt.Accumulate(opt, every=2)),
        lambda opt: mxopt.Groups({"a": mxopt.Adam(), "*": opt}),
        lambda opt: mxopt.ClipGlobalNorm(mxopt.Groups({"*": opt}), max_norm=1.0),
    ],
    ids=["EMA", "Groups", "ClipGlobalNorm"],
)
def test_wrappers_look_inside(wrap):
    plain, opt = wrap(mxopt.SGD()), wrap(mxopt.SGD(momentum=0.9))
    params = {"a": W, "b": W}
    with pytest.raises(ValueError, match=rf"^{type(opt).__name__}\.step\('[ab]'\): {SAID}"):
        opt.step(params, params, plain.init(params))
    with pytest.raises(ValueError, match=rf"^{type(opt).__name__}\.update\('b'\): {SAID}"):
        opt.update("b", W, W, plain.create_state("b", W))


def test_the_stateful_layer_refuses_and_counts_nothing():
    opt = mxopt.optimizer.SGD()
    plain = opt.create_state(0, W)
    opt.momentum = 0.9
    with pytest.raises(ValueError, match=rf"^SGD\.update\(0\): {SAID}"):
        opt.update(0, W, W, plain)
    with pytest.raises(ValueError, match=rf"^SGD\.update\(1\): {SAID}"):
        opt.update([0, 1], [W, W], [W, W], [opt.create_state(0, W), plain])
    assert opt.num_update == 0
    trainer = mxopt.Trainer({"a": W, "b": W}, "sgd")
    trainer.optimizer.momentum = 0.9
    with pytest.raises(ValueError, match=rf"^Trainer\.step\('a'\): {SAID}"):
        trainer.step({"a": W, "b": W}, batch_size=1)
    assert trainer.optimizer.num_update == 0
