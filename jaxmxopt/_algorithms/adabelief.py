"""AdaBelief."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import clip, decay, maximum, one_minus_power, sqrt, squarable
from jaxmxopt._core.rates import Rates
from jaxmxopt._core.slots import Like

__all__ = ["AdaBelief"]


class AdaBeliefSlots(NamedTuple):
    """Mean of the gradient and its variance around that mean, each like the weight."""

    mean: jax.Array
    var: jax.Array


class AdaBelief(OptimizerDef):
    r"""AdaBelief (Zhuang et al., 2020).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w) \\
        m &= \beta_1 (m - g) + g \\
        v &= \beta_2 \left(v - (m - g)^2\right) + (m - g)^2 + \epsilon \\
        w &= w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m}{\sqrt{v} + \epsilon}

    The first fraction is absent where `correct_bias` is off. As in MXNet 2.x, decay is added
    before clipping, an order that its documentation reverses, and :math:`\epsilon` stands outside
    of the bias correction, unlike in optax and the paper.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the variance and to its root, 0 or more; 0 gives NaN where no gradient
            has been.
        correct_bias: correct the rate for moments that begin at 0; static.

    Slots `mean` and `var` have the shape of the weight and at least float32.

    References:
        Zhuang et al.: AdaBelief optimizer: adapting stepsizes by the belief in observed
        gradients. NeurIPS 2020, arXiv:2010.07468.
        MXNet 2: `mxnet.optimizer.AdaBelief`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.AdaBelief(learning_rate=0.09), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-6
    correct_bias: Static[bool] = True

    acts_on = "elements"

    def slots(self, like: Like) -> AdaBeliefSlots:
        return AdaBeliefSlots(like.zeros(dtype=like.wide), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> Rates:
        if self.correct_bias:
            lr = lr * sqrt(one_minus_power(self.beta2, t)) / one_minus_power(self.beta1, t)
        return Rates(lr, wd)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad + decay(rates.wd, weight), self.clip_gradient)
        # The largest difference of a first gradient from its mean is beta1 of the gradient.
        g = squarable(g, maximum(self.beta1 * self.beta1, 0.25))
        m = self.beta1 * (slots.mean - g) + g
        belief = squarable(m - g)
        v = self.beta2 * (slots.var - belief * belief) + belief * belief + self.epsilon
        new = weight - rates.lr * (m / (sqrt(v) + self.epsilon))
        return new, AdaBeliefSlots(m, v)
