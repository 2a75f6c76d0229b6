"""Layer-wise adaptive rate scaling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._sgd_arithmetic import (
    decayed_step,
    has_momentum,
    made_without,
    momentum_step,
)
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.numeric import norm, scalar_like, zeros_like
from jaxmxopt._core.one_loop import together

__all__ = ["LARS"]


class LARSSlots(NamedTuple):
    """Momentum, like the weight, and the learning rate of the last update."""

    mom: jax.Array
    last_lr: jax.Array


class LARSRates(NamedTuple):
    """Learning rate, with the trust ratio in it once that is known, decay, and the rate alone."""

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

    with :math:`\gamma = \eta` for weights whose names end in `gamma`, `beta` or `bias`, and
    without :math:`\eta / \eta_{\text{last}}` where the last rate was 0, at the first update, and
    where `momentum_correction` is off. The norms are of the unclipped gradient and of the weight
    as it is stored, in half precision beside a master. MXNet remembers one last rate for all
    weights and so corrects the first one only; here each weight has its own. MXNet's
    documentation has no eta; optax has no momentum correction, torch no LARS.

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

    _decaying = ("_weight",)
    _slot_types = (tuple, LARSSlots)
    _slots_by = "momentum"
    _counts_together = True

    def _slots(self, weight: Any, index: Any) -> Any:
        if not has_momentum(self):
            return ()
        return LARSSlots(zeros_like(weight), scalar_like(weight, 0.0))

    def _made_with(self, slots: Any) -> Any:
        return made_without(self, slots)

    def _rates(self, lr: Any, wd: Any, t: Any) -> LARSRates:
        return LARSRates(lr, wd, lr)

    def _adapts(self, name: str) -> bool:
        return not name.endswith(("gamma", "beta", "bias"))

    def _adapt(self, rates: Any, weight: Any, grad: Any) -> LARSRates:
        size, slope = norm(weight), norm(grad)
        below = slope * self.rescale_grad + rates.wd * size + self.eps
        # Below is 0 where rescale_grad is, without decay and eps.
        trusted = (size > 0) & (slope > 0) & (below != 0)
        scaled = rates.lr * self.eta * size / jnp.where(trusted, below, 1)
        return rates._replace(lr=jnp.where(trusted, scaled, rates.lr))

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return weight + momentum_step(self, rates, weight, grad, 0.0), ()
        mom = self._corrected(rates, slots.last_lr) * slots.mom
        mom = momentum_step(self, rates, weight, grad, mom)
        new, mom = together(weight + mom, mom)
        return new, LARSSlots(mom, rates.asked_lr)

    def _row_rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            return decayed_step(self, rates, weight, grad), ()
        return self._rule(rates, weight, grad, slots)

    def _corrected(self, rates: Any, last_lr: Any) -> Any:
        if not self.momentum_correction:
            return self.momentum
        known = last_lr != 0
        ratio = rates.asked_lr / jnp.where(known, last_lr, 1)
        return jnp.where(known, self.momentum * ratio, self.momentum)
