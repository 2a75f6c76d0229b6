"""Operators that update lists of weights by SGD: their data come weight by weight.

MXNet's `preloaded` operators differ in where the rates stand alone: two vectors at the end of the
data.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jaxmxopt._algorithms import SGD
from jaxmxopt._algorithms._sgd_arithmetic import MomentumSlots
from jaxmxopt._core.checks import MismatchError
from jaxmxopt._core.config import DecayRate, Real
from jaxmxopt._core.rates import Rates
from jaxmxopt._operators.running import (
    Array,
    Gradient,
    columns,
    limit,
    numbers,
    operator,
    updated_lists,
)

__all__ = [
    "multi_mp_sgd_mom_update",
    "multi_mp_sgd_update",
    "multi_sgd_mom_update",
    "multi_sgd_update",
    "preloaded_multi_mp_sgd_mom_update",
    "preloaded_multi_mp_sgd_update",
    "preloaded_multi_sgd_mom_update",
    "preloaded_multi_sgd_update",
]


def _stepped(
    data: Sequence[Any],
    lrs: Any,
    wds: Any,
    momentum: Any,
    rescale_grad: Any,
    clip_gradient: Any,
    num_weights: int,
    masters: bool,
) -> Any:
    """Return the lists of new weights, momenta where there is a momentum, and masters."""
    moving = momentum is not None
    parts = columns(data, 2 + moving + masters, num_weights)
    rates = zip(numbers("lrs", lrs, num_weights), numbers("wds", wds, num_weights), strict=True)
    opt = SGD(
        momentum=momentum if moving else 0.0,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
    )
    slots = [MomentumSlots(mom) for mom in parts[2]] if moving else None
    weights32 = parts[-1] if masters else None
    each = [Rates(*one) for one in rates]
    return updated_lists(opt, each, parts[0], parts[1], slots, weights32)


def _preloaded(data: Sequence[Any]) -> tuple[Sequence[Any], Any, Any]:
    """Return the arrays of the weights, and the vectors of lrs and wds behind them."""
    if len(data) < 2:
        raise MismatchError(f"data must end in lrs and wds, got {len(data)} arrays.")
    return data[:-2], data[-2], data[-1]


@operator
def multi_sgd_update(
    *data: Array | Gradient,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> list[jax.Array]:
    """Return the weights after a step of SGD; data are weight, grad, weight, grad, ..."""
    return _stepped(data, lrs, wds, None, rescale_grad, clip_gradient, num_weights, False)


@operator
def multi_sgd_mom_update(
    *data: Array | Gradient,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    momentum: DecayRate = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return `(weights, moms)` after a step of SGD; data are weight, grad, mom, weight, ..."""
    return _stepped(data, lrs, wds, momentum, rescale_grad, clip_gradient, num_weights, False)


@operator
def multi_mp_sgd_update(
    *data: Array | Gradient,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return `(weights, weights32)` after a step; data are weight, grad, weight32, weight, ..."""
    return _stepped(data, lrs, wds, None, rescale_grad, clip_gradient, num_weights, True)


@operator
def multi_mp_sgd_mom_update(
    *data: Array | Gradient,
    lrs: Sequence[float] | Array,
    wds: Sequence[float] | Array,
    momentum: DecayRate = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return `(weights, moms, weights32)`; data are weight, grad, mom, weight32, weight, ..."""
    return _stepped(data, lrs, wds, momentum, rescale_grad, clip_gradient, num_weights, True)


@operator
def preloaded_multi_sgd_update(
    *data: Array | Gradient,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> list[jax.Array]:
    """Return what `multi_sgd_update` returns; data end in vectors of lrs and wds."""
    return _stepped(*_preloaded(data), None, rescale_grad, clip_gradient, num_weights, False)


@operator
def preloaded_multi_sgd_mom_update(
    *data: Array | Gradient,
    momentum: DecayRate = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return what `multi_sgd_mom_update` returns; data end in vectors of lrs and wds."""
    return _stepped(*_preloaded(data), momentum, rescale_grad, clip_gradient, num_weights, False)


@operator
def preloaded_multi_mp_sgd_update(
    *data: Array | Gradient,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return what `multi_mp_sgd_update` returns; data end in vectors of lrs and wds."""
    return _stepped(*_preloaded(data), None, rescale_grad, clip_gradient, num_weights, True)


@operator
def preloaded_multi_mp_sgd_mom_update(
    *data: Array | Gradient,
    momentum: DecayRate = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    num_weights: int = 1,
) -> tuple[list[jax.Array], ...]:
    """Return what `multi_mp_sgd_mom_update` returns; data end in vectors of lrs and wds."""
    return _stepped(*_preloaded(data), momentum, rescale_grad, clip_gradient, num_weights, True)
