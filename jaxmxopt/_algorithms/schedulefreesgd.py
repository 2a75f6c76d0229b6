"""Schedule-free gradient descent."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._algorithms._schedule_free import Momentum, average, moved, rates_of
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import NonNegative, Real
from jaxmxopt._core.numeric import clip, decay
from jaxmxopt._core.slots import Like

__all__ = ["ScheduleFreeSGD"]


class ScheduleFreeSGDSlots(NamedTuple):
    """The weights that take the steps, and the numbers of their average."""

    z: jax.Array
    weight_sum: jax.Array
    lr_max: jax.Array
    momentum: jax.Array

    def averaged(self, weight: jax.Array) -> jax.Array:
        """Return the weights to evaluate with."""
        return average(self, weight)


class ScheduleFreeSGD(OptimizerDef):
    r"""Gradient descent whose average takes the place of a schedule (Defazio et al., 2024).

    The weights that are trained are :math:`y`, those to evaluate with :math:`x`, which
    `jaxmxopt.averaged` returns. With :math:`\eta_t = \eta \min(1, t / \mathrm{warmup\_steps})`:

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, \nabla f(y)) + \mathrm{wd}\, y \\
        z &= z - \eta_t g \\
        x &= (1 - c_t)\, x + c_t z, \quad c_t = \frac{a_t}{\sum_{s \le t} a_s}, \quad
            a_t = t^r \left(\max_{s \le t} \eta_s\right)^{\mathrm{weight\_lr\_power}} \\
        y &= (1 - \mu)\, z + \mu x

    :math:`x` is not stored: it follows from the other two. Layers that gather statistics, as batch
    normalization does, have to gather them anew for :math:`x`. Without a schedule the rate is about
    10 times that of SGD with momentum.

    Attributes:
        momentum: :math:`\mu` in (0, 1): how near the weights are to the average.
        warmup_steps: updates in which the rate rises, 0 or more.
        r: power of the count in the average; more forgets the first weights sooner.
        weight_lr_power: power of the largest rate so far in the average.

    Slot `z` has the shape and dtype of the weight (float32 beside a master), the others are one
    number: 4 bytes and about 9 operations a parameter.

    References:
        Defazio et al.: The road less scheduled. NeurIPS 2024, arXiv:2405.15682.
        Compared with `schedulefree.SGDScheduleFree`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, w = mxopt.ScheduleFreeSGD(learning_rate=0.5, momentum=0.5), jnp.array([4.0])
        >>> state = opt.init(w)
        >>> for grad in (jnp.array([2.0]), jnp.array([1.0])):
        ...     w, state = opt.step(w, grad, state)
        >>> print(w, mxopt.averaged(w, state))
        [2.625] [2.75]
    """

    learning_rate: NonNegative | None = 1.0
    momentum: Momentum = 0.9
    warmup_steps: NonNegative = 0.0
    r: Real = 0.0
    weight_lr_power: Real = 2.0

    acts_on = "elements"

    def slots(self, like: Like) -> ScheduleFreeSGDSlots:
        sums = like.zeros(axes=()), like.zeros(axes=())
        return ScheduleFreeSGDSlots(like.copy(), *sums, like.full(1.0, axes=()))

    def rates(self, lr: Any, wd: Any, t: Any) -> Any:
        return rates_of(self, lr, wd, t)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad, self.clip_gradient) + decay(rates.wd, weight)
        return moved(self, rates, weight, g, slots, self.momentum)
