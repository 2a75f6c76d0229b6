"""What wrappers of one definition share."""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.checks import MismatchError, WrongKindError
from jaxmxopt._core.config import Node
from jaxmxopt._core.pure import WHOLE, Definition, as_definition, flatten_states
from jaxmxopt._core.state import State
from jaxmxopt._core.state import own as copied
from jaxmxopt._wrappers.tree import TreeDefinition

__all__ = ["Around", "unpacked"]

Self = TypeVar("Self", bound="Around")


class Around(TreeDefinition):
    """A definition around another.

    Its state is that of the other, with slots of its own around the slots: their first field,
    `inner`, holds those, `per_weight` names the fields that are trees like the weights, and the
    rest are scalars for the whole tree.

    Attributes:
        definition: the one that it is around.
    """

    definition: Node[Definition] = dataclasses.field(kw_only=False)

    _slots_type: ClassVar[Any] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        as_definition(f"{type(self).__name__}: definition", self.definition)

    def replace(self: Self, **changes: Any) -> Self:
        """Returns a copy with some hyperparameters changed.

        What the wrapper has no field for is changed in the definition that it is around.
        """
        own = {name: changes.pop(name) for name in list(changes) if name in self._described}
        if changes:
            own["definition"] = own.get("definition", self.definition).replace(**changes)
        return super().replace(**own)

    # What a wrapper with slots of its own defines, beside `_advance`.

    def _own(self, params: Any, inner: State) -> dict[str, Any]:
        """The first values of its own slots, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define _own.")

    # The definition inside.

    def _inner(self, state: State) -> State:
        """The state of the definition inside."""
        return state if self._slots_type is None else state._replace(slots=state.slots.inner)

    def _outer(self, inner: State, **own: Any) -> State:
        """The state around one of the definition inside."""
        kind = self._slots_type
        return inner if kind is None else inner._replace(slots=kind(inner=inner.slots, **own))

    def _advance_inner(
        self, params: Any, grads: Any, inner: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        if index is WHOLE:
            return self.definition._step(params, grads, inner, ok, False)
        return self.definition._update(index, params, grads, inner)

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        inner = self.definition._create(call, index, weight, masters=masters)
        return inner if self._slots_type is None else self._outer(inner, **self._own(weight, inner))

    def _init(self, params: Any) -> State:
        inner = self.definition._init(params)
        return inner if self._slots_type is None else self._outer(inner, **self._own(params, inner))

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        return self.definition._without_weight(names)

    def _check_form(self, state: Any, index: Hashable) -> None:
        if self._slots_type is None or isinstance(getattr(state, "slots", None), self._slots_type):
            self.definition._check_form(self._inner(state), index)

    def _pack(self, params: Any, states: Any) -> State:
        kind = self._slots_type
        if kind is None:
            return self.definition._pack(params, states)
        names, _, leaves = flatten_states(params, states)
        for name, leaf in zip(names, leaves, strict=True):
            if type(leaf.slots) is not kind:
                raise WrongKindError(
                    f"slots must be {kind.__name__}, got {type(leaf.slots).__name__}.", name
                )
        tree = jax.tree.structure(params)
        inner = self.definition._pack(params, tree.unflatten([self._inner(s) for s in leaves]))
        own = self._own(params, inner)
        per_weight = kind(inner=inner.slots, **own).per_weight
        for field in own:
            values = [getattr(leaf.slots, field) for leaf in leaves]
            if field in per_weight:
                own[field] = tree.unflatten(values)
            elif values:
                own[field] = _common(field, values)
        return self._outer(inner, **own)

    def _reduced(self: Self) -> Self:
        return self._with(definition=self.definition._reduced())

    def _only(self: Self, index: Hashable) -> tuple[Self, Hashable]:
        chosen, index = self.definition._only(index)
        return self._with(definition=chosen), index

    def _rescaling(self, index: Hashable) -> Any:
        return self.definition._rescaling(index)

    def _scaled_by(self: Self, factor: Any) -> Self | None:
        inner = self.definition._scaled_by(factor)
        return None if inner is None else self._with(definition=inner)

    def _unscaled(self: Self) -> Self:
        return self._with(definition=self.definition._unscaled())


def _common(field: str, values: list[Any]) -> Any:
    """What all weights of a tree have in common, told by each."""
    known = {np.asarray(value).item() for value in values if not isinstance(value, Tracer)}
    if len(known) > 1:
        raise MismatchError(f"all slots.{field} must be equal, got {sorted(known)}.")
    return values[0]


def unpacked(state: State, params: Any) -> Any:
    """`State.unpack` for the state of an `Around` with slots of its own."""
    slots = state.slots
    inner = state._replace(slots=slots.inner).unpack(params)
    own = slots._asdict()
    del own["inner"]
    trees = {name: own.pop(name) for name in slots.per_weight}

    def of_weight(state: State, *values: Any) -> State:
        # Scalars of its own for each, so that all can be donated.
        mine = {name: copied(value) for name, value in own.items()}
        mine |= dict(zip(trees, values, strict=True))
        return state._replace(slots=type(slots)(inner=state.slots, **mine))

    is_state = lambda node: isinstance(node, State)  # noqa: E731
    return jax.tree.map(of_weight, inner, *trees.values(), is_leaf=is_state)
