"""Operators of AdamW and AdaBelief, whose step has a multiplier beside its rate.

`eta` multiplies the whole step, `lr` the part of the moments alone. An update whose `rescale_grad`
is 0, NaN or infinite is skipped, as loss scaling asks for.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Real, Static
from jaxmxopt._core.numeric import clip, decay, sqrt, unless
from jaxmxopt._core.slots import Like
from jaxmxopt._operators.running import (
    Array,
    Gradient,
    check_counts,
    limit,
    numbers,
    operator,
    scalar,
    updated,
    updated_lists,
)

__all__ = [
    "adabelief_update",
    "adamw_update",
    "mp_adabelief_update",
    "mp_adamw_update",
    "multi_adabelief_update",
    "multi_adamw_update",
    "multi_mp_adabelief_update",
    "multi_mp_adamw_update",
]


class Moments(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class ScheduledRates(NamedTuple):
    """The multiplier of the whole step, the decay, and the rate of the moments."""

    lr: Any
    wd: Any
    moments_lr: Any


class Scheduled(OptimizerDef):
    """AdamW, or AdaBelief, without bias correction, by MXNet's arithmetic.

    Attributes:
        beta1: decay rate of the mean.
        beta2: decay rate of the variance.
        epsilon: added to the root.
        belief: AdaBelief: the decay belongs to the gradient, the variance is around the mean.
        mixed: the kernels differ in how they round an average; see `_averaged`.
    """

    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8
    belief: Static[bool] = False
    mixed: Static[bool] = False

    acts_on = "elements"

    def slots(self, like: Like) -> Moments:
        return Moments(like.zeros(), like.zeros())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g, decayed = self.rescale_grad * grad, decay(rates.wd, weight)
        g = clip(g + decayed if self.belief else g, self.clip_gradient)
        m = self._averaged(self.beta1, slots.mean, g)
        about = g - m if self.belief else g
        v = self._averaged(self.beta2, slots.var, about * about)
        v = v + self.epsilon if self.belief else v
        step = rates.moments_lr * m / (sqrt(v) + self.epsilon)
        new = weight - rates.lr * (step if self.belief else step + decayed)
        idle = ~jnp.isfinite(self.rescale_grad) | (self.rescale_grad == 0)
        return unless(idle, (weight, slots), (new, Moments(m, v)))

    def _averaged(self, beta: Any, old: Any, new: Any) -> Any:
        if self.mixed:
            return beta * (old - new) + new
        return beta * old + (1 - beta) * new


def _scheduled(
    kind: tuple[bool, bool],
    beta1: Any,
    beta2: Any,
    epsilon: Any,
    rescale_grad: Any,
    clip_gradient: Any,
) -> Scheduled:
    belief, mixed = kind
    return Scheduled(
        belief=belief,
        mixed=mixed,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        rescale_grad=scalar("rescale_grad", rescale_grad),
        clip_gradient=limit(clip_gradient),
    )


# Whether it is AdaBelief, and how its averages round.
ADAMW, ADAMW_LISTS = (False, False), (False, True)
ADABELIEF, ADABELIEF_MASTERS = (True, False), (True, True)


@operator
def adamw_update(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    rescale_grad: float | Array,
    lr: Real,
    eta: Real,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mean, var)` after a step of AdamW without bias correction."""
    opt = _scheduled(ADAMW, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return updated(opt, ScheduledRates(eta, wd, lr), weight, grad, Moments, mean, var)


@operator
def mp_adamw_update(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    weight32: Array,
    rescale_grad: float | Array,
    lr: Real,
    eta: Real,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mean, var, weight32)` after a step of AdamW in float32."""
    opt = _scheduled(ADAMW, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return updated(
        opt, ScheduledRates(eta, wd, lr), weight, grad, Moments, mean, var, master=weight32
    )


@operator
def adabelief_update(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    rescale_grad: float | Array,
    lr: Real,
    eta: Real,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mean, var)` after a step of AdaBelief without bias correction."""
    opt = _scheduled(ADABELIEF, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return updated(opt, ScheduledRates(eta, wd, lr), weight, grad, Moments, mean, var)


@operator
def mp_adabelief_update(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    weight32: Array,
    rescale_grad: float | Array,
    lr: Real,
    eta: Real,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mean, var, weight32)` after a step of AdaBelief in float32."""
    opt = _scheduled(ADABELIEF_MASTERS, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return updated(
        opt, ScheduledRates(eta, wd, lr), weight, grad, Moments, mean, var, master=weight32
    )


def _stepped(
    opt: Scheduled,
    weights: Sequence[Any],
    grads: Sequence[Any],
    mean: Sequence[Any],
    var: Sequence[Any],
    weights32: Sequence[Any] | None,
    lrs: Any,
    wds: Any,
    etas: Any,
    size: int,
) -> Any:
    """Return the lists of new weights, means, variances, and masters if there are any."""
    count = size or len(weights)
    masters = {} if weights32 is None else {"weights32": weights32}
    check_counts(count, weights=weights, grads=grads, mean=mean, var=var, **masters)
    of = (
        numbers(name, given, count) for name, given in (("etas", etas), ("wds", wds), ("lrs", lrs))
    )
    rates = [ScheduledRates(*one) for one in zip(*of, strict=True)]
    slots = [Moments(*one) for one in zip(mean, var, strict=True)]
    return updated_lists(opt, rates, weights, grads, slots, weights32)


@operator
def multi_adamw_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    rescale_grad: float | Array,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    etas: Sequence[float] | Array,
    size: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var)` after a step of AdamW without bias correction."""
    opt = _scheduled(ADAMW_LISTS, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return _stepped(opt, weights, grads, mean, var, None, lrs, wds, etas, size)


@operator
def multi_mp_adamw_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    weights32: Sequence[Array],
    rescale_grad: float | Array,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    etas: Sequence[float] | Array,
    size: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var, weights32)` after a step of AdamW in float32."""
    opt = _scheduled(ADAMW_LISTS, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return _stepped(opt, weights, grads, mean, var, weights32, lrs, wds, etas, size)


@operator
def multi_adabelief_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    rescale_grad: float | Array,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    etas: Sequence[float] | Array,
    size: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var)` after a step of AdaBelief without bias correction."""
    opt = _scheduled(ADABELIEF_MASTERS, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return _stepped(opt, weights, grads, mean, var, None, lrs, wds, etas, size)


@operator
def multi_mp_adabelief_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    weights32: Sequence[Array],
    rescale_grad: float | Array,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    etas: Sequence[float] | Array,
    size: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var, weights32)` after a step of AdaBelief in float32."""
    opt = _scheduled(ADABELIEF_MASTERS, beta1, beta2, epsilon, rescale_grad, clip_gradient)
    return _stepped(opt, weights, grads, mean, var, weights32, lrs, wds, etas, size)
