"""What must be true of the arguments of an update.

The checks look at shapes and dtypes alone and run while tracing, so calls do not pay for them.
"""

import functools
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxmxopt._core.layout import Packed
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.sparse import RowSparse

__all__ = [
    "MismatchError",
    "WrongKindError",
    "check_array",
    "check_arrays",
    "check_count",
    "check_form",
    "check_grad",
    "check_names",
    "check_numbers",
    "check_packed",
    "check_ruled",
    "check_where",
    "explained",
    "not_an_array",
    "slots_by_shape",
    "unusable",
]


class _ArgumentError(Exception):
    """An argument that does not fit; `index` is the weight's, None where it is of no one."""

    def __init__(self, message: str, index: Hashable = None) -> None:
        super().__init__(message)
        self.index = index


class MismatchError(_ArgumentError, ValueError):
    """Values or shapes that do not fit together; the caller adds which call it was."""


class WrongKindError(_ArgumentError, TypeError):
    """An argument that is not of the kind needed; the caller adds which call it was."""


def explained(
    call: str, error: MismatchError | WrongKindError, index: Hashable = None
) -> Exception:
    """The error for users: which call, which index or path, what was expected and given."""
    index = error.index if index is None else index
    where = call if index is None else f"{call}({index!r})"
    kind = ValueError if isinstance(error, ValueError) else TypeError
    return kind(f"{where}: {error}")


def check_numbers(opt: Any) -> None:
    """Hyperparameters must be scalars where an update uses them."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(opt)[0]:
        if jnp.shape(leaf) != ():
            named = tuple(key for key in path if not isinstance(key, jax.tree_util.SequenceKey))
            name = jax.tree_util.keystr(named, simple=True, separator=".") or "a multiplier"
            raise MismatchError(
                f"{name} must be a scalar, got shape {jnp.shape(leaf)}; map over stacked "
                "definitions with jax.vmap."
            )


def check_rate(lr: Any) -> jax.Array:
    """What a schedule gave must be one real number."""
    try:
        lr = jnp.asarray(lr)
    except (TypeError, ValueError):
        raise WrongKindError(f"lr_scheduler must give a number, got {lr!r}.") from None
    if lr.shape != () or jnp.issubdtype(lr.dtype, jnp.complexfloating):
        raise MismatchError(
            f"lr_scheduler must give a real scalar, got shape {lr.shape} and dtype {lr.dtype}."
        )
    return lr if jnp.issubdtype(lr.dtype, jnp.floating) else lr.astype(float)


def check_count(num_update: Any) -> None:
    """The count of a state must be an integer scalar."""
    dtype, shape = getattr(num_update, "dtype", None), getattr(num_update, "shape", None)
    if dtype is None or shape != () or not jnp.issubdtype(dtype, jnp.integer):
        given = type(num_update).__name__ if dtype is None else f"shape {shape} and dtype {dtype}"
        raise WrongKindError(f"state.num_update must be an integer scalar, got {given}.")


def check_where(where: Any) -> Any:
    """`where` must be a scalar bool array, or None."""
    if where is None:
        return None
    if not hasattr(where, "dtype") and not isinstance(where, bool):
        raise WrongKindError(
            f"where must be a scalar bool, got {type(where).__name__}; all_finite(grads) gives one "
            "for a whole tree."
        )
    where = jnp.asarray(where)
    if where.shape != () or where.dtype != jnp.bool_:
        raise MismatchError(
            f"where must be a scalar bool, got shape {where.shape} and dtype {where.dtype}."
        )
    return where


def check_array(what: str, array: Any, index: Hashable = None) -> None:
    """A weight, gradient or master must be an array of a real floating dtype."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise WrongKindError(f"{what} must be an array, got {type(array).__name__}.", index)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WrongKindError(f"{what} must be of a real floating dtype, got {array.dtype}.", index)


def check_grad(grad: Any, index: Hashable = None) -> None:
    """A gradient must be a floating array, or a `RowSparse` whose indices are still integers."""
    check_array("grad", grad, index)
    if isinstance(grad, RowSparse) and not jnp.issubdtype(grad.indices.dtype, jnp.integer):
        raise WrongKindError(
            f"grad.indices must be integers, got {grad.indices.dtype}: arithmetic on a RowSparse "
            "must take it as one leaf, is_leaf=lambda leaf: isinstance(leaf, RowSparse).",
            index,
        )


def check_ruled(given: Any, weight: Any, slots: Any) -> tuple[Any, Any]:
    """What a rule gives must be a weight and slots like those it was given."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise WrongKindError(f"_rule must return (weight, slots), got {type(given).__name__}.")
    if jnp.shape(given[0]) != weight.shape:
        raise MismatchError(
            f"_rule must return a weight of shape {weight.shape}, got {jnp.shape(given[0])}."
        )
    made, old = jax.tree.structure(given[1]), jax.tree.structure(slots)
    if made != old:
        raise MismatchError(f"_rule must return slots like those it was given, {old}, got {made}.")
    leaves = zip(jax.tree.leaves_with_path(given[1]), jax.tree.leaves(slots), strict=True)
    for (path, new), before in leaves:
        if jnp.shape(new) != before.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise MismatchError(
                f"_rule must return slots.{name} of shape {before.shape}, got {jnp.shape(new)}."
            )
    return given


def not_an_array(**trees: Any) -> WrongKindError | None:
    """What is wrong with arguments that JAX could not take: the first leaf that is no array."""
    for what, tree in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                message = f"{what} must be an array, got {type(leaf).__name__}."
                return WrongKindError(message, name or None)
    return None


def unusable(error: BaseException, **trees: Any) -> MismatchError | None:
    """Which arrays JAX meant that said of some that they are dead, or donated twice."""
    said = str(error)
    dead, twice = "deleted" in said, "donate the same" in said or "previously donated" in said
    places: dict[int, str] = {}
    for what, tree in trees.items() if dead or twice else ():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
                continue
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if dead and leaf.is_deleted():
                message = f"{what} must be alive, got an array that was donated or deleted."
                return MismatchError(message, name or None)
            here = f"{what} {name!r}" if name else what
            other = places.setdefault(_memory(leaf), here)
            if twice and other != here:
                message = f"{what} must be another array than {other}, which is donated; copy it."
                return MismatchError(message, name or None)
    return None


def _memory(array: jax.Array) -> int:
    """What tells memory from other memory: two arrays may be one."""
    try:
        return array.addressable_shards[0].data.unsafe_buffer_pointer()
    except Exception:  # A backend without addresses; what it raises is its own affair.
        return id(array)


def slots_by_shape(opt: Any) -> Callable[[tuple[int, ...], Any], Any]:
    """What the slots are for a weight of a shape and dtype; each is traced once."""

    @functools.cache
    def made(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.eval_shape(lambda w: opt._slots(w, 0), jax.ShapeDtypeStruct(shape, dtype))

    return made


def check_arrays(
    opt: Any,
    weight: Any,
    grad: Any,
    slots: Any,
    master: Any,
    index: Hashable = None,
    made: Callable[[tuple[int, ...], Any], Any] | None = None,
) -> None:
    """Weight, gradient, slots and master of one update must belong together.

    `made` is the `slots_by_shape` of the algorithm where there are many weights.
    """
    if isinstance(slots, Packed):
        raise WrongKindError(
            "state is of a tree of weights; give it to step, or take it apart with state.unpack.",
            index,
        )
    check_array("weight", weight, index)
    check_grad(grad, index)
    if weight.shape != grad.shape:
        raise MismatchError(f"grad has shape {grad.shape}, weight has {weight.shape}.", index)
    full = weight
    if master is not None:
        check_array("state.master", master, index)
        full, wanted = master, compute_dtype(weight.dtype)
        if master.shape != weight.shape or master.dtype != wanted:
            raise MismatchError(
                f"state.master has shape {master.shape} and dtype {master.dtype}, expected "
                f"{weight.shape} and {wanted}.",
                index,
            )
    _check_slots(opt, slots, full, index, made or slots_by_shape(opt))


def _check_slots(opt: Any, slots: Any, weight: Any, index: Hashable, made: Any) -> None:
    if type(slots) not in opt._slot_types:
        expected = " or ".join(kind.__name__ for kind in opt._slot_types)
        raise WrongKindError(
            f"state is of another algorithm: slots must be {expected}, got {type(slots).__name__}.",
            index,
        )
    try:
        opt._check_weight(jax.ShapeDtypeStruct(weight.shape, weight.dtype))
    except ValueError as error:
        raise MismatchError(str(error), index) from None
    expected = made(weight.shape, weight.dtype)
    for name in getattr(slots, "_fields", ()):
        given, wanted = getattr(slots, name), getattr(expected, name, None)
        if wanted is None or _absent(slots, name):
            continue
        if not hasattr(given, "shape"):
            raise WrongKindError(
                f"state.slots.{name} must be an array, got {type(given).__name__}.", index
            )
        if given.shape != wanted.shape:
            raise MismatchError(
                f"state.slots.{name} has shape {given.shape}, expected {wanted.shape} for a "
                f"weight of shape {weight.shape}.",
                index,
            )
        if not jnp.issubdtype(given.dtype, _kind(wanted.dtype)):
            raise WrongKindError(
                f"state.slots.{name} has dtype {given.dtype}, expected {wanted.dtype}.", index
            )


def check_form(opt: Any, parts: Iterable[Any], names: Any = None) -> None:
    """Slots must be those that the definition makes, where a hyperparameter decides which.

    A number may be traced where the compiled functions look, so this looks on the host.
    """
    field = opt._slots_by
    if field is None:
        return
    for number, slots in enumerate(parts):
        made = opt._made_with(slots)
        if made is not None:
            raise MismatchError(
                f"state must be made with {field}={getattr(opt, field)!r}, as it is now, got one "
                f"made with {field}={made!r}; make it anew.",
                None if names is None else names[number],
            )


def _absent(slots: Any, name: str) -> bool:
    """Whether a slot is None and may be: the momentum of some algorithms where it is 0."""
    optional = types.NoneType in typing.get_args(type(slots).__annotations__.get(name))
    return optional and getattr(slots, name) is None


def _kind(dtype: Any) -> Any:
    kinds = (jnp.floating, jnp.integer)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)


def check_names(packed: Packed, names: Sequence[Any]) -> None:
    """What is laid out for a tree must be of the weights of these names."""
    if (misfit := packed.layout.misfit(names)) is not None:
        raise MismatchError(f"state is of {misfit}; make it with init(params).")


def check_packed(slots: Any, masters: Any, weights: Iterable[Any], names: Any) -> None:
    """The state of a tree must be laid out for these weights."""
    weights = list(weights)
    for packed in (slots, masters):
        if not isinstance(packed, Packed):
            message = "state is not of this tree of weights; make it with init(params)."
            if packed is not None:
                kind = type(packed).__name__
                message += f" Its {kind} is of one weight or of another definition."
            raise MismatchError(message)
        check_names(packed, names)
    if slots.layout != masters.layout:
        raise MismatchError("state.slots and state.master are laid out differently.")
    for members, *groups in zip(slots.layout.groups, slots.groups, masters.groups, strict=True):
        if len(members) == 1:
            continue
        first = weights[members[0]]
        for number in members:
            check_array("weight", weights[number], names[number])
            given = weights[number].shape, weights[number].dtype
            if given != (first.shape, first.dtype):
                raise MismatchError(
                    f"weight has shape {given[0]} and dtype {given[1]}, state was made for "
                    f"{first.shape} and {first.dtype}.",
                    names[number],
                )
        if any(leaf.shape[:1] != (len(members),) for leaf in jax.tree.leaves(groups)):
            raise MismatchError(
                f"state must have a leading axis of {len(members)}, one a weight that shares its "
                "arrays.",
                names[members[0]],
            )
