"""Every algorithm through optax's own tools, on the problems optax tries its own on."""

import importlib
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import assert_near, assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.interop import apply_updates, as_optax
from jaxmxopt.interop._as_optax import _BY_GRADIENT
from jaxmxopt.lr_scheduler import CosineScheduler

pytestmark = pytest.mark.usefixtures("compiled_quickly")
STEPS = 2000


def falling(lr):
    return {"lr_scheduler": CosineScheduler(max_update=STEPS, base_lr=lr)}


# Settings for the parabola, and for the valley.
SETTINGS = {
    "Adafactor": (falling(0.1), falling(0.02)),
    "AdaBelief": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "AdaDelta": ({}, {"rho": 0.5, "epsilon": 1e-8}),
    "AdaGrad": ({"learning_rate": 2.0}, {"learning_rate": 1.0}),
    "Adam": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "AdamW": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "AdEMAMix": (
        {"alpha": 0.5, "beta3": 0.99, **falling(0.1)},
        {"alpha": 0.5, "beta3": 0.99, **falling(0.02)},
    ),
    "BERTAdam": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "Adamax": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "DCASGD": ({"learning_rate": 0.1}, {"learning_rate": 1e-3, "momentum": 0.9}),
    "FTML": (falling(0.1), falling(0.02)),
    "Ftrl": ({"learning_rate": 2.0, "lamda1": 0.0}, {"learning_rate": 0.4, "lamda1": 0.0}),
    "GroupAdaGrad": ({"learning_rate": 2.0}, {"learning_rate": 1.0}),
    "LAMB": (falling(0.1), falling(0.02)),
    "LANS": (falling(0.1), falling(0.02)),
    "LARS": ({"eta": 0.1, **falling(1.0)}, {"eta": 0.01, "momentum": 0.9, **falling(1.0)}),
    "LBSGD": ({"learning_rate": 0.1}, {"learning_rate": 1e-3, "momentum": 0.9}),
    "Lion": (falling(0.1), falling(0.01)),
    "Muon": (falling(0.1), falling(0.02)),
    "NAG": ({"learning_rate": 0.1, "momentum": 0.5}, {"learning_rate": 1e-3, "momentum": 0.9}),
    "Nadam": ({"learning_rate": 0.1}, falling(0.02)),
    "RAdam": ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
    "RMSProp": (falling(0.1), falling(0.01)),
    "SGD": ({"learning_rate": 0.1}, {"learning_rate": 1e-3, "momentum": 0.9}),
    "SOAP": (falling(0.1), falling(0.02)),
    # A steep loss is a low temperature.
    "SGLD": (
        {"rescale_grad": 1e5, **falling(1e-6)},
        {"rescale_grad": 1e5, **falling(4e-7)},
    ),
    "ScheduleFreeAdamW": ({"learning_rate": 0.1, "r": 2.0}, {"learning_rate": 0.02, "r": 2.0}),
    "ScheduleFreeSGD": ({"learning_rate": 0.1, "r": 2.0}, {"learning_rate": 0.02, "r": 2.0}),
    "Signum": (falling(0.1), falling(0.01)),
    # Adds the gradient.
    "Test": ({"rescale_grad": -0.1}, {"rescale_grad": -0.01}),
    "ccSGD": ({"learning_rate": 0.1}, {"learning_rate": 1e-3, "momentum": 0.9}),
}
LOWEST = np.array([[1.0, -1.0, 1.0]], np.float32)


def parabola(w):
    return jnp.sum(jnp.square(w - LOWEST))


def valley(w):
    """Rosenbrock's, with gentler walls."""
    return jnp.sum((1 - w[:, 0]) ** 2 + 10 * (w[:, 1] - w[:, 0] ** 2) ** 2)


def settings(cls, number):
    return SETTINGS[cls.__name__][number]


def minimized(tx, loss, weights, steps=STEPS):
    def body(carry, _):
        weights, state = carry
        updates, state = tx.update(jax.grad(loss)(weights), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    run = lambda w: jax.lax.scan(body, (w, tx.init(w)), length=steps)[0][0]  # noqa: E731
    return jax.jit(run)(weights)


def test_finds_the_bottom_of_a_parabola(cls):
    found = minimized(as_optax(cls(**settings(cls, 0))), parabola, jnp.array([[-1.0, 10.0, 1.0]]))
    np.testing.assert_allclose(found, LOWEST, rtol=3e-2, atol=3e-2)


def test_follows_a_bent_valley(cls):
    found = minimized(as_optax(cls(**settings(cls, 1))), valley, jnp.array([[-0.5, 0.5]]))
    np.testing.assert_allclose(found, [[1.0, 1.0]], rtol=3e-2, atol=3e-2)


def test_adds_up_to_a_step(cls):
    opt = make(cls)
    tx, params, grads = as_optax(opt), tree(0), tree(1)
    updates, state = tx.update(grads, tx.init(params), params, value=1.0, unknown_to_us=2)
    new, expected = opt.step(params, grads, opt.init(params))
    assert_same(updates, jax.tree.map(jnp.subtract, new, params))
    assert_same(state, expected)
    for a, b, c in zip(*map(jax.tree.leaves, (params, updates, new)), strict=True):
        unit = np.finfo(np.float32).eps * (np.abs(a) + np.abs(c))
        np.testing.assert_array_less(np.abs(a + b - c), unit)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=str)
def test_structure_shapes_and_dtypes_are_stable(cls, dtype):
    opt = make(cls, multi_precision=True)
    tx, params = as_optax(opt), tree(0, dtype)
    state = tx.init(params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    kinds = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(s)] for s in (state, after)]
    assert kinds[0] == kinds[1]
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}


def test_compiles_once(compilations):
    tx, params = as_optax(mxopt.Adam()), tree(0)
    update = jax.jit(tx.update)
    _, state = update(tree(1), tx.init(params), params)
    with compilations as seen:
        update(tree(2), state, params)
    assert seen.count == 0


@pytest.mark.parametrize(
    ("opt", "needs"),
    [
        (mxopt.LAMB(), "LAMB"),
        (mxopt.Ftrl(), "Ftrl"),
        (mxopt.Adam(wd=0.1), "wd of Adam"),
        (mxopt.Signum(wd_lh=0.1), "wd_lh of Signum"),
        (mxopt.RMSProp(clip_weights=1.0), "clip_weights of RMSProp"),
        (mxopt.SGD(multi_precision=True), "multi_precision of SGD"),
        (mxopt.Groups({"a": mxopt.SGD(), "*": mxopt.LARS()}), "LARS"),
        (mxopt.EMA(mxopt.SGD()), "EMA"),
    ],
)
def test_needs_the_weights_where_they_count(opt, needs):
    tx, name = as_optax(opt), type(opt).__name__
    said = rf"^as_optax\({name}\)\.update: params must be given, got None: {needs} asks for"
    with pytest.raises(ValueError, match=said):
        tx.update(tree(1), tx.init(tree(0)))


@pytest.mark.parametrize("kind", [*_BY_GRADIENT, "wrapped"])
def test_needs_no_weights_where_gradients_say_all(kind):
    if kind == "wrapped":
        inside = mxopt.Groups({"frozen": None, "*": mxopt.Adam()})
        tx = as_optax(mxopt.ClipGlobalNorm(mxopt.Accumulate(inside, every=2), max_norm=1.0))
    else:
        opt = make(kind)
        tx = as_optax(opt.replace(**{n: 0.0 for n in ("wd", "wd_lh") if hasattr(opt, n)}))
    params = {"w": jnp.full((2, 3), 0.25), "frozen": jnp.ones(2)}
    grads = {"w": jnp.arange(1.0, 7.0).reshape(2, 3) / 8, "frozen": jnp.ones(2)}
    if kind != "wrapped":
        params, grads = {"w": params["w"]}, {"w": grads["w"]}
    with_weights = without = tx.init(params)
    for _ in range(2):
        expected, with_weights = tx.update(grads, with_weights, params)
        updates, without = tx.update(grads, without)
        # A difference of weights is rounded as the weights are.
        np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5, atol=1e-7)
    assert_same(without, with_weights)


def test_states_are_equal_where_their_values_are():
    opt, params = mxopt.Groups({"a": mxopt.SGLD(), "*": mxopt.Adam()}), tree(0)
    state = opt.init(params)
    assert state == opt.init(params)
    assert state != opt.step(params, tree(1), state)[1]
    assert state != opt.init({"a": jnp.ones(2), "c": jnp.ones(2)})
    assert mxopt.Adam().create_state(0, jnp.ones(2)) == mxopt.Adam().create_state(0, jnp.ones(2))


def test_updates_have_the_dtypes_of_weights_whatever_the_gradients_are(x64):
    tx = as_optax(mxopt.Adam())
    for weight, grad in (("float32", "float64"), ("float64", "float32"), ("float64", "float64")):
        w, g = jnp.ones(2, weight), jnp.ones(2, grad)
        updates, _ = tx.update(g, tx.init(w), w)
        assert updates.dtype == weight
        assert optax.apply_updates(w, updates).dtype == weight
        assert tx.update(g, tx.init(w))[0].dtype == grad


def test_sharpness_aware_minimization_around_ours():
    ours, theirs = as_optax(mxopt.SGD(learning_rate=0.1)), optax.sgd(0.1)
    params, grads = tree(0), tree(1)
    pairs = []
    for tx in (ours, theirs):
        sam = optax.contrib.sam(tx, tx, sync_period=2)
        state, weights = sam.init(params), params
        for _ in range(3):
            # optax multiplies by a bool.
            with jax.numpy_dtype_promotion("standard"):
                updates, state = sam.update(grads, state, weights)
            weights = optax.apply_updates(weights, updates)
        pairs.append(weights)
    assert_near(*pairs, 4)


def test_names_in_a_state_are_mxnets():
    state = as_optax(mxopt.Adam()).init({"w": jnp.ones(2)})
    assert optax.tree_utils.tree_get(state, "num_update") == 0
    assert optax.tree_utils.tree_get(state, "mean").shape == (2,)
    assert optax.tree_utils.tree_get(state, "count") is None


@pytest.mark.parametrize(("static", "slots"), [((), 1), (("momentum",), 0)])
def test_an_injected_momentum_has_a_slot_for_what_it_may_become(static, slots):
    factory = optax.inject_hyperparams(as_optax(mxopt.SGD), static_args=static)
    tx = factory(learning_rate=0.1, momentum=0.0)
    state = tx.init(jnp.ones(2))
    assert len(jax.tree.leaves(state.inner_state.slots)) == slots


@pytest.mark.parametrize(
    "given", [None, "adam", int, optax.adam(1e-3)], ids=["None", "name", "type", "optax"]
)
def test_refuses_what_is_no_definition(given):
    with pytest.raises(TypeError, match=r"^as_optax: definition must be an optimizer such as"):
        as_optax(given)


def test_says_what_is_missing_without_optax(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    monkeypatch.delitem(sys.modules, "jaxmxopt.interop")
    with pytest.raises(ModuleNotFoundError, match="needs optax, which is not installed: pip inst"):
        importlib.import_module("jaxmxopt.interop")


# optax's tools.


def test_maps_over_members_of_an_ensemble(cls):
    tx = as_optax(make(cls))
    members = [tree(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def step(params, grads):
        updates, state = tx.update(grads, tx.init(params), params)
        return tx.update(grads, state, optax.apply_updates(params, updates))[0]

    mapped = jax.jit(jax.vmap(step, in_axes=(0, None)))(stacked, tree(9))
    alone = [jax.jit(step)(member, tree(9)) for member in members]
    # Updates are differences: their rounding is that of the weights.
    for leaf, *parts in zip(*map(jax.tree.leaves, (mapped, *alone)), strict=True):
        np.testing.assert_allclose(leaf, np.stack(parts), rtol=1e-5, atol=1e-6)


def test_injects_hyperparameters(cls):
    given = {k: v for k, v in settings(cls, 1).items() if k != "lr_scheduler"}
    given.setdefault("learning_rate", 0.05)
    tx = optax.inject_hyperparams(as_optax(cls))(**given)
    plain, params = as_optax(cls(**given)), tree(0)
    state = tx.init(params)
    assert set(given) <= set(state.hyperparams)
    updates, state = jax.jit(tx.update)(tree(1), state, params)
    expected, inner = plain.update(tree(1), plain.init(params), params)
    for a, b in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    if jax.tree.structure(inner.slots) == jax.tree.structure(state.inner_state.slots):
        assert_near(state.inner_state, inner, 16)


def test_injected_hyperparameters_change_without_compiling(compilations):
    tx, params = optax.inject_hyperparams(as_optax(mxopt.SGD))(learning_rate=0.1), tree(0)
    update = jax.jit(tx.update)
    _, state = update(tree(1), tx.init(params), params)
    state.hyperparams["learning_rate"] = jnp.float32(0.5)
    with compilations as seen:
        updates, _ = update(tree(1), state, params)
    assert seen.count == 0
    assert_near(updates, jax.tree.map(lambda g: -0.5 * g, tree(1)), 8)


def test_injects_a_schedule():
    schedule = optax.linear_schedule(0.4, 0.0, 4)
    tx, w = optax.inject_hyperparams(as_optax(mxopt.SGD))(learning_rate=schedule), jnp.zeros(1)
    state, seen = tx.init(w), []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(1), state, w)
        seen.append(float(updates[0]))
    np.testing.assert_allclose(seen, [-0.4, -0.3, -0.2], rtol=1e-6)


def test_integers_are_static_where_asked():
    make_tx = optax.inject_hyperparams(as_optax(mxopt.Adam), static_args="begin_num_update")
    state = make_tx(learning_rate=0.1, begin_num_update=7).init(tree(0))
    assert int(state.inner_state.num_update) == 7


def test_different_transformations_for_different_weights(cls):
    labels = {"a": "ours", "b": "theirs", "c": "ours"}
    ours, theirs = as_optax(make(cls)), optax.sgd(0.1)
    tx, params = optax.multi_transform({"ours": ours, "theirs": theirs}, labels), tree(0)
    updates, _ = jax.jit(tx.update)(tree(1), tx.init(params), params)
    part = {key: params[key] for key in "ac"}
    expected, _ = ours.update({key: tree(1)[key] for key in "ac"}, ours.init(part), part)
    assert_near({key: updates[key] for key in "ac"}, expected, 64)
    assert_near(updates["b"], -0.1 * tree(1)["b"])


def test_masks(cls):
    ours, params = as_optax(make(cls)), tree(0)
    tx = optax.masked(ours, {"a": False, "b": True, "c": True})
    updates, _ = jax.jit(tx.update)(tree(1), tx.init(params), params)
    assert_same(updates["a"], tree(1)["a"])
    assert_near(updates["c"], ours.update(tree(1), ours.init(params), params)[0]["c"], 64)


def test_chains(cls):
    opt = make(cls)
    tx, params = (
        optax.chain(optax.clip_by_global_norm(0.5), as_optax(opt), optax.scale(2.0)),
        tree(),
    )
    updates, _ = jax.jit(tx.update)(tree(1), tx.init(params), params)
    clipped, _ = optax.clip_by_global_norm(0.5).update(tree(1), optax.EmptyState())
    new, _ = opt.step(params, clipped, opt.init(params))
    for a, b, c in zip(*map(jax.tree.leaves, (updates, new, params)), strict=True):
        np.testing.assert_allclose(a, 2 * (b - c), rtol=1e-4, atol=1e-6)


def test_skips_updates_that_are_not_finite(cls):
    tx, params = optax.apply_if_finite(as_optax(make(cls)), max_consecutive_errors=3), tree(0)
    state, update = tx.init(params), jax.jit(tx.update)
    bad = jax.tree.map(lambda g: g.at[0, 0].set(jnp.nan), tree(1))
    updates, skipped = update(bad, state, params)
    assert_same(updates, jax.tree.map(jnp.zeros_like, params))
    assert_same(skipped.inner_state, state.inner_state)
    updates, state = update(tree(1), skipped, params)
    assert int(state.inner_state.num_update) == 1


# MultiSteps itself divides a float by an int.
@jax.numpy_dtype_promotion("standard")
def test_accumulates_over_several_steps(cls):
    opt, params = make(cls), tree(0)
    tx = optax.MultiSteps(as_optax(opt), every_k_schedule=2)
    state, update = tx.init(params), jax.jit(tx.update)
    updates, state = update(tree(1), state, params)
    assert_same(updates, jax.tree.map(jnp.zeros_like, params))
    updates, state = update(tree(2), state, params)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, tree(1), tree(2))
    expected, _ = as_optax(opt).update(mean, opt.init(params), params)
    for a, b in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [partial(mxopt.Accumulate, every=2), mxopt.EMA, partial(mxopt.ClipGlobalNorm, max_norm=1.0)],
    ids=["Accumulate", "EMA", "ClipGlobalNorm"],
)
def test_wrappers_are_transformations_too(wrap):
    opt, params = wrap(mxopt.Adam()), tree(0)
    tx = as_optax(opt)
    updates, state = tx.update(tree(1), tx.init(params), params)
    new, expected = opt.step(params, tree(1), opt.init(params))
    assert_same((updates, state), (jax.tree.map(jnp.subtract, new, params), expected))


# Precision.


def test_a_difference_may_miss_the_new_weight_and_masters_do_not():
    """A sign change in bfloat16: the difference has more digits than fit."""
    opt = mxopt.SGD(learning_rate=1.0, multi_precision=True)
    tx, w = as_optax(opt), jnp.array([1.0], jnp.bfloat16)
    grad = jnp.array([1.00390625], jnp.float32)
    new, _ = opt.step(w, grad, opt.init(w))
    updates, state = tx.update(grad, tx.init(w), w)
    assert_same(apply_updates(w, updates, state), new)
    assert float(optax.apply_updates(w, updates)[0]) != float(new[0])
    # The next update starts from the master: nothing is lost for good.
    missed = optax.apply_updates(w, updates)
    updates, state = tx.update(grad, state, missed)
    _, expected = opt.step(new, grad, opt.step(w, grad, opt.init(w))[1])
    assert_same(state, expected)


def test_small_updates_reach_masters_through_a_chain():
    opt = mxopt.SGD(learning_rate=1e-4, multi_precision=True)
    tx = optax.chain(optax.clip(1.0), as_optax(opt))
    params = jax.tree.map(jnp.ones_like, tree(0, jnp.bfloat16))
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return apply_updates(params, updates, state), state

    for _ in range(100):
        params, state = step(params, state)
    assert_same(params, jax.tree.map(lambda w: jnp.full_like(w, 0.99), params))


def test_exact_updates_need_one_state_of_a_definition():
    with pytest.raises(ValueError, match=r"^apply_updates: state must hold one state of as_optax"):
        apply_updates(tree(0), tree(1), optax.EmptyState())


def test_exact_updates_need_the_state_of_all_weights():
    tx, params = optax.masked(as_optax(mxopt.SGD()), {"a": True, "b": False, "c": True}), tree(0)
    with pytest.raises(ValueError, match=r"^apply_updates: state must be of all weights, got one"):
        apply_updates(params, params, tx.init(params))


@pytest.mark.parametrize("wrap", ["inject_hyperparams", "MultiSteps", "apply_if_finite"])
@jax.numpy_dtype_promotion("standard")
def test_exact_updates_go_through_what_optax_wraps_around(wrap):
    opt = mxopt.SGD(learning_rate=1e-3, multi_precision=True)
    tx = {
        "inject_hyperparams": lambda: optax.inject_hyperparams(as_optax(mxopt.SGD))(
            learning_rate=1e-3, multi_precision=True
        ),
        "MultiSteps": lambda: optax.MultiSteps(as_optax(opt), 1),
        "apply_if_finite": lambda: optax.apply_if_finite(as_optax(opt), 1),
    }[wrap]()
    params = tree(0, jnp.bfloat16)
    state, exact, inner = tx.init(params), params, opt.init(params)
    for seed in (1, 2):
        updates, state = tx.update(tree(seed, jnp.bfloat16), state, params)
        params = apply_updates(params, updates, state)
        exact, inner = opt.step(exact, tree(seed, jnp.bfloat16), inner)
    assert_same(params, exact)


def test_exact_updates_reach_the_masters_in_wrappers():
    opt = mxopt.EMA(
        mxopt.Groups({"a": mxopt.SGD(learning_rate=1e-3, multi_precision=True), "*": mxopt.SGD()})
    )
    tx, params = as_optax(opt), {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    updates, state = tx.update(params, tx.init(params), params)
    new, _ = opt.step(params, params, opt.init(params))
    assert_near(apply_updates(params, updates, state), new)


def test_a_multiplier_of_a_masked_weight_is_no_mistake(recwarn):
    tx = as_optax(mxopt.Adam(lr_mult={"c": 0.1}))
    optax.masked(tx, {"a": True, "b": True, "c": False}).init(tree())
    assert not recwarn.list
