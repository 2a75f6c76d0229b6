"""Follow the regularized leader, proximal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.config import NonNegative, Static
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import clip, divide, sign, sqrt, zeros_like

__all__ = ["Ftrl"]


class FtrlSlots(NamedTuple):
    """Leader and sum of the squared gradients, each like the weight."""

    z: jax.Array
    n: jax.Array


class Ftrl(OptimizerDef):
    r"""Follow the regularized leader, proximal (McMahan et al., 2013): sparse weights.

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        z &= z + g - \frac{\left(\sqrt{n + g^2} - \sqrt{n}\right) w}{\eta} \\
        n &= n + g^2 \\
        w &= \frac{\mathrm{sign}(z)\,\lambda_1 - z}{(\beta + \sqrt{n}) / \eta + \mathrm{wd}}
            \;\text{ if } |z| > \lambda_1, \text{ else } 0

    As in MXNet the first weight is not in :math:`z`: where the first gradient of a dense update
    is 0, so is the weight. Where :math:`\eta = 0` weight and slots stay as they are; MXNet
    divides by it. MXNet is lazy only where the weight itself is stored row-sparse.

    Attributes:
        lamda1: :math:`\lambda_1`, strength of the L1 regularization, 0 or more.
        beta: :math:`\beta`, smooths the learning rate of an element, 0 or more.

    `wd` is the strength of the L2 regularization. Slots `z` and `n` have the shape and dtype of
    the weight (float32 beside a master).

    References:
        McMahan et al.: Ad click prediction: a view from the trenches. KDD 2013.
        MXNet: `mxnet.optimizer.Ftrl`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Ftrl(learning_rate=0.2, lamda1=0.5), jnp.zeros(2)
        >>> params, state = opt.step(params, jnp.array([1.5, -0.4]), opt.init(params))
        >>> print(params)
        [-0.08  0.  ]
    """

    learning_rate: NonNegative | None = 0.1
    lamda1: NonNegative = 0.01
    beta: NonNegative = 1.0
    lazy_update: Static[bool] = True

    _slot_types = (FtrlSlots,)

    def _slots(self, weight: Any, index: Any) -> FtrlSlots:
        return FtrlSlots(zeros_like(weight), zeros_like(weight))

    def _idle(self, rates: Any) -> Any:
        return rates.lr == 0

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        def slope(grad: Any) -> Any:
            return clip(grad * self.rescale_grad, self.clip_gradient)

        def leader(z: Any, n: Any, grad: Any, weight: Any) -> Any:
            g = slope(grad)
            return z + (g - divide((sqrt(n + g * g) - sqrt(n)) * weight, rates.lr, z))

        z = first(leader, slots.z, slots.n, grad, weight)
        n = after(z, slots.n)
        n = n + slope(grad) * slope(grad)
        below = divide(self.beta + sqrt(n), rates.lr, n) + rates.wd
        # NaN is not idle: a weight whose gradient was NaN must show it.
        idle = jnp.abs(z) <= self.lamda1
        # Where `below` is 0, said of what is cheaper to read twice.
        unknown = (n == 0) & (self.beta + rates.wd == 0)
        new = (sign(z) * self.lamda1 - z) / jnp.where(idle | unknown, 1, below)
        return jnp.where(idle, 0, new), FtrlSlots(z, n)
