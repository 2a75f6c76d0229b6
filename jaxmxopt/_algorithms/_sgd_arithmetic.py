"""Arithmetic of gradient descent that several algorithms share, in MXNet's order."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.numeric import clip, decay, is_zero
from jaxmxopt._core.slots import Like

__all__ = ["MomentumSlots", "decayed_step", "momentum_slots", "momentum_step"]


class MomentumSlots(NamedTuple):
    """Momentum, like the weight; its sign is that of the step, against the gradient's."""

    mom: jax.Array


def momentum_slots(opt: Any, like: Like) -> MomentumSlots | tuple[()]:
    """Return the slots of an algorithm that keeps nothing but its momentum, if it has one."""
    return () if is_zero(opt.momentum) else MomentumSlots(like.zeros())


def momentum_step(opt: Any, rates: Any, weight: Any, grad: Any, mom: Any) -> Any:
    r"""Return :math:`m - \eta\,\mathrm{wd}\,w - \eta\,\mathrm{clip}(\mathrm{rescale}\,g)`."""
    kept = mom - decay(rates.wd, rates.lr, weight)
    if opt.clip_gradient is None:
        return kept - rates.lr * opt.rescale_grad * grad
    return kept - rates.lr * clip(opt.rescale_grad * grad, opt.clip_gradient)


def decayed_step(opt: Any, rates: Any, weight: Any, grad: Any) -> Any:
    r"""Return :math:`(1 - \eta\,\mathrm{wd})w - \eta\,\mathrm{clip}(\mathrm{rescale}\,g)`."""
    kept = (1 - decay(rates.wd, rates.lr)) * weight
    if opt.clip_gradient is None:
        return kept - (rates.lr * opt.rescale_grad) * grad
    return kept - rates.lr * clip(opt.rescale_grad * grad, opt.clip_gradient)
