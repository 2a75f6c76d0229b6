"""From MXNet's files to ours and back."""

import errno
import json
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxmxopt._cli.inspect import Progress, is_ours, is_params, read_whole
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._files import archive
from jaxmxopt._files.codec import Decoder
from jaxmxopt._files.files import naming, replacing
from jaxmxopt._files.tree import Arrays, contents
from jaxmxopt._mxnet.params import read_params
from jaxmxopt._mxnet.states import read_states
from jaxmxopt._stateful import mxnet_files as mxnet_files
from jaxmxopt._stateful.mxnet_optimizers import owned
from jaxmxopt._stateful.mxnet_optimizers import restored as restored_from_mxnet
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.saved_states import restored, updater_contents
from jaxmxopt._stateful.updater import Updater

__all__ = ["convert", "optimizer_said"]


def convert(source: str, target: str, optimizer: str | None, force: bool) -> str:
    """Convert a file.

    Args:
        source: the file to read, ours or MXNet's, which says what the other is to be.
        target: the file to write.
        optimizer: of which optimizer states are, where the file does not say: `optimizer_said`.
        force: whether to replace the target.

    Returns:
        What has been done.

    Raises:
        ValueError: the source is of no kind known here, is damaged, or holds what the target
            cannot.
        OSError: a file cannot be read or written, or the target exists.
    """
    if os.path.lexists(target) and not force:
        raise FileExistsError(errno.EEXIST, "exists already; --force replaces it", target)
    with open(source, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if is_ours(file):
            with naming(source):
                return f"{target}: {_to_mxnet(archive.Reader(file), size, target, optimizer)}"
        data = read_whole(file, size, "reading")
    with naming(source):
        return f"{target}: {_to_ours(data, target, optimizer)}"


def optimizer_said(text: str) -> Optimizer:
    """Return the optimizer that a text such as `"sgd,momentum=0.9"` says."""
    name, *pairs = text.split(",")
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        try:
            arguments[key] = json.loads(value.lower())
        except ValueError:
            separator = ""
        if not separator:
            raise ValueError(
                f"--optimizer must be a name and numbers such as sgd,momentum=0.9, got {text!r}."
            )
    return Optimizer.create_optimizer(name, **arguments)


def _to_ours(data: bytes, target: str, optimizer: str | None) -> str:
    if is_params(data):
        params = owned(read_params(data))
        is_list = isinstance(params, list)
        named = {str(i): x for i, x in enumerate(params)} if is_list else params
        for name, array in named.items():
            if not isinstance(array, RowSparse) and not hasattr(array, "dtype"):
                raise ValueError(
                    f"{name!r} must be an array or RowSparse, got {type(array).__name__}, which "
                    "our files cannot hold."
                )
        header, arrays = contents(named, None)
        _write(target, {**header, "unnamed": is_list}, arrays, len(data))
        return f"{len(named)} arrays"
    found = read_states(data)
    _refuse_both(optimizer, found.optimizer is not None)
    if found.optimizer is not None:
        given = Optimizer.create_optimizer(mxnet_files.to_definition(found.optimizer))
    elif optimizer is None:
        raise ValueError("the file holds no optimizer; say of which with --optimizer.")
    else:
        given = optimizer_said(optimizer)
    made, states = restored_from_mxnet(found, given)
    dump = found.optimizer is not None
    _write(target, *updater_contents(made, states, dump), len(data))
    return _of_states(states, made, dump)


def _to_mxnet(reader: archive.Reader, size: int, target: str, optimizer: str | None) -> str:
    if reader.header.get("kind") == "updater":
        return _states_to_mxnet(reader, target, optimizer)
    leaves, slots = reader.header.get("leaves"), reader.header.get("slots")
    if not isinstance(leaves, dict) or not isinstance(slots, dict):
        raise ValueError("is damaged: leaves or slots in its header.")
    other = [*slots, *(name for name, record in leaves.items() if not _is_array(record))]
    if other:
        raise ValueError(
            f"must hold arrays alone to become MXNet's .params, got {other[0] or 'a State'!r}; "
            "to become .states it must be of an Updater or a Trainer."
        )
    params: dict[str, Any] = {}
    with Progress("reading", size) as progress:
        for name, record in leaves.items():
            params[name] = Decoder(reader.array).decode(record, name)
            progress.add(sum(leaf.nbytes for leaf in jax.tree.leaves(params[name])))
    unnamed = reader.header.get("unnamed") is True
    mxnet_files.save_params(target, list(params.values()) if unnamed else params)
    return f"{len(params)} arrays"


def _is_array(record: Any) -> bool:
    """True if a record is of an array that is not of random keys, or of a `RowSparse`."""
    is_array = isinstance(record, dict) and "array" in record and "key" not in record
    return is_array or (isinstance(record, dict) and record.get("class") == "RowSparse")


def _states_to_mxnet(reader: archive.Reader, target: str, optimizer: str | None) -> str:
    dumped = reader.header.get("definition") is not None
    _refuse_both(optimizer, dumped)
    if dumped:
        given = Decoder(reader.leaf).decode(reader.header["definition"], "the optimizer")
    elif optimizer is None:
        raise ValueError("holds no optimizer; say of which with --optimizer.")
    else:
        given = optimizer_said(optimizer)
    made = restored(reader, Optimizer.create_optimizer(given), {})
    updater = Updater(made.optimizer)
    updater.states = made.states
    mxnet_files.save_states(target, updater, dump_optimizer=dumped)
    done = _of_states(made.states, made.optimizer, dumped)
    named = any(isinstance(index, str) for index in made.states)
    return f"{done}; for gluon, which has numbers for keys, see mxnet_files" if named else done


def _refuse_both(optimizer: str | None, told: bool) -> None:
    if told and optimizer is not None:
        raise ValueError(
            f"--optimizer must be left out where the file has its optimizer, got {optimizer!r}."
        )


def _of_states(states: Any, optimizer: Optimizer, dumped: bool) -> str:
    name = type(optimizer._definition).__name__
    updates = _number_of(optimizer.num_update, "update")
    age = f"after {updates}" if dumped else "without its hyperparameters"
    return f"{_number_of(len(states), 'state')} of {name} {age}"


def _number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _write(target: str, header: dict[str, Any], arrays: Arrays, size: int) -> None:
    with replacing(target) as file, Progress("writing", size) as progress:
        archive.write(file, header, _counted(arrays, progress))


def _counted(arrays: Arrays, progress: Progress) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in arrays:
        yield name, array
        progress.add(array.nbytes)
