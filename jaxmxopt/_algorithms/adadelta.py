"""AdaDelta."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import capped, clip, decay, divide, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["AdaDelta"]


class AdaDeltaSlots(NamedTuple):
    """Mean squares of the gradients and of the steps, each like the weight."""

    acc_g: jax.Array
    acc_delta: jax.Array


class AdaDeltaRates(NamedTuple):
    """Learning rate, without effect, decay, and the weight of a new square."""

    lr: Any
    wd: Any
    fresh: Any


class AdaDelta(OptimizerDef):
    r"""AdaDelta (Zeiler, 2012).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        a &= \rho a + (1 - \rho) g^2 \\
        \Delta &= \frac{\sqrt{b + \epsilon}}{\sqrt{a + \epsilon}}\, g \\
        b &= \rho b + (1 - \rho) \Delta^2 \\
        w &= w - (\Delta + \mathrm{wd}\,w)

    As in MXNet 1.x and the paper the learning rate has no effect, not even on the decay, which
    is decoupled; optax and torch multiply the step by the rate. MXNet's documentation adds the
    decay to the gradient, and MXNet rescales the caller's gradient in place.

    Attributes:
        rho: :math:`\rho`, decay rate of both means, in [0, 1).
        epsilon: :math:`\epsilon`, 0 or more; 0 gives NaN where no gradient has been, and no steps
            elsewhere.

    Slots `acc_g` and `acc_delta` have the shape of the weight and at least float32.

    References:
        Zeiler: ADADELTA, an adaptive learning rate method. 2012, arXiv:1212.5701.
        MXNet: `mxnet.optimizer.AdaDelta`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.AdaDelta(), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.99, -1.01]
    """

    rho: DecayRate = 0.90
    epsilon: NonNegative = 1e-5

    acts_on = "elements"
    _has_rate = False

    def slots(self, like: Like) -> AdaDeltaSlots:
        return AdaDeltaSlots(like.zeros(dtype=like.wide), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> AdaDeltaRates:
        return AdaDeltaRates(lr, wd, 1 - self.rho)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(grad * self.rescale_grad, self.clip_gradient)
        g = squarable(g, rates.fresh)
        acc_g = capped(slots.acc_g * self.rho + rates.fresh * g * g)
        delta = divide(sqrt(slots.acc_delta + self.epsilon), sqrt(acc_g + self.epsilon)) * g
        acc_delta = slots.acc_delta * self.rho + rates.fresh * delta * delta
        return weight - (delta + decay(rates.wd, weight)), AdaDeltaSlots(acc_g, acc_delta)
