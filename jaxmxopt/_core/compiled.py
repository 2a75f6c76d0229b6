"""The compiled functions behind `update` and `step`, one for each structure of a definition.

A definition reaches them as its structure, which is static, and its numbers: a vector where all
are Python floats, a tuple of arrays or tracers otherwise. So a new value of a number compiles
nothing anew, save what is another structure: a `wd` or `wd_mult` of 0 or not, None or a number, a
Python number or an array.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmxopt._core import engine as _engine
from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_arrays,
    check_count,
    check_numbers,
    check_packed,
    check_where,
    slots_by_shape,
)
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.one_loop import SUPPORTED
from jaxmxopt._core.paths import flatten_with_names, path_name
from jaxmxopt._core.rates import RatesByRow
from jaxmxopt._core.sparse import is_row_sparse
from jaxmxopt._core.state import MasterState, State

__all__ = [
    "NarrowError",
    "apply",
    "apply_all",
    "double_precision",
    "flattened",
    "precise",
    "slots_and_master",
    "step",
    "update",
    "with_master",
]

# So many different multipliers are worked off one by one.
FEW = 4


def double_precision() -> bool:
    """Whether JAX has 64-bit types."""
    return bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


def flattened(tree: Any) -> tuple[Any, Any]:
    """Structure and leaves; a vector where all leaves are Python floats."""
    leaves, structure = jax.tree.flatten(tree)
    if leaves and all(type(leaf) is float for leaf in leaves):
        return structure, precise(leaves)
    return structure, tuple(leaves)


def precise(numbers: Any) -> np.ndarray:
    """Host numbers as a vector, in the widest precision that JAX has."""
    return np.array(numbers, np.float64 if double_precision() else np.float32)


class NarrowError(Exception):
    """Numbers of the host came with less precision than a weight has."""


def definition(structure: Any, numbers: Any) -> Any:
    """Rebuilds what was flattened, its numbers hidden from XLA's constant folding.

    Folded into a kernel, a constant is rounded elsewhere than an argument would be: with the
    barrier both give the same bits.
    """
    numbers = lax.optimization_barrier(numbers)
    if not isinstance(numbers, tuple):
        numbers = [lax.index_in_dim(numbers, i, keepdims=False) for i in range(numbers.shape[0])]
    opt = jax.tree.unflatten(structure, list(numbers))
    check_numbers(opt)
    return opt


@functools.lru_cache(maxsize=1024)
def update(structure: Any, adapts: bool, own: bool) -> Callable[..., tuple[Any, State]]:
    """The jitted update of one weight by (definition, lr_mult, wd_mult) of this structure.

    `own` says that it is compiled by itself, not in a caller's program.
    """

    def run(numbers: Any, weight: Any, grad: Any, state: State) -> tuple[Any, State]:
        opt, lr_mult, wd_mult = definition(structure, numbers)
        if not isinstance(state, State):
            raise WrongKindError(f"state must be a State, got {type(state).__name__}.")
        check_arrays(opt, weight, grad, state.slots, state.master)
        check_count(state.num_update)
        t = state.num_update + 1
        rates = opt._rates_at(t, lr_mult, wd_mult, compute_dtype(weight.dtype))
        # JAX keeps what inner functions are given: not a schedule, which may hold anything.
        weight, slots, master = _update_single(
            opt._with(lr_scheduler=None),
            rates,
            weight,
            grad,
            state.slots,
            state.master,
            adapts,
            own,
        )
        return weight, State(t, slots, master)

    return jax.jit(run)


@functools.lru_cache(maxsize=1024)
def step(structure: Any, donate: bool, own: bool) -> Callable[..., tuple[Any, State]]:
    """The jitted update of a whole tree by a definition of this structure.

    `own` says that it is compiled by itself, for one CPU: see `makes_own_program`.
    """

    def run(numbers: Any, params: Any, state: State, grads: Any, where: Any) -> Any:
        opt = definition(structure, numbers)
        names, weights, tree = flatten_with_names(params)
        grads = flatten_grads(tree, names, grads)
        ok = check_where(where)
        check_count(state.num_update)
        t = state.num_update + (1 if ok is None else ok.astype(jnp.int32))
        rates_of = _RatesOfTree(opt, names, state.num_update + 1).of
        adapts = [opt._adapts(opt._name(name)) for name in names]
        slots, masters = state.slots, state.master
        bare = opt._without_tables()._with(lr_scheduler=None)
        new, slots, masters = _update_groups(
            bare, rates_of, names, weights, grads, slots, masters, ok, adapts, own, donate
        )
        return jax.tree.unflatten(tree, new), State(t, slots, masters)

    # What is never read, such as a half-precision weight beside its master, is given away too.
    return jax.jit(run, donate_argnums=(1, 2) if donate else (), keep_unused=donate)


@functools.lru_cache(maxsize=1024)
def apply(structure: Any, adapts: bool) -> Callable[..., tuple[Any, Any]]:
    """The jitted update of one weight by (rates, definition) of this structure.

    The rates are the host's, so the state holds no count: it is the slots, or a `MasterState`.
    Tracing it raises `NarrowError` where the numbers have been made without 64-bit types and the
    weight is of one.
    """

    def run(numbers: Any, weight: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        rates, opt = definition(structure, numbers)
        slots, master = slots_and_master(state)
        check_arrays(opt, weight, grad, slots, master)
        # The numbers must be as wide as the arithmetic, where JAX has types of that width.
        if double_precision() and numbers.dtype.itemsize < compute_dtype(weight.dtype).itemsize:
            raise NarrowError
        weight, slots, master = _update_single(
            opt, rates, weight, grad, slots, master, adapts, SUPPORTED
        )
        return weight, with_master(slots, master)

    return jax.jit(run)


@functools.lru_cache(maxsize=256)
def apply_all(
    rates_structure: Any, structure: Any, adapts: tuple[bool, ...], donate: bool, own: bool
) -> Callable[..., tuple[list[Any], Packed, Packed]]:
    """The jitted update of many weights by a definition of this structure, rates given.

    The rates come as a table with a row for every weight. A gradient of None leaves its weight
    alone. Errors name a weight by its number.
    """

    def run(
        table: Any, numbers: Any, weights: Any, slots: Packed, masters: Packed, grads: Any
    ) -> tuple[list[Any], Packed, Packed]:
        opt = definition(structure, numbers)
        table = lax.optimization_barrier(table)

        def rates_of(members: Sequence[int], dtype: Any) -> Any:
            del dtype
            if len(members) == 1:
                return [jax.tree.unflatten(rates_structure, list(table[members[0]]))]
            columns = table[np.asarray(members)].T
            return RatesByRow(jax.tree.unflatten(rates_structure, list(columns)))

        names = range(len(weights))
        return _update_groups(
            opt, rates_of, names, weights, grads, slots, masters, None, adapts, own, donate
        )

    return jax.jit(run, donate_argnums=(2, 3, 4) if donate else (), keep_unused=donate)


def slots_and_master(state: Any) -> tuple[Any, Any]:
    """Takes apart the state of one weight without a count."""
    return (state.slots, state.master) if isinstance(state, MasterState) else (state, None)


def with_master(slots: Any, master: Any) -> Any:
    """The state of one weight without a count."""
    return slots if master is None else MasterState(master, slots)


def _update_groups(
    opt: Any,
    rates_of: Callable[[Sequence[int], Any], Any],
    names: Sequence[Hashable],
    weights: Sequence[Any],
    grads: Sequence[Any],
    slots: Packed,
    masters: Packed,
    ok: Any,
    adapts: Sequence[bool],
    own: bool,
    donate: bool,
) -> tuple[list[Any], Packed, Packed]:
    """Checks and updates all weights of a layout, group by group."""
    check_packed(slots, masters, weights, names)
    layout, made = slots.layout, slots_by_shape(opt)
    groups = list(zip(layout.groups, slots.groups, masters.groups, strict=True))
    for members, group_slots, group_master in groups:
        for number, leaf_slots, leaf_master in zip(
            members, *_abstract_parts(group_slots, group_master, len(members)), strict=True
        ):
            if grads[number] is not None:
                weight, grad, name = weights[number], grads[number], names[number]
                check_arrays(opt, weight, grad, leaf_slots, leaf_master, name, made)

    def of(what: Sequence[Any], members: Sequence[int]) -> list[Any]:
        return [what[number] for number in members]

    def rates(members: Sequence[int]) -> Any:
        return rates_of(members, compute_dtype(weights[members[0]].dtype))

    if own and layout.unshared and _engine.are_small(weights, grads):
        small = [
            _engine.Member(rates([number])[0], weights[number], grads[number], slots, master)
            for (number,), slots, master in groups
        ]
        adapting = [adapts[number] for (number,) in layout.groups]
        found = _engine.update_small(opt, small, ok, adapting, donate)
        updated = [([weight], slots, master) for weight, slots, master in found]
    else:
        updated = [
            _engine.update_group(
                opt,
                rates(members),
                of(weights, members),
                of(grads, members),
                slots,
                master,
                ok,
                of(adapts, members),
                own,
            )
            for members, slots, master in groups
        ]
    new: list[Any] = list(weights)
    for members, (leaves, *_) in zip(layout.groups, updated, strict=True):
        for number, leaf in zip(members, leaves, strict=True):
            new[number] = leaf
    return (
        new,
        Packed(tuple(slots for _, slots, _ in updated), layout),
        Packed(tuple(masters for _, _, masters in updated), layout),
    )


def _update_single(
    opt: Any, rates: Any, weight: Any, grad: Any, slots: Any, master: Any, adapts: bool, own: bool
) -> tuple[Any, Any, Any]:
    """The update of the one weight of a program."""
    if own and _engine.are_small([weight], [grad]):
        small = [_engine.Member(rates, weight, grad, slots, master)]
        return _engine.update_small(opt, small, None, [adapts], in_place=False)[0]
    return _engine.update_one(opt, rates, weight, grad, slots, master, None, adapts, own)


class _RatesOfTree:
    """The rates of the weights of a tree; equal multipliers share one computation."""

    def __init__(self, opt: Any, names: Sequence[str], t: Any) -> None:
        self._multipliers = [opt._multipliers(name) for name in names]
        # A table of many multipliers costs wherever it is passed on.
        self._bare = opt._without_tables()
        self._t = t
        self._known: dict[Hashable, Any] = {}

    def of(self, members: Sequence[int], dtype: Any) -> list[Any]:
        """The rates of some of the weights, in the arithmetic of a dtype."""
        if dtype not in self._known:
            self._known[dtype] = self._made(dtype)
        return [self._known[dtype][_identity(self._multipliers[i])] for i in members]

    def _made(self, dtype: Any) -> dict[Hashable, Any]:
        """The rates by the identities of what they are multiplied by."""

        def rates(lr_mult: Any, wd_mult: Any) -> Any:
            return self._bare._rates_at(self._t, lr_mult, wd_mult, dtype)

        kinds: dict[Hashable, dict[Hashable, Any]] = {}
        for both in self._multipliers:
            leaves, structure = jax.tree.flatten(both)
            kind = structure, *(leaf.dtype for leaf in leaves)
            kinds.setdefault(kind, {})[_identity(both)] = both
        made: dict[Hashable, Any] = {}
        for distinct in kinds.values():
            if len(distinct) <= FEW:
                made |= {key: rates(*both) for key, both in distinct.items()}
                continue
            # As one vector, of which a weight has an element: to compile the same arithmetic
            # for each takes longer than the rest of the step.
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *distinct.values())
            made |= zip(distinct, RatesByRow(jax.vmap(rates)(*stacked)), strict=True)
        return made


def _identity(multipliers: tuple[Any, Any]) -> Hashable:
    return tuple(map(id, multipliers))


def flatten_grads(tree: Any, names: Sequence[str], grads: Any) -> list[Any]:
    """Flattens gradients along the tree of weights; a `RowSparse` is one leaf."""
    leaves, grads_tree = jax.tree.flatten(grads, is_leaf=is_row_sparse)
    if grads_tree == tree:
        return leaves
    second = grads[1] if type(grads) is tuple and len(grads) == 2 else None
    if second is not None and jax.tree.structure(second, is_leaf=is_row_sparse) == tree:
        raise MismatchError(
            "grads must have the structure of params, got a tuple of 2: jax.value_and_grad gives "
            "(value, grads)."
        )
    paths = jax.tree_util.tree_flatten_with_path(grads, is_leaf=is_row_sparse)[0]
    given = {path_name(path) for path, _ in paths}
    missing = [name for name in names if name not in given]
    extra = sorted(given.difference(names))
    detail = (
        f"no gradient for {missing[0]!r}"
        if missing
        else f"a gradient for {extra[0]!r}, which is no weight"
        if extra
        else f"structure {grads_tree}, expected {tree}"
    )
    raise MismatchError(f"grads must have the structure of params, got {detail}.")


def _abstract_parts(slots: Any, master: Any, count: int) -> tuple[list[Any], list[Any]]:
    """The shapes of what belongs to each member of a group."""
    if count == 1:
        return [slots], [master]
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (slots, master)
    )
    return [one[0]] * count, [one[1]] * count
