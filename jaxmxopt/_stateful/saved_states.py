"""Files of an optimizer and its states: what `get_states` and `save_states` give and take back."""

import copy
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxmxopt._core import __version__
from jaxmxopt._core.names import path_name
from jaxmxopt._core.numeric import widens
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._files import archive
from jaxmxopt._files.arrays import on_host
from jaxmxopt._files.codec import Decoder, algorithm_name, class_name, encode
from jaxmxopt._files.files import naming
from jaxmxopt._files.objects import classes_beside, opened
from jaxmxopt._mxnet.states import read_states
from jaxmxopt._stateful.hyperparameters import COMMON, Undefined, own_fields
from jaxmxopt._stateful.mxnet_optimizers import restored as restored_from_mxnet
from jaxmxopt._stateful.optimizer import Optimizer

__all__ = ["Restored", "adopted", "dumped", "loaded", "restored", "updater_contents", "widened"]

_ZIP = b"PK\x03\x04"
# Made anew, given by the program, or said elsewhere in the header.
_LEFT_OUT = {
    *("_prepared", "_parts", "param_dict", "_definition", "_decays", "_unnamed"),
    *("_rate", "_lr_mult", "_wd_mult"),
    *("_largest", "_all_index_update_counts", "_index_update_count"),
}


class Restored(NamedTuple):
    """An optimizer and states that an Updater goes on with."""

    optimizer: Optimizer
    states: dict[Any, Any]
    more: Any


def dumped(
    call: str,
    optimizer: Optimizer,
    states: Mapping[Any, Any],
    dump_optimizer: bool,
    more: Any = None,
) -> bytes:
    """Return our own file of an optimizer, its states by index, and more; for errors in `call`."""
    file = io.BytesIO()
    with naming(call):
        archive.write(file, *updater_contents(optimizer, states, dump_optimizer, more))
    return file.getvalue()


def loaded(call: str, data: Any, optimizer: Optimizer, states: Mapping[Any, Any]) -> Restored:
    """Read a file, ours or MXNet's; nothing given here is changed.

    Args:
        call: for errors.
        data: the bytes.
        optimizer: of the algorithm that the file must be of.
        states: by index, which those of the file must be like.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{call}: states must be bytes, got {type(data).__name__}.")
    data = bytes(data)
    with naming(call):
        if data.startswith(_ZIP):
            return restored(archive.Reader(io.BytesIO(data)), optimizer, states)
        return Restored(*restored_from_mxnet(read_states(data), optimizer), None)


def adopted(current: Optimizer, made: Optimizer) -> Optimizer:
    """Return the optimizer to go on with: where it can be, the one that programs hold."""
    if made is current or type(made) is not type(current):
        return made
    vars(current).clear()
    vars(current).update(vars(made))
    return current


def updater_contents(
    optimizer: Optimizer, states: Mapping[Any, Any], dump_optimizer: bool, more: Any = None
) -> tuple[dict[str, Any], Any]:
    """Take an optimizer and its states apart for `archive.write`.

    Args:
        optimizer: its algorithm and counts are always told.
        states: by index.
        dump_optimizer: tell its hyperparameters, multipliers and schedule too.
        more: what else is to be kept: arrays, numbers and strings in containers.

    Returns:
        The header and the arrays.
    """
    arrays: dict[str, Any] = {}
    by_device = optimizer._all_index_update_counts
    counts = {"num_update": optimizer.num_update, "by_device": by_device}
    header: dict[str, Any] = {
        "kind": "updater",
        "writer": f"jaxmxopt {__version__}",
        "algorithm": _algorithm(optimizer),
        "definition": None,
        "optimizer": None,
        "counts": encode(counts, "counts", arrays, hyperparameters=True),
        "states": encode(dict(states), "states", arrays),
        "more": encode(more, "more", arrays),
        "schedule": encode(_remembered(optimizer.lr_scheduler), "schedule", arrays),
    }
    if dump_optimizer:
        definition = None if _is_undefined(optimizer) else optimizer.definition
        attributes = _attributes(optimizer).items()
        header["definition"] = encode(definition, "definition", arrays, hyperparameters=True)
        header["optimizer"] = {
            "class": class_name(type(optimizer)),
            "attributes": {name: encode(value, f"optimizer/{name}", arrays, hyperparameters=True)
                           for name, value in attributes},
        }  # fmt: skip
    return header, on_host(arrays)


def _is_undefined(optimizer: Optimizer) -> bool:
    return type(optimizer._definition) is Undefined


def _algorithm(optimizer: Optimizer) -> str:
    own = _is_undefined(optimizer)
    return class_name(type(optimizer)) if own else algorithm_name(optimizer._definition)


def _attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Return all that a program may have set, an algorithm's own numbers among it."""
    held = {name: value for name, value in vars(optimizer).items() if name not in _LEFT_OUT}
    if not optimizer._is_algorithm:
        # The definition says it, as the hyperparameters of a wrapper are those inside.
        return {"_wrapped": optimizer._definition, **held}
    names = ["lr", *COMMON, "lr_mult", "wd_mult", *own_fields(optimizer._kinds)]
    return {**{name: getattr(optimizer, name) for name in names}, **held}


def restored(reader: archive.Reader, optimizer: Optimizer, current: Mapping[Any, Any]) -> Restored:
    """Read what an Updater with this optimizer goes on with.

    Args:
        reader: of the file.
        optimizer: of the algorithm that the file is of. It is not changed: a copy takes over
            what the file says.
        current: states by index that those of the file stand in for, as far as there are any.

    Raises:
        ValueError: the file is of something else, or says what cannot be.
    """
    header, decode = reader.header, Decoder(reader.leaf).decode
    if header.get("kind") != "updater":
        raise ValueError("must be of an Updater or a Trainer, got a tree; see checkpoint.load.")
    if header.get("algorithm") != _algorithm(optimizer):
        raise ValueError(f"must be of {_algorithm(optimizer)}, got {header.get('algorithm')}.")
    made = copy.copy(optimizer)
    made.param_dict = optimizer.param_dict
    if header.get("optimizer") is not None:
        _take_over(made, header["optimizer"], decode)
    _take_counts(made, decode(header.get("counts"), "counts"))
    _look_at_schedule(optimizer, decode(header.get("schedule"), "schedule"))
    classes = classes_beside(type(optimizer), current.values())
    states = Decoder(reader.leaf, classes=classes).decode(header.get("states"), "states")
    if not isinstance(states, dict):
        raise ValueError("is damaged: states.")
    for index in states.keys() & current.keys():
        states[index] = _like(index, states[index], current[index])
    return Restored(made, states, decode(header.get("more"), "more"))


def _remembered(scheduler: Any) -> dict[str, Any]:
    """Return the numbers that an object which is a schedule keeps itself."""
    if scheduler is None or getattr(scheduler, "_is_value", False):
        return {}
    kept = getattr(scheduler, "__dict__", {})
    return {name: kept[name] for name in kept if type(kept[name]) in (bool, int, float, str)}


def _look_at_schedule(optimizer: Optimizer, told: Any) -> None:
    """Warn of what the schedule of now remembers otherwise than that of the file did."""
    now = _remembered(optimizer.lr_scheduler)
    then = told if isinstance(told, dict) else {}
    others = [
        f"lr_scheduler.{name} is {then[name]!r} in the file and stays {now[name]!r} here"
        for name in now
        if name in then and then[name] != now[name]
    ]
    if others:
        warn_caller(
            f"{', '.join(others)}: a file sets nothing of a "
            f"{type(optimizer.lr_scheduler).__name__}; set it where its rates depend on it."
        )


def _like(index: Any, state: Any, current: Any) -> Any:
    """Return a state, its slots in half precision widened where they are float32 now.

    Raises:
        ValueError: the shapes or dtypes are those of another weight.
    """
    if jax.tree.structure(opened(state)) != jax.tree.structure(opened(current)):
        return state
    state = widened(state, current)
    new, old = (
        jax.tree_util.tree_flatten_with_path(tree)[0] for tree in map(opened, (state, current))
    )
    for (path, leaf), (_, wanted) in zip(new, old, strict=True):
        for what in ("dtype", "shape"):
            given, needed = getattr(leaf, what, None), getattr(wanted, what, None)
            if given != needed:
                name = "/".join(filter(None, (str(index), path_name(path))))
                raise ValueError(f"{name!r} must have {what} {needed}, got {given}.")
    return state


def widened(state: Any, like: Any) -> Any:
    """Return a state, its slots in half precision widened where they are float32 in `like`."""
    if jax.tree.structure(opened(state)) != jax.tree.structure(opened(like)):
        return state
    return jax.tree.map(
        lambda leaf, wanted: (
            leaf.astype(wanted.dtype)
            if hasattr(leaf, "dtype") and widens(leaf.dtype, getattr(wanted, "dtype", None))
            else leaf
        ),
        state,
        like,
    )


def _take_over(made: Optimizer, record: Any, decode: Any) -> None:
    """Set the attributes of an optimizer to what a file says."""
    match record:
        case {"class": str(), "attributes": dict(attributes)}:
            pass
        case _:
            raise ValueError("is damaged: optimizer.")
    current = _attributes(made)
    for name, said in attributes.items():
        if name not in current:
            raise ValueError(f"says {name!r} of the optimizer, which has no such attribute.")
        value = decode(said, f"the optimizer.{name}", current[name])
        if isinstance(value, dict) != isinstance(current[name], dict):
            raise ValueError(f"is damaged: the optimizer.{name}.")
        try:
            if name == "_wrapped":
                made._adopt(value)
            else:
                setattr(made, name, value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"says what cannot be: {error}") from None


def _take_counts(made: Optimizer, counts: Any) -> None:
    match counts:
        case {"num_update": int(num_update), "by_device": dict(by_device)}:
            pass
        case _:
            raise ValueError("is damaged: counts.")
    merged: dict[Any, int] = {}
    for device, table in by_device.items():
        if type(device) is not int or not isinstance(table, dict):
            raise ValueError("is damaged: counts.")
        for index, count in table.items():
            if type(count) is not int:
                raise ValueError("is damaged: counts.")
            merged[index] = max(count, merged.get(index, count))
    # A weight may go on on another device, where its count is to go on too.
    devices = {*by_device, *(device.id for device in jax.local_devices())}
    made._count_from(num_update)
    made._all_index_update_counts = {
        device: {**merged, **by_device.get(device, {})} for device in sorted(devices)
    }
    made._set_current_context(0)
