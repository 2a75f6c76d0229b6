"""Adam in the eigenbasis of Shampoo."""

from typing import Annotated, Any, NamedTuple

import jax

from jaxmxopt._algorithms._eigenbasis import advanced
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.batches import batched
from jaxmxopt._core.config import DecayRate, Interval, NonNegative, Static
from jaxmxopt._core.numeric import clip, decay, maximum, one_minus_power, real, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["SOAP"]

AtLeastOne = Static[Annotated[int, Interval(low=1)]]


class SOAPSlots(NamedTuple):
    """First moment; second in the bases; of rows and of columns the statistics and the basis."""

    mean: jax.Array
    var: jax.Array
    left: Any
    right: Any
    left_basis: Any
    right_basis: Any


class SOAPRates(NamedTuple):
    """Rates of step and decay; 1 where bases are made first, and where they are made anew."""

    lr: Any
    wd: Any
    step: Any
    first: Any
    anew: Any


class SOAP(OptimizerDef):
    r"""Adam in the slowly changing eigenbasis of Shampoo's statistics (Vyas et al., 2024).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m &= \beta_1 m + (1 - \beta_1) g \\
        v &= \beta_2 v + (1 - \beta_2) (Q_L^T g\, Q_R)^2 \\
        w &= w - \eta_t\, Q_L \frac{Q_L^T m\, Q_R}{\sqrt{v} + \epsilon} Q_R^T, \quad
             \eta_t = \eta \frac{\sqrt{1 - \beta_2^{t-1}}}{1 - \beta_1^{t-1}} \\
        w &= w - \eta\,\mathrm{wd}\,w \\
        L &= \beta_s L + (1 - \beta_s)\, g g^T, \quad R = \beta_s R + (1 - \beta_s)\, g^T g

    The first update makes :math:`L`, :math:`R` and their eigenvectors :math:`Q_L`, :math:`Q_R`, and
    leaves the weight as it is. Every `precondition_frequency` updates after it the bases are the
    orthogonal factors of :math:`L Q_L` and :math:`R Q_R`, the largest eigenvalues first. Weights
    with fewer than two axes have no bases. Of more than two axes, the last two are a matrix, the
    others a batch; the authors' code has a basis for each axis.

    Matrices of one shape are updated as one batch, and the batch is divided among devices. Under
    `jax.vmap` over states the bases are computed at every step, where `vmap` turns a condition into
    a selection. Products are of JAX's default precision; `jax.default_matmul_precision` sets it.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        shampoo_beta: decay rate of the statistics, in [0, 1); None for `beta2`.
        epsilon: added to the root, 0 or more.
        precondition_frequency: number of updates between new bases, 1 or more; static.
        max_precondition_dim: longest axis that has a basis, 1 or more; static.
        correct_bias: correct the rate for moments that begin at 0; static.
        normalize_gradient: divide a step by its root mean square; static.

    Slots `mean` and `var` have the shape of the weight, `left` and `left_basis` that of the rows
    twice, `right` and `right_basis` that of the columns (float32 beside a master). A matrix of n
    by k takes 8 (n k + n² + k²) bytes; an update about 8 (n + k) operations a parameter, and
    decompositions now and then.

    References:
        Vyas et al.: SOAP: improving and stabilizing Shampoo using Adam. ICLR 2025,
        arXiv:2409.11321.
        Compared with `pytorch_optimizer.SOAP`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.SOAP(learning_rate=0.1), {"w": jnp.eye(2)}
        >>> state = opt.init(params)
        >>> for _ in range(2):
        ...     params, state = opt.step(params, {"w": jnp.eye(2)}, state)
        >>> print(params["w"].round(2))
        [[0.9 0. ]
         [0.  0.9]]
    """

    learning_rate: NonNegative | None = 3e-3
    beta1: DecayRate = 0.95
    beta2: DecayRate = 0.95
    shampoo_beta: DecayRate | None = None
    epsilon: NonNegative = 1e-8
    precondition_frequency: AtLeastOne = 10
    max_precondition_dim: AtLeastOne = 10000
    correct_bias: Static[bool] = True
    normalize_gradient: Static[bool] = False

    acts_on = "matrices"

    def slots(self, like: Like) -> SOAPSlots:
        def side(axis: int) -> Any:
            if like.ndim < 2 or like.shape[axis] > self.max_precondition_dim:
                return None
            return like.zeros(axes=(*range(like.ndim - 2), axis, axis), dtype=like.wide)

        var = like.zeros(dtype=like.wide)
        return SOAPSlots(like.zeros(), var, side(-2), side(-1), side(-2), side(-1))

    def rates(self, lr: Any, wd: Any, t: Any) -> SOAPRates:
        age = t - self.begin_num_update - 1
        first, anew = real(age <= 0, lr), real(age % self.precondition_frequency == 0, lr)
        lr = lr * (1 - first)
        step, count = lr, maximum(age, 1)
        if self.correct_bias:
            powers = one_minus_power(self.beta1, count), one_minus_power(self.beta2, count)
            step = lr * sqrt(powers[1]) / powers[0]
        return SOAPRates(lr, wd, step, first, anew)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(self.rescale_grad * grad, self.clip_gradient), float(max(grad.size, 1)))
        direction, new = batched(
            advanced,
            g,
            *[part for part in slots if part is not None],
            sided=(slots.left is not None, slots.right is not None),
            beta1=self.beta1,
            beta2=self.beta2,
            shampoo_beta=self.beta2 if self.shampoo_beta is None else self.shampoo_beta,
            epsilon=self.epsilon,
            normalize=self.normalize_gradient,
            first=rates.first,
            anew=rates.anew,
        )
        weight = weight - rates.step * direction
        return weight - decay(rates.wd, rates.lr, weight), SOAPSlots(*new)
