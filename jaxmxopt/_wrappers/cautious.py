"""Steps that go with the gradient alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.engine import Given
from jaxmxopt._core.names import Tree
from jaxmxopt._core.slots import Like, keeps_average
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.around import Around

__all__ = ["Cautious"]

# A weight that every algorithm takes.
_ANY = Like((2, 2), jnp.float32)


class Cautious(Around):
    r"""Leaves out the elements of a step that go against the gradient (Liang et al., 2024).

    With the step :math:`u` of a weight with :math:`n` elements, as the algorithm inside has it:

    .. math:: w = w - u\, \phi \frac{n}{1 + \sum \phi}, \quad \phi = [u\, g > 0]

    For algorithms with momentum, in which the step may still go where the gradient no longer does.
    The step is the whole change of a weight, decay included; the authors leave decoupled decay out
    of :math:`\phi`. An element without a gradient does not move, and a `RowSparse` gradient acts as
    the dense one it stands for.

    Attributes:
        definition: what updates: an algorithm, or a wrapper of some.

    There are no slots: states are those of the definition inside. About 6 operations a parameter.

    References:
        Liang, Chen, Liu, Liu: Cautious optimizers: improving training with one line of code. 2024,
        arXiv:2411.16085. Compared with `pytorch_optimizer.Lion` with `cautious`.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxmxopt as mxopt
        >>> opt, w = mxopt.Cautious(mxopt.Lion(learning_rate=0.1)), jnp.array([1.0, 1.0, 1.0])
        >>> state = opt.init(w)
        >>> for grad in (jnp.array([1.0, 1.0, 1.0]), jnp.array([1.0, -1e-3, 1.0])):
        ...     w, state = opt.step(w, grad, state)
        >>> print(np.asarray(w).round(4))
        [0.825 0.925 0.825]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for one in self._inside():
            if not isinstance(one, OptimizerDef) and one._reads_gradients:
                raise TypeError(
                    "Cautious: definition must be made of algorithms such as jaxmxopt.Lion(), got "
                    f"{type(one).__name__}."
                )
            if isinstance(one, OptimizerDef) and keeps_average(one.slots(_ANY)):
                raise TypeError(
                    "Cautious: definition must keep no average of its weights, got "
                    f"{type(one).__name__}, whose average is made of whole steps."
                )

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        inner = self.definition._map(lambda one, _: _cautious(one))
        return inner._advance(tree, state, given)


def _cautious(one: Any) -> Any:
    """Return an algorithm whose rule leaves out what goes against the gradient."""
    if not isinstance(one, OptimizerDef):
        return one
    cautious = object.__new__(_kind(type(one)))
    cautious.__dict__.update(one.__getstate__())
    return cautious


@functools.cache
def _kind(algorithm: type[OptimizerDef]) -> type[OptimizerDef]:
    """Return a subclass of an algorithm."""

    def rule(self: Any, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any:
        new, slots = algorithm.rule(self, rates, weight, grad, slots)
        step = new - weight
        # NaN is no reason to stay: it shows in the weight, as without Cautious.
        along = 1 - (step * (self.rescale_grad * grad) >= 0).astype(step.dtype)
        return weight + step * along * (float(weight.size) / (jnp.sum(along) + 1)), slots

    # The sum is over the whole weight. A subclass leaves the meaning of names to the algorithm.
    own = {"rule": rule, "acts_on": "whole", "__module__": __name__}
    return type(f"_Cautious{algorithm.__name__}", (algorithm,), own)
