"""Averages of the weights over training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.config import DecayRate, Static
from jaxmxopt._core.definition import Maker
from jaxmxopt._core.engine import Given
from jaxmxopt._core.names import Tree
from jaxmxopt._core.numeric import compute_dtype, is_floating
from jaxmxopt._core.slots import Like
from jaxmxopt._core.state import (
    GroupSlots,
    State,
    counts,
    innermost,
    masters,
    wrapper_slots,
)
from jaxmxopt._wrappers.around import Around

__all__ = ["EMA", "EMASlots"]


def _is_leaf(tree: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(tree))


def _trees(slots: Any) -> tuple[str, ...]:
    return ("average",) if _is_leaf(slots.mass) else ("average", "mass")


@wrapper_slots(_trees)
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

    def _own(self, tree: Tree, inner: State, maker: Maker) -> dict[str, Any]:
        def first(weight: Any) -> Any:
            if not is_floating(weight):
                # A frozen leaf may be anything, and has no average then.
                return None
            like = Like(weight.shape, compute_dtype(weight.dtype))
            # A copy, so that it can be donated beside the weight.
            return maker.slot(like.zeros() if self.debias else like.copy(), weight)

        def mass() -> Any:
            number = 0.0 if self.debias else 1.0
            return maker.slot(Like((), jnp.float32).full(number, (), jnp.float32), None)

        grouped = isinstance(innermost(inner.slots), GroupSlots)
        masses = tree.like([mass() for _ in tree.leaves]) if grouped else mass()
        return {"average": tree.like([first(w) for w in tree.leaves]), "mass": masses}

    def _fields_per_weight(self, inner: State) -> tuple[str, ...]:
        grouped = isinstance(innermost(inner.slots), GroupSlots)
        return ("average", "mass") if grouped else ("average",)

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        before, slots = self._inner(state), state.slots
        weights, inner = self._advance_inner(tree, state, given)
        rate = 1 - jnp.asarray(self.decay)

        def towards(average: Any, value: Any, moved: Any) -> Any:
            if average is None:
                return None
            value = value.astype(average.dtype)
            new = average + lax.convert_element_type(rate, average.dtype) * (value - average)
            return jnp.where(moved, new, average)

        pairs = zip(masters(tree, inner), weights, strict=True)
        full = [weight if master is None else master for master, weight in pairs]
        updates = zip(counts(tree, before), counts(tree, inner), strict=True)
        moved = [old != new for old, new in updates]
        old = zip(self._own_leaves(tree, slots, "average"), full, moved, strict=True)
        average = [towards(*part) for part in old]
        one = jnp.ones((), jnp.float32)
        if _is_leaf(slots.mass):
            mass: Any = towards(slots.mass, one, before.num_update != inner.num_update)
        else:
            masses = zip(self._own_leaves(tree, slots, "mass"), moved, strict=True)
            mass = tree.like([towards(one_mass, one, did) for one_mass, did in masses])
        return weights, self._outer(inner, average=tree.like(average), mass=mass)
