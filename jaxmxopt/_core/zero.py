"""A zero known before compiling: what it multiplies is never read."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["ZERO", "Zero", "as_arrays", "called", "without_zero_decay", "zero_or"]


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

    __pos__ = __neg__
    __abs__ = __neg__

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return -other

    def __rsub__(self, other: Any) -> Any:
        return other

    def __rtruediv__(self, other: Any) -> Any:
        return jnp.divide(other, 0.0)

    def __pow__(self, other: Any) -> Any:
        return self if isinstance(other, int | float) and other > 0 else 0.0**other

    def __rpow__(self, other: Any) -> Any:
        return other**0.0

    # Compared, it is the number.

    def __float__(self) -> float:
        return 0.0

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> Any:
        return True if isinstance(other, Zero) else other == 0.0

    def __ne__(self, other: object) -> Any:
        return False if isinstance(other, Zero) else other != 0.0

    def __lt__(self, other: Any) -> Any:
        return other > 0.0

    def __le__(self, other: Any) -> Any:
        return other >= 0.0

    def __gt__(self, other: Any) -> Any:
        return other < 0.0

    def __ge__(self, other: Any) -> Any:
        return other <= 0.0

    def __hash__(self) -> int:
        return hash(0.0)

    def __repr__(self) -> str:
        return "ZERO"


ZERO = Zero()
jax.tree_util.register_pytree_node(Zero, lambda _: ((), None), lambda _, __: ZERO)


def zero_or(number: Any) -> Any:
    """Returns `ZERO` for a Python 0.0, anything else as it is."""
    return ZERO if type(number) is float and number == 0.0 else number


def without_zero_decay(rates: Any) -> Any:
    """Returns rates with `ZERO` for a decay that is a Python 0.0."""
    wd = getattr(rates, "wd", None)
    if type(wd) is float and wd == 0.0 and hasattr(rates, "_replace"):
        return rates._replace(wd=ZERO)
    return rates


def called(rule: Callable[..., Any], rates: Any, dtype: Any, *arrays: Any) -> Any:
    """Calls a rule, with 0 as an array where it does more with `ZERO` than arithmetic."""
    try:
        return rule(rates, *arrays)
    except TypeError:
        numbers = as_arrays(rates, dtype)
        if jax.tree.structure(numbers) == jax.tree.structure(rates):
            raise
    return rule(numbers, *arrays)


def as_arrays(tree: Any, dtype: Any) -> Any:
    """Returns a pytree in which 0 stands as an array where `ZERO` did."""
    is_zero = lambda node: isinstance(node, Zero)  # noqa: E731
    return jax.tree.map(
        lambda leaf: jnp.zeros((), dtype) if is_zero(leaf) else leaf, tree, is_leaf=is_zero
    )
