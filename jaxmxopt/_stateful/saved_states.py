"""The bytes that `get_states` and `save_states` give, and both kinds that are taken back."""

import io
from collections.abc import Mapping
from typing import Any

from jaxmxopt._files import npz as _npz
from jaxmxopt._mxnet.states import read_states
from jaxmxopt._stateful.from_mxnet import restored as restored_from_mxnet
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.updater_file import Restored, restored, updater_contents

__all__ = ["adopted", "dumped", "loaded"]

_ZIP = b"PK\x03\x04"


def dumped(
    call: str,
    optimizer: Optimizer,
    states: Mapping[Any, Any],
    dump_optimizer: bool,
    more: Any = None,
) -> bytes:
    """Our own file of an optimizer, its states by index, and more; for errors in `call`."""
    file = io.BytesIO()
    try:
        _npz.write(file, *updater_contents(optimizer, states, dump_optimizer, more))
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None
    except TypeError as error:
        raise TypeError(f"{call}: {error}") from None
    return file.getvalue()


def loaded(call: str, data: Any, optimizer: Optimizer, states: Mapping[Any, Any]) -> Restored:
    """What the bytes of a file, ours or MXNet's, say; nothing given here is changed.

    Args:
        call: for errors.
        data: the bytes.
        optimizer: of the algorithm that the file must be of.
        states: by index, which those of the file must be like.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{call}: states must be bytes, got {type(data).__name__}.")
    data = bytes(data)
    try:
        if data.startswith(_ZIP):
            return restored(_npz.Reader(io.BytesIO(data)), optimizer, states)
        return Restored(*restored_from_mxnet(read_states(data), optimizer), None)
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None


def adopted(current: Optimizer, made: Optimizer) -> Optimizer:
    """The optimizer to go on with: the one that programs hold, as far as the one from a file."""
    if made is current or type(made) is not type(current):
        return made
    vars(current).clear()
    vars(current).update(vars(made))
    return current
