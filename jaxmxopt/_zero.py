"""A zero known before compiling: what it multiplies is never read."""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["ZERO", "Zero", "as_arrays", "zero_or"]


class Zero:
    """The number 0 as structure: arithmetic with it leaves no trace in the compiled program.

    XLA must keep `0 * weight`, which is NaN for an infinite weight, and so reads the weight.
    A rule multiplies and adds as ever; where its decay is this zero, nothing is left of it.
    """

    def __mul__(self, other: Any) -> "Zero":
        return self

    __rmul__ = __mul__
    __truediv__ = __mul__

    def __neg__(self) -> "Zero":
        return self

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return -other

    def __rsub__(self, other: Any) -> Any:
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Zero)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ZERO"


ZERO = Zero()
jax.tree_util.register_pytree_node(Zero, lambda _: ((), None), lambda _, __: ZERO)


def zero_or(number: Any) -> Any:
    """Returns `ZERO` for a Python 0.0, anything else as it is."""
    return ZERO if type(number) is float and number == 0.0 else number


def as_arrays(tree: Any, dtype: Any) -> Any:
    """Returns a pytree in which 0 stands as an array where `ZERO` did."""
    is_zero = lambda node: isinstance(node, Zero)  # noqa: E731
    return jax.tree.map(
        lambda leaf: jnp.zeros((), dtype) if is_zero(leaf) else leaf, tree, is_leaf=is_zero
    )
