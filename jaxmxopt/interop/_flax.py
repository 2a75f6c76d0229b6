"""The states of definitions in flax's serialization, where flax is there."""

import functools
import sys
from typing import Any

import jax

from jaxmxopt._layout import Packed
from jaxmxopt._wrappers._groups import GroupSlots

__all__ = ["known_to_flax"]

_NODES = (Packed, GroupSlots)
_known: set[type] = set()


def known_to_flax() -> None:
    """Lets `flax.serialization` take states apart, if flax has been imported.

    `to_bytes` of a `TrainState` keeps what lies under the paths of weights, and `from_bytes`
    refuses what lies under others.
    """
    serialization: Any = sys.modules.get("flax.serialization")
    if serialization is None:
        return
    for kind in _NODES:
        if kind not in _known:
            _known.add(kind)
            serialization.register_serialization_state(
                kind,
                functools.partial(_to_dict, serialization.to_state_dict),
                functools.partial(_from_dict, serialization.from_state_dict),
            )


def _to_dict(to_state_dict: Any, node: Any) -> dict[str, Any]:
    return {name: to_state_dict(part) for name, part in _parts(node).items()}


def _from_dict(from_state_dict: Any, node: Any, kept: dict[str, Any]) -> Any:
    parts = _parts(node)
    if parts.keys() != kept.keys():
        other = next(name for name in [*parts, *kept] if name not in parts or name not in kept)
        raise ValueError(
            f"the state must be of the weights that it is restored into, got another {other!r}."
        )
    made = tuple(from_state_dict(part, kept[name], name) for name, part in parts.items())
    return type(node).tree_unflatten(node.tree_flatten()[1], made)


def _parts(node: Any) -> dict[str, Any]:
    keyed, _ = node.tree_flatten_with_keys()
    return {jax.tree_util.keystr((key,), simple=True): part for key, part in keyed}
