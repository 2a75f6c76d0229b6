"""optax transformations as definitions: what optax itself gives, and what it has no word for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import assert_near, assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.interop import FromOptax, as_optax, from_optax
from jaxmxopt.lr_scheduler import PolyScheduler

pytestmark = pytest.mark.usefixtures("compiled_quickly")

BY_ELEMENT = {
    "adam": lambda: optax.adam(0.1),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1),
    "lion": lambda: optax.lion(0.01),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "schedule": lambda: optax.rmsprop(optax.linear_schedule(0.1, 0.0, 3)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(0.1), 3),
}
OF_THE_TREE = {
    "clipped": lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)),
    "masked": lambda: optax.masked(optax.sgd(0.1), {"a": True, "b": False, "c": True}),
    "multi_transform": lambda: optax.multi_transform(
        {"fast": optax.adam(0.1), "slow": optax.sgd(0.01)}, {"a": "fast", "b": "slow", "c": "slow"}
    ),
    "lamb": lambda: optax.lamb(0.1),
}
ALL = BY_ELEMENT | OF_THE_TREE


@pytest.fixture(autouse=True)
def promotion_that_optax_needs():
    """MultiSteps divides a float by an int."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def by_optax(tx, params, steps=4):
    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for seed in range(1, steps + 1):
        params, state = step(params, state, tree(seed))
    return params, state


def by_ours(opt, params, steps=4):
    state = opt.init(params)
    for seed in range(1, steps + 1):
        params, state = opt.step(params, tree(seed), state)
    return params, state


@pytest.mark.parametrize("name", ALL)
def test_steps_as_optax_does(name):
    params, state = by_ours(from_optax(ALL[name]()), tree(0))
    expected, inner = by_optax(ALL[name](), tree(0))
    assert_near(params, expected, 4)
    assert_near(state.slots.state, inner, 4)
    assert int(state.num_update) == 4


@pytest.mark.parametrize("name", BY_ELEMENT)
def test_a_weight_alone_is_updated_as_in_the_tree(name):
    opt = from_optax(BY_ELEMENT[name]())
    expected, _ = by_ours(opt, tree(0), steps=3)
    w = tree(0)["a"]
    state = opt.create_state("a", w)
    for seed in range(1, 4):
        w, state = opt.update("a", w, tree(seed)["a"], state)
    assert_near(w, expected["a"], 4)
    assert int(state.num_update) == 3


def test_what_looks_at_the_tree_sees_the_weight_alone():
    opt = from_optax(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)))
    w = jnp.zeros(2)
    new, _ = opt.update("w", w, jnp.array([3.0, 4.0]), opt.create_state("w", w))
    np.testing.assert_allclose(new, [-0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("kind", [mxopt.Adam, mxopt.LAMB, mxopt.Ftrl], ids=lambda k: k.__name__)
def test_goes_there_and_back(kind):
    opt = make(kind)
    again = from_optax(as_optax(opt))
    params, state = again.step(tree(0), tree(1), again.init(tree(0)))
    expected, inner = opt.step(tree(0), tree(1), opt.init(tree(0)))
    assert isinstance(again, FromOptax)
    assert jax.tree.structure(state.slots.state) == jax.tree.structure(inner)
    for a, b in zip(*map(jax.tree.leaves, (params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# The learning rate.


def test_a_rate_given_beside_a_direction():
    params, _ = by_ours(from_optax(optax.scale_by_adam(), learning_rate=0.1), tree(0))
    assert_near(params, by_optax(optax.adam(0.1), tree(0))[0], 4)


def test_weights_of_one_shape_share_what_is_compiled(compilations):
    opt, w = from_optax(optax.adam(0.1)), jnp.ones(2)
    expected = opt.update("a", w, w, opt.create_state("a", w))
    with compilations as seen:
        assert_same(opt.update(7, w, w, opt.create_state(7, w)), expected)
        assert_same(opt.update(None, w, w, opt.create_state(None, w)), expected)
    assert seen.count == 0
    with pytest.raises(TypeError, match=r"^FromOptax\.update: index must be hashable"):
        opt.update([7], w, w, opt.create_state(7, w))


def test_a_schedule_starts_at_one_and_goes_on_from_where_states_begin():
    seen = PolyScheduler(max_update=8, base_lr=1.0, pwr=1)
    opt = from_optax(optax.identity(), lr_scheduler=seen, begin_num_update=2)
    w, state = jnp.zeros(1), opt.init(jnp.zeros(1))
    assert int(state.num_update) == 2
    for count in (3, 4):
        new, state = opt.step(w, jnp.ones(1), state)
        np.testing.assert_allclose(w - new, seen(count), rtol=1e-6)
        w = new


def test_a_rate_changes_without_compiling_and_sweeps(compilations):
    opt, params = from_optax(optax.scale_by_adam(), learning_rate=0.1), tree(0)
    state = opt.init(params)
    opt.step(params, tree(1), state)
    with compilations as seen:
        opt.replace(learning_rate=0.3).step(params, tree(1), state)
    assert seen.count == 0
    stacked = opt.replace(learning_rate=jnp.array([0.1, 0.3]))
    rates = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, stacked)
    swept, _ = jax.vmap(lambda o: o.step(params, tree(1), state), in_axes=(rates,))(stacked)
    for number, rate in enumerate((0.1, 0.3)):
        alone, _ = opt.replace(learning_rate=rate).step(params, tree(1), state)
        assert_near(jax.tree.map(lambda leaf, n=number: leaf[n], swept), alone, 4)


# What definitions have and transformations do not.


def test_rescales_gradients():
    opt = from_optax(optax.sgd(1.0), rescale_grad=0.25)
    new, _ = opt.step(jnp.zeros(2), jnp.array([4.0, 8.0]), opt.init(jnp.zeros(2)))
    np.testing.assert_array_equal(new, [-1.0, -2.0])


def test_small_updates_reach_the_masters():
    opt = from_optax(optax.sgd(1e-4), multi_precision=True)
    params, grads = {"h": jnp.ones(3, jnp.bfloat16), "f": jnp.ones(3)}, {"h": jnp.ones(3)}
    grads["f"] = grads["h"]
    state = opt.init(params)
    first = params, state
    for _ in range(100):
        params, state = opt.step(params, grads, state)
    np.testing.assert_allclose(params["f"], 0.99, rtol=1e-5)
    assert_same(params["h"], params["f"].astype(jnp.bfloat16))
    assert jax.tree.structure((params, state)) == jax.tree.structure(first)
    assert [a.dtype for a in jax.tree.leaves(state)] == [a.dtype for a in jax.tree.leaves(first[1])]
    # A weight alone likewise.
    w = jnp.ones(3, jnp.bfloat16)
    alone = opt.create_state_multi_precision("h", w)
    for _ in range(100):
        w, alone = opt.update("h", w, jnp.ones(3), alone)
    assert_same(w, params["h"])


def test_a_skipped_step_leaves_no_trace():
    opt = from_optax(optax.adam(0.1))
    params, state = by_ours(opt, tree(0), steps=2)
    bad = jax.tree.map(lambda g: g * jnp.nan, tree(9))
    assert_same(opt.step(params, bad, state, where=jnp.array(False)), (params, state))
    assert_same(opt.step(params, tree(9), state, where=jnp.array(True))[1].num_update, jnp.int32(3))


def test_takes_sparse_gradients_for_what_they_stand_for():
    opt, w = from_optax(optax.sgd(1.0)), {"w": jnp.zeros((4, 2))}
    rows = mxopt.RowSparse(jnp.array([3, 1, 3]), jnp.ones((3, 2)), (4, 2))
    new, _ = opt.step(w, {"w": rows}, opt.init(w))
    np.testing.assert_array_equal(new["w"][:, 0], [0.0, -1.0, 0.0, -2.0])


def test_scans_and_donates():
    opt = from_optax(optax.adam(0.1))
    grads = jax.tree.map(lambda *g: jnp.stack(g), *(tree(seed) for seed in range(1, 5)))
    body = lambda carry, grad: (opt.step(carry[0], grad, carry[1]), None)  # noqa: E731
    scanned, _ = jax.lax.scan(body, (tree(0), opt.init(tree(0))), grads)
    expected = by_ours(opt, tree(0))
    assert_near(scanned, expected, 4)
    params = jax.tree.map(jnp.copy, tree(0))
    state = opt.init(params)
    for seed in range(1, 5):
        params, state = opt.step(params, tree(seed), state, donate=True)
    assert_same((params, state), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda opt: mxopt.Accumulate(opt, every=2),
        mxopt.EMA,
        lambda opt: mxopt.ClipGlobalNorm(opt, max_norm=0.5),
        lambda opt: mxopt.Groups({"a": mxopt.SGD(), "*": opt}),
    ],
    ids=["Accumulate", "EMA", "ClipGlobalNorm", "Groups"],
)
def test_goes_into_wrappers(wrap):
    """Adam of both makes, with an epsilon that does not tell them apart."""
    theirs = wrap(from_optax(optax.adam(0.1, eps=1e-12)))
    ours = wrap(mxopt.Adam(learning_rate=0.1, epsilon=1e-12))
    (params, state), (expected, _) = by_ours(theirs, tree(0)), by_ours(ours, tree(0))
    for a, b in zip(*map(jax.tree.leaves, (params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    if isinstance(theirs, mxopt.EMA):
        assert jax.tree.structure(mxopt.averaged(params, state)) == jax.tree.structure(params)


# MXNet's layer.


def test_an_optimizer_creates_states_and_updates():
    optimizer = mxopt.Optimizer(from_optax(optax.sgd(0.5)), rescale_grad=0.5)
    w = jnp.array([1.0, 2.0])
    state = optimizer.create_state_multi_precision(0, w)
    new, state = optimizer.update(0, w, jnp.ones(2), state)
    np.testing.assert_array_equal(new, [0.75, 1.75])
    assert optimizer.num_update == int(state.num_update) == 1
    with pytest.raises(ValueError, match=r"^FromOptax\.update: index must be that of one weight"):
        optimizer.update([0, 1], [w, w], [w, w], [state, optimizer.create_state(1, w)])


def test_a_trainer_goes_on_from_its_file(tmp_path):
    opt = from_optax(optax.scale_by_adam(), learning_rate=0.1)
    first = mxopt.Trainer(tree(0), opt)
    first.step(tree(1), batch_size=2)
    first.save_states(str(tmp_path / "states"))
    second = mxopt.Trainer(jax.tree.map(jnp.copy, first.params), opt)
    second.load_states(str(tmp_path / "states"))
    for trainer in (first, second):
        trainer.set_learning_rate(0.05)
        trainer.step(tree(2), batch_size=2)
    assert_same(second.params, first.params)
    assert second.optimizer.num_update == 2


# Refusals.


@pytest.mark.parametrize(
    ("make_opt", "kind", "said"),
    [
        (lambda: from_optax(optax.adam), TypeError, r"FromOptax: tx must be a GradientT"),
        (lambda: from_optax(mxopt.Adam()), TypeError, r"FromOptax: tx must be a GradientT"),
        (lambda: from_optax(None), TypeError, r"FromOptax: tx must be a GradientT"),
        (
            lambda: from_optax(optax.identity(), 0.1, lr_scheduler=lambda t: 0.1),
            ValueError,
            r"FromOptax: learning_rate must be None beside lr_scheduler, got 0\.1\.",
        ),
        (
            lambda: from_optax(optax.identity(), lr_scheduler=0.1),
            TypeError,
            r"FromOptax: lr_scheduler must be callable, got 0\.1\.",
        ),
        (
            lambda: from_optax(optax.identity(), begin_num_update=-1),
            ValueError,
            r"FromOptax: begin_num_update must be 0 or more, got -1\.",
        ),
        (lambda: from_optax(optax.identity(), -0.1), ValueError, r"FromOptax: learning_rate must"),
    ],
)
def test_refuses_at_once(make_opt, kind, said):
    with pytest.raises(kind, match=f"^{said}"):
        make_opt()


def test_refuses_what_is_no_weight():
    opt = from_optax(optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"^FromOptax\.create_state\(3\): weight must be"):
        opt.create_state(3, jnp.ones(2, jnp.int32))
    with pytest.raises(TypeError, match=r"^FromOptax\.init\('w'\): weight must be"):
        opt.init({"w": jnp.ones(2, jnp.int32)})
    w = jnp.ones(2)
    with pytest.raises(TypeError, match=r"^FromOptax\.update\(0\): state is of another definit"):
        opt.update(0, w, w, mxopt.Adam().create_state(0, w))
    with pytest.raises(ValueError, match=r"^FromOptax\.step\('w'\): grad has shape"):
        opt.step({"w": w}, {"w": jnp.ones(3)}, opt.init({"w": w}))


def test_a_state_of_optax_stays_whole():
    opt, params = from_optax(optax.adam(0.1)), tree(0)
    state = opt.init(params)
    assert type(state.slots).__name__ == "OptaxSlots"
    with pytest.raises(TypeError, match=r"^State\.unpack: a state of optax cannot be taken apart"):
        state.unpack(params)
    with pytest.raises(TypeError, match=r"states of optax cannot be put together"):
        opt.pack(params, {key: opt.create_state(key, w) for key, w in params.items()})


@pytest.mark.parametrize("around", [lambda opt: opt, mxopt.EMA, lambda o: mxopt.Groups({"*": o})])
def test_no_rate_goes_beside_that_of_the_transformation(around):
    """Its updates would go uphill then."""
    opt = around(from_optax(optax.adam(0.1)))
    with pytest.raises(ValueError, match="learning_rate must be None, as tx has a learning rate"):
        opt.replace(learning_rate=0.05)
    trainer = mxopt.Trainer({"w": jnp.ones(2)}, opt)
    with pytest.raises(ValueError, match="learning_rate must be None"):
        trainer.set_learning_rate(0.05)
    changed = from_optax(optax.scale_by_adam(), 0.1).replace(learning_rate=0.05)
    assert changed.learning_rate == 0.05
