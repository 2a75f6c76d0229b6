"""Functions of whole arrays, computed for all weights of one shape as one batch.

A rule asks for such a function by `batched`. The engine runs the rules of all weights, notes what
they ask for, and runs the rules again with the answers. What the first run computed is not used, so
XLA leaves it out.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

__all__ = ["apart", "batched", "in_batches"]

T = TypeVar("T")


class _Call(NamedTuple):
    """A function, the arrays of one weight, and numbers that all weights share."""

    function: Callable[..., Any]
    arrays: tuple[jax.Array, ...]
    shared: dict[str, Any]

    def kind(self) -> Hashable:
        """Return what calls of one batch have in common."""
        shared = tuple(
            (name, id(value) if isinstance(value, jax.Array) else value)
            for name, value in self.shared.items()
        )
        return self.function, shared, tuple(jax.typeof(array) for array in self.arrays)


_answer: ContextVar[Callable[[_Call], Any] | None] = ContextVar("_answer", default=None)


def batched(function: Callable[..., T], *arrays: jax.Array, **shared: Any) -> T:
    """Return `function(*arrays, **shared)`, computed for all weights of one shape as one batch.

    On several devices the weights of a batch are divided among the devices, each of them whole on
    one device.

    Args:
        function: takes arrays and returns an array, or a pytree of arrays; not a closure.
        *arrays: of one weight.
        **shared: hyperparameters, and what else is the same for all weights.
    """
    call, answer = _Call(function, arrays, shared), _answer.get()
    return _together([call])[0] if answer is None else answer(call)


@contextmanager
def _answering(answer: Callable[[_Call], Any] | None) -> Generator[None]:
    token = _answer.set(answer)
    try:
        yield
    finally:
        _answer.reset(token)


def apart(function: Callable[..., T]) -> Callable[..., T]:
    """Return the same function, whose calls of `batched` wait for no other weights."""

    def run(*args: Any) -> T:
        with _answering(None):
            return function(*args)

    return run


def in_batches(run: Callable[[], T]) -> T:
    """Return what a function of no arguments returns, its calls of `batched` made in batches."""
    calls: list[_Call] = []

    def note(call: _Call) -> Any:
        calls.append(call)
        return _together([call])[0]

    with _answering(note):
        result = run()
    alike: dict[Hashable, list[int]] = {}
    for number, call in enumerate(calls):
        alike.setdefault(call.kind(), []).append(number)
    if len(alike) == len(calls):
        return result
    found: dict[int, Any] = {}
    for numbers in alike.values():
        found |= zip(numbers, _together([calls[n] for n in numbers]), strict=True)
    answers = iter([found[n] for n in range(len(calls))])
    with _answering(lambda call: next(answers)):
        return run()


def _together(calls: Sequence[_Call]) -> list[Any]:
    """Return the answers to calls of one kind."""
    function, arrays, shared = calls[0]
    first = jax.typeof(arrays[0])
    axes = _axes_of(first.sharding.mesh)
    count, size = len(calls), 1
    if count > 1:
        for axis in axes:
            size *= first.sharding.mesh.shape[axis]
    divided = axes if count > 1 else ()

    def stacked(number: int) -> jax.Array:
        parts = [call.arrays[number] for call in calls]
        return _gathered(_padded(jnp.stack(parts), -count % size), divided)

    stacks = [stacked(number) for number in range(len(arrays))]
    made = jax.vmap(lambda *one: function(*one, **shared))(*stacks)
    specs = {array.shape: jax.typeof(array).sharding.spec for array in arrays}
    made = jax.tree.map(lambda leaf: _spread(leaf, divided, specs.get(leaf.shape[1:])), made)
    return [jax.tree.map(lambda leaf, n=n: leaf[n], made) for n in range(count)]


def _padded(stack: jax.Array, more: int) -> jax.Array:
    return jnp.pad(stack, [(0, more)] + [(0, 0)] * (stack.ndim - 1)) if more else stack


def _axes_of(mesh: Any) -> tuple[str, ...]:
    """Return the axes of a mesh along which the compiler, or the types, divide arrays."""
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    chosen = AxisType.Explicit if AxisType.Explicit in kinds.values() else AxisType.Auto
    return tuple(name for name, kind in kinds.items() if kind is chosen)


def _gathered(stack: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Lay a stack out so that each of its arrays is whole on one device, one mesh axis a time."""
    for last in range(1, len(axes)):
        stack = _laid_out(stack, axes[:last], None)
    return _laid_out(stack, axes, PartitionSpec())


def _spread(stack: jax.Array, axes: tuple[str, ...], spec: Any) -> jax.Array:
    """Lay a stack out so that each device has its part of each array."""
    spec = PartitionSpec() if spec is None else spec
    stack = _laid_out(stack, axes, PartitionSpec())
    for last in reversed(range(len(axes))):
        stack = _laid_out(stack, axes[:last], spec)
    return stack if axes else _laid_out(stack, (), spec)


def _laid_out(stack: jax.Array, lead: tuple[str, ...], spec: Any) -> jax.Array:
    """Divide the leading axis of a stack over mesh axes, the others as a spec says.

    Where no types say how arrays lie, the compiler decides about axes that are not to be whole.
    """
    typed = jax.typeof(stack).sharding
    if not _axes_of(typed.mesh):
        return stack
    explicit = AxisType.Explicit in typed.mesh.axis_types
    if explicit:
        own = typed.spec[1:] if spec is None else spec
        parts = [_without(part, lead) for part in own]
    else:
        free = PartitionSpec.UNCONSTRAINED
        parts = [None if spec == PartitionSpec() else free] * (stack.ndim - 1)
    wanted = NamedSharding(typed.mesh, PartitionSpec(lead or None, *parts))
    return reshard(stack, wanted) if explicit else lax.with_sharding_constraint(stack, wanted)


def _without(part: Any, axes: tuple[str, ...]) -> Any:
    names = (part,) if isinstance(part, str) else tuple(part or ())
    return tuple(name for name in names if name not in axes) or None
