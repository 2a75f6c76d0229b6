"""Follow the moving leader."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._kernel_power import kernel_one_minus_power
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, divide, sqrt, squarable, unless
from jaxmxopt._core.slots import Like

__all__ = ["FTML"]


class FTMLSlots(NamedTuple):
    """Scale, second moment and leader, each like the weight."""

    d: jax.Array
    v: jax.Array
    z: jax.Array


class FTMLRates(NamedTuple):
    """Learning rate, decay and both bias corrections."""

    lr: Any
    wd: Any
    correction1: Any
    correction2: Any


class FTML(OptimizerDef):
    r"""Follow the moving leader (Zheng and Kwok, 2017).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w) \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        d' &= \frac{1 - \beta_1^t}{\eta}
              \left(\sqrt{\frac{v}{1 - \beta_2^t}} + \epsilon\right) \\
        z &= \beta_1 z + (1 - \beta_1) g - (d' - \beta_1 d)\, w \\
        d &= d' \\
        w &= -z / d

    Where :math:`\eta = 0` weight and slots stay as they are; MXNet divides by 0. As in MXNet,
    decay is added before clipping.

    Attributes:
        beta1: decay rate of the leader, in [0, 1).
        beta2: decay rate of the second moment, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.

    Slots `d`, `v` and `z` have the shape of the weight and at least float32.

    References:
        Zheng, Kwok: Follow the moving leader in deep learning. ICML 2017.
        MXNet: `mxnet.optimizer.FTML`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.FTML(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    beta1: DecayRate = 0.6
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8

    acts_on = "elements"

    def slots(self, like: Like) -> FTMLSlots:
        return FTMLSlots(*(like.zeros(dtype=like.wide) for _ in range(3)))

    def rates(self, lr: Any, wd: Any, t: Any) -> FTMLRates:
        powers = kernel_one_minus_power(self.beta1, t), kernel_one_minus_power(self.beta2, t)
        return FTMLRates(lr, wd, *powers)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        idle = rates.lr == 0
        lr = jnp.where(idle, 1, rates.lr)
        g = clip(self.rescale_grad * grad + decay(rates.wd, weight), self.clip_gradient)
        g = squarable(g)
        v = self.beta2 * slots.v + (1 - self.beta2) * (g * g)
        d = rates.correction1 / lr * (sqrt(divide(v, rates.correction2)) + self.epsilon)
        change = d - self.beta1 * slots.d
        z = self.beta1 * slots.z + (1 - self.beta1) * g - change * weight
        return unless(idle, (weight, slots), (-z / d, FTMLSlots(d, v, z)))
