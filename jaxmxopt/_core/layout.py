"""The layout of the slots of a whole tree: small weights of one shape share an array."""

import dataclasses
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxmxopt._core.exported import exportable_node

__all__ = ["Layout", "Packed", "stack", "unstack"]

# Below this many elements the cost of a weight is that of one more array, not of its elements.
SMALL = 16384
# Fewer weights of one shape are not worth what slicing them apart costs to compile.
MANY = 96


@dataclasses.dataclass(frozen=True)
class Layout:
    """The groups of leaves that share an array.

    Attributes:
        groups: the leaf numbers of each group, in order; a group of one stands alone.
        names: the paths of the leaves, None where nothing says them.
    """

    groups: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(
        cls, weights: Sequence[Any], kinds: Sequence[Hashable], names: Sequence[str] | None = None
    ) -> "Layout":
        """Group the small weights of equal shape, dtype and kind that live on one device."""
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
            ),
            None if names is None else tuple(names),
        )

    @property
    def size(self) -> int:
        """The number of leaves."""
        return sum(len(members) for members in self.groups)

    @property
    def unshared(self) -> bool:
        """True if every leaf has arrays of its own."""
        return len(self.groups) == self.size

    def misfit(self, names: Sequence[Any]) -> str | None:
        """Return the first difference between leaves and paths, None if there is none."""
        if self.size != len(names):
            return f"{self.size} weights, params has {len(names)}"
        pairs = zip(names if self.names is None else self.names, names, strict=True)
        other = next(((own, given) for own, given in pairs if own != given), None)
        return None if other is None else f"{other[0]!r} where params has {other[1]!r}"

    def pack(self, per_leaf: Sequence[Any], stacked: Any = None) -> "Packed":
        """Stack what belongs to each leaf, group by group.

        Args:
            per_leaf: of every leaf.
            stacked: takes the place of `stack`.
        """
        put = stacked or stack
        return Packed(tuple(put([per_leaf[i] for i in members]) for members in self.groups), self)


def _spread(weight: Any) -> bool:
    """True if an array lies on several devices; a traced one tells only by its type."""
    if isinstance(weight, Tracer):
        return not jax.typeof(weight).sharding.mesh.empty
    if isinstance(weight, jax.ShapeDtypeStruct):
        found: list[bool] = []
        jax.eval_shape(lambda traced: found.append(_spread(traced)), weight)
        return found[0]
    return len(weight.sharding.device_set) > 1 if isinstance(weight, jax.Array) else False


class Packed:
    """One pytree for every group of a layout; a group of several has a leading axis."""

    def __init__(self, groups: tuple[Any, ...], layout: Layout) -> None:
        self.groups = groups
        self.layout = layout

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        """Return the groups and, as structure, the layout."""
        return self.groups, self.layout

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Layout]:
        """`tree_flatten` with the path of the first weight of each group, if it is known."""
        names = self.layout.names or range(self.layout.size)
        keys = (jax.tree_util.DictKey(names[members[0]]) for members in self.layout.groups)
        return tuple(zip(keys, self.groups, strict=True)), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, groups: tuple[Any, ...]) -> "Packed":
        """Rebuilds without checks: children may be placeholders."""
        return cls(tuple(groups), layout)

    def __repr__(self) -> str:
        return f"Packed({self.groups!r})"

    def unpack(self) -> list[Any]:
        """Return the part of each leaf, in the order of the leaves."""
        leaves: list[Any] = [None] * self.layout.size
        for members, group in zip(self.layout.groups, self.groups, strict=True):
            for number, part in zip(members, unstack(group, len(members)), strict=True):
                leaves[number] = part
        return leaves


jax.tree_util.register_pytree_with_keys_class(Packed)
exportable_node(Packed, lambda layout: (layout.groups, layout.names), lambda parts: Layout(*parts))


def stack(parts: Sequence[Any]) -> Any:
    """Put equal pytrees behind one another along a new leading axis; one stays as it is."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def unstack(group: Any, count: int) -> list[Any]:
    """Undo `stack`."""
    if count == 1:
        return [group]
    return [jax.tree.map(operator.itemgetter(i), group) for i in range(count)]
