"""Names by which `jax.export` keeps the classes of states: exported training steps hold them."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from jax import export

__all__ = ["exportable", "exportable_node"]

Kind = TypeVar("Kind", bound=type)

_NAMES: set[str] = set()


def exportable(kind: Kind) -> Kind:
    """Register a NamedTuple; a decorator. Twice does no harm."""
    name = _name(kind)
    # A class made again, as in a notebook, leaves the name with the first.
    if name not in _NAMES:
        _NAMES.add(name)
        export.register_namedtuple_serialization(kind, serialized_name=name)
    return kind


def exportable_node(
    kind: type,
    to_plain: Callable[[Any], Any] = lambda structure: structure,
    from_plain: Callable[[Any], Any] = lambda plain: plain,
) -> None:
    """Register a pytree node.

    Args:
        kind: its class.
        to_plain: makes nested tuples of numbers, strings and None of the node's structure.
        from_plain: the inverse.
    """
    export.register_pytree_node_serialization(
        kind,
        serialized_name=_name(kind),
        serialize_auxdata=lambda structure: json.dumps(to_plain(structure)).encode(),
        deserialize_auxdata=lambda data: from_plain(_tuples(json.loads(data))),
    )


def _name(kind: type) -> str:
    # Without the module, where it is ours: exported programs outlive moves.
    package = kind.__module__.split(".")[0]
    return f"{package if package == 'jaxmxopt' else kind.__module__}.{kind.__qualname__}"


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
