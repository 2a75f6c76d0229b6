"""Adam with Nesterov's momentum."""

import functools
from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative
from jaxmxopt._core.numeric import (
    capped,
    clip,
    decay,
    divide,
    one_minus_power,
    real,
    sqrt,
    squarable,
)
from jaxmxopt._core.slots import Like

__all__ = ["Nadam"]


class NadamSlots(NamedTuple):
    """First and second moment, each like the weight, and the product of the momenta so far."""

    mean: jax.Array
    var: jax.Array
    m_schedule: jax.Array


class NadamRates(NamedTuple):
    """Numbers of an update.

    The last three are known on the host alone, in double precision; traced, the rule computes
    the last three from its slot.
    """

    lr: Any
    wd: Any
    fresh1: Any
    fresh2: Any
    momentum: Any
    next_momentum: Any
    rest_of_momentum: Any
    correction2: Any
    m_schedule: Any = None
    correction1: Any = None
    next_correction1: Any = None

    def corrected(self, m_schedule: Any) -> "NadamRates":
        """Return the rates with a product of the momenta and what follows from that product."""
        rest, next_rest = 1 - m_schedule, 1 - m_schedule * self.next_momentum
        return self._replace(m_schedule=m_schedule, correction1=rest, next_correction1=next_rest)


class Nadam(OptimizerDef):
    r"""Adam with Nesterov's momentum (Dozat, 2016).

    With :math:`\mu_t = \beta_1 \left(1 - \tfrac12\, 0.96^{\,\psi t}\right)`:

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g + \mathrm{wd}\, w) \\
        P &= P \mu_t \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) g^2 \\
        w &= w - \eta\, \frac{(1 - \mu_t) \dfrac{g}{1 - P}
            + \mu_{t+1} \dfrac{m}{1 - P \mu_{t+1}}}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    :math:`P`, `m_schedule`, begins at 1. MXNet multiplies one :math:`P` for all weights, so that
    :math:`P` falls faster the more weights there are; here each weight has its own, as a single
    weight has in MXNet. As in MXNet, decay is added before clipping. torch has the same
    :math:`\psi` = 0.004 and :math:`\epsilon` and agrees for one weight; optax has no schedule.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        schedule_decay: :math:`\psi`, how fast the momentum rises to its limit, 0 or more.

    Slots `mean` and `var` have the shape of the weight, `mean` its dtype (float32 beside a master),
    `var` at least float32,
    `m_schedule` is a scalar of at least float32.

    References:
        Dozat: Incorporating Nesterov momentum into Adam. ICLR 2016 workshop.
        MXNet: `mxnet.optimizer.Nadam`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Nadam(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> print(params["w"])
        [ 0.8943 -1.1057]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-8
    schedule_decay: NonNegative = 0.004

    acts_on = "elements"

    def slots(self, like: Like) -> NadamSlots:
        return NadamSlots(like.zeros(), like.zeros(dtype=like.wide), like.full(1.0, axes=()))

    def rates(self, lr: Any, wd: Any, t: Any) -> NadamRates:
        schedule: tuple[Any, Any] = self.beta1, self.schedule_decay
        now, following = (_momentum(*schedule, n) for n in (real(t, lr), real(t, lr) + 1))
        fresh = 1 - self.beta1, 1 - self.beta2
        correction2 = one_minus_power(self.beta2, t)
        rates = NadamRates(lr, wd, *fresh, now, following, 1 - now, correction2)
        if not isinstance(t, int):
            return rates
        return rates.corrected(_product(*schedule, self.begin_num_update, t))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        if rates.m_schedule is None:
            rates = rates.corrected(slots.m_schedule * rates.momentum)
        g = clip(grad * self.rescale_grad + decay(rates.wd, weight), self.clip_gradient)
        g = squarable(g, rates.fresh2)
        m = slots.mean * self.beta1 + rates.fresh1 * g
        v = capped(slots.var * self.beta2 + rates.fresh2 * g * g)
        ahead = rates.rest_of_momentum * divide(g, rates.correction1)
        ahead = ahead + rates.next_momentum * divide(m, rates.next_correction1)
        step = rates.lr * ahead / (sqrt(divide(v, rates.correction2)) + self.epsilon)
        return weight - step, NadamSlots(m, v, rates.m_schedule)


def _momentum(beta1: Any, psi: Any, t: Any) -> Any:
    return beta1 * (1 - 0.5 * 0.96 ** (t * psi))


@functools.lru_cache(maxsize=1024)
def _product(beta1: float, psi: float, begin: int, t: int) -> float:
    """Return the product of the momenta of the updates after `begin` up to `t`."""
    product = 1.0
    for update in range(begin + 1, t + 1):
        product *= _momentum(beta1, psi, update)
        # Below this the product is nothing beside the 1 that it is subtracted from.
        if product < 1e-30:
            break
    return product
