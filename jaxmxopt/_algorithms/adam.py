"""Adam."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import capped, clip, decay, one_minus_power, sqrt, squarable
from jaxmxopt._core.rates import Rates
from jaxmxopt._core.slots import Like

__all__ = ["Adam"]


class AdamSlots(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class Adam(OptimizerDef):
    r"""Adam (Kingma and Ba, 2015).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w) \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        w &= w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt{v} + \epsilon}

    As in MXNet, decay is added before clipping, and :math:`\epsilon` stands outside the bias
    correction; optax and torch have :math:`\sqrt{v / (1 - \beta_2^t)} + \epsilon`.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.

    Slots `mean` and `var` have the weight's shape; `mean` has its dtype, `var` at least float32.

    References:
        Kingma, Ba: Adam, a method for stochastic optimization. ICLR 2015, arXiv:1412.6980.
        MXNet: `mxnet.optimizer.Adam`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Adam(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8
    lazy_update: Static[bool] = True

    acts_on = "elements"

    def slots(self, like: Like) -> AdamSlots:
        return AdamSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> Rates:
        correction = sqrt(one_minus_power(self.beta2, t)) / one_minus_power(self.beta1, t)
        return Rates(lr * correction, wd)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(grad * self.rescale_grad + decay(rates.wd, weight), self.clip_gradient)
        g = squarable(g, 1 - self.beta2)
        m = self.beta1 * slots.mean + (1 - self.beta1) * g
        v = capped(self.beta2 * slots.var + (1 - self.beta2) * g * g)
        return weight - rates.lr * m / (sqrt(v) + self.epsilon), AdamSlots(m, v)
