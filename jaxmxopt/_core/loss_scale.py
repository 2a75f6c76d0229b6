"""Mixed precision: loss scaling, and guards against gradients that are not finite.

Gradients of float16 vanish below 6e-8. So the loss is scaled up before it is differentiated and the
gradients down again in float32; where one overflowed, the step is skipped and the scale halved.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.config import Config, Positive, Real, Static
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.gradients import NonFinite as NonFinite
from jaxmxopt._core.gradients import all_finite as all_finite
from jaxmxopt._core.gradients import clip_global_norm as clip_global_norm
from jaxmxopt._core.gradients import first_nonfinite as first_nonfinite
from jaxmxopt._core.gradients import multiplied

__all__ = [
    "DynamicLossScaler",
    "LossScale",
    "NonFinite",
    "all_finite",
    "clip_global_norm",
    "first_nonfinite",
]

Tree = TypeVar("Tree")
# Finite steps are counted in int32.
_MOST_STEPS = 2**31 - 1
# The smallest scale whose reciprocal is a normal number too.
_LEAST = 2.0**-126


@exportable
class LossScale(NamedTuple):
    """The state of a `DynamicLossScaler`.

    Attributes:
        loss_scale: float32 scalar, the factor of the loss in this step.
        next_loss_scale: float32 scalar, the factor that `update` puts in its place.
        unskipped: int32 scalar, the finite steps since the last change.
    """

    loss_scale: jax.Array
    next_loss_scale: jax.Array
    unskipped: jax.Array


class DynamicLossScaler(Config):
    """Scales the loss as far up as the gradients stay finite.

    With MXNet's constants and sequence of scales: a scale that `update` decides on comes into force
    one step later, so the step after an overflow still has the old one. Other than in MXNet the
    scale stops falling at `min_scale`, where it would go on to zero.

    Immutable, and every function pure: they work inside `jax.jit`.

    Attributes:
        init_scale: the first scale.
        scale_factor: the scale is divided by it after an overflow, and multiplied by it after
            `scale_window` steps without; above 1.
        scale_window: finite steps before the scale grows; at least 1.
        max_scale: it never grows beyond; at most 2**126.
        min_scale: it never falls below; at least 2**-126, as float32 must hold it and its
            reciprocal.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, scaler = mxopt.SGD(learning_rate=0.5), DynamicLossScaler()
        >>> @jax.jit
        ... def train_step(w, state, scale, x):
        ...     grad = jax.grad(lambda w: scaler.scale(jnp.sum(w * x), scale))(w)
        ...     grad = scaler.unscale(grad, scale)
        ...     finite = all_finite(grad)
        ...     w, state = opt.step(w, grad, state, where=finite)
        ...     return w, state, scaler.update(scale, finite)
        >>> w = jnp.ones(2)
        >>> w, state, scale = train_step(w, opt.init(w), scaler.init(), jnp.array([1.0, jnp.inf]))
        >>> print(w, state.num_update, scale.next_loss_scale)
        [1. 1.] 0 32768.0
    """

    init_scale: Positive = 2.0**16
    scale_factor: Real = 2.0
    scale_window: Static[int] = 2000
    max_scale: Positive = 2.0**24
    min_scale: Positive = 2.0**-24

    def __post_init__(self) -> None:
        super().__post_init__()
        factor, first = self.scale_factor, self.init_scale
        if isinstance(factor, float) and np.float32(factor) <= 1:
            hint = "" if factor <= 1 else ", which is 1 in float32"
            raise ValueError(
                f"DynamicLossScaler: scale_factor must be above 1, got {factor!r}{hint}."
            )
        if not 1 <= self.scale_window <= _MOST_STEPS:
            limit = "at least 1" if self.scale_window < 1 else f"at most {_MOST_STEPS}"
            raise ValueError(
                f"DynamicLossScaler: scale_window must be {limit}, got {self.scale_window!r}."
            )
        bounds = self.min_scale, self.max_scale
        for name in ("init_scale", "min_scale", "max_scale"):
            scale = getattr(self, name)
            if isinstance(scale, float) and not _LEAST <= scale <= 1 / _LEAST:
                raise ValueError(
                    f"DynamicLossScaler: {name} must be in [2**-126, 2**126], so that it and its "
                    f"reciprocal are float32 numbers, got {scale!r}."
                )
        known = all(isinstance(number, float) for number in (first, *bounds))
        if known and not bounds[0] <= first <= bounds[1]:
            raise ValueError(
                f"DynamicLossScaler: init_scale must be in [min_scale, max_scale] = "
                f"[{bounds[0]}, {bounds[1]}], got {first!r}."
            )

    def init(self) -> LossScale:
        """Make the first state."""
        first = jnp.asarray(self.init_scale, jnp.float32)
        return LossScale(first, first, jnp.zeros((), jnp.int32))

    def scale(self, loss: Tree, state: LossScale) -> Tree:
        """Multiplies a loss, or a tree of losses, by the scale.

        Losses of half precision become float32. Compute the loss itself in float32: the cotangent
        of a float16 loss overflows from a scale of 65536 on.
        """
        return multiplied(loss, self._checked("scale", state).loss_scale)

    def unscale(self, grads: Tree, state: LossScale) -> Tree:
        """Multiplies gradients by the scale's reciprocal; half precision becomes float32 first.

        The reciprocal of a power of two, as scales are by default, is exact.

        Args:
            grads: a tree of gradients of the scaled loss; leaves may be `RowSparse`.
            state: that `scale` had.

        Returns:
            The gradients of the loss. Those of half precision are float32 now: rounded back, small
            ones would be lost after all. `OptimizerDef.step` takes them as they are.
        """
        return multiplied(grads, 1 / self._checked("unscale", state).loss_scale)

    def update(self, state: LossScale, finite: Any) -> LossScale:
        """Move on by one step.

        Args:
            state: of this step.
            finite: scalar bool, whether its gradients were finite: `all_finite(grads)`.

        Returns:
            The state of the next step.
        """
        factor, least, most = (
            jnp.asarray(number, jnp.float32)
            for number in (self.scale_factor, self.min_scale, self.max_scale)
        )
        current = self._checked("update", state).next_loss_scale
        where = "DynamicLossScaler.update: finite must be a scalar bool such as all_finite(grads)"
        if not isinstance(finite, bool) and getattr(finite, "dtype", None) != np.bool_:
            given = getattr(finite, "dtype", type(finite).__name__)
            raise TypeError(f"{where}, got {given}.")
        if jnp.shape(finite) != ():
            raise ValueError(f"{where}, got shape {jnp.shape(finite)}.")
        unskipped = jnp.where(finite, state.unskipped + 1, 0)
        grown = unskipped >= self.scale_window
        following = jnp.where(grown, jnp.minimum(current * factor, most), current)
        following = jnp.where(finite, following, jnp.maximum(current / factor, least))
        return LossScale(current, following, jnp.where(grown, 0, unskipped))

    def _checked(self, call: str, state: Any) -> LossScale:
        if not isinstance(state, LossScale):
            raise TypeError(
                f"DynamicLossScaler.{call}: state must be a LossScale, from init() or update(), "
                f"got {type(state).__name__}."
            )
        return state
