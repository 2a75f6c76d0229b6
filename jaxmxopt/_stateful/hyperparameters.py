"""Hyperparameters of a definition as attributes of the optimizer around it."""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import nearest
from jaxmxopt._core.definition import Definition
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._wrappers.around import Around
from jaxmxopt._wrappers.groups import Groups

__all__ = [
    "COMMON",
    "Hyperparameter",
    "NotMade",
    "SignatureOfInit",
    "Undefined",
    "around",
    "check_new",
    "declared",
    "inside",
    "own_fields",
    "plain",
]

# The hyperparameters that every optimizer declares, beside `lr`.
COMMON = (
    *("lr_scheduler", "wd", "rescale_grad", "clip_gradient"),
    *("begin_num_update", "multi_precision"),
)
# Fields that an optimizer keeps in another form, or that hold further definitions.
_OTHERWISE = {
    *("learning_rate", "lr_mult", "wd_mult", "param_idx2name"),
    *("definition", "groups"),
}


class Undefined(OptimizerDef):
    """The definition of an optimizer that brings its own update: common hyperparameters alone."""


# Messages about its fields are about the stateful class.
Undefined.__name__ = "Optimizer"


def inside(definition: Definition) -> Iterator[Definition]:
    """Yield a definition and all definitions inside it, the outermost first."""
    yield definition
    if isinstance(definition, Around):
        yield from inside(definition.definition)
    elif isinstance(definition, Groups):
        for part in definition.groups.values():
            yield from inside(part)  # pyright: ignore[reportArgumentType]


class Hyperparameter:
    """An attribute of an optimizer that is a field of its definition.

    It reads as the outermost definition has it that has such a field, and is written to all.
    """

    def __init__(self, field: str) -> None:
        self.field = field
        self.__doc__ = f"`{field}` of the definition; counts from the next update on."

    def __get__(self, optimizer: Any, owner: type) -> Any:
        if optimizer is None:
            return self
        for part in optimizer._parts:
            if self.field in part.__dict__:
                return part.__dict__[self.field]
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self.field!r}")

    def __set__(self, optimizer: Any, value: Any) -> None:
        optimizer._write(self.field, plain(self.field, value))

    def __delete__(self, optimizer: Any) -> None:
        raise AttributeError(f"{type(optimizer).__name__}.{self.field} cannot be deleted.")


class NotMade:
    """Stands for an attribute that `__init__` makes, where `__init__` has not been called."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self._name!r}: super().__init__() must "
            "be called first."
        )


class SignatureOfInit:
    """The signature of a class whose `__new__` takes what `__init__` takes: that of `__init__`."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        signature = inspect.signature(owner.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def own_fields(kinds: tuple[type, ...]) -> list[str]:
    """Return the fields that definitions of these kinds have beside the common ones."""
    names = (field.name for kind in kinds for field in dataclasses.fields(kind))
    return [name for name in dict.fromkeys(names) if name not in {*COMMON, *_OTHERWISE}]


def declared(kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return what a class of optimizers around definitions of these kinds declares."""
    return {"_kinds": kinds, **{name: Hyperparameter(name) for name in own_fields(kinds)}}


@functools.cache
def around(cls: type, kinds: tuple[type, ...]) -> Any:
    """Return the class of optimizers like `cls` that declares the fields of these definitions.

    Args:
        cls: a class of optimizers that declares the common hyperparameters alone.
        kinds: the classes of a definition and of those inside it, as `inside` yields them.
    """
    about = {name: getattr(cls, name) for name in ("__doc__", "__module__", "__qualname__")}
    return type(cls)(cls.__name__, (cls,), {**about, **declared(kinds), "_made_of": (cls, kinds)})


def plain(name: str, value: Any) -> Any:
    """Return the number in an array of one element, as hyperparameters live on the host."""
    if not isinstance(value, (jax.Array, np.ndarray)):
        return value
    if isinstance(value, Tracer) or value.size != 1:
        raise TypeError(f"Optimizer: {name} must be a single known number, got {value}.")
    return float(value.reshape(()))


def check_new(optimizer: Any, name: str) -> None:
    """Check a new attribute, which might be meant for a hyperparameter and would do nothing.

    Raises:
        AttributeError: the definition has such a field, and the class does not declare it.

    Warns:
        UserWarning: it is called almost as a hyperparameter.
    """
    kind, held = type(optimizer), tuple(map(type, optimizer._parts))
    if hasattr(kind, name):
        return
    if held != (Undefined,) and name in own_fields(held):
        raise AttributeError(
            f"{kind.__name__}.{name} must be declared by the class: derive it from that of the "
            f"algorithm in jaxmxopt.optimizer, or make it with {kind.__name__}(definition)."
        )
    # Classes of users have attributes of their own.
    if not kind.__module__.startswith("jaxmxopt."):
        return
    if hint := nearest(name, [*own_fields(kind._kinds), *COMMON, "lr"], at_least=0.8):
        warn_caller(f"{kind.__name__}.{name} is no hyperparameter{hint}")
