"""Lion."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, sign
from jaxmxopt._core.slots import Like

__all__ = ["Lion"]


class LionSlots(NamedTuple):
    """Mean of the gradients, like the weight."""

    mean: jax.Array


class Lion(OptimizerDef):
    r"""Steps of one size, by the sign of a mean that looks ahead (Chen et al., 2023).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        w &= w - \eta \left(\mathrm{sign}(\beta_1 m + (1 - \beta_1) g) + \mathrm{wd}\,w\right) \\
        m &= \beta_2 m + (1 - \beta_2) g

    Every element moves by the rate, so the rate is a third to a tenth of AdamW's, and the decay as
    much larger. For large batches; half of AdamW's memory.

    Attributes:
        beta1: share of the mean in the sign, in [0, 1).
        beta2: decay rate of the mean, in [0, 1).

    Slot `mean` has the shape and dtype of the weight (float32 beside a master): 4 bytes and about
    9 operations a parameter.

    References:
        Chen et al.: Symbolic discovery of optimization algorithms. NeurIPS 2023, arXiv:2302.06675.
        Compared with `lion-pytorch`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Lion(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> print(params["w"])
        [ 0.9 -1.1]
    """

    learning_rate: NonNegative | None = 1e-4
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.99

    acts_on = "elements"

    def slots(self, like: Like) -> LionSlots:
        return LionSlots(like.zeros())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad, self.clip_gradient)
        step = sign(self.beta1 * slots.mean + (1 - self.beta1) * g)
        m = self.beta2 * slots.mean + (1 - self.beta2) * g
        return weight - rates.lr * (step + decay(rates.wd, weight)), LionSlots(m)
