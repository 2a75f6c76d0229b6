"""The deprecated name of SGD."""

from jaxmxopt._algorithms.sgd import SGD
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, Static

__all__ = ["ccSGD"]


class ccSGD(OptimizerDef):
    r"""Stochastic gradient descent under its deprecated name.

    `SGD` has the mathematics and the slot `mom`.

    Attributes:
        momentum: :math:`\mu` in [0, 1); with 0 there is no slot.

    References:
        Polyak: Some methods of speeding up the convergence of iteration methods. 1964.
        MXNet: `mxnet.optimizer.ccSGD`, which MXNet keeps for old programs too.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.ccSGD(learning_rate=0.1), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [0.9 2.1]
    """

    momentum: DecayRate = 0.0
    lazy_update: Static[bool] = True

    acts_on = "elements"
    slots = SGD.slots
    rule = SGD.rule
