"""Delay-compensated asynchronous SGD."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, is_zero
from jaxmxopt._core.slots import Like

__all__ = ["DCASGD"]


class DCASGDSlots(NamedTuple):
    """Momentum or None, and the weight before the last update, each like the weight."""

    mom: jax.Array | None
    previous_weight: jax.Array


class DCASGD(OptimizerDef):
    r"""Asynchronous SGD with delay compensation (Zheng et al., 2017).

    With :math:`g = \mathrm{clip}(\mathrm{rescale\_grad}\, g)` and :math:`\tilde w` the weight
    before the last update:

    .. math::

        m &= \mu m - \eta \left(g + \mathrm{wd}\,w + \lambda g^2 (w - \tilde w)\right) \\
        \tilde w &= w \\
        w &= w + m

    MXNet 1.9.1 fails with a momentum. Here a momentum works, as in MXNet 2.x, whose compensation
    also holds the decay (:math:`g + \mathrm{wd}\,w` squared).

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 its slot is None.
        lamda: :math:`\lambda`, the strength of the compensation, 0 or more.

    Slots `mom` and `previous_weight` have the shape and dtype of the weight (float32 beside a
    master).

    References:
        Zheng et al.: Asynchronous stochastic gradient descent with delay compensation. ICML 2017,
        arXiv:1609.08326.
        MXNet: `mxnet.optimizer.DCASGD`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.DCASGD(learning_rate=0.1, momentum=0.9), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    momentum: DecayRate = 0.0
    lamda: NonNegative = 0.04

    acts_on = "elements"

    def slots(self, like: Like) -> DCASGDSlots:
        return DCASGDSlots(None if is_zero(self.momentum) else like.zeros(), like.copy())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(grad * self.rescale_grad, self.clip_gradient)
        delay = weight - slots.previous_weight
        delayed = self.lamda * g * g * delay
        # The square may be infinite where the product is not.
        delayed = jnp.where(jnp.isfinite(delayed), delayed, self.lamda * g * (g * delay))
        step = -rates.lr * (g + decay(rates.wd, weight) + delayed)
        if slots.mom is None:
            return weight + step, DCASGDSlots(None, weight)
        mom = self.momentum * slots.mom + step
        return weight + mom, DCASGDSlots(mom, weight)
