"""Layer-wise adaptive moments."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._algorithms._kernel_power import kernel_one_minus_power
from jaxmxopt._algorithms._trust import bounded, trust_ratio
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import capped, clip, decay, divide, norm, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["LAMB"]


class LAMBSlots(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class LAMBRates(NamedTuple):
    """Learning rate, decay, both bias corrections, and the bounded norm of the weight."""

    lr: Any
    wd: Any
    correction1: Any
    correction2: Any
    size: Any = None


class LAMB(OptimizerDef):
    r"""Adam with layer-wise adaptive rates (You et al., 2020).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \mathrm{wd}\,w \\
        w &= w - \eta\, \frac{\min(\max(\|w\|, \mathrm{lower}), \mathrm{upper})}{\|u\|}\, u

    The ratio is 1 where one of its norms is 0. The corrections :math:`1 - \beta^t` are absent
    where `bias_correction` is off. The bounds limit the norm of the weight alone. That norm is of
    the weight as it is stored, in half precision beside a master. optax and the paper have no
    bounds.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN, for the whole weight, where an element
            has had no gradient.
        lower_bound: least norm of the weight, 0 or more; None and 0 mean no bound.
        upper_bound: largest norm of the weight, 0 or more; None and 0 mean no bound.
        bias_correction: divide the moments by :math:`1 - \beta^t`; static.

    Slots `mean` and `var` have the shape of the weight, `mean` its dtype (float32 beside a master),
    `var` at least float32. A `RowSparse` gradient acts as the dense gradient.

    References:
        You et al.: Large batch optimization for deep learning: training BERT in 76 minutes.
        ICLR 2020, arXiv:1904.00962.
        MXNet: `mxnet.optimizer.LAMB`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.LAMB(learning_rate=0.1), {"w": jnp.array([3.0, 4.0])}
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
    bias_correction: Static[bool] = True

    def slots(self, like: Like) -> LAMBSlots:
        return LAMBSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> LAMBRates:
        powers = kernel_one_minus_power(self.beta1, t), kernel_one_minus_power(self.beta2, t)
        return LAMBRates(lr, wd, *powers)

    def adapt(self, rates: Any, weight: Any, grad: Any) -> LAMBRates:
        return rates._replace(size=bounded(norm(weight), self.lower_bound, self.upper_bound))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        u, slots = self._direction(rates, weight, grad, slots)
        return weight - rates.lr * trust_ratio(rates.size, u) * u, slots

    def _direction(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        """Return :math:`u`, the step before its length is known, and the new slots."""
        g = clip(grad * self.rescale_grad, self.clip_gradient)
        g = squarable(g, 1 - self.beta2)
        mean = m = self.beta1 * slots.mean + (1 - self.beta1) * g
        var = v = capped(self.beta2 * slots.var + (1 - self.beta2) * g * g)
        if self.bias_correction:
            mean, var = divide(m, rates.correction1), divide(v, rates.correction2)
        return mean / (sqrt(var) + self.epsilon) + decay(rates.wd, weight), LAMBSlots(m, v)
