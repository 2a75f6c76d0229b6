"""Signum and signSGD."""

from typing import Any

from jaxmxopt._algorithms._sgd_arithmetic import MomentumSlots, momentum_slots
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import clip, decay, sign
from jaxmxopt._core.slots import Like

__all__ = ["Signum"]


class Signum(OptimizerDef):
    r"""Signum, and signSGD where the momentum is 0 (Bernstein et al., 2018).

    .. math::

        m &= \mu m - (1 - \mu)\,\mathrm{wd}\,w
             - (1 - \mu)\,\mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        w &= (1 - \eta\,\mathrm{wd\_lh})\,w + \eta\,\mathrm{sign}(m)

    With momentum 0 the decay is decoupled, and `rescale_grad`, even its sign, and
    `clip_gradient` have no effect:

    .. math::

        w = (1 - \eta\,(\mathrm{wd} + \mathrm{wd\_lh}))\,w - \eta\,\mathrm{sign}(g)

    The stored momentum has the sign of the step, opposite to optax's `signum` and to MXNet's
    documentation, which also clips before rescaling. MXNet refuses `wd_lh` without momentum.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there is no slot.
        wd_lh: weight decay outside of the gradient, after Loshchilov and Hutter, 0 or more;
            `wd_mult` does not apply to it.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master).

    References:
        Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: compressed optimisation for
        non-convex problems. ICML 2018, arXiv:1802.04434.
        MXNet: `mxnet.optimizer.Signum`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Signum(learning_rate=0.1), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([3.0, -0.5]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    learning_rate: NonNegative | None = 0.01
    momentum: DecayRate = 0.9
    wd_lh: NonNegative = 0.0

    acts_on = "elements"

    def slots(self, like: Like) -> MomentumSlots | tuple[()]:
        return momentum_slots(self, like)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if not slots:
            kept = 1 - rates.lr * (rates.wd + self.wd_lh)
            return kept * weight - rates.lr * sign(grad), ()
        fresh = 1 - self.momentum
        mom = self.momentum * slots.mom - decay(rates.wd, fresh, weight)
        if self.clip_gradient is None:
            mom = mom - fresh * self.rescale_grad * grad
        else:
            mom = mom - fresh * clip(self.rescale_grad * grad, self.clip_gradient)
        new = (1 - rates.lr * self.wd_lh) * weight + rates.lr * sign(mom)
        return new, MomentumSlots(mom)
