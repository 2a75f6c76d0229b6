"""Rules of MXNet's kernels for row-sparse gradients, by the class of the algorithm.

Such a kernel may round in another order than the dense kernel, whose order the file of the
algorithm has. A row rule is for exactly its class: a subclass, or an algorithm from elsewhere,
follows its own mathematics.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxmxopt._algorithms import LARS, SGD, Adam, ccSGD
from jaxmxopt._algorithms._sgd_arithmetic import decayed_step
from jaxmxopt._algorithms.adam import AdamSlots
from jaxmxopt._core.numeric import clip, decay, sqrt, squarable

__all__ = ["ROW_RULES"]


def sgd_rows(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    """Update rows by SGD or LARS: without momentum the decay multiplies the weight first."""
    if not slots:
        return decayed_step(opt, rates, weight, grad), ()
    return opt.rule(rates, weight, grad, slots)


def adam_rows(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    """Update rows by Adam: where clipped or not lazy, the gradient is squared first."""
    if opt.clip_gradient is None and opt.lazy_update:
        return opt.rule(rates, weight, grad, slots)
    g = clip(grad * opt.rescale_grad + decay(rates.wd, weight), opt.clip_gradient)
    g = squarable(g)
    m = opt.beta1 * slots.mean + (1 - opt.beta1) * g
    v = opt.beta2 * slots.var + (1 - opt.beta2) * (g * g)
    return weight - rates.lr * m / (sqrt(v) + opt.epsilon), AdamSlots(m, v)


# Rules for row-sparse gradients, called as rule(opt, rates, weight, grad, slots).
ROW_RULES: Mapping[type, Callable[..., Any]] = MappingProxyType(
    {SGD: sgd_rows, ccSGD: sgd_rows, LARS: sgd_rows, Adam: adam_rows}
)
