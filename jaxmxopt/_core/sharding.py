"""States over a mesh of devices: as the weights are, or divided among replicas.

Both functions give shardings for `jax.jit`, a tree like `opt.init(params)`::

    shardings = sharding.divided(opt, params, "data")
    state = jax.jit(opt.init, out_shardings=shardings)(params)
    step = jax.jit(train_step, out_shardings=(weight_shardings, shardings), donate_argnums=(0, 1))

The update itself is the same everywhere: XLA partitions it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmxopt._core.definition import Definition, Maker, as_definition
from jaxmxopt._core.names import Tree, path_name
from jaxmxopt._core.slots import Slot, spec_of
from jaxmxopt._core.state import State

__all__ = ["bytes_per_device", "divided", "like_weights"]


def like_weights(opt: Definition, params: Any) -> State:
    """Shardings that put every slot where its weight is.

    What has the shape of its weight is laid out as the weight is, a slot with a number for each
    row like the rows, and scalars are everywhere. An update by elements then needs no
    communication at all, one with norms that of a number for each weight.

    Args:
        opt: a definition.
        params: the tree of weights, or of `jax.ShapeDtypeStruct`, with shardings over one mesh.

    Returns:
        A `State` of shardings, of the structure that `jax.jit(opt.init)(params)` has.

    Raises:
        ValueError: a weight has no `NamedSharding`; the message has its path.
        TypeError: `opt` is no definition.
    """
    return _mapped("like_weights", opt, params, lambda spec, shape, mesh: spec)


def divided(opt: Definition, params: Any, axis: str | tuple[str, ...] = "data") -> State:
    """Shardings that divide slots and masters among the replicas of the weights (ZeRO, stage 1).

    Each is cut along its first dimension that the replicas divide evenly; one without such a
    dimension stays as its weight is, as do scalars. Each replica then updates its part of a
    weight, and the parts are gathered: the communication of a step is one gather for each weight,
    in the dtype of the weight.

    Args:
        opt: a definition.
        params: the tree of weights, or of `jax.ShapeDtypeStruct`, with shardings over one mesh.
            They may be replicated, or divided over other axes. Those over `axis` already stay.
        axis: the mesh axis, or axes, over which the weights are replicas.

    Returns:
        A `State` of shardings, of the structure that `jax.jit(opt.init)(params)` has.

    Raises:
        ValueError: a weight has no `NamedSharding`, or the mesh no such axis.
        TypeError: `opt` is no definition, or `axis` no name.

    References:
        Rajbhandari, Rasley, Ruwase, He: ZeRO, memory optimizations toward training trillion
        parameter models. 2020, arXiv:1910.02054.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmxopt as mxopt
        >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        >>> whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        >>> params = {"w": jax.device_put(jnp.ones((4, 2)), whole)}
        >>> tuple(divided(mxopt.Adam(), params).unpack(params)["w"].slots.mean.spec)
        ('data',)
    """
    axes = (axis,) if isinstance(axis, str) else axis
    if not isinstance(axes, Sequence) or not all(isinstance(name, str) for name in axes):
        raise TypeError(
            f"sharding.divided: axis must be the name of a mesh axis or several, got {axis!r}."
        )

    def cut(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        missing = [name for name in axes if name not in mesh.shape]
        if missing:
            raise ValueError(
                f"sharding.divided: axis must be of the mesh, got {missing[0]!r}, which is none of "
                f"{', '.join(map(repr, mesh.shape))}."
            )
        return _cut(spec, shape, mesh, axes)

    return _mapped("divided", opt, params, cut)


def bytes_per_device(tree: Any) -> dict[Any, int]:
    """Count the bytes that a tree of arrays takes on each device of this process."""
    counts: dict[Any, int] = {}
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            counts[shard.device] = counts.get(shard.device, 0) + shard.data.nbytes
    return counts


class _Shardings(Maker):
    """A sharding in the place of each array of a first state."""

    def __init__(self, mesh: Mesh, place: Callable[..., PartitionSpec]) -> None:
        super().__init__()
        self._mesh, self._place = mesh, place
        self._known: dict[PartitionSpec, NamedSharding] = {}

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return self._known.setdefault(spec, NamedSharding(self._mesh, spec))

    def slot(self, slot: Slot, weight: Any) -> NamedSharding:
        """Return the sharding of a slot: along the axes of its weight as that is."""
        if weight is None or not slot.shape:
            return self._sharding(PartitionSpec())
        spec = spec_of(slot.axes, weight.sharding.spec)
        return self._sharding(self._place(spec, slot.shape, self._mesh))

    def stacked(self, parts: Sequence[Any]) -> Any:
        """Return the sharding of stacked slots: they are everywhere."""
        if len(parts) == 1:
            return parts[0]
        return jax.tree.map(lambda _: self._sharding(PartitionSpec()), parts[0])

    def others(self, function: Callable[[Any], Any], tree: Tree) -> Any:
        """Return shardings by path: what ends in the path of a weight goes with the weight."""
        made = jax.eval_shape(function, tree.like(tree.leaves))
        leaves, structure = jax.tree_util.tree_flatten_with_path(made)
        return structure.unflatten([self._other(path, leaf, tree) for path, leaf in leaves])

    def _other(self, path: Any, leaf: Any, tree: Tree) -> NamedSharding:
        full = "/" + path_name(path)
        pairs = zip(map(str, tree.names), tree.leaves, strict=True)
        fitting = [(n, w) for n, w in pairs if leaf.ndim and full.endswith("/" + n if n else "")]
        if not fitting:
            return self._sharding(PartitionSpec())
        weight = max(fitting, key=lambda pair: len(pair[0]))[1]
        axes = [
            n if weight.shape[n : n + 1] == (size,) else None for n, size in enumerate(leaf.shape)
        ]
        spec = spec_of(axes, weight.sharding.spec)
        return self._sharding(self._place(spec, leaf.shape, self._mesh))


def _mapped(call: str, opt: Definition, params: Any, place: Callable[..., PartitionSpec]) -> State:
    """Return the state of the weights with a sharding in the place of each array."""
    as_definition(f"sharding.{call}: opt", opt)
    tree = Tree.of(params)
    abstract: list[Any] = []
    for name, weight in zip(tree.names, tree.leaves, strict=True):
        given = getattr(weight, "sharding", None)
        if not isinstance(given, NamedSharding):
            raise ValueError(
                f"sharding.{call}({name!r}): weight must have a NamedSharding, got {given}."
            )
        abstract.append(jax.ShapeDtypeStruct(weight.shape, weight.dtype, sharding=given))
    if not abstract:
        return jax.eval_shape(opt.init, params)
    maker = _Shardings(abstract[0].sharding.mesh, place)
    return opt._begin(tree._replace(leaves=abstract), maker)


def _cut(
    spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh, axes: tuple[str, ...]
) -> PartitionSpec:
    """Divides the first dimension that can be over some more axes."""
    parts: list[tuple[str, ...]] = [_names(part) for part in spec]
    parts += [()] * (len(shape) - len(parts))
    if any(name in part for part in parts for name in axes):
        return spec
    for number, (size, part) in enumerate(zip(shape, parts, strict=True)):
        pieces = int(np.prod([mesh.shape[name] for name in (*part, *axes)]))
        if size and size % pieces == 0:
            parts[number] = (*part, *axes)
            return _trimmed([names[0] if len(names) == 1 else names or None for names in parts])
    return spec


def _names(part: Any) -> tuple[str, ...]:
    if part is None:
        return ()
    return (part,) if isinstance(part, str) else tuple(part)


def _trimmed(parts: list[Any]) -> PartitionSpec:
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)
