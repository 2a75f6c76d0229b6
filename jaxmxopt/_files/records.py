"""Definitions and schedules as JSON, and back: data, never code."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmxopt._core import schedules as schedules  # Defines classes that files name.
from jaxmxopt._core.config import Config, nearest
from jaxmxopt._core.pure import Definition
from jaxmxopt._files.npz import dtype_named
from jaxmxopt._files.zip import FileError

__all__ = ["algorithm_name", "class_name", "from_record", "to_record"]

# The fields of wrappers that hold definitions.
INSIDE = frozenset({"definition", "groups"})


def class_name(kind: type) -> str:
    """How files name a class: ours by the name alone, so that they may move between modules."""
    ours = kind.__module__.split(".")[0] == "jaxmxopt"
    return kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def algorithm_name(opt: Definition) -> str:
    """How files name an algorithm: with those inside, where it is around some."""
    inside: list[Definition] = []
    for field in opt.__getstate__().values():
        parts = field.values() if isinstance(field, Mapping) else [field]
        inside += [part for part in parts if isinstance(part, Definition)]
    names = f"({', '.join(map(algorithm_name, inside))})" if inside else ""
    return class_name(type(opt)) + names


def to_record(value: Any) -> Any:
    """Says a value in JSON.

    Numbers, strings, None, sequences, mappings, arrays and records of hyperparameters are said
    whole; of anything else, such as a function, only what it was.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, (jax.Array, np.ndarray)):
        host = np.asarray(value)
        return {"array": host.tolist(), "dtype": host.dtype.name}
    if isinstance(value, Config):
        if not getattr(value, "_is_value", True):
            # A schedule that is an object, as a function is.
            return _opaque(type(value))
        fields = {name: to_record(field) for name, field in value.__getstate__().items()}
        return {"class": class_name(type(value)), "fields": fields}
    if isinstance(value, Mapping):
        return {"map": [[to_record(key), to_record(value[key])] for key in value]}
    if type(value) in (tuple, list):
        return {type(value).__name__: [to_record(part) for part in value]}
    return _opaque(value if hasattr(value, "__qualname__") else type(value))


def _opaque(kind: Any) -> dict[str, str]:
    return {"opaque": f"{kind.__module__}.{kind.__qualname__}"}


def from_record(
    record: Any, where: str, current: Any = None, given: Mapping[str, Any] | None = None
) -> Any:
    """The inverse of `to_record`.

    Args:
        record: from a file.
        where: what it is, for messages.
        current: what stands there now; of it the parts that no file can hold are taken.
        given: fields of the outermost record that count instead of the file's. What a wrapper has
            no field for is for all definitions inside; or, if there are any whose own value a file
            could not hold, for those alone.

    Raises:
        FileError: the record is not of this form, or a value has to be given again.
    """
    if record is None or isinstance(record, (bool, int, float, str)):
        return record
    if isinstance(record, dict):
        match list(record.items()):
            case [("array", values), ("dtype", str(name))]:
                return _array(values, name, where)
            case [("class", str(name)), ("fields", dict(fields))]:
                return _config(name, fields, where, current, given or {})
            case [("map", list(pairs))]:
                return dict(_pair(pair, where, current, given) for pair in pairs)
            case [("tuple", list(parts))]:
                return tuple(from_record(part, where) for part in parts)
            case [("list", list(parts))]:
                return [from_record(part, where) for part in parts]
            case [("opaque", str(what))]:
                if current is not None:
                    return current
                raise FileError(f"{where} was {what}, which a file cannot hold; give it again.")
            case _:
                pass
    raise FileError(f"is damaged: {where}.")


def _array(values: Any, dtype: str, where: str) -> np.ndarray:
    try:
        return np.array(values, dtype_named(dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(f"is damaged: {where} ({error}).") from None


def _pair(pair: Any, where: str, current: Any, given: Mapping[str, Any] | None) -> tuple[Any, Any]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise FileError(f"is damaged: {where}.")
    key = from_record(pair[0], where)
    try:
        hash(key)
    except TypeError:
        raise FileError(f"is damaged: {where} has the key {key!r}.") from None
    beside = current.get(key) if isinstance(current, Mapping) else None
    return key, from_record(pair[1], where, beside, given)


class _Lacking(NamedTuple):
    """A hyperparameter that counts where a file could not hold it."""

    value: Any


def _is_opaque(record: Any) -> bool:
    return isinstance(record, dict) and "opaque" in record


def _lacks(record: Any, key: str) -> bool:
    """Whether a file could not hold this field of a definition, or of one inside."""
    parts = record.values() if isinstance(record, dict) else record
    if isinstance(record, dict) and _is_opaque(record.get(key)):
        return True
    return isinstance(record, (dict, list)) and any(_lacks(part, key) for part in parts)


def _config(
    name: str, fields: Mapping[str, Any], where: str, current: Any, given: Mapping[str, Any]
) -> Config:
    known = _classes(Config)
    if name not in known:
        raise FileError(f"{where} is a {name}, which is unknown here{nearest(name, known) or '.'}")
    inside = INSIDE.intersection(fields)
    own: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for key, value in given.items():
        if inside and key not in known[name]._described:
            # What some of them lack is not for the others.
            lacking = any(_lacks(fields[field], key) for field in inside)
            known_lacking = isinstance(value, _Lacking) or not lacking
            further[key] = value if known_lacking else _Lacking(value)
        elif not isinstance(value, _Lacking):
            own[key] = value
        elif _is_opaque(fields.get(key)):
            own[key] = value.value
    if "lr_scheduler" in own and "learning_rate" in fields:
        # The recorded rate would override the schedule's.
        own.setdefault("learning_rate", None)
    values = {
        field: from_record(
            record,
            f"{where}.{field}",
            getattr(current, field, None),
            further if field in inside else None,
        )
        for field, record in fields.items()
        if field not in own
    }
    try:
        return known[name](**values, **own)
    except (TypeError, ValueError, OverflowError) as error:
        raise FileError(f"{where} cannot be made again: {error}") from None


def _classes(base: type) -> dict[str, type]:
    """The subclasses by the names in files; nothing is imported to find them."""
    found: dict[str, type] = {}
    for kind in base.__subclasses__():
        found |= {class_name(kind): kind} | _classes(kind)
    return found
