"""The functions of `jaxmxopt.mxnet_files`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.state import State
from jaxmxopt._files.files import naming, replacing
from jaxmxopt._mxnet.ndarray import CSR as CSR
from jaxmxopt._mxnet.params import read_params, write_params
from jaxmxopt._mxnet.record import MXNetRecord as MXNetRecord
from jaxmxopt._mxnet.states import StatesFile, read_states
from jaxmxopt._stateful.mxnet_optimizers import definition_of, dumped, owned, states_of
from jaxmxopt._stateful.trainer import Trainer
from jaxmxopt._stateful.updater import Updater

__all__ = [
    "CSR",
    "MXNetRecord",
    "MXNetStates",
    "load_params",
    "load_states",
    "save_params",
    "save_states",
    "to_definition",
    "to_states",
]

Path = str | os.PathLike[str]
File = Path | bytes | bytearray | memoryview | BinaryIO


class _Found(NamedTuple):
    states: dict[int | str, Any]
    optimizer: MXNetRecord | None


class MXNetStates(_Found):
    """The content of a `.states` file of MXNet: `states, optimizer = load_states(file)`.

    Attributes:
        states: by the index of the weight, or its name, what MXNet nests there: an array, a
            tuple of arrays and tuples, None. The order in a tuple is MXNet's, which differs
            between its versions and algorithms.
        optimizer: the optimizer that was saved beside them, as data; None if there is none.
        version: of the MXNet that wrote the file, 1 or 2.
    """

    version: int = 1

    def __new__(
        cls, states: dict[int | str, Any], optimizer: MXNetRecord | None, version: int = 1
    ) -> "MXNetStates":
        """Make one by hand."""
        self = super().__new__(cls, states, optimizer)
        self.version = version
        return self


def load_params(file: File) -> dict[str, Any] | list[Any]:
    """Read a `.params` file of `mx.nd.save`, gluon or Module, of MXNet 0.x to 2.

    Args:
        file: a path, a file opened for reading bytes, or the bytes.

    Returns:
        A dict by name, or a list where the file has no names: arrays, `RowSparse`, `CSR`, or None
        for an array that never had a shape. Names are as in the file: Module's begin with
        `arg:` or `aux:`.

    Raises:
        ValueError: it is no such file, or damaged.
        OSError: it cannot be opened.
    """
    data, shown = _read(file)
    with naming(f"mxnet_files.load_params({shown})"):
        return owned(read_params(data))


def save_params(
    file: Path, params: Mapping[str, Any] | Sequence[Any], *, np_shape: bool = False
) -> None:
    """Write a `.params` file that MXNet loads.

    Args:
        file: a path. An existing file is replaced, by the whole new one or not at all.
        params: arrays, `RowSparse`, `CSR` or None: by name, or a sequence without names.
        np_shape: write what MXNet 2 reads, and MXNet 1 under `mx.util.np_shape()`. By default
            what MXNet 1 reads, which has no arrays without dimensions, and no integers of 16 bits
            or without sign except uint8.

    Raises:
        ValueError: MXNet has no such array.
        TypeError: something is not an array, or a name is not a string.
        OSError: the file cannot be written.
    """
    with naming(f"mxnet_files.save_params({os.fspath(file)!r})"):
        data = write_params(params, np_shape)
    with replacing(file) as opened:
        opened.write(data)


def load_states(file: File) -> MXNetStates:
    r"""Read a `.states` file of MXNet's Updater, gluon Trainer or Module, of MXNet 1 or 2.

    Args:
        file: a path, a file opened for reading bytes, or the bytes.

    Returns:
        The states, and the optimizer where it was saved with them.

    Raises:
        ValueError: it is no such file, is damaged, or holds anything but arrays and a known
            optimizer's attributes; other classes and functions in it are named.
        OSError: it cannot be opened.

    Example:
        >>> import pickle
        >>> load_states(pickle.dumps({0: None, "fc_weight": None}))
        MXNetStates(states={0: None, 'fc_weight': None}, optimizer=None)
        >>> load_states(b"cos\nsystem\n(S'ls'\ntR.")
        Traceback (most recent call last):
        ValueError: mxnet_files.load_states(bytes): is no state file: os.system is refused: ...
    """
    data, shown = _read(file)
    with naming(f"mxnet_files.load_states({shown})"):
        found = read_states(data)
        return MXNetStates(owned(found.states), owned(found.optimizer), found.version)


def save_states(
    file: Path,
    updater: Updater | Trainer,
    *,
    dump_optimizer: bool = True,
    names: Sequence[str] | None = None,
) -> None:
    """Write a `.states` file that MXNet 1 loads and goes on from.

    gluon's Trainer numbers its parameters, those that do not learn too: a list in its order, a dict
    in the order of its sorted names. A Trainer of ours has paths, so `names` must say the numbers.
    An Updater's indices are written as they are.

    Args:
        file: a path. An existing file is replaced, by the whole new one or not at all.
        updater: whose states are saved.
        dump_optimizer: save the optimizer too, with its counts, hyperparameters and schedule, as
            gluon's Trainer does and expects. Without it MXNet counts anew.
        names: the names of gluon's parameters in its order, such as
            `sorted(net.collect_params())`, with the path of each weight of ours in its place.

    Raises:
        ValueError: MXNet 1.9.1 has no such optimizer, schedule or array; or a weight is missing in
            `names` or there twice, or `names` are needed.
        TypeError: an index is neither an integer nor a string, or `updater` is none.
        OSError: the file cannot be written.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt, os, tempfile
        >>> weights = {"dense0_weight": jnp.ones((2, 2)), "dense0_bias": jnp.ones(2)}
        >>> trainer = mxopt.Trainer(weights, "sgd", {"momentum": 0.9})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = os.path.join(folder, "gluon.states")
        ...     save_states(file, trainer, names=["dense0_bias", "dense0_weight"])
        ...     {number: state.shape for number, state in load_states(file).states.items()}
        {0: (2,), 1: (2, 2)}
    """
    if not isinstance(updater, (Updater, Trainer)):
        raise TypeError(
            "mxnet_files.save_states: updater must be an Updater or a Trainer, "
            f"got {type(updater).__name__}."
        )
    with naming(f"mxnet_files.save_states({os.fspath(file)!r})"):
        if names is None and isinstance(updater, Trainer):
            raise ValueError(
                "names must be given for a Trainer, as gluon numbers its parameters: their names "
                "in its order, such as sorted(net.collect_params()), got None."
            )
        data = dumped(updater.optimizer, updater.states, dump_optimizer, names)
    with replacing(file) as opened:
        opened.write(data)


def to_definition(record: MXNetRecord, *, lr_scheduler: Any = None) -> OptimizerDef:
    """Make the definition of a recorded optimizer.

    Its hyperparameters, multipliers, names and schedule are those of the file; what only gluon's
    parameters knew is not in it.

    Args:
        record: from `load_states`.
        lr_scheduler: in place of the recorded one, where that is somebody's own.

    Raises:
        ValueError: the optimizer or its schedule is not one of MXNet's own, or a hyperparameter
            is one that it cannot have.
        TypeError: there is no record, as the states were saved without their optimizer.

    Example:
        >>> attributes = {"rescale_grad": 1.0, "num_update": 0, "lr": 0.1, "momentum": 0.9}
        >>> to_definition(MXNetRecord("mxnet.optimizer.optimizer", "SGD", attributes))
        SGD(learning_rate=0.1, momentum=0.9)
    """
    if not isinstance(record, MXNetRecord):
        raise TypeError(
            "mxnet_files.to_definition: record must be the optimizer that load_states found, got "
            f"{record!r}; make the definition yourself where the file has none."
        )
    with naming("mxnet_files.to_definition"):
        return definition_of(record, lr_scheduler)


def to_states(
    found: MXNetStates,
    weights: Mapping[Any, Any],
    definition: OptimizerDef | None = None,
    *,
    num_update: int | None = None,
) -> dict[Any, State]:
    """Make states of ours of MXNet's, for `OptimizerDef.update`, or with `pack` for `step`.

    Args:
        found: from `load_states`.
        weights: arrays by the index or name that the file has for each. Others in the file are
            left out.
        definition: whose states they are; by default that of the recorded optimizer.
        num_update: the updates that the weights have had, where the file does not say so. By
            default `begin_num_update` of the definition.

    Returns:
        A `State` for every weight.

    Raises:
        ValueError: a weight has no state in the file, or one of another algorithm or shape; or
            there is no optimizer in the file and no definition.
    """
    with naming("mxnet_files.to_states"):
        if definition is None:
            if found.optimizer is None:
                raise ValueError("definition must be given, as the file holds no optimizer.")
            definition = definition_of(found.optimizer)
        missing = [index for index in weights if index not in found.states]
        if missing:
            raise ValueError(f"the file must have a state of {missing[0]!r}, got none.")
        chosen = {index: found.states[index] for index in weights}
        file = StatesFile(chosen, found.optimizer, found.version)
        return states_of(file, definition, num_update, weights)


def _read(file: File) -> tuple[bytes, str]:
    """Return the content of a file, and what to call it in messages."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        return bytes(file), "bytes"
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return opened.read(), repr(os.fspath(file))
    content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f"mxnet_files: file must be opened for reading bytes, got {file!r}.")
    return content, repr(getattr(file, "name", "file"))
