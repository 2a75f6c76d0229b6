"""The state of one weight as programs for MXNet hold it: slots, or `(master, slots)`."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.algorithm import HALF, OptimizerDef
from jaxmxopt._core.slots import kinds_of
from jaxmxopt._core.state import MasterState
from jaxmxopt._mxnet.slots import keeps_one_array, slots_of

__all__ = ["slots_and_master", "slots_from_mxnet", "with_master"]


def slots_and_master(state: Any) -> tuple[Any, Any]:
    """Take apart the state of one weight."""
    return (state.slots, state.master) if isinstance(state, MasterState) else (state, None)


def with_master(slots: Any, master: Any) -> Any:
    """Return the state of one weight; the inverse of `slots_and_master`."""
    return slots if master is None else MasterState(master, slots)


def slots_from_mxnet(call: str, opt: OptimizerDef, index: Hashable, weight: Any, state: Any) -> Any:
    """Return the slots, or a `MasterState`, that a state of MXNet's form stands for.

    That is None where nothing is kept, an array for one slot, a tuple of them in order for
    several; with a master `(master, state)`, in MXNet's order too where that is another. What has
    our form already comes back as it is.

    Args:
        call: for errors.
        opt: the algorithm.
        index: of the weight.
        weight: that the state is of.
        state: of either form.

    Raises:
        ValueError: it is not one of this algorithm; the message names the slots.
    """
    plain = _tuples(state)
    try:
        parts = plain if type(plain) is MasterState else _with_master(opt, weight, plain)
        if parts is None:
            return _slots(opt, index, weight, plain)
        master, slots = parts
        return MasterState(master, _slots(opt, index, master, slots))
    except ValueError as error:
        raise ValueError(f"{call}: {error}") from None


def _slots(opt: OptimizerDef, index: Hashable, weight: Any, state: Any) -> Any:
    if isinstance(state, tuple) and (type(state) is not tuple or not state):
        # Of our form; what is of another algorithm is refused with the arguments of the update.
        return state
    if state is None and tuple in kinds_of(opt):
        return ()
    return slots_of(opt, index, state, 1, {}, weight)


def _tuples(state: Any) -> Any:
    """Return lists as tuples, also inside of tuples; NamedTuples stay."""
    if type(state) is MasterState:
        return MasterState(state.master, _tuples(state.slots))
    if isinstance(state, list) or type(state) is tuple:
        return tuple(_tuples(part) for part in state)
    return state


def _with_master(opt: OptimizerDef, weight: Any, state: Any) -> tuple[Any, Any] | None:
    """Return master and slots of `(master, state)`, None where it is something else."""
    if type(state) is not tuple or len(state) != 2 or weight.dtype not in HALF:
        return None
    first, second = state
    if not _is_master(first, weight):
        return None
    if second is None or isinstance(second, tuple):
        return first, second
    if not keeps_one_array(opt) or not _is_master(second, weight):
        return None
    # Which stands first depends on the version: the master is the one that rounds to the weight.
    fits = [bool(jnp.array_equal(part.astype(weight.dtype), weight)) for part in state]
    if fits[0] == fits[1] and not jnp.array_equal(first, second):
        raise ValueError(
            "of two float32 arrays one must be the master, which rounds to the weight, got "
            f"{'two' if fits[0] else 'none'} that do; MasterState(master, slots) says which."
        )
    return (first, second) if fits[0] else (second, first)


def _is_master(value: Any, weight: Any) -> bool:
    known = isinstance(value, (jax.Array, np.ndarray))
    return known and value.shape == weight.shape and value.dtype == jnp.float32
