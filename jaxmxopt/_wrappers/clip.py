"""Gradients limited in their norm over all weights."""

from collections.abc import Hashable
from typing import Any

import jax.numpy as jnp

from jaxmxopt._core.compiled import flatten_grads
from jaxmxopt._core.config import NonNegative
from jaxmxopt._core.gradients import clip_factors, multiplied
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.around import Around
from jaxmxopt._wrappers.tree import map_grads

__all__ = ["ClipGlobalNorm"]


class ClipGlobalNorm(Around):
    r"""Scales gradients down where their norm over all weights is above a limit.

    .. math:: g \leftarrow g \min\left(1, \frac{c}{\|g\| + 10^{-8}}\right)

    The norm is that of the gradients after `rescale_grad`, so the limit does not depend on the
    size of a batch or the scale of a loss. Under `update` it is the norm of the one gradient,
    within a group of `Groups` that of the group. Where an element is not finite, nothing is
    scaled: `where=jaxmxopt.amp.all_finite(grads)` skips such a step.

    Around `Accumulate` it limits every gradient, within `Accumulate` their average.

    Attributes:
        definition: what updates.
        max_norm: :math:`c`, 0 or more.

    There are no slots: states are those of the definition inside.

    References:
        Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks. 2013,
        arXiv:1211.5063.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt = mxopt.ClipGlobalNorm(mxopt.SGD(learning_rate=1.0), max_norm=1.0)
        >>> w = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
        >>> w, state = opt.step(w, {"a": jnp.array([3.0]), "b": jnp.array([4.0])}, opt.init(w))
        >>> print(w["a"], w["b"])
        [-0.6] [-0.8]
    """

    max_norm: NonNegative

    _joint = True

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        names, _, tree = flatten_with_names(params)
        scales = [self._rescaling(name if index is WHOLE else index) for name in names]
        factors, _ = clip_factors(flatten_grads(tree, names, grads), scales, self.max_norm)
        # A rule of ours multiplies by one number; the product may be too small for one.
        scaled = self._scaled_by(factors[0] * factors[1])
        if scaled is not None:
            # The gradients are read once for the norm and once for the update, and not written.
            return scaled._advance_inner(params, grads, state, ok, index)

        def clipped(grad: Any, scale: Any) -> Any:
            return multiplied(multiplied(grad, jnp.asarray(scale)), *factors)

        grads = map_grads(clipped, grads, tree.unflatten(scales))
        return self._unscaled()._advance_inner(params, grads, state, ok, index)
