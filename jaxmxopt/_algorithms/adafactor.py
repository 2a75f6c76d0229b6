"""Adafactor."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import Interval, NonNegative, Positive, Scalar
from jaxmxopt._core.numeric import clip, decay, maximum, minimum, norm, real, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["Adafactor"]


class AdafactorFactors(NamedTuple):
    """Mean squared gradients of each row and of each column."""

    row: jax.Array
    column: jax.Array


class AdafactorSlots(NamedTuple):
    """Mean of the squared gradients, like the weight."""

    var: jax.Array


class AdafactorRates(NamedTuple):
    """Learning rate, decay, the relative rate, and the share of the newest gradient."""

    lr: Any
    wd: Any
    relative: Any
    fresh: Any


class Adafactor(OptimizerDef):
    r"""Adam without momentum, its second moment kept by rows and columns (Shazeer, Stern, 2018).

    With :math:`\mathrm{rms}(x) = \|x\| / \sqrt{\mathrm{size}(x)}`:

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g), \quad \gamma = t^{\mathrm{beta2\_decay}} \\
        r_i &= (1 - \gamma) r_i + \gamma\, \mathrm{mean}_j(g_{ij}^2) \\
        c_j &= (1 - \gamma) c_j + \gamma\, \mathrm{mean}_i(g_{ij}^2) \\
        u &= g / \sqrt{\max(v, \epsilon_1^2)}, \quad
             v_{ij} = r_i c_j / \max(\mathrm{mean}(r), \epsilon_1) \\
        w &= w - \eta\,\mathrm{wd}\,w - \frac{\min(\eta, 1/\sqrt{t}) \max(\epsilon_2,
             \mathrm{rms}(w))}{\max(1, \mathrm{rms}(u) / \mathrm{clip\_threshold})}\, u

    Weights with fewer than two axes keep the mean :math:`v` of their squared gradients. Of more
    axes, the last two are rows and columns.

    For the largest models: the state of a matrix is a row and a column.

    Attributes:
        beta2_decay: exponent of the newest gradient's share, 0 or less.
        epsilon1: least mean square, 0 or more; the square root of the least :math:`v`. With 0, a
            weight without a gradient becomes NaN.
        epsilon2: least size of a weight in its rate, 0 or more.
        clip_threshold: largest mean square root of an update, above 0.

    Slots `row` and `column` have the shape of the weight with a 1 for its last axis, and for that
    before it; `var` has the shape of the weight (float32 beside a master). A matrix of n by k
    takes 4 (n + k) bytes; an update about 12 operations a parameter.

    References:
        Shazeer, Stern: Adafactor: adaptive learning rates with sublinear memory cost. ICML 2018,
        arXiv:1804.04235.
        Compared with `torch.optim.Adafactor`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Adafactor(learning_rate=0.1), {"w": jnp.ones((2, 2))}
        >>> params, state = opt.step(params, {"w": jnp.full((2, 2), 3.0)}, opt.init(params))
        >>> print(params["w"][0])
        [0.9 0.9]
    """

    learning_rate: NonNegative | None = 0.01
    beta2_decay: Annotated[Scalar, Interval(high=0.0, low_open=True)] = -0.8
    epsilon1: NonNegative = 2.0**-23
    epsilon2: NonNegative = 1e-3
    clip_threshold: Positive = 1.0

    acts_on = "whole"

    def slots(self, like: Like) -> AdafactorFactors | AdafactorSlots:
        if like.ndim < 2:
            return AdafactorSlots(like.zeros(dtype=like.wide))
        *others, row, column = range(like.ndim)
        axes = (*others, row, None), (*others, None, column)
        return AdafactorFactors(*(like.zeros(axes=some, dtype=like.wide) for some in axes))

    def rates(self, lr: Any, wd: Any, t: Any) -> AdafactorRates:
        count = real(t, lr)
        return AdafactorRates(lr, wd, minimum(lr, 1 / sqrt(count)), count**self.beta2_decay)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(self.rescale_grad * grad, self.clip_gradient), float(max(grad.size, 1)))

        def averaged(old: Any, new: Any) -> Any:
            return old + rates.fresh * (new - old)

        if isinstance(slots, AdafactorFactors):
            row, column = (
                averaged(slots.row, _mean(g * g, -1)),
                averaged(slots.column, _mean(g * g, -2)),
            )
            mean = _mean(row, -2)
            # In this order: the product of two sums of squares may be too large.
            var, slots = row * (column / self._least(mean, 1)), AdafactorFactors(row, column)
        else:
            var = averaged(slots.var, g * g)
            slots = AdafactorSlots(var)
        step = g / sqrt(self._least(var, 2))
        size = maximum(self.epsilon2, _rms(weight))
        lr = rates.relative * size / maximum(1.0, _rms(step) / self.clip_threshold)
        return weight - decay(rates.wd, rates.lr, weight) - lr * step, slots

    def _least(self, x: Any, power: int) -> Any:
        return maximum(x, self.epsilon1**power)


def _mean(x: jax.Array, axis: int) -> jax.Array:
    """Return the mean along an axis, 0 of nothing."""
    return jnp.sum(x, axis=axis, keepdims=True) / max(x.shape[axis], 1)


def _rms(x: jax.Array) -> jax.Array:
    return norm(x) / max(x.size, 1) ** 0.5
