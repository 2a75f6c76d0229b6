"""The arithmetic of gradient descent that several algorithms share, in MXNet's order."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.numeric import clip, zeros_like

__all__ = [
    "MomentumSlots",
    "decayed_step",
    "has_momentum",
    "made_without",
    "momentum_slots",
    "momentum_step",
]


class MomentumSlots(NamedTuple):
    """Momentum, like the weight; its sign is that of the step, against the gradient's."""

    mom: jax.Array


def has_momentum(opt: Any) -> bool:
    """Whether `momentum` may be other than 0: then, and only then, there is a slot for it."""
    return not (isinstance(opt.momentum, float) and opt.momentum == 0.0)


def made_without(opt: Any, slots: Any) -> float | None:
    """The momentum 0 that slots were made with, where the one of now needs what they lack.

    With momentum 0 a slot that is there does no harm; a traced momentum may be 0.
    """
    absent = slots.mom is None if hasattr(slots, "mom") else type(slots) is tuple and not slots
    if not absent or isinstance(opt.momentum, Tracer) or np.all(opt.momentum == 0.0):
        return None
    return 0.0


def momentum_slots(opt: Any, weight: jax.Array) -> Any:
    """The first slots of an algorithm that keeps nothing but its momentum."""
    return MomentumSlots(zeros_like(weight)) if has_momentum(opt) else ()


def momentum_step(opt: Any, rates: Any, weight: Any, grad: Any, mom: Any) -> Any:
    r"""Returns :math:`m - \eta\,\mathrm{wd}\,w - \eta\,\mathrm{clip}(\mathrm{rescale}\,g)`."""
    decay = rates.lr * rates.wd * weight
    if opt.clip_gradient is None:
        return mom - decay - rates.lr * opt.rescale_grad * grad
    return mom - decay - rates.lr * clip(opt.rescale_grad * grad, opt.clip_gradient)


def decayed_step(opt: Any, rates: Any, weight: Any, grad: Any) -> Any:
    r"""Returns :math:`(1 - \eta\,\mathrm{wd})w - \eta\,\mathrm{clip}(\mathrm{rescale}\,g)`."""
    kept = (1 - rates.lr * rates.wd) * weight
    if opt.clip_gradient is None:
        return kept - (rates.lr * opt.rescale_grad) * grad
    return kept - rates.lr * clip(opt.rescale_grad * grad, opt.clip_gradient)
