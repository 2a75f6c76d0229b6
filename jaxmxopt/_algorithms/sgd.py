"""Stochastic gradient descent."""

from typing import Any

from jaxmxopt._algorithms._sgd_arithmetic import MomentumSlots, momentum_slots, momentum_step
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, Static
from jaxmxopt._core.slots import Like

__all__ = ["SGD"]


class SGD(OptimizerDef):
    r"""Stochastic gradient descent, with momentum (Polyak, 1964) where the momentum is not 0.

    .. math::

        m &= \mu m - \eta\,\mathrm{wd}\,w
             - \eta\,\mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        w &= w + m

    The learning rate stands inside the momentum, and `mom` is the step itself. optax and torch
    keep :math:`\mu m + g` and apply the rate outside, which differs once the rate changes.
    MXNet's documentation clips before rescaling; the binary, like this rule, clips after.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there is no slot.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master).

    References:
        Polyak: Some methods of speeding up the convergence of iteration methods. 1964.
        MXNet: `mxnet.optimizer.SGD`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.SGD(learning_rate=0.1, momentum=0.9), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    momentum: DecayRate = 0.0
    lazy_update: Static[bool] = True

    acts_on = "elements"

    def slots(self, like: Like) -> MomentumSlots | tuple[()]:
        return momentum_slots(self, like)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return weight + momentum_step(self, rates, weight, grad, 0.0), ()
        mom = momentum_step(self, rates, weight, grad, self.momentum * slots.mom)
        return weight + mom, MomentumSlots(mom)
