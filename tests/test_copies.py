"""Arrays of NumPy's are copied: to refill one after a call changes nothing of its result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmxopt as mxopt

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SIZE = 1 << 18


class Refilled:
    """Arrays whose memory JAX would take as it is, to be written over after a call."""

    def __init__(self):
        self.arrays = []

    def full(self, value, shape=(SIZE,)):
        memory = np.empty(int(np.prod(shape)) * 4 + 64, np.uint8)
        start = -memory.ctypes.data % 64
        array = memory[start : start + int(np.prod(shape)) * 4].view(np.float32).reshape(shape)
        array[:] = value
        self.arrays.append(array)
        return array

    def refill(self):
        for array in self.arrays:
            array[:] = 7.0


def trainer(x):
    trained = mxopt.Trainer({"w": x(1.0)}, mxopt.DCASGD(momentum=0.5, learning_rate=0.5))
    return lambda: (trained.params, trained.states["w"].previous_weight)


def trainer_step(x):
    trained = mxopt.Trainer({"w": jnp.ones(SIZE)}, "sgd", {"learning_rate": 1.0})
    trained.step({"w": x(0.0)}, 1)
    return lambda: trained.params


def accumulating(x):
    opt = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=2)
    trained = mxopt.Trainer({"w": jnp.ones(SIZE)}, opt)
    for _ in range(2):
        trained.step({"w": x(0.0)}, 1)
    return lambda: trained.params


def trainer_params(x):
    trained = mxopt.Trainer({"w": jnp.zeros(SIZE)}, "sgd")
    trained.params = {"w": x(1.0)}
    return lambda: trained.params


def create_state(x):
    state = mxopt.EMA(mxopt.DCASGD(), debias=False).create_state(0, x(1.0))
    return lambda: (state.slots.average, state.slots.inner.previous_weight)


def updater(x):
    new = mxopt.get_updater(mxopt.create("sgd", learning_rate=1.0))(0, x(0.0), x(1.0))
    return lambda: new


def updater_of_lists(x):
    update = mxopt.get_updater(mxopt.create("sgd", learning_rate=1.0))
    new = update([0, 1], [x(0.0), x(0.0)], [x(1.0), x(1.0)])
    return lambda: new


def states_of_mxnet(x):
    opt = mxopt.optimizer.SGD(momentum=0.5, learning_rate=1.0)
    new = opt.update(0, x(0.0), x(0.0), x(2.0))
    return lambda: new


def step(x):
    opt = mxopt.SGD(learning_rate=1.0)
    new, _ = opt.step({"w": x(1.0)}, {"w": x(0.0)}, opt.init({"w": x(1.0)}))
    return lambda: new


def skipped_step(x):
    opt = mxopt.SGD(learning_rate=1.0)
    new, _ = opt.step({"w": x(1.0)}, {"w": x(0.0)}, opt.init({"w": x(1.0)}), where=False)
    return lambda: new


def update(x):
    opt = mxopt.SGD(learning_rate=1.0)
    new, _ = opt.update(0, x(1.0), x(0.0), opt.create_state(0, x(1.0)))
    return lambda: new


def row_sparse(x):
    grad = mxopt.RowSparse(np.arange(SIZE), x(1.0), (SIZE,))
    return lambda: grad.values


def clipped(x):
    new, _ = mxopt.amp.clip_global_norm({"w": x(1.0)}, 1e9)
    return lambda: new


def scaled(x):
    scaler = mxopt.amp.DynamicLossScaler(init_scale=1.0)
    new = scaler.unscale({"w": x(1.0)}, scaler.init())
    return lambda: new


WAYS = [
    *(trainer, trainer_step, accumulating, trainer_params, create_state, updater),
    *(updater_of_lists, states_of_mxnet, step, skipped_step, update, row_sparse, clipped, scaled),
]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_refilled_after_a_call_changes_nothing(way):
    refilled = Refilled()
    result = way(refilled.full)
    refilled.refill()
    for leaf in jax.tree.leaves(result()):
        assert set(np.unique(np.asarray(leaf))) <= {1.0}
