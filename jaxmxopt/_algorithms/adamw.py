"""Adam with decoupled weight decay."""

from typing import Any, NamedTuple

import jax

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import DecayRate, NonNegative, Static
from jaxmxopt._core.numeric import clip, decay, one_minus_power, sqrt, squarable
from jaxmxopt._core.slots import Like

__all__ = ["AdamW"]


class AdamWSlots(NamedTuple):
    """First and second moment, each like the weight."""

    mean: jax.Array
    var: jax.Array


class AdamWRates(NamedTuple):
    """Numbers of an update; those of the standard form beside the rate, None in MXNet's."""

    lr: Any
    wd: Any
    correction1: Any = None
    root2: Any = None


class AdamW(OptimizerDef):
    r"""Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m &= \beta_1 (m - g) + g \\
        v &= \beta_2 (v - g^2) + g^2 \\
        w &= w - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
             \left(\frac{m}{\sqrt{v} + \epsilon} + \mathrm{wd}\,w\right)

    The first fraction is absent where `correct_bias` is off. As in MXNet 2.x that correction
    multiplies the decay too, and :math:`\epsilon` stands outside of it. Where `correct_bias` is
    off, MXNet's documentation adds the decay to the gradient as well; the binary does not.

    With `standard` the last line is that of the paper, torch and optax:

    .. math::

        w = w - \eta \left(\frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
            + \mathrm{wd}\,w\right)

    With `nesterov` :math:`\beta_1 m + (1 - \beta_1) g` takes the place of :math:`m` in the step, as
    in the NAdamW of AlgoPerf's baselines.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        correct_bias: correct the rate for moments that begin at 0; static.
        standard: the form of torch and optax, not MXNet's; static.
        nesterov: a step by the mean as it would be after one more such gradient; static.

    Slots `mean` and `var` have the shape of the weight, `mean` its dtype (float32 beside a master),
    `var` at least float32.

    References:
        Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019, arXiv:1711.05101.
        MXNet 2: `mxnet.optimizer.AdamW`. With `standard` compared with `torch.optim.AdamW`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.AdamW(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> params["w"].tolist()
        [0.9, -1.1]
    """

    learning_rate: NonNegative | None = 0.001
    beta1: DecayRate = 0.9
    beta2: DecayRate = 0.999
    epsilon: NonNegative = 1e-6
    correct_bias: Static[bool] = True
    standard: Static[bool] = False
    nesterov: Static[bool] = False

    acts_on = "elements"

    def slots(self, like: Like) -> AdamWSlots:
        return AdamWSlots(like.zeros(), like.zeros(dtype=like.wide))

    def rates(self, lr: Any, wd: Any, t: Any) -> AdamWRates:
        if not self.correct_bias:
            return AdamWRates(lr, wd)
        correction1, root2 = one_minus_power(self.beta1, t), sqrt(one_minus_power(self.beta2, t))
        if self.standard:
            return AdamWRates(lr, wd, correction1, root2)
        return AdamWRates(lr * root2 / correction1, wd)

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = squarable(clip(self.rescale_grad * grad, self.clip_gradient))
        m, v = self._mean(self.beta1, slots.mean, g), self._mean(self.beta2, slots.var, g * g)
        mean, root = self._mean(self.beta1, m, g) if self.nesterov else m, sqrt(v)
        if rates.root2 is not None:
            mean, root = mean / rates.correction1, root / rates.root2
        step = mean / (root + self.epsilon) + decay(rates.wd, weight)
        return weight - rates.lr * step, AdamWSlots(m, v)

    def _mean(self, beta: Any, old: Any, new: Any) -> Any:
        # MXNet's form cancels where beta is near 1.
        return beta * old + (1 - beta) * new if self.standard else beta * (old - new) + new
