"""Values as JSON, and arrays by name: the encoding of all structure in our files. No code.

==================================================  ============================================
None, a bool, a string, a number                    itself
an array                                            ``{"array": name, "dtype": ..., "shape": ...}``
a tuple or a list                                   ``{"tuple": [...]}``, ``{"list": [...]}``
a mapping                                           ``{"map": [[key, value], ...]}``
a definition, schedule, NamedTuple or `RowSparse`   ``{"class": name, "fields": {...}}``
a dataclass or other plain object of a state        ``{"object": [module, name], "fields": {...}}``
a function or other object among hyperparameters    ``{"opaque": name}``
==================================================  ============================================
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.config import Config, nearest
from jaxmxopt._core.definition import Definition
from jaxmxopt._core.schedules import LRScheduler
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._files.arrays import described, dtype_named
from jaxmxopt._files.objects import fields_of, made_of

__all__ = ["Decoder", "algorithm_name", "arrays_in", "class_name", "encode"]


def class_name(kind: type) -> str:
    """Names a class in files: ours without the module, so that they may move between modules."""
    ours = kind.__module__.split(".")[0] == "jaxmxopt"
    return kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def algorithm_name(opt: Definition) -> str:
    """Names an algorithm in files, with those inside: `"EMA(Adam)"`."""
    inside: list[Definition] = []
    for field in opt.__getstate__().values():
        parts = field.values() if isinstance(field, Mapping) else [field]
        inside += [part for part in parts if isinstance(part, Definition)]
    names = f"({', '.join(map(algorithm_name, inside))})" if inside else ""
    return class_name(type(opt)) + names


def encode(value: Any, name: str, arrays: dict[str, Any], *, hyperparameters: bool = False) -> Any:
    """Encode a value.

    Args:
        value: of the kinds above.
        name: of the value, with which the names of its arrays begin.
        arrays: gets the arrays, by name.
        hyperparameters: take any object, and NumPy's numbers as Python's.

    Raises:
        TypeError: the value holds something else.
        ValueError: two arrays have one name.
    """
    part = functools.partial(encode, arrays=arrays, hyperparameters=hyperparameters)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hyperparameters and isinstance(value, (int, float, str, np.generic)):
        plain = value.item() if isinstance(value, np.generic) else value
        return next(kind(plain) for kind in (bool, int, float, str) if isinstance(plain, kind))
    if isinstance(value, (jax.Array, np.ndarray, np.generic)) and not isinstance(value, Tracer):
        if name in arrays:
            raise ValueError(f"leaves must have different names, got two of {name!r}.")
        record = described(name, value)
        arrays[name] = value
        return record
    if (fields := _fields(value)) is not None:
        encoded = {key: part(field, f"{name}/{key}") for key, field in fields.items()}
        return {"class": class_name(type(value)), "fields": encoded}
    if isinstance(value, Mapping):
        keys = [key.item() if isinstance(key, np.generic) else key for key in value]
        pairs = zip(keys, value.values(), strict=True)
        return {"map": [[part(key, name), part(item, f"{name}/{key}")] for key, item in pairs]}
    if type(value) in (tuple, list):
        parts = [part(item, f"{name}/{number}") for number, item in enumerate(value)]
        return {type(value).__name__: parts}
    if not hyperparameters and (fields := fields_of(value)) is not None:
        encoded = {key: part(field, f"{name}/{key}") for key, field in fields.items()}
        return {"object": [type(value).__module__, type(value).__qualname__], "fields": encoded}
    if hyperparameters:
        kind: Any = value if hasattr(value, "__qualname__") else type(value)
        return {"opaque": f"{kind.__module__}.{kind.__qualname__}"}
    raise TypeError(
        f"{name!r} must be an array, a number or a string, or a tuple, list, dict or plain object "
        f"of such, got {type(value).__name__}."
    )


def _fields(value: Any) -> dict[str, Any] | None:
    """Return what an object is made of, None where it must stay one."""
    if isinstance(value, RowSparse):
        return {"indices": value.indices, "values": value.values, "shape": value.shape}
    if isinstance(value, LRScheduler) and not value._is_value:
        return None
    if isinstance(value, Config):
        return value.__getstate__()
    names = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    return None if names is None else dict(zip(names, value, strict=True))


def arrays_in(record: Any) -> Iterator[dict[str, Any]]:
    """Find the descriptions of all arrays in what was encoded."""
    if isinstance(record, list):
        for part in record:
            yield from arrays_in(part)
    elif isinstance(record, dict) and isinstance(record.get("array"), str):
        yield record
    elif isinstance(record, dict):
        yield from arrays_in(list(record.values()))


class Decoder:
    """The inverse of `encode`.

    Args:
        leaf: reads the array that a record describes.
        given: by field, what takes the place of an opaque value.
        classes: of plain objects, by module and name.

    Attributes:
        used: the fields that were given and had an opaque value.
    """

    def __init__(
        self,
        leaf: Callable[[Any], Any],
        given: Mapping[str, Any] | None = None,
        classes: Mapping[tuple[str, str], type] | None = None,
    ) -> None:
        self._leaf = leaf
        self._given = given or {}
        self._classes = classes or {}
        self.used: set[str] = set()

    def decode(self, record: Any, where: str, current: Any = None) -> Any:
        """Decode a value.

        Args:
            record: from a file.
            where: what the value is, for messages.
            current: the value now, which is kept where that of the file is opaque.

        Raises:
            ValueError: the record is not of this form, or a value has to be given again.
        """
        match record:
            case None | bool() | int() | float() | str():
                return record
            case {"array": str()}:
                return self._leaf(record)
            case {"array": values, "dtype": str(dtype)}:
                # Format version 1 has small arrays in the header.
                return _made(where, np.array, values, dtype_named(dtype))
            case {"tuple": list(parts)}:
                return tuple(self.decode(part, where) for part in parts)
            case {"list": list(parts)}:
                return [self.decode(part, where) for part in parts]
            case {"map": list(pairs)}:
                return dict(self._pair(pair, where, current) for pair in pairs)
            case {"class": str(name), "fields": dict(fields)}:
                return self._instance(name, fields, where, current)
            case {"object": [str(module), str(name)], "fields": dict(fields)}:
                kind = self._classes.get((module, name))
                if kind is None:
                    raise ValueError(
                        f"{where} is a {module}.{name}, which is not known beside the optimizer: "
                        "define the class in the optimizer's module."
                    )
                made = {f: self.decode(part, f"{where}.{f}") for f, part in fields.items()}
                return _made(where, made_of, kind, made)
            case {"opaque": str(what)} if current is None:
                raise ValueError(f"{where} was {what}, which a file cannot hold; give it again.")
            case {"opaque": str()}:
                return current
            case _:
                raise ValueError(f"is damaged: {where}.")

    def _pair(self, pair: Any, where: str, current: Any) -> tuple[Any, Any]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"is damaged: {where}.")
        key = self.decode(pair[0], where)
        try:
            hash(key)
        except TypeError:
            raise ValueError(f"is damaged: {where} has the key {key!r}.") from None
        beside = current.get(key) if isinstance(current, Mapping) else None
        return key, self.decode(pair[1], where, beside)

    def _instance(self, name: str, fields: dict[str, Any], where: str, current: Any) -> Any:
        opaque = {f for f, part in fields.items() if isinstance(part, dict) and "opaque" in part}
        values: dict[str, Any] = {f: self._given[f] for f in opaque.intersection(self._given)}
        self.used |= values.keys()
        if "lr_scheduler" in values:
            # The recorded rate would override that of the schedule.
            values["learning_rate"] = None
        for field in fields.keys() - values.keys():
            now = getattr(current, field, None)
            values[field] = self.decode(fields[field], f"{where}.{field}", now)
        values = {field: values[field] for field in fields}
        if name in self._configs:
            return _made(where, self._configs[name], **values)
        kind = self._tuples.get((name, tuple(values)))
        if kind is None and opaque and class_name(type(current)) == name:
            # It holds functions, which are the program's, as a transformation of optax does.
            return current
        if kind is None:
            hint = nearest(name, self._configs) or "."
            raise ValueError(f"{where} is a {name}, which is unknown here{hint}")
        return tuple.__new__(kind, values.values())

    # Classes that exist already: nothing is imported to find one.

    @functools.cached_property
    def _configs(self) -> dict[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {"RowSparse": RowSparse}
        ahead: list[type] = Config.__subclasses__()
        while ahead:
            kind = ahead.pop(0)
            found[class_name(kind)] = kind
            ahead += kind.__subclasses__()
        return found

    @functools.cached_property
    def _tuples(self) -> dict[tuple[str, tuple[str, ...]], Any]:
        kinds = [kind for kind in tuple.__subclasses__() if hasattr(kind, "_fields")]
        return {(class_name(kind), tuple(getattr(kind, "_fields"))): kind for kind in kinds}  # noqa: B009


def _made(where: str, make: Callable[..., Any], *args: Any, **fields: Any) -> Any:
    try:
        return make(*args, **fields)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where} cannot be made again: {error}") from None
