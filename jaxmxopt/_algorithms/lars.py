"""Layer-wise adaptive rate scaling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._sgd_arithmetic import momentum_step
from jaxmxopt._core.algorithm import Names, OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import decay, is_zero, norm
from jaxmxopt._core.slots import Like

__all__ = ["LARS"]


class LARSSlots(NamedTuple):
    """Momentum, like the weight, and the learning rate of the last update."""

    mom: jax.Array
    last_lr: jax.Array


class LARSRates(NamedTuple):
    """Learning rate, once adapted with the trust ratio in it, decay, and the rate alone."""

    lr: Any
    wd: Any
    asked_lr: Any


class LARS(OptimizerDef):
    r"""Layer-wise adaptive rate scaling (You et al., 2017).

    .. math::

        \gamma &= \eta \frac{\mathrm{eta}\,\|w\|}
            {\mathrm{rescale\_grad}\,\|g\| + \mathrm{wd}\,\|w\| + \mathrm{eps}}
            \;\text{ if } \|w\| > 0 \text{ and } \|g\| > 0, \text{ else } \eta \\
        m &= \mu \frac{\eta}{\eta_{\text{last}}} m - \gamma\,\mathrm{wd}\,w
             - \gamma\,\mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        w &= w + m

    :math:`\gamma = \eta` for weights whose names end in `gamma`, `beta` or `bias`. The factor
    :math:`\eta / \eta_{\text{last}}` is absent at the first update, where the last rate was 0, and
    where `momentum_correction` is off. The norms are of the unclipped gradient and of the weight
    as it is stored, in half precision beside a master. MXNet keeps one last rate for all weights
    and so corrects the first weight only; here each weight has its own. MXNet's documentation has
    no eta; optax has no momentum correction, torch no LARS.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there are no slots.
        eta: the trust coefficient, 0 or more.
        eps: added to the denominator of the ratio, 0 or more.
        momentum_correction: rescale the momentum when the rate changes; static.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master), `last_lr` is a
    scalar of at least float32. With `param_idx2name`, names that do not end in `_weight` have no
    decay by default.

    References:
        You, Gitman, Ginsburg: Large batch training of convolutional networks. 2017,
        arXiv:1708.03888.
        MXNet: `mxnet.optimizer.LARS`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.LARS(learning_rate=0.5, eta=0.1), jnp.array([3.0, 4.0])
        >>> params, state = opt.step(params, jnp.array([1.0, 0.0]), opt.init(params))
        >>> print(params)
        [2.75 4.  ]
    """

    momentum: DecayRate = 0.0
    eta: NonNegative = 0.001
    eps: NonNegative = 0.0
    momentum_correction: Static[bool] = True
    lazy_update: Static[bool] = True

    acts_on = "elements"
    names = Names(decay=("_weight",), adapt_not=("gamma", "beta", "bias"))

    def slots(self, like: Like) -> LARSSlots | tuple[()]:
        if is_zero(self.momentum):
            return ()
        return LARSSlots(like.zeros(), like.full(0.0, axes=()))

    def rates(self, lr: Any, wd: Any, t: Any) -> LARSRates:
        return LARSRates(lr, wd, lr)

    def adapt(self, rates: Any, weight: Any, grad: Any) -> LARSRates:
        return rates._replace(lr=self._trusted(rates.lr, rates.wd, norm(weight), norm(grad)))

    def _trusted(self, lr: Any, wd: Any, size: Any, slope: Any) -> Any:
        r"""Return :math:`\gamma`, the rate for the norms of a weight and its gradient."""
        below = slope * self.rescale_grad + decay(wd, size) + self.eps
        # `below` is 0 where rescale_grad is 0, without decay and eps.
        trusted = (size > 0) & (slope > 0) & (below != 0)
        scaled = lr * self.eta * size / jnp.where(trusted, below, 1)
        return jnp.where(trusted, scaled, lr)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return weight + momentum_step(self, rates, weight, grad, 0.0), ()
        momentum = self.momentum
        if self.momentum_correction:
            known = slots.last_lr != 0
            ratio = rates.asked_lr / jnp.where(known, slots.last_lr, 1)
            momentum = jnp.where(known, momentum * ratio, momentum)
        mom = momentum_step(self, rates, weight, grad, momentum * slots.mom)
        return weight + mom, LARSSlots(mom, rates.asked_lr)
