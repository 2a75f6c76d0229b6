"""The engine that runs a rule: precision, masters, rows, many weights, once for all rules.

A rule sees one weight in compute precision, its gradient, its slots and the rates of this update,
and returns the new weight and slots.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.sharding import AxisType, reshard

from jaxmxopt._core.batches import apart, in_batches
from jaxmxopt._core.checks import MismatchError, check_ruled
from jaxmxopt._core.layout import Packed, stack, unstack
from jaxmxopt._core.names import Tree
from jaxmxopt._core.numeric import compute_dtype, on_cpu
from jaxmxopt._core.rates import RatesOf, opened
from jaxmxopt._core.rows import change_rows
from jaxmxopt._core.slots import Slot, described
from jaxmxopt._core.sparse import RowSparse

__all__ = [
    "Given",
    "Rule",
    "advance",
    "in_precision",
    "not_inlined",
]


def not_inlined(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function whose calls are not inlined, so that XLA fuses nothing across them.

    Args:
        function: what is called; calls inside the function are inlined as ever.
        **options: those of `jax.jit`.
    """

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with set_xla_metadata(inlineable="true"):
            return function(*args, **kwargs)

    jitted = jax.jit(inside, **options)

    def call(*args: Any, **kwargs: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return jitted(*args, **kwargs)

    return call


# XLA's CPU loops do not vectorise an innermost axis that is shorter.
VECTORISED = 16
# How many rows of a stack are taken apart by one call.
TOGETHER = 10

Rule = Callable[[Any, Any, Any, Any, Any], Any]


class Given(NamedTuple):
    """The arguments of an update beside weights and their state.

    Attributes:
        grads: of every weight an array or a `RowSparse`; None leaves a weight as it is.
        factors: numbers that multiply every gradient before anything else does.
        lenient: True if hyperparameters that decide which slots there are may be 0: they are being
            traced by the caller.
    """

    grads: Sequence[Any]
    factors: tuple[Any, ...] = ()
    lenient: bool = False

    def part(self, numbers: Sequence[int]) -> "Given":
        """Return what some of the weights are given."""
        return self._replace(grads=[self.grads[n] for n in numbers])


def in_precision(tree: Any, dtype: Any) -> Any:
    """Round every floating leaf to a dtype; counts, keys and Python's numbers stay."""

    def cast(leaf: Any) -> Any:
        if isinstance(leaf, float):
            return leaf
        leaf = jnp.asarray(leaf)
        return lax.convert_element_type(leaf, dtype) if _floating(leaf) else leaf

    return jax.tree.map(cast, tree)


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def advance(
    opt: Any,
    rates: RatesOf,
    tree: Tree,
    slots: Packed,
    masters: Packed,
    given: Given,
    row_rule: Rule | None = None,
) -> tuple[list[Any], Packed, Packed]:
    """Update all weights of a tree: the one function through which every update goes.

    Args:
        opt: the algorithm, its numbers traced, without schedule and tables.
        rates: of its weights.
        tree: the weights, as stored, of any floating dtypes.
        slots: the algorithm's slots, laid out for these weights, as stored.
        masters: the weights in full precision, or None, laid out likewise.
        given: the gradients.
        row_rule: what takes the place of the rule for row-sparse gradients.

    Returns:
        The new weights, slots and masters, in the dtypes of the old ones.
    """
    run = functools.partial(_advance, opt, rates, tree, slots, masters, given, row_rule)
    return in_batches(run) if opt.acts_on == "matrices" else run()


def _advance(
    opt: Any,
    rates: RatesOf,
    tree: Tree,
    slots: Packed,
    masters: Packed,
    given: Given,
    row_rule: Rule | None,
) -> tuple[list[Any], Packed, Packed]:
    new: list[Any] = list(tree.leaves)
    new_slots: list[Any] = []
    new_masters: list[Any] = []
    # Once for each dtype, so that all weights of a batch have the same numbers.
    precise: dict[Any, Any] = {}
    for members, *state in zip(slots.layout.groups, slots.groups, masters.groups, strict=True):
        adapts = [opt._adapts_to(tree.names[n]) for n in members]
        weights, grads = [tree.leaves[n] for n in members], [given.grads[n] for n in members]
        dtype = compute_dtype(weights[0].dtype)
        if dtype not in precise:
            precise[dtype] = in_precision(opt, dtype), {}
        own, known = precise[dtype]
        rate, axis = rates.of(members, dtype)
        # Kept beside its identity, which is of no other then.
        _, rate = known.setdefault(id(rate), (rate, in_precision(rate, dtype)))
        group = _Group(own, (rate, axis), weights, grads, given.factors, adapts, row_rule)
        updated, group_slots, group_masters = group.advance(*state)
        for number, weight in zip(members, updated, strict=True):
            new[number] = weight
        new_slots.append(group_slots)
        new_masters.append(group_masters)
    layout = slots.layout
    return new, Packed(tuple(new_slots), layout), Packed(tuple(new_masters), layout)


class _Group(NamedTuple):
    """The weights whose slots share arrays, and what an update of them is given."""

    opt: Any
    rates: tuple[Any, int | None]
    weights: list[Any]
    grads: list[Any]
    factors: tuple[Any, ...]
    adapts: list[bool]
    row_rule: Rule | None

    def advance(self, slots: Any, masters: Any) -> tuple[list[Any], Any, Any]:
        """Return the new weights, slots and masters."""
        count = len(self.weights)
        if all(grad is None for grad in self.grads):
            return self.weights, slots, masters
        if count == 1:
            new, slots, masters = self._one(0, self.rates[0], slots, masters)
            return [new], slots, masters
        alike = len(set(self.adapts)) == 1
        if not alike or any(grad is None or isinstance(grad, RowSparse) for grad in self.grads):
            return self._each(slots, masters)
        return self._together(slots, masters)

    def _one(self, number: int, rates: Any, slots: Any, master: Any) -> tuple[Any, Any, Any]:
        """Update a weight that shares its arrays with no other."""
        opt, weight, grad = self.opt, self.weights[number], self.grads[number]
        if grad is None:
            return weight, slots, master
        # A batch is of several weights, so none of them is updated in a function of its own.
        update = _update_weight if opt.acts_on == "matrices" else _shared
        update = functools.partial(update, adapts=self.adapts[number], row_rule=self.row_rule)
        shape, merged = weight.shape, _merged(weight)
        dense = not isinstance(grad, RowSparse)
        if merged == shape or opt.acts_on != "elements" or not (dense and on_cpu()):
            return update(opt, rates, weight, grad, slots, master, self.factors)
        said = _said(opened(opt), weight, master, slots)
        whole = [_is_like(slot, weight) for slot, _ in said]
        tree = jax.tree.structure(slots)

        def to(shape: tuple[int, ...], arrays: Any) -> Any:
            weight, slots, master = arrays
            pairs = zip(whole, jax.tree.leaves(slots), strict=True)
            slots = tree.unflatten([leaf.reshape(shape) if has else leaf for has, leaf in pairs])
            master = None if master is None else master.reshape(shape)
            return weight.reshape(shape), slots, master

        # XLA would fuse the reshapes of weight and slots into the arithmetic, and lose the donated
        # buffers. The gradient stays fused with what computes it.
        weight, slots, master = _opaque(to(merged, (weight, slots, master)))
        new = update(opt, rates, weight, grad.reshape(merged), slots, master, self.factors)
        return to(shape, _opaque(new))

    def _each(self, slots: Any, masters: Any) -> tuple[list[Any], Any, Any]:
        """Update the weights one by one: their gradients are of several kinds."""
        count, (rates, axis) = len(self.weights), self.rates
        own = [rates] * count if axis is None else unstack(rates, count)
        parts = zip(range(count), own, unstack(slots, count), unstack(masters, count), strict=True)
        new, new_slots, new_masters = zip(*(self._one(*part) for part in parts), strict=True)
        return list(new), stack(new_slots), stack(new_masters)

    def _together(self, slots: Any, masters: Any) -> tuple[list[Any], Any, Any]:
        """Update weights of one shape as one: the rule is mapped over the leading axis."""
        rates, axis = self.rates
        dtype = compute_dtype(self.weights[0].dtype)
        update = functools.partial(_update_weight, adapts=self.adapts[0], row_rule=None)
        mapped = jax.vmap(apart(update), in_axes=(None, axis, 0, 0, 0, 0, None))
        # Cast first: the gradients of a group may differ in dtype.
        grads = stack([grad.astype(dtype) for grad in self.grads])
        weights = stack(self.weights)
        new, slots, masters = mapped(self.opt, rates, weights, grads, slots, masters, self.factors)
        return _rows_of(new, len(self.weights)), slots, masters


def _update_weight(
    opt: Any,
    rates: Any,
    weight: Any,
    grad: Any,
    slots: Any,
    master: Any,
    factors: tuple[Any, ...],
    *,
    adapts: bool,
    row_rule: Rule | None,
) -> tuple[Any, Any, Any]:
    """Update one weight; arguments are as of `advance`, for one weight."""
    dtype = compute_dtype(weight.dtype)
    opt, rates = in_precision(opened(opt), dtype), in_precision(opened(rates), dtype)
    grad = grad.astype(dtype)
    for factor in factors:
        grad = grad * lax.convert_element_type(factor, dtype)
    rule = opt.rule
    if isinstance(grad, RowSparse):
        rule = rule if row_rule is None else functools.partial(row_rule, opt)
        if opt.lazy_update and opt.acts_on in ("elements", "rows") and grad.shape[0] > 0:
            return _update_rows(opt, rule, rates, weight, grad, slots, master, adapts)
        grad = grad.todense()
    full = weight.astype(dtype)
    if adapts:
        rates = opt.adapt(rates, full, grad)
    full = full if master is None else master
    if _says_where(weight):
        # Divided slots: each device computes its part alone.
        said = _said(opt, weight, master, slots)
        part = next((leaf for slot, leaf in said if _is_like(slot, weight)), full)
        full, grad = _laid_out(full, part), _laid_out(grad, part)
    old = in_precision(slots, dtype)
    new, new_slots = check_ruled(rule(rates, full, grad, old), full, old)
    rounded = _laid_out(new.astype(weight.dtype), weight)
    return rounded, _stored(slots, new_slots), None if master is None else _laid_out(new, master)


def _said(opt: Any, weight: Any, master: Any, slots: Any) -> list[tuple[Slot, Any]]:
    """Return what the algorithm says of each slot, with the slot."""
    form = described(opt, weight if master is None else master, slots)
    return list(zip(jax.tree.leaves(form), jax.tree.leaves(slots), strict=True))


def _is_like(slot: Slot, weight: Any) -> bool:
    """True if a slot has all axes of its weight."""
    return slot.axes == tuple(range(weight.ndim)) and slot.shape == weight.shape


def _says_where(array: Any) -> bool:
    """True if the type of an array says where it lies: on a mesh with explicit axes."""
    return AxisType.Explicit in jax.typeof(array).sharding.mesh.axis_types


def _laid_out(array: Any, like: Any) -> Any:
    """Lay an array out as another, where the types say how."""
    wanted = jax.typeof(like).sharding
    if not _says_where(like) or jax.typeof(array).sharding == wanted:
        return array
    return reshard(array, wanted)


def _stored(old: Any, new: Any) -> Any:
    """Round to the dtypes of the old values."""

    def keep(old: Any, new: Any) -> Any:
        return _laid_out(new.astype(old.dtype) if _floating(old) else jnp.asarray(new), old)

    return jax.tree.map(keep, old, new)


def _update_rows(
    opt: Any,
    rule: Callable[..., Any],
    rates: Any,
    weight: Any,
    grad: RowSparse,
    slots: Any,
    master: Any,
    adapts: bool,
) -> tuple[Any, Any, Any]:
    """Update the rows that a gradient holds and read no others."""
    dtype, height = compute_dtype(weight.dtype), weight.shape[0]
    rows = grad.unique()
    if adapts:
        rates = opt.adapt(rates, weight.astype(dtype), rows.inside(height))
    tree = jax.tree.structure(slots)
    has_rows = [slot.axes[:1] == (0,) for slot, _ in _said(opt, weight, master, slots)]

    def updated(old: Any, values: Any) -> Any:
        weight, slots, master = old
        full = weight.astype(dtype) if master is None else master
        held = in_precision(slots, dtype)
        if not all(has_rows):
            _check_without_rows(functools.partial(rule, rates), full, values, held, has_rows)
        new, new_slots = check_ruled(rule(rates, full, values, held), full, held)
        return _stored(old, (new, new_slots, None if master is None else new))

    tall = (True, tree.unflatten(has_rows), None if master is None else True)
    return change_rows(updated, (weight, slots, master), tall, rows, height)


def _check_without_rows(
    rule: Callable[..., Any], weight: Any, grad: Any, slots: Any, has_rows: Sequence[bool]
) -> None:
    """Raise unless slots without rows come out the same for any rows; nothing is computed."""
    tree = jax.tree.structure(slots)
    axes = tree.unflatten([0 if has else None for has in has_rows])
    several = [
        leaf[None] if has else leaf
        for leaf, has in zip(jax.tree.leaves(slots), has_rows, strict=True)
    ]
    mapped = jax.vmap(rule, in_axes=(0, 0, axes), out_axes=(0, axes))
    try:
        jax.eval_shape(mapped, weight[None], grad[None], tree.unflatten(several))
    except ValueError as error:
        raise MismatchError(
            "rule must return slots without rows that come out the same for any rows, as a count "
            "does; declare acts_on = 'whole', or sum by row in a slot with axes=(0,)."
        ) from error


# Shared by all weights of one shape, so that tracing and compiling it happens once.
_shared = jax.jit(_update_weight, static_argnames=("adapts", "row_rule"))
_passed_on = not_inlined(lax.optimization_barrier)


def _opaque(arrays: Any) -> Any:
    """Return arrays as they are, by way of a call that XLA neither inlines nor looks into."""
    # A call of arguments that are constants would be computed while compiling.
    return _passed_on(lax.optimization_barrier(arrays))


def _merged(weight: Any) -> tuple[int, ...]:
    """Return the shape in which XLA's CPU loops vectorise: a convolution's short last axes merged.

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


def _rows_of(stacked: jax.Array, count: int) -> list[jax.Array]:
    """Take a stack of weights apart.

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


@not_inlined
def _some_rows(stacked: jax.Array, place: jax.Array) -> list[jax.Array]:
    return unstack(lax.dynamic_slice_in_dim(stacked, place, TOGETHER), TOGETHER)
