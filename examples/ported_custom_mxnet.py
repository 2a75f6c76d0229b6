"""A custom optimizer for MXNet: momentum of signs, with masters for float16.

`ported_custom.py` is this program on jaxmxopt.
"""

import mxnet as mx
import numpy as np
from sklearn.datasets import load_digits


@mx.optimizer.register
class Lion(mx.optimizer.Optimizer):
    """Steps by the sign of a momentum (Chen et al., 2023)."""

    def __init__(self, beta1=0.9, beta2=0.99, **kwargs):
        super().__init__(**kwargs)
        self.beta1 = beta1
        self.beta2 = beta2

    def create_state(self, index, weight):
        """Return a momentum of zeros."""
        return mx.nd.zeros(weight.shape, weight.context, dtype=weight.dtype)

    def update(self, index, weight, grad, state):
        """Change the weight and momentum."""
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        grad = grad * self.rescale_grad
        step = mx.nd.sign(self.beta1 * state + (1 - self.beta1) * grad)
        weight[:] = weight - lr * (step + wd * weight)
        state[:] = self.beta2 * state + (1 - self.beta2) * grad


def main(steps=400):
    """Trains and prints how far it is."""
    digits = load_digits()
    images = mx.nd.array(digits.images.reshape(-1, 64) / 16)
    targets = mx.nd.one_hot(mx.nd.array(digits.target), 10)
    rng = np.random.default_rng(0)
    weight = mx.nd.zeros((64, 10), dtype="float16")
    opt = mx.optimizer.create(
        "lion", learning_rate=0.002, wd=0.01, rescale_grad=1 / 64, multi_precision=True
    )
    updater = mx.optimizer.get_updater(opt)
    for step in range(steps):
        rows = mx.nd.array(rng.integers(len(images), size=64))
        x, y = images.take(rows), targets.take(rows)
        wrong = mx.nd.softmax(mx.nd.dot(x, weight.astype("float32"))) - y
        updater(0, mx.nd.dot(x.T, wrong).astype("float16"), weight)
        if step % 100 == 99:
            print(f"step {step + 1}: error {float(wrong.abs().mean().asscalar()):.4f}")


if __name__ == "__main__":
    main()
