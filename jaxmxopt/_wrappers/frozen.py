"""Weights that stay as they are."""

from collections.abc import Hashable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxmxopt._core.layout import Layout
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import Definition, flatten_states
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.tree import TreeDefinition

__all__ = ["Frozen"]

Self = TypeVar("Self", bound="Frozen")


class Frozen(TreeDefinition):
    """Leaves weights as they are, reads no gradient and keeps nothing but a count.

    What `None` stands for in `Groups`.
    """

    def replace(self: Self, **changes: Any) -> Self:
        """Returns itself: it has no hyperparameters, and groups hand those on to all."""
        del changes
        return self

    def __repr__(self) -> str:
        return "None"

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        del call, index, weight, masters
        return State(_first_count(), (), None)

    def _init(self, params: Any) -> State:
        return self._of(params, _first_count())

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        del grads, index
        count = state.num_update + (1 if ok is None else ok.astype(jnp.int32))
        return params, state._replace(num_update=count)

    def _pack(self, params: Any, states: Any) -> State:
        _, _, leaves = flatten_states(params, states)
        return self._of(params, leaves[0].num_update if leaves else _first_count())

    def _of(self, params: Any, count: Any) -> State:
        names, weights, _ = flatten_with_names(params)
        layout = Layout.of(weights, [None] * len(weights), names)
        nothing = layout.pack([()] * len(weights))
        return State(count, nothing, layout.pack([None] * len(weights)))

    def _only(self, index: Hashable) -> tuple[Definition, Hashable]:
        hash(index)
        return self, ""

    def _rescaling(self, index: Hashable) -> Any:
        # A norm of all gradients does not see those that nobody reads.
        del index
        return 0.0

    def _scaled_by(self: Self, factor: Any) -> Self:
        del factor
        return self

    def _unscaled(self: Self) -> Self:
        return self


def _first_count() -> jax.Array:
    return jnp.zeros((), jnp.int32)
