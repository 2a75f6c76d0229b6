"""The slots of one weight, each of which says which axes of the weight it has."""

import dataclasses
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.errors import TracerBoolConversionError
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

from jaxmxopt._core.numeric import compute_dtype

NUMBERS = (float, np.ndarray, jax.Array)

__all__ = [
    "Like",
    "Slot",
    "as_now",
    "described",
    "forms",
    "keeps_average",
    "kinds_of",
    "made",
    "slots_said",
    "spec_of",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """A slot that is yet to be made.

    Attributes:
        axes: for each axis of the slot the axis of the weight that it is, None for an axis of the
            slot's own.
        shape: of the slot.
        dtype: of the slot.
        first: a number that fills the slot, an array that it is, or None for a copy of the weight.
    """

    axes: tuple[int | None, ...]
    shape: tuple[int, ...]
    dtype: Any
    first: Any


class Like:
    """A description of a weight, which makes slots that go with it.

    Attributes:
        shape: of the weight.
        dtype: of the weight, or of its master.
        index: of the weight: its key, or its path in a tree.
    """

    def __init__(self, shape: Sequence[int], dtype: Any, index: Hashable = None) -> None:
        self.shape = tuple(shape)
        self.dtype = jnp.dtype(dtype)
        self.index = index

    @property
    def ndim(self) -> int:
        """The number of axes of the weight."""
        return len(self.shape)

    @property
    def wide(self) -> Any:
        """The dtype of a slot that is squared or divided by: float32, or float64 like the weight.

        In half precision a square below 6e-8 is 0, and a mean of squares does not fall.
        """
        floating = jnp.issubdtype(self.dtype, jnp.floating)
        return compute_dtype(self.dtype) if floating else self.dtype

    def zeros(self, axes: Sequence[int | None] | None = None, dtype: Any = None) -> Any:
        """Return a slot of zeros; see `full`."""
        return self.full(0, axes, dtype)

    def full(self, value: Any, axes: Sequence[int | None] | None = None, dtype: Any = None) -> Any:
        """Return a slot filled with a number.

        Args:
            value: the number.
            axes: the axes of the weight that the slot has, all of them by default; `()` for one
                number, `(0,)` for one a row, None for an axis of size 1.
            dtype: that of the weight by default; for a slot without axes float32 at least.
        """
        axes = tuple(range(self.ndim)) if axes is None else self._checked(axes)
        shape = tuple(1 if axis is None else self.shape[axis] for axis in axes)
        if dtype is None:
            dtype = self.dtype if axes else self.wide
        return Slot(axes, shape, jnp.dtype(dtype), value)

    def copy(self) -> Any:
        """Return a slot that begins as a copy of the weight."""
        return Slot(tuple(range(self.ndim)), self.shape, self.dtype, None)

    def array(self, value: Any, axes: Sequence[int | None]) -> Any:
        """Return a slot that begins as an array, whose axes are those of the weight or None."""
        value = jnp.asarray(value)
        axes = self._checked(axes)
        shape = tuple(self.shape[axis] if axis is not None else None for axis in axes)
        pairs = zip(shape, value.shape, strict=False)
        if len(axes) != value.ndim or any(size not in (None, given) for size, given in pairs):
            raise ValueError(
                f"Like.array: value must have the axes {axes!r} of a weight of shape {self.shape}, "
                f"got shape {value.shape}."
            )
        return Slot(axes, value.shape, value.dtype, value)

    def _checked(self, axes: Any) -> tuple[int | None, ...]:
        """Return axes of the weight, counted from the first one."""
        known = (*range(-self.ndim, self.ndim), None)
        if not isinstance(axes, Sequence) or any(axis not in known for axis in axes):
            raise ValueError(
                f"Like: axes must be a tuple of None and axes of the weight, in [0, {self.ndim}), "
                f"got {axes!r}; a slot of the whole weight needs none."
            )
        return tuple(None if axis is None else operator.index(axis) % self.ndim for axis in axes)


def keeps_average(slots: Any) -> bool:
    """True if the class of slots has a method `averaged` of the weight, for evaluation."""
    return callable(getattr(type(slots), "averaged", None))


def slots_said(opt: Any, like: Like) -> Any:
    """Return what the `slots` of an algorithm returns.

    Raises:
        TypeError: it branches on a number that is being traced.
    """
    try:
        return opt.slots(like)
    except TracerBoolConversionError as error:
        raise TypeError(
            f"{type(opt).__name__}.slots: must not branch on the value of a number, which may be "
            "traced; is_zero(self.momentum) is True where a number is known to be 0."
        ) from error


def as_now(opt: Any, like: Like, slots: Any) -> Any:
    """Return slots in the class that an algorithm has now, given in an equal one of the same name.

    A notebook cell that runs twice defines the class of the slots twice.
    """
    kind = type(slots)
    if not hasattr(kind, "_fields"):
        return slots
    kinds = kinds_of(opt, like)
    if kind in kinds:
        return slots
    return next((now(*slots) for now in kinds if _named(now) == _named(kind)), slots)


def _named(kind: type) -> tuple[Any, ...]:
    return kind.__module__, kind.__qualname__, getattr(kind, "_fields", ())


def forms(opt: Any, like: Like) -> tuple[Any, Any, Any]:
    """Return the slots that an algorithm keeps, not yet made, in up to three forms.

    A hyperparameter may decide which slots there are, as a momentum of 0 leaves them out. The first
    form is that of the hyperparameters as they are, the second that of others than 0, the third
    that of zeros.
    """
    numbers = [name for name in opt._leaf_names if isinstance(getattr(opt, name), NUMBERS)]
    none = opt._with(**dict.fromkeys(numbers, 0.0))
    every = opt._with(**dict.fromkeys(numbers, np.float32(0.5)))
    return slots_said(opt, like), slots_said(every, like), slots_said(none, like)


def kinds_of(opt: Any, like: Like | None = None) -> set[type]:
    """Return the types that the slots of a weight may be of."""
    return {type(form) for form in forms(opt, like or Like((1, 1), jnp.float32))}


def described(opt: Any, weight: Any, slots: Any) -> Any:
    """Return what an algorithm says of the slots that a weight has, None if they do not fit."""
    like, kind = Like(weight.shape, weight.dtype), jax.tree.structure(slots)
    now = slots_said(opt, like)
    if jax.tree.structure(now) == kind:
        return now
    return next((form for form in forms(opt, like) if jax.tree.structure(form) == kind), None)


def made(slot: Slot, weight: Any) -> jax.Array:
    """Return the array that a slot describes, placed as its weight is along the axes they share."""
    if slot.first is None:
        return jnp.copy(weight).astype(slot.dtype)
    if slot.axes == tuple(range(weight.ndim)) and slot.axes and not hasattr(slot.first, "shape"):
        full = jnp.full_like(weight, slot.first, slot.dtype)
        # Under jit this is a constant, which has no place of its own; the weight is not read.
        return jnp.where(weight == weight, full, full) if isinstance(weight, Tracer) else full
    array = jnp.broadcast_to(jnp.asarray(slot.first, slot.dtype), slot.shape)
    return _placed(array, slot, weight)


def spec_of(axes: Sequence[int | None], weight_spec: Any) -> PartitionSpec:
    """Return how a slot is divided among devices, given how its weight is."""
    parts: list[Any] = []
    for axis in axes:
        part = weight_spec[axis] if axis is not None and axis < len(weight_spec) else None
        # A mesh axis divides one axis of an array.
        parts.append(None if part in parts else part)
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)


def _placed(array: jax.Array, slot: Slot, weight: Any) -> jax.Array:
    if not isinstance(weight, jax.Array):
        return array
    if isinstance(weight, Tracer):
        typed = jax.typeof(weight).sharding
        if AxisType.Explicit not in typed.mesh.axis_types:
            return _bound(array, slot, weight)
        return reshard(array, NamedSharding(typed.mesh, spec_of(slot.axes, typed.spec)))
    sharding = weight.sharding
    if isinstance(sharding, NamedSharding):
        spec = spec_of(slot.axes, sharding.spec)
        return jax.device_put(array, NamedSharding(sharding.mesh, spec))
    if not weight.committed or len(sharding.device_set) > 1:
        return array
    return jax.device_put(array, sharding)


def _bound(array: jax.Array, slot: Slot, weight: jax.Array) -> jax.Array:
    """Return an array that XLA divides as it divides the weight, which is not read."""
    kept = [axis for axis in slot.axes if axis is not None]
    if not kept or kept != sorted(set(kept)):
        return array
    others = tuple(axis for axis in range(weight.ndim) if axis not in kept)
    rows = jnp.all(weight == weight, axis=others)
    rows = jnp.expand_dims(rows, tuple(n for n, axis in enumerate(slot.axes) if axis is None))
    return jnp.where(rows, array, array)
