"""RMSProp."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Real, Static
from jaxmxopt._core.numeric import capped, clip, decay, divide, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["RMSProp"]


class RMSPropSlots(NamedTuple):
    """Mean of the squared gradients, like the weight."""

    n: jax.Array


class CenteredRMSPropSlots(NamedTuple):
    """Mean of the squared gradients, mean of the gradients and step, each like the weight."""

    n: jax.Array
    g: jax.Array
    delta: jax.Array


class RMSProp(OptimizerDef):
    r"""RMSProp (Tieleman and Hinton, 2012), and its centered form with momentum (Graves, 2013).

    With :math:`g = \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w)`:

    .. math::

        n &= (1 - \gamma_1) g^2 + \gamma_1 n \\
        w &= w - \eta \frac{g}{\sqrt{n + \epsilon}}

    and centered

    .. math::

        n &= (1 - \gamma_1) g^2 + \gamma_1 n \\
        \bar g &= (1 - \gamma_1) g + \gamma_1 \bar g \\
        \Delta &= \gamma_2 \Delta - \eta \frac{g}{\sqrt{n - \bar g^2 + \epsilon}} \\
        w &= w + \Delta

    after which :math:`w` is limited to `[-clip_weights, clip_weights]`. As in MXNet, decay is
    added before clipping and :math:`\epsilon` stands inside the root; torch has
    :math:`\sqrt{n} + \epsilon`. Steady gradients may round :math:`n - \bar g^2 + \epsilon` below
    0: MXNet gives NaN, this rule takes :math:`\epsilon` instead.

    Attributes:
        gamma1: :math:`\gamma_1`, decay rate of the means, in [0, 1).
        gamma2: :math:`\gamma_2`, momentum of the centered form, in [0, 1).
        epsilon: :math:`\epsilon`, 0 or more; 0 gives NaN where no gradient has been.
        centered: choose the centered form; static.
        clip_weights: bound of the weights; None, 0 and below mean no bound.

    Slot `n`, or slots `n`, `g` (the mean) and `delta` of the centered form, have the shape of the
    weight, `delta` its dtype (float32 beside a master), the others at least float32.

    References:
        Tieleman, Hinton: Lecture 6.5, RMSProp. Neural networks for machine learning, 2012.
        Graves: Generating sequences with recurrent neural networks. 2013, arXiv:1308.0850.
        MXNet: `mxnet.optimizer.RMSProp`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.RMSProp(learning_rate=0.1, gamma1=0.75), jnp.array([1.0, -1.0])
        >>> params, state = opt.step(params, jnp.array([2.0, 3.0]), opt.init(params))
        >>> print(params)
        [ 0.8 -1.2]
    """

    learning_rate: NonNegative | None = 0.001
    gamma1: DecayRate = 0.9
    gamma2: DecayRate = 0.9
    epsilon: NonNegative = 1e-8
    centered: Static[bool] = False
    clip_weights: Real | None = None

    acts_on = "elements"

    def slots(self, like: Like) -> RMSPropSlots | CenteredRMSPropSlots:
        if self.centered:
            wide = like.zeros(dtype=like.wide)
            return CenteredRMSPropSlots(wide, wide, like.zeros())
        return RMSPropSlots(like.zeros(dtype=like.wide))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad + decay(rates.wd, weight), self.clip_gradient)
        fresh: Any = 1 - self.gamma1
        if isinstance(slots, RMSPropSlots):
            n = capped(fresh * (g * g) + self.gamma1 * slots.n)
            new = weight - rates.lr * divide(g, sqrt(n + self.epsilon))
            return clip(new, self.clip_weights), RMSPropSlots(n)
        g = squarable(g, fresh)
        n = capped(fresh * g * g + self.gamma1 * slots.n)
        mean = fresh * g + self.gamma1 * slots.g
        var = n - mean * mean + self.epsilon
        root = sqrt(jnp.where(var <= 0, self.epsilon, var))
        delta = self.gamma2 * slots.delta - divide(rates.lr * g, root)
        return clip(weight + delta, self.clip_weights), CenteredRMSPropSlots(n, mean, delta)
