"""Definitions that work on trees, of which a single weight is the smallest."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import jax

from jaxmxopt._core import compiled as _compiled
from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_array,
    check_count,
    check_grad,
    check_where,
)
from jaxmxopt._core.compiled import flatten_grads, flattened
from jaxmxopt._core.one_loop import is_own_program
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE, Definition
from jaxmxopt._core.shared_programs import program_of
from jaxmxopt._core.sparse import is_row_sparse
from jaxmxopt._core.state import State

__all__ = ["TreeDefinition", "map_grads"]


class TreeDefinition(Definition):
    """A definition with one function, `_advance`, for a tree and for one weight alike."""

    # What the slots of its states are; None where they are not its own.
    _slots_type: ClassVar[type | None] = None

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        """One update, traced, of arguments that fit together.

        Args:
            params: a tree of weights, or one weight.
            grads: likewise; a leaf may be a `RowSparse`.
            state: of them.
            ok: scalar bool, False to leave everything as it is; None for always.
            index: of the one weight; `WHOLE` for a tree.
        """
        raise NotImplementedError(f"{type(self).__name__} must define _advance.")

    def _update(self, index: Hashable, weight: Any, grad: Any, state: State) -> Any:
        try:
            chosen, index = self._only(index)
        except TypeError:
            raise WrongKindError(f"index must be hashable, got {index!r}.") from None
        chosen._check_form(state, index)
        structure, numbers = flattened(chosen._reduced())
        run = program_of(self, _advance, structure, index, False, own=is_own_program())
        return run(numbers, weight, state, grad, None)

    def _step(self, params: Any, grads: Any, state: State, where: Any, donate: bool) -> Any:
        self._check_form(state, WHOLE)
        structure, numbers = flattened(self._reduced())
        run = program_of(self, _advance, structure, WHOLE, donate, own=is_own_program())
        return run(numbers, params, state, grads, where)

    def _check_slots(self, state: Any) -> None:
        if not isinstance(state, State):
            raise WrongKindError(f"state must be a State, got {type(state).__name__}.")
        kind = self._slots_type
        if kind is not None and type(state.slots) is not kind:
            raise WrongKindError(
                f"state is of another definition: slots must be {kind.__name__}, "
                f"got {type(state.slots).__name__}."
            )
        check_count(state.num_update)


@functools.lru_cache(maxsize=1024)
def _advance(structure: Any, index: Hashable, donate: bool) -> Callable[..., tuple[Any, State]]:
    """The jitted update of a tree, or of the weight of an index, by a definition."""

    def run(numbers: Any, params: Any, state: State, grads: Any, where: Any) -> Any:
        opt = _compiled.definition(structure, numbers)
        ok = check_where(where)
        opt._check_slots(state)
        names, weights, tree = flatten_with_names(params)
        leaves = flatten_grads(tree, names, grads)
        for name, weight, grad in zip(names, weights, leaves, strict=True):
            name = name if index is WHOLE else None
            check_array("weight", weight, name)
            check_grad(grad, name)
            if weight.shape != grad.shape:
                raise MismatchError(
                    f"grad has shape {grad.shape}, weight has {weight.shape}.", name
                )
        return opt._advance(params, jax.tree.unflatten(tree, leaves), state, ok, index)

    return jax.jit(run, donate_argnums=(1, 2) if donate else ())


def map_grads(function: Callable[..., Any], grads: Any, *rest: Any) -> Any:
    """`jax.tree.map` over gradients, a `RowSparse` of which is one leaf."""
    return jax.tree.map(function, grads, *rest, is_leaf=is_row_sparse)
