"""Parts of schedule-free algorithms: where gradients are taken, and where the average is."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.config import Interval, Scalar
from jaxmxopt._core.numeric import maximum, minimum, real

__all__ = ["Momentum", "ScheduleFreeRates", "average", "moved", "rates_of"]

# Of 0 the average would be lost, of 1 the gradients would be taken at the average.
Momentum = Annotated[Scalar, Interval(low=0.0, high=1.0, low_open=True, high_open=True)]


class ScheduleFreeRates(NamedTuple):
    """Numbers of an update: `power` is the share of this update for a rate of 1."""

    lr: Any
    wd: Any
    power: Any
    correction2: Any = None


def rates_of(opt: Any, lr: Any, wd: Any, t: Any) -> ScheduleFreeRates:
    """Return the rates of an update, warmed up."""
    count = real(t, lr)
    warm = minimum(count / maximum(opt.warmup_steps, 1.0), 1.0)
    return ScheduleFreeRates(lr * warm, wd, count**opt.r)


def moved(opt: Any, rates: Any, weight: Any, step: Any, slots: Any, momentum: Any) -> Any:
    """Return the weight and the slots after a step."""
    lr_max = maximum(slots.lr_max, rates.lr)
    mine = rates.power * lr_max**opt.weight_lr_power
    weight_sum = slots.weight_sum + mine
    known = weight_sum > 0
    share = jnp.where(known, mine / jnp.where(known, weight_sum, 1), 0)
    new = weight + share * (slots.z - weight)
    new = new + rates.lr * (momentum * (1 - share) - 1) * step
    z = slots.z - rates.lr * step
    momentum = jnp.asarray(momentum, slots.momentum.dtype)
    return new, slots._replace(z=z, weight_sum=weight_sum, lr_max=lr_max, momentum=momentum)


def average(slots: Any, weight: jax.Array) -> jax.Array:
    """Return the weights to evaluate with."""
    return weight + (1 - 1 / slots.momentum) * (slots.z - weight)
