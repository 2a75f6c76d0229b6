"""The states of definitions in flax's serialization, where flax is there."""

import functools
import sys
from typing import Any

from jaxmxopt._core.layout import Packed
from jaxmxopt._wrappers.groups import GroupSlots

__all__ = ["known_to_flax"]


def known_to_flax() -> None:
    """Lets `flax.serialization` take states apart, if flax has been imported.

    `to_bytes` of a `TrainState` keeps what lies under the paths of weights, and `from_bytes`
    refuses what lies under others.
    """
    serialization: Any = sys.modules.get("flax.serialization")
    if serialization is None:
        return
    for kind, parts, joined in _KINDS:
        if kind not in _known:
            _known.add(kind)
            to_dict = functools.partial(_to_dict, serialization, parts)
            from_dict = functools.partial(_from_dict, serialization, parts, joined)
            serialization.register_serialization_state(kind, to_dict, from_dict)


def _to_dict(serialization: Any, parts: Any, node: Any) -> dict[str, Any]:
    return {name: serialization.to_state_dict(part) for name, part in parts(node).items()}


def _from_dict(serialization: Any, parts: Any, joined: Any, node: Any, kept: dict[str, Any]) -> Any:
    own = parts(node)
    other = next((name for name in [*own, *kept] if name not in own or name not in kept), None)
    if other is not None:
        raise ValueError(
            f"the state must be of the weights that it is restored into, got another {other!r}."
        )
    restore = serialization.from_state_dict
    return joined(node, [restore(part, kept[name], name) for name, part in own.items()])


def _by_weight(packed: Packed) -> dict[str, Any]:
    names = packed.layout.names or range(packed.layout.size)
    return dict(zip(map(str, names), packed.unpack(), strict=True))


def _by_group(slots: GroupSlots) -> dict[str, Any]:
    return {str(number): state for number, state in enumerate(slots.states)}


_KINDS: tuple[Any, ...] = (
    (Packed, _by_weight, lambda packed, parts: packed.layout.pack(parts)),
    (GroupSlots, _by_group, lambda slots, parts: GroupSlots(tuple(parts), slots.members)),
)
_known: set[type] = set()
