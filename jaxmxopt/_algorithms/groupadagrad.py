"""AdaGrad with one rate a row."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import Interval, NonNegative, Scalar, Static
from jaxmxopt._core.numeric import capped, clip, divide, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["GroupAdaGrad"]


class GroupAdaGradSlots(NamedTuple):
    """Sum of the mean squared gradients of each row, of shape `(rows, 1)`."""

    history: jax.Array


class GroupAdaGrad(OptimizerDef):
    r"""AdaGrad with one learning rate for each row of a matrix, as for embeddings.

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        h_i &= h_i + \tfrac{1}{n} \textstyle\sum_{j=1}^n g_{ij}^2 \\
        w_{ij} &= w_{ij} - \frac{\eta\, g_{ij}}{\sqrt{h_i + \epsilon}}

    :math:`\epsilon` stands inside the root. There is no weight decay.

    Attributes:
        wd: must be 0.
        eps: :math:`\epsilon`, 0 or more; 0 gives NaN in rows where no gradient has been.

    Slot `history` has the shape `(rows, 1)` and at least float32. Weights have two dimensions.

    References:
        Duchi, Hazan, Singer: Adaptive subgradient methods for online learning and stochastic
        optimization. JMLR 12, 2011.
        MXNet: `mxnet.optimizer.contrib.GroupAdaGrad`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.GroupAdaGrad(learning_rate=0.1), jnp.ones((2, 2))
        >>> params, state = opt.step(params, jnp.array([[1.0, 7.0], [0.0, 0.0]]), opt.init(params))
        >>> print(params)
        [[0.98 0.86]
         [1.   1.  ]]
    """

    wd: Annotated[Scalar, Interval(low=0.0, high=0.0)] = 0.0
    eps: NonNegative = 1e-5
    lazy_update: Static[bool] = True

    acts_on = "rows"

    def check_weight(self, weight: Any) -> None:
        if len(weight.shape) != 2:
            raise ValueError(f"weight must have two dimensions, got shape {weight.shape}.")

    def slots(self, like: Like) -> GroupAdaGradSlots:
        return GroupAdaGradSlots(like.zeros(axes=(0, None), dtype=like.wide))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(grad * self.rescale_grad, self.clip_gradient))
        columns = max(weight.shape[1], 1)
        history = capped(slots.history + jnp.sum(g * g, axis=1, keepdims=True) / columns)
        step = divide(rates.lr * g, sqrt(history + self.eps))
        return weight - step, GroupAdaGradSlots(history)
