"""Training steps go through jax.export, whatever definition they use."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from samples import assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.amp import DynamicLossScaler
from jaxmxopt.interop import from_optax

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WRAPPED = {
    "Accumulate": lambda: mxopt.Accumulate(mxopt.Adam(), every=2),
    "EMA": lambda: mxopt.EMA(mxopt.SGD(momentum=0.9)),
    "Groups": lambda: mxopt.Groups({"a": mxopt.Adam(), "*": mxopt.RMSProp(centered=True)}),
    "masters": lambda: mxopt.Adam(multi_precision=True),
}


def abstract(args):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)


def kept(function, *args):
    return export.export(jax.jit(function))(*abstract(args))


def round_trip(function, *args):
    first = kept(function, *args)
    second = export.deserialize(first.serialize())
    assert (second.in_tree, second.out_tree) == (first.in_tree, first.out_tree)
    return second.call


def arguments(opt, dtype=np.float32):
    return tree(0, dtype), tree(1, dtype), opt.init(tree(0, dtype))


@pytest.mark.usefixtures("thresholds")
def test_states_of_every_algorithm(cls):
    opt = make(cls)
    round_trip(opt.step, *arguments(opt))


@pytest.mark.parametrize("kind", [mxopt.SGLD, mxopt.LARS], ids=lambda kind: kind.__name__)
def test_gives_the_same(kind):
    opt = make(kind)
    args = arguments(opt)
    assert_same(round_trip(opt.step, *args)(*args), jax.jit(opt.step)(*args))


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_and_masters(name):
    opt = WRAPPED[name]()
    round_trip(opt.step, *arguments(opt, jnp.bfloat16 if name == "masters" else np.float32))


def test_transformations_whose_states_are_registered():
    export.register_namedtuple_serialization(optax.EmptyState, serialized_name="optax.EmptyState")
    opt = from_optax(optax.sgd(0.1))
    round_trip(opt.step, *arguments(opt))


def test_sparse_gradients_and_loss_scales():
    opt, scaler = mxopt.Adam(), DynamicLossScaler()
    w, rows = jnp.ones((4, 2)), mxopt.RowSparse(jnp.array([2, 0]), jnp.ones((2, 2)), (4, 2))
    args = w, rows, opt.create_state(0, w), scaler.init()

    def step(weight, grad, state, scale):
        weight, state = opt.update(0, weight, grad, state)
        return weight, state, scaler.update(scale, jnp.array(True)), grad

    assert_same(round_trip(step, *args)(*args), jax.jit(step)(*args))


def test_another_process_goes_on(tmp_path):
    """With nothing imported but the package."""
    opt, params = mxopt.Adam(), tree(0)
    args = params, tree(1), opt.init(params)
    (tmp_path / "step").write_bytes(kept(opt.step, *args).serialize())
    program = (
        "import jax, jaxmxopt; from jax import export; import pathlib, sys;"
        "step = export.deserialize(pathlib.Path(sys.argv[1]).read_bytes());"
        "ones = lambda a: jax.numpy.ones(a.shape, a.dtype);"
        "args, _ = jax.tree.unflatten(step.in_tree, list(map(ones, step.in_avals)));"
        "print(type(step.call(*args)[1].unpack(args[0])['a'].slots).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "step"], capture_output=True, text=True
    )
    assert done.stdout == "AdamSlots\n", done.stderr[-2000:]
