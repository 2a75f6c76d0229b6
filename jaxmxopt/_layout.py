"""How the slots of a whole tree are laid out: small weights of one shape share an array."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxmxopt._exported import exportable_node

__all__ = ["Layout", "Packed", "stack", "unstack"]

# Below this many elements the cost of a weight is that of one more array, not of its elements.
SMALL = 16384
# Fewer weights of one shape are not worth what slicing them apart costs to compile.
MANY = 96


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaves of a tree share an array.

    Attributes:
        groups: the leaf numbers of each group, in order; a group of one stands alone.
    """

    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, weights: Sequence[Any], kinds: Sequence[Hashable]) -> "Layout":
        """Groups the small weights of equal shape, dtype and kind that live on one device."""
        groups: dict[Hashable, list[int]] = {}
        for number, (weight, kind) in enumerate(zip(weights, kinds, strict=True)):
            alone = weight.size > SMALL or weight.size == 0 or _spread(weight)
            key = number if alone else (weight.shape, weight.dtype, kind)
            groups.setdefault(key, []).append(number)
        return cls(
            tuple(
                part
                for members in groups.values()
                for part in ([tuple(members)] if len(members) >= MANY else [(n,) for n in members])
            )
        )

    @property
    def size(self) -> int:
        """The number of leaves."""
        return sum(len(members) for members in self.groups)

    @property
    def unshared(self) -> bool:
        """Whether every leaf has arrays of its own."""
        return len(self.groups) == self.size

    def pack(self, per_leaf: Sequence[Any]) -> "Packed":
        """Stacks what belongs to each leaf, group by group."""
        return Packed(tuple(stack([per_leaf[i] for i in members]) for members in self.groups), self)


def _spread(weight: Any) -> bool:
    """Whether an array lies on several devices; a traced one tells only by its type."""
    if isinstance(weight, Tracer):
        return not jax.typeof(weight).sharding.mesh.empty
    return len(weight.sharding.device_set) > 1 if isinstance(weight, jax.Array) else False


class Packed:
    """One pytree for every group of a layout; a group of several has a leading axis."""

    def __init__(self, groups: tuple[Any, ...], layout: Layout) -> None:
        self.groups = groups
        self.layout = layout

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        """The groups and, as structure, the layout."""
        return self.groups, self.layout

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Layout]:
        """`tree_flatten` with the numbers of the groups."""
        keys = (jax.tree_util.SequenceKey(i) for i in range(len(self.groups)))
        return tuple(zip(keys, self.groups, strict=True)), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, groups: tuple[Any, ...]) -> "Packed":
        """Rebuilds without checks: children may be placeholders."""
        return cls(tuple(groups), layout)

    def __repr__(self) -> str:
        return f"Packed({self.groups!r})"

    def unpack(self, weights: Sequence[Any]) -> list[Any]:
        """What belongs to each leaf, in the order of the leaves."""
        if len(weights) != self.layout.size:
            raise ValueError(
                f"State.unpack: the state is of {self.layout.size} weights, "
                f"params has {len(weights)}."
            )
        leaves: list[Any] = [None] * self.layout.size
        for members, group in zip(self.layout.groups, self.groups, strict=True):
            for number, part in zip(members, unstack(group, len(members)), strict=True):
                leaves[number] = part
        return leaves


jax.tree_util.register_pytree_with_keys_class(Packed)
exportable_node(Packed, lambda layout: layout.groups, Layout)


def stack(parts: Sequence[Any]) -> Any:
    """Puts equal pytrees behind one another along a new leading axis; one stays as it is."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def unstack(group: Any, count: int) -> list[Any]:
    """The inverse of `stack`."""
    if count == 1:
        return [group]
    take: Callable[[int], Callable[[Any], Any]] = lambda i: lambda leaf: leaf[i]  # noqa: E731
    return [jax.tree.map(take(i), group) for i in range(count)]
