"""Gradients limited in their norm over all weights."""

import math
from typing import Any

from jaxmxopt._core.checks import check_pair
from jaxmxopt._core.config import NonNegative
from jaxmxopt._core.engine import Given
from jaxmxopt._core.gradients import clip_factors
from jaxmxopt._core.names import Tree
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.around import Around

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

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        grads: list[Any] = []
        scales: list[Any] = []
        for name, weight, grad in zip(tree.names, tree.leaves, given.grads, strict=True):
            if grad is not None:
                (algorithm,) = self.definition._for(name, weight.shape)[0]._inside()
                check_pair(weight, grad, name if tree.whole else None)
                grads.append(grad)
                scales.append(math.prod(given.factors, start=algorithm.rescale_grad))
        factors, _ = clip_factors(grads, scales, self.max_norm)
        # The gradients are read once for the norm and once for the update, and not written.
        given = given._replace(factors=(*given.factors, *factors))
        return self._advance_inner(tree, state, given)
