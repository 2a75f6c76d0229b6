"""Immutable records of hyperparameters that are also pytrees.

Subclassing `Config` is enough: annotations say which fields are numbers (leaves, with
their range), which are static and which hold another record.
"""

import dataclasses
import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "Config",
    "DecayRate",
    "FrozenMap",
    "Interval",
    "Node",
    "NonNegative",
    "OrderedMap",
    "Positive",
    "Real",
    "Scalar",
    "Static",
    "UnitInterval",
    "as_number",
    "is_declared",
    "nearest",
]

Self = TypeVar("Self", bound="Config")
T = TypeVar("T")
Scalar = float | jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Interval:
    """A range of real numbers; `str()` gives it in mathematical notation."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        """True if a number lies inside; NaN never does."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        left = "(" if self.low_open or math.isinf(self.low) else "["
        right = ")" if self.high_open or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


class _Marker:
    """Annotation of a field that is not a number."""


_STATIC, _NODE = _Marker(), _Marker()

# A number, possibly an array or a tracer: a leaf of the pytree.
Real = Annotated[Scalar, Interval(low_open=True, high_open=True)]
NonNegative = Annotated[Scalar, Interval(low=0.0, high_open=True)]
Positive = Annotated[Scalar, Interval(low=0.0, low_open=True, high_open=True)]
DecayRate = Annotated[Scalar, Interval(low=0.0, high=1.0, high_open=True)]
UnitInterval = Annotated[Scalar, Interval(low=0.0, high=1.0)]
# Part of the structure: a new value compiles anew.
Static = Annotated[T, _STATIC]
# Another pytree, or an opaque hashable such as a function, which is then static.
Node = Annotated[T, _NODE]


# What other libraries call some hyperparameters.
SYNONYMS = {
    "lr": "learning_rate",
    "weight_decay": "wd",
    "eps": "epsilon",
    "betas": "beta1",
    "b1": "beta1",
    "b2": "beta2",
    "alpha": "gamma1",
    "schedule": "lr_scheduler",
    "grad_clip": "clip_gradient",
}


def nearest(name: str, known: Iterable[str], *, at_least: float = 0.5) -> str:
    """Return `"; did you mean 'x'?"` for the closest known name, or an empty string.

    `at_least` is how alike they must be, 1 for equal names.
    """
    known = [one for one in known if not one.startswith("_")]
    match = [SYNONYMS[name]] if SYNONYMS.get(name) in known else []
    match = match or [one for one in known if one.lower() == name.lower()]
    match = match or difflib.get_close_matches(name, known, n=1, cutoff=at_least)
    return f"; did you mean {match[0]!r}?" if match else ""


class FrozenMap(Mapping[Hashable, Any]):
    """An immutable mapping, hashable by value, equal to a like dict."""

    def __init__(self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, key: Hashable) -> Any:
        return self._items[key]

    def __iter__(self) -> typing.Iterator[Hashable]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


class OrderedMap(FrozenMap):
    """A `FrozenMap` whose order counts: its keys are tried one after the other."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return list(self.items()) == list(other.items())

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))


class _Opaque:
    """A value that is not a pytree of ours, kept in the structure."""

    def __init__(self, value: Hashable) -> None:
        self.value = value


jax.tree_util.register_pytree_node(
    _Opaque, lambda node: ((), node.value), lambda value, _: _Opaque(value)
)


@dataclasses.dataclass(frozen=True)
class _Field:
    """The annotation of one field, read."""

    interval: Interval | None
    optional: bool
    static: bool
    kind: type | None = None
    choices: tuple[str, ...] = ()


def _described(annotation: Any) -> _Field:
    metadata = list(getattr(annotation, "__metadata__", ()))
    optional = False
    # `NonNegative | None` is a union around the annotated number.
    for part in typing.get_args(annotation):
        metadata.extend(getattr(part, "__metadata__", ()))
        optional = optional or part is types.NoneType
    interval = next((m for m in metadata if isinstance(m, Interval)), None)
    static = any(m is _STATIC for m in metadata)
    origin = getattr(annotation, "__origin__", None)
    if typing.get_origin(origin) is typing.Literal:
        return _Field(interval, optional, static, str, typing.get_args(origin))
    return _Field(interval, optional, static, origin if origin in (bool, int, str) else None)


def is_declared(annotation: Any) -> bool:
    """True if an annotation says that its field is a number, static or another record."""
    parts = (annotation, *typing.get_args(annotation))
    marks = [mark for part in parts for mark in getattr(part, "__metadata__", ())]
    return any(isinstance(mark, (Interval, _Marker)) for mark in marks)


def _of_kind(owner: str, name: str, value: Any, kind: type) -> Any:
    """Check one static value; NumPy's become Python's."""
    if kind is int and isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if kind is bool and isinstance(value, (bool, np.bool_)):
        return bool(value)
    if kind is str and isinstance(value, str):
        return value
    raise TypeError(f"{owner}: {name} must be of type {kind.__name__}, got {value!r}.")


def _number(owner: str, name: str, value: Any, field: _Field) -> Any:
    """Check one number; Python and NumPy numbers become floats.

    Arrays of NumPy are looked at. Those of a device and tracers pass, if they are real: to look
    would be to wait for them.
    """
    interval = field.interval
    if field.kind is not None:
        value = _of_kind(owner, name, value, field.kind)
        if field.choices and value not in field.choices:
            raise ValueError(
                f"{owner}: {name} must be one of {', '.join(map(repr, field.choices))}, "
                f"got {value!r}{nearest(value, field.choices) or '.'}"
            )
        if interval is not None and value not in interval:
            raise ValueError(f"{owner}: {name} must be in {interval}, got {value!r}.")
        return value
    if interval is None or (value is None and field.optional):
        return value
    if isinstance(value, (jax.Array, np.ndarray)):
        floating = jnp.issubdtype(value.dtype, jnp.floating)
        if not floating and not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{owner}: {name} must be a real number, got dtype {value.dtype}.")
        for extreme in (np.min, np.max) if isinstance(value, np.ndarray) and value.size else ():
            if (found := float(extreme(value))) not in interval:
                raise ValueError(f"{owner}: {name} must be in {interval}, got {found!r}.")
        if not floating:
            return jnp.asarray(value, jnp.result_type(float))
        # The caller may write to an array of NumPy.
        return np.array(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or _is_real_scalar(value)):
        raise TypeError(f"{owner}: {name} must be a real number, got {value!r}.")
    number = float(cast(Any, value))
    if number not in interval:
        raise ValueError(f"{owner}: {name} must be in {interval}, got {value!r}.")
    return number


def _is_real_scalar(value: Any) -> bool:
    """True if a value is a real number of NumPy or of its guests, such as bfloat16."""
    kinds = jnp.integer, jnp.floating
    return isinstance(value, np.generic) and any(jnp.issubdtype(value.dtype, k) for k in kinds)


def as_number(owner: str, name: str, value: Any, kind: Any) -> Any:
    """Check one number that is no field, `kind` being what a field would be annotated with."""
    return _number(owner, name, value, _described(kind))


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,)
)
class Config:
    """Base of immutable keyword-only records that are pytrees.

    Numbers are checked when a record is made by hand, arrays on a device and tracers by their
    dtype alone, and left alone when JAX rebuilds it from leaves, which may then be tracers, arrays
    or placeholders.
    """

    _described: typing.ClassVar[Mapping[str, _Field]] = {}
    _leaf_names: typing.ClassVar[tuple[str, ...]] = ()
    _static_names: typing.ClassVar[tuple[str, ...]] = ()
    # False for a class whose objects are opaque to JAX: part of the structure, without leaves.
    _is_value: typing.ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in vars(cls).items():
            if name.startswith("_") or name in vars(cls).get("__annotations__", {}):
                continue
            if any(name in vars(base).get("__annotations__", {}) for base in cls.__mro__[1:]) and (
                name not in cls._described
            ):
                # A base has declared it a class variable.
                continue
            kinds = (types.FunctionType, property, classmethod, staticmethod, type)
            if not isinstance(value, (*kinds, functools.cached_property)):
                raise TypeError(f"{cls.__name__}.{name} needs an annotation to be a field.")
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)(cls)
        if "__init__" in vars(cls):
            # What `help` shows: the types without the ranges.
            cls.__init__.__annotations__ = typing.get_type_hints(cls.__init__) | {"return": None}
            cls.__init__ = _suggesting(cls.__init__)
        hints = typing.get_type_hints(cls, include_extras=True)
        names = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
        for name in set(vars(cls).get("__annotations__", {})).intersection(names):
            if not is_declared(hints[name]):
                raise TypeError(
                    f"{cls.__name__}.{name} must be annotated with a range of numbers, such as "
                    f"Real or NonNegative, or with Static[...], got {hints[name]!r}."
                )
        cls._described = types.MappingProxyType({name: _described(hints[name]) for name in names})
        cls._static_names = tuple(name for name in names if cls._described[name].static)
        cls._leaf_names = tuple(name for name in names if not cls._described[name].static)
        jax.tree_util.register_pytree_with_keys(
            cls, cls._flatten_with_keys, cls._unflatten, cls._flatten
        )

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name, field in self._described.items():
            value = getattr(self, name)
            checked = _number(owner, name, value, field)
            if checked is not value:
                object.__setattr__(self, name, checked)

    def _child(self, name: str) -> Any:
        value = self.__dict__[name]
        described = self._described[name]
        if described.interval is None and not isinstance(
            value, (Config, FrozenMap, types.NoneType)
        ):
            return _Opaque(value)
        return value

    def _flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children = tuple(self._child(name) for name in self._leaf_names)
        return children, tuple(self.__dict__[name] for name in self._static_names)

    def _flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, static = self._flatten()
        keys = (jax.tree_util.GetAttrKey(name) for name in self._leaf_names)
        return tuple(zip(keys, children, strict=True)), static

    @classmethod
    def _unflatten(cls, static: tuple[Any, ...], children: Iterable[Any]) -> Any:
        self = object.__new__(cls)
        for name, child in zip(cls._leaf_names, children, strict=True):
            self.__dict__[name] = child.value if type(child) is _Opaque else child
        self.__dict__.update(zip(cls._static_names, static, strict=True))
        return self

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self._described}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, structure = jax.tree_util.tree_flatten(self)
        theirs, other_structure = jax.tree_util.tree_flatten(other)
        return structure == other_structure and all(
            np.shape(a) == np.shape(b) and bool(np.all(a == b))
            for a, b in zip(mine, theirs, strict=True)
        )

    def __hash__(self) -> int:
        leaves, structure = jax.tree_util.tree_flatten(self)
        return hash((type(self), tuple(leaves), structure))

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={self.__dict__[field.name]!r}"
            for field in dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
            if not _same(self.__dict__[field.name], field.default)
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _same(value: Any, default: Any) -> bool:
    related = isinstance(value, type(default)) or isinstance(default, type(value))
    return related and not isinstance(value, (jax.Array, np.ndarray)) and value == default


def _suggesting(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that an unknown keyword names the nearest known one."""
    kinds = [parameter.kind for parameter in inspect.signature(init).parameters.values()]
    most = sum(kind == inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds) - 1
    most = math.inf if inspect.Parameter.VAR_POSITIONAL in kinds else most

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        known = list(type(self).__dataclass_fields__)
        if len(args) > most:
            first = next(field.name for field in dataclasses.fields(self) if field.kw_only)
            raise TypeError(
                f"{type(self).__name__}() takes hyperparameters by name, such as {first}=..., "
                f"got {args[-1]!r} without one."
            )
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {name!r}"
                    f"{nearest(name, known)}"
                )
        init(self, *args, **kwargs)

    return __init__
