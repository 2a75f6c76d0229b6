"""Operators of LAMB and LANS: in two phases for one weight, at once for lists."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms import LAMB, LANS
from jaxmxopt._algorithms._trust import bounded
from jaxmxopt._algorithms.lamb import LAMBSlots
from jaxmxopt._algorithms.lans import LANSSlots
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Real, Static
from jaxmxopt._operators.running import (
    Array,
    Gradient,
    check_counts,
    limit,
    numbers,
    operator,
    rates_of,
    scalar,
    updated,
    updated_lists,
)

__all__ = [
    "lamb_update_phase1",
    "lamb_update_phase2",
    "mp_lamb_update_phase1",
    "mp_lamb_update_phase2",
    "multi_lamb_update",
    "multi_lans_update",
    "multi_mp_lamb_update",
    "multi_mp_lans_update",
]


class Direction(LAMB):
    """LAMB's first phase: the direction of the step takes the place of the weight."""

    def adapt(self, rates: Any, weight: Any, grad: Any) -> Any:
        return rates

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        return self._direction(rates, weight, grad, slots)


class StepRates(NamedTuple):
    """The rate, and the norms of weight and direction."""

    lr: Any
    size: Any
    length: Any


class Step(OptimizerDef):
    """LAMB's second phase: the direction takes the place of the gradient."""

    lower_bound: NonNegative | None = None
    upper_bound: NonNegative | None = None

    acts_on = "elements"

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        size = bounded(rates.size, self.lower_bound, self.upper_bound)
        both = (size != 0) & (rates.length != 0)
        scaled = rates.lr * size / jnp.where(both, rates.length, 1)
        return weight - jnp.where(both, scaled, rates.lr) * grad, slots


def _phase1(
    arrays: tuple[Any, Any, Any, Any],
    weight32: Any,
    beta1: Any,
    beta2: Any,
    epsilon: Any,
    t: Any,
    bias_correction: Any,
    wd: Any,
    rescale_grad: Any,
    clip_gradient: Any,
) -> Any:
    weight, grad, mean, var = arrays
    opt = Direction(
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        bias_correction=bias_correction,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
    )
    rates = rates_of(opt, 0.0, wd, t)
    new, *slots = updated(opt, rates, weight, grad, LAMBSlots, mean, var, master=weight32)
    return (new if weight32 is None else slots.pop(), *slots)


@operator
def lamb_update_phase1(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    t: Any = None,
    bias_correction: Static[bool] = True,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(g, mean, var)`: the direction of update `t`, which must be given, and the states."""
    arrays, moments = (weight, grad, mean, var), (beta1, beta2, epsilon)
    return _phase1(arrays, None, *moments, t, bias_correction, wd, rescale_grad, clip_gradient)


@operator
def mp_lamb_update_phase1(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    weight32: Array,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    t: Any = None,
    bias_correction: Static[bool] = True,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(g, mean, var)` as `lamb_update_phase1`, in float32."""
    arrays, moments = (weight, grad, mean, var), (beta1, beta2, epsilon)
    return _phase1(arrays, weight32, *moments, t, bias_correction, wd, rescale_grad, clip_gradient)


def _phase2(
    weight: Any, g: Any, r1: Any, r2: Any, weight32: Any, lr: Any, lower: Any, upper: Any
) -> Any:
    opt = Step(lower_bound=limit(lower), upper_bound=limit(upper))
    rates = StepRates(lr, scalar("r1", r1), scalar("r2", r2))
    return updated(opt, rates, weight, g, master=weight32)


@operator
def lamb_update_phase2(
    weight: Array,
    g: Array,
    r1: Array,
    r2: Array,
    lr: NonNegative,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
) -> jax.Array:
    """Return the weight after a step along `g`, given the norms of the weight and of `g`."""
    return _phase2(weight, g, r1, r2, None, lr, lower_bound, upper_bound)


@operator
def mp_lamb_update_phase2(
    weight: Array,
    g: Array,
    r1: Array,
    r2: Array,
    weight32: Array,
    lr: NonNegative,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, weight32)` after a step along `g` in float32.

    MXNet's operator leaves `weight32` as it was.
    """
    return _phase2(weight, g, r1, r2, weight32, lr, lower_bound, upper_bound)


def _stepped(
    opt: LAMB | LANS,
    kind: type,
    lists: tuple[Sequence[Any], ...],
    weights32: Sequence[Any] | None,
    step_count: Any,
    lrs: Any,
    wds: Any,
    num_tensors: int,
) -> Any:
    """Return the lists of new weights, means, variances, and masters if there are any."""
    weights, grads, mean, var = lists
    count = num_tensors or len(weights)
    masters = {} if weights32 is None else {"weights32": weights32}
    named = {"weights": weights, "grads": grads, "mean": mean, "var": var, **masters}
    check_counts(count, step_count=step_count, **named)
    each = zip(numbers("lrs", lrs, count), numbers("wds", wds, count), step_count, strict=True)
    rates = [rates_of(opt, *one) for one in each]
    slots = [kind(*one) for one in zip(mean, var, strict=True)]
    return updated_lists(opt, rates, weights, grads, slots, weights32)


def _hyperparameters(
    beta1: Any, beta2: Any, epsilon: Any, rescale_grad: Any, lower: Any, upper: Any, clip: Any
) -> dict[str, Any]:
    """Return what LAMB and LANS take alike."""
    return {
        "beta1": beta1,
        "beta2": beta2,
        "epsilon": epsilon,
        "rescale_grad": rescale_grad,
        "lower_bound": limit(lower),
        "upper_bound": limit(upper),
        "clip_gradient": limit(clip),
    }


@operator
def multi_lamb_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    step_count: Sequence[int],
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    num_tensors: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    rescale_grad: Real = 1.0,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
    clip_gradient: Real = -1.0,
    bias_correction: Static[bool] = True,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var)` after a step of LAMB."""
    given = _hyperparameters(
        beta1, beta2, epsilon, rescale_grad, lower_bound, upper_bound, clip_gradient
    )
    opt, arrays = LAMB(bias_correction=bias_correction, **given), (weights, grads, mean, var)
    masters = None
    return _stepped(opt, LAMBSlots, arrays, masters, step_count, lrs, wds, num_tensors)


@operator
def multi_mp_lamb_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    weights32: Sequence[Array],
    step_count: Sequence[int],
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    num_tensors: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    rescale_grad: Real = 1.0,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
    clip_gradient: Real = -1.0,
    bias_correction: Static[bool] = True,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var, weights32)` after a step of LAMB in float32."""
    given = _hyperparameters(
        beta1, beta2, epsilon, rescale_grad, lower_bound, upper_bound, clip_gradient
    )
    opt, arrays = LAMB(bias_correction=bias_correction, **given), (weights, grads, mean, var)
    masters = weights32
    return _stepped(opt, LAMBSlots, arrays, masters, step_count, lrs, wds, num_tensors)


@operator
def multi_lans_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    step_count: Sequence[int],
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    num_tensors: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    rescale_grad: Real = 1.0,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var)` after a step of LANS."""
    given = _hyperparameters(
        beta1, beta2, epsilon, rescale_grad, lower_bound, upper_bound, clip_gradient
    )
    opt, arrays = LANS(**given), (weights, grads, mean, var)
    masters = None
    return _stepped(opt, LANSSlots, arrays, masters, step_count, lrs, wds, num_tensors)


@operator
def multi_mp_lans_update(
    weights: Sequence[Array],
    grads: Sequence[Gradient],
    mean: Sequence[Array],
    var: Sequence[Array],
    weights32: Sequence[Array],
    step_count: Sequence[int],
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    num_tensors: int = 0,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-6,
    rescale_grad: Real = 1.0,
    lower_bound: Real = -1.0,
    upper_bound: Real = -1.0,
    clip_gradient: Real = -1.0,
) -> tuple[list[jax.Array], ...]:
    """Return lists `(weights, mean, var, weights32)` after a step of LANS in float32."""
    given = _hyperparameters(
        beta1, beta2, epsilon, rescale_grad, lower_bound, upper_bound, clip_gradient
    )
    opt, arrays = LANS(**given), (weights, grads, mean, var)
    masters = weights32
    return _stepped(opt, LANSSlots, arrays, masters, step_count, lrs, wds, num_tensors)
