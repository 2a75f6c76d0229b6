"""AdaGrad."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import NonNegative, Static
from jaxmxopt._core.numeric import capped, clip, decay, divide, sqrt
from jaxmxopt._core.slots import Like

__all__ = ["AdaGrad"]


class AdaGradSlots(NamedTuple):
    """Sum of the squared gradients, like the weight."""

    history: jax.Array


class AdaGrad(OptimizerDef):
    r"""AdaGrad (Duchi, Hazan and Singer, 2011).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        h &= h + g^2 \\
        w &= w - \eta \left(\frac{g}{\sqrt{h + \epsilon}} + \mathrm{wd}\,w\right)

    :math:`\epsilon` stands inside the root and the decay is decoupled. torch has
    :math:`\sqrt{h} + \epsilon` and adds the decay to the gradient; optax's history begins at 0.1.
    MXNet refuses decay for row-sparse gradients; here the decay acts on their rows.

    Attributes:
        eps: :math:`\epsilon`, 0 or more; 0 gives NaN where no gradient has been.

    Slot `history` has the shape of the weight and at least float32.

    References:
        Duchi, Hazan, Singer: Adaptive subgradient methods for online learning and stochastic
        optimization. JMLR 12, 2011.
        MXNet: `mxnet.optimizer.AdaGrad`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.AdaGrad(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    eps: NonNegative = 1e-7
    lazy_update: Static[bool] = True

    acts_on = "elements"

    def slots(self, like: Like) -> AdaGradSlots:
        return AdaGradSlots(like.zeros(dtype=like.wide))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(grad * self.rescale_grad, self.clip_gradient)
        history = capped(slots.history + g * g)
        step = divide(g, sqrt(history + self.eps)) + decay(rates.wd, weight)
        return weight - step * rates.lr, AdaGradSlots(history)
