"""The elements of small weights, some at a time in a loop.

XLA's CPU client counts the operations of a program, those of a loop once, and runs one of a
thousand or more in another thread. To wake that costs several times what a small update does.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.by_element import cost_by_element, on_parts
from jaxmxopt._core.in_place import apart
from jaxmxopt._core.one_kernel import NoKernelError

__all__ = ["LONGEST", "Loop", "in_short_loops"]

# Operations on single elements, for more of which another thread is worth being woken.
LONGEST = 1 << 17
# What the loops of a program may count: XLA may compute twice what two results need, and there are
# numbers beside the loops.
MOST = 550
# Elements of a step, the first that MOST allows. More are no faster, and take longer to compile; of
# four LLVM fuses other products with sums than in long loops.
WIDTHS = (8, 2, 1)


class Loop(NamedTuple):
    """What is computed for some elements after the other.

    Attributes:
        function: gives what is like its first argument, shapes and dtypes too.
        old: this argument, a pytree of arrays of which the first has the elements.
        others: the other arguments, pytrees of arrays.
    """

    function: Callable[..., Any]
    old: Any
    others: tuple[Any, ...]


def in_short_loops(loops: Sequence[Loop], in_place: bool) -> list[Any]:
    """Returns `function(old, *others)` of each.

    Args:
        loops: of one program.
        in_place: whether the results are written over the old ones.

    Raises:
        NoKernelError: an element of what a function gives depends on more than the elements at its
            place and on numbers, or there is so much to do that threads do it faster.
    """
    traced: list[_Traced] = []
    cost = work = 0
    widths = WIDTHS
    for loop in loops:
        traced.append(_Traced(loop))
        cost, work = cost + traced[-1].cost, work + traced[-1].cost * traced[-1].size
        # Of what does not fill a step each element is one of its own.
        widths = [width for width in widths if cost * (width + 1) <= MOST]
        if not widths or work > LONGEST:
            raise NoKernelError(f"{cost} operations on {traced[-1].size} elements are too many.")
    return [each.run(widths[0], in_place) for each in traced]


class _Traced:
    """A loop, and the program of its function."""

    def __init__(self, loop: Loop) -> None:
        leaves, tree = jax.tree.flatten((loop.old, loop.others))
        old = jax.tree.leaves(loop.old)

        def program(*leaves: Any) -> Any:
            old, others = tree.unflatten(leaves)
            return loop.function(old, *others)

        self._loop, self._leaves, self._old = loop, leaves, old
        self._program = jax.make_jaxpr(program)(*leaves)
        self.size = old[0].size
        self.cost = 1 + cost_by_element(self._program, old[0].shape)

    def run(self, width: int, in_place: bool) -> Any:
        """The results, computed for so many elements at once."""
        size, count, shape = self.size, len(self._old), self._old[0].shape
        has = [leaf.shape == shape != () for leaf in self._leaves]
        flat = [one.reshape(-1) if h else one for one, h in zip(self._leaves, has, strict=True)]
        # Otherwise what two results need is computed twice.
        computed = apart(lambda parts: on_parts(self._program, parts, jnp.size(parts[0])))

        def in_steps(now: list[Any], begin: int, width: int) -> list[Any]:
            def step(number: jax.Array, now: list[Any]) -> list[Any]:
                place = begin + number * width
                read = [*now, *flat[count:]] if in_place else flat
                parts = [
                    lax.dynamic_slice_in_dim(one, place, width) if h else number
                    for one, number, h in zip(read, flat, has, strict=True)
                ]
                put = lax.dynamic_update_slice_in_dim
                results = zip(now, computed(parts), has, strict=False)
                return [put(one, part, place, 0) if h else part for one, part, h in results]

            return lax.fori_loop(0, (size - begin) // width, step, now)

        if size <= width:
            now = computed(flat)
        else:
            now = flat[:count] if in_place else list(map(jnp.zeros_like, flat[:count]))
            now = in_steps(now, 0, width)
        if size > width and size % width:
            now = in_steps(now, size - size % width, 1)
        shaped = [one.reshape(leaf.shape) for one, leaf in zip(now, self._old, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self._loop.old), shaped)
