"""Adamax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, maximum, one_minus_power
from jaxmxopt._core.slots import Like

__all__ = ["Adamax"]


class AdamaxSlots(NamedTuple):
    """Mean and infinity norm of the gradients, each like the weight."""

    mean: jax.Array
    inf_norm: jax.Array


class AdamaxRates(NamedTuple):
    """Corrected learning rate, decay and the weight of a new gradient in the mean."""

    lr: Any
    wd: Any
    fresh: Any


class Adamax(OptimizerDef):
    r"""Adamax: Adam with the infinity norm (Kingma and Ba, 2015).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w) \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        u &= \max(\beta_2 u, |g|) \\
        w &= w - \frac{\eta}{1 - \beta_1^t} \frac{m}{u}

    Where :math:`u = 0` there is no step; MXNet gives NaN there. There is no epsilon. As in MXNet,
    decay is added before clipping.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the norm, in [0, 1).

    Slots `mean` and `inf_norm` have the shape of the weight, `mean` its dtype (float32 beside a
    master), `inf_norm` at least float32.

    References:
        Kingma, Ba: Adam, a method for stochastic optimization. ICLR 2015, arXiv:1412.6980.
        MXNet: `mxnet.optimizer.Adamax`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Adamax(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    learning_rate: NonNegative | None = 0.002
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999

    acts_on = "elements"

    def slots(self, like: Like) -> AdamaxSlots:
        return AdamaxSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> AdamaxRates:
        return AdamaxRates(lr / one_minus_power(self.beta1, t), wd, 1 - self.beta1)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(grad * self.rescale_grad + decay(rates.wd, weight), self.clip_gradient)
        m = slots.mean * self.beta1 + rates.fresh * g
        u = maximum(self.beta2 * slots.inf_norm, jnp.abs(g))
        step = jnp.where(u == 0, 0, rates.lr * m / jnp.where(u == 0, 1, u))
        return weight - step, AdamaxSlots(m, u)
