"""Schedules as immutable values, or as the objects that programs written for MXNet make them."""

import typing
from dataclasses import FrozenInstanceError
from typing import Any, ClassVar

import jax
from jax.core import Tracer

from jaxmxopt._core.config import Config, is_declared

__all__ = ["ValueOrObject"]


class ValueOrObject:
    """Makes each subclass of a record a record too, or one of plain objects.

    A subclass that declares fields is a record of these as well, one that declares none and has no
    constructor of its own a record of the fields of its base. A constructor of its own makes plain
    objects: they may be written to, are equal to themselves alone and opaque to JAX, part of the
    structure without leaves.
    """

    _is_value: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if _declares_fields(cls):
            super().__init_subclass__(**kwargs)
            # Those of a frozen dataclass, which say too little.
            del cls.__setattr__, cls.__delattr__
            return
        cls._is_value = cls._is_value and "__init__" not in vars(cls)
        beyond: Any = super(Config, cls)  # pyright: ignore[reportArgumentType]
        beyond.__init_subclass__(**kwargs)
        tree: Any = cls
        if cls._is_value:
            jax.tree_util.register_pytree_with_keys(
                tree, tree._flatten_with_keys, tree._unflatten, tree._flatten
            )
        else:
            jax.tree_util.register_pytree_node(tree, lambda one: ((), one), lambda one, _: one)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_if_value(name, "assigned")
        if isinstance(value, Tracer):
            raise TypeError(
                f"{type(self).__name__}.{name} must be a known value, got a tracer: a scheduler "
                "that changes itself is for stateful optimizers."
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_if_value(name, "deleted")
        super().__delattr__(name)

    def _refuse_if_value(self, name: str, done: str) -> None:
        if not self._is_value:
            return
        what = f"{type(self).__name__}.{name} cannot be {done}"
        if name in getattr(self, "__dataclass_fields__", ()):
            hint = f"schedulers are immutable; replace({name}=...) gives another."
        else:
            hint = "schedulers are immutable; a subclass with an __init__ of its own is not."
        raise FrozenInstanceError(f"{what}: {hint}")

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) if self._is_value else self is other

    def __hash__(self) -> int:
        return super().__hash__() if self._is_value else object.__hash__(self)

    def __getstate__(self) -> Any:
        return super().__getstate__() if self._is_value else dict(self.__dict__)

    def __repr__(self) -> str:
        if self._is_value:
            return super().__repr__()
        return f"{type(self).__name__}(base_lr={getattr(self, 'base_lr', None)!r})"


def _declares_fields(cls: type) -> bool:
    """Whether a class annotates a number with its range, or something static."""
    own = vars(cls).get("__annotations__", {})
    if not own:
        return False
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError:
        # Names for type checkers alone; a range is there when the class is made.
        return False
    return any(is_declared(hints[name]) for name in own)
