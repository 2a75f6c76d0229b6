"""States from a file, brought to the weights of a Trainer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._core.definition import HALF
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._core.state import MasterState
from jaxmxopt._stateful.optimizer import Optimizer

__all__ = ["checked", "in_their_places", "paths_by_number", "rename"]


def paths_by_number(
    call: str,
    states: Mapping[Any, Any],
    paths: Sequence[str],
    weights: Sequence[Any],
    names: Sequence[str] | None,
) -> dict[Any, str]:
    """The paths of the weights that a file of MXNet's has numbers for.

    Args:
        call: for errors.
        states: from the file, by index.
        paths: of the weights.
        weights: in the same order.
        names: what the numbers mean, if somebody has said it.
    """
    known = sorted(index for index in states if isinstance(index, int))
    if names is not None:
        return _named(call, known, paths, list(names))
    nested = any("/" in path or path.isdigit() for path in paths)
    if known and nested and len({weight.shape for weight in weights}) < len(weights):
        warn_caller(
            f"{call}: the file has numbers, which go by the order of the leaves of params: "
            "weights of one shape may get each other's states. names= says gluon's order."
        )
    if len(known) == len(paths):
        # Weights that do not learn have numbers too, but no states.
        return dict(zip(known, paths, strict=True))
    return {index: paths[index] for index in known if 0 <= index < len(paths)}


def _named(
    call: str, known: Sequence[int], paths: Sequence[str], names: Sequence[str]
) -> dict[Any, str]:
    if not known:
        raise ValueError(f"{call}: names must be left out, as the file has names itself.")
    for path in paths:
        if (count := names.count(path)) != 1:
            raise ValueError(
                f"{call}: names must hold every weight once, got {path!r} {count} times."
            )
    return {number: name for number, name in enumerate(names) if name in paths}


def in_their_places(
    call: str, states: Mapping[Any, Any], current: Mapping[str, Any], *, whole: bool
) -> dict[str, Any]:
    """The states in the order of those of now, which stay where a file has none.

    Raises:
        ValueError: not all of the file has its place; or, in a file of ours and where the state is
            that of the whole tree, something is missing.
    """
    missing = next((name for name in current if name not in states), None)
    # In MXNet's files those that do not learn are missing, and weights have numbers.
    ours = all(name in current for name in states)
    if missing is not None and (whole or (states and ours)):
        raise ValueError(f"{call}: the file must hold all states, got none of {missing!r}.")
    further = [index for index in states if index not in current]
    if further:
        without = "" if missing is None else f", and none of {missing!r}"
        raise ValueError(
            f"{call}: the file must be of these weights, {len(current)} in number, got states of "
            f"{len(further)} more, the first {further[0]!r}{without}."
        )
    return {name: states.get(name, kept) for name, kept in current.items()}


def checked(call: str, name: str, weight: Any, state: Any, current: Any) -> Any:
    """Refuses a state from a file that is of another weight."""
    if isinstance(state, MasterState) and weight.dtype not in HALF:
        raise ValueError(
            f"{call}: the state of {name!r} must be without a master, as its weight is of "
            f"{weight.dtype}, got one with a master."
        )
    if isinstance(current, MasterState) and not isinstance(state, MasterState):
        slots = jax.tree.leaves(state)
        if any(slot.dtype == current.master.dtype for slot in slots if slot.shape):
            raise ValueError(
                f"{call}: the state of {name!r} must be of {weight.dtype} or with a master, "
                f"got {current.master.dtype} without."
            )
    given, expected = (jax.tree.map(jnp.shape, tree) for tree in (state, current))
    if jax.tree.structure(state) == jax.tree.structure(current) and given != expected:
        raise ValueError(f"{call}: the state of {name!r} must have shapes {expected}, got {given}.")
    return state


def rename(optimizer: Optimizer, names: Mapping[Any, str]) -> None:
    """Gives the weights of an optimizer other indices."""

    def renamed(table: Mapping[Any, Any]) -> dict[Any, Any]:
        return {names.get(index, index): value for index, value in table.items()}

    counts, current = optimizer._all_index_update_counts, optimizer._index_update_count
    device = next((device for device, table in counts.items() if table is current), 0)
    optimizer._all_index_update_counts = {d: renamed(table) for d, table in counts.items()}
    optimizer._set_current_context(device)
    optimizer.idx2name = renamed(optimizer.idx2name)
    optimizer.lr_mult, optimizer.wd_mult = renamed(optimizer.lr_mult), renamed(optimizer.wd_mult)
