"""flax, equinox and orbax hold our weights and states; nothing is lost on the way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from samples import assert_near, assert_same, tree

import jaxmxopt as mxopt
from jaxmxopt import sharding
from jaxmxopt.interop import apply_updates, as_optax, from_optax

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Affine(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((3, 2)))
        self.bias = nnx.Param(jnp.ones(2))
        self.seen = nnx.Variable(jnp.zeros(2))

    def __call__(self, x):
        return x @ self.kernel[...] + self.bias[...][None]


GRADS = {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full(2, 3.0)}


@pytest.mark.parametrize(
    "opt",
    [
        mxopt.Adam(learning_rate=0.1, wd=0.1, wd_mult={"bias": 0.0}),
        mxopt.Groups({"bias": mxopt.SGD(learning_rate=1.0), "*": mxopt.LAMB(learning_rate=0.1)}),
        mxopt.EMA(mxopt.Accumulate(mxopt.Adam(learning_rate=0.1), every=2), decay=0.5),
        mxopt.SGLD(learning_rate=0.1),
    ],
    ids=lambda opt: type(opt).__name__,
)
def test_nnx_optimizer_does_what_step_does(opt):
    module = Affine()
    optimizer = nnx.Optimizer(module, as_optax(opt), wrt=nnx.Param)
    grads = nnx.state(Affine(), nnx.Param)
    nnx.replace_by_pure_dict(grads, GRADS)
    params = jax.tree.map(jnp.ones_like, GRADS)
    state = opt.init(params)
    update = nnx.jit(lambda optimizer, module, grads: optimizer.update(module, grads) and None)
    for _ in range(3):
        update(optimizer, module, grads)
        params, state = opt.step(params, GRADS, state)
    ours = nnx.as_pure(nnx.state(module, nnx.Param))
    assert_near(nnx.to_pure_dict(ours), params, 4)
    assert int(nnx.as_pure(optimizer.opt_state).num_update) == int(state.num_update)
    if isinstance(opt, mxopt.EMA):
        read = mxopt.averaged(ours, nnx.as_pure(optimizer.opt_state))
        assert_near(nnx.to_pure_dict(read), mxopt.averaged(params, state), 4)


def test_a_definition_steps_the_pure_state_of_a_module():
    """Without optax: what `nnx.split` gives is a pytree of weights."""
    opt = mxopt.SGD(learning_rate=1.0, lr_mult={"bias": 0.5})
    graph, weights, rest = nnx.split(Affine(), nnx.Param, ...)
    weights = nnx.as_pure(weights)
    grads = jax.tree.map(jnp.ones_like, weights)
    weights, _ = jax.jit(opt.step)(weights, grads, opt.init(weights))
    module = nnx.merge(graph, weights, rest)
    np.testing.assert_array_equal(module(jnp.zeros((1, 3))), [[0.5, 0.5]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_linen_train_state(dtype):
    """Weights in bfloat16 take their masters, as the documentation shows."""

    class Exact(TrainState):
        def apply_gradients(self, *, grads):
            updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
            params = apply_updates(self.params, updates, opt_state)
            return self.replace(step=self.step + 1, params=params, opt_state=opt_state)

    opt, params = mxopt.Adam(learning_rate=1e-3, multi_precision=True), tree(0, dtype)
    kind = TrainState if dtype == jnp.float32 else Exact
    held = kind.create(apply_fn=None, params=params, tx=as_optax(opt))
    state = opt.init(params)
    for seed in range(1, 4):
        held = held.apply_gradients(grads=tree(seed, dtype))
        params, state = opt.step(params, tree(seed, dtype), state)
    assert held.step == 3
    if kind is Exact:
        assert_same((held.params, held.opt_state), (params, state))
    else:
        assert_near((held.params, held.opt_state), (params, state), 4)


def test_equinox_module():
    """What is no weight stays; None stands for it in weights, gradients and states."""
    opt = mxopt.SGD(learning_rate=1.0, wd=0.5, wd_mult={"layers/*/bias": 0.0}, momentum=0.9)
    module = eqx.nn.MLP(3, 2, width_size=4, depth=1, key=jax.random.key(0))
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    grads = jax.tree.map(jnp.zeros_like, weights)
    new, state = opt.step(weights, grads, opt.init(weights))
    assert jax.tree.structure(new) == jax.tree.structure(weights)
    trained = eqx.combine(new, rest)
    assert trained.activation is module.activation
    assert_near(trained.layers[1].weight, 0.5 * module.layers[1].weight)
    assert_same(trained.layers[1].bias, module.layers[1].bias)
    assert int(state.unpack(weights).layers[1].weight.num_update) == 1


# orbax.

STATES = {
    "Adam, masters": lambda: mxopt.Adam(multi_precision=True),
    "SGD": lambda: mxopt.SGD(),
    "Groups": lambda: mxopt.Groups({"a": mxopt.Adam(), "*": mxopt.EMA(mxopt.SGD(momentum=0.9))}),
    "Accumulate": lambda: mxopt.Accumulate(mxopt.LAMB(), every=2),
    "from_optax": lambda: from_optax(optax.sgd(0.1, momentum=0.9)),
}


@pytest.fixture
def checkpointer():
    with ocp.StandardCheckpointer() as opened:
        yield opened


def through_file(checkpointer, path, tree, like):
    checkpointer.save(path, tree)
    checkpointer.wait_until_finished()
    return checkpointer.restore(path, like)


@pytest.mark.parametrize("name", STATES)
def test_orbax_restores_states(name, checkpointer, tmp_path):
    opt, params = STATES[name](), tree(0, jnp.bfloat16 if "masters" in name else np.float32)
    params, state = opt.step(params, params, opt.init(params))
    like = jax.eval_shape(lambda p: (p, opt.init(p)), params)
    restored = through_file(checkpointer, tmp_path / "kept", (params, state), like)
    assert_same(restored, (params, state))
    assert_same(opt.step(restored[0], params, restored[1]), opt.step(params, params, state))


@pytest.mark.parametrize("many", [2, 99], ids=["in one array", "in arrays of their own"])
@pytest.mark.parametrize("name", ["SGD", "Adam, masters", "Groups"])
def test_no_weight_gets_the_state_of_one_of_another_name(
    name, many, checkpointer, tmp_path, monkeypatch
):
    monkeypatch.setattr("jaxmxopt._core.layout.MANY", many)
    opt, params = STATES[name](), tree()
    state = opt.step(params, params, opt.init(params))[1]
    renamed = {{"b": "z"}.get(key, key): leaf for key, leaf in params.items()}
    with pytest.raises(ValueError, match=r"step: state is "):
        opt.step(renamed, renamed, state)
    with pytest.raises(ValueError, match="the state is of 'b' where params has 'c'"):
        state.unpack(renamed)
    if many == 99 and name != "SGD":
        checkpointer.save(tmp_path / "kept", state)
        checkpointer.wait_until_finished()
        with pytest.raises(ValueError, match="structures do not match"):
            checkpointer.restore(tmp_path / "kept", opt.init(renamed))


@pytest.mark.parametrize("name", STATES)
def test_flax_writes_and_reads_states(name):
    opt, params = STATES[name](), tree()
    start = TrainState.create(apply_fn=None, params=params, tx=as_optax(opt))
    trained = start.apply_gradients(grads=params)
    kept = serialization.to_bytes(trained)
    assert_same(serialization.from_bytes(start, kept).opt_state, trained.opt_state)
    if name != "from_optax":
        renamed = as_optax(opt).init({{"b": "z"}.get(key, key): w for key, w in params.items()})
        with pytest.raises(ValueError, match=r"of the weights that it is restored into, got anot"):
            serialization.from_bytes(renamed, serialization.to_bytes(trained.opt_state))


def test_flax_writes_and_reads_an_nnx_optimizer():
    """As a plain dict, the form in which flax.serialization takes one of optax too."""
    optimizers = [nnx.Optimizer(Affine(), as_optax(mxopt.Adam()), wrt=nnx.Param) for _ in "ab"]
    module = Affine()
    optimizers[0].update(module, nnx.state(module, nnx.Param))
    trained, fresh = (nnx.to_pure_dict(nnx.state(one)) for one in optimizers)
    restored = serialization.from_bytes(fresh, serialization.to_bytes(trained))
    assert_same(restored, trained)
    state = nnx.state(optimizers[1])
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(optimizers[1], state)
    assert_same(nnx.to_pure_dict(nnx.state(optimizers[1])), trained)


@pytest.mark.parametrize("devices", [8, 4, 1])
def test_orbax_restores_divided_states_on_as_many_devices_as_there_are(
    devices, checkpointer, tmp_path
):
    opt, host = mxopt.Adam(multi_precision=True), {"w": np.ones((16, 4), jnp.bfloat16)}

    def placed(devices):
        mesh = jax.make_mesh(
            (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )
        params = jax.device_put(host, NamedSharding(mesh, PartitionSpec()))
        return params, sharding.divided(opt, params)

    params, places = placed(8)
    state = jax.jit(opt.init, out_shardings=places)(params)
    _, state = jax.jit(opt.step, out_shardings=(None, places))(params, params, state)
    params, places = placed(devices)
    like = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        state,
        places,
    )
    restored = through_file(checkpointer, tmp_path / "kept", state, like)
    assert_same(restored, state)
    moments = restored.unpack(params)["w"].slots.mean
    assert moments.sharding.shard_shape(moments.shape) == (16 // devices, 4)
    # Each device holds its part: two moments and the master in float32, beside a count.
    assert set(sharding.bytes_per_device(restored).values()) == {3 * 16 * 4 * 4 // devices + 4}


def test_what_nnx_splits_is_updated_as_variables():
    module = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    graph, params = nnx.split(module)
    tx, grads = as_optax(mxopt.Adam(learning_rate=0.1, wd=0.1)), jax.tree.map(jnp.ones_like, params)
    state = tx.init(params)
    updates, _ = tx.update(grads, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    trained = nnx.TrainState.create(graph, params=params, tx=tx).apply_gradients(grads)
    assert_near(trained.params, optax.apply_updates(params, updates), 1)
    pure, opt = nnx.as_pure(params), mxopt.Adam(learning_rate=0.1, wd=0.1)
    stepped, _ = opt.step(pure, nnx.as_pure(grads), opt.init(pure))
    assert_near(nnx.as_pure(trained.params), stepped, 4)
