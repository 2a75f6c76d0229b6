"""The deprecated name of SGD."""

from jaxmxopt._algorithms.sgd import SGD
from jaxmxopt._core.config import DecayRate, Static
from jaxmxopt._core.definition import OptimizerDef

__all__ = ["ccSGD"]


class ccSGD(OptimizerDef):
    r"""Stochastic gradient descent under its deprecated name; `SGD` has the mathematics.

    .. math::

        m &= \mu m - \eta\,\mathrm{wd}\,w
             - \eta\,\mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        w &= w + m

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there is no slot.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master).

    References:
        Polyak: Some methods of speeding up the convergence of iteration methods. 1964.
        MXNet: `mxnet.optimizer.ccSGD`, kept for old programs there too.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.ccSGD(learning_rate=0.1), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    momentum: DecayRate = 0.0
    lazy_update: Static[bool] = True

    _slot_types = SGD._slot_types
    _slots_by = SGD._slots_by
    _counts_together = True
    _made_with = SGD._made_with
    _slots = SGD._slots
    _rule = SGD._rule
    _row_rule = SGD._row_rule
