"""Trains a Module with Eve (Koushik and Hayashi, 2016), whose states are objects.

After the pattern of sockeye's optimizers, which are told the loss before every update.
`module_eve.py` is this program on jaxmxopt.
"""

import math

import mxnet as mx
import numpy as np
from tasks import first_weights, normal, run

BATCH = 16
SHAPES = {"fc1_weight": (8, 4), "fc1_bias": (8,), "fc2_weight": (1, 8), "fc2_bias": (1,)}
NAMES = dict(enumerate(SHAPES))


class EveState:
    """Moments of a gradient, and how the loss has moved."""

    def __init__(self, weight):
        self.mean = mx.nd.zeros(weight.shape)
        self.variance = mx.nd.zeros(weight.shape)
        self.objective, self.change = None, 1.0


@mx.optimizer.register
class Eve(mx.optimizer.Optimizer):
    """Adam whose rate falls where the loss moves much."""

    def __init__(self, beta1=0.9, beta2=0.999, beta3=0.9, low=0.1, high=10.0, **kwargs):
        super().__init__(**kwargs)
        self.beta1, self.beta2, self.beta3 = beta1, beta2, beta3
        self.low, self.high = low, high
        self.loss = None

    def pre_update_batch(self, loss):
        """Take the loss of the batch that the next updates are of."""
        self.loss = loss

    def create_state(self, index, weight):
        """Return an object."""
        return EveState(weight)

    def moved(self, state):
        """Put the loss into a state."""
        if state.objective is None:
            state.objective = self.loss
            return
        least, most = 1 / (self.high + 1), 1 / (self.low + 1)
        if self.loss >= state.objective:
            least, most = self.low + 1, self.high + 1
        objective = state.objective * min(max(least, self.loss / state.objective), most)
        change = abs(objective - state.objective) / min(objective, state.objective)
        state.change = self.beta3 * state.change + (1 - self.beta3) * change
        state.objective = objective

    def update(self, index, weight, grad, state):
        """Update one weight."""
        self._update_count(index)
        t = self._index_update_count[index]
        grad = grad * self.rescale_grad + self._get_wd(index) * weight
        self.moved(state)
        state.mean = self.beta1 * state.mean + (1 - self.beta1) * grad
        state.variance = self.beta2 * state.variance + (1 - self.beta2) * grad**2
        rate = self._get_lr(index) * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        root = state.variance.sqrt() + 1e-8
        weight[:] = weight - rate / state.change * state.mean / root


def network():
    """Return the symbol of two layers and half the squares."""
    hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1")
    hidden = mx.sym.Activation(hidden, act_type="tanh")
    found = mx.sym.FullyConnected(hidden, num_hidden=1, name="fc2")
    return mx.sym.LinearRegressionOutput(found, mx.sym.Variable("label"))


def main(steps=100):
    """Trains; returns the losses."""
    rng = np.random.default_rng(12)
    x = normal(rng, 64, 4)
    y = np.sin(x.sum(axis=1, keepdims=True))
    module = mx.mod.Module(network(), data_names=["data"], label_names=["label"])
    module.bind([("data", (BATCH, 4))], [("label", (BATCH, 1))])
    first = {name: mx.nd.array(weight) for name, weight in first_weights(SHAPES).items()}
    module.init_params(arg_params=first)
    eve = mx.optimizer.create(
        "eve", learning_rate=0.05, wd=1e-3, rescale_grad=1 / BATCH, param_idx2name=NAMES
    )
    module.init_optimizer(kvstore=None, optimizer=eve)
    losses = []
    for _ in range(steps):
        rows = rng.integers(len(x), size=BATCH)
        batch = mx.io.DataBatch([mx.nd.array(x[rows])], [mx.nd.array(y[rows])])
        module.forward_backward(batch)
        found = module.get_outputs()[0].asnumpy()
        loss = float(((found - y[rows]) ** 2).sum() / 2) / BATCH
        eve.pre_update_batch(loss)
        module.update()
        losses.append(loss)
    return losses


if __name__ == "__main__":
    run(main)
