"""AdaDelta."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import clip, divide, sqrt, zeros_like

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
    is decoupled; optax and torch multiply the step by it. MXNet's documentation adds the decay to
    the gradient, and MXNet rescales the caller's gradient in place.

    Attributes:
        rho: :math:`\rho`, decay rate of both means, in [0, 1).
        epsilon: :math:`\epsilon`, 0 or more; 0 gives NaN where no gradient has been, and no steps
            elsewhere.

    Slots `acc_g` and `acc_delta` have the shape and dtype of the weight (float32 beside a
    master).

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

    _slot_types = (AdaDeltaSlots,)

    def _slots(self, weight: Any, index: Any) -> AdaDeltaSlots:
        return AdaDeltaSlots(zeros_like(weight), zeros_like(weight))

    def _rates(self, lr: Any, wd: Any, t: Any) -> AdaDeltaRates:
        return AdaDeltaRates(lr, wd, 1 - self.rho)

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        def slope(grad: Any) -> Any:
            return clip(grad * self.rescale_grad, self.clip_gradient)

        def delta(acc_g: Any, acc_delta: Any, grad: Any) -> Any:
            below = sqrt(acc_g + self.epsilon)
            return divide(sqrt(acc_delta + self.epsilon), below) * slope(grad)

        def moved(weight: Any, *arrays: Any) -> Any:
            return weight - (delta(*arrays) + rates.wd * weight)

        g = slope(grad)
        acc_g = slots.acc_g * self.rho + rates.fresh * g * g
        new = first(moved, weight, acc_g, slots.acc_delta, grad)
        acc_delta = after(new, slots.acc_delta)
        step = delta(acc_g, acc_delta, grad)
        return new, AdaDeltaSlots(acc_g, acc_delta * self.rho + rates.fresh * step * step)
