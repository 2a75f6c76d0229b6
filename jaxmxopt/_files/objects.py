"""Plain objects of arrays, such as the state that a custom optimizer keeps of a weight.

A file holds their attributes and the name of their class. Of a name no class is imported, and no
constructor or method runs: a class must be one that the program holds beside the optimizer.
"""

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

__all__ = ["classes_beside", "fields_of", "made_of", "map_arrays", "opened"]

_DEFAULTS = ("__reduce__", "__reduce_ex__", "__getstate__")


def fields_of(value: Any) -> dict[str, Any] | None:
    """Return the attributes that a plain object is made of, None for other values.

    An object of a class that pickles itself in its own way is no plain one.
    """
    kind = type(value)
    plain = kind.__module__ != "builtins" and not callable(value)
    if not plain or any(getattr(kind, name) is not getattr(object, name) for name in _DEFAULTS):
        return None
    try:
        state: Any = value.__getstate__()
    except TypeError:
        return None
    parts: tuple[Any, ...] = state if isinstance(state, tuple) else (state,)
    return {name: field for part in parts for name, field in (part or {}).items()}


def made_of(kind: type, fields: Mapping[str, Any]) -> Any:
    """Return an object of a class with these attributes; none of its methods runs."""
    made = object.__new__(kind)
    for name, field in fields.items():
        slot = inspect.getattr_static(kind, name, None)
        if isinstance(slot, types.MemberDescriptorType):
            slot.__set__(made, field)
        else:
            vars(made)[name] = field
    return made


def map_arrays(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree with a function of every leaf, also inside of plain objects."""

    def mapped(leaf: Any) -> Any:
        if hasattr(leaf, "dtype") or (fields := fields_of(leaf)) is None:
            return function(leaf)
        return made_of(type(leaf), {name: map_arrays(function, x) for name, x in fields.items()})

    return jax.tree.map(mapped, tree)


def opened(tree: Any) -> Any:
    """Return a tree with a dict of its attributes in the place of every plain object."""

    def replaced(leaf: Any) -> Any:
        fields = None if hasattr(leaf, "dtype") else fields_of(leaf)
        return leaf if fields is None else {name: opened(field) for name, field in fields.items()}

    return jax.tree.map(replaced, tree)


def classes_beside(owner: type, states: Iterable[Any]) -> dict[tuple[str, str], type]:
    """Return the classes of plain objects that states may be of, by module and qualified name.

    Args:
        owner: the class of the optimizer. What its bases and their modules hold counts, as far as
            it is of the same package; a class that does something when its objects go does not.
        states: whose own classes count.
    """
    held: list[Any] = []
    for base in owner.__mro__:
        module = sys.modules.get(base.__module__)
        package = base.__module__.partition(".")[0]
        if module is None or package in ("builtins", "jaxmxopt"):
            continue
        near = [*vars(module).values(), *vars(base).values()]
        held += [one for one in near if isinstance(one, type) and _package(one) == package]
    ahead = list(states)
    while ahead:
        state = ahead.pop()
        fields = None if hasattr(state, "dtype") else fields_of(state)
        if isinstance(state, (tuple, list)):
            ahead += state
        elif isinstance(state, Mapping):
            ahead += state.values()
        elif fields is not None:
            held.append(type(state))
            ahead += fields.values()
    return {(one.__module__, one.__qualname__): one for one in held if not hasattr(one, "__del__")}


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
