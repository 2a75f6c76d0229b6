"""The state of one weight, or of a whole tree of weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.exported import exportable, exportable_node
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.names import Tree

__all__ = [
    "GroupSlots",
    "MasterState",
    "State",
    "common",
    "counted",
    "counts",
    "indivisible",
    "innermost",
    "is_wrapper",
    "masters",
    "owned",
    "per_weight",
    "unpacked",
    "wrapper_slots",
]

Kind = TypeVar("Kind", bound=type)


@exportable
class State(NamedTuple):
    """The state of an optimizer between updates: of one weight, or of a tree.

    Attributes:
        num_update: int32 scalar, the updates so far.
        slots: for one weight the algorithm's own NamedTuple under MXNet's names, `()` where it
            has none; for a tree the same, laid out for speed: see `unpack`.
        master: the float32 copy of a half-precision weight, or None.
    """

    num_update: jax.Array
    slots: Any
    master: Any

    def __eq__(self, other: object) -> bool:
        """True if all arrays have the same values and dtypes, in the same places."""
        if not isinstance(other, State):
            return NotImplemented
        (mine, structure), (theirs, others) = jax.tree.flatten(self), jax.tree.flatten(other)
        return structure == others and all(map(_are_equal, mine, theirs))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def unpack(self, params: Any) -> Any:
        """Show the state of a tree weight by weight.

        Args:
            params: the tree that the state was made for.

        Returns:
            A tree like `params` with a `State` for every weight. Leaves that the engine keeps
            stacked are sliced out; `OptimizerDef.pack` goes back.

        Raises:
            TypeError: the state is of one weight.
            ValueError: the state is of other weights.
        """
        tree = Tree.of(params)
        return tree.like(unpacked(self, tree))


def _are_equal(one: Any, other: Any) -> bool:
    """True if two leaves have the same dtype, shape and values."""
    if getattr(one, "dtype", None) != getattr(other, "dtype", None):
        return False
    if hasattr(one, "dtype") and jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.array_equal(one, other)


@exportable
class MasterState(NamedTuple):
    """The state of a half-precision weight in a stateful optimizer: `master, slots = state`.

    Attributes:
        master: the float32 copy of the weight.
        slots: the algorithm's own, in float32; for a custom optimizer what its `create_state`
            made of the master.
    """

    master: jax.Array
    slots: Any


@jax.tree_util.register_pytree_with_keys_class
class GroupSlots:
    """The states of groups of weights.

    Attributes:
        states: the `State` of every group, of a tree like `params` with None for the weights of
            others.
        members: the group number of every weight.
    """

    def __init__(self, states: tuple[State, ...], members: tuple[int, ...]) -> None:
        self.states = states
        self.members = members

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Return the states and, as structure, the members."""
        keys = (jax.tree_util.SequenceKey(number) for number in range(len(self.states)))
        return tuple(zip(keys, self.states, strict=True)), self.members

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Return `tree_flatten_with_keys` without the keys."""
        return self.states, self.members

    @classmethod
    def tree_unflatten(cls, members: tuple[int, ...], states: Iterable[Any]) -> "GroupSlots":
        """Rebuild without checks: children may be placeholders."""
        return cls(tuple(states), members)

    def __repr__(self) -> str:
        return f"GroupSlots({self.states!r})"

    def parts(self, tree: Tree) -> list[tuple[list[int], State]]:
        """Return, of each group, the numbers of its weights in a tree and its state."""
        if len(self.members) != len(tree.names):
            raise ValueError(
                f"State.unpack: the state is of {len(self.members)} weights, params has "
                f"{len(tree.names)}."
            )
        return [
            ([n for n, member in enumerate(self.members) if member == number], state)
            for number, state in enumerate(self.states)
        ]


exportable_node(GroupSlots)

_WRAPPERS: dict[type, Callable[[Any], tuple[str, ...]]] = {}


def wrapper_slots(fields: Callable[[Any], tuple[str, ...]]) -> Callable[[Kind], Kind]:
    """Declare a NamedTuple the slots of a wrapper; a decorator.

    The first field, `inner`, holds the slots of the definition inside. `fields` names, of such
    slots, the fields that are trees like the weights; the rest are numbers for the whole tree.
    """

    def declared(kind: Kind) -> Kind:
        _WRAPPERS[kind] = fields
        return exportable(kind)

    return declared


_INDIVISIBLE: dict[type, str] = {}


def indivisible(why: str) -> Callable[[Kind], Kind]:
    """Declare slots that cannot be taken apart weight by weight, and say why; a decorator."""

    def declared(kind: Kind) -> Kind:
        _INDIVISIBLE[kind] = why
        return exportable(kind)

    return declared


def is_wrapper(slots: Any) -> bool:
    """True if slots are those of a wrapper, around those of the definition inside."""
    return type(slots) in _WRAPPERS


def per_weight(slots: Any) -> tuple[str, ...]:
    """Return the names of the fields of a wrapper's slots that are trees like the weights."""
    return _WRAPPERS[type(slots)](slots)


def innermost(slots: Any) -> Any:
    """Return the slots inside those of all wrappers."""
    while is_wrapper(slots):
        slots = slots.inner
    return slots


def counted(num_update: Any) -> jax.Array:
    """Return a count raised by one; the largest number of its dtype stays."""
    num_update = jnp.asarray(num_update)
    return num_update + (num_update < jnp.iinfo(num_update.dtype).max).astype(num_update.dtype)


def owned(scalar: Any) -> Any:
    """Return a copy of an array; what stands for one, such as its sharding, as it is."""
    return jnp.array(scalar) if isinstance(scalar, (jax.Array, np.ndarray)) else scalar


def counts(tree: Tree, state: State) -> list[Any]:
    """Return how often every weight of a tree has been updated."""
    slots = innermost(state.slots)
    if not isinstance(slots, GroupSlots):
        return [state.num_update] * len(tree.names)
    return _of_groups(tree, slots, counts)


def masters(tree: Tree, state: State) -> list[Any]:
    """Return the master of every weight of a tree, None where it has none."""
    slots = innermost(state.slots)
    if isinstance(slots, GroupSlots):
        return _of_groups(tree, slots, masters)
    if not isinstance(state.master, Packed):
        return [state.master] * len(tree.names)
    if (misfit := state.master.layout.misfit(tree.names)) is not None:
        raise ValueError(f"state is of {misfit}.")
    return state.master.unpack()


def _of_groups(tree: Tree, slots: GroupSlots, of: Callable[[Tree, State], list[Any]]) -> list[Any]:
    """Return what a function gives for each group, in the order of the whole tree."""
    found: list[Any] = [None] * len(tree.names)
    for numbers, state in slots.parts(tree):
        for number, value in zip(numbers, of(tree.part(numbers), state), strict=True):
            found[number] = value
    return found


def unpacked(state: State, tree: Tree) -> list[State]:
    """Return the state of every weight of a tree."""
    slots = state.slots
    if isinstance(slots, GroupSlots):
        return _of_groups(tree, slots, lambda part, state: unpacked(state, part))
    if is_wrapper(slots):
        return _unwrapped(state, tree)
    if isinstance(slots, Packed) and isinstance(state.master, Packed):
        if (misfit := slots.layout.misfit(tree.names)) is not None:
            raise ValueError(f"State.unpack: the state is of {misfit}.")
        parts = zip(slots.unpack(), state.master.unpack(), strict=True)
        # A count of its own for each, so that all can be donated.
        return [State(owned(state.num_update), *both) for both in parts]
    if type(slots) in _INDIVISIBLE:
        raise TypeError(f"State.unpack: {_INDIVISIBLE[type(slots)]}.")
    raise TypeError("State.unpack: this is the state of one weight, not of a tree.")


def _unwrapped(state: State, tree: Tree) -> list[State]:
    """Return the state of every weight, with its part of what a wrapper keeps."""
    slots = state.slots
    inner = unpacked(state._replace(slots=slots.inner), tree)
    own = slots._asdict()
    del own["inner"]
    trees = {name: tree.structure.flatten_up_to(own.pop(name)) for name in per_weight(slots)}

    def of_weight(number: int, state: State) -> State:
        # Numbers of its own for each, so that all can be donated.
        mine = {name: owned(value) for name, value in own.items()}
        mine |= {name: values[number] for name, values in trees.items()}
        return state._replace(slots=type(slots)(inner=state.slots, **mine))

    return [of_weight(number, one) for number, one in enumerate(inner)]


def common(field: str, values: Sequence[Any]) -> Any:
    """Return what all weights of a tree have in common, told by each of them.

    Raises:
        ValueError: they differ; the message begins with the field.
    """
    known = {np.asarray(x).item() for x in values if not isinstance(x, Tracer)}
    if len(known) > 1:
        raise ValueError(f"all {field} must be equal, got {sorted(known)}.")
    return values[0]
