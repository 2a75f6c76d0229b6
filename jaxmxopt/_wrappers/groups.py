"""Different definitions for different parts of a tree."""

import dataclasses
import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.checks import MismatchError
from jaxmxopt._core.config import Config, Node, OrderedMap, Static
from jaxmxopt._core.definition import Arrays, Definition, Maker, as_definition
from jaxmxopt._core.engine import Given
from jaxmxopt._core.layout import Layout
from jaxmxopt._core.names import Tree, nobody
from jaxmxopt._core.slots import Like
from jaxmxopt._core.state import GroupSlots, State, common, counted

__all__ = [
    "Frozen",
    "GroupSlots",
    "Groups",
    "HiddenMatrices",
    "by_kind",
]

Self = TypeVar("Self", bound="Frozen")


class Frozen(Definition):
    """Leaves weights as they are, reads no gradient and keeps nothing but a count.

    What `None` stands for in `Groups`.
    """

    _reads_gradients: ClassVar[bool] = False

    def replace(self: Self, **changes: Any) -> Self:
        """Return itself: there are no hyperparameters, and groups hand those on to all."""
        del changes
        return self

    def __repr__(self) -> str:
        return "None"

    def _begin(self, tree: Tree, maker: Maker) -> State:
        return self._of(tree, maker.slot(Like((), jnp.int32).zeros((), jnp.int32), None))

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        del given
        count = counted(state.num_update)
        return tree.leaves, state._replace(num_update=count)

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        counts = [state.num_update for state in states]
        return self._of(tree, common("num_update", counts) if counts else jnp.int32(0))

    def _of(self, tree: Tree, count: Any) -> State:
        if not tree.whole:
            return State(count, (), None)
        groups = tuple((number,) for number in range(len(tree.names)))
        layout = Layout(groups, tuple(str(name) for name in tree.names))
        nothing = layout.pack([()] * len(groups))
        return State(count, nothing, layout.pack([None] * len(groups)))

    def _for(self, index: Hashable, shape: Sequence[int]) -> tuple[Definition, Hashable]:
        del index, shape
        return self, ""


Self = TypeVar("Self", bound="Groups")


@jax.tree_util.register_pytree_with_keys_class
class GroupMap(OrderedMap):
    """Definitions by pattern: a pytree whose children are the definitions."""

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        """Return the definitions and, as structure, the patterns."""
        pairs = tuple((jax.tree_util.DictKey(key), value) for key, value in self.items())
        return pairs, tuple(self)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Hashable, ...]]:
        """`tree_flatten_with_keys` without the keys."""
        return tuple(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, keys: tuple[Hashable, ...], values: Iterable[Any]) -> "GroupMap":
        """Rebuilds without checks: children may be placeholders."""
        return cls(zip(keys, values, strict=True))


class Groups(Definition):
    """Different definitions for different weights, by patterns of their paths.

    The first pattern that a weight's path matches decides (`fnmatch`: `*` is anything, `/`
    included). A key may be a function of the path and the shape, which is True for the weights
    that the group takes. Any other key must equal the index. A weight that none matches is refused:
    end with `"*"` to take all others. Under `update` the index takes the place of the path, as a
    string. `by_kind` makes the usual groups, and `table` says which weight is in which.

    A state counts the steps of the whole; the groups count for themselves, as one that accumulates
    has fewer updates.

    Attributes:
        groups: definitions by pattern, in the order in which they are tried. None leaves weights
            as they are: their gradients are not read, they have no slots, and they may be of any
            dtype.

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
        """Return a copy with some hyperparameters changed.

        What is not `groups` is changed in every group.
        """
        groups = changes.pop("groups", self.groups)
        if changes:
            groups = {key: opt.replace(**changes) for key, opt in groups.items()}
        return super().replace(groups=groups)

    def table(self, params: Any) -> str:
        """Return a text that says which weight is in which group.

        Args:
            params: the tree of weights.

        Returns:
            A line for every weight, in order: its path, its shape, its key and its definition.
        """
        tree, pairs = Tree.of(params), list(self._definitions().items())
        lines = [("weight", "shape", "group", "definition")]
        for name, leaf, number in zip(tree.names, tree.leaves, self._members(tree), strict=True):
            key, opt = pairs[number]
            kind = key.__name__ if hasattr(key, "__name__") else repr(key)
            lines.append((str(name), "x".join(map(str, np.shape(leaf))), kind, repr(opt)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join(rows)

    def _number_of(self, index: Hashable, shape: Sequence[int]) -> int:
        for number, pattern in enumerate(self.groups):
            if pattern == index or (callable(pattern) and pattern(str(index), tuple(shape))):
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

    # What every definition implements.

    def _begin(self, tree: Tree, maker: Maker) -> State:
        members = self._members(tree)
        if not tree.whole:
            return self._opts()[members[0]]._begin(tree, maker)
        parts = _parts(members, len(self.groups))
        states = tuple(
            opt._begin(tree.part(numbers), maker)
            for opt, numbers in zip(self._opts(), parts, strict=True)
        )
        count = maker.slot(Like((), jnp.int32).full(self._first_count(), (), jnp.int32), None)
        return State(count, GroupSlots(states, members), None)

    def _first_count(self) -> int:
        return max(getattr(one, "begin_num_update", 0) for one in self._inside())

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        members = self._members(tree)
        if not tree.whole:
            return self._opts()[members[0]]._advance(tree, state, given)
        slots = self._checked(state)
        if members != slots.members:
            raise MismatchError(
                "state is not of these groups and weights; make it with init(params)."
            )
        new: list[Any] = list(tree.leaves)
        states: list[State] = []
        parts = zip(self._opts(), _parts(members, len(self.groups)), slots.states, strict=True)
        for opt, numbers, part_state in parts:
            weights, after = opt._advance(tree.part(numbers), part_state, given.part(numbers))
            states.append(after)
            for number, weight in zip(numbers, weights, strict=True):
                new[number] = weight
        count = counted(state.num_update)
        return new, State(count, GroupSlots(tuple(states), members), None)

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        members = self._members(tree)
        # The largest count of a weight, in an array of its own.
        count = jnp.max(jnp.stack([jnp.asarray(state.num_update) for state in states] or [0]))

        def of_group(opt: Definition, numbers: Sequence[int]) -> State:
            if numbers:
                return opt._packed(tree.part(numbers), [states[n] for n in numbers])
            # A group of no weight counts with the others.
            empty = opt._begin(tree.part(numbers), Arrays())
            return empty._replace(num_update=jnp.array(count))

        parts = zip(self._opts(), _parts(members, len(self.groups)), strict=True)
        packed = tuple(of_group(*part) for part in parts)
        return State(count, GroupSlots(packed, members), None)

    def _for(self, index: Hashable, shape: Sequence[int]) -> tuple[Definition, Hashable]:
        return self._opts()[self._number_of(index, shape)]._for(index, shape)

    def _map(self: Self, function: Callable[[Any, Any], Any], state: Any = None) -> Self:
        states = [None] * len(self.groups) if state is None else self._checked(state).states
        pairs = zip(self._definitions().items(), states, strict=True)
        return self._with(
            groups=GroupMap((key, opt._map(function, part)) for (key, opt), part in pairs)
        )

    def _unmatched(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        try:
            members = [self._number_of(*pair) for pair in shapes.items()]
        except MismatchError:
            # `_begin` says which.
            return []
        messages: list[str] = []
        for number, (pattern, opt) in enumerate(self._definitions().items()):
            if number not in members:
                messages.append(nobody(f"groups[{pattern!r}]", shapes))
            # Groups may share their multipliers, so the weights of others serve as well.
            messages += opt._unmatched(shapes)
        return messages

    def _members(self, tree: Tree) -> tuple[int, ...]:
        """Return the group number of every weight."""
        return tuple(
            self._number_of(name, np.shape(leaf))
            for name, leaf in zip(tree.names, tree.leaves, strict=True)
        )

    def _checked(self, state: Any) -> GroupSlots:
        slots = state.slots
        if not isinstance(slots, GroupSlots) or len(slots.states) != len(self.groups):
            raise MismatchError(
                "state is not of these groups and weights; make it with init(params)."
            )
        return slots


def _parts(members: Sequence[int], count: int) -> list[list[int]]:
    """Return the numbers of the weights of each group."""
    return [[n for n, member in enumerate(members) if member == number] for number in range(count)]


# Parts of the paths of weights that are no matrices between layers, or the first or last layer's.
_OUTER = ("*emb*", "wte", "wpe", "head", "*_head", "*logits*", "*norm*", "ln*", "*bias", "scale")


class HiddenMatrices(Config):
    """A key of `Groups`: weights of two axes or more, but for embeddings, heads and norms.

    Attributes:
        outer: patterns; a weight is left out if a part of its path matches one, in lower case.

    Raises:
        TypeError: `outer` is not a sequence of strings.
    """

    outer: Static[tuple[str, ...]] = _OUTER

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.outer, str) or not all(isinstance(one, str) for one in self.outer):
            raise TypeError(f"outer must be a sequence of patterns, got {self.outer!r}.")

    def __call__(self, name: str, shape: Sequence[int]) -> bool:
        """True for the path and the shape of a weight that is between layers."""
        parts = name.lower().replace(".", "/").split("/")
        outer = any(fnmatch.fnmatchcase(part, key) for part in parts for key in self.outer)
        return len(shape) > 1 and not outer


def by_kind(
    matrices: Definition, others: Definition | None, outer: Sequence[str] = _OUTER
) -> Groups:
    """Return groups by kind of weight, as Muon, SOAP and Shampoo are used.

    Args:
        matrices: for the matrices between layers: weights of two axes or more.
        others: for embeddings, heads, norms and biases; None leaves those as they are.
        outer: patterns of the parts of paths that name embeddings, heads, norms and biases.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt = mxopt.by_kind(mxopt.Muon(), mxopt.AdamW())
        >>> params = {"embed": jnp.ones((4, 2)), "dense": {"kernel": jnp.ones((2, 2))}}
        >>> print(opt.table(params))
        weight        shape  group             definition
        dense/kernel  2x2    HiddenMatrices()  Muon()
        embed         4x2    '*'               AdamW()
    """
    patterns: Any = outer if isinstance(outer, str) else tuple(outer)
    return Groups({HiddenMatrices(outer=patterns): matrices, "*": others})
