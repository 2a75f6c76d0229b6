"""The base of wrappers of one definition."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from jaxmxopt._core.checks import MismatchError, WrongKindError
from jaxmxopt._core.config import Node
from jaxmxopt._core.definition import Definition, Maker, as_definition
from jaxmxopt._core.engine import Given
from jaxmxopt._core.names import Tree
from jaxmxopt._core.state import State, common, per_weight

__all__ = ["Around"]

Self = TypeVar("Self", bound="Around")


class Around(Definition):
    """A definition around another.

    Its state is that of the other, with slots of its own around the slots: `_slots_type`, declared
    by `wrapper_slots`.

    Attributes:
        definition: the one inside.
    """

    definition: Node[Definition] = dataclasses.field(kw_only=False)

    # None where the wrapper keeps nothing itself.
    _slots_type: ClassVar[Any] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        as_definition(f"{type(self).__name__}: definition", self.definition)

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some hyperparameters changed.

        What the wrapper has no field for is changed in the definition inside.
        """
        own = {name: changes.pop(name) for name in list(changes) if name in self._described}
        if changes:
            own["definition"] = own.get("definition", self.definition).replace(**changes)
        return super().replace(**own)

    # What a wrapper with slots of its own defines, beside `_advance`.

    def _own(self, tree: Tree, inner: State, maker: Maker) -> dict[str, Any]:
        """Return the first values of the wrapper's own slots, by name."""
        raise NotImplementedError(f"{type(self).__name__} must define _own.")

    # What every definition implements.

    def _begin(self, tree: Tree, maker: Maker) -> State:
        inner = self.definition._begin(tree, maker)
        if self._slots_type is None:
            return inner
        return self._outer(inner, **self._own(tree, inner, maker))

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        kind = self._slots_type
        if kind is None:
            return self.definition._packed(tree, states)
        for name, state in zip(tree.names, states, strict=True):
            if type(state.slots) is not kind:
                raise WrongKindError(
                    f"slots must be {kind.__name__}, got {type(state.slots).__name__}.", name
                )
        inner = self.definition._packed(tree, [self._inner(state) for state in states])
        fields: Sequence[str] = [field for field in kind._fields if field != "inner"]
        own: dict[str, Any] = {}
        for field in fields:
            values = [getattr(state.slots, field) for state in states]
            trees = self._fields_per_weight(inner)
            try:
                own[field] = tree.like(values) if field in trees else common(field, values)
            except ValueError as error:
                raise MismatchError(f"slots.{error}") from None
        return self._outer(inner, **own)

    def _fields_per_weight(self, inner: State) -> tuple[str, ...]:
        """Return the names of the wrapper's own slots that are trees like the weights."""
        raise NotImplementedError(f"{type(self).__name__} must define _fields_per_weight.")

    def _for(self: Self, index: Hashable, shape: Sequence[int]) -> tuple[Self, Hashable]:
        chosen, static = self.definition._for(index, shape)
        return self._with(definition=chosen), static

    def _map(self: Self, function: Callable[[Any, Any], Any], state: Any = None) -> Self:
        inner = None if state is None else self._inner(state)
        return self._with(definition=self.definition._map(function, inner))

    def _unmatched(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        return self.definition._unmatched(shapes)

    # The definition inside.

    def _inner(self, state: State) -> State:
        """Return the state of the definition inside."""
        if self._slots_type is None:
            return state
        if type(state.slots) is not self._slots_type:
            raise WrongKindError(
                f"state is of another definition: slots must be {self._slots_type.__name__}, "
                f"got {type(state.slots).__name__}."
            )
        return state._replace(slots=state.slots.inner)

    def _outer(self, inner: State, **own: Any) -> State:
        """Return the state around one of the definition inside."""
        kind = self._slots_type
        return inner if kind is None else inner._replace(slots=kind(inner=inner.slots, **own))

    def _own_leaves(self, tree: Tree, slots: Any, field: str) -> list[Any]:
        """Return the values of one of the wrapper's own slots, weight by weight."""
        value = getattr(slots, field)
        if field not in per_weight(slots):
            return [value] * len(tree.names)
        try:
            return tree.structure.flatten_up_to(value)
        except ValueError:
            raise MismatchError(
                f"state.slots.{field} is not of these weights; make it with init(params)."
            ) from None

    def _advance_inner(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        return self.definition._advance(tree, self._inner(state), given)
