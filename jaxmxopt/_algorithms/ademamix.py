"""AdEMAMix."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Positive
from jaxmxopt._core.numeric import (
    clip,
    decay,
    divide,
    minimum,
    one_minus_power,
    real,
    sqrt,
    squarable,
)
from jaxmxopt._core.slots import Like

__all__ = ["AdEMAMix"]


class AdEMAMixSlots(NamedTuple):
    """Fast and slow mean and the second moment, each like the weight."""

    mean: jax.Array
    slow: jax.Array
    var: jax.Array


class AdEMAMixRates(NamedTuple):
    """Numbers of an update."""

    lr: Any
    wd: Any
    alpha: Any
    fresh: Any
    correction1: Any
    root2: Any


class AdEMAMix(OptimizerDef):
    r"""AdamW with a second, slow mean of the gradients (Pagliardini et al., 2024).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m_1 &= \beta_1 m_1 + (1 - \beta_1) g \\
        m_2 &= \beta_{3,t} m_2 + (1 - \beta_{3,t}) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        w &= w - \eta \left(\frac{m_1 / (1 - \beta_1^t) + \alpha_t m_2}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \mathrm{wd}\, w\right)

    With `warmup` of :math:`T` updates :math:`\alpha_t = \alpha \min(1, t / T)`, and the slow mean's
    length :math:`-1 / \ln \beta_{3,t}` grows evenly from that of the fast one to its own. For long
    trainings, where gradients of ten thousand updates ago still help; choose `warmup` as long as
    the training.

    Attributes:
        beta1: decay rate of the fast mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        beta3: decay rate of the slow mean, in [0, 1).
        alpha: share of the slow mean, 0 or more.
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        warmup: updates until `alpha` and `beta3` have their values, above 0; None for none.

    Slots `mean`, `slow` and `var` have the shape of the weight. `mean` has its dtype (float32
    beside a master), `slow` and `var` at least float32: 12 bytes and about 18 operations a
    parameter.

    References:
        Pagliardini, Ablin, Grangier: The AdEMAMix optimizer: better, faster, older. 2024,
        arXiv:2409.03137. Compared with `pytorch_optimizer.AdEMAMix` with decoupled decay.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.AdEMAMix(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> print(params["w"])
        [ 0.89994997 -1.10005   ]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    beta3: DecayRate = 0.9999
    alpha: NonNegative = 5.0
    epsilon: NonNegative = 1e-8
    warmup: Positive | None = None

    acts_on = "elements"

    def slots(self, like: Like) -> AdEMAMixSlots:
        return AdEMAMixSlots(like.zeros(), like.zeros(dtype=like.wide), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> AdEMAMixRates:
        fresh, alpha = 1 - self.beta3, self.alpha
        if self.warmup is not None:
            share: Any = minimum(real(t, lr) / self.warmup, 1.0)
            fresh = _fresh((1 - share) * _length(self.beta1) + share * _length(self.beta3))
            alpha = share * alpha
        correction1, correction2 = (one_minus_power(b, t) for b in (self.beta1, self.beta2))
        return AdEMAMixRates(lr, wd, alpha, fresh, correction1, sqrt(correction2))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(self.rescale_grad * grad, self.clip_gradient))
        m = self.beta1 * slots.mean + (1 - self.beta1) * g
        slow = slots.slow + rates.fresh * (g - slots.slow)
        v = self.beta2 * slots.var + (1 - self.beta2) * g * g
        root = divide(sqrt(v), rates.root2) + self.epsilon
        step = (divide(m, rates.correction1) + rates.alpha * slow) / root
        new = weight - rates.lr * (step + decay(rates.wd, weight))
        return new, AdEMAMixSlots(m, slow, v)


def _length(beta: Any) -> Any:
    """Return after how many updates a mean has forgotten all but 1 / e."""
    if isinstance(beta, float):
        return -1 / math.log(beta) if beta else 0.0
    return -1 / jnp.log1p(beta - 1)


def _fresh(length: Any) -> Any:
    """Return the share of a new gradient in a mean of some length."""
    if isinstance(length, float):
        return -math.expm1(-1 / length) if length else 1.0
    return -jnp.expm1(-1 / length)
