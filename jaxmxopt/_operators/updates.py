"""Operators that update one weight by the rule of an algorithm."""

from typing import Any

import jax

from jaxmxopt._algorithms import FTML, NAG, SGD, AdaGrad, Adam, Ftrl, GroupAdaGrad, RMSProp, Signum
from jaxmxopt._algorithms._sgd_arithmetic import MomentumSlots
from jaxmxopt._algorithms.adagrad import AdaGradSlots
from jaxmxopt._algorithms.adam import AdamSlots
from jaxmxopt._algorithms.ftml import FTMLSlots
from jaxmxopt._algorithms.ftrl import FtrlSlots
from jaxmxopt._algorithms.groupadagrad import GroupAdaGradSlots
from jaxmxopt._algorithms.rmsprop import CenteredRMSPropSlots, RMSPropSlots
from jaxmxopt._core.checks import WrongKindError
from jaxmxopt._core.config import DecayRate, NonNegative, Real, Static
from jaxmxopt._core.rates import Rates
from jaxmxopt._operators.running import Array, Gradient, limit, operator, rates_of, updated

__all__ = [
    "adagrad_update",
    "adam_update",
    "ftml_update",
    "ftrl_update",
    "group_adagrad_update",
    "mp_nag_mom_update",
    "mp_sgd_mom_update",
    "mp_sgd_update",
    "nag_mom_update",
    "rmsprop_update",
    "rmspropalex_update",
    "sgd_mom_update",
    "sgd_update",
    "signsgd_update",
    "signum_update",
]


def _decayed(rescale_grad: Any, clip_gradient: Any, lazy_update: Any) -> NAG:
    """Return the algorithm that decays a weight, then subtracts: NAG without momentum."""
    clip = limit(clip_gradient)
    return NAG(rescale_grad=rescale_grad, clip_gradient=clip, lazy_update=lazy_update)


@operator
def sgd_update(
    weight: Array,
    grad: Gradient,
    lr: NonNegative,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    lazy_update: Static[bool] = True,
) -> jax.Array:
    """Return the weight after a step of SGD."""
    return updated(_decayed(rescale_grad, clip_gradient, lazy_update), Rates(lr, wd), weight, grad)


@operator
def mp_sgd_update(
    weight: Array,
    grad: Gradient,
    weight32: Array,
    lr: NonNegative,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    lazy_update: Static[bool] = True,
) -> tuple[jax.Array, ...]:
    """Return `(weight, weight32)` after a step of SGD in float32."""
    opt = _decayed(rescale_grad, clip_gradient, lazy_update)
    return updated(opt, Rates(lr, wd), weight, grad, master=weight32)


@operator
def sgd_mom_update(
    weight: Array,
    grad: Gradient,
    mom: Array,
    lr: NonNegative,
    momentum: DecayRate = 0.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    lazy_update: Static[bool] = True,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mom)` after a step of SGD with momentum."""
    opt = SGD(
        momentum=momentum,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
        lazy_update=lazy_update,
    )
    return updated(opt, Rates(lr, wd), weight, grad, MomentumSlots, mom)


@operator
def mp_sgd_mom_update(
    weight: Array,
    grad: Gradient,
    mom: Array,
    weight32: Array,
    lr: NonNegative,
    momentum: DecayRate = 0.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    lazy_update: Static[bool] = True,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mom, weight32)` after a step of SGD with momentum in float32."""
    opt = SGD(
        momentum=momentum,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
        lazy_update=lazy_update,
    )
    return updated(opt, Rates(lr, wd), weight, grad, MomentumSlots, mom, master=weight32)


@operator
def nag_mom_update(
    weight: Array,
    grad: Gradient,
    mom: Array,
    lr: NonNegative,
    momentum: DecayRate = 0.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mom)` after a step of Nesterov's gradient, as MXNet's with `out=weight`.

    The decay inside of the new momentum sees the new weight.
    """
    opt = NAG(momentum=momentum, rescale_grad=rescale_grad, clip_gradient=limit(clip_gradient))
    return updated(opt, Rates(lr, wd), weight, grad, MomentumSlots, mom)


@operator
def mp_nag_mom_update(
    weight: Array,
    grad: Gradient,
    mom: Array,
    weight32: Array,
    lr: NonNegative,
    momentum: DecayRate = 0.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mom, weight32)` after a step of Nesterov's gradient in float32."""
    opt = NAG(momentum=momentum, rescale_grad=rescale_grad, clip_gradient=limit(clip_gradient))
    return updated(opt, Rates(lr, wd), weight, grad, MomentumSlots, mom, master=weight32)


@operator
def signsgd_update(
    weight: Array,
    grad: Gradient,
    lr: NonNegative,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> jax.Array:
    """Return the weight after a step by the sign of its gradient.

    As in MXNet, `rescale_grad`, even its sign, and `clip_gradient` have no effect.
    """
    opt = Signum(rescale_grad=rescale_grad, clip_gradient=limit(clip_gradient))
    return updated(opt, Rates(lr, wd), weight, grad)


@operator
def signum_update(
    weight: Array,
    grad: Gradient,
    mom: Array,
    lr: NonNegative,
    momentum: DecayRate = 0.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    wd_lh: NonNegative = 0.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mom)` after a step by the sign of the momentum."""
    opt = Signum(
        momentum=momentum,
        wd_lh=wd_lh,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
    )
    return updated(opt, Rates(lr, wd), weight, grad, MomentumSlots, mom)


@operator
def ftml_update(
    weight: Array,
    grad: Gradient,
    d: Array,
    v: Array,
    z: Array,
    lr: NonNegative,
    beta1: DecayRate = 0.6,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    t: Any = None,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_grad: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, d, v, z)` after update `t`, which must be given, of FTML."""
    opt = FTML(
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_grad),
    )
    return updated(opt, rates_of(opt, lr, wd, t), weight, grad, FTMLSlots, d, v, z)


@operator
def adam_update(
    weight: Array,
    grad: Gradient,
    mean: Array,
    var: Array,
    lr: NonNegative,
    beta1: DecayRate = 0.9,
    beta2: DecayRate = 0.999,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    lazy_update: Static[bool] = True,
) -> tuple[jax.Array, ...]:
    """Return `(weight, mean, var)` after a step of Adam; `lr` holds the bias correction."""
    opt = Adam(
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
        lazy_update=lazy_update,
    )
    return updated(opt, Rates(lr, wd), weight, grad, AdamSlots, mean, var)


def _either(name: str, given: Any, default: float, other: str, of_other: Any) -> Any:
    """Return what an argument with two names is."""
    if of_other is None:
        return given
    if not isinstance(given, float) or given != default:
        raise WrongKindError(f"{other} is another name of {name}: give one of them, got both.")
    return of_other


@operator
def rmsprop_update(
    weight: Array,
    grad: Gradient,
    n: Array,
    lr: NonNegative,
    gamma1: DecayRate = 0.95,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    clip_weights: Real = -1.0,
    *,
    rho: DecayRate | None = None,
) -> tuple[jax.Array, ...]:
    """Return `(weight, n)` after a step of RMSProp; `rho` is MXNet 2's name of `gamma1`."""
    opt = RMSProp(
        gamma1=_either("gamma1", gamma1, 0.95, "rho", rho),
        epsilon=epsilon,
        clip_weights=limit(clip_weights),
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
    )
    return updated(opt, Rates(lr, wd), weight, grad, RMSPropSlots, n)


@operator
def rmspropalex_update(
    weight: Array,
    grad: Gradient,
    n: Array,
    g: Array,
    delta: Array,
    lr: NonNegative,
    gamma1: DecayRate = 0.95,
    gamma2: DecayRate = 0.9,
    epsilon: NonNegative = 1e-8,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    clip_weights: Real = -1.0,
    *,
    rho: DecayRate | None = None,
    momentum: DecayRate | None = None,
) -> tuple[jax.Array, ...]:
    """Return `(weight, n, g, delta)` after a step of centered RMSProp.

    `rho` and `momentum` are MXNet 2's names of `gamma1` and `gamma2`.
    """
    opt = RMSProp(
        centered=True,
        gamma1=_either("gamma1", gamma1, 0.95, "rho", rho),
        gamma2=_either("gamma2", gamma2, 0.9, "momentum", momentum),
        epsilon=epsilon,
        clip_weights=limit(clip_weights),
        rescale_grad=rescale_grad,
        clip_gradient=limit(clip_gradient),
    )
    return updated(opt, Rates(lr, wd), weight, grad, CenteredRMSPropSlots, n, g, delta)


@operator
def ftrl_update(
    weight: Array,
    grad: Gradient,
    z: Array,
    n: Array,
    lr: NonNegative,
    lamda1: NonNegative = 0.01,
    beta: NonNegative = 1.0,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, z, n)` after a step of Ftrl."""
    clip = limit(clip_gradient)
    opt = Ftrl(lamda1=lamda1, beta=beta, rescale_grad=rescale_grad, clip_gradient=clip)
    return updated(opt, Rates(lr, wd), weight, grad, FtrlSlots, z, n)


@operator
def adagrad_update(
    weight: Array,
    grad: Gradient,
    history: Array,
    lr: NonNegative,
    epsilon: NonNegative = 1e-7,
    wd: NonNegative = 0.0,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
) -> tuple[jax.Array, ...]:
    """Return `(weight, history)` after a step of AdaGrad: `mx.nd.sparse.adagrad_update`."""
    opt = AdaGrad(eps=epsilon, rescale_grad=rescale_grad, clip_gradient=limit(clip_gradient))
    return updated(opt, Rates(lr, wd), weight, grad, AdaGradSlots, history)


@operator
def group_adagrad_update(
    weight: Array,
    grad: Gradient,
    history: Array,
    lr: NonNegative,
    rescale_grad: Real = 1.0,
    clip_gradient: Real = -1.0,
    epsilon: NonNegative = 1e-5,
) -> tuple[jax.Array, ...]:
    """Return `(weight, history)` after a step of AdaGrad with one rate a row."""
    opt = GroupAdaGrad(eps=epsilon, rescale_grad=rescale_grad, clip_gradient=limit(clip_gradient))
    return updated(opt, Rates(lr, 0.0), weight, grad, GroupAdaGradSlots, history)
