"""The elements of a small weight, some at a time in a loop.

XLA's CPU client counts the operations of a program, those of a loop once, and runs one of a
thousand or more in another thread. To wake that costs several times what a small update does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._in_place import apart
from jaxmxopt._one_kernel import operations

__all__ = ["LONGEST", "in_short_loop"]

# Elements of a weight for which another thread would be woken for nothing.
LONGEST = 8192
# What a step may count. XLA may compute twice what two results need, and there are numbers beside
# the loop.
MOST = 450
# Elements of a step: a kernel gets no faster with more.
WIDEST = 32


def in_short_loop(function: Callable[..., Any], weight: Any, *others: Any) -> Any:
    """Returns `function(weight, *others)`, computed for some elements after the other.

    Args:
        function: works element by element on the arrays of the shape of the weight, and gives a
            pytree of such. An array of another shape comes out as it does from any elements.
        weight: an array.
        *others: pytrees of arrays.
    """
    leaves, tree = jax.tree.flatten((weight, *others))
    program = jax.make_jaxpr(lambda *leaves: function(*tree.unflatten(leaves)))(*leaves)
    counted = sum(_is_on_many(one, weight.size) for one in operations(program.jaxpr))
    width = min(WIDEST, weight.size, max(MOST // max(counted, 1), 1))
    if width == weight.size:
        return function(weight, *others)
    has = [leaf.shape == weight.shape for leaf in leaves]

    @apart
    def changed(parts: list[Any]) -> Any:
        return function(*tree.unflatten(parts))

    def from_place(place: Any) -> list[Any]:
        return [
            lax.dynamic_slice_in_dim(leaf.reshape(-1), place, width) if h else leaf
            for leaf, h in zip(leaves, has, strict=True)
        ]

    some = jax.eval_shape(lambda: changed(from_place(0)))
    full = jax.tree.map(lambda part: part.shape == (width,), some)
    begun = jax.tree.map(
        lambda part, f: jnp.zeros(weight.size if f else part.shape, part.dtype), some, full
    )

    def step(number: jax.Array, now: Any) -> Any:
        # The last step begins earlier, where there are not so many left.
        place = jnp.minimum(number * width, weight.size - width)

        def put(whole: Any, new: Any, f: bool) -> Any:
            return lax.dynamic_update_slice_in_dim(whole, new, place, 0) if f else new

        return jax.tree.map(put, now, changed(from_place(place)), full)

    now = lax.fori_loop(0, -(-weight.size // width), step, begun)
    return jax.tree.map(lambda leaf, f: leaf.reshape(weight.shape) if f else leaf, now, full)


def _is_on_many(operation: Any, count: int) -> bool:
    """Whether an operation is on so many elements, not on a number for all."""
    return max(value.aval.size for value in operation.outvars) >= count
