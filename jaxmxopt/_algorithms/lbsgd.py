"""Large-batch SGD."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._sgd_arithmetic import decayed_step, momentum_step
from jaxmxopt._core.algorithm import MOST_UPDATES, OptimizerDef
from jaxmxopt._core.config import DecayRate, Interval, Static
from jaxmxopt._core.numeric import decay, divide, is_zero, maximum, minimum, real, sqrt, unless
from jaxmxopt._core.rates import Rates
from jaxmxopt._core.slots import Like

__all__ = ["LBSGD"]

Count = Static[Annotated[int, Interval(low=0)]]
AtLeastOne = Static[Annotated[int, Interval(low=1)]]


class LBSGDSlots(NamedTuple):
    """Momentum or None, sum of the gradients since the last move, and number of all gradients."""

    mom: jax.Array | None
    cum_grad: jax.Array
    num_cums: jax.Array


class LBSGD(OptimizerDef):
    r"""SGD for large batches: averages several gradients, and warms up (Goyal et al., 2017).

    With the gradients counted by :math:`c`, which begins at `begin_epoch * updates_per_epoch`,
    a batch scale :math:`k` and a warmup of :math:`n` = `warmup_epochs * updates_per_epoch`:

    .. math::

        c = c + 1, \qquad s = s + g

    and where :math:`k` divides :math:`c`, and only there,

    .. math::

        \eta &= \eta \left(1 + (k - 1)\, r\!\left(\min(c / n, 1)\right)\right) \\
        m &= \mu m - \eta\,\mathrm{wd}\,w
             - \eta\,\mathrm{clip}(\mathrm{rescale\_grad}\, s / k) \\
        w &= w + m, \qquad s = 0

    with :math:`r(x) = x`, :math:`x^2` or :math:`\sqrt x` for the strategies `'linear'`,
    `'power2'` and `'sqrt'`. With `'lars'` the rate is instead multiplied by

    .. math::

        \sqrt{\frac{\|w\|^2}{\|s / k\|^2 + \mathrm{wd}\,\|w\|^2}} \in [0.01, 100].

    As in MXNet the schedule is asked for the count before this update, and after the warmup the
    rate stays :math:`k` times its own. A `RowSparse` gradient acts as the dense gradient. MXNet
    takes an unknown strategy for no warmup.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 its slot is None.
        warmup_strategy: `'linear'`, `'power2'`, `'sqrt'` or `'lars'`; static.
        warmup_epochs: length of the warmup, 0 or more; static.
        batch_scale: :math:`k`, gradients a move, 1 or more; static.
        updates_per_epoch: gradients an epoch, 1 or more; static.
        begin_epoch: the epoch that training begins with, 0 or more; static.
        num_epochs: without effect, as in MXNet; 1 or more; static.

    Slots `mom` and `cum_grad` have the shape of the weight, `mom` its dtype (float32 beside a
    master), `cum_grad` at least float32; `num_cums` is a scalar of int32.

    References:
        Goyal et al.: Accurate, large minibatch SGD: training ImageNet in 1 hour. 2017,
        arXiv:1706.02677.
        MXNet: `mxnet.optimizer.LBSGD`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.LBSGD(learning_rate=0.1, batch_scale=2), jnp.ones(2)
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> params, state = opt.step(params, jnp.array([3.0, -1.0]), state)
        >>> print(params)
        [0.7975  1.10125]
    """

    momentum: DecayRate = 0.0
    warmup_strategy: Static[Literal["linear", "power2", "sqrt", "lars"]] = "linear"
    warmup_epochs: Count = 5
    batch_scale: AtLeastOne = 1
    updates_per_epoch: AtLeastOne = 32
    begin_epoch: Count = 0
    num_epochs: AtLeastOne = 60

    schedule_lag = 1

    def check_weight(self, weight: Any) -> None:
        if self.begin_epoch * self.updates_per_epoch >= MOST_UPDATES:
            raise ValueError(
                f"begin_epoch * updates_per_epoch must be below {MOST_UPDATES}, got "
                f"{self.begin_epoch} * {self.updates_per_epoch}."
            )

    def slots(self, like: Like) -> LBSGDSlots:
        mom = None if is_zero(self.momentum) else like.zeros()
        begin = self.begin_epoch * self.updates_per_epoch
        number = like.full(begin, axes=(), dtype=jnp.int32)
        return LBSGDSlots(mom, like.zeros(dtype=like.wide), number)

    def rates(self, lr: Any, wd: Any, t: Any) -> Rates:
        if self.warmup_strategy == "lars":
            return Rates(lr, wd)
        rise, n = self.batch_scale - 1.0, float(self.warmup_epochs * self.updates_per_epoch)
        if n == 0:
            return Rates(lr * (1.0 + rise), wd)
        c = t - self.begin_num_update + self.begin_epoch * self.updates_per_epoch
        done = minimum(real(c, self.rescale_grad), n)
        if self.warmup_strategy == "linear":
            rise = rise * done / n
        elif self.warmup_strategy == "power2":
            rise = rise * (done * done) / (n * n)
        else:
            rise = rise * sqrt(done / n)
        return Rates(lr * (1.0 + rise), wd)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        num_cums = slots.num_cums + 1
        # The sum of finite gradients may be beyond the largest number.
        largest = float(jnp.finfo(grad.dtype).max)
        cum_grad = maximum(minimum(slots.cum_grad + grad, largest), -largest) + 0 * grad
        mean = divide(cum_grad, float(self.batch_scale))
        if self.warmup_strategy == "lars":
            squared = jnp.sum(weight * weight)
            ratio = squared / (jnp.sum(mean * mean) + decay(rates.wd, squared) + 1e-18)
            rates = rates._replace(lr=rates.lr * jnp.sqrt(minimum(maximum(ratio, 1e-4), 1e4)))
        if slots.mom is None:
            mom, new = None, decayed_step(self, rates, weight, mean)
        else:
            mom = momentum_step(self, rates, weight, mean, self.momentum * slots.mom)
            new = weight + mom
        waits = num_cums % self.batch_scale != 0
        waiting = weight, LBSGDSlots(slots.mom, cum_grad, num_cums)
        moved = new, LBSGDSlots(mom, jnp.zeros_like(cum_grad), num_cums)
        return unless(waits, waiting, moved)
