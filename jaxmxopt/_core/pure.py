"""The pure functions that every definition offers: algorithms, wrappers, and what comes from optax.

Here stand the signatures, and which call and index an error was about.
"""

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Final, TypeVar

import jax

from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_count,
    explained,
    not_an_array,
    unusable,
)
from jaxmxopt._core.config import Config
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.shared_programs import hand_on
from jaxmxopt._core.state import State

__all__ = ["WHOLE", "Definition", "as_definition", "flatten_states", "instead"]

Self = TypeVar("Self", bound="Definition")


class _Whole:
    """What stands in the place of an index where a whole tree is meant."""

    def __repr__(self) -> str:
        return "WHOLE"


WHOLE: Final[Hashable] = _Whole()


class Definition(Config):
    """What updates weights, as an immutable value: an `OptimizerDef`, or a wrapper around some.

    All functions are pure: they return new weights and states. They work inside and outside
    `jax.jit`, and under `vmap`, `scan`, `grad` and `shard_map`.
    """

    # Whether the update of a weight depends on the other weights of its tree.
    _joint: ClassVar[bool] = False

    # One weight.

    def create_state(self, index: Hashable, weight: Any) -> State:
        """Makes the state of one weight.

        Args:
            index: any hashable; the weight's key in `lr_mult` and `wd_mult`.
            weight: a floating array of any shape.

        Returns:
            A `State` without a master, its slots in the dtype and on the devices of the weight.

        Raises:
            TypeError: the weight is not a floating array.
        """
        return self._create("create_state", index, weight, masters=False)

    def create_state_multi_precision(self, index: Hashable, weight: Any) -> State:
        """Makes the state of one weight, with a float32 master where `multi_precision` wants one.

        Half-precision weights without `multi_precision` warn, once a process.
        """
        return self._create("create_state_multi_precision", index, weight, masters=True)

    def update(self, index: Hashable, weight: Any, grad: Any, state: State) -> tuple[Any, State]:
        """Updates one weight.

        Args:
            index: as given to `create_state`; static under `jax.jit`.
            weight: floating, of any shape.
            grad: an array of the same shape, or a `RowSparse` of that shape.
            state: of this weight; its master is used where it has one.

        Returns:
            The new weight, of the old one's shape and dtype, and the new state.

        Raises:
            ValueError: shapes do not fit, or the state lacks slots that a hyperparameter needs now,
                such as a momentum that was 0. Nothing has changed then, nor with a TypeError.
            TypeError: an argument is not a floating array, or the slots are not those that the
                algorithm makes.
        """
        try:
            return self._update(index, weight, grad, state)
        except (MismatchError, WrongKindError) as error:
            raise explained(f"{type(self).__name__}.update", error, index) from None
        except (TypeError, ValueError, RuntimeError) as error:
            given = {"weight": weight, "grad": grad, "state": state}
            wrong = not_an_array(**given) or unusable(error, **given)
            if wrong is None:
                raise
            raise explained(f"{type(self).__name__}.update", wrong, index) from None

    def update_multi_precision(
        self, index: Hashable, weight: Any, grad: Any, state: State
    ) -> tuple[Any, State]:
        """MXNet's name for `update`, which follows the state it is given."""
        return self.update(index, weight, grad, state)

    # Whole trees.

    def init(self, params: Any) -> State:
        """Makes the state of a tree of weights.

        Args:
            params: any pytree of floating arrays. The index of a leaf is its path joined by `/`,
                such as `"decoder/0/kernel"`.

        Returns:
            One `State` for the tree. Small weights of which very many have one shape share their
            slots' arrays; `state.unpack(params)` shows them weight by weight.

        Raises:
            TypeError: a leaf is not a floating array; the message has its path.

        Warns:
            UserWarning: a key of a multiplier or a pattern of `Groups` is of no weight.
        """
        names, _, _ = flatten_with_names(params)
        for message in self._without_weight(names) if names else ():
            warn_caller(f"{type(self).__name__}.init: {message}")
        return self._init(params)

    def step(
        self, params: Any, grads: Any, state: State, *, where: Any = None, donate: bool = False
    ) -> tuple[Any, State]:
        """Updates a whole tree of weights in one compiled call.

        Args:
            params: the tree of weights.
            grads: a tree of the same structure; a leaf may be a `RowSparse`.
            state: from `init`.
            where: a scalar bool array; False leaves everything untouched, counts included.
            donate: reuse the buffers of `params` and `state`, which are dead afterwards.
                Without effect inside another `jax.jit`, which has its own `donate_argnums`.

        Returns:
            The new weights and the new state.

        Raises:
            ValueError: structures, shapes or the names of the weights do not fit; the message has
                the path. Or the state lacks slots, as of `update`. Nothing has changed then, nor
                with a TypeError.
            TypeError: a leaf is not a floating array, or the slots are not those that the
                algorithm makes.
        """
        try:
            if not isinstance(state, State):
                raise WrongKindError(f"state must be a State, got {type(state).__name__}.")
            return self._step(params, grads, state, where, donate)
        except (MismatchError, WrongKindError) as error:
            raise explained(f"{type(self).__name__}.step", error) from None
        except (TypeError, ValueError, RuntimeError) as error:
            given = {"weight": params, "grad": grads, "state": state, "where": where}
            wrong = not_an_array(**given) or unusable(error, **given)
            if wrong is None:
                raise
            raise explained(f"{type(self).__name__}.step", wrong) from None

    def pack(self, params: Any, states: Any) -> State:
        """Makes the state of a tree from states weight by weight: the inverse of `State.unpack`.

        Args:
            params: the tree of weights.
            states: a tree like `params` of `State`, all with the same `num_update`.

        Raises:
            ValueError: structures differ, or so do the counts.
        """
        try:
            return self._pack(params, states)
        except (MismatchError, WrongKindError) as error:
            raise explained(f"{type(self).__name__}.pack", error) from None

    def replace(self: Self, **changes: Any) -> Self:
        """Returns a copy with some fields changed, checked like a new one."""
        return hand_on(self, super().replace(**changes))

    # What a subclass defines; errors of these do not say which call it was.

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        """The first state of one weight, for errors in `call`."""
        raise NotImplementedError(f"{type(self).__name__} must define _create.")

    def _update(self, index: Hashable, weight: Any, grad: Any, state: State) -> Any:
        """The new weight and state."""
        raise NotImplementedError(f"{type(self).__name__} must define _update.")

    def _init(self, params: Any) -> State:
        """The first state of a tree of weights."""
        raise NotImplementedError(f"{type(self).__name__} must define _init.")

    def _step(self, params: Any, grads: Any, state: State, where: Any, donate: bool) -> Any:
        """The new tree of weights and its state."""
        raise NotImplementedError(f"{type(self).__name__} must define _step.")

    def _pack(self, params: Any, states: Any) -> State:
        """The state of a tree of weights from those of the weights."""
        raise NotImplementedError(f"{type(self).__name__} must define _pack.")

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        """What is said of weights that are not among these, as messages."""
        del names
        return []

    def _check_form(self, state: Any, index: Hashable) -> None:
        """Raises MismatchError for a state whose slots hyperparameters of now do not make."""
        del state, index

    def _reduced(self: Self) -> Self:
        """The same for a compiled function: what is known not to count is structure there."""
        return self

    def _only(self, index: Hashable) -> tuple["Definition", Hashable]:
        """The same for one weight alone, and its index there; weights alike give equal ones."""
        return self, index

    def _rescaling(self, index: Hashable) -> Any:
        """What the gradient of a weight is multiplied by before anything else."""
        del index
        return self.__dict__["rescale_grad"]

    def _unscaled(self: Self) -> Self:
        """The same for gradients that `_rescaling` is in already."""
        return self._with(rescale_grad=1.0)

    def _scaled_by(self: Self, factor: Any) -> Self | None:
        """The same for gradients that a factor is yet to multiply; None where it must be first."""
        del factor
        return None

    def _with(self: Self, **fields: Any) -> Self:
        """A copy with fields that no check may see."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__getstate__(), **fields)
        return copy


def as_definition(what: str, given: Any) -> Definition:
    """Refuses what is no definition, with a word on what to give instead."""
    if isinstance(given, Definition):
        return given
    raise TypeError(f"{what} must be an optimizer such as jaxmxopt.Adam(), got {instead(given)}.")


def instead(given: Any) -> str:
    """What somebody gave where a definition is needed, and what would be one."""
    if isinstance(given, type):
        name = given.__name__
        callable_one = issubclass(given, Definition) or hasattr(given, "create_optimizer")
        return f"the class {name}" + (f"; call it: {name}()" if callable_one else "")
    if isinstance(getattr(given, "definition", None), Definition):
        return f"{given!r}; give its `definition`"
    if hasattr(given, "init") and hasattr(given, "update"):
        return f"{type(given).__name__}; jaxmxopt.interop.from_optax takes it"
    return repr(given) if isinstance(given, (str, int, float, type(None))) else type(given).__name__


def flatten_states(params: Any, states: Any) -> tuple[list[str], list[Any], list[State]]:
    """Flattens weights and, along them, their states; gives the names of the weights too."""
    names, weights, tree = flatten_with_names(params)
    leaves, states_tree = jax.tree.flatten(states, is_leaf=lambda node: isinstance(node, State))
    if states_tree != tree:
        raise MismatchError(
            "states must be a tree like params with a State for every weight, "
            f"got {states_tree}, expected {tree}."
        )
    for name, leaf in zip(names, leaves, strict=True):
        if not isinstance(leaf, State):
            raise WrongKindError(f"state must be a State, got {type(leaf).__name__}.", name)
        check_count(leaf.num_update)
    return names, weights, leaves
