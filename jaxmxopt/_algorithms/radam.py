"""RAdam."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import clip, decay, maximum, one_minus_power, real, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["RAdam"]


class RAdamSlots(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class RAdamRates(NamedTuple):
    """Numbers of an update: the rate, and what multiplies the mean with and without variance."""

    lr: Any
    wd: Any
    rectified: Any
    plain: Any


class RAdam(OptimizerDef):
    r"""Adam that begins as momentum, until the variance can be trusted (Liu et al., 2020).

    With :math:`\rho_\infty = 2 / (1 - \beta_2) - 1` and
    :math:`\rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)`:

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) + \mathrm{wd}\, w \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        w &= w - \frac{\eta}{1 - \beta_1^t} \begin{cases}
            m\, r_t \sqrt{1 - \beta_2^t} / (\sqrt{v} + \epsilon) & \rho_t > 5 \\
            m & \text{else} \end{cases} \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}
            {(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}

    It does without a warmup of the rate. Decay is as in torch: after clipping, and with
    `decoupled` outside of the gradient, :math:`w - \eta\,\mathrm{wd}\,w`, as in the authors' code.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        decoupled: decay outside of the gradient; static.

    Slots `mean` and `var` have the shape and dtype of the weight (float32 beside a master): 8 bytes
    and about 14 operations a parameter.

    References:
        Liu et al.: On the variance of the adaptive learning rate and beyond. ICLR 2020,
        arXiv:1908.03265. Compared with `torch.optim.RAdam`.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxmxopt as mxopt
        >>> opt, params = mxopt.RAdam(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> print(np.asarray(params["w"]).round(4))
        [ 0.8 -1.3]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8
    decoupled: Static[bool] = False

    acts_on = "elements"

    def slots(self, like: Like) -> RAdamSlots:
        return RAdamSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> RAdamRates:
        plain = lr / one_minus_power(self.beta1, t)
        rectified = plain * sqrt(one_minus_power(self.beta2, t)) * _rectification(self.beta2, t)
        return RAdamRates(lr, wd, rectified, plain)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad, self.clip_gradient)
        if self.decoupled:
            weight = weight - decay(rates.wd, rates.lr, weight)
        else:
            g = g + decay(rates.wd, weight)
        g = squarable(g)
        m = self.beta1 * slots.mean + (1 - self.beta1) * g
        v = self.beta2 * slots.var + (1 - self.beta2) * g * g
        rectified = rates.rectified * m / (sqrt(v) + self.epsilon)
        step = jnp.where(rates.rectified > 0, rectified, rates.plain * m)
        return weight - step, RAdamSlots(m, v)


def _rectification(beta2: Any, t: Any) -> Any:
    """Return the factor of a rectified step, 0 where the step is not rectified."""
    limit = 2 / (1 - beta2) - 1
    if isinstance(t, int):
        length = limit - 2 * t * beta2**t / (1 - beta2**t)
        return _factor(length, maximum(limit, 5.0)) if length > 5 else 0.0
    # The two terms cancel in float32. With coth(z) = 1 / z + f(z) what cancels is written out:
    # limit = coth(z), length = t + f(z) - t f(t z), for beta2 = exp(-2 z).
    count, z = real(t, beta2), -jnp.log1p(beta2 - 1) / 2
    early = count + _rest(z) - count * _rest(count * z)
    # Of many updates the two terms of the definition are of other sizes, and nothing cancels.
    late = limit - 2 * count / jnp.expm1(2 * count * z)
    length = jnp.where(count * z < 0.5, early, late)
    return jnp.where(length > 5, _factor(maximum(length, 5), maximum(limit, 5)), 0)


def _factor(length: Any, limit: Any) -> Any:
    squared = (length - 4) * (length - 2) / length * (limit / ((limit - 4) * (limit - 2)))
    return math.sqrt(squared) if isinstance(squared, float) else jnp.sqrt(squared)


def _rest(z: jax.Array) -> jax.Array:
    """Return coth(z) - 1 / z for z of 0 or more."""
    small = jnp.minimum(z, 0.5)
    square = small * small
    terms = (2 / 93555, -1 / 4725, 2 / 945, -1 / 45, 1 / 3)
    series = jnp.zeros_like(z)
    for term in terms:
        series = series * square + term
    large = jnp.maximum(z, 0.5)
    return jnp.where(z < 0.5, series * small, 1 + 2 / jnp.expm1(2 * large) - 1 / large)
