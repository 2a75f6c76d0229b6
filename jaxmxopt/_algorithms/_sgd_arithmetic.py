"""The arithmetic of gradient descent that several algorithms share, in MXNet's order."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._numeric import clip

__all__ = ["MomentumSlots", "decayed_step", "momentum_step"]


class MomentumSlots(NamedTuple):
    """Momentum, like the weight; its sign is that of the step, against the gradient's."""

    mom: jax.Array


def momentum_step(opt: Any, rates: Any, weight: Any, grad: Any, mom: Any) -> Any:
    r"""Returns :math:`\mu m - \eta\,\mathrm{wd}\,w - \eta\,\mathrm{clip}(\mathrm{rescale}\,g)`."""
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
