"""`.states` files: the pickle of a dict of states, or of that and an optimizer."""

from typing import Any, NamedTuple

import numpy as np

from jaxmxopt._mxnet.constructors import Pending, Record, Scope
from jaxmxopt._mxnet.pickle import run_pickle
from jaxmxopt._mxnet.record import MXNetRecord, array_of, record_of

__all__ = ["StatesFile", "read_states"]

# MXNet nests twice: a float32 master beside a tuple.
_DEEPEST = 8


class StatesFile(NamedTuple):
    """The content of a `.states` file.

    Attributes:
        states: by index, arrays in nested tuples.
        optimizer: what was saved beside them, or None.
        version: of the MXNet that wrote it, 1 or 2.
    """

    states: dict[int | str, Any]
    optimizer: MXNetRecord | None
    version: int


def read_states(data: bytes) -> StatesFile:
    """Read a `.states` file of MXNet's Updater, Trainer or Module.

    Returns:
        Its content; arrays are NumPy's, over the given bytes.

    Raises:
        ValueError: it is damaged, or holds anything but states, or an optimizer beside them.
    """
    root, scope = run_pickle(data)
    states, optimizer = root if type(root) is tuple and len(root) == 2 else (root, None)
    if type(states) is not dict:
        raise ValueError(
            "this is no .states file: it must hold a dict of states, or one and an optimizer, "
            f"got {_shown(root)}."
        )
    record = None
    if optimizer is not None:
        if not isinstance(optimizer, Record) or "num_update" not in (optimizer.attributes or {}):
            raise ValueError("what stands beside the states must be an optimizer.")
        record = record_of(optimizer, scope)
    read = {index: _state(state, index, 0, scope) for index, state in states.items()}
    version = record.version if record is not None else None
    return StatesFile(read, record, version or (2 if scope.np_shape else 1))


def _shown(made: Any) -> str:
    """Return what a pickle holds, for a message."""
    if isinstance(made, Record):
        return f"an object of {made.of}"
    if isinstance(made, Pending):
        return "a dtype" if isinstance(made.value, np.dtype) else "an array"
    return f"a {type(made).__name__}"


def _state(made: Any, index: Any, depth: int, scope: Scope) -> Any:
    """Take a state out of what the interpreter made of it."""
    scope.spend(1)
    what = f"the state of {index!r:.100} must be"
    if depth > _DEEPEST:
        raise ValueError(f"{what} an array or a few in tuples.")
    if type(made) in (tuple, list):
        return tuple(_state(item, index, depth + 1, scope) for item in made)
    if isinstance(made, Pending) and made.built and not isinstance(made.value, np.dtype):
        return array_of(made, scope)
    if made is None or type(made) in (int, float, bool):
        return made
    if isinstance(made, Record):
        made.of.refuse("a state must be made of arrays")
    raise ValueError(f"{what} made of arrays, got {type(made).__name__}.")
