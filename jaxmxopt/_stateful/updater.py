"""MXNet's Updater: an optimizer with the states of all weights, by index."""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from jaxmxopt._core.definition import Definition
from jaxmxopt._files.objects import map_arrays
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.saved_states import adopted, dumped, loaded, widened
from jaxmxopt._stateful.updates import check_lists, refuse_traced, updates_of

__all__ = ["Updater", "device_id", "get_updater", "placed"]


class Updater:
    """Update weights by index, and keep their states.

    Args:
        optimizer: an Optimizer, the name of one, or a definition.

    Attributes:
        optimizer: the Optimizer.
        states: what it remembers of each weight, by index.
        states_synced: True if a state is on the devices of its weight; those just loaded are not.
        aggregate_updates: True if a list of weights goes to the optimizer as one.
    """

    def __init__(self, optimizer: Optimizer | Definition | str) -> None:
        self.optimizer = Optimizer.create_optimizer(optimizer)
        self.states: dict[Any, Any] = {}
        self.states_synced: dict[Any, bool] = {}
        self.aggregate_updates = self.optimizer.aggregate_num > 0

    def __call__(self, index: Any, grad: Any, weight: Any) -> Any:
        """Update one weight, or all of a list in one compiled call.

        The state of a weight is made when it comes for the first time. Counts are kept for each
        device, of which the first weight says which it is.

        Args:
            index: any hashable, or a list of them.
            grad: an array or `RowSparse` of the shape of the weight, or a list.
            weight: a floating array, or a list.

        Returns:
            The new weight, or a list of them.

        Raises:
            ValueError: shapes or lengths do not fit. Nothing has changed then.
            TypeError: an argument is not of the kind needed. Nothing has changed then.
        """
        optimizer = self.optimizer
        if not isinstance(index, (list, tuple)):
            index = _decoded(index)
            device = device_id(weight)
            refuse_traced(optimizer, index, grad)
            state = self._state(index, weight)
            optimizer._set_current_context(device)
            if optimizer._unnamed:
                optimizer._look_for_names([index])
            updated = updates_of(optimizer).one(optimizer, index, weight, grad, state)
            weight, self.states[index] = updated
            return weight
        indices = [_decoded(one) for one in index]
        check_lists("Updater", len(indices), grad=grad, weight=weight)
        if not indices:
            return []
        refuse_traced(optimizer, indices, *weight, *grad)
        states = [self._state(one, w) for one, w in zip(indices, weight, strict=True)]
        optimizer._set_current_context(device_id(weight[0]))
        if optimizer._unnamed:
            optimizer._look_for_names(indices)
        run = updates_of(optimizer).several
        weights, states = run(optimizer, indices, weight, grad, states)
        self.states.update(zip(indices, states, strict=True))
        return weights

    def _state(self, index: Hashable, weight: Any) -> Any:
        """Return the state of a weight, made or moved to its devices if need be."""
        try:
            state = self.states.get(index, self)
        except TypeError:
            raise TypeError(f"Updater: index must be hashable, got {index!r}.") from None
        if state is self:
            return self.optimizer.create_state_multi_precision(index, weight)
        if self.states_synced.get(index, True):
            return state
        if getattr(weight, "dtype", None) in (jnp.float16, jnp.bfloat16):
            # A file of 0.1.0 has in half precision what is float32 now.
            state = widened(state, self.optimizer.create_state_multi_precision(index, weight))
        # Kept now: the update may fail.
        self.states[index] = state = placed(state, weight)
        self.states_synced[index] = True
        return state

    def sync_state_context(self, state: Any, context: Any) -> Any:
        """Move the arrays of a state to a device or sharding."""
        return map_arrays(
            lambda leaf: jax.device_put(leaf, context) if hasattr(leaf, "dtype") else leaf, state
        )

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """Return the states as bytes: our own file format, without pickle.

        Args:
            dump_optimizer: tell the hyperparameters, multipliers and schedule of the optimizer
                too. Its algorithm and counts are always told, unlike in MXNet.

        Raises:
            TypeError: a state of a custom optimizer holds what a file cannot.
        """
        return self._dump("Updater.get_states", dump_optimizer)

    def _dump(self, call: str, dump_optimizer: bool) -> bytes:
        return dumped(call, self.optimizer, self.states, dump_optimizer)

    def set_states(self, states: bytes) -> None:
        """Go on from what `get_states` gave, here or in MXNet, or from its `.states` file.

        Where the optimizer is in it, that takes the place of the present one.

        Raises:
            ValueError: the bytes are damaged or of something else. Nothing has changed then.
        """
        self._load("Updater.set_states", states)

    def _load(self, call: str, data: Any) -> None:
        found = loaded(call, data, self.optimizer, self.states)
        self.optimizer = adopted(self.optimizer, found.optimizer)
        self.states = dict(found.states)
        self.states_synced = dict.fromkeys(self.states, False)

    def __repr__(self) -> str:
        return f"Updater({self.optimizer!r}, {len(self.states)} states)"


def get_updater(optimizer: Optimizer | Definition | str) -> Updater:
    """Make an Updater: `weight = updater(index, grad, weight)`.

    Args:
        optimizer: an Optimizer, the name of one, or a definition.
    """
    return Updater(optimizer)


def placed(state: Any, weight: Any) -> Any:
    """Return a state with its arrays where its weight is: those of its shape laid out alike.

    On a mesh the others are whole on every device; the first update lays them out.
    """
    if not isinstance(weight, jax.Array):
        return state
    own = weight.sharding
    others = NamedSharding(own.mesh, PartitionSpec()) if isinstance(own, NamedSharding) else own

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if leaf.shape != weight.shape:
            several = others is own and len(own.device_set) > 1
            return leaf if several else jax.device_put(leaf, others)
        return jax.device_put(leaf, own)

    return map_arrays(move, state)


def _decoded(index: Any) -> Any:
    return index.decode() if isinstance(index, bytes) else index


# The sharding that was asked for last, and its device: results of one program have one sharding.
_latest: tuple[Any, int] = (None, 0)


def device_id(weight: Any) -> int:
    """Return the number of the device of a weight; of several, the first."""
    global _latest
    sharding = getattr(weight, "sharding", None)
    known, number = _latest
    if sharding is known and known is not None:
        return number
    if isinstance(weight, Tracer):
        raise TypeError(
            "weights must be arrays, got a tracer. A stateful optimizer counts on the host, where "
            "jax.jit would count once for all calls: use a definition there."
        )
    if sharding is None:
        return 0
    number = min(device.id for device in sharding.device_set)
    _latest = sharding, number
    return number
