"""Delay-compensated asynchronous SGD."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._sgd_arithmetic import has_momentum, made_without
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import clip, zeros_like
from jaxmxopt._core.one_loop import together

__all__ = ["DCASGD"]


class DCASGDSlots(NamedTuple):
    """Momentum or None, and the weight before the last update, each like the weight."""

    mom: jax.Array | None
    previous_weight: jax.Array


class DCASGD(OptimizerDef):
    r"""Asynchronous SGD with delay compensation (Zheng et al., 2017).

    With :math:`g = \mathrm{clip}(\mathrm{rescale\_grad}\, g)` and :math:`\tilde w` the weight
    before the last update:

    .. math::

        m &= \mu m - \eta \left(g + \mathrm{wd}\,w + \lambda g^2 (w - \tilde w)\right) \\
        \tilde w &= w \\
        w &= w + m

    MXNet 1.9.1 fails with a momentum; here it works, as in 2.x, whose compensation also holds
    the decay (:math:`g + \mathrm{wd}\,w` squared).

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 its slot is None.
        lamda: :math:`\lambda`, the strength of the compensation, 0 or more.

    Slots `mom` and `previous_weight` have the shape and dtype of the weight (float32 beside a
    master).

    References:
        Zheng et al.: Asynchronous stochastic gradient descent with delay compensation. ICML 2017,
        arXiv:1609.08326.
        MXNet: `mxnet.optimizer.DCASGD`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.DCASGD(learning_rate=0.1, momentum=0.9), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    momentum: DecayRate = 0.0
    lamda: NonNegative = 0.04

    _slot_types = (DCASGDSlots,)
    _slots_by = "momentum"

    def _slots(self, weight: Any, index: Any) -> DCASGDSlots:
        mom = zeros_like(weight) if has_momentum(self) else None
        # A copy, for the weight's own buffer may be donated.
        return DCASGDSlots(mom, jnp.copy(weight))

    def _made_with(self, slots: Any) -> Any:
        return made_without(self, slots)

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        def step(weight: Any, grad: Any, previous: Any, mom: Any) -> Any:
            g = clip(grad * self.rescale_grad, self.clip_gradient)
            delayed = self.lamda * g * g * (weight - previous)
            step = -rates.lr * (g + rates.wd * weight + delayed)
            return step if mom is None else self.momentum * mom + step

        mom = first(step, weight, grad, slots.previous_weight, slots.mom, joined=True)
        previous = after(mom, weight)
        new = previous + mom
        if slots.mom is None:
            new, previous = together(new, previous)
            return new, DCASGDSlots(None, previous)
        new, mom, previous = together(new, mom, previous)
        return new, DCASGDSlots(mom, previous)
