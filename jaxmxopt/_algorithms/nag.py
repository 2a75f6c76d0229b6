"""Nesterov's accelerated gradient."""

from typing import Any

from jaxmxopt._algorithms._sgd_arithmetic import (
    MomentumSlots,
    decayed_step,
    made_without,
    momentum_slots,
)
from jaxmxopt._core.config import DecayRate
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import clip
from jaxmxopt._core.one_loop import together

__all__ = ["NAG"]


class NAG(OptimizerDef):
    r"""Nesterov's accelerated gradient (Nesterov, 1983; Sutskever et al., 2013).

    With :math:`g = \mathrm{clip}(\mathrm{rescale\_grad}\, g)`, the old weight :math:`w` and the
    new one :math:`w'`:

    .. math::

        w' &= w - \mu m + (1 + \mu)\,(\mu m - \eta (g + \mathrm{wd}\,w)) \\
        m &= \mu m - \eta (g + \mathrm{wd}\,w')

    With momentum 0, :math:`w = (1 - \eta\,\mathrm{wd})\,w - \eta g`.

    As in MXNet's binary the decay inside the momentum sees the new weight, not the old one, for
    MXNet writes the weight before it computes the momentum; without decay this is optax's and
    torch's `nesterov=True` at a constant rate. MXNet's documentation has the rate outside of the
    momentum and no decay in the look-ahead.

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

    _slot_types = (tuple, MomentumSlots)
    _slots_by = "momentum"

    def _slots(self, weight: Any, index: Any) -> Any:
        return momentum_slots(self, weight)

    def _made_with(self, slots: Any) -> Any:
        return made_without(self, slots)

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return decayed_step(self, rates, weight, grad), ()

        def moved(weight: Any, mom: Any, grad: Any) -> Any:
            g = clip(self.rescale_grad * grad, self.clip_gradient)
            return self.momentum * mom - rates.lr * (g + rates.wd * weight)

        def ahead(weight: Any, mom: Any, grad: Any) -> Any:
            kept = weight - self.momentum * mom
            return kept + (self.momentum + 1) * moved(weight, mom, grad)

        new = first(ahead, weight, slots.mom, grad, joined=True)
        mom = after(new, slots.mom)
        new, mom = together(new, moved(new, mom, grad))
        return new, MomentumSlots(mom)
