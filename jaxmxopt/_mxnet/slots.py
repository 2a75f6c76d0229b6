"""The state of one weight as MXNet nests it, and as slots with a master.

MXNet's order depends on the algorithm and on the version: version 1 puts the float32 master of
SGD, NAG and LARS last, as gluon-nlp does for BERTAdam, else it is first; the centered RMSProp of
version 2 begins with the mean.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._algorithms.adagrad import AdaGrad
from jaxmxopt._algorithms.bertadam import BERTAdam
from jaxmxopt._algorithms.ccsgd import ccSGD
from jaxmxopt._algorithms.groupadagrad import GroupAdaGrad
from jaxmxopt._algorithms.lars import LARS
from jaxmxopt._algorithms.lbsgd import LBSGD
from jaxmxopt._algorithms.nag import NAG
from jaxmxopt._algorithms.rmsprop import RMSProp
from jaxmxopt._algorithms.sgd import SGD
from jaxmxopt._algorithms.sgld import SGLD
from jaxmxopt._algorithms.signum import Signum
from jaxmxopt._algorithms.test import Test
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.numeric import widens
from jaxmxopt._core.slots import Like, forms, made
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import MasterState

__all__ = ["KEPT_BY_THE_OPTIMIZER", "keeps_one_array", "nested", "slots_of"]

# Slots that MXNet keeps in the optimizer, or has in no form.
KEPT_BY_THE_OPTIMIZER = ("m_schedule", "last_lr", "cum_grad", "num_cums", "key")
# States that are an array and no tuple: of these, or None.
_BARE = (SGD, ccSGD, NAG, Signum, LARS, LBSGD, SGLD, AdaGrad, GroupAdaGrad, Test)
_MASTER_LAST = (SGD, ccSGD, NAG, LARS, BERTAdam)
# A state of few rows may stand for an array of any height; up to this many elements it is made.
_LARGEST = 2**26


class _ShapeError(ValueError):
    """A state of another structure; the caller adds which one it is and what was expected."""


def slots_of(
    opt: OptimizerDef,
    index: Hashable,
    state: Any,
    version: int,
    kept: Mapping[str, Any],
    weight: Any = None,
) -> Any:
    """Turn the state of one weight from MXNet into what `create_state_multi_precision` gives.

    Args:
        opt: the algorithm.
        index: of the weight.
        state: arrays in nested tuples, as MXNet has them.
        version: of MXNet, 1 or 2.
        kept: slots that MXNet kept in the optimizer, as far as they are known.
        weight: that it is of, if it is known: the shapes are compared with it.

    Returns:
        The slots, or a `MasterState`; None where nothing was kept and a new state does the same.

    Raises:
        ValueError: the state is not one of this algorithm with these hyperparameters.
    """
    try:
        inner, master = _split(opt, state, version)
        arrays = _named(opt, inner, version)
        full = _full(opt, arrays, master, kept, weight)
        if full is None:
            return _unshaped(opt, index, kept)
        return _checked(opt, index, arrays, master, kept, full)
    except (_ShapeError, OverflowError) as error:
        raise ValueError(
            f"the state of {index!r:.100} must be one of {opt!r:.300}: {error}."
        ) from None


def nested(opt: OptimizerDef, state: Any) -> Any:
    """Return the inverse of `slots_of`: the state as MXNet 1 nests it."""
    master, slots = state if isinstance(state, MasterState) else (None, state)
    arrays = [getattr(slots, name) for name in _names(opt, 1)] if slots else []
    # A subclass may keep more.
    bare = isinstance(opt, _BARE) and len(arrays) <= 1
    inner: Any = (arrays[0] if arrays else None) if bare else tuple(arrays)
    if master is None:
        return inner
    return (inner, master) if isinstance(opt, _MASTER_LAST) else (master, inner)


def _names(opt: OptimizerDef, version: int) -> list[str]:
    """Return the slots that a state of MXNet has, in its order."""
    if isinstance(opt, RMSProp) and version == 2 and opt.centered:
        return ["g", "n", "delta"]
    every = forms(opt, Like((1, 1), np.float32))[1]
    names = getattr(every, "_fields", ())
    return [name for name in names if name not in KEPT_BY_THE_OPTIMIZER]


def keeps_one_array(opt: OptimizerDef) -> bool:
    """True if a state of MXNet is an array, or None, without a tuple around it."""
    return isinstance(opt, _BARE) and len(_names(opt, 1)) == 1


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray, RowSparse))


def _split(opt: OptimizerDef, state: Any, version: int) -> tuple[Any, Any]:
    """Return the state proper, and the master or None."""
    if type(state) is not tuple or len(state) != 2:
        return state, None
    bare = isinstance(opt, _BARE) or (isinstance(opt, RMSProp) and version == 2)
    last = version == 1 and isinstance(opt, _MASTER_LAST)
    if not bare and not isinstance(state[0 if last else 1], tuple):
        return state, None
    if not opt.multi_precision:
        raise _ShapeError(
            f"it must be {' and '.join(_names(opt, version)) or 'None'}, got {_shown(state)}: of "
            "another algorithm, or with a float32 master, which multi_precision=True takes"
        )
    inner, master = state if last else reversed(state)
    if not _is_array(master):
        raise _ShapeError("it must have a float32 master in a tuple of two")
    return inner, master


def _named(opt: OptimizerDef, inner: Any, version: int) -> dict[str, Any]:
    names = _names(opt, version)
    if inner is None:
        return {}
    members = inner if isinstance(inner, tuple) else (inner,)
    if len(members) != len(names) or not all(m is None or _is_array(m) for m in members):
        raise _ShapeError(f"it must be {' and '.join(names) or 'None'}, got {_shown(inner)}")
    return dict(zip(names, members, strict=True))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(_shown(part) for part in value)})"
    return f"an array of {value.shape}" if _is_array(value) else repr(value)


def _full(opt: OptimizerDef, arrays: Any, master: Any, kept: Any, weight: Any) -> Any:
    """Return the shape and dtype of what the slots are made for; None if no array tells them."""
    known = [value for value in (*kept.values(), *arrays.values()) if _is_array(value)]
    like = next((array for array in (weight, master, *known) if array is not None), None)
    if like is None:
        return None
    shape = np.shape(like)
    if isinstance(opt, GroupAdaGrad) and weight is None and master is None:
        # One number a row: the width of the weight is not in it.
        shape = (*shape[:1], 1)
    return jax.ShapeDtypeStruct(shape, like.dtype if master is None else np.float32)


def _unshaped(opt: OptimizerDef, index: Hashable, kept: Mapping[str, Any]) -> Any:
    """Return the slots of a weight of which MXNet kept no array, and nothing else is known."""
    expected = opt.slots(Like((1, 1), np.float32, index))
    missing = [
        name
        for name in getattr(expected, "_fields", ())
        if name not in KEPT_BY_THE_OPTIMIZER and getattr(expected, name) is not None
    ]
    if missing:
        raise _ShapeError(f"it must be {' and '.join(missing)}, got None")
    if expected == ():
        return ()
    if (kept.get("num_cums") or 0) % getattr(opt, "batch_scale", 1):
        raise _ShapeError("updates are pending, and its weight is not known")
    return None


def _checked(
    opt: OptimizerDef, index: Hashable, arrays: Any, master: Any, kept: Any, full: Any
) -> Any:
    """Return slots of the arrays, if they are those that the algorithm makes for such a weight."""
    if master is not None and (np.shape(master), master.dtype) != (full.shape, np.float32):
        raise _ShapeError(
            f"the master must be float32 of shape {full.shape}, got {master.dtype} of "
            f"{np.shape(master)}"
        )
    try:
        opt.check_weight(Like(full.shape, full.dtype, index))
    except ValueError as error:
        raise _ShapeError(str(error)) from None
    expected = opt.slots(Like(full.shape, full.dtype, index))
    if arrays and expected == ():
        raise _ShapeError("it must be None, as momentum is 0")
    values: dict[str, Any] = {}
    for name in getattr(expected, "_fields", ()):
        wanted, kept_there = getattr(expected, name), name in KEPT_BY_THE_OPTIMIZER
        value = (kept if kept_there else arrays).get(name)
        if kept_there and value is None:
            # Not in the file; as it is with a new optimizer.
            values[name] = made(wanted, jnp.zeros(full.shape, full.dtype))
        elif (wanted is None) != (value is None):
            raise _ShapeError(f"{name} must be {'None' if wanted is None else 'an array'}")
        elif value is None:
            values[name] = None
        elif np.shape(value) != wanted.shape:
            raise _ShapeError(f"{name} must have shape {wanted.shape}, got {np.shape(value)}")
        else:
            # What is squared or divided by is float32 here; MXNet has it in half precision.
            given = hasattr(value, "dtype") and not isinstance(value, RowSparse)
            narrow = given and widens(value.dtype, wanted.dtype)
            values[name] = _array(value, name, wanted.dtype if kept_there or narrow else None)
    slots = type(expected)(**values) if values else ()
    return slots if master is None else MasterState(_array(master, "the master", None), slots)


def _array(value: Any, name: str, dtype: Any) -> jax.Array:
    """Return a JAX array of its own, in the dtype that it has unless another is asked for."""
    if dtype is None:
        dtype = value.dtype
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise _ShapeError(f"{name} is of {dtype}, which needs jax_enable_x64")
        if not jnp.issubdtype(dtype, jnp.floating):
            raise _ShapeError(f"{name} must be floating, got {dtype}")
    if isinstance(value, RowSparse):
        if value.indices.shape[0] < value.shape[0] and math.prod(value.shape) > _LARGEST:
            raise _ShapeError(f"{name} must have all of its {value.shape[0]} rows")
        return value.todense()
    return jnp.asarray(value if isinstance(value, jax.Array) else np.array(value), dtype)
