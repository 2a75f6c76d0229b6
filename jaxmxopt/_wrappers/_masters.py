"""The masters in the state of a tree, whatever wrappers it has gone through."""

from typing import Any

from jaxmxopt._compiled import flatten_with_names
from jaxmxopt._layout import Packed
from jaxmxopt._state import State

__all__ = ["full_weights", "masters"]


def masters(params: Any, state: State) -> dict[str, Any]:
    """The master of every weight of a tree that has one, by path."""
    names, weights, _ = flatten_with_names(params)
    if isinstance(state.master, Packed):
        pairs = zip(names, state.master.unpack(weights), strict=True)
        return {name: master for name, master in pairs if master is not None}
    slots = state.slots
    while hasattr(slots, "inner"):
        slots = slots.inner
    found: dict[str, Any] = {}
    for part, part_state in getattr(slots, "parts", lambda _: ())(params):
        found |= masters(part, part_state)
    return found


def full_weights(params: Any, state: State) -> Any:
    """The tree of weights, of those that have a master the master."""
    names, weights, tree = flatten_with_names(params)
    known = masters(params, state)
    return tree.unflatten([known.get(n, w) for n, w in zip(names, weights, strict=True)])
