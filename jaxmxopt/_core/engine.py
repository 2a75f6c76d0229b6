"""How a rule runs: precision, skipping, rows, groups. All of it once, around every rule.

A rule sees one weight in compute precision, its gradient, its slots and the rates of this
update, and returns the new weight and slots.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, reshard

from jaxmxopt._core.checks import check_ruled
from jaxmxopt._core.in_place import apart
from jaxmxopt._core.layout import SMALL, stack, unstack
from jaxmxopt._core.numeric import compute_dtype, on_cpu
from jaxmxopt._core.one_kernel import in_one_kernel
from jaxmxopt._core.one_loop import is_known, needs_all
from jaxmxopt._core.opaque import opaque
from jaxmxopt._core.rates import RatesByRow
from jaxmxopt._core.rows import change_rows
from jaxmxopt._core.short_loop import LONGEST, Loop, in_short_loops
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.zero import as_arrays, called

__all__ = [
    "Member",
    "Rule",
    "are_small",
    "in_precision",
    "update_group",
    "update_one",
    "update_small",
    "update_weight",
]

# An innermost axis shorter than this is not vectorised.
VECTORISED = 16
# How many rows of a stack are taken apart by one call.
TOGETHER = 10


class Rule(Protocol):
    """What the engine asks of an algorithm."""

    lazy_update: bool
    _rowwise: bool

    def _idle(self, rates: Any) -> jax.Array | None: ...

    def _adapt(self, rates: Any, weight: jax.Array, grad: jax.Array) -> Any: ...

    def _rule(self, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any: ...

    def _row_rule(self, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any: ...


def in_precision(tree: Any, dtype: Any) -> Any:
    """Rounds every floating leaf to a dtype; counts and keys stay."""

    def cast(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return lax.convert_element_type(leaf, dtype) if _floating(leaf) else leaf

    return jax.tree.map(cast, tree)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def update_weight(
    opt: Any,
    rates: Any,
    weight: Any,
    grad: Any,
    slots: Any,
    master: Any,
    ok: Any,
    adapts: bool,
    kept: bool = False,
) -> tuple[Any, Any, Any]:
    """One update of one weight.

    Args:
        opt: the algorithm, its numbers traced.
        rates: its `Rates`.
        weight: as stored, of any floating dtype.
        grad: an array or a `RowSparse`.
        slots: the algorithm's slots, as stored.
        master: the weight in full precision, or None.
        ok: scalar bool, False to leave everything as it is; None for always.
        adapts: whether rates that depend on the whole weight (LARS) apply to this one.
        kept: whether the program needs all that is returned and knows nothing of what is given,
            so that results may share loops.

    Returns:
        The new weight, slots and master, in the dtypes of the old ones.
    """
    dtype = compute_dtype(weight.dtype)
    opt, rates = in_precision(opt, dtype), in_precision(rates, dtype)
    idle = opt._idle(rates)
    if idle is not None:
        ok = ~idle if ok is None else ok & ~idle
    rule = opt._rule
    if isinstance(grad, RowSparse):
        if opt.lazy_update and opt._rowwise and grad.shape[0] > 0:
            return _update_rows(opt, rates, weight, grad, slots, master, ok, adapts)
        rule, grad = opt._row_rule, grad.astype(dtype).todense()
    shares = kept and is_known(rule)

    def updated(weight: Any, grad: Any, slots: Any, master: Any) -> tuple[Any, Any, Any]:
        grad, full = grad.astype(dtype), weight.astype(dtype)
        final = called(opt._adapt, rates, dtype, full, grad) if adapts else rates
        full = full if master is None else master
        # Divided slots: each device computes its part alone.
        part = next((s for s in jax.tree.leaves(slots) if s.shape == full.shape), full)
        full, grad = _laid_out(full, part), _laid_out(grad, part)
        old = in_precision(slots, dtype)
        # From here on no result of the rule may be dropped: see `together`.
        with needs_all(shares):
            new, new_slots = check_ruled(called(rule, final, dtype, full, grad, old), full, old)
        new_slots = _stored(slots, new_slots, None)
        rounded = _laid_out(new.astype(weight.dtype), weight)
        return rounded, new_slots, None if master is None else _laid_out(new, master)

    if ok is None:
        return updated(weight, grad, slots, master)
    # A selection at the end would have XLA compute the weight from the old slots, and copy them.
    return lax.cond(ok, updated, lambda w, g, s, m: (w, s, m), weight, grad, slots, master)


def _laid_out(array: Any, like: Any) -> Any:
    """Lays an array out as another, where the types say how: on meshes with explicit axes."""
    wanted = jax.typeof(like).sharding
    if AxisType.Explicit not in wanted.mesh.axis_types or jax.typeof(array).sharding == wanted:
        return array
    return reshard(array, wanted)


def _stored(old: Any, new: Any, ok: Any) -> Any:
    """Rounds to the dtypes of the old values, which stay where `ok` is False."""

    def keep(old: Any, new: Any) -> Any:
        new = _laid_out(new.astype(old.dtype) if _floating(old) else new, old)
        return new if ok is None else jnp.where(ok, new, old)

    return jax.tree.map(keep, old, new)


def _update_rows(
    opt: Any,
    rates: Any,
    weight: Any,
    grad: RowSparse,
    slots: Any,
    master: Any,
    ok: Any,
    adapts: bool,
) -> tuple[Any, Any, Any]:
    """Updates the rows that a gradient holds and reads no others."""
    dtype, height = compute_dtype(weight.dtype), weight.shape[0]
    rows = grad.astype(dtype).unique()
    if adapts:
        rates = called(opt._adapt, rates, dtype, weight.astype(dtype), rows.inside(height))

    def updated(old: Any, values: Any) -> Any:
        weight, slots, master = old
        full = weight.astype(dtype) if master is None else master
        held = in_precision(slots, dtype)
        ruled = called(opt._row_rule, rates, dtype, full, values, held)
        new, new_slots = check_ruled(ruled, full, held)
        return _stored(old, (new, new_slots, None if master is None else new), ok)

    return change_rows(updated, (weight, slots, master), rows, height)


# Shared by all weights of one shape, so that tracing and compiling it happens once.
_update_shared = jax.jit(update_weight, static_argnames=("adapts", "kept"))
_update_apart = apart(update_weight, static_argnames=("adapts", "kept"))


def are_small(weights: Sequence[Any], grads: Sequence[Any]) -> bool:
    """Whether `update_small` may be of use: small weights with gradients that are arrays."""
    dense = not any(grad is None or isinstance(grad, RowSparse) for grad in grads)
    return dense and sum(weight.size for weight in weights) <= LONGEST


class Member(NamedTuple):
    """A weight of several, and what is its own: see `update_weight`."""

    rates: Any
    weight: Any
    grad: Any
    slots: Any
    master: Any


def update_small(
    opt: Any, members: Sequence[Member], ok: Any, adapts: Sequence[bool], in_place: bool
) -> list[tuple[Any, Any, Any]]:
    """`update_weight` for small weights, all that a program has which is compiled by itself.

    `in_place` says that weights, slots and masters may be written over.
    """

    def in_loops(opt: Any, members: Sequence[Member], ok: Any) -> list[Any]:
        def loop(member: Member, adapts: bool) -> Loop:
            def updated(old: Any, opt: Any, rates: Any, grad: Any, ok: Any) -> Any:
                weight, slots, master = old
                return _update_shared(opt, rates, weight, grad, slots, master, ok, adapts=adapts)

            rates, weight, grad, *others = member
            return Loop(updated, (weight, *others), (opt, rates, grad, ok))

        return in_short_loops(list(map(loop, members, adapts)), in_place)

    def each(opt: Any, members: Sequence[Member], ok: Any) -> list[Any]:
        pairs = zip(members, adapts, strict=True)
        return [update_one(opt, *member, ok, adapts=a, own=True) for member, a in pairs]

    return in_one_kernel(in_loops, each, opt, members, ok)


def update_one(
    opt: Any,
    rates: Any,
    weight: Any,
    grad: Any,
    slots: Any,
    master: Any,
    ok: Any,
    adapts: bool,
    own: bool,
) -> tuple[Any, Any, Any]:
    """`update_weight` for a weight that shares its arrays with no other."""
    shape, merged = weight.shape, _merged(weight)
    large = merged != shape or weight.size > SMALL
    if isinstance(grad, RowSparse) or not on_cpu() or not large:
        return _update_shared(opt, rates, weight, grad, slots, master, ok, adapts=adapts)

    def to(old: tuple[int, ...], new: tuple[int, ...], tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(new) if leaf.shape == old else leaf, tree)

    # XLA would fuse the reshapes into the arithmetic and lose the donated buffers.
    weight, grad, slots, master = to(shape, merged, (weight, grad, slots, master))
    if own or weight.size <= SMALL:
        # And it would run the first loops of all weights before the second ones, which find
        # nothing in the caches then and need all temporaries at once.
        arrays = weight, grad, slots, master
        updated = _update_apart(opt, rates, *arrays, ok, adapts=adapts, kept=own)
    else:
        # In a caller's program a call would keep a large gradient from being fused with what
        # computes it. Of the others XLA may find nothing out, and he may use what he likes.
        weight, slots, master = opaque((weight, slots, master))
        arrays = weight, grad, slots, master
        kept = not _is_rounded(weight if master is None else master, slots)
        updated = opaque(_update_shared(opt, rates, *arrays, ok, adapts=adapts, kept=kept))
    return to(merged, shape, updated)


def _is_rounded(weight: Any, slots: Any) -> bool:
    """Whether results are rounded when they are stored: what shares a loop is stored before."""
    stored = [leaf for leaf in jax.tree.leaves((weight, slots)) if _floating(leaf)]
    return any(leaf.dtype != compute_dtype(leaf.dtype) for leaf in stored)


def _merged(weight: Any) -> tuple[int, ...]:
    """The shape in which XLA's CPU loops vectorise: a convolution's short last axes, merged.

    The first axis stays, and axes merge with those before them, so a weight that is sharded
    along its leading axes keeps its shards. Where the type says how it is laid out, it stays so.
    """
    shape: tuple[int, ...] = weight.shape
    spread = not jax.typeof(weight).sharding.mesh.empty
    if spread or len(shape) < 3 or not 1 < shape[-1] < VECTORISED:
        return shape
    lead, last = list(shape), 1
    while len(lead) > 1 and last < VECTORISED:
        last *= lead.pop()
    return (*lead, last)


def update_group(
    opt: Any,
    rates: Sequence[Any],
    weights: Sequence[Any],
    grads: Sequence[Any],
    slots: Any,
    master: Any,
    ok: Any,
    adapts: Sequence[bool],
    own: bool,
) -> tuple[list[Any], Any, Any]:
    """One update of the weights of a group, whose slots and masters are stacked.

    Weights of one shape run as one: the rule is mapped over the leading axis. Members that
    differ in kind (a row-sparse gradient among dense ones) run one by one. A weight whose
    gradient is None stays as it is.
    """
    count = len(weights)
    if all(grad is None for grad in grads):
        return list(weights), slots, master
    if count == 1:
        new, slots, master = update_one(
            opt, rates[0], weights[0], grads[0], slots, master, ok, adapts[0], own
        )
        return [new], slots, master
    if len(set(adapts)) > 1 or any(grad is None or isinstance(grad, RowSparse) for grad in grads):
        parts = zip(
            rates,
            weights,
            grads,
            unstack(slots, count),
            unstack(master, count),
            adapts,
            strict=True,
        )
        results = [
            (w, s, m) if g is None else update_weight(opt, r, w, g, s, m, ok, a)
            for r, w, g, s, m, a in parts
        ]
        new, new_slots, new_masters = zip(*results, strict=True)
        return list(new), stack(new_slots), stack(new_masters)
    dtype = compute_dtype(weights[0].dtype)
    rate, axis = _joined(rates, dtype)
    mapped = jax.vmap(
        lambda rate, w, g, s, m: update_weight(opt, rate, w, g, s, m, ok, adapts[0]),
        in_axes=(axis, 0, 0, 0, 0),
    )
    # Cast first: the gradients of a group may differ in dtype.
    grads = [grad.astype(dtype) for grad in grads]
    new, slots, master = mapped(rate, stack(weights), stack(grads), slots, master)
    return _rows(new, count), slots, master


def _rows(stacked: jax.Array, count: int) -> list[jax.Array]:
    """Takes a stack of weights apart.

    A slice at a constant place compiles to a kernel of its own. Some rows at a time at a place
    that is an argument share one, if XLA can neither see the place nor inline the call.
    """
    if count <= TOGETHER or not on_cpu():
        return unstack(stacked, count)
    starts = [min(start, count - TOGETHER) for start in range(0, count, TOGETHER)]
    places = lax.optimization_barrier([jnp.int32(start) for start in starts])
    rows: list[jax.Array] = []
    for place, start in zip(places, starts, strict=True):
        rows.extend(_some_rows(stacked, place)[len(rows) - start :])
    return rows


@apart
def _some_rows(stacked: jax.Array, place: jax.Array) -> list[jax.Array]:
    return unstack(lax.dynamic_slice_in_dim(stacked, place, TOGETHER), TOGETHER)


def _joined(rates: Sequence[Any], dtype: Any) -> tuple[Any, int | None]:
    """The rates of a group, and the axis along which they differ."""
    if isinstance(rates, RatesByRow):
        return rates.stacked, 0
    if all(rate is rates[0] for rate in rates):
        return rates[0], None
    if len({jax.tree.structure(rate) for rate in rates}) > 1:
        # Some decay and some do not.
        rates = [as_arrays(rate, dtype) for rate in rates]
    return stack([in_precision(rate, dtype) for rate in rates]), 0
