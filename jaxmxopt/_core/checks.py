"""Checks of the arguments of an update.

The checks look at shapes and dtypes alone and run while tracing, so calls do not pay for them.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxmxopt._core.layout import Packed
from jaxmxopt._core.names import Tree, path_name
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.slots import NUMBERS, Like, described, forms
from jaxmxopt._core.sparse import RowSparse, is_row_sparse
from jaxmxopt._core.state import State

__all__ = [
    "MismatchError",
    "WrongKindError",
    "check_array",
    "check_arrays",
    "check_count",
    "check_grads",
    "check_names",
    "check_numbers",
    "check_packed",
    "check_pair",
    "check_rate",
    "check_rates",
    "check_ruled",
    "check_state",
    "check_where",
    "explained",
    "tree_of",
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
    """Return the error for users: which call, which index or path, what was expected and given."""
    index = error.index if index is None else index
    where = call if index is None else f"{call}({index!r})"
    kind = ValueError if isinstance(error, ValueError) else TypeError
    return kind(f"{where}: {error}")


def tree_of(params: Any) -> Tree:
    """Take a tree of weights apart, or raise: two weights have one name."""
    try:
        return Tree.of(params)
    except ValueError as error:
        raise MismatchError(str(error)) from None


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
    """Return the rate that a schedule gave, or raise: it must be one real number."""
    try:
        lr = jnp.asarray(lr)
    except (TypeError, ValueError):
        raise WrongKindError(f"lr_scheduler must give a number, got {lr!r}.") from None
    if lr.shape != () or jnp.issubdtype(lr.dtype, jnp.complexfloating):
        raise MismatchError(
            f"lr_scheduler must give a real scalar, got shape {lr.shape} and dtype {lr.dtype}."
        )
    return lr if jnp.issubdtype(lr.dtype, jnp.floating) else lr.astype(float)


def check_rates(rates: Any) -> Any:
    """Return what `rates` of an algorithm gave: a NamedTuple with a learning rate and a decay."""
    names = getattr(type(rates), "_fields", ())
    if "lr" not in names or "wd" not in names:
        given = f"{type(rates).__name__} of {', '.join(names)}" if names else type(rates).__name__
        raise WrongKindError(
            f"rates must return a NamedTuple with at least lr and wd, as Rates has, got {given}."
        )
    return rates


def check_count(num_update: Any) -> None:
    """Raise unless the count of a state is an integer scalar."""
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
    """Raise unless a weight, gradient or master is an array of a real floating dtype."""
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise WrongKindError(f"{what} must be an array, got {type(array).__name__}.", index)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WrongKindError(f"{what} must be of a real floating dtype, got {array.dtype}.", index)


def check_grad(grad: Any, index: Hashable = None) -> None:
    """Raise unless a gradient is a floating array or a `RowSparse` with integer indices."""
    check_array("grad", grad, index)
    if isinstance(grad, RowSparse) and not jnp.issubdtype(grad.indices.dtype, jnp.integer):
        raise WrongKindError(
            f"grad.indices must be integers, got {grad.indices.dtype}: arithmetic on a RowSparse "
            "must take it as one leaf, is_leaf=lambda leaf: isinstance(leaf, RowSparse).",
            index,
        )


def check_ruled(given: Any, weight: Any, slots: Any) -> tuple[Any, Any]:
    """Return the result of a rule, or raise: it must be a weight and slots like the given ones."""
    if not isinstance(given, tuple) or len(given) != 2:
        raise WrongKindError(f"rule must return (weight, slots), got {type(given).__name__}.")
    if jnp.shape(given[0]) != weight.shape:
        raise MismatchError(
            f"rule must return a weight of shape {weight.shape}, got {jnp.shape(given[0])}."
        )
    made, old = jax.tree.structure(given[1]), jax.tree.structure(slots)
    if made != old:
        raise MismatchError(f"rule must return slots like those it was given, {old}, got {made}.")
    leaves = zip(jax.tree.leaves_with_path(given[1]), jax.tree.leaves(slots), strict=True)
    for (path, new), before in leaves:
        if jnp.shape(new) != before.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise MismatchError(
                f"rule must return slots.{name} of shape {before.shape}, got {jnp.shape(new)}."
            )
    return given


_DONATED = ("weight", "state")


def unusable(donated: bool, **trees: Any) -> MismatchError | WrongKindError | None:
    """Return what is wrong with arguments that JAX could not take, None if nothing is.

    Args:
        donated: True if `weight` and `state` were given away.
        **trees: the arguments by name.
    """
    places: dict[int, str] = {}
    # What is given away comes first.
    for what in sorted(trees, key=lambda name: name not in _DONATED):
        tree = trees[what]
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_row_sparse)[0]:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
                message = f"{what} must be an array, got {type(leaf).__name__}."
                return WrongKindError(message, name or None)
            if not isinstance(leaf, jax.Array) or isinstance(leaf, Tracer):
                continue
            if leaf.is_deleted():
                message = f"{what} must be alive, got an array that was donated or deleted."
                return MismatchError(message, name or None)
            here = f"{what} {name!r}" if name else what
            if what in _DONATED:
                other = places.setdefault(_memory(leaf), here)
            else:
                other = places.get(_memory(leaf), here)
            if donated and other != here:
                message = f"{what} must be another array than {other}, which is donated; copy it."
                return MismatchError(message, name or None)
    return None


def _memory(array: jax.Array) -> int:
    """Return the address of an array, for two arrays may share their memory."""
    try:
        return array.addressable_shards[0].data.unsafe_buffer_pointer()
    except Exception:  # A backend without addresses; what it raises is its own affair.
        return id(array)


def check_state(state: Any) -> None:
    """Raise unless a state is a `State` with a count."""
    if not isinstance(state, State):
        raise WrongKindError(f"state must be a State, got {type(state).__name__}.")
    check_count(state.num_update)


def check_grads(tree: Tree, grads: Any, read: Sequence[bool] | None = None) -> list[Any]:
    """Return gradients in the order of the weights of a tree; a `RowSparse` is one leaf.

    Args:
        tree: of the weights.
        grads: a tree like it.
        read: for every weight whether its gradient is read; None may stand for one that is not.
    """
    needed = [True] * len(tree.names) if read is None else read
    if not tree.whole:
        if grads is None and needed[0]:
            raise WrongKindError("grad must be an array, got NoneType.")
        return [grads]
    leaves, structure = jax.tree.flatten(grads, is_leaf=is_row_sparse)
    if structure == tree.structure:
        return leaves
    if not all(needed):
        try:
            given = tree.structure.flatten_up_to(grads)
        except ValueError:
            pass  # The message below says what is wrong.
        else:
            one = jax.tree.structure(0)
            needs = [grad for grad, reads in zip(given, needed, strict=True) if reads]
            if all(jax.tree.structure(grad, is_leaf=is_row_sparse) == one for grad in needs):
                return given
    second = grads[1] if type(grads) is tuple and len(grads) == 2 else None
    if second is not None and jax.tree.structure(second, is_leaf=is_row_sparse) == tree.structure:
        raise MismatchError(
            "grads must have the structure of params, got a tuple of 2: jax.value_and_grad gives "
            "(value, grads)."
        )
    paths = jax.tree_util.tree_flatten_with_path(grads, is_leaf=is_row_sparse)[0]
    given = {path_name(path) for path, _ in paths}
    missing = [name for name in tree.names if name not in given]
    extra = sorted(given.difference(map(str, tree.names)))
    detail = (
        f"no gradient for {missing[0]!r}"
        if missing
        else f"a gradient for {extra[0]!r}, which is no weight"
        if extra
        else f"structure {structure}, expected {tree.structure}"
    )
    raise MismatchError(f"grads must have the structure of params, got {detail}.")


def check_pair(weight: Any, grad: Any, index: Hashable = None) -> None:
    """Raise unless a weight and its gradient are floating arrays of one shape."""
    check_array("weight", weight, index)
    check_grad(grad, index)
    if weight.shape != grad.shape:
        raise MismatchError(f"grad has shape {grad.shape}, weight has {weight.shape}.", index)


def check_arrays(
    opt: Any,
    weight: Any,
    grad: Any,
    slots: Any,
    master: Any,
    index: Hashable = None,
    lenient: bool = False,
) -> None:
    """Raise unless weight, gradient, slots and master of one update belong together.

    `lenient` lets slots be absent that a hyperparameter other than 0 would need: its value is not
    known, as it is being traced.
    """
    if isinstance(slots, Packed):
        raise WrongKindError(
            "state is of a tree of weights; give it to step, or take it apart with state.unpack.",
            index,
        )
    check_pair(weight, grad, index)
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
    _check_slots(opt, slots, full, index, lenient)


def _check_slots(opt: Any, slots: Any, weight: Any, index: Hashable, lenient: bool) -> None:
    try:
        opt.check_weight(Like(weight.shape, weight.dtype, index))
    except ValueError as error:
        raise MismatchError(str(error), index) from None
    form = _fitting(opt, slots, Like(weight.shape, weight.dtype, index), index, lenient)
    names = getattr(type(slots), "_fields", ())
    for path, (said, given) in _by_path(form, slots):
        name = names[0] if len(names) == 1 and not path else path
        if not hasattr(given, "shape"):
            raise WrongKindError(
                f"state.slots.{name} must be an array, got {type(given).__name__}.", index
            )
        if given.shape != said.shape:
            raise MismatchError(
                f"state.slots.{name} has shape {given.shape}, expected {said.shape} for a "
                f"weight of shape {weight.shape}.",
                index,
            )
        if not jnp.issubdtype(given.dtype, _kind(said.dtype)):
            raise WrongKindError(
                f"state.slots.{name} has dtype {given.dtype}, expected {said.dtype}.", index
            )


def _by_path(form: Any, slots: Any) -> list[tuple[str, tuple[Any, Any]]]:
    paths = jax.tree_util.tree_flatten_with_path(form)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    pairs = zip((said for _, said in paths), jax.tree.leaves(slots), strict=True)
    return list(zip(names, pairs, strict=True))


def _fitting(opt: Any, slots: Any, like: Like, index: Hashable, lenient: bool) -> Any:
    """Return what the algorithm says of these slots, or raise: they are of something else."""
    form, kind = described(opt, like, slots), jax.tree.structure(slots)
    if form is not None and lenient:
        return form
    now, every, none = forms(opt, like)
    kinds = [jax.tree.structure(each) for each in (now, every, none)]
    if kind in kinds[:2]:
        return form
    if kind == kinds[2]:
        # Slots that were left out because a number was 0 then.
        numbers = [n for n in opt._leaf_names if isinstance(getattr(opt, n), NUMBERS)]
        decisive = [
            n for n in numbers if jax.tree.structure(opt._with(**{n: 0.0}).slots(like)) != kinds[0]
        ]
        raise MismatchError(
            f"state must be made with {' and '.join(decisive)} as it is now, got one made with "
            f"{' and '.join(decisive)}=0.0; make it anew.",
            index,
        )
    expected = " or ".join(dict.fromkeys(type(form).__name__ for form in (now, none)))
    if type(slots) in {type(form) for form in (now, every, none)}:
        name, value = _first_other(now, slots)
        raise WrongKindError(
            f"state.slots.{name} must be {'None' if value is not None else 'an array'}, got "
            f"{type(value).__name__}.",
            index,
        )
    given = type(slots).__name__
    if given in expected.split(" or "):
        given = f"another class {given} of {type(slots).__module__}"
        given += f" with {', '.join(getattr(type(slots), '_fields', ())) or 'no fields'}"
    raise WrongKindError(
        f"state is of another algorithm: slots must be {expected}, got {given}.", index
    )


def _first_other(form: Any, slots: Any) -> tuple[str, Any]:
    """Return name and value of the first slot that is None where the form has one, or else."""
    names = getattr(type(form), "_fields", range(len(form)))
    pairs = zip(names, form, slots, strict=False)
    other = ((str(n), given) for n, said, given in pairs if (said is None) != (given is None))
    return next(other, ("", slots))


def _kind(dtype: Any) -> Any:
    kinds = (jnp.floating, jnp.integer)
    return next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), dtype)


def check_names(packed: Packed, names: Sequence[Any]) -> None:
    """Raise unless a layout is of the weights of these names."""
    if (misfit := packed.layout.misfit(names)) is not None:
        raise MismatchError(f"state is of {misfit}; make it with init(params).")


def check_packed(slots: Any, masters: Any, weights: Iterable[Any], names: Any) -> None:
    """Raise unless the state of a tree is laid out for these weights."""
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
