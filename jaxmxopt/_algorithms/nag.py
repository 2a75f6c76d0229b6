"""Nesterov's accelerated gradient."""

from typing import Any

from jaxmxopt._algorithms._sgd_arithmetic import MomentumSlots, decayed_step, momentum_slots
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate
from jaxmxopt._core.numeric import clip, decay
from jaxmxopt._core.slots import Like

__all__ = ["NAG"]


class NAG(OptimizerDef):
    r"""Nesterov's accelerated gradient (Nesterov, 1983; Sutskever et al., 2013).

    With :math:`g = \mathrm{clip}(\mathrm{rescale\_grad}\, g)`, the old weight :math:`w` and the
    new one :math:`w'`:

    .. math::

        w' &= w - \mu m + (1 + \mu)\,(\mu m - \eta (g + \mathrm{wd}\,w)) \\
        m &= \mu m - \eta (g + \mathrm{wd}\,w')

    With momentum 0, :math:`w = (1 - \eta\,\mathrm{wd})\,w - \eta g`.

    As in MXNet's binary the decay inside the momentum sees the new weight, because MXNet writes
    the weight before it computes the momentum. Without decay this is `nesterov=True` of optax
    and torch at a constant rate. MXNet's documentation has the rate outside of the momentum and
    no decay in the look-ahead.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there is no slot.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master).

    References:
        Nesterov: A method for solving the convex programming problem with convergence rate
        O(1/k²). 1983.
        Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in deep
        learning. ICML 2013.
        MXNet: `mxnet.optimizer.NAG`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.NAG(learning_rate=0.1, momentum=0.9), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.81 2.19]
    """

    momentum: DecayRate = 0.0

    acts_on = "elements"

    def slots(self, like: Like) -> MomentumSlots | tuple[()]:
        return momentum_slots(self, like)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return decayed_step(self, rates, weight, grad), ()
        g = clip(self.rescale_grad * grad, self.clip_gradient)
        kept = self.momentum * slots.mom
        step = kept - rates.lr * (g + decay(rates.wd, weight))
        new = weight - kept + (1 + self.momentum) * step
        return new, MomentumSlots(kept - rates.lr * (g + decay(rates.wd, new)))
