"""What the state of a tree says of its weights, whatever wrappers it has gone through."""

from typing import Any

from jaxmxopt._core.checks import check_names
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.state import State

__all__ = ["counts", "full_weights", "grouped", "masters"]


def _innermost(state: State) -> Any:
    """The slots inside of those of wrappers."""
    slots = state.slots
    while hasattr(slots, "inner"):
        slots = slots.inner
    return slots


def grouped(state: State) -> bool:
    """Whether the weights of a tree are in groups, which count for themselves."""
    return hasattr(_innermost(state), "parts")


def counts(params: Any, state: State) -> dict[str, Any]:
    """How often every weight of a tree has been updated, by path."""
    if not grouped(state):
        return dict.fromkeys(flatten_with_names(params)[0], state.num_update)
    found: dict[str, Any] = {}
    for part, part_state in _innermost(state).parts(params):
        found |= counts(part, part_state)
    return found


def masters(params: Any, state: State) -> dict[str, Any]:
    """The master of every weight of a tree that has one, by path."""
    names, _, _ = flatten_with_names(params)
    if isinstance(state.master, Packed):
        check_names(state.master, names)
        pairs = zip(names, state.master.unpack(), strict=True)
        return {name: master for name, master in pairs if master is not None}
    found: dict[str, Any] = {}
    for part, part_state in _innermost(state).parts(params) if grouped(state) else ():
        found |= masters(part, part_state)
    return found


def full_weights(params: Any, state: State) -> Any:
    """The tree of weights, of those that have a master the master."""
    names, weights, tree = flatten_with_names(params)
    known = masters(params, state)
    return tree.unflatten([known.get(n, w) for n, w in zip(names, weights, strict=True)])
