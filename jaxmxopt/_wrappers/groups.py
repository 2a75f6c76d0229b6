"""Different definitions for different parts of a tree."""

import dataclasses
import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxmxopt._core.checks import MismatchError, check_where
from jaxmxopt._core.compiled import flatten_grads
from jaxmxopt._core.config import Node, OrderedMap
from jaxmxopt._core.exported import exportable_node
from jaxmxopt._core.multipliers import nobody
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE, Definition, as_definition, flatten_states
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.frozen import Frozen
from jaxmxopt._wrappers.tree import TreeDefinition

__all__ = ["GroupSlots", "Groups"]

Self = TypeVar("Self", bound="Groups")


@jax.tree_util.register_pytree_with_keys_class
class GroupMap(OrderedMap):
    """Definitions by pattern: a pytree whose children are the definitions."""

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        """The definitions and, as structure, the patterns."""
        pairs = tuple((jax.tree_util.DictKey(key), value) for key, value in self.items())
        return pairs, tuple(self)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        """`tree_flatten_with_keys` without the keys."""
        return tuple(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, keys: tuple[Hashable, ...], values: Iterable[Any]) -> "GroupMap":
        """Rebuilds without checks: children may be placeholders."""
        return cls(zip(keys, values, strict=True))


@jax.tree_util.register_pytree_with_keys_class
class GroupSlots:
    """The states of the groups.

    Attributes:
        states: the `State` of every group, of a tree like `params` with None for the weights of
            others.
        members: the group number of every weight.
    """

    def __init__(self, states: tuple[State, ...], members: tuple[int, ...]) -> None:
        self.states = states
        self.members = members

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The states and, as structure, the members."""
        keys = (jax.tree_util.SequenceKey(number) for number in range(len(self.states)))
        return tuple(zip(keys, self.states, strict=True)), self.members

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """`tree_flatten_with_keys` without the keys."""
        return self.states, self.members

    @classmethod
    def tree_unflatten(cls, members: tuple[int, ...], states: Iterable[Any]) -> "GroupSlots":
        """Rebuilds without checks: children may be placeholders."""
        return cls(tuple(states), members)

    def __repr__(self) -> str:
        return f"GroupSlots({self.states!r})"

    def parts(self, params: Any) -> list[tuple[Any, State]]:
        """The weights of every group, as a tree like `params`, and their state."""
        weights, tree = jax.tree.flatten(params)
        if len(weights) != len(self.members):
            raise ValueError(
                f"State.unpack: the state is of {len(self.members)} weights, "
                f"params has {len(weights)}."
            )
        parts = _parted(tree, self.members, len(self.states), weights)
        return list(zip(parts, self.states, strict=True))

    def unpacked(self, state: State, params: Any) -> Any:
        """What `State.unpack` gives."""
        del state
        shown = [part_state.unpack(part) for part, part_state in self.parts(params)]
        tree = jax.tree.structure(params)
        is_state = lambda node: isinstance(node, State)  # noqa: E731
        return tree.unflatten(_merged(self.members, shown, is_leaf=is_state))


exportable_node(GroupSlots)


class Groups(TreeDefinition):
    """Different definitions for different weights, by patterns of their paths.

    The first pattern that a weight's path matches decides (`fnmatch`: `*` is anything, `/`
    included); a key that is no string must equal the index. A weight that none matches is refused:
    end with `"*"` to take all others. Under `update` the index takes the place of the path, as a
    string.

    A state counts the steps of the whole; the groups count for themselves, as one that accumulates
    has fewer updates.

    Attributes:
        groups: definitions by pattern, in the order in which they are tried. None leaves weights
            as they are: their gradients are not read, and they have no slots.

    For one weight, states are those of its group. For a tree `slots` is a `GroupSlots`, and
    `state.unpack(params)` shows it weight by weight.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt = mxopt.Groups({"*/bias": mxopt.SGD(learning_rate=1.0), "*": mxopt.Adam()})
        >>> w = {"dense": {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}}
        >>> w, state = opt.step(w, w, opt.init(w))
        >>> print(w["dense"]["bias"], w["dense"]["kernel"][0])
        [0. 0.] [0.999 0.999]
    """

    groups: Node[Mapping[Any, Definition | None]] = dataclasses.field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.groups
        if not isinstance(given, Mapping) or not given:
            raise TypeError(f"Groups: groups must be a mapping of patterns, got {given!r}.")
        for pattern, opt in given.items():
            if opt is not None:
                as_definition(f"Groups: groups[{pattern!r}]", opt)
        pairs = ((key, Frozen() if opt is None else opt) for key, opt in given.items())
        object.__setattr__(self, "groups", GroupMap(pairs))

    def replace(self: Self, **changes: Any) -> Self:
        """Returns a copy with some hyperparameters changed.

        What is not `groups` is changed in every group.
        """
        groups = changes.pop("groups", self.groups)
        if changes:
            groups = {key: opt.replace(**changes) for key, opt in groups.items()}
        return super().replace(groups=groups)

    def _number_of(self, index: Hashable) -> int:
        for number, pattern in enumerate(self.groups):
            if pattern == index:
                return number
            if isinstance(pattern, str) and fnmatch.fnmatchcase(str(index), pattern):
                return number
        patterns = ", ".join(map(repr, self.groups))
        raise MismatchError(
            f"a pattern must match every weight, got {patterns}; '*' matches the rest.", index
        )

    def _opts(self) -> list[Definition]:
        return list(self._definitions().values())

    def _definitions(self) -> Mapping[Any, Definition]:
        # `Frozen` has taken the place of None.
        return self.groups  # pyright: ignore[reportReturnType]

    # One weight.

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        try:
            opt = self._opts()[self._number_of(index)]
        except MismatchError as error:
            raise ValueError(f"Groups.{call}({index!r}): {error}") from None
        return opt._create(call, index, weight, masters=masters)

    def _update(self, index: Hashable, weight: Any, grad: Any, state: State) -> Any:
        return self._opts()[self._number_of(index)]._update(index, weight, grad, state)

    def _only(self, index: Hashable) -> tuple[Definition, Hashable]:
        return self._opts()[self._number_of(index)]._only(index)

    # Trees.

    def _init(self, params: Any) -> State:
        try:
            members, parts = self._split(params)
        except MismatchError as error:
            raise ValueError(f"Groups.init({error.index!r}): {error}") from None
        states = tuple(opt._init(part) for opt, part in zip(self._opts(), parts, strict=True))
        return self._of(_largest(states), states, members)

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        try:
            members = [self._number_of(name) for name in names]
        except MismatchError:
            # `_init` says which.
            return []
        messages: list[str] = []
        for number, (pattern, opt) in enumerate(self._definitions().items()):
            if number not in members:
                messages.append(nobody(f"groups[{pattern!r}]", names))
            # Groups may share their multipliers, so the weights of others serve as well.
            messages += opt._without_weight(names)
        return messages

    def _split(self, params: Any) -> tuple[tuple[int, ...], list[Any]]:
        """The group number of every weight, and the trees of the groups."""
        names, weights, tree = flatten_with_names(params)
        members = tuple(self._number_of(name) for name in names)
        return members, _parted(tree, members, len(self.groups), weights)

    def _of(self, count: Any, states: tuple[State, ...], members: tuple[int, ...]) -> State:
        return State(count, GroupSlots(states, members), None)

    def _check_form(self, state: Any, index: Hashable) -> None:
        if index is not WHOLE:
            self._opts()[self._number_of(index)]._check_form(state, index)
            return
        slots = getattr(state, "slots", None)
        if isinstance(slots, GroupSlots) and len(slots.states) == len(self.groups):
            for opt, part_state in zip(self._opts(), slots.states, strict=True):
                opt._check_form(part_state, index)

    def _check_slots(self, state: Any) -> None:
        super()._check_slots(state)
        slots = state.slots
        if not isinstance(slots, GroupSlots) or len(slots.states) != len(self.groups):
            raise MismatchError(
                "state is not of these groups and weights; make it with init(params)."
            )

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        members, parts = self._split(params)
        if members != state.slots.members:
            raise MismatchError(
                "state is not of these groups and weights; make it with init(params)."
            )
        names, _, tree = flatten_with_names(params)
        grad_parts = _parted(tree, members, len(parts), flatten_grads(tree, names, grads))
        ok = check_where(ok)
        updated = [
            opt._step(part, grad_part, part_state, ok, False)
            for opt, part, grad_part, part_state in zip(
                self._opts(), parts, grad_parts, state.slots.states, strict=True
            )
        ]
        new = tree.unflatten(_merged(members, [part for part, _ in updated]))
        count = state.num_update + (1 if ok is None else ok.astype(jnp.int32))
        return new, self._of(count, tuple(part for _, part in updated), members)

    def _pack(self, params: Any, states: Any) -> State:
        members, parts = self._split(params)
        _, _, leaves = flatten_states(params, states)
        tree = jax.tree.structure(params)
        state_parts = _parted(tree, members, len(parts), leaves)
        packed = tuple(
            opt._pack(part, state_part)
            for opt, part, state_part in zip(self._opts(), parts, state_parts, strict=True)
        )
        return self._of(_largest(packed), packed, members)

    # Pieces of wrappers around.

    def _map(self: Self, function: Callable[[Definition], Definition]) -> Self:
        return self._with(
            groups=GroupMap((key, function(opt)) for key, opt in self._definitions().items())
        )

    def _reduced(self: Self) -> Self:
        return self._map(lambda opt: opt._reduced())

    def _rescaling(self, index: Hashable) -> Any:
        return self._opts()[self._number_of(index)]._rescaling(index)

    def _scaled_by(self: Self, factor: Any) -> Self | None:
        scaled = [(key, opt._scaled_by(factor)) for key, opt in self._definitions().items()]
        return (
            None if any(opt is None for _, opt in scaled) else self._with(groups=GroupMap(scaled))
        )

    def _unscaled(self: Self) -> Self:
        return self._map(lambda opt: opt._unscaled())


def _parted(tree: Any, members: Sequence[int], count: int, leaves: Sequence[Any]) -> list[Any]:
    """Trees of the given structure with the leaves of one group each, and None for the others."""

    def part(number: int) -> Any:
        return tree.unflatten(
            [
                leaf if member == number else None
                for leaf, member in zip(leaves, members, strict=True)
            ]
        )

    return [part(number) for number in range(count)]


def _merged(members: Sequence[int], parts: Sequence[Any], is_leaf: Any = None) -> list[Any]:
    """The inverse of `_parted`: the leaves in the order of the whole tree."""
    found = [iter(jax.tree.leaves(part, is_leaf=is_leaf)) for part in parts]
    return [next(found[number]) for number in members]


def _largest(states: Sequence[State]) -> jax.Array:
    """The largest count of a group, in an array of its own."""
    return jnp.max(jnp.stack([state.num_update for state in states]))
