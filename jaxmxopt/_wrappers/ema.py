"""Averages of the weights over training."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.config import DecayRate, Static
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.around import Around, unpacked
from jaxmxopt._wrappers.masters import counts, full_weights, grouped

__all__ = ["EMA", "EMASlots", "averaged"]


@exportable
class EMASlots(NamedTuple):
    """The average so far.

    Attributes:
        inner: the slots of the definition inside.
        average: the weighted sum of the weights after each update, like the weights, in float32
            at least.
        mass: float32 scalar, the sum of the weights of that sum. Around `Groups`, which may be
            updated apart, a tree of them like the weights.
    """

    inner: Any
    average: Any
    mass: Any

    @property
    def per_weight(self) -> tuple[str, ...]:
        """The fields that are trees like the weights."""
        return ("average",) if _is_leaf(self.mass) else ("average", "mass")

    def unpacked(self, state: State, params: Any) -> Any:
        """What `State.unpack` gives."""
        return unpacked(state, params)


class EMA(Around):
    r"""Keeps an exponential moving average of the weights; `jaxmxopt.averaged` reads it.

    .. math::

        a &= d\,a + (1 - d)\,w \\
        \bar w &= a / (1 - d^t)

    Training is not changed by it: the average is for evaluation (Polyak and Juditsky, 1992). It
    moves when the weight does, so not in a call that only accumulates or is skipped, and is of the
    float32 masters where there are any.

    Attributes:
        definition: what updates.
        decay: :math:`d` in [0, 1); the average is over the last :math:`1 / (1 - d)` updates.
        debias: as above, so that the first weights count for no more than later ones. False: start
            from the first weights and do not divide.

    Slots: `average` like the weight, `mass` the divisor, which stays right when `decay` changes.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, w = mxopt.EMA(mxopt.SGD(learning_rate=1.0), decay=0.5), jnp.array([4.0])
        >>> state = opt.init(w)
        >>> for grad in (jnp.array([1.0]), jnp.array([3.0])):
        ...     w, state = opt.step(w, grad, state)
        >>> print(w, mxopt.averaged(w, state))
        [0.] [1.]
    """

    decay: DecayRate = 0.999
    debias: Static[bool] = True

    _slots_type = EMASlots

    def _own(self, params: Any, inner: State) -> dict[str, Any]:
        def first(weight: Any) -> jax.Array:
            weight = jnp.asarray(weight)
            dtype = compute_dtype(weight.dtype)
            if self.debias:
                return jnp.zeros_like(weight, dtype)
            # A copy, so that it can be donated beside the weight.
            return jnp.array(weight, dtype)

        def mass(_: Any = None) -> jax.Array:
            return jnp.asarray(0.0 if self.debias else 1.0, jnp.float32)

        masses = jax.tree.map(mass, params) if grouped(inner) else mass()
        return {"average": jax.tree.map(first, params), "mass": masses}

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        before = self._inner(state)
        params, inner = self._advance_inner(params, grads, before, ok, index)
        rate = 1 - jnp.asarray(self.decay)

        def towards(average: jax.Array, value: Any, moved: Any) -> jax.Array:
            value = value.astype(average.dtype)
            new = average + lax.convert_element_type(rate, average.dtype) * (value - average)
            return jnp.where(moved, new, average)

        if index is WHOLE:
            full = full_weights(params, inner)
        else:
            full = params if inner.master is None else inner.master
        moved, one = _moved(params, before, inner), jnp.ones((), jnp.float32)
        mass = jax.tree.map(lambda mass, did: towards(mass, one, did), state.slots.mass, moved)
        if _is_leaf(moved):
            moved = jax.tree.map(lambda _: moved, full)
        average = jax.tree.map(towards, state.slots.average, full, moved)
        return params, self._outer(inner, average=average, mass=mass)


def _moved(params: Any, before: State, after: State) -> Any:
    """Whether an update has been: of all weights, or around groups a tree for each."""
    if not grouped(after):
        return before.num_update != after.num_update
    names, _, tree = flatten_with_names(params)
    old, new = counts(params, before), counts(params, after)
    return tree.unflatten([old[name] != new[name] for name in names])


def _is_leaf(tree: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(tree))


def averaged(params: Any, state: State | Mapping[str, State]) -> Any:
    """Reads the average that an `EMA` keeps, wherever in the definition it stands.

    Args:
        params: the tree of weights that the state is of, or the one weight.
        state: of a definition with an `EMA` in it; of two the outer counts. Or `Trainer.states`.

    Returns:
        A tree like `params`, in the dtypes of the weights. Weights that have not been updated, or
        are of a group without `EMA`, are those given.

    Raises:
        ValueError: there is no `EMA` in the definition, or the state is of other weights.
        TypeError: `state` is none.
    """
    names, weights, tree = flatten_with_names(params)
    found: dict[str, Any] = {}
    whole = _collect_by_name(state, found) if isinstance(state, Mapping) else _of_one(state, found)
    if not found:
        raise ValueError("averaged: state must be of a definition with an EMA, got one without.")
    given = dict(zip(names, weights, strict=True))
    for name in [*found, *(names if whole else ())]:
        if (name in found) != (name in given):
            which = "no weight" if name in found else "no average"
            raise ValueError(f"averaged: params must be what state is of, got {which} at {name!r}.")
    for name, (average, _) in found.items():
        if given[name].shape != average.shape:
            raise ValueError(
                f"averaged: params must be what state is of, got shape {given[name].shape} at "
                f"{name!r}, expected {average.shape}."
            )
    return tree.unflatten([_read(given[name], found.get(name)) for name in names])


def _of_one(state: Any, found: dict[str, Any]) -> bool:
    if not isinstance(state, State):
        raise TypeError(f"averaged: state must be a State, got {type(state).__name__}.")
    return _collect(state, found)


def _collect_by_name(states: Mapping[str, Any], found: dict[str, Any]) -> bool:
    """`_collect` for states by path, of which one of a whole tree is under the empty one."""
    whole = True
    for name, state in states.items():
        inside: dict[str, Any] = {}
        whole = _of_one(state, inside) and whole
        found.update({"/".join(filter(None, (name, path))): inside[path] for path in inside})
    return whole


def _collect(state: State, found: dict[str, Any]) -> bool:
    """Finds the average and its mass of every weight that has one, by path.

    Returns:
        Whether weights that are not found are not of this state.
    """
    slots = state.slots
    while hasattr(slots, "inner"):
        if isinstance(slots, EMASlots):
            names, leaves, _ = flatten_with_names(slots.average)
            masses = jax.tree.leaves(slots.mass)
            masses = masses * len(names) if _is_leaf(slots.mass) else masses
            found.update(zip(names, zip(leaves, masses, strict=True), strict=True))
            return True
        slots = slots.inner
    for part in getattr(slots, "states", ()):
        _collect(part, found)
    return False


def _read(weight: Any, entry: tuple[jax.Array, jax.Array] | None) -> Any:
    if entry is None:
        return weight
    average, mass = entry
    mass = mass.astype(average.dtype)
    known = average / jnp.where(mass > 0, mass, 1)
    return jnp.where(mass > 0, known.astype(weight.dtype), weight)
