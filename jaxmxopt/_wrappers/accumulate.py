"""Accumulation of gradients over several calls."""

from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.config import Static
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.around import Around, unpacked
from jaxmxopt._wrappers.tree import map_grads

__all__ = ["Accumulate", "AccumulateSlots"]


@exportable
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

    per_weight = ("total",)

    def unpacked(self, state: State, params: Any) -> Any:
        """What `State.unpack` gives."""
        return unpacked(state, params)


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

    def _own(self, params: Any, inner: State) -> dict[str, Any]:
        del inner
        return {
            "total": jax.tree.map(_zeros, params),
            "micro": jnp.zeros((), jnp.int32),
        }

    def _scaled_by(self, factor: Any) -> None:
        # Each gradient has a factor of its own.
        del factor
        return None

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        total, micro = map_grads(_added, grads, state.slots.total), state.slots.micro + 1
        if ok is not None:
            total = jax.tree.map(lambda new, old: jnp.where(ok, new, old), total, state.slots.total)
            micro = jnp.where(ok, micro, state.slots.micro)

        def update(params: Any, inner: State, total: Any) -> Any:
            # Not `every`, which may have been another when some of them were added.
            mean = jax.tree.map(lambda leaf: leaf / micro.astype(leaf.dtype), total)
            params, inner = self._advance_inner(params, mean, inner, None, index)
            return params, inner, jax.tree.map(jnp.zeros_like, total)

        due = micro >= self.every
        params, inner, total = lax.cond(
            due, update, lambda *same: same, params, self._inner(state), total
        )
        return params, self._outer(inner, total=total, micro=jnp.where(due, 0, micro))


def _zeros(weight: Any) -> jax.Array:
    weight = jnp.asarray(weight)
    return jnp.zeros_like(weight, compute_dtype(weight.dtype))


def _added(grad: Any, total: jax.Array) -> jax.Array:
    grad = grad.astype(total.dtype)
    if isinstance(grad, RowSparse):
        rows = jnp.where(grad.indices < 0, grad.shape[0], grad.indices)
        return total.at[rows].add(grad.values, mode="drop")
    return total + grad
