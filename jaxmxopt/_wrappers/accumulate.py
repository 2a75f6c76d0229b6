"""Accumulation of gradients over several calls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.checks import check_pair
from jaxmxopt._core.config import Static
from jaxmxopt._core.definition import Maker
from jaxmxopt._core.engine import Given
from jaxmxopt._core.names import Tree
from jaxmxopt._core.numeric import compute_dtype, is_floating
from jaxmxopt._core.slots import Like
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State, wrapper_slots
from jaxmxopt._wrappers.around import Around

__all__ = ["Accumulate", "AccumulateSlots"]


@wrapper_slots(lambda slots: ("total",))
class AccumulateSlots(NamedTuple):
    """The gradients so far.

    Attributes:
        inner: the slots of the definition inside.
        total: the sum of the gradients since the last update, like the weights, in float32 at
            least.
        micro: int32 scalar, how many they are.
    """

    inner: Any
    total: Any
    micro: jax.Array


class Accumulate(Around):
    r"""Updates once in `every` calls, with the average of their gradients.

    .. math:: g = \frac{1}{k} \sum_{i=1}^{k} g_i

    The calls between return the weights as they are and do not count: `num_update` and schedules
    go by updates. A call with `where=False` leaves no trace. Gradients add up in float32, or the
    dtype of the weight where that is wider; a `RowSparse` is added to its rows, the update is
    dense. `rescale_grad` is applied to the average. A `Trainer` divides each gradient by the batch
    size and the loss scale of its own call.

    Attributes:
        definition: what updates.
        every: how many gradients make an update, at least 1; static.

    Slots: `total` like the weight, `micro` a count.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt = mxopt.Accumulate(mxopt.SGD(learning_rate=0.1), every=2)
        >>> w = jnp.array([1.0, 1.0])
        >>> state = opt.init(w)
        >>> for grad in (jnp.array([2.0, 0.0]), jnp.array([4.0, 2.0])):
        ...     w, state = opt.step(w, grad, state)
        ...     print(w, state.num_update)
        [1. 1.] 0
        [0.7 0.9] 1
    """

    every: Static[int]

    _slots_type = AccumulateSlots

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"Accumulate: every must be at least 1, got {self.every}.")

    def _own(self, tree: Tree, inner: State, maker: Maker) -> dict[str, Any]:
        del inner
        # A frozen leaf may be anything, and has no sum then.
        total = [
            maker.slot(Like(w.shape, compute_dtype(w.dtype)).zeros(), w) if is_floating(w) else None
            for w in tree.leaves
        ]
        micro = maker.slot(Like((), jnp.int32).zeros((), jnp.int32), None)
        return {"total": tree.like(total), "micro": micro}

    def _fields_per_weight(self, inner: State) -> tuple[str, ...]:
        del inner
        return ("total",)

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        inner, slots = self._inner(state), state.slots
        total = self._own_leaves(tree, slots, "total")
        pairs = zip(tree.names, tree.leaves, given.grads, total, strict=True)
        total = [_added(*pair, given.factors) for pair in pairs]
        micro = slots.micro + 1

        def update(weights: list[Any], inner: State, total: list[Any]) -> Any:
            # Not `every`, which may have been another when some of them were added.
            mean = [
                None if grad is None else leaf / micro.astype(leaf.dtype)
                for leaf, grad in zip(total, given.grads, strict=True)
            ]
            weights, inner = self.definition._advance(
                tree._replace(leaves=weights), inner, Given(mean, (), given.lenient)
            )
            return weights, inner, jax.tree.map(jnp.zeros_like, total)

        due = micro >= self.every
        weights, inner, total = lax.cond(due, update, lambda *same: same, tree.leaves, inner, total)
        own = {"total": tree.like(total), "micro": jnp.where(due, 0, micro)}
        return weights, self._outer(inner, **own)


def _added(name: Any, weight: Any, grad: Any, total: jax.Array, factors: Any) -> jax.Array:
    """Return the sum of the gradients of a weight, with one more in it."""
    if grad is None:
        return total
    check_pair(weight, grad, name)
    grad = grad.astype(total.dtype)
    for factor in factors:
        grad = grad * lax.convert_element_type(factor, grad.dtype)
    if isinstance(grad, RowSparse):
        rows = jnp.where(grad.indices < 0, grad.shape[0], grad.indices)
        return total.at[rows].add(grad.values, mode="drop")
    return total + grad
