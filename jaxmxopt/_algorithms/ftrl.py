"""Follow the regularized leader, proximal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import NonNegative, Static
from jaxmxopt._core.numeric import capped, clip, divide, sign, sqrt, squarable
from jaxmxopt._core.slots import Like

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
    is 0, the weight becomes 0. Where :math:`\eta = 0` weight and slots stay as they are; MXNet
    divides by 0. MXNet is lazy only where the weight itself is stored row-sparse.

    Attributes:
        lamda1: :math:`\lambda_1`, strength of the L1 regularization, 0 or more.
        beta: :math:`\beta`, smooths the learning rate of an element, 0 or more.

    `wd` is the strength of the L2 regularization. Slots `z` and `n` have the shape of
    the weight and at least float32.

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

    acts_on = "elements"

    def slots(self, like: Like) -> FtrlSlots:
        return FtrlSlots(like.zeros(dtype=like.wide), like.zeros(dtype=like.wide))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        idle = rates.lr == 0
        lr = jnp.where(idle, 1, rates.lr)
        # Without a gradient the slots stay as they are.
        g = squarable(clip(grad * self.rescale_grad, self.clip_gradient))
        g = jnp.where(idle, 0, g)
        n = capped(slots.n + g * g)
        z = slots.z + (g - divide((sqrt(n) - sqrt(slots.n)) * weight, lr))
        below = divide(self.beta + sqrt(n), lr) + rates.wd
        new = (sign(z) * self.lamda1 - z) / jnp.where(below == 0, 1, below)
        # A comparison that NaN fails: a weight whose gradient was NaN must show it.
        new = jnp.where(jnp.abs(z) <= self.lamda1, 0, new)
        return jnp.where(idle, weight, new), FtrlSlots(z, n)
