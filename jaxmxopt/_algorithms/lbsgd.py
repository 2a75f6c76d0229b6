"""Large-batch SGD."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._sgd_arithmetic import (
    decayed_step,
    has_momentum,
    made_without,
    momentum_step,
)
from jaxmxopt._core.config import DecayRate, Interval, Static
from jaxmxopt._core.definition import MOST_UPDATES, OptimizerDef
from jaxmxopt._core.in_place import after, first
from jaxmxopt._core.numeric import divide, maximum, minimum, sqrt, zeros_like

__all__ = ["LBSGD"]

Count = Static[Annotated[int, Interval(low=0)]]
AtLeastOne = Static[Annotated[int, Interval(low=1)]]


class LBSGDSlots(NamedTuple):
    """Momentum or None, the sum of the gradients since the last move, and how many there were."""

    mom: jax.Array | None
    cum_grad: jax.Array
    num_cums: jax.Array


class LBSGDRates(NamedTuple):
    """Learning rate with the warmup in it, decay, and the batch scale as a number."""

    lr: Any
    wd: Any
    batch_scale: Any


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

    As in MXNet the schedule is asked for the count before this update; decay, momentum and the
    rate act on moves alone; and after the warmup the rate stays :math:`k` times its own. A
    `RowSparse` gradient acts as the dense one. MXNet takes an unknown strategy for none.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 its slot is None.
        warmup_strategy: `'linear'`, `'power2'`, `'sqrt'` or `'lars'`; static.
        warmup_epochs: length of the warmup, 0 or more; static.
        batch_scale: :math:`k`, gradients a move, 1 or more; static.
        updates_per_epoch: gradients an epoch, 1 or more; static.
        begin_epoch: the epoch that training begins with, 0 or more; static.
        num_epochs: without effect, as in MXNet; 1 or more; static.

    Slots `mom` and `cum_grad` have the shape and dtype of the weight (float32 beside a master),
    `num_cums` is a scalar of int32.

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

    _rowwise = False
    _holds_gradients = True
    _schedule_lag = 1
    _slot_types = (LBSGDSlots,)
    _slots_by = "momentum"

    def _check_weight(self, weight: Any) -> None:
        if self.begin_epoch * self.updates_per_epoch >= MOST_UPDATES:
            raise ValueError(
                f"begin_epoch * updates_per_epoch must be below {MOST_UPDATES}, got "
                f"{self.begin_epoch} * {self.updates_per_epoch}."
            )

    def _slots(self, weight: Any, index: Any) -> LBSGDSlots:
        mom = zeros_like(weight) if has_momentum(self) else None
        first = jnp.asarray(self.begin_epoch * self.updates_per_epoch, jnp.int32)
        return LBSGDSlots(mom, zeros_like(weight), first)

    def _made_with(self, slots: Any) -> Any:
        return made_without(self, slots)

    def _rates(self, lr: Any, wd: Any, t: Any) -> LBSGDRates:
        count = t - self.begin_num_update + self.begin_epoch * self.updates_per_epoch
        return LBSGDRates(lr * self._warmup(count), wd, float(self.batch_scale))

    def _warmup(self, count: Any) -> Any:
        span = self.warmup_epochs * self.updates_per_epoch
        rise = self.batch_scale - 1.0
        if self.warmup_strategy == "lars":
            return 1.0
        if span == 0:
            return 1.0 + rise
        if isinstance(count, int):
            done = min(count, span)
        else:
            # Spans, and their squares before all, may be no int32.
            span = float(span)
            done = jnp.minimum(count.astype(jnp.result_type(self.rescale_grad)), span)
        if self.warmup_strategy == "linear":
            return 1.0 + rise * done / span
        if self.warmup_strategy == "power2":
            return 1.0 + rise * (done * done) / (span * span)
        return 1.0 + rise * sqrt(done / span)

    def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        num_cums = slots.num_cums + 1
        due = num_cums % self.batch_scale == 0
        if self.warmup_strategy == "lars":
            mean = self._mean(rates, slots.cum_grad, grad)
            rates = rates._replace(lr=rates.lr * _trust(rates, weight, mean))

        def plain(weight: Any, cum_grad: Any, grad: Any) -> Any:
            mean = self._mean(rates, cum_grad, grad)
            return jnp.where(due, decayed_step(self, rates, weight, mean), weight)

        def faster(mom: Any, weight: Any, cum_grad: Any, grad: Any) -> Any:
            mean = self._mean(rates, cum_grad, grad)
            moved = momentum_step(self, rates, weight, mean, self.momentum * mom)
            return jnp.where(due, moved, mom)

        if slots.mom is None:
            mom, done = None, first(plain, weight, slots.cum_grad, grad)
            new = done
        else:
            mom = done = first(faster, slots.mom, weight, slots.cum_grad, grad)
            new = jnp.where(due, weight + mom, weight)
        cum_grad = after(done, slots.cum_grad)
        return new, LBSGDSlots(mom, jnp.where(due, 0, cum_grad + grad), num_cums)

    def _mean(self, rates: Any, cum_grad: Any, grad: Any) -> Any:
        return divide(cum_grad + grad, rates.batch_scale, grad)


def _trust(rates: Any, weight: Any, mean: Any) -> Any:
    squared = jnp.sum(weight * weight)
    ratio = squared / (jnp.sum(mean * mean) + rates.wd * squared + 1e-18)
    return jnp.sqrt(minimum(maximum(ratio, 1e-4), 1e4))
