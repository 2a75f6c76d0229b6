"""Mixed precision: loss scaling, and guards against gradients that are not finite.

Gradients of float16 vanish below 6e-8. So the loss is scaled up before it is differentiated and the
gradients down again in float32; where one overflowed, the step is skipped and the scale halved.
"""

from jaxmxopt._core.gradients import NonFinite as NonFinite
from jaxmxopt._core.gradients import all_finite as all_finite
from jaxmxopt._core.gradients import clip_global_norm as clip_global_norm
from jaxmxopt._core.gradients import first_nonfinite as first_nonfinite
from jaxmxopt._core.loss_scale import DynamicLossScaler as DynamicLossScaler
from jaxmxopt._core.loss_scale import LossScale as LossScale

__all__ = [
    "DynamicLossScaler",
    "LossScale",
    "NonFinite",
    "all_finite",
    "clip_global_norm",
    "first_nonfinite",
]
