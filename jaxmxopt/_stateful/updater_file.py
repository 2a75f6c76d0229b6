"""What of a stateful optimizer and its states goes into a file, and both made again from one."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.paths import path_name
from jaxmxopt._files.npz import Reader
from jaxmxopt._files.records import algorithm_name, class_name, from_record, to_record
from jaxmxopt._files.structures import put_together, taken_apart
from jaxmxopt._files.tree_file import contents
from jaxmxopt._files.zip import FileError
from jaxmxopt._stateful.hyperparameters import Undefined
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.tree_optimizer import TreeOptimizer

__all__ = ["Restored", "restored", "updater_contents"]

# Made anew, given by the program, or said elsewhere in the header.
_LEFT_OUT = {
    *("_plan", "param_dict", "_algorithm", "_own_rates", "_decays"),
    *("num_update", "_all_index_update_counts", "_index_update_count"),
}


class Restored(NamedTuple):
    """What an Updater goes on with."""

    optimizer: Optimizer
    states: dict[Any, Any]
    more: Any


def updater_contents(
    optimizer: Optimizer, states: Mapping[Any, Any], dump_optimizer: bool, more: Any = None
) -> tuple[dict[str, Any], Any]:
    """Takes an optimizer and its states apart for `_npz.write`.

    Args:
        optimizer: its algorithm and counts are always told.
        states: by index.
        dump_optimizer: whether to tell its hyperparameters, multipliers and schedule too.
        more: what else is to be kept: arrays, numbers and strings in containers.

    Returns:
        The header and the arrays.
    """
    leaves: dict[str, Any] = {}
    records = [
        [to_record(index), taken_apart(states[index], str(index), leaves)] for index in states
    ]
    header: dict[str, Any] = {
        "kind": "updater",
        "algorithm": _algorithm(optimizer),
        "definition": None,
        "optimizer": None,
        "counts": to_record(_counts(optimizer)),
        "states": records,
        "more": taken_apart(more, "more", leaves),
    }
    if dump_optimizer:
        has_definition = type(optimizer._algorithm) is not Undefined
        header["definition"] = to_record(optimizer.definition) if has_definition else None
        attributes = {name: to_record(value) for name, value in _attributes(optimizer).items()}
        header["optimizer"] = {"class": class_name(type(optimizer)), "attributes": attributes}
    tail, arrays = contents(leaves, None)
    return tail | header, arrays


def _algorithm(optimizer: Optimizer) -> str:
    if isinstance(optimizer, TreeOptimizer):
        return algorithm_name(optimizer.definition)
    if type(optimizer._algorithm) is Undefined:
        return class_name(type(optimizer))
    return algorithm_name(optimizer._algorithm)


def _attributes(optimizer: Optimizer) -> dict[str, Any]:
    """All that a program may have set, an algorithm's own numbers among it."""
    return {name: value for name, value in vars(optimizer).items() if name not in _LEFT_OUT}


def _counts(optimizer: Optimizer) -> dict[str, Any]:
    return {
        "num_update": optimizer.num_update,
        "by_device": optimizer._all_index_update_counts,
    }


def restored(reader: Reader, optimizer: Optimizer, current: Mapping[Any, Any]) -> Restored:
    """What an Updater with this optimizer goes on with.

    Args:
        reader: of the file.
        optimizer: of the algorithm that the file is of. It is not changed: a copy takes over
            what the file says.
        current: states by index that those of the file stand in for, as far as there are any.

    Raises:
        FileError: the file is of something else, or says what cannot be.
    """
    header = reader.header
    if header.get("kind") != "updater":
        raise FileError("must be of an Updater or a Trainer, got a tree; see checkpoint.load.")
    if header.get("algorithm") != _algorithm(optimizer):
        raise FileError(f"must be of {_algorithm(optimizer)}, got {header.get('algorithm')}.")
    made = copy.copy(optimizer)
    made.param_dict = optimizer.param_dict
    if header.get("optimizer") is not None:
        _take_over(made, header["optimizer"])
    _take_counts(made, from_record(header.get("counts"), "counts"))
    records = header.get("states")
    if not isinstance(records, list):
        raise FileError("is damaged: states.")
    states: dict[Any, Any] = {}
    for record in records:
        if not isinstance(record, list) or len(record) != 2:
            raise FileError("is damaged: states.")
        index = from_record(record[0], "an index")
        states[index] = put_together(record[1], lambda name: _leaf(reader, name))
        if index in current:
            _check_like(index, states[index], current[index])
    return Restored(made, states, put_together(header.get("more"), lambda n: _leaf(reader, n)))


def _check_like(index: Any, state: Any, current: Any) -> None:
    """Refuses a state of another weight; other slots of the same algorithm are none."""
    if jax.tree.structure(state) != jax.tree.structure(current):
        return
    new, old = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (state, current))
    for (path, leaf), (_, wanted) in zip(new, old, strict=True):
        for what in ("dtype", "shape"):
            given, needed = getattr(leaf, what, None), getattr(wanted, what, None)
            if given != needed:
                name = "/".join(filter(None, (str(index), path_name(path))))
                raise FileError(f"{name!r} must have {what} {needed}, got {given}.")


def _take_over(made: Optimizer, record: Any) -> None:
    """Sets the attributes of an optimizer to what a file says."""
    match record:
        case {"class": str(), "attributes": dict(attributes)}:
            pass
        case _:
            raise FileError("is damaged: optimizer.")
    current = _attributes(made)
    for name, said in attributes.items():
        if name not in current:
            raise FileError(f"says {name!r} of the optimizer, which has no such attribute.")
        value = from_record(said, f"the optimizer.{name}", current[name])
        if isinstance(value, dict) != isinstance(current[name], dict):
            raise FileError(f"is damaged: the optimizer.{name}.")
        try:
            setattr(made, name, value)
        except (TypeError, ValueError) as error:
            raise FileError(f"says what cannot be: {error}") from None


def _take_counts(made: Optimizer, counts: Any) -> None:
    match counts:
        case {"num_update": int(num_update), "by_device": dict(by_device)}:
            pass
        case _:
            raise FileError("is damaged: counts.")
    merged: dict[Any, int] = {}
    for device, table in by_device.items():
        if type(device) is not int or not isinstance(table, dict):
            raise FileError("is damaged: counts.")
        for index, count in table.items():
            if type(count) is not int:
                raise FileError("is damaged: counts.")
            merged[index] = max(count, merged.get(index, count))
    # A weight may go on on another device, where its count is to go on too.
    devices = {*by_device, *(device.id for device in jax.local_devices())}
    made.num_update = num_update
    made._all_index_update_counts = {
        device: {**merged, **by_device.get(device, {})} for device in sorted(devices)
    }
    made._set_current_context(0)


def _leaf(reader: Reader, name: str) -> Any:
    """A leaf of a state, which comes to the devices of its weight when it is used."""
    values, keys = reader.mapping("values"), reader.mapping("keys")
    if name in values:
        return values[name]
    if name not in reader.arrays:
        raise FileError(f"is damaged: {name!r} is missing.")
    host = reader.array(name)
    if name in keys:
        return _random_key(host, keys[name])
    kept = jax.dtypes.canonicalize_dtype(host.dtype) == host.dtype
    return jnp.asarray(host) if kept else np.array(host)


def _random_key(host: np.ndarray, impl: Any) -> Any:
    try:
        return jax.random.wrap_key_data(jnp.asarray(host), impl=impl)
    except (TypeError, ValueError) as error:
        raise FileError(f"holds random keys that cannot be made again: {error}") from None
