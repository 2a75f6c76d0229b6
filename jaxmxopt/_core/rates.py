"""The numbers of an update: of one weight, and of all weights of a tree."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmxopt._core.numeric import is_zero

__all__ = ["Rates", "RatesOf", "TracedRates", "opened", "sealed"]

# From so many different multipliers on, their rates are computed as one vector.
FEW = 4


class Rates(NamedTuple):
    """The numbers of one update of one weight, multipliers and schedule already in them."""

    lr: Any
    wd: Any


class _KnownZero:
    """Stands for a Python 0.0 in what is passed to a compiled function: structure, no number."""

    def __repr__(self) -> str:
        return "0.0"


_ZERO = _KnownZero()
jax.tree_util.register_pytree_node(_KnownZero, lambda _: ((), None), lambda _, __: _ZERO)


def _is_sealed(node: Any) -> bool:
    return isinstance(node, _KnownZero)


def sealed(tree: Any) -> Any:
    """Return a pytree in which every Python 0.0 is structure; `opened` goes back.

    A compiled function then knows that a number is 0, and leaves out what the number multiplies.
    """
    return jax.tree.map(lambda leaf: _ZERO if is_zero(leaf) else leaf, tree)


def opened(tree: Any, zero: Any = 0.0) -> Any:
    """Return a pytree with Python's 0.0 where `sealed` has made it structure."""
    return jax.tree.map(lambda leaf: zero if _is_sealed(leaf) else leaf, tree, is_leaf=_is_sealed)


class RatesOf(Protocol):
    """The rates of the weights of a tree."""

    def of(self, members: Sequence[int], dtype: Any) -> tuple[Any, int | None]:
        """Return the sealed rates of some weights, and the axis along which they differ.

        Args:
            members: the numbers of weights of one dtype and shape.
            dtype: of their arithmetic.
        """
        ...


class TracedRates:
    """Rates computed from a traced count; equal multipliers share one computation.

    Args:
        multipliers: `(lr_mult, wd_mult)` of every weight.
        rates: gives the rates for two multipliers and a dtype.
    """

    def __init__(
        self,
        multipliers: Sequence[tuple[Any, Any]],
        rates: Callable[[Any, Any, Any], Any],
    ) -> None:
        self._multipliers = [sealed(both) for both in multipliers]
        self._rates = rates
        self._known: dict[Hashable, Any] = {}

    def of(self, members: Sequence[int], dtype: Any) -> tuple[Any, int | None]:
        """Return the sealed rates of some weights, and the axis along which they differ."""
        if dtype not in self._known:
            self._known[dtype] = self._made(dtype)
        rates = [self._known[dtype][_identity(self._multipliers[n])] for n in members]
        if all(rate is rates[0] for rate in rates):
            return rates[0], None
        if len({jax.tree.structure(rate) for rate in rates}) > 1:
            # Some decay and some do not.
            rates = [opened(rate, jnp.zeros((), dtype)) for rate in rates]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rates), 0

    def _made(self, dtype: Any) -> dict[Hashable, Any]:
        """Return the rates by the identities of what they are multiplied by."""

        def rates(lr_mult: Any, wd_mult: Any) -> Any:
            return sealed(self._rates(opened(lr_mult), opened(wd_mult), dtype))

        kinds: dict[Hashable, dict[Hashable, Any]] = {}
        for both in self._multipliers:
            kind = jax.tree.structure(both)
            kinds.setdefault(kind, {})[_identity(both)] = both
        made: dict[Hashable, Any] = {}
        for distinct in kinds.values():
            if len(distinct) <= FEW:
                made |= {key: rates(*both) for key, both in distinct.items()}
                continue
            # As one vector, of which a weight has an element: to compile the same arithmetic
            # for each takes longer than the rest of the step.
            columns = jax.tree.map(
                lambda *leaves: jnp.stack([jnp.asarray(leaf, dtype) for leaf in leaves]),
                *distinct.values(),
            )
            stacked = jax.vmap(rates)(*columns)
            for number, key in enumerate(distinct):
                made[key] = jax.tree.map(lambda column, n=number: column[n], stacked)
        return made


def _identity(multipliers: Any) -> Hashable:
    return tuple(leaf if isinstance(leaf, float) else id(leaf) for leaf in _leaves(multipliers))


def _leaves(multipliers: Any) -> list[Any]:
    return jax.tree.leaves(multipliers, is_leaf=_is_sealed)
