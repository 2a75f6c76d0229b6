"""The weights to evaluate with, read from a state."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._core.layout import Packed
from jaxmxopt._core.names import flatten_with_names
from jaxmxopt._core.numeric import compute_dtype, is_floating
from jaxmxopt._core.slots import keeps_average
from jaxmxopt._core.state import GroupSlots, MasterState, State, is_wrapper
from jaxmxopt._wrappers.ema import EMASlots

__all__ = ["averaged"]


class _Found(NamedTuple):
    """The average of one weight: its shape, and what makes it of the weight."""

    shape: tuple[int, ...]
    of: Callable[[Any], Any]


def averaged(params: Any, state: State | Mapping[str, Any]) -> Any:
    """Return the weights to evaluate with, wherever in the definition their average stands.

    An `EMA` keeps an average, and so do the schedule-free algorithms; of two the outer counts.

    Args:
        params: the tree of weights that the state is of, or the one weight.
        state: of a definition with an average in it. Or `Trainer.states`.

    Returns:
        A tree like `params`, in the dtypes of the weights. Weights that have not been updated, or
        are of a group without an average, are those given.

    Raises:
        ValueError: the definition keeps no average, or the state is of other weights.
        TypeError: `state` is not a state.
    """
    names, weights, tree = flatten_with_names(params)
    found: dict[str, _Found] = {}
    whole = _collect_by_name(state, found) if isinstance(state, Mapping) else _of_one(state, found)
    if not found:
        raise ValueError(
            "averaged: state must be of a definition with an EMA or of a schedule-free one, got "
            "one without an average."
        )
    given = dict(zip(names, weights, strict=True))
    averaging = [name for name, weight in given.items() if is_floating(jnp.asarray(weight))]
    for name in [*found, *(averaging if whole else ())]:
        if (name in found) != (name in given):
            which = "no weight" if name in found else "no average"
            raise ValueError(f"averaged: params must be what state is of, got {which} at {name!r}.")
    for name, average in found.items():
        if jnp.shape(given[name]) != average.shape:
            raise ValueError(
                f"averaged: params must be what state is of, got shape {jnp.shape(given[name])} at "
                f"{name!r}, expected {average.shape}."
            )
    return tree.unflatten([found[n].of(given[n]) if n in found else given[n] for n in names])


def _of_one(state: Any, found: dict[str, _Found]) -> bool:
    if isinstance(state, MasterState):
        return _collect(state.slots, state.master, found)
    if keeps_average(state):
        return _collect(state, None, found)
    if not isinstance(state, State):
        raise TypeError(f"averaged: state must be a State, got {type(state).__name__}.")
    return _collect(state.slots, state.master, found)


def _collect_by_name(states: Mapping[str, Any], found: dict[str, _Found]) -> bool:
    """`_collect` for states by path, of which one of a whole tree is under the empty one."""
    whole = True
    for name, state in states.items():
        inside: dict[str, _Found] = {}
        whole = _of_one(state, inside) and whole
        found.update({"/".join(filter(None, (name, path))): inside[path] for path in inside})
    return whole


def _collect(slots: Any, master: Any, found: dict[str, _Found]) -> bool:
    """Find the average of every weight that has one, by path.

    Returns:
        True if weights that are not found are not of this state.
    """
    while is_wrapper(slots):
        if isinstance(slots, EMASlots):
            names, leaves, _ = flatten_with_names(slots.average)
            masses = dict(zip(*flatten_with_names(slots.mass)[:2], strict=True))
            # One for all has no name.
            one = masses.get("")
            for name, average in zip(names, leaves, strict=True):
                mass = masses[name] if one is None else one
                found[name] = _Found(average.shape, partial(_of_ema, average, mass))
            return True
        slots = slots.inner
    if isinstance(slots, GroupSlots):
        for part in slots.states:
            _collect(part.slots, part.master, found)
        return False
    kept: list[tuple[str, Any, Any]] = [("", slots, master)]
    if isinstance(slots, Packed):
        parts = zip(slots.layout.names or (), slots.unpack(), master.unpack(), strict=True)
        kept = list(parts)
    for name, own, full in kept:
        if keeps_average(own):
            shape = max((leaf.shape for leaf in jax.tree.leaves(own)), key=len)
            found[name] = _Found(shape, partial(_of_slots, own, full))
    return bool(found)


def _of_ema(average: jax.Array, mass: jax.Array, weight: Any) -> Any:
    mass = mass.astype(average.dtype)
    known = average / jnp.where(mass > 0, mass, 1)
    return jnp.where(mass > 0, known.astype(jnp.result_type(weight)), weight)


def _of_slots(slots: Any, master: Any, weight: Any) -> Any:
    full = weight if master is None else master
    slots, full = jax.tree.map(
        lambda leaf: leaf.astype(compute_dtype(leaf.dtype)), (slots, jnp.asarray(full))
    )
    return slots.averaged(full).astype(jnp.result_type(weight))
