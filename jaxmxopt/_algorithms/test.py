"""A descent without any settings, for tests."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.slots import Like

__all__ = ["Test"]


class TestSlots(NamedTuple):
    """Weight after the last update."""

    weight: jax.Array


class Test(OptimizerDef):
    r"""Optimizer of MXNet's own tests: adds the gradient.

    .. math::

        w = w + \mathrm{rescale\_grad}\, g

    Learning rate, decay and clipping have no effect. MXNet 2.x subtracts
    :math:`\eta (\mathrm{rescale\_grad}\, g + \mathrm{wd}\,w)` instead.

    Slot `weight`, a copy of the weight after its last update, has the shape and dtype of the
    weight (float32 beside a master) and begins at 0.

    References:
        MXNet: `mxnet.optimizer.Test`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Test(rescale_grad=0.5), jnp.array([1.0, 2.0])
        >>> params, state = opt.step(params, jnp.array([1.0, -1.0]), opt.init(params))
        >>> print(params)
        [1.5 1.5]
    """

    # pytest would collect the class for its name.
    __test__ = False

    acts_on = "elements"

    def slots(self, like: Like) -> TestSlots:
        return TestSlots(like.zeros())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        new = weight + grad * self.rescale_grad
        return new, TestSlots(new)
