"""The state of one weight, or of a whole tree of weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.exported import exportable
from jaxmxopt._core.layout import Packed
from jaxmxopt._core.paths import flatten_with_names

__all__ = ["MasterState", "State"]


@exportable
class State(NamedTuple):
    """What an optimizer remembers between updates: of one weight, or of a tree.

    Attributes:
        num_update: int32 scalar, the updates so far.
        slots: for one weight the algorithm's own NamedTuple under MXNet's names, `()` where it
            has none; for a tree the same, laid out for speed: see `unpack`.
        master: the float32 copy of a half-precision weight, or None.
    """

    num_update: jax.Array
    slots: Any
    master: Any

    def unpack(self, params: Any) -> Any:
        """Shows the state of a tree weight by weight.

        Args:
            params: the tree that the state was made for.

        Returns:
            A tree like `params` with a `State` for every weight. Leaves that the engine keeps
            stacked are sliced out; `OptimizerDef.pack` goes back.

        Raises:
            TypeError: this is the state of one weight.
            ValueError: it is of other weights.
        """
        if hasattr(self.slots, "unpacked"):
            return self.slots.unpacked(self, params)
        if not isinstance(self.slots, Packed) or not isinstance(self.master, Packed):
            raise TypeError("State.unpack: this is the state of one weight, not of a tree.")
        names, _, structure = flatten_with_names(params)
        if (misfit := self.slots.layout.misfit(names)) is not None:
            raise ValueError(f"State.unpack: the state is of {misfit}.")
        slots, masters = self.slots.unpack(), self.master.unpack()
        # A count of its own for each, so that all can be donated.
        states = [State(own(self.num_update), *both) for both in zip(slots, masters, strict=True)]
        return jax.tree.unflatten(structure, states)


def own(scalar: Any) -> Any:
    """A copy of an array; what stands for one, such as its sharding, as it is."""
    return jnp.array(scalar) if isinstance(scalar, (jax.Array, np.ndarray)) else scalar


@exportable
class MasterState(NamedTuple):
    """What a stateful optimizer keeps for a half-precision weight: `master, slots = state`.

    Attributes:
        master: the float32 copy of the weight.
        slots: the algorithm's own, in float32; for a custom optimizer what its `create_state`
            made of the master.
    """

    master: jax.Array
    slots: Any
