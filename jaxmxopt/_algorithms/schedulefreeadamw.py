"""Schedule-free AdamW."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._algorithms._schedule_free import Momentum, average, moved, rates_of
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Real
from jaxmxopt._core.numeric import clip, decay, divide, one_minus_power, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["ScheduleFreeAdamW"]


class ScheduleFreeAdamWSlots(NamedTuple):
    """Second moment, the weights that take the steps, and the numbers of their average."""

    var: jax.Array
    z: jax.Array
    weight_sum: jax.Array
    lr_max: jax.Array
    momentum: jax.Array

    def averaged(self, weight: jax.Array) -> jax.Array:
        """Return the weights to evaluate with."""
        return average(self, weight)


class ScheduleFreeAdamW(OptimizerDef):
    r"""AdamW whose average takes the place of momentum and schedule (Defazio et al., 2024).

    As :class:`jaxmxopt.ScheduleFreeSGD`, with :math:`\mu = \beta_1` and the step

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, \nabla f(y)) \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        z &= z - \eta_t \left(\frac{g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
            + \mathrm{wd}\, y\right)

    It won the self-tuning track of AlgoPerf 2024. `jaxmxopt.averaged` returns the weights to
    evaluate with. The rate is 1 to 10 times AdamW's.

    Attributes:
        beta1: :math:`\mu` in (0, 1): how near the weights are to the average.
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        warmup_steps: updates in which the rate rises, 0 or more.
        r: power of the count in the average; more forgets the first weights sooner.
        weight_lr_power: power of the largest rate so far in the average.

    Slots `var` and `z` have the shape and dtype of the weight (float32 beside a master), the others
    are one number: 8 bytes, as AdamW, and about 16 operations a parameter.

    References:
        Defazio et al.: The road less scheduled. NeurIPS 2024, arXiv:2405.15682.
        Compared with `schedulefree.AdamWScheduleFree`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, w = mxopt.ScheduleFreeAdamW(learning_rate=0.1), jnp.array([1.0, -1.0])
        >>> w, state = opt.step(w, jnp.array([2.0, 3.0]), opt.init(w))
        >>> print(mxopt.averaged(w, state))
        [ 0.9 -1.1]
    """

    learning_rate: NonNegative | None = 0.0025
    beta1: Momentum = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8
    warmup_steps: NonNegative = 0.0
    r: Real = 0.0
    weight_lr_power: Real = 2.0

    acts_on = "elements"

    def slots(self, like: Like) -> ScheduleFreeAdamWSlots:
        sums = like.zeros(axes=()), like.zeros(axes=())
        return ScheduleFreeAdamWSlots(
            like.zeros(dtype=like.wide), like.copy(), *sums, like.full(1.0, axes=())
        )

    def rates(self, lr: Any, wd: Any, t: Any) -> Any:
        return rates_of(self, lr, wd, t)._replace(correction2=one_minus_power(self.beta2, t))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(self.rescale_grad * grad, self.clip_gradient))
        v = self.beta2 * slots.var + (1 - self.beta2) * g * g
        step = g / (sqrt(divide(v, rates.correction2)) + self.epsilon) + decay(rates.wd, weight)
        return moved(self, rates, weight, step, slots._replace(var=v), self.beta1)
