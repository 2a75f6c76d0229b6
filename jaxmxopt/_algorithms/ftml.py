"""Follow the moving leader."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._algorithms._kernel_power import kernel_one_minus_power
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import clip, divide, sqrt, zeros_like

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

    Where :math:`\eta = 0` weight and slots stay as they are; MXNet divides by it. As in MXNet,
    decay is added before clipping.

    Attributes:
        beta1: decay rate of the leader, in [0, 1).
        beta2: decay rate of the second moment, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.

    Slots `d`, `v` and `z` have the shape and dtype of the weight (float32 beside a master).

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

    _slot_types = (FTMLSlots,)

    def _slots(self, weight: Any, index: Any) -> FTMLSlots:
        return FTMLSlots(zeros_like(weight), zeros_like(weight), zeros_like(weight))

    def _rates(self, lr: Any, wd: Any, t: Any) -> FTMLRates:
        powers = kernel_one_minus_power(self.beta1, t), kernel_one_minus_power(self.beta2, t)
        return FTMLRates(lr, wd, *powers)

    def _idle(self, rates: Any) -> Any:
        return rates.lr == 0

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        def slope(grad: Any, weight: Any) -> Any:
            return clip(self.rescale_grad * grad + rates.wd * weight, self.clip_gradient)

        def leader(z: Any, d: Any, v: Any, grad: Any, weight: Any) -> Any:
            change = self._scale(rates, v) - self.beta1 * d
            return self.beta1 * z + (1 - self.beta1) * slope(grad, weight) - change * weight

        g = slope(grad, weight)
        v = self.beta2 * slots.v + (1 - self.beta2) * (g * g)
        z = first(leader, slots.z, slots.d, v, grad, weight)
        d = first(lambda z, v: self._scale(rates, after(z, v)), z, v)
        return -z / d, FTMLSlots(d, v, z)

    def _scale(self, rates: Any, v: Any) -> Any:
        return rates.correction1 / rates.lr * (sqrt(divide(v, rates.correction2)) + self.epsilon)
