"""LAMB with Nesterov's momentum and normalized gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._kernel_power import kernel_one_minus_power
from jaxmxopt._algorithms._trust import bounded, trust_ratio
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, divide, norm, sqrt
from jaxmxopt._core.slots import Like

__all__ = ["LANS"]


class LANSSlots(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class LANSRates(NamedTuple):
    """Learning rate, decay, both bias corrections, and the norms of weight and gradient."""

    lr: Any
    wd: Any
    correction1: Any
    correction2: Any
    size: Any = None
    slope: Any = None


class LANS(OptimizerDef):
    r"""LAMB with Nesterov's momentum and normalized gradients (Zheng et al., 2020).

    .. math::

        g &= \mathrm{clip}\!\left(\frac{\mathrm{rescale\_grad}\, g}
            {\|\mathrm{rescale\_grad}\, g\|}\right) \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        r &= \sqrt{v / (1 - \beta_2^t)} + \epsilon \\
        u &= \frac{m / (1 - \beta_1^t)}{r} + \mathrm{wd}\,w, \qquad
            h = \frac{g}{r} + \mathrm{wd}\,w \\
        w &= w - \eta\, \beta_1 \frac{\phi}{\|u\|}\, u
            - \eta\, (1 - \beta_1) \frac{\phi}{\|h\|}\, h, \qquad
            \phi = \min(\max(\|w\|, \mathrm{lower}), \mathrm{upper})

    A ratio is 1 where one of its norms is 0. :math:`\|w\|` is of the weight as it is stored, in
    half precision beside a master. This is the fused update of MXNet 2.x, its default. A gradient
    of zeros gives NaN in MXNet and counts as :math:`g = 0` here.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN, for the whole weight, where an element
            has had no gradient.
        lower_bound: least norm of the weight, 0 or more; None and 0 mean no bound.
        upper_bound: largest norm of the weight, 0 or more; None and 0 mean no bound.

    Slots `mean` and `var` have the shape of the weight, `mean` its dtype (float32 beside a master),
    `var` at least float32. A `RowSparse` gradient acts as the dense gradient.

    References:
        Zheng, Lin, Zha, Li: Accelerated large batch optimization of BERT pretraining in 54
        minutes. 2020, arXiv:2006.13484.
        MXNet 2: `mxnet.optimizer.LANS`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.LANS(learning_rate=0.1), {"w": jnp.array([3.0, 4.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, -1.0])}, opt.init(params))
        >>> print(params["w"])
        [2.646 4.354]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-6
    lower_bound: NonNegative | None = None
    upper_bound: NonNegative | None = None

    def slots(self, like: Like) -> LANSSlots:
        return LANSSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> LANSRates:
        powers = kernel_one_minus_power(self.beta1, t), kernel_one_minus_power(self.beta2, t)
        return LANSRates(lr, wd, *powers)

    def adapt(self, rates: Any, weight: Any, grad: Any) -> LANSRates:
        size = bounded(norm(weight), self.lower_bound, self.upper_bound)
        return rates._replace(size=size, slope=norm(grad * self.rescale_grad))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        slope = jnp.where(rates.slope == 0, 1, rates.slope)
        g = clip(divide(grad * self.rescale_grad, slope), self.clip_gradient)
        m = self.beta1 * slots.mean + (1 - self.beta1) * g
        v = self.beta2 * slots.var + (1 - self.beta2) * g * g
        root = sqrt(divide(v, rates.correction2)) + self.epsilon
        u = divide(m, rates.correction1) / root + decay(rates.wd, weight)
        h = g / root + decay(rates.wd, weight)
        along_u = rates.lr * (trust_ratio(rates.size, u) * self.beta1)
        along_h = rates.lr * (trust_ratio(rates.size, h) * (1 - self.beta1))
        return weight - (along_u * u + along_h * h), LANSSlots(m, v)
